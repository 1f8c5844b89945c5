/* Sealed memory (mseal): it can be neither unmapped, moved nor protected otherwise, and its neighbours can. */
#include "guest.h"

enum { PAGE = 4096, MSEAL = 462 };

static char *map(size_t pages, int prot, int flags, int fd) {
    char *at = mmap(NULL, pages * PAGE, prot, flags, fd, 0);
    MUST(at);
    return at;
}

static int seal(void *at, size_t pages) {
    return (int)syscall(MSEAL, at, pages * PAGE, 0UL);
}

static void expect_sealed(const char *what, char *at, size_t pages) {
    CHECK(munmap(at, pages * PAGE) == -1 && errno == EPERM, "%s: munmap: %s", what, strerror(errno));
    CHECK(mprotect(at, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EPERM, "%s: mprotect: %s", what, strerror(errno));
    CHECK(mremap(at, pages * PAGE, 9 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EPERM, "%s: mremap: %s", what, strerror(errno));
    void *over = mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(over == MAP_FAILED && errno == EPERM, "%s: mmap over it: %s", what, strerror(errno));
}

int main(void) {
    if (syscall(MSEAL, 0UL, 0UL, 0UL) == -1) {
        say("left out: this kernel has no mseal (Linux 6.10)");
        say("ready");
        wait_to_go();
        pass();
    }
    char *plain = map(8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    fill(1, plain, 8 * PAGE);
    MUST(seal(plain + 2 * PAGE, 3)); /* writable still */
    char *table = map(4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    fill(2, table, 4 * PAGE);
    MUST(mprotect(table, 4 * PAGE, PROT_READ));
    MUST(seal(table, 4));
    char *none = map(4, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    MUST(seal(none, 4));
    char *locked = map(2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    mlock(locked, 2 * PAGE);
    MUST(seal(locked, 2));
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), own = open("sealed-file", O_RDWR | O_CREAT, 0600);
    MUST(fd);
    MUST(own);
    MUST(ftruncate(own, 2 * PAGE));
    char *code = map(1, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd), *shared = map(2, PROT_READ | PROT_WRITE, MAP_SHARED, own);
    MUST(seal(code, 1));
    fill(3, shared, 2 * PAGE);
    MUST(seal(shared, 2));
    char *all = map(2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
    fill(4, all, 2 * PAGE);
    MUST(seal(all, 2));

    say("ready");
    wait_to_go();

    expect_sealed("in the middle", plain + 2 * PAGE, 3);
    expect_sealed("read-only", table, 4);
    CHECK(madvise(table, PAGE, MADV_DONTNEED) == -1 && errno == EPERM, "read-only: MADV_DONTNEED: %s", strerror(errno));
    expect_sealed("without rights", none, 4);
    expect_sealed("locked", locked, 2);
    expect_sealed("of a file", code, 1);
    expect_sealed("shared", shared, 2);
    expect_sealed("shared memory", all, 2);
    expect_filled(1, plain, 8 * PAGE);
    plain[2 * PAGE] ^= 1;
    expect_filled(2, table, 4 * PAGE);
    expect_filled(3, shared, 2 * PAGE);
    expect_filled(4, all, 2 * PAGE);
    CHECK(!memcmp(code, "\177ELF", 4), "of a file: changed");
    CHECK(!mprotect(plain, 2 * PAGE, PROT_READ) && !munmap(plain + 5 * PAGE, 3 * PAGE), "a neighbour is sealed: %s", strerror(errno));
    pass();
}
