/* Reserves nearly all addresses below 47 bits (no access, no memory), leaving a few holes of 64 MiB. */
#include "guest.h"

#define HOLE (64ul << 20)
#define TOP 0x7ffffffff000ul

static unsigned long reserved, reservations;

static void reserve(unsigned long start, unsigned long end) {
    if (start >= end) return;
    void *at = mmap((void *)start, end - start, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(at == (void *)start, "set-up: reserving %#lx-%#lx: %s", start, end, strerror(errno));
    reserved += end - start;
    reservations++;
}

/* Takes the gap, less one hole at its upper end where it is roomy (the stack grows into that). */
static void take(unsigned long start, unsigned long end, int *holes) {
    if (end - start > 4 * HOLE && *holes > 0) {
        end -= HOLE;
        --*holes;
    }
    reserve(start, end);
}

static unsigned long gaps_in(const char *maps) {
    unsigned long last = 0, start, end, gaps = 0;
    for (const char *line = maps; line && sscanf(line, "%lx-%lx", &start, &end) == 2; line = strchr(line, '\n') + 1) {
        if (start >= TOP) break;
        gaps += start - last;
        last = end;
        if (!strchr(line, '\n')) break;
    }
    return gaps + TOP - last;
}

int main(void) {
    static char before[1 << 20], after[1 << 20];
    say("setting up");
    char text[32];
    slurp("/proc/sys/vm/mmap_min_addr", text, sizeof text);
    unsigned long last = strtoul(text, NULL, 10), start, end;
    if (last < 4096) last = 4096;
    slurp("/proc/self/maps", before, sizeof before);
    int holes = 3;
    for (char *line = strtok(before, "\n"); line; line = strtok(NULL, "\n")) {
        CHECK(sscanf(line, "%lx-%lx", &start, &end) == 2, "set-up: maps");
        if (start >= TOP) break; /* vsyscall */
        if (start > last) take(last, start, &holes);
        last = end;
    }
    reserve(last, TOP);
    CHECK(reserved >> 40 == 127, "set-up: only %#lx bytes are reserved", reserved);
    slurp("/proc/self/maps", before, sizeof before);
    unsigned long gaps = gaps_in(before);
    CHECK(gaps <= 4 * HOLE, "set-up: %#lx bytes are free", gaps);
    printf("%lu reservations, %lu MiB free\n", reservations, gaps >> 20);

    say("ready");
    wait_to_go();

    slurp("/proc/self/maps", after, sizeof after);
    CHECK(gaps_in(after) + HOLE > gaps, "%#lx bytes are free, were %#lx", gaps_in(after), gaps);
    unsigned long none = 0;
    for (char *line = strtok(after, "\n"); line; line = strtok(NULL, "\n")) {
        char rights[5];
        if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) == 3 && !strcmp(rights, "---p")) none += end - start;
    }
    CHECK(none >= reserved, "%#lx bytes are reserved, were %#lx", none, reserved);
    pass();
}
