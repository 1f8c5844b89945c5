/* pidfds of the process itself: after a restart they stand for the restarted one. */
#include "guest.h"

#include <poll.h>

int main(void) {
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0), quick = (int)syscall(SYS_pidfd_open, getpid(), O_NONBLOCK);
    MUST(fd);
    MUST(quick);
    int also = fcntl(fd, F_DUPFD, 77), flags = fcntl(quick, F_GETFL);
    MUST(also);
    int ends[2];
    MUST(pipe(ends));

    say("ready");
    wait_to_go();

    CHECK(fcntl(quick, F_GETFL) == flags && fcntl(fd, F_GETFD) == FD_CLOEXEC && fcntl(also, F_GETFD) == 0, "flags");
    struct pollfd wait[2] = {{.fd = fd, .events = POLLIN}, {.fd = quick, .events = POLLIN}};
    CHECK(poll(wait, 2, 0) == 0, "they say that it has ended");
    int own = (int)syscall(SYS_pidfd_getfd, also, ends[1], 0);
    CHECK(own >= 0, "pidfd_getfd: %s", strerror(errno));
    char byte = 0;
    CHECK(write(own, "x", 1) == 1 && read(ends[0], &byte, 1) == 1 && byte == 'x', "it stands for another process");
    signal(SIGUSR2, SIG_IGN);
    CHECK(syscall(SYS_pidfd_send_signal, quick, SIGUSR2, NULL, 0) == 0, "pidfd_send_signal: %s", strerror(errno));
    pass();
}
