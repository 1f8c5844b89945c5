/* Locks on files: of the process (fcntl), of the open file (OFD) and flock. A child looks whether they hold. */
#include "guest.h"

#include <sys/file.h>
#include <sys/wait.h>

static struct flock range(short type, off_t start, off_t len) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return lock;
}

static int the_file(const char *path) {
    /* Not twice: another one may hold locks on the same files, which it wants to find unchanged. */
    if (access(path, F_OK)) spill(path, "0123456789 0123456789 0123456789");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    MUST(fd);
    return fd;
}

/* In a child: what another process sees of these bytes. F_UNLCK when it could lock them. */
static void expect(const char *path, off_t start, off_t len, short type, int ofd) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0, "open %s", path);
    struct flock lock = range(F_WRLCK, start, len);
    CHECK(!fcntl(fd, F_GETLK, &lock), "F_GETLK: %s", strerror(errno));
    CHECK(lock.l_type == type, "%s, bytes %ld+%ld: lock type %d, was %d", path, (long)start, (long)len, lock.l_type, type);
    if (type != F_UNLCK) {
        CHECK(lock.l_start == start && lock.l_len == len, "%s: lock on %ld+%ld, was %ld+%ld", path, (long)lock.l_start,
              (long)lock.l_len, (long)start, (long)len);
        CHECK(ofd ? lock.l_pid == -1 : lock.l_pid == getppid(), "%s: lock of process %d, not of %d", path, lock.l_pid,
              getppid());
    }
    close(fd);
}

int main(void) {
    int process = the_file("locked-by-process"), file = the_file("locked-by-file"), whole = the_file("flocked"),
        read_only = the_file("flocked-shared");
    struct flock write_lock = range(F_WRLCK, 2, 3), read_lock = range(F_RDLCK, 10, 0), file_lock = range(F_WRLCK, 4, 6);
    MUST(fcntl(process, F_SETLK, &write_lock));
    MUST(fcntl(process, F_SETLK, &read_lock));
    MUST(fcntl(file, F_OFD_SETLK, &file_lock));
    MUST(flock(whole, LOCK_EX));
    MUST(flock(read_only, LOCK_SH));

    say("ready");
    wait_to_go();

    pid_t child = fork();
    CHECK(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        expect("locked-by-process", 2, 3, F_WRLCK, 0);
        expect("locked-by-process", 10, 0, F_RDLCK, 0);
        expect("locked-by-process", 6, 2, F_UNLCK, 0);
        expect("locked-by-file", 4, 6, F_WRLCK, 1);
        int again = open("flocked", O_RDWR), also = open("flocked-shared", O_RDWR);
        CHECK(flock(again, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK, "the flock is gone");
        CHECK(flock(also, LOCK_SH | LOCK_NB) == 0, "a shared flock became exclusive");
        CHECK(flock(also, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK, "the shared flock is gone");
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child, "waitpid: %s", strerror(errno));
    if (status) _exit(1);
    pass();
}
