/* Addresses that are shared, foreign, or had while options were other ones than now: SO_REUSEPORT and SO_REUSEADDR, set when it was bound
 * and cleared since; IP_FREEBIND; connections to listeners that share a port, or wait for data; halves of UDP sockets that are shut down. */
#include "guest.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} address;

static void put(int fd, int level, int option, int value) { MUST(setsockopt(fd, level, option, &value, sizeof value)); }

static int get(int fd, int level, int option) {
    int value = -1;
    socklen_t len = sizeof value;
    MUST(getsockopt(fd, level, option, &value, &len));
    return value;
}

static address name(int fd) {
    address at;
    memset(&at, 0, sizeof at);
    socklen_t len = sizeof at;
    MUST(getsockname(fd, &at.any, &len));
    return at;
}

static address v4(const char *ip, in_port_t port) {
    address at = {.v4 = {.sin_family = AF_INET, .sin_port = port}};
    CHECK(inet_pton(AF_INET, ip, &at.v4.sin_addr) == 1, "set-up: %s", ip);
    return at;
}

static address v6(const char *ip, in_port_t port) {
    address at = {.v6 = {.sin6_family = AF_INET6, .sin6_port = port}};
    CHECK(inet_pton(AF_INET6, ip, &at.v6.sin6_addr) == 1, "set-up: %s", ip);
    return at;
}

static int bound(int kind, address at, int option) {
    int fd = socket(at.any.sa_family, kind, 0);
    MUST(fd);
    if (option) put(fd, SOL_SOCKET, option, 1);
    MUST(bind(fd, &at.any, sizeof at));
    return fd;
}

static int joined(address at, int port) {
    int fd = socket(at.any.sa_family, SOCK_STREAM, 0);
    MUST(fd);
    at.v4.sin_port = (in_port_t)port;
    MUST(connect(fd, &at.any, sizeof at));
    return fd;
}

static void talk(const char *what, int a, int b) {
    for (int i = 0; i < 2; i++) {
        int from = i ? b : a, to = i ? a : b;
        char have[9];
        CHECK(send(from, "hello", 5, MSG_NOSIGNAL) == 5, "%s: send: %s", what, strerror(errno));
        struct pollfd wait = {.fd = to, .events = POLLIN};
        CHECK(poll(&wait, 1, 5000) == 1 && recv(to, have, sizeof have, MSG_DONTWAIT) == 5, "%s: nothing comes", what);
    }
}

