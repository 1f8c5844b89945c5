/* signalfds: masks, flags, a signal that waits to be read, and one that comes later. */
#include "guest.h"

#include <sys/signalfd.h>

static int wants(int a, int b, int flags) {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, a);
    sigaddset(&mask, b);
    MUST(sigprocmask(SIG_BLOCK, &mask, NULL));
    int fd = signalfd(-1, &mask, flags);
    MUST(fd);
    return fd;
}

static void expect(int fd, int signal, int value, const char *what) {
    struct signalfd_siginfo info;
    ssize_t got = read(fd, &info, sizeof info);
    CHECK(got == sizeof info, "%s: read: %zd, %s", what, got, strerror(errno));
    CHECK((int)info.ssi_signo == signal && info.ssi_int == value, "%s: signal %u with %d", what, info.ssi_signo,
          info.ssi_int);
}

static void nothing(int fd, const char *what) {
    struct signalfd_siginfo info;
    CHECK(read(fd, &info, sizeof info) == -1 && errno == EAGAIN, "%s: a signal too many", what);
}

int main(void) {
    int first = wants(SIGHUP, SIGRTMIN + 5, SFD_NONBLOCK), second = wants(SIGTERM, SIGRTMAX, SFD_NONBLOCK | SFD_CLOEXEC);
    int waiting = wants(SIGHUP, SIGTERM, 0), also = dup(second);
    MUST(also);
    union sigval value = {.sival_int = 41};
    MUST(sigqueue(getpid(), SIGRTMIN + 5, value));
    int flags = fcntl(first, F_GETFL), waiting_flags = fcntl(waiting, F_GETFL);

    say("ready");
    wait_to_go();

    CHECK(fcntl(first, F_GETFL) == flags, "flags %#x, were %#x", fcntl(first, F_GETFL), flags);
    CHECK(fcntl(waiting, F_GETFL) == waiting_flags, "flags %#x, were %#x", fcntl(waiting, F_GETFL), waiting_flags);
    CHECK(fcntl(second, F_GETFD) == FD_CLOEXEC && fcntl(also, F_GETFD) == 0, "close-on-exec");
    nothing(second, "second, before");
    expect(first, SIGRTMIN + 5, 41, "waited");
    nothing(first, "first");
    value.sival_int = 42;
    MUST(sigqueue(getpid(), SIGRTMAX, value));
    nothing(first, "first, of the second's");
    expect(also, SIGRTMAX, 42, "later");
    value.sival_int = 43;
    MUST(sigqueue(getpid(), SIGTERM, value));
    expect(waiting, SIGTERM, 43, "the one that waits");
    nothing(second, "second, after");
    pass();
}
