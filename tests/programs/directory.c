/* An open directory: half read, the rest comes afterwards, nothing twice. Also one opened with O_PATH, and those of the process itself in
 * /proc, whatever its id is. */
#include "guest.h"

#include <dirent.h>
#include <stddef.h>

enum { FILES = 60 };
static int seen[FILES];

/* Reads at most `entries` more names with small system calls, as libc's buffer would hide the position. */
static int read_some(int fd, int entries) {
    _Alignas(8) char buffer[128];
    int count = 0;
    while (count < entries) {
        long got = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
        CHECK(got >= 0, "getdents64: %s", strerror(errno));
        if (got == 0) break;
        for (long at = 0; at < got;) {
            unsigned short length;
            int number;
            memcpy(&length, buffer + at + offsetof(struct dirent64, d_reclen), sizeof length);
            const char *name = buffer + at + offsetof(struct dirent64, d_name);
            if (sscanf(name, "file%d", &number) == 1 && number >= 0 && number < FILES) seen[number]++;
            at += length;
            count++;
        }
    }
    return count;
}

/* Directories of the process's own, which go by its id. */
static void own(int threads, int all, const char *when) {
    char name[32];
    snprintf(name, sizeof name, "%ld", syscall(SYS_gettid));
    CHECK(faccessat(threads, name, F_OK, 0) == 0, "%s, /proc/self/task lacks thread %s: %s", when, name, strerror(errno));
    CHECK(faccessat(all, "maps", R_OK, 0) == 0, "%s, /proc/self is not there: %s", when, strerror(errno));
}

int main(void) {
    if (mkdir("many", 0755) && errno != EEXIST) fail("set-up: mkdir: %s", strerror(errno));
    for (int i = 0; i < FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "many/file%d", i);
        spill(name, "x");
    }
    int fd = open("many", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int path = open("many", O_PATH | O_DIRECTORY);
    int threads = open("/proc/self/task", O_RDONLY | O_DIRECTORY), all = open("/proc/self", O_PATH | O_DIRECTORY);
    MUST(fd);
    MUST(path);
    MUST(threads);
    MUST(all);
    own(threads, all, "set-up");
    int flags = fcntl(fd, F_GETFL), path_flags = fcntl(path, F_GETFL);
    CHECK(read_some(fd, FILES / 2) >= FILES / 2, "set-up: too few entries");
    off_t before = lseek(fd, 0, SEEK_CUR);

    say("ready");
    wait_to_go();

    CHECK(fcntl(fd, F_GETFL) == flags, "flags %#x, were %#x", fcntl(fd, F_GETFL), flags);
    CHECK(fcntl(path, F_GETFL) == path_flags, "O_PATH: flags %#x, were %#x", fcntl(path, F_GETFL), path_flags);
    CHECK(lseek(fd, 0, SEEK_CUR) == before, "position %ld, was %ld", (long)lseek(fd, 0, SEEK_CUR), (long)before);
    read_some(fd, FILES * 2);
    for (int i = 0; i < FILES; i++) CHECK(seen[i] == 1, "file%d was listed %d times", i, seen[i]);
    CHECK(faccessat(fd, "file3", R_OK, 0) == 0, "a name relative to the directory: %s", strerror(errno));
    CHECK(faccessat(path, "file3", R_OK, 0) == 0, "a name relative to the O_PATH directory: %s", strerror(errno));
    own(threads, all, "then");
    pass();
}
