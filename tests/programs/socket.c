/* TCP and UDP, IPv4 and IPv6: unbound, bound, listening and connected inside the process, with options, groups and data. */
#include "guest.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} address;

static address loopback(int family) {
    address at = {.any.sa_family = (sa_family_t)family};
    if (family == AF_INET) at.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (family == AF_INET6) at.v6.sin6_addr = in6addr_loopback;
    return at;
}

static address name(int fd, int peer) {
    address at;
    memset(&at, 0, sizeof at);
    socklen_t len = sizeof at;
    CHECK((peer ? getpeername : getsockname)(fd, &at.any, &len) == 0, "name of %d: %s", fd, strerror(errno));
    return at;
}

static void put(int fd, int level, int option, int value) {
    /* Older kernels lack some; ordinary users may not set all. */
    if (setsockopt(fd, level, option, &value, sizeof value) == -1 && (errno == ENOPROTOOPT || errno == EPERM)) return;
    CHECK(setsockopt(fd, level, option, &value, sizeof value) == 0, "set-up: option %d/%d: %s", level, option, strerror(errno));
}

static int get(int fd, int level, int option) {
    int value = -1;
    socklen_t len = sizeof value;
    if (getsockopt(fd, level, option, &value, &len) == -1 && errno == ENOPROTOOPT) return -1;
    CHECK(getsockopt(fd, level, option, &value, &len) == 0, "option %d/%d of %d: %s", level, option, fd, strerror(errno));
    return value;
}

