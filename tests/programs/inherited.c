/* Memory that processes share copy-on-write since fork(2): each has its own contents, whatever it and its relatives have changed since,
 * and what nobody has changed is there once. A child, its own child, and one whose parent has changed everything. */
#include "guest.h"

#include <poll.h>
#include <sys/wait.h>

enum { PAGE = 4096, PAGES = 2048, WORDS = PAGE / 4 };

/* What a page holds in whose eyes: the area it was filled from. */
static unsigned holds[PAGES];
static uint32_t *memory;

static uint32_t word(unsigned from, int page, int index) {
    return (from * 2654435761u) ^ ((unsigned)page * 40503u + (unsigned)index * 69069u);
}

static void put(int page, unsigned from) {
    holds[page] = from;
    for (int i = 0; i < WORDS; i++) memory[page * WORDS + i] = word(from, page, i);
}

/* Gives pages back to the kernel: they are zero. */
static void drop(int page, int count) {
    MUST(madvise((char *)memory + page * PAGE, (size_t)count * PAGE, MADV_DONTNEED));
    for (int i = 0; i < count; i++) holds[page + i] = 0;
}

static int is_right(void) {
    for (int page = 0; page < PAGES; page++)
        for (int i = 0; i < WORDS; i++)
            if (memory[page * WORDS + i] != (holds[page] ? word(holds[page], page, i) : 0)) return 0;
    return 1;
}

/* Kilobytes of this process's memory, what it shares counted in parts. */
static long share(void) {
    static char text[4096];
    slurp("/proc/self/smaps_rollup", text, sizeof text);
    char *line = strstr(text, "\nPss:");
    CHECK(line, "no Pss");
    return atol(line + 5);
}

/* A process of the tree: waits, checks, says how much memory it has, and stays until all have said so. */
static void serve(int say_to, int stay) {
    char byte;
    /* The parent is gone when nobody can write any more. */
    while (!may_go()) {
        struct pollfd parent = {.fd = stay, .events = POLLIN};
        if (poll(&parent, 1, 1) > 0 && !may_go()) _exit(5);
    }
    long mine = is_right() ? share() : -1;
    if (write(say_to, &mine, sizeof mine) != sizeof mine) _exit(3);
    /* What it writes now is its own alone. */
    MUST(mprotect(memory, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE));
    for (int page = 0; page < PAGES; page += 3) put(page, 99);
    if (read(stay, &byte, 1) != 0 || !is_right()) _exit(4);
    _exit(0);
}

int main(void) {
    int says[2], stays[2];
    MUST(pipe(says));
    MUST(pipe(stays));
    memory = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED, "set-up: mmap");
    for (int page = 0; page < PAGES; page++) put(page, 1);
    fflush(stdout);
    int alike = fork();
    MUST(alike);
    if (!alike) {
        close(stays[1]);
        serve(says[1], stays[0]);
    }
    int parted = fork();
    MUST(parted);
    if (!parted) {
        close(stays[1]);
        for (int page = 0; page < PAGES; page += 16) put(page, 2);
        drop(100, 200);
        put(150, 3);
        /* A part of the mapping is another one now. */
        MUST(mprotect((char *)memory + 1000 * PAGE, 64 * PAGE, PROT_READ));
        int below = fork();
        MUST(below);
        if (!below) {
            for (int page = 5; page < 900; page += 16) put(page, 4);
            drop(600, 100);
            serve(says[1], stays[0]);
        }
        serve(says[1], stays[0]);
    }
    /* What the children have still, their parent has not any more. */
    for (int page = 1500; page < 1800; page++) put(page, 5);
    close(stays[0]);

    say("ready");
    wait_to_go();

    CHECK(is_right(), "the parent's memory changed");
    long all = share();
    for (int i = 0; i < 3; i++) {
        long one;
        CHECK(read(says[0], &one, sizeof one) == sizeof one && one >= 0, "a child's memory changed");
        all += one;
    }
    /* 8 MiB, 1.2 that the parent has replaced, 1.3 that children have changed; and what four processes need themselves. */
    CHECK(all < 24 << 10, "%ld KiB, which is not shared", all);
    close(stays[1]);
    for (int i = 0, status; i < 2; i++) {
        CHECK(wait(&status) > 0 && status == 0, "a child ended with %#x", status);
    }
    CHECK(is_right(), "a child's writing changed the parent's memory");
    pass();
}
