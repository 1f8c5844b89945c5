/* Pipes to the outside: standard streams and a dup of one, with flags; and a FIFO by name (first argument). */
#include "guest.h"

#include <poll.h>

static void expect_line(int fd, const char *line, const char *what) {
    char bytes[64] = "";
    size_t have = 0;
    while (!memchr(bytes, '\n', have)) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int ready = poll(&wait, 1, 10000);
        if (ready < 0 && errno == EINTR) continue;
        CHECK(ready == 1, "%s: nothing comes", what);
        ssize_t got = read(fd, bytes + have, sizeof bytes - 1 - have);
        CHECK(got > 0, "%s: read: %zd, %s", what, got, strerror(errno));
        have += (size_t)got;
    }
    CHECK(!strcmp(bytes, line), "%s: '%s' came", what, bytes);
}

int main(int argc, char **argv) {
    CHECK(argc == 2, "usage: pipe FIFO");
    MUST(fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK));
    int also = fcntl(0, F_DUPFD_CLOEXEC, 40);
    MUST(also);
    int fifo = open(argv[1], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    MUST(fifo);
    int flags[3], fifo_flags = fcntl(fifo, F_GETFL);
    for (int i = 0; i < 3; i++) flags[i] = fcntl(i, F_GETFL);

    say("ready");
    wait_to_go();

    for (int i = 0; i < 3; i++) {
        struct stat st;
        CHECK(!fstat(i, &st) && S_ISFIFO(st.st_mode), "descriptor %d is no pipe", i);
        CHECK(fcntl(i, F_GETFL) == flags[i], "descriptor %d: flags %#x, were %#x", i, fcntl(i, F_GETFL), flags[i]);
    }
    CHECK(fcntl(fifo, F_GETFL) == fifo_flags, "FIFO: flags %#x, were %#x", fcntl(fifo, F_GETFL), fifo_flags);
    CHECK(fcntl(also, F_GETFD) == FD_CLOEXEC, "the dup no longer closes on exec");
    struct stat zero, dup_of_zero;
    CHECK(!fstat(0, &zero) && !fstat(also, &dup_of_zero) && zero.st_ino == dup_of_zero.st_ino, "the dup is another pipe");
    expect_line(also, "through standard input\n", "standard input");
    expect_line(fifo, "through the FIFO\n", "FIFO");
    CHECK(write(2, "through standard error\n", 23) == 23, "standard error: %s", strerror(errno));
    pass();
}
