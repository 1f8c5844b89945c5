/* Contents that no named file holds: shared anonymous memory, memfds, deleted and unnamed files, POSIX shared memory. */
#include "guest.h"

#include <sys/file.h>
#include <sys/wait.h>

enum { PAGE = 4096 };
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

static char *map(size_t len, int prot, int flags, int fd, off_t offset) {
    char *at = mmap(NULL, len, prot, flags, fd, offset);
    MUST(at);
    return at;
}

/* A descriptor as it was. */
static struct seen {
    const char *what;
    int fd, flags, cloexec;
    off_t offset;
    struct stat stat;
} seen[32];
static int count;

static int see(const char *what, int fd) {
    MUST(fd);
    struct seen *s = &seen[count++];
    *s = (struct seen){.what = what, .fd = fd, .flags = fcntl(fd, F_GETFL), .cloexec = fcntl(fd, F_GETFD)};
    s->offset = s->flags & O_PATH ? 0 : lseek(fd, 0, SEEK_CUR);
    MUST(fstat(fd, &s->stat));
    return fd;
}

static void check_all(void) {
    for (struct seen *s = seen; s < seen + count; s++) {
        struct stat now;
        CHECK(!((fcntl(s->fd, F_GETFL) ^ s->flags) & ~(O_TMPFILE | O_NOFOLLOW)), "%s: flags %#x, were %#x", s->what, fcntl(s->fd, F_GETFL), s->flags);
        CHECK(fcntl(s->fd, F_GETFD) == s->cloexec, "%s: close-on-exec changed", s->what);
        CHECK(!fstat(s->fd, &now), "%s: fstat: %s", s->what, strerror(errno));
        CHECK(now.st_size == s->stat.st_size, "%s: size %ld, was %ld", s->what, (long)now.st_size, (long)s->stat.st_size);
        CHECK(now.st_mode == s->stat.st_mode, "%s: mode %o, was %o", s->what, now.st_mode, s->stat.st_mode);
        CHECK(now.st_nlink == 0 || s->stat.st_nlink != 0, "%s: it has a name", s->what);
        CHECK(s->flags & O_PATH || lseek(s->fd, 0, SEEK_CUR) == s->offset, "%s: offset %ld, was %ld", s->what,
              (long)lseek(s->fd, 0, SEEK_CUR), (long)s->offset);
    }
}

static void expect_in_file(unsigned area, int fd, size_t len, off_t at) {
    char *bytes = malloc(len);
    ssize_t got = pread(fd, bytes, len, at);
    CHECK(got == (ssize_t)len, "area %u: read gives %zd of %zu bytes", area, got, len);
    expect_filled(area, bytes, len);
    free(bytes);
}

static void put(unsigned area, int fd, size_t len, off_t at) {
    char *bytes = malloc(len);
    fill(area, bytes, len);
    CHECK(pwrite(fd, bytes, len, at) == (ssize_t)len, "set-up: pwrite: %s", strerror(errno));
    free(bytes);
}

