/* TCP connections to a process that is not saved, closed in one direction or none, which are carried by `--tcp keep`.
 *
 * usage: keptends ADDRESS PORT   connects as often as there are states. The peer sends "data" through each but the full one, and closes its
 *                                half of the second. While the program lies in an image it sends "more" where it still may */
#include "guest.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

enum { OPEN, ENDED, CLOSED, FULL, DEAF, COUNT };
static const char *const NAMES[COUNT] = {"open", "ended by the peer", "closed here", "full and closed here", "reads no more"};

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

static void expect(const char *what, int fd, const char *text) {
    char have[100];
    size_t got = 0;
    while (got < strlen(text)) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        CHECK(poll(&wait, 1, 10000) == 1, "%s: nothing comes behind %zu bytes", what, got);
        ssize_t some = recv(fd, have + got, strlen(text) - got, MSG_DONTWAIT);
        CHECK(some > 0, "%s: %zd behind %zu bytes: %s", what, some, got, some < 0 ? strerror(errno) : "");
        got += (size_t)some;
    }
    CHECK(!memcmp(have, text, got), "%s: other bytes", what);
}

static void expect_end(const char *what, int fd) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    char byte;
    CHECK(poll(&wait, 1, 10000) == 1, "%s: no end comes", what);
    ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT);
    CHECK(got == 0, "%s: %zd instead of the end: %s", what, got, got < 0 ? strerror(errno) : "");
}

int main(int argc, char **argv) {
    CHECK(argc == 3, "usage: keptends ADDRESS PORT");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = to.sin_port};
    int six = inet_pton(AF_INET, argv[1], &to.sin_addr) != 1, fd[COUNT], one = 1;
    if (six) CHECK(inet_pton(AF_INET6, argv[1], &to6.sin6_addr) == 1, "%s is no address", argv[1]);
    for (int i = 0; i < COUNT; i++) {
        MUST(fd[i] = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM, 0));
        MUST(setsockopt(fd[i], SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
        MUST(connect(fd[i], six ? (void *)&to6 : (void *)&to, six ? sizeof to6 : sizeof to));
    }
    MUST(shutdown(fd[CLOSED], SHUT_WR));
    MUST(shutdown(fd[DEAF], SHUT_RD));
    size_t sent = 0;
    static unsigned char bytes[8 << 20];
    fill(1, bytes, sizeof bytes);
    for (int quiet = 0; quiet < 30; nap()) {
        ssize_t took = send(fd[FULL], bytes + sent, sizeof bytes - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (took > 0) sent += (size_t)took, quiet = 0;
        else quiet++;
    }
    MUST(shutdown(fd[FULL], SHUT_WR));
    for (int i = 0; i < COUNT; i++) {
        struct pollfd wait = {.fd = fd[i], .events = POLLIN};
        CHECK(i == FULL || poll(&wait, 1, 10000) == 1, "set-up: %s: nothing comes", NAMES[i]);
    }
    becomes(fd[ENDED], TCP_CLOSE_WAIT);
    becomes(fd[CLOSED], TCP_FIN_WAIT2);
    becomes(fd[FULL], TCP_FIN_WAIT1);

    printf("sent %zu\n", sent);
    say("ready");
    wait_to_go();

    CHECK(state(fd[OPEN]) == TCP_ESTABLISHED && state(fd[ENDED]) == TCP_CLOSE_WAIT, "states %d and %d", state(fd[OPEN]), state(fd[ENDED]));
    for (int i = 0; i < COUNT; i++) CHECK(setsockopt(fd[i], SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0, "%s: SO_REUSEADDR", NAMES[i]);
    expect(NAMES[OPEN], fd[OPEN], "datamore");
    expect(NAMES[ENDED], fd[ENDED], "data");
    expect_end(NAMES[ENDED], fd[ENDED]);
    expect(NAMES[CLOSED], fd[CLOSED], "datamore");
    expect(NAMES[DEAF], fd[DEAF], "data");
    struct pollfd deaf = {.fd = fd[DEAF], .events = POLLIN | POLLRDHUP};
    CHECK(poll(&deaf, 1, 10000) == 1 && deaf.revents & POLLRDHUP, "reads no more: poll %#x", deaf.revents);
    expect(NAMES[DEAF], fd[DEAF], "more");
    expect_end(NAMES[DEAF], fd[DEAF]);
    static const int WRITERS[] = {OPEN, ENDED, DEAF};
    for (int i = 0; i < 3; i++) {
        CHECK(send(fd[WRITERS[i]], "reply", 5, MSG_NOSIGNAL) == 5, "%s: %s", NAMES[WRITERS[i]], strerror(errno));
        MUST(shutdown(fd[WRITERS[i]], SHUT_WR));
    }
    CHECK(send(fd[CLOSED], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "closed here: takes data");
    CHECK(send(fd[FULL], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "full and closed here: takes data");
    expect_end(NAMES[CLOSED], fd[CLOSED]);
    expect_end(NAMES[OPEN], fd[OPEN]);
    /* Until the peer has read all, and the end. */
    expect_end(NAMES[FULL], fd[FULL]);
    pass();
}
