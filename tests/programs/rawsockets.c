/* Sockets below TCP and UDP, and their like: raw, ping, packet, UDP-Lite; packet filters. What this user may not make is left out; in a
 * network of its own a user may make all of them.
 *
 * Prints which kinds there are. */
#include "guest.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#ifndef ICMP_FILTER
#define ICMP_FILTER 1
#endif

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_ll ll;
} address;

static address name(int fd, int peer) {
    address at;
    memset(&at, 0, sizeof at);
    socklen_t len = sizeof at;
    int done = (peer ? getpeername : getsockname)(fd, &at.any, &len);
    CHECK(done == 0 || (peer && (errno == ENOTCONN || errno == EOPNOTSUPP)), "name of %d: %s", fd, strerror(errno));
    return at;
}

/* -1: this user may not, or the kernel has none. */
static int make(const char *what, int family, int kind, int protocol) {
    int fd = socket(family, kind | SOCK_CLOEXEC, protocol);
    if (fd == -1) {
        CHECK(errno == EPERM || errno == EACCES || errno == EPROTONOSUPPORT || errno == ESOCKTNOSUPPORT, "set-up: %s: %s", what, strerror(errno));
        return -1;
    }
    printf("has %s\n", what);
    return fd;
}

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t len = sizeof value;
    MUST(getsockopt(fd, level, name, &value, &len));
    return value;
}

static void put(int fd, int level, int name, int value) { MUST(setsockopt(fd, level, name, &value, sizeof value)); }

static struct sock_filter PROGRAM[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 1000, 0, 1), BPF_STMT(BPF_RET | BPF_K, 0), BPF_STMT(BPF_RET | BPF_K, ~0u)};
enum { INSTRUCTIONS = sizeof PROGRAM / sizeof *PROGRAM };

/* False: this user may not, as some kernels have it for TCP. */
static int filter(int fd) {
    struct sock_fprog program = {INSTRUCTIONS, PROGRAM};
    int done = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
    CHECK(done == 0 || errno == EPERM, "set-up: filter: %s", strerror(errno));
    return done == 0;
}

/* How often a packet socket is in groups of devices. */
static unsigned groups(int fd) {
    struct { struct nlmsghdr h; struct packet_diag_req m; } ask = {
        .h = {sizeof ask, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0}, .m = {.sdiag_family = AF_PACKET, .pdiag_show = PACKET_SHOW_MCLIST}};
    struct stat own;
    MUST(fstat(fd, &own));
    int diag = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG);
    MUST(send(diag, &ask, sizeof ask, 0));
    unsigned count = 0;
    for (;;) {
        static _Alignas(8) char bytes[1 << 16];
        int len = (int)recv(diag, bytes, sizeof bytes, 0);
        CHECK(len > 0, "packet_diag: %s", strerror(errno));
        for (struct nlmsghdr *h = (void *)bytes; NLMSG_OK(h, (unsigned)len); h = NLMSG_NEXT(h, len)) {
            if (h->nlmsg_type == NLMSG_DONE) {
                close(diag);
                return count;
            }
            CHECK(h->nlmsg_type != NLMSG_ERROR, "packet_diag: an error");
            struct packet_diag_msg *one = NLMSG_DATA(h);
            struct rtattr *part = (void *)(one + 1);
            int rest = (int)(h->nlmsg_len - NLMSG_LENGTH(sizeof *one));
            for (; one->pdiag_ino == own.st_ino && RTA_OK(part, rest); part = RTA_NEXT(part, rest)) {
                if (part->rta_type == PACKET_DIAG_MCLIST && RTA_PAYLOAD(part)) count += ((struct packet_diag_mclist *)RTA_DATA(part))->pdmc_count;
            }
        }
    }
}

static void expect_filter(const char *what, int fd) {
    struct sock_filter have[16];
    socklen_t count = 16;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, have, &count) == 0, "%s: filter: %s", what, strerror(errno));
    CHECK(count == INSTRUCTIONS && !memcmp(have, PROGRAM, sizeof PROGRAM), "%s: another filter, of %u", what, count);
}

static void arrives(const char *what, int fd) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    CHECK(poll(&wait, 1, 5000) == 1, "%s: nothing comes", what);
    char bytes[2000];
    CHECK(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0, "%s: %s", what, strerror(errno));
}

enum { RAW, CONNECTED, HEADER, RAW6, PING, PING6, LITE, PACKETS, BARE, TCP, UDP, UNIX, COUNT };