static int make(int family, int kind, int bound) {
    int fd = socket(family, kind, 0);
    MUST(fd);
    address at = loopback(family);
    if (bound) {
        if ((kind & 0xf) == SOCK_STREAM) put(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        MUST(bind(fd, &at.any, sizeof at));
    }
    return fd;
}

static void expect(int fd, const char *text) {
    char have[4096];
    size_t len = strlen(text);
    ssize_t got = recv(fd, have, sizeof have, MSG_DONTWAIT);
    CHECK(got == (ssize_t)len && memcmp(have, text, len) == 0, "%d: %zd bytes instead of \"%s\"", fd, got, text);
}

static void expect_end(int fd) {
    char byte;
    ssize_t got = recv(fd, &byte, 1, 0);
    CHECK(got == 0, "%d: %zd instead of the end", fd, got);
}

static void talk(int from, int to) {
    CHECK(send(from, "hello", 5, MSG_NOSIGNAL) == 5, "%d: send: %s", from, strerror(errno));
    struct pollfd wait = {.fd = to, .events = POLLIN};
    CHECK(poll(&wait, 1, 5000) == 1, "%d: nothing comes from %d", to, from);
    expect(to, "hello");
}

static int same(address a, address b) {
    if (a.any.sa_family == AF_INET) return a.v4.sin_port == b.v4.sin_port && a.v4.sin_addr.s_addr == b.v4.sin_addr.s_addr;
    return a.v6.sin6_port == b.v6.sin6_port && memcmp(&a.v6.sin6_addr, &b.v6.sin6_addr, 16) == 0;
}

/* A connection to the listener. */
static void join(int listener, int *client, int *server) {
    address at = name(listener, 0);
    *client = make(at.any.sa_family, SOCK_STREAM, 0);
    MUST(connect(*client, &at.any, sizeof at));
    *server = accept(listener, NULL, NULL);
    MUST(*server);
}

enum { LISTEN4, LISTEN6, BOUND4, FRESH4, UDP4, UDP6, UDPA, UDPB, GROUP, CLIENT, SERVER, CLIENT6, SERVER6, HALF, HALFS, DEAD, RESET, COUNT };

static const struct {
    int socket, level, option, value;
} OPTIONS[] = {
    {LISTEN4, SOL_SOCKET, SO_REUSEPORT, 1},      {LISTEN4, SOL_SOCKET, SO_KEEPALIVE, 1},
    {LISTEN4, IPPROTO_TCP, TCP_DEFER_ACCEPT, 7}, {LISTEN4, IPPROTO_TCP, TCP_FASTOPEN, 5},
    {LISTEN4, IPPROTO_TCP, TCP_NODELAY, 1},      {LISTEN6, IPPROTO_IPV6, IPV6_V6ONLY, 1},
    {LISTEN6, SOL_SOCKET, SO_RCVBUF, 30000},     {FRESH4, IPPROTO_TCP, TCP_KEEPIDLE, 77},
    {FRESH4, IPPROTO_TCP, TCP_KEEPINTVL, 11},    {FRESH4, IPPROTO_TCP, TCP_KEEPCNT, 4},
    {FRESH4, IPPROTO_IP, IP_TOS, 0x10},          {FRESH4, SOL_SOCKET, SO_PRIORITY, 3},
    {FRESH4, IPPROTO_TCP, TCP_USER_TIMEOUT, 99}, {FRESH4, SOL_SOCKET, SO_OOBINLINE, 1},
    {FRESH4, IPPROTO_TCP, TCP_MAXSEG, 700},      {UDP4, SOL_SOCKET, SO_BROADCAST, 1},
    {UDP4, SOL_SOCKET, SO_SNDBUF, 20000},        {UDP4, IPPROTO_IP, IP_PKTINFO, 1},
    {UDP4, IPPROTO_IP, IP_RECVERR, 1},           {UDP4, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO},
    {UDP6, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1},   {UDP6, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9},
    {UDP6, IPPROTO_IPV6, IPV6_TCLASS, 0x20},     {GROUP, IPPROTO_IP, IP_MULTICAST_TTL, 3},
    {CLIENT, IPPROTO_TCP, TCP_NODELAY, 1},       {SERVER, IPPROTO_TCP, TCP_NODELAY, 0},
    {SERVER, SOL_SOCKET, SO_KEEPALIVE, 0},       {CLIENT, SOL_SOCKET, SO_SNDBUF, 50000},
    {LISTEN4, SOL_SOCKET, SO_INCOMING_CPU, 0},   {UDP4, SOL_SOCKET, 75 /* SO_RCVMARK */, 1},
    {UDP4, SOL_SOCKET, 82 /* SO_RCVPRIORITY */, 1}, {UDP6, IPPROTO_IPV6, 11 /* IPV6_FLOWINFO */, 1},
    {UDP6, IPPROTO_IPV6, 2 /* IPV6_2292PKTINFO */, 1}, {FRESH4, IPPROTO_TCP, 45 /* TCP_RTO_MIN_US */, 50000},
    {FRESH4, IPPROTO_TCP, 46 /* TCP_DELACK_MAX_US */, 30000}, {GROUP, IPPROTO_IP, IP_MULTICAST_IF, 0x100007f},
};
enum { OPTIONS_COUNT = sizeof OPTIONS / sizeof *OPTIONS };

int main(void) {
    int fd[COUNT];
    fd[LISTEN4] = make(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 1);
    fd[LISTEN6] = make(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fd[BOUND4] = make(AF_INET, SOCK_STREAM, 1);
    fd[FRESH4] = make(AF_INET, SOCK_STREAM, 0);
    fd[UDP4] = make(AF_INET, SOCK_DGRAM, 1);
    fd[UDP6] = make(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 1);
    fd[UDPA] = make(AF_INET, SOCK_DGRAM, 1);
    fd[UDPB] = make(AF_INET, SOCK_DGRAM, 1);
    fd[GROUP] = make(AF_INET, SOCK_DGRAM, 1);
    address a = name(fd[UDPA], 0), b = name(fd[UDPB], 0);
    MUST(connect(fd[UDPA], &b.any, sizeof b));
    MUST(connect(fd[UDPB], &a.any, sizeof a));
    struct ip_mreqn group = {.imr_multiaddr.s_addr = htonl(0xeffffe7d), .imr_ifindex = (int)if_nametoindex("lo")};
    MUST(setsockopt(fd[GROUP], IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
    struct ipv6_mreq group6 = {.ipv6mr_interface = if_nametoindex("lo")};
    inet_pton(AF_INET6, "ff01::7d", &group6.ipv6mr_multiaddr);
    MUST(setsockopt(fd[UDP6], IPPROTO_IPV6, IPV6_JOIN_GROUP, &group6, sizeof group6));
    struct linger linger = {1, 33};
    struct timeval limit = {5, 250000};
    MUST(setsockopt(fd[FRESH4], SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    MUST(setsockopt(fd[FRESH4], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    MUST(setsockopt(fd[BOUND4], SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
    for (int i = 0; i < OPTIONS_COUNT; i++) {
        if (OPTIONS[i].socket < CLIENT) put(fd[OPTIONS[i].socket], OPTIONS[i].level, OPTIONS[i].option, OPTIONS[i].value);
    }
    /* The same port in both families. */
    address v4 = name(fd[LISTEN4], 0), v6 = loopback(AF_INET6);
    v6.v6.sin6_port = v4.v4.sin_port;
    put(fd[LISTEN6], SOL_SOCKET, SO_REUSEADDR, 1);
    MUST(bind(fd[LISTEN6], &v6.any, sizeof v6));
    MUST(listen(fd[LISTEN6], 7));
    int plain = make(AF_INET, SOCK_STREAM, 1);
    MUST(listen(plain, 3));
    join(plain, &fd[CLIENT], &fd[SERVER]);
    join(plain, &fd[HALF], &fd[HALFS]);
    int other;
    join(plain, &fd[DEAD], &other);
    close(other);
    MUST(shutdown(fd[DEAD], SHUT_WR));
    expect_end(fd[DEAD]);
    join(plain, &fd[RESET], &other);
    linger.l_linger = 0;
    MUST(setsockopt(other, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    close(other);
    /* Nobody listens here any more when it is saved. */
    close(plain);
    join(fd[LISTEN6], &fd[CLIENT6], &fd[SERVER6]);
    MUST(listen(fd[LISTEN4], 11));
    for (int i = 0; i < OPTIONS_COUNT; i++) {
        if (OPTIONS[i].socket >= CLIENT) put(fd[OPTIONS[i].socket], OPTIONS[i].level, OPTIONS[i].option, OPTIONS[i].value);
    }
    MUST(send(fd[CLIENT], "to the server", 13, 0));
    MUST(send(fd[SERVER], "to the client", 13, 0));
    MUST(send(fd[HALF], "last words", 10, 0));
    MUST(shutdown(fd[HALF], SHUT_WR));
    int also = fcntl(fd[LISTEN4], F_DUPFD, 77);
    MUST(also);
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 4};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[LISTEN4], &event));
    event.data.u32 = 6;
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[UDP4], &event));

    address local[COUNT], remote[2] = {name(fd[UDPA], 1), name(fd[UDPB], 1)};
    int flags[COUNT], cloexec[COUNT], values[OPTIONS_COUNT];
    for (int i = 0; i < COUNT; i++) {
        local[i] = name(fd[i], 0);
        flags[i] = fcntl(fd[i], F_GETFL);
        cloexec[i] = fcntl(fd[i], F_GETFD);
    }
    for (int i = 0; i < OPTIONS_COUNT; i++) values[i] = get(fd[OPTIONS[i].socket], OPTIONS[i].level, OPTIONS[i].option);
    int size = get(fd[FRESH4], SOL_SOCKET, SO_RCVBUF);

    say("ready");
    wait_to_go();

    for (int i = 0; i < COUNT; i++) {
        CHECK(fcntl(fd[i], F_GETFL) == flags[i], "%d: flags %#x, were %#x", i, fcntl(fd[i], F_GETFL), flags[i]);
        CHECK(fcntl(fd[i], F_GETFD) == cloexec[i], "%d: descriptor flags", i);
        CHECK(i >= CLIENT || same(name(fd[i], 0), local[i]), "%d: another address", i);
    }
    for (int i = 0; i < OPTIONS_COUNT; i++) {
        int value = get(fd[OPTIONS[i].socket], OPTIONS[i].level, OPTIONS[i].option);
        CHECK(value == values[i], "option %d: %d, was %d", i, value, values[i]);
    }
    CHECK(get(fd[FRESH4], SOL_SOCKET, SO_RCVBUF) == size, "the buffer's size was set");
    CHECK(get(fd[LISTEN4], SOL_SOCKET, SO_ACCEPTCONN) == 1 && get(fd[LISTEN6], SOL_SOCKET, SO_ACCEPTCONN) == 1, "deaf");
    CHECK(get(fd[BOUND4], SOL_SOCKET, SO_ACCEPTCONN) == 0, "listens");
    struct tcp_info info;
    socklen_t len = sizeof info;
    MUST(getsockopt(fd[LISTEN4], IPPROTO_TCP, TCP_INFO, &info, &len));
    CHECK(info.tcpi_sacked == 11, "backlog %u", info.tcpi_sacked);
    len = sizeof linger;
    MUST(getsockopt(fd[FRESH4], SOL_SOCKET, SO_LINGER, &linger, &len));
    CHECK(linger.l_onoff == 1 && linger.l_linger == 33, "linger %d %d", linger.l_onoff, linger.l_linger);
    struct timeval now;
    len = sizeof now;
    MUST(getsockopt(fd[FRESH4], SOL_SOCKET, SO_RCVTIMEO, &now, &len));
    CHECK(now.tv_sec == 5 && now.tv_usec / 10000 == 25, "timeout %ld.%06ld", (long)now.tv_sec, (long)now.tv_usec);
    char device[16] = "";
    len = sizeof device;
    MUST(getsockopt(fd[BOUND4], SOL_SOCKET, SO_BINDTODEVICE, device, &len));
    CHECK(strcmp(device, "lo") == 0, "device %s", device);
    CHECK(setsockopt(fd[GROUP], IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof group) == 0, "not in the group");
    CHECK(setsockopt(fd[UDP6], IPPROTO_IPV6, IPV6_LEAVE_GROUP, &group6, sizeof group6) == 0, "not in the IPv6 group");
    CHECK(same(name(fd[UDPA], 1), remote[0]) && same(name(fd[UDPB], 1), remote[1]), "other peers of UDP");
    talk(fd[UDPA], fd[UDPB]);
    talk(fd[UDPB], fd[UDPA]);

    expect(fd[SERVER], "to the server");
    expect(fd[CLIENT], "to the client");
    expect(fd[HALFS], "last words");
    expect_end(fd[HALFS]);
    CHECK(send(fd[HALF], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "writes after shutdown");
    talk(fd[HALFS], fd[HALF]);
    talk(fd[CLIENT], fd[SERVER]);
    talk(fd[SERVER], fd[CLIENT]);
    talk(fd[CLIENT6], fd[SERVER6]);
    CHECK(same(name(fd[CLIENT6], 1), name(fd[SERVER6], 0)), "the connection's ends disagree");
    CHECK(same(name(fd[SERVER6], 1), name(fd[CLIENT6], 0)), "the connection's other ends disagree");
    expect_end(fd[DEAD]);
    char byte;
    CHECK(recv(fd[RESET], &byte, 1, 0) == -1 && errno == ECONNRESET, "no reset: %s", strerror(errno));
    CHECK(recv(fd[RESET], &byte, 1, 0) == 0, "the reset comes twice");

    int client = make(AF_INET, SOCK_STREAM, 0);
    address at = name(also, 0);
    CHECK(connect(client, &at.any, sizeof at) == 0, "connect: %s", strerror(errno));
    CHECK(send(client, "x", 1, 0) == 1, "send: %s", strerror(errno));
    CHECK(epoll_wait(epoll, &event, 1, 5000) == 1 && event.data.u32 == 4, "epoll does not see the listener");
    CHECK(accept(fd[LISTEN4], NULL, NULL) >= 0, "accept: %s", strerror(errno));
    join(fd[LISTEN6], &client, &other);
    client = make(AF_INET, SOCK_DGRAM, 0);
    CHECK(sendto(client, "dgram", 5, 0, &local[UDP4].any, sizeof local[UDP4]) == 5, "sendto: %s", strerror(errno));
    CHECK(epoll_wait(epoll, &event, 1, 5000) == 1 && event.data.u32 == 6, "epoll does not see UDP");
    expect(fd[UDP4], "dgram");
    pass();
}
