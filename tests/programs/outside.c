/* A TCP connection to a process that is not saved: bytes of a known order go both ways, before and after.
 *
 * usage: outside ADDRESS PORT   connects, sends 20,000 bytes and as many more as the peer's window takes, of area 1; what comes in
 *                               is of area 2: reads 1,000 bytes before it is ready, and the rest, 50,000 in all (they wait here: whoever has unacknowledged bytes asks again), when it may go */
#include "guest.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

enum { FIRST = 20000, EARLY = 1000, ALL = 50000 };

static unsigned char *pieces(unsigned area, size_t from, size_t len) {
    static unsigned char bytes[1 << 16];
    for (size_t i = 0; i < len; i++) bytes[i] = pattern(area, from + i);
    return bytes;
}

static void expect(int fd, size_t from, size_t to) {
    unsigned char bytes[4096];
    while (from < to) {
        ssize_t got = recv(fd, bytes, to - from < sizeof bytes ? to - from : sizeof bytes, 0);
        CHECK(got > 0, "byte %zu: %s", from, got ? strerror(errno) : "the end");
        CHECK(!memcmp(bytes, pieces(2, from, (size_t)got), (size_t)got), "bytes from %zu on differ", from);
        from += (size_t)got;
    }
}

static void names(int fd, struct sockaddr_storage both[2]) {
    memset(both, 0, 2 * sizeof *both);
    socklen_t len = sizeof *both;
    MUST(getsockname(fd, (struct sockaddr *)&both[0], &len));
    len = sizeof *both;
    MUST(getpeername(fd, (struct sockaddr *)&both[1], &len));
}

int main(int argc, char **argv) {
    CHECK(argc == 3, "usage: outside ADDRESS PORT");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = to.sin_port};
    int six = inet_pton(AF_INET, argv[1], &to.sin_addr) != 1;
    if (six) CHECK(inet_pton(AF_INET6, argv[1], &to6.sin6_addr) == 1, "%s is no address", argv[1]);
    int fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM, 0), on = 1;
    MUST(fd);
    MUST(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    MUST(connect(fd, six ? (void *)&to6 : (void *)&to, six ? sizeof to6 : sizeof to));
    size_t sent = FIRST;
    CHECK(send(fd, pieces(1, 0, FIRST), FIRST, 0) == FIRST, "set-up: send: %s", strerror(errno));
    expect(fd, 0, EARLY);
    /* What the peer does not read fills its window, and then stays here. */
    int quiet = 0;
    while (quiet < 20) {
        ssize_t got = send(fd, pieces(1, sent, 1 << 14), 1 << 14, MSG_DONTWAIT);
        if (got > 0) sent += (size_t)got, quiet = 0;
        else quiet++, nap();
    }
    struct sockaddr_storage before[2], after[2];
    names(fd, before);

    printf("ready %zu\n", sent);
    fflush(stdout);
    wait_to_go();
    say("goes on");

    names(fd, after);
    CHECK(!memcmp(before, after, sizeof before), "an address has changed");
    socklen_t len = sizeof on;
    CHECK(!getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len) && on, "TCP_NODELAY");
    expect(fd, EARLY, ALL);
    while (sent < 4 << 20) {
        ssize_t got = send(fd, pieces(1, sent, 1 << 14), 1 << 14, 0);
        CHECK(got > 0, "after %zu bytes: %s", sent, strerror(errno));
        sent += (size_t)got;
    }
    MUST(shutdown(fd, SHUT_WR));
    char byte;
    CHECK(recv(fd, &byte, 1, 0) == 0, "not the end");
    printf("sent %zu\n", sent);
    pass();
}