int main(void) {
    int fd[COUNT];
    address lo = {.v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}}, lo6 = {.v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback}};
    unsigned device = if_nametoindex("lo");
    fd[RAW] = make("raw", AF_INET, SOCK_RAW, IPPROTO_ICMP);
    unsigned types = ~(1u << ICMP_ECHO), now;
    if (fd[RAW] >= 0) {
        MUST(setsockopt(fd[RAW], SOL_RAW, ICMP_FILTER, &types, sizeof types));
        MUST(bind(fd[RAW], &lo.any, sizeof lo.v4));
    }
    fd[CONNECTED] = make("raw, connected", AF_INET, SOCK_RAW, 253);
    if (fd[CONNECTED] >= 0) MUST(connect(fd[CONNECTED], &lo.any, sizeof lo.v4));
    fd[HEADER] = make("raw, with headers", AF_INET, SOCK_RAW, IPPROTO_RAW);
    fd[RAW6] = make("raw, IPv6", AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    struct icmp6_filter types6, now6;
    ICMP6_FILTER_SETBLOCKALL(&types6);
    ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &types6);
    if (fd[RAW6] >= 0) MUST(setsockopt(fd[RAW6], IPPROTO_ICMPV6, ICMP6_FILTER, &types6, sizeof types6));
    fd[PING] = make("ping", AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    fd[PING6] = make("ping, IPv6", AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6);
    if (fd[PING] >= 0) {
        MUST(bind(fd[PING], &lo.any, sizeof lo.v4));
        put(fd[PING], IPPROTO_IP, IP_TTL, 33);
    }
    if (fd[PING6] >= 0) MUST(connect(fd[PING6], &lo6.any, sizeof lo6.v6));
    fd[LITE] = make("UDP-Lite", AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
    if (fd[LITE] >= 0) {
        MUST(bind(fd[LITE], &lo.any, sizeof lo.v4));
        put(fd[LITE], IPPROTO_UDPLITE, 10 /* UDPLITE_SEND_CSCOV */, 20);
        put(fd[LITE], IPPROTO_UDPLITE, 11 /* UDPLITE_RECV_CSCOV */, 8);
        address to = name(fd[LITE], 0);
        MUST(connect(fd[LITE], &to.any, sizeof to.v4));
        MUST(shutdown(fd[LITE], SHUT_RD));
    }
    fd[PACKETS] = make("packet", AF_PACKET, SOCK_RAW, 0);
    fd[BARE] = make("packet, bare", AF_PACKET, SOCK_DGRAM, htons(0x88b5));
    struct packet_mreq group = {.mr_ifindex = (int)device, .mr_type = PACKET_MR_PROMISC};
    if (fd[PACKETS] >= 0) {
        address at = {.ll = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = (int)device}};
        MUST(bind(fd[PACKETS], &at.any, sizeof at.ll));
        MUST(setsockopt(fd[PACKETS], SOL_PACKET, PACKET_ADD_MEMBERSHIP, &group, sizeof group));
        MUST(setsockopt(fd[PACKETS], SOL_PACKET, PACKET_ADD_MEMBERSHIP, &group, sizeof group));
        put(fd[PACKETS], SOL_PACKET, PACKET_AUXDATA, 1);
        put(fd[PACKETS], SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
        filter(fd[PACKETS]);
        put(fd[PACKETS], SOL_SOCKET, SO_LOCK_FILTER, 1);
    }
    MUST(fd[TCP] = socket(AF_INET, SOCK_STREAM, 0));
    MUST(bind(fd[TCP], &lo.any, sizeof lo.v4));
    int filters = filter(fd[TCP]);
    MUST(listen(fd[TCP], 3));
    address at = name(fd[TCP], 0);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    MUST(connect(client, &at.any, sizeof at.v4));
    int server = accept(fd[TCP], NULL, NULL);
    MUST(server);
    CHECK(filter(client) == filters, "set-up: filter of a client");
    MUST(send(server, "waits", 5, 0));
    MUST(fd[UDP] = socket(AF_INET6, SOCK_DGRAM, 0));
    MUST(bind(fd[UDP], &lo6.any, sizeof lo6.v6));
    CHECK(filter(fd[UDP]), "set-up: filter of UDP");
    put(fd[UDP], SOL_SOCKET, SO_LOCK_FILTER, 1);
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    fd[UNIX] = pair[0];
    CHECK(filter(fd[UNIX]), "set-up: filter of a Unix socket");
    address local[COUNT], remote[COUNT];
    for (int i = 0; i < COUNT; i++) {
        if (fd[i] < 0) continue;
        local[i] = name(fd[i], 0);
        remote[i] = name(fd[i], 1);
    }

    say("ready");
    wait_to_go();

    for (int i = 0; i < COUNT; i++) {
        if (fd[i] < 0) continue;
        address here = name(fd[i], 0), there = name(fd[i], 1);
        CHECK(!memcmp(&here, &local[i], sizeof here), "%d: another address", i);
        CHECK(!memcmp(&there, &remote[i], sizeof there), "%d: another peer", i);
        CHECK(fcntl(fd[i], F_GETFD) == (i >= TCP ? 0 : FD_CLOEXEC), "%d: flags", i);
    }
    socklen_t len = sizeof now;
    struct icmphdr echo = {.type = ICMP_ECHO, .un.echo.id = htons(77)};
    if (fd[RAW] >= 0) {
        MUST(getsockopt(fd[RAW], SOL_RAW, ICMP_FILTER, &now, &len));
        CHECK(now == types, "raw: filter %#x, was %#x", now, types);
    }
    if (fd[CONNECTED] >= 0) {
        CHECK(send(fd[CONNECTED], "along", 5, 0) == 5, "raw, connected: %s", strerror(errno));
        arrives("raw, connected", fd[CONNECTED]);
    }
    if (fd[HEADER] >= 0) CHECK(option(fd[HEADER], IPPROTO_IP, IP_HDRINCL) == 1, "raw: IP_HDRINCL");
    if (fd[RAW6] >= 0) {
        len = sizeof now6;
        MUST(getsockopt(fd[RAW6], IPPROTO_ICMPV6, ICMP6_FILTER, &now6, &len));
        CHECK(!memcmp(&now6, &types6, sizeof now6), "raw, IPv6: filter");
    }
    if (fd[PING] >= 0) {
        CHECK(option(fd[PING], IPPROTO_IP, IP_TTL) == 33, "ping: IP_TTL");
        CHECK(sendto(fd[PING], &echo, sizeof echo, 0, &lo.any, sizeof lo.v4) == sizeof echo, "ping: %s", strerror(errno));
        arrives("ping", fd[PING]);
        if (fd[RAW] >= 0) arrives("raw", fd[RAW]);
    }
    if (fd[PING6] >= 0) {
        struct icmp6_hdr echo6 = {.icmp6_type = ICMP6_ECHO_REQUEST};
        CHECK(send(fd[PING6], &echo6, sizeof echo6, 0) == sizeof echo6, "ping, IPv6: %s", strerror(errno));
        arrives("ping, IPv6", fd[PING6]);
        if (fd[RAW6] >= 0) arrives("raw, IPv6", fd[RAW6]);
    }
    if (fd[LITE] >= 0) {
        CHECK(option(fd[LITE], IPPROTO_UDPLITE, 10) == 20 && option(fd[LITE], IPPROTO_UDPLITE, 11) == 8, "UDP-Lite: coverage");
        CHECK(option(fd[LITE], SOL_SOCKET, SO_PROTOCOL) == IPPROTO_UDPLITE, "UDP-Lite: another protocol");
    }
    if (fd[PACKETS] >= 0) {
        CHECK(option(fd[PACKETS], SOL_PACKET, PACKET_AUXDATA) == 1 && option(fd[PACKETS], SOL_PACKET, PACKET_IGNORE_OUTGOING) == 1, "packet: options");
        CHECK(option(fd[PACKETS], SOL_SOCKET, SO_LOCK_FILTER) == 1, "packet: the filter is not locked");
        expect_filter("packet", fd[PACKETS]);
        CHECK(groups(fd[PACKETS]) == 2, "packet: in %u groups", groups(fd[PACKETS]));
    }
    if (filters) {
        expect_filter("TCP, listening", fd[TCP]);
        expect_filter("TCP, connected", client);
    }
    expect_filter("UDP", fd[UDP]);
    CHECK(setsockopt(fd[UDP], SOL_SOCKET, SO_DETACH_FILTER, &now, sizeof now) == -1 && errno == EPERM, "UDP: the filter is not locked");
    expect_filter("unix", fd[UNIX]);
    arrives("TCP, connected", client);
    /* It lets nothing great in. */
    static char large[2000];
    address to = name(fd[UDP], 0);
    int sender = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(sendto(sender, large, sizeof large, 0, &to.any, sizeof to.v6) == sizeof large && sendto(sender, large, 5, 0, &to.any, sizeof to.v6) == 5, "UDP: %s",
          strerror(errno));
    struct pollfd wait = {.fd = fd[UDP], .events = POLLIN};
    CHECK(poll(&wait, 1, 5000) == 1 && recv(fd[UDP], large, sizeof large, MSG_DONTWAIT) == 5, "UDP: the filter does not work");
    pass();
}
