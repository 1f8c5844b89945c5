/* TCP connections to a process that is not saved, in each state: with `--tcp close` the program reads what had come, and then finds them
 * reset, or at their end where the other side had sent its last.
 *
 * usage: outsiders PORT   connects as often as there are states; the peer sends "data" through each, closes its half of the second,
 *                         and ends the last */
#include "guest.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

enum { OPEN, ENDING, CLOSED, BUSY, OVER, COUNT };
static const char *const NAMES[COUNT] = {"open", "ended by the peer", "closed here", "with an answer under way", "over"};

static int state(int fd) {
    struct tcp_info info;
    socklen_t len = sizeof info;
    MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len));
    return info.tcpi_state;
}

static void becomes(int fd, int wanted) {
    for (int i = 0; i < 5000 && state(fd) != wanted; i++) nap();
    CHECK(state(fd) == wanted, "set-up: %d is in state %d instead of %d", fd, state(fd), wanted);
}

int main(int argc, char **argv) {
    CHECK(argc == 2, "usage: outsiders PORT");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd[COUNT];
    for (int i = 0; i < COUNT; i++) {
        MUST(fd[i] = socket(AF_INET, SOCK_STREAM, 0));
        MUST(connect(fd[i], (struct sockaddr *)&to, sizeof to));
    }
    MUST(shutdown(fd[CLOSED], SHUT_WR));
    MUST(shutdown(fd[OVER], SHUT_WR));
    CHECK(send(fd[BUSY], "answer", 6, 0) == 6, "set-up: send");
    for (int i = 0; i < COUNT; i++) {
        struct pollfd wait = {.fd = fd[i], .events = POLLIN};
        CHECK(poll(&wait, 1, 10000) == 1, "set-up: %s: nothing comes", NAMES[i]);
    }
    becomes(fd[ENDING], TCP_CLOSE_WAIT);
    becomes(fd[CLOSED], TCP_FIN_WAIT2);
    becomes(fd[OVER], TCP_CLOSE);

    say("ready");
    wait_to_go();

    for (int i = 0; i < COUNT; i++) {
        char have[99];
        ssize_t got = recv(fd[i], have, sizeof have, MSG_DONTWAIT);
        CHECK(got == 4 && !memcmp(have, "data", 4), "%s: %zd bytes: %s", NAMES[i], got, got < 0 ? strerror(errno) : "");
        got = recv(fd[i], have, sizeof have, MSG_DONTWAIT);
        if (i == ENDING || i == OVER) CHECK(got == 0, "%s: %zd instead of the end: %s", NAMES[i], got, strerror(errno));
        else CHECK(got == -1 && errno == ECONNRESET, "%s: %zd instead of a reset: %s", NAMES[i], got, strerror(errno));
        CHECK(send(fd[i], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "%s: takes data: %s", NAMES[i], strerror(errno));
        got = recv(fd[i], have, sizeof have, MSG_DONTWAIT);
        CHECK(got == 0, "%s: no end behind it: %zd", NAMES[i], got);
    }
    pass();
}