static int same_file(int a, int b) {
    struct stat x, y;
    return !fstat(a, &x) && !fstat(b, &y) && x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

int main(void) {
    /* Shared anonymous memory: plain, written by a child, mapped twice, in parts, sparse, unreadable. */
    char *anon = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fill(1, anon, 2 * PAGE);
    pid_t child = fork();
    MUST(child);
    if (!child) {
        fill(2, anon + 4 * PAGE, 2 * PAGE); /* pages that the parent has never touched */
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child, "set-up: waitpid");
    char *twice = mremap(anon, 0, 8 * PAGE, MREMAP_MAYMOVE); /* the same pages once more */
    MUST(twice);
    char *parts = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fill(3, parts, 8 * PAGE);
    memset(parts + PAGE, 0, 8);
    MUST(munmap(parts + 2 * PAGE, 2 * PAGE));
    MUST(mprotect(parts + 6 * PAGE, PAGE, PROT_READ));
    char *hidden = map(2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fill(4, hidden, 2 * PAGE);
    MUST(mprotect(hidden, 2 * PAGE, PROT_NONE));
    size_t huge = (size_t)64 << 30;
    char *sparse = map(huge, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    fill(5, sparse + huge / 2, PAGE);
    fill(6, sparse + huge - PAGE, PAGE);

    /* A memfd with several open descriptions, mapped shared and private. */
    int memfd = see("memfd", memfd_create("a name with blanks", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    MUST(ftruncate(memfd, 5 * PAGE + 100));
    put(10, memfd, 3 * PAGE, 0);
    put(11, memfd, 100, 5 * PAGE);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", memfd);
    MUST(lseek(memfd, 77, SEEK_SET));
    int reader = open(path, O_RDONLY), appender = open(path, O_WRONLY | O_APPEND), named = open(path, O_PATH);
    MUST(reader);
    MUST(lseek(reader, PAGE, SEEK_SET));
    int twin = dup(reader);
    char *shared = map(3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    char *second = map(2 * PAGE, PROT_READ, MAP_SHARED, reader, PAGE);
    char *private = map(3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, memfd, 0);
    private[PAGE] = 99;
    seen[0].offset = 77;
    seen[0].stat.st_size = 5 * PAGE + 100;
    see("reader", reader);
    see("appender", appender);
    see("path", named);
    see("twin", twin);

    /* Sealed memfds, an empty one, one without a descriptor. */
    int sealed = memfd_create("sealed", MFD_ALLOW_SEALING);
    MUST(sealed);
    put(12, sealed, 2 * PAGE, 0);
    MUST(fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL));
    see("sealed", sealed);
    int future = memfd_create("future", MFD_ALLOW_SEALING);
    MUST(ftruncate(future, PAGE));
    char *writer = map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, future, 0);
    int has_future = !fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
    fill(13, writer, PAGE);
    see("future", future);
    int empty = see("empty", memfd_create("", 0));
    int lost = memfd_create("lost", 0);
    MUST(ftruncate(lost, 2 * PAGE));
    char *only = map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, lost, 0); /* two pages behind the end */
    fill(14, only, 2 * PAGE);
    close(lost);

    /* Deleted files: open, mapped, both, locked; one that had another name over it. */
    int gone = open("gone", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    put(20, gone, 3 * PAGE + 5, 0);
    MUST(unlink("gone"));
    MUST(lseek(gone, PAGE, SEEK_SET));
    see("gone", gone);
    struct flock lock = {.l_type = F_WRLCK, .l_start = 10, .l_len = 20};
    MUST(fcntl(gone, F_SETLK, &lock));
    int mapped = open("mapped", O_RDWR | O_CREAT, 0600);
    MUST(ftruncate(mapped, 4 * PAGE));
    char *file = map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
    fill(21, file, 4 * PAGE);
    close(mapped);
    MUST(unlink("mapped"));
    int old = open("replaced", O_RDWR | O_CREAT, 0600);
    put(22, old, 10, 0);
    spill("other", "other");
    MUST(rename("other", "replaced"));
    see("old", old);
    int hole = open("hole", O_RDWR | O_CREAT, 0600);
    put(23, hole, 10, (off_t)1 << 40);
    MUST(unlink("hole"));
    MUST(lseek(hole, ((off_t)1 << 40) + 5, SEEK_SET));
    see("hole", hole);
    int zero = open("zero", O_WRONLY | O_CREAT, 0400);
    MUST(unlink("zero"));
    see("zero", zero);

    /* A file that never had a name, one of /dev/shm. */
    int unnamed = open(".", O_TMPFILE | O_RDWR | O_SYNC, 0600);
    if (unnamed >= 0) {
        put(24, unnamed, PAGE + 1, 0);
        see("unnamed", unnamed);
    }
    char name[64];
    snprintf(name, sizeof name, "/ckpt-guest-%d", (int)getpid());
    int posix = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    MUST(posix);
    MUST(ftruncate(posix, 2 * PAGE));
    char *shm = map(2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, posix, 0);
    fill(25, shm, 2 * PAGE);
    MUST(shm_unlink(name));
    see("posix", posix);

    /* What is shared is saved as it was in the very moment of the rest: these two go up together. */
    volatile uint64_t *ahead = (volatile uint64_t *)(parts + PAGE);
    static volatile uint64_t behind;
    *ahead = 0;

    say("ready");
    do {
        for (int i = 0; i < 1000; i++) {
            ++*ahead;
            ++behind;
        }
        CHECK(*ahead == behind, "two counters: shared %llu, private %llu", (unsigned long long)*ahead,
              (unsigned long long)behind);
    } while (!may_go());
    *ahead = 0;

    check_all();
    expect_filled(1, anon, 2 * PAGE);
    expect_filled(2, anon + 4 * PAGE, 2 * PAGE);
    for (int i = 0; i < 2 * PAGE; i++) CHECK(!anon[2 * PAGE + i] && !anon[6 * PAGE + i], "anonymous: not zero");
    twice[5] = 'x';
    CHECK(anon[5] == 'x', "mapped twice: no longer the same");
    char *copy = malloc(8 * PAGE);
    fill(3, copy, 8 * PAGE);
    memset(copy + PAGE, 0, 8);
    CHECK(!memcmp(copy, parts, 2 * PAGE) && !memcmp(copy + 4 * PAGE, parts + 4 * PAGE, 4 * PAGE), "parts: changed");
    MUST(mprotect(hidden, 2 * PAGE, PROT_READ));
    expect_filled(4, hidden, 2 * PAGE);
    CHECK(!sparse[0] && !sparse[huge / 4], "sparse: not zero");
    expect_filled(5, sparse + huge / 2, PAGE);
    expect_filled(6, sparse + huge - PAGE, PAGE);
    child = fork();
    if (!child) {
        anon[9] = 'c';
        sparse[3] = 'd';
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child && anon[9] == 'c' && sparse[3] == 'd', "anonymous: a child does not share it");

    expect_in_file(10, memfd, 3 * PAGE, 0);
    expect_in_file(11, reader, 100, 5 * PAGE);
    expect_filled(10, shared, 3 * PAGE);
    CHECK(private[0] == shared[0] && private[PAGE] == 99 && private[2 * PAGE] == shared[2 * PAGE], "private: changed");
    CHECK(same_file(memfd, reader) && same_file(memfd, appender) && same_file(memfd, named), "memfd: no longer one");
    shared[PAGE + 3] = 'y';
    char byte = 0;
    CHECK(second[3] == 'y' && pread(reader, &byte, 1, PAGE + 3) == 1 && byte == 'y', "memfd: not shared");
    CHECK(write(appender, "z", 1) == 1 && pread(memfd, &byte, 1, 5 * PAGE + 100) == 1 && byte == 'z', "memfd: append");
    CHECK(read(reader, &byte, 1) == 1 && lseek(twin, 0, SEEK_CUR) == PAGE + 1, "memfd: twin");
    CHECK(mprotect(second, PAGE, PROT_READ | PROT_WRITE) == -1, "memfd: read-only mapping becomes writable");
    CHECK(write(reader, "q", 1) == -1, "memfd: the reader writes");
    CHECK(fcntl(memfd, F_GET_SEALS) == 0, "memfd: seals %#x", fcntl(memfd, F_GET_SEALS));
    char link[128] = {0};
    MUST(readlink(path, link, sizeof link - 1));
    CHECK(!strcmp(link, "/memfd:a name with blanks (deleted)"), "memfd: name '%s'", link);

    expect_in_file(12, sealed, 2 * PAGE, 0);
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    CHECK(fcntl(sealed, F_GET_SEALS) == seals, "sealed: seals %#x", fcntl(sealed, F_GET_SEALS));
    CHECK(pwrite(sealed, "x", 1, 0) == -1 && errno == EPERM, "sealed: it can be written");
    expect_filled(13, writer, PAGE);
    writer[0] = 'w';
    CHECK(pread(future, &byte, 1, 0) == 1 && byte == 'w', "future: not shared");
    if (has_future) CHECK(pwrite(future, "x", 1, 0) == -1, "future: it can be written");
    CHECK(fcntl(empty, F_GET_SEALS) == F_SEAL_SEAL, "empty: seals %#x", fcntl(empty, F_GET_SEALS));
    expect_filled(14, only, 2 * PAGE);

    expect_in_file(20, gone, 3 * PAGE + 5, 0);
    CHECK(write(gone, "+", 1) == 1 && pread(gone, &byte, 1, 3 * PAGE + 5) == 1 && byte == '+', "gone: append");
    CHECK(access("gone", F_OK) == -1 && access("mapped", F_OK) == -1, "a deleted file is there again");
    child = fork();
    if (!child) {
        lock = (struct flock){.l_type = F_WRLCK, .l_start = 29, .l_len = 1};
        _exit(fcntl(gone, F_SETLK, &lock) == -1 ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "gone: its lock is lost");
    expect_filled(21, file, 4 * PAGE);
    expect_in_file(22, old, 10, 0);
    char text[16];
    slurp("replaced", text, sizeof text);
    CHECK(!strcmp(text, "other"), "replaced: '%s'", text);
    expect_in_file(23, hole, 10, (off_t)1 << 40);
    CHECK(pread(hole, &byte, 1, 12345) == 1 && byte == 0, "hole: not zero");
    struct stat stat;
    CHECK(!fstat(hole, &stat) && stat.st_blocks < 1000, "hole: it takes %ld blocks", (long)stat.st_blocks);
    if (unnamed >= 0) expect_in_file(24, unnamed, PAGE + 1, 0);
    expect_filled(25, shm, 2 * PAGE);
    expect_in_file(25, posix, 2 * PAGE, 0);
    shm[1] = 's';
    CHECK(pread(posix, &byte, 1, 1) == 1 && byte == 's', "posix: not shared");
    pass();
}
