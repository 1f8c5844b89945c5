/* Mappings: contents, protection, flags, files behind them, reservations, and that dropped pages are zeros again. */
#include "guest.h"

#include <setjmp.h>

enum { PAGE = 4096, ROOM = 1 << 20 };
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

static char maps_text[ROOM];

/* The line of /proc/self/maps that begins at `at`, copied. */
static char *maps_line(const void *at) {
    char key[32];
    snprintf(key, sizeof key, "\n%lx-", (unsigned long)at);
    maps_text[0] = '\n';
    slurp("/proc/self/maps", maps_text + 1, sizeof maps_text - 1);
    char *line = strstr(maps_text, key);
    CHECK(line, "no mapping begins at %p", at);
    return strndup(line + 1, strcspn(line + 1, "\n"));
}

/* The VmFlags of the mapping that begins at `at`, without those that come and go by themselves (sd: soft-dirty). */
static char *vm_flags(const void *at) {
    static char text[8 * ROOM];
    char key[32];
    snprintf(key, sizeof key, "\n%lx-", (unsigned long)at);
    text[0] = '\n';
    slurp("/proc/self/smaps", text + 1, sizeof text - 1);
    char *entry = strstr(text, key);
    CHECK(entry, "no mapping begins at %p", at);
    char *flags = strstr(entry, "VmFlags: ");
    CHECK(flags, "no VmFlags");
    char *copy = strndup(flags + 9, strcspn(flags + 9, "\n"));
    char *dirty = strstr(copy, "sd ");
    if (dirty) memmove(dirty, dirty + 3, strlen(dirty + 3) + 1);
    return copy;
}

static sigjmp_buf fault;
static void on_fault(int signal) {
    siglongjmp(fault, signal);
}

/* The signal that a touch of this byte brings, or 0. */
static int touch(volatile char *at, int write) {
    int signal = sigsetjmp(fault, 1);
    if (signal) return signal;
    char byte = *at;
    if (write) *at = byte;
    return 0;
}

static struct area {
    const char *what;
    char *at;
    size_t len;
    char *line, *flags;
} areas[32];
static int count;

