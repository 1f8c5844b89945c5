/* Terminals that were hung up: whoever reads finds the end, whoever writes or asks gets EIO. Their numbers, flags and sharing stay. */
#include "guest.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

static void expect_gone(int fd, int reads, int writes, const char *when) {
    char byte;
    struct termios set;
    struct pollfd ready = {.fd = fd, .events = POLLIN | POLLOUT};
    if (reads) CHECK(read(fd, &byte, 1) == 0, "%s, descriptor %d: read: %s", when, fd, strerror(errno));
    errno = 0;
    if (writes) CHECK(write(fd, "x", 1) == -1 && errno == EIO, "%s, descriptor %d: write: %s", when, fd, strerror(errno));
    errno = 0;
    CHECK(tcgetattr(fd, &set) == -1 && errno == EIO, "%s, descriptor %d: tcgetattr: %s", when, fd, strerror(errno));
    CHECK(poll(&ready, 1, 0) == 1 && ready.revents == (POLLIN | POLLOUT | POLLERR | POLLHUP), "%s, descriptor %d: %#x", when, fd,
          ready.revents);
}

int main(void) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    MUST(master);
    MUST(grantpt(master));
    MUST(unlockpt(master));
    const char *name = ptsname(master);
    int both = open(name, O_RDWR | O_NOCTTY), input = open(name, O_RDONLY | O_NOCTTY | O_NONBLOCK), output = open(name, O_WRONLY | O_NOCTTY);
    MUST(both);
    MUST(input);
    MUST(output);
    int again = fcntl(both, F_DUPFD_CLOEXEC, 40);
    MUST(again);
    MUST(close(master));
    /* One that lives beside it. */
    int other = posix_openpt(O_RDWR | O_NOCTTY);
    MUST(other);
    MUST(unlockpt(other));
    int alive = open(ptsname(other), O_RDWR | O_NOCTTY);
    MUST(alive);
    expect_gone(both, 1, 1, "set-up");

    say("ready");
    wait_to_go();

    expect_gone(both, 1, 1, "later");
    expect_gone(again, 1, 1, "later");
    expect_gone(input, 1, 0, "later");
    expect_gone(output, 0, 1, "later");
    CHECK(fcntl(again, F_GETFD) == FD_CLOEXEC && fcntl(both, F_GETFD) == 0, "close-on-exec");
    CHECK(fcntl(input, F_GETFL) & O_NONBLOCK && !(fcntl(both, F_GETFL) & O_NONBLOCK), "flags");
    MUST(fcntl(both, F_SETFL, fcntl(both, F_GETFL) | O_NONBLOCK));
    CHECK(fcntl(again, F_GETFL) & O_NONBLOCK, "no longer shared");
    CHECK(isatty(alive) && isatty(other) && !isatty(both), "the other terminal");
    pass();
}
