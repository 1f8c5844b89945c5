/* The kernel's own code: moved to another place by the program, or taken away: all of it (with the argument `none`), or the code alone (`data`), as valgrind
 * does; nothing reads the data then, and it may be gone after a restart. */
#include "guest.h"
#include "vdso.h"

#include <sys/auxv.h>

enum { PARTS = 4 };

/* Names and places of the kernel's mappings, ascending. */
static int parts(char *at[PARTS], size_t len[PARTS]) {
    static char text[1 << 16];
    slurp("/proc/self/maps", text, sizeof text);
    int count = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (!strstr(line, "[vvar") && !strstr(line, "[vdso]")) continue;
        unsigned long from, to;
        CHECK(count < PARTS && sscanf(line, "%lx-%lx", &from, &to) == 2, "set-up: %s", line);
        at[count] = (char *)from;
        len[count++] = to - from;
    }
    return count;
}

typedef int clock_call(clockid_t, struct timespec *);

int main(int argc, char **argv) {
    char *at[PARTS];
    size_t len[PARTS], all = 0;
    int count = parts(at, len);
    if (!count) pass(); /* a kernel without */
    char *vdso = NULL;
    if (argc > 1) {
        for (int i = 0; i < count; i++)
            if (strcmp(argv[1], "data") || i == count - 1) MUST(munmap(at[i], len[i]));
    } else {
        for (int i = 0; i < count; i++) all = (size_t)(at[i] + len[i] - at[0]);
        char *to = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        MUST(to);
        /* Backwards: the calls of the libc go to the old place until it is gone, so none is made in between. */
        for (int i = count - 1; i >= 0; i--) {
            char *new = to + (at[i] - at[0]);
            MUST(mremap(at[i], len[i], len[i], MREMAP_MAYMOVE | MREMAP_FIXED, new));
            at[i] = new;
        }
        vdso = at[count - 1];
        CHECK(!memcmp(vdso, "\177ELF", 4), "set-up: the vdso does not come last");
    }

    say("ready");
    wait_to_go();

    char *now[PARTS];
    size_t now_len[PARTS];
    int now_count = parts(now, now_len);
    if (!vdso) {
        CHECK(now_count < count, "there are %d parts, the code was unmapped", now_count);
        CHECK(!strcmp(argv[1], "data") || now_count == 0, "there are %d parts, was none", now_count);
        pass();
    }
    CHECK(now_count == count, "there are %d parts, were %d", now_count, count);
    for (int i = 0; i < count; i++) CHECK(now[i] == at[i] && now_len[i] == len[i], "part %d is at %p, was at %p", i, (void *)now[i], (void *)at[i]);
    /* The libc's copy of the address is the old one. */
    clock_call *call = (clock_call *)vdso_entry(vdso, "__vdso_clock_gettime");
    CHECK(call, "no clock_gettime");
    struct timespec one, two;
    CHECK(call(CLOCK_MONOTONIC, &one) == 0 && !syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &two), "clock_gettime");
    CHECK(two.tv_sec - one.tv_sec < 100 && two.tv_sec >= one.tv_sec, "clock_gettime: %ld, is %ld", (long)one.tv_sec, (long)two.tv_sec);
    pass();
}
