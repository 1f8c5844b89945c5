/* eventfd counters: values of all sizes, semaphore mode, flags, and one counter under two numbers. */
#include "guest.h"

#include <poll.h>
#include <sys/eventfd.h>

static int counter(unsigned long long value, int flags) {
    int fd = eventfd(0, flags);
    MUST(fd);
    if (value) CHECK(write(fd, &value, 8) == 8, "set-up: write: %s", strerror(errno));
    return fd;
}

/* Takes what the counter gives; 0 when it would wait. */
static unsigned long long take(int fd, const char *what) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    CHECK(poll(&wait, 1, 0) >= 0, "%s: poll: %s", what, strerror(errno));
    unsigned long long value = 0;
    if (wait.revents & POLLIN) CHECK(read(fd, &value, 8) == 8, "%s: read: %s", what, strerror(errno));
    return value;
}

int main(void) {
    enum { PLAIN, ZERO, LARGE, FULL, SEMAPHORE, COUNT };
    int fd[COUNT] = {
        [PLAIN] = counter(5, EFD_NONBLOCK),
        [ZERO] = counter(0, EFD_CLOEXEC),
        [LARGE] = counter(0x100000005ull, 0),
        [FULL] = counter(0xfffffffffffffffeull, EFD_NONBLOCK | EFD_CLOEXEC),
        [SEMAPHORE] = counter(3, EFD_SEMAPHORE | EFD_NONBLOCK),
    };
    int also = fcntl(fd[ZERO], F_DUPFD, 77);
    MUST(also);
    int flags[COUNT], cloexec[COUNT];
    for (int i = 0; i < COUNT; i++) {
        flags[i] = fcntl(fd[i], F_GETFL);
        cloexec[i] = fcntl(fd[i], F_GETFD);
    }

    say("ready");
    wait_to_go();

    for (int i = 0; i < COUNT; i++) {
        CHECK(fcntl(fd[i], F_GETFL) == flags[i], "%d: flags %#x, were %#x", i, fcntl(fd[i], F_GETFL), flags[i]);
        CHECK(fcntl(fd[i], F_GETFD) == cloexec[i], "%d: descriptor flags %d", i, fcntl(fd[i], F_GETFD));
    }
    CHECK(fcntl(also, F_GETFD) == 0, "the second number: descriptor flags %d", fcntl(also, F_GETFD));
    unsigned long long value = 9;
    CHECK(write(fd[FULL], &value, 8) == -1 && errno == EAGAIN, "full: takes more");
    CHECK(take(fd[FULL], "full") == 0xfffffffffffffffeull, "full: another value");
    value = take(fd[PLAIN], "plain");
    CHECK(value == 5, "plain: %llu", value);
    CHECK(read(fd[PLAIN], &value, 8) == -1 && errno == EAGAIN, "plain: not empty after a read");
    value = take(fd[LARGE], "large");
    CHECK(value == 0x100000005ull, "large: %llu", value);
    CHECK(take(fd[ZERO], "zero") == 0, "zero: holds something");
    value = 2;
    CHECK(write(also, &value, 8) == 8, "the second number: write: %s", strerror(errno));
    value = take(fd[ZERO], "zero");
    CHECK(value == 2, "the two numbers are no longer one counter: %llu", value);
    for (int i = 0; i < 3; i++) CHECK(take(fd[SEMAPHORE], "semaphore") == 1, "semaphore: read %d", i);
    CHECK(take(fd[SEMAPHORE], "semaphore") == 0, "semaphore: more than three");
    pass();
}
