/* Names of open files: renamed since, of links themselves (O_PATH), of /proc; flags that few use. */
#include "guest.h"

static int self(int fd, const char *what, const char *name) {
    char link[64], path[4096] = {0}, own[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    snprintf(own, sizeof own, "/proc/%d/%s", (int)getpid(), name);
    CHECK(readlink(link, path, sizeof path - 1) > 0 && !strcmp(path, own), "%s: '%s', not '%s'", what, path, own);
    return fd;
}

/* The value behind a key of an open file of /proc. */
static long value(int fd, const char *key) {
    char text[8192] = {0};
    MUST(lseek(fd, 0, SEEK_SET));
    CHECK(read(fd, text, sizeof text - 1) > 0, "%s: %s", key, strerror(errno));
    char *at = strstr(text, key);
    CHECK(at, "no %s", key);
    return strtol(at + strlen(key), NULL, 10);
}

int main(void) {
    spill("old", "renamed");
    int renamed = open("old", O_RDWR);
    MUST(mkdir("dir", 0700));
    MUST(rename("old", "dir/new"));
    MUST(rename("dir", "other"));
    spill("target", "target");
    MUST(symlink("target", "link"));
    int link = open("link", O_PATH | O_NOFOLLOW), through = open("link", O_RDONLY), dangling;
    MUST(symlink("nowhere", "dangling"));
    MUST(dangling = open("dangling", O_PATH | O_NOFOLLOW | O_CLOEXEC));
    int dir = open("other", O_PATH | O_DIRECTORY), file = open("target", O_PATH), null = open("/dev/null", O_PATH);
    MUST(mkfifo("fifo", 0600));
    int fifo = open("fifo", O_PATH), sync = open("target", O_RDWR | O_SYNC), direct = open("target", O_RDONLY | O_DIRECT);
    MUST(fifo);
    MUST(sync);
    int status = open("/proc/self/status", O_RDONLY), maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    int score = open("/proc/self/oom_score_adj", O_RDWR), memory = open("/proc/self/mem", O_RDWR), info = open("/proc/meminfo", O_RDONLY);
    static volatile int word = 77;
    MUST(lseek(memory, (off_t)(uintptr_t)&word, SEEK_SET));
    MUST(score);
    char line[64];
    MUST(read(status, line, 10));
    int all[] = {renamed, link, through, dangling, dir, file, null, fifo, sync, direct, status, maps, score, memory, info};
    enum { COUNT = sizeof all / sizeof *all };
    int flags[COUNT], cloexec[COUNT];
    for (int i = 0; i < COUNT; i++) flags[i] = fcntl(all[i], F_GETFL), cloexec[i] = fcntl(all[i], F_GETFD);

    say("ready");
    wait_to_go();

    for (int i = 0; i < COUNT; i++) {
        CHECK(fcntl(all[i], F_GETFL) == flags[i], "descriptor %d: flags %#x, were %#x", all[i], fcntl(all[i], F_GETFL), flags[i]);
        CHECK(fcntl(all[i], F_GETFD) == cloexec[i], "descriptor %d: close-on-exec changed", all[i]);
    }
    struct stat a, b;
    CHECK(!fstat(renamed, &a) && !stat("other/new", &b) && a.st_ino == b.st_ino, "renamed: another file");
    CHECK(!fstat(link, &a) && S_ISLNK(a.st_mode) && readlinkat(link, "", line, sizeof line) == 6, "link: no link");
    CHECK(!fstat(dangling, &a) && S_ISLNK(a.st_mode), "dangling: no link");
    CHECK(!fstat(through, &a) && !stat("target", &b) && a.st_ino == b.st_ino, "through: another file");
    CHECK(!fstatat(dir, "new", &a, 0), "dir: %s", strerror(errno));
    CHECK(!fstat(null, &a) && S_ISCHR(a.st_mode) && read(null, line, 1) == -1, "null: no O_PATH of a device");
    CHECK(!fstat(fifo, &a) && S_ISFIFO(a.st_mode), "fifo: no FIFO");
    self(status, "status", "status");
    self(maps, "maps", "maps");
    CHECK(lseek(status, 0, SEEK_CUR) == 10, "status: at %ld", (long)lseek(status, 0, SEEK_CUR));
    CHECK(value(status, "Pid:\t") == getpid(), "status: of %ld", value(status, "Pid:\t"));
    char text[64] = {0};
    CHECK(read(maps, text, 8) == 8, "maps: %s", strerror(errno));
    int now = 0;
    CHECK(read(memory, &now, sizeof now) == sizeof now && now == 77, "mem: %d", now);
    CHECK(read(score, text, 8) > 0, "oom_score_adj: %s", strerror(errno));
    CHECK(value(info, "MemTotal:") > 0, "meminfo");
    pass();
}
