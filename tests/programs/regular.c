/* Regular files: name, flags and offset of each way to open one; reads and writes go on where they were. */
#include "guest.h"

struct file {
    const char *name;
    int flags;
    off_t offset;
    int fd, got_flags;
};

static struct file files[] = {
    {"read", O_RDONLY, 5, 0, 0},
    {"write", O_WRONLY | O_CLOEXEC, 11, 0, 0},
    {"append", O_WRONLY | O_APPEND, 0, 0, 0},
    {"both", O_RDWR | O_DSYNC, 3, 0, 0},
    {"beyond", O_RDWR | O_NONBLOCK, (off_t)5 << 32, 0, 0},
    {"a name with\nbreak, \\012 and \303\266", O_RDWR | O_NOATIME, 1, 0, 0},
    {"path", O_PATH, 0, 0, 0},
};
enum { COUNT = sizeof files / sizeof *files };

static void expect_text(const char *name, const char *text) {
    char bytes[64];
    slurp(name, bytes, sizeof bytes);
    CHECK(!strcmp(bytes, text), "%s: it holds '%s', not '%s'", name, bytes, text);
}

int main(void) {
    for (int i = 0; i < COUNT; i++) {
        spill(files[i].name, "abcdefghijklmnop");
        files[i].fd = open(files[i].name, files[i].flags);
        MUST(files[i].fd);
        if (files[i].flags != O_PATH) MUST(lseek(files[i].fd, files[i].offset, SEEK_SET));
        files[i].got_flags = fcntl(files[i].fd, F_GETFL);
    }
    char bytes[4];
    CHECK(read(files[0].fd, bytes, 4) == 4, "set-up: read");
    CHECK(write(files[2].fd, "!", 1) == 1, "set-up: append");
    files[0].offset = 9;
    files[2].offset = 17;

    say("ready");
    wait_to_go();

    for (int i = 0; i < COUNT; i++) {
        struct file *f = &files[i];
        struct stat by_fd, by_name;
        CHECK(!fstat(f->fd, &by_fd) && !stat(f->name, &by_name) && by_fd.st_ino == by_name.st_ino, "%s: another file",
              f->name);
        CHECK(fcntl(f->fd, F_GETFL) == f->got_flags, "%s: flags %#x, were %#x", f->name, fcntl(f->fd, F_GETFL),
              f->got_flags);
        CHECK(fcntl(f->fd, F_GETFD) == (f->flags & O_CLOEXEC ? FD_CLOEXEC : 0), "%s: close-on-exec changed", f->name);
        if (f->flags == O_PATH) continue;
        CHECK(lseek(f->fd, 0, SEEK_CUR) == f->offset, "%s: offset %ld, was %ld", f->name, (long)lseek(f->fd, 0, SEEK_CUR),
              (long)f->offset);
    }
    CHECK(read(files[0].fd, bytes, 4) == 4 && !memcmp(bytes, "jklm", 4), "read: the next bytes are '%.4s'", bytes);
    CHECK(write(files[0].fd, "x", 1) == -1 && errno == EBADF, "read: it can be written");
    CHECK(write(files[1].fd, "L", 1) == 1, "write: %s", strerror(errno));
    expect_text("write", "abcdefghijkLmnop");
    MUST(lseek(files[2].fd, 0, SEEK_SET));
    CHECK(write(files[2].fd, "?", 1) == 1, "append: %s", strerror(errno));
    expect_text("append", "abcdefghijklmnop!?");
    CHECK(write(files[3].fd, "D", 1) == 1 && read(files[3].fd, bytes, 1) == 1 && *bytes == 'e', "both: %s", strerror(errno));
    expect_text("both", "abcDefghijklmnop");
    CHECK(read(files[4].fd, bytes, 1) == 0, "beyond: there is something to read");
    CHECK(write(files[5].fd, "B", 1) == 1, "odd name: %s", strerror(errno));
    CHECK(read(files[6].fd, bytes, 1) == -1 && errno == EBADF, "path: it can be read");
    pass();
}
