/* Guard regions: pages inside a mapping that cannot be touched, in all kinds of memory. */
#include "guest.h"

#include <setjmp.h>

enum { PAGE = 4096, INSTALL = 102, REMOVE = 103 };

static sigjmp_buf fault;
static void on_fault(int signal) {
    siglongjmp(fault, signal);
}

/* The signal that a touch of this byte brings, or 0. */
static int touch(volatile char *at) {
    int signal = sigsetjmp(fault, 1);
    if (signal) return signal;
    char byte = *at;
    (void)byte;
    return 0;
}

static char *map(size_t pages, int flags, int fd) {
    char *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
    MUST(at);
    return at;
}

/* Which pages fault: one bit each. */
static unsigned guarded(char *at, int pages) {
    unsigned bits = 0;
    for (int i = 0; i < pages; i++) bits |= (touch(at + i * PAGE + 9) == SIGSEGV) << i;
    return bits;
}

int main(void) {
    struct sigaction action = {.sa_handler = on_fault};
    MUST(sigaction(SIGSEGV, &action, NULL));
    char *plain = map(16, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    fill(1, plain, 16 * PAGE);
    int known = !madvise(plain, PAGE, INSTALL);
    spill("file", "");
    int fd = open("file", O_RDWR);
    MUST(ftruncate(fd, 8 * PAGE));
    char *shared = map(8, MAP_SHARED, fd), *private = map(8, MAP_PRIVATE, fd), *locked = map(4, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    char *untouched = map(8, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1), *memory = map(8, MAP_SHARED | MAP_ANONYMOUS, -1);
    fill(2, shared, 8 * PAGE);
    private[0] = 7;
    fill(3, memory, 7 * PAGE);
    int in_files = 0;
    if (known) {
        MUST(madvise(plain + 4 * PAGE, 3 * PAGE, INSTALL));
        MUST(madvise(plain + 15 * PAGE, PAGE, INSTALL));
        MUST(madvise(untouched + 2 * PAGE, 2 * PAGE, INSTALL));
        in_files = !madvise(shared + PAGE, PAGE, INSTALL);
        if (in_files) MUST(madvise(private + 2 * PAGE, 2 * PAGE, INSTALL));
        if (in_files) MUST(madvise(memory + 7 * PAGE, PAGE, INSTALL));
        MUST(madvise(locked + PAGE, PAGE, INSTALL));
        MUST(mprotect(plain + 8 * PAGE, PAGE, PROT_READ)); /* other mappings, and the last ones are next to each other */
    }
    mlock(locked, 4 * PAGE); /* as far as pages are there */
    fill(4, locked, PAGE);

    say("ready");
    wait_to_go();

    if (known) {
        CHECK(guarded(plain, 16) == 0x8071, "plain: guards %#x", guarded(plain, 16));
        CHECK(guarded(untouched, 8) == 0x0c, "untouched: guards %#x", guarded(untouched, 8));
        CHECK(guarded(locked, 4) == 0x02, "locked: guards %#x", guarded(locked, 4));
    }
    if (in_files) {
        CHECK(guarded(shared, 8) == 0x02, "shared: guards %#x", guarded(shared, 8));
        CHECK(guarded(private, 8) == 0x0c, "private: guards %#x", guarded(private, 8));
        CHECK(guarded(memory, 8) == 0x80, "shared memory: guards %#x", guarded(memory, 8));
    }
    char *copy = malloc(16 * PAGE);
    fill(1, copy, 16 * PAGE);
    int first = known ? 1 : 0;
    CHECK(!memcmp(copy + first * PAGE, plain + first * PAGE, (4 - first) * PAGE) && !memcmp(copy + 7 * PAGE, plain + 7 * PAGE, 8 * PAGE),
          "plain: changed");
    fill(2, copy, 8 * PAGE);
    CHECK(!memcmp(copy, shared, PAGE) && !memcmp(copy + 2 * PAGE, shared + 2 * PAGE, 6 * PAGE), "shared: changed");
    CHECK(private[0] == 7 && !memcmp(copy + PAGE, private + PAGE, PAGE) && !memcmp(copy + 4 * PAGE, private + 4 * PAGE, 4 * PAGE),
          "private: changed");
    fill(3, copy, 8 * PAGE);
    CHECK(!memcmp(copy, memory, 7 * PAGE), "shared memory: changed");
    expect_filled(4, locked, PAGE);
    if (known) {
        MUST(madvise(plain, PAGE, REMOVE));
        CHECK(touch(plain) == 0 && plain[5] == 0, "plain: a guard cannot be removed");
    }
    pass();
}