/* Either of two listeners gets it. */
static int taken(int a, int b) {
    struct pollfd wait[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
    MUST(poll(wait, 2, 5000));
    int fd = accept(wait[0].revents ? a : b, NULL, NULL);
    MUST(fd);
    return fd;
}

enum { PAIR1, PAIR2, ANY, ONE, UDP1, UDP2, UPORT1, UPORT2, COUNT };

int main(void) {
    int fd[COUNT], free4, free6, freeudp;
    fd[PAIR1] = bound(SOCK_STREAM, v4("127.0.0.1", 0), SO_REUSEPORT);
    fd[PAIR2] = bound(SOCK_STREAM, name(fd[PAIR1]), SO_REUSEPORT);
    MUST(listen(fd[PAIR1], 5));
    MUST(listen(fd[PAIR2], 5));
    int pairc = joined(v4("127.0.0.1", 0), name(fd[PAIR1]).v4.sin_port), pairs = taken(fd[PAIR1], fd[PAIR2]);
    /* Another one could not be bound to it any more. */
    put(fd[PAIR1], SOL_SOCKET, SO_REUSEPORT, 0);
    /* One address within another, at the same port. */
    fd[ANY] = bound(SOCK_STREAM, v4("0.0.0.0", 0), SO_REUSEADDR);
    fd[ONE] = bound(SOCK_STREAM, v4("127.0.0.1", name(fd[ANY]).v4.sin_port), SO_REUSEADDR);
    MUST(listen(fd[ONE], 5));
    put(fd[ANY], SOL_SOCKET, SO_REUSEADDR, 0);
    put(fd[ONE], SOL_SOCKET, SO_REUSEADDR, 0);
    fd[UDP1] = bound(SOCK_DGRAM, v4("127.0.0.1", 0), SO_REUSEADDR);
    fd[UDP2] = bound(SOCK_DGRAM, name(fd[UDP1]), SO_REUSEADDR);
    put(fd[UDP1], SOL_SOCKET, SO_REUSEADDR, 0);
    put(fd[UDP2], SOL_SOCKET, SO_REUSEADDR, 0);
    fd[UPORT1] = bound(SOCK_DGRAM, v6("::1", 0), SO_REUSEPORT);
    fd[UPORT2] = bound(SOCK_DGRAM, name(fd[UPORT1]), SO_REUSEPORT);
    put(fd[UPORT2], SOL_SOCKET, SO_REUSEPORT, 0);
    /* Addresses that no machine has. */
    free4 = socket(AF_INET, SOCK_STREAM, 0);
    put(free4, IPPROTO_IP, IP_FREEBIND, 1);
    address foreign = v4("192.0.2.77", 0);
    MUST(bind(free4, &foreign.any, sizeof foreign.v4));
    put(free4, IPPROTO_IP, IP_FREEBIND, 0);
    MUST(listen(free4, 3));
    free6 = socket(AF_INET6, SOCK_STREAM, 0);
    put(free6, IPPROTO_IPV6, IPV6_FREEBIND, 1);
    address foreign6 = v6("2001:db8::77", 0);
    MUST(bind(free6, &foreign6.any, sizeof foreign6.v6));
    put(free6, IPPROTO_IPV6, IPV6_FREEBIND, 0);
    freeudp = socket(AF_INET, SOCK_DGRAM, 0);
    put(freeudp, IPPROTO_IP, IP_FREEBIND, 1);
    MUST(bind(freeudp, &foreign.any, sizeof foreign.v4));
    foreign = name(free4);
    foreign6 = name(free6);
    address foreignudp = name(freeudp);
    /* A connection whose listener tells of none before data has come. */
    int defers = bound(SOCK_STREAM, v4("127.0.0.1", 0), SO_REUSEADDR);
    put(defers, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3);
    MUST(listen(defers, 3));
    int deferc = joined(v4("127.0.0.1", 0), name(defers).v4.sin_port);
    MUST(send(deferc, "first", 5, 0));
    int defer = accept(defers, NULL, NULL);
    MUST(defer);
    /* Halves. */
    int udp[4];
    for (int i = 0; i < 4; i++) udp[i] = bound(SOCK_DGRAM, i % 2 ? v6("::1", 0) : v4("127.0.0.1", 0), 0);
    for (int i = 0; i < 3; i++) {
        address to = name(udp[i]);
        MUST(connect(udp[i], &to.any, sizeof to));
        MUST(shutdown(udp[i], i == 0 ? SHUT_WR : i == 1 ? SHUT_RD : SHUT_RDWR));
    }
    CHECK(shutdown(udp[3], SHUT_WR) == -1 && errno == ENOTCONN, "set-up: not connected");
    address local[COUNT];
    for (int i = 0; i < COUNT; i++) local[i] = name(fd[i]);

    say("ready");
    wait_to_go();

    for (int i = 0; i < COUNT; i++) {
        address now = name(fd[i]);
        CHECK(!memcmp(&now, &local[i], sizeof now), "%d: another address", i);
        CHECK(get(fd[i], SOL_SOCKET, SO_REUSEADDR) == 0, "%d: SO_REUSEADDR", i);
        CHECK(get(fd[i], SOL_SOCKET, SO_REUSEPORT) == (i == PAIR2 || i == UPORT1), "%d: SO_REUSEPORT", i);
    }
    CHECK(get(defers, SOL_SOCKET, SO_REUSEADDR) == 1 && get(defers, IPPROTO_TCP, TCP_DEFER_ACCEPT) >= 3, "the deferring listener's options");
    talk("pair", pairc, pairs);
    CHECK(get(pairs, SOL_SOCKET, SO_REUSEPORT) == 1 && get(pairc, SOL_SOCKET, SO_REUSEPORT) == 0, "pair: SO_REUSEPORT");
    int c = joined(v4("127.0.0.1", 0), local[PAIR1].v4.sin_port);
    talk("pair, later", c, taken(fd[PAIR1], fd[PAIR2]));
    c = joined(v4("127.0.0.1", 0), local[ONE].v4.sin_port);
    int s = accept(fd[ONE], NULL, NULL);
    MUST(s);
    talk("one", c, s);
    address now = name(free4), nowudp = name(freeudp);
    CHECK(!memcmp(&now, &foreign, sizeof now) && get(free4, IPPROTO_IP, IP_FREEBIND) == 0, "the foreign address");
    CHECK(get(free4, SOL_SOCKET, SO_ACCEPTCONN) == 1, "the foreign address: does not listen");
    address now6 = name(free6);
    CHECK(!memcmp(&now6, &foreign6, sizeof now6) && get(free6, IPPROTO_IPV6, IPV6_FREEBIND) == 0, "the foreign IPv6 address");
    CHECK(!memcmp(&nowudp, &foreignudp, sizeof nowudp) && get(freeudp, IPPROTO_IP, IP_FREEBIND) == 1, "the foreign UDP address");
    char have[9];
    CHECK(recv(defer, have, sizeof have, MSG_DONTWAIT) == 5, "deferred: its first data");
    talk("deferred", deferc, defer);
    for (int i = 0; i < 4; i++) {
        int reads = i == 1 || i == 2, writes = i != 1;
        struct pollfd ready = {.fd = udp[i], .events = POLLIN | POLLRDHUP};
        MUST(poll(&ready, 1, 0));
        CHECK(!(ready.revents & POLLRDHUP) == !reads && !(ready.revents & POLLHUP) == !(reads && writes), "UDP %d: poll %#x", i, ready.revents);
        address to = name(udp[i]);
        ssize_t sent = i < 3 ? send(udp[i], "x", 1, MSG_NOSIGNAL) : sendto(udp[3], "x", 1, MSG_NOSIGNAL, &to.any, sizeof to);
        CHECK(writes ? sent == -1 && errno == EPIPE : sent == 1, "UDP %d: %zd: %s", i, sent, strerror(errno));
    }
    pass();
}