/* Between two of them lies an inaccessible page of another kind, so that the kernel merges none. */
static char *area(const char *what, size_t len, int prot, int flags, int fd, off_t offset) {
    char *at = mmap(NULL, len + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MUST(at);
    at = mmap(at + PAGE, len, prot, flags | MAP_FIXED, fd, offset);
    MUST(at);
    areas[count++] = (struct area){what, at, len, NULL, NULL};
    return at;
}

static char *anonymous(const char *what, size_t pages) {
    return area(what, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int main(void) {
    struct sigaction action = {.sa_handler = on_fault};
    MUST(sigaction(SIGSEGV, &action, NULL));
    MUST(sigaction(SIGBUS, &action, NULL));

    char *plain = anonymous("plain", 64);
    fill(1, plain, 64 * PAGE);
    char *read_only = anonymous("read-only", 8);
    fill(2, read_only, 8 * PAGE);
    MUST(mprotect(read_only, 8 * PAGE, PROT_READ));
    char *hidden = anonymous("hidden", 4);
    fill(3, hidden, 4 * PAGE);
    MUST(mprotect(hidden, 4 * PAGE, PROT_NONE));
    char *code = anonymous("code", 1);
    memcpy(code, "\xb8\x2a\0\0\0\xc3", 6); /* mov eax, 42; ret */
    MUST(mprotect(code, PAGE, PROT_READ | PROT_EXEC));
    char *holes = anonymous("holes", 256);
    for (int i = 0; i < 256; i += 3) fill(100 + i, holes + i * PAGE, PAGE);
    size_t huge = (size_t)1 << 40;
    char *reserved = area("1 TiB", huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *touched[3] = {reserved, reserved + (huge / 2 & -PAGE), reserved + huge - PAGE};
    for (int i = 0; i < 3; i++) fill(4 + i, touched[i], PAGE);
    char *stack = area("growing down", 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0);
    fill(8, stack, 16 * PAGE);
    char *free_below = mmap(NULL, 8 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MUST(free_below);
    MUST(munmap(free_below, 8 << 20));
    char *grows = mmap(free_below + (8 << 20) - 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    MUST(grows);
    fill(16, grows, 4 * PAGE);
    char *no_dump = anonymous("not dumped", 2), *no_fork = anonymous("not forked", 2), *wiped = anonymous("wiped", 2),
         *small = anonymous("no huge pages", 2), *big = anonymous("huge pages", 1024), *locked = anonymous("locked", 2);
    MUST(madvise(no_dump, 2 * PAGE, MADV_DONTDUMP));
    MUST(madvise(no_fork, 2 * PAGE, MADV_DONTFORK));
    MUST(madvise(wiped, 2 * PAGE, MADV_WIPEONFORK));
    MUST(madvise(small, 2 * PAGE, MADV_NOHUGEPAGE));
    MUST(madvise(big, 1024 * PAGE, MADV_HUGEPAGE));
    MUST(mlock(locked, 2 * PAGE));
    fill(9, no_dump, 2 * PAGE);
    fill(10, no_fork, 2 * PAGE);
    fill(11, wiped, 2 * PAGE);
    fill(12, small, 2 * PAGE);
    fill(13, big, 1024 * PAGE);
    fill(14, locked, 2 * PAGE);
    char *slow = anonymous("locked when touched", 3);
    MUST(syscall(SYS_mlock2, slow, 3 * PAGE, 1));
    slow[PAGE] = 1;
    char *secret = anonymous("locked, then hidden", 2);
    MUST(mlock(secret, 2 * PAGE));
    fill(15, secret, 2 * PAGE);
    MUST(mprotect(secret, 2 * PAGE, PROT_NONE));
    char *merged = anonymous("mergeable", 2), *ahead = anonymous("sequential", 2), *wild = anonymous("random", 2);
    madvise(merged, 2 * PAGE, MADV_MERGEABLE);
    MUST(madvise(ahead, 2 * PAGE, MADV_SEQUENTIAL));
    MUST(madvise(wild, 2 * PAGE, MADV_RANDOM));
    char *only_run = anonymous("execute only", 1);
    memcpy(only_run, "\xb8\x2b\0\0\0\xc3", 6); /* mov eax, 43; ret */
    MUST(mprotect(only_run, PAGE, PROT_EXEC));

    spill("mapped", "");
    int fd = open("mapped", O_RDWR | O_CLOEXEC);
    MUST(fd);
    MUST(ftruncate(fd, 6 * PAGE + 100));
    char *shared = area("shared file", 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    fill(20, shared, 4 * PAGE);
    char *private = area("private file", 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 4 * PAGE);
    private[2 * PAGE] = 5; /* copied on write; the page before it stays the file's */
    char *beyond = area("private, written, past the end", 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 5 * PAGE);
    beyond[9] = 6;
    char *past = area("past the end", 3 * PAGE, PROT_READ, MAP_PRIVATE, fd, 5 * PAGE);
    MUST(close(fd));
    fd = open("mapped", O_RDONLY | O_CLOEXEC);
    MUST(fd);
    area("shared, read only", 2 * PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
    MUST(close(fd));
    char *zeros = anonymous("written with zeros", 16);
    memset(zeros, 0, 16 * PAGE);
    for (int i = 0; i < count; i++) {
        areas[i].line = maps_line(areas[i].at);
        areas[i].flags = vm_flags(areas[i].at);
    }

    say("ready");
    wait_to_go();

    for (int i = 0; i < count; i++) {
        char *line = maps_line(areas[i].at), *flags = vm_flags(areas[i].at);
        CHECK(!strcmp(line, areas[i].line), "%s: mapping '%s', was '%s'", areas[i].what, line, areas[i].line);
        CHECK(!strcmp(flags, areas[i].flags), "%s: flags '%s', were '%s'", areas[i].what, flags, areas[i].flags);
    }
    CHECK(touch(hidden, 0) == SIGSEGV, "hidden: it can be read");
    CHECK(touch(read_only, 1) == SIGSEGV, "read-only: it can be written");
    CHECK(beyond[9] == 6 && touch(beyond + 2 * PAGE, 0) == SIGBUS, "private, written, past the end: changed");
    CHECK(touch(past + 2 * PAGE, 0) == SIGBUS, "past the end of the file: no SIGBUS");
    CHECK(touch(plain - 1, 0) == SIGSEGV, "there is something below a mapping");
    expect_filled(1, plain, 64 * PAGE);
    expect_filled(2, read_only, 8 * PAGE);
    MUST(mprotect(hidden, 4 * PAGE, PROT_READ));
    expect_filled(3, hidden, 4 * PAGE);
    CHECK(((int (*)(void))(uintptr_t)code)() == 42, "code: it does not run");
    for (int i = 0; i < 256; i++) {
        if (i % 3 == 0) expect_filled(100 + i, holes + i * PAGE, PAGE);
        else CHECK(holes[i * PAGE + 17] == 0, "holes: page %d is not zero", i);
    }
    for (int i = 0; i < 3; i++) expect_filled(4 + i, touched[i], PAGE);
    CHECK(reserved[huge / 4] == 0, "1 TiB: an untouched page is not zero");
    expect_filled(8, stack, 16 * PAGE);
    expect_filled(9, no_dump, 2 * PAGE);
    expect_filled(10, no_fork, 2 * PAGE);
    expect_filled(11, wiped, 2 * PAGE);
    expect_filled(12, small, 2 * PAGE);
    expect_filled(13, big, 1024 * PAGE);
    expect_filled(14, locked, 2 * PAGE);
    expect_filled(16, grows, 4 * PAGE);
    for (int i = 1; i <= 64; i++) CHECK(touch(grows - i * PAGE, 1) == 0, "a stack does not grow to %d pages", i);
    MUST(mprotect(secret, 2 * PAGE, PROT_READ));
    expect_filled(15, secret, 2 * PAGE);
    CHECK(((int (*)(void))(uintptr_t)only_run)() == 43, "execute only: it does not run");
    expect_filled(20, shared, 4 * PAGE);
    CHECK(private[2 * PAGE] == 5, "private file: the written byte is %d", private[2 * PAGE]);
    fd = open("mapped", O_RDWR | O_CLOEXEC);
    MUST(fd);
    char byte = 0;
    CHECK(pread(fd, &byte, 1, 6 * PAGE) == 1 && byte == 0, "private file: the write went to the file");
    shared[7] = 99;
    CHECK(pread(fd, &byte, 1, 7) == 1 && byte == 99, "shared file: a write does not reach the file");
    CHECK(pwrite(fd, "Z", 1, 4 * PAGE + 9) == 1 && private[PAGE * 0 + 9] == 'Z',
          "private file: an untouched page is no longer the file's");
    for (int i = 0; i < 16 * PAGE; i++) CHECK(zeros[i] == 0, "zeros: byte %d is %d", i, zeros[i]);
    MUST(madvise(plain, 64 * PAGE, MADV_DONTNEED));
    for (int i = 0; i < 64 * PAGE; i++) CHECK(plain[i] == 0, "plain: byte %d after MADV_DONTNEED is %d", i, plain[i]);
    pass();
}
