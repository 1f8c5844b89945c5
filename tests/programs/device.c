/* Character devices without state: read and written as before, with their flags. */
#include "guest.h"

#include <sys/sysmacros.h>

static const struct {
    const char *path;
    int flags;
} devices[] = {
    {"/dev/null", O_RDWR | O_APPEND}, {"/dev/zero", O_RDWR},    {"/dev/full", O_RDWR},
    {"/dev/urandom", O_RDONLY},       {"/dev/random", O_RDONLY | O_NONBLOCK},
};
enum { COUNT = sizeof devices / sizeof *devices };

int main(void) {
    int fd[COUNT], flags[COUNT];
    dev_t number[COUNT];
    for (int i = 0; i < COUNT; i++) {
        struct stat st;
        fd[i] = open(devices[i].path, devices[i].flags);
        MUST(fd[i]);
        MUST(fstat(fd[i], &st));
        number[i] = st.st_rdev;
        flags[i] = fcntl(fd[i], F_GETFL);
    }

    say("ready");
    wait_to_go();

    for (int i = 0; i < COUNT; i++) {
        struct stat st;
        CHECK(!fstat(fd[i], &st), "%s: fstat: %s", devices[i].path, strerror(errno));
        CHECK(S_ISCHR(st.st_mode) && st.st_rdev == number[i], "%s: it is device %u:%u", devices[i].path,
              major(st.st_rdev), minor(st.st_rdev));
        CHECK(fcntl(fd[i], F_GETFL) == flags[i], "%s: flags %#x, were %#x", devices[i].path, fcntl(fd[i], F_GETFL),
              flags[i]);
    }
    char bytes[64];
    CHECK(write(fd[0], "x", 1) == 1 && read(fd[0], bytes, 1) == 0, "/dev/null does not swallow");
    memset(bytes, 1, sizeof bytes);
    CHECK(read(fd[1], bytes, sizeof bytes) == sizeof bytes, "/dev/zero gives nothing");
    for (size_t i = 0; i < sizeof bytes; i++) CHECK(bytes[i] == 0, "/dev/zero gives %#x", bytes[i]);
    CHECK(write(fd[2], "x", 1) == -1 && errno == ENOSPC, "/dev/full is not full");
    CHECK(read(fd[3], bytes, sizeof bytes) == sizeof bytes, "/dev/urandom gives nothing");
    CHECK(read(fd[4], bytes, 1) == 1, "/dev/random gives nothing");
    pass();
}
