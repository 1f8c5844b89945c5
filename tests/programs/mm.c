/* The address space's own fields: heap end, arguments, environment, auxiliary vector, stack; and that both grow. */
#include "guest.h"

enum { ROOM = 1 << 20 };

struct view {
    char cmdline[4096], environ[65536], auxv[4096];
    size_t cmdline_len, environ_len, auxv_len;
    unsigned long field[53];
};

/* Fields of /proc/self/stat by their number in proc(5). */
static const int addresses[] = {26, 27, 28, 45, 46, 47, 48, 49, 50, 51};

static void look(struct view *view) {
    view->cmdline_len = slurp("/proc/self/cmdline", view->cmdline, sizeof view->cmdline);
    view->environ_len = slurp("/proc/self/environ", view->environ, sizeof view->environ);
    view->auxv_len = slurp("/proc/self/auxv", view->auxv, sizeof view->auxv);
    static char stat[4096];
    slurp("/proc/self/stat", stat, sizeof stat);
    char *at = strrchr(stat, ')') + 2;
    for (int i = 3; i < 53; i++) {
        view->field[i] = strtoul(at, NULL, 10);
        at = strchr(at, ' ');
        if (!at) break;
        at++;
    }
}

static int maps_have(const char *name, const void *inside) {
    static char maps[ROOM];
    slurp("/proc/self/maps", maps, sizeof maps);
    for (char *line = strtok(maps, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned long start, end;
        if (!strstr(line, name) || sscanf(line, "%lx-%lx", &start, &end) != 2) continue;
        if ((unsigned long)inside >= start && (unsigned long)inside < end) return 1;
    }
    return 0;
}

__attribute__((noinline)) static unsigned deep(unsigned level) {
    volatile char block[4096];
    block[level % 4096] = (char)level;
    return level == 0 ? 0 : deep(level - 1) + (unsigned char)block[level % 4096] % 2;
}

int main(void) {
    static struct view before, after;
    say("setting up"); /* libc takes its buffer from the heap now, not later */
    char *heap = sbrk(3 * 4096);
    CHECK(heap != (void *)-1, "set-up: sbrk: %s", strerror(errno));
    fill(1, heap, 3 * 4096);
    char *end = sbrk(0);
    look(&before);

    say("ready");
    wait_to_go();

    look(&after);
    CHECK(before.cmdline_len == after.cmdline_len && !memcmp(before.cmdline, after.cmdline, after.cmdline_len),
          "/proc/self/cmdline is '%s', was '%s'", after.cmdline, before.cmdline);
    CHECK(before.environ_len == after.environ_len && !memcmp(before.environ, after.environ, after.environ_len),
          "/proc/self/environ changed (%zu bytes, were %zu)", after.environ_len, before.environ_len);
    CHECK(before.auxv_len == after.auxv_len && !memcmp(before.auxv, after.auxv, after.auxv_len),
          "/proc/self/auxv changed (%zu bytes, were %zu)", after.auxv_len, before.auxv_len);
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        int field = addresses[i];
        CHECK(before.field[field] == after.field[field], "field %d of /proc/self/stat is %#lx, was %#lx", field,
              after.field[field], before.field[field]);
    }
    CHECK(sbrk(0) == end, "the heap ends at %p, ended at %p", sbrk(0), (void *)end);
    expect_filled(1, heap, 3 * 4096);
    char *more = sbrk(1 << 20);
    CHECK(more == end, "sbrk gave %p, the heap ended at %p", (void *)more, (void *)end);
    for (size_t i = 0; i < 1 << 20; i++) CHECK(more[i] == 0, "new heap byte %zu is %#x", i, more[i]);
    memset(more, 7, 1 << 20);
    CHECK(maps_have("[heap]", heap), "no [heap] in /proc/self/maps");
    CHECK(maps_have("[stack]", &heap), "no [stack] in /proc/self/maps");
    /* 5 MiB of 8: the stack must still be one that grows. */
    CHECK(deep(1200) < 2000, "deep");
    pass();
}
