/* Netlink sockets of all kinds that are carried: addresses, groups, options; each is asked something and answers. */
#include "guest.h"

#include <linux/genetlink.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>

#ifndef NETLINK_GET_STRICT_CHK
#define NETLINK_GET_STRICT_CHK 12
#endif

enum { ROUTE, NAMED, DIAG, UEVENT, GENERIC, UNBOUND, KERNEL, PEER, COUNT };
static int fds[COUNT];
static struct sockaddr_nl before[COUNT];
static unsigned groups[COUNT][4];

static int make(int which, int protocol) {
    fds[which] = socket(AF_NETLINK, (which % 2 ? SOCK_DGRAM : SOCK_RAW) | SOCK_CLOEXEC, protocol);
    MUST(fds[which]);
    return fds[which];
}

static void read_groups(int fd, unsigned to[4]) {
    socklen_t len = 16;
    memset(to, 0, 16);
    MUST(getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, to, &len));
}

static struct sockaddr_nl name(int fd) {
    struct sockaddr_nl name;
    socklen_t len = sizeof name;
    memset(&name, 0, sizeof name);
    MUST(getsockname(fd, (struct sockaddr *)&name, &len));
    return name;
}

/* Sends a request and expects a message of one of two types. */
static void ask(int which, struct nlmsghdr *request, unsigned type, unsigned other) {
    static unsigned number;
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    request->nlmsg_seq = ++number;
    ssize_t sent = sendto(fds[which], request, request->nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel);
    CHECK(sent == (ssize_t)request->nlmsg_len, "socket %d: send: %s", which, strerror(errno));
    for (int done = 0; !done;) {
        static _Alignas(8) char bytes[1 << 16];
        ssize_t got = recv(fds[which], bytes, sizeof bytes, 0);
        CHECK(got >= (ssize_t)sizeof *request, "socket %d: receive: %s", which, strerror(errno));
        int len = (int)got;
        for (struct nlmsghdr *h = (void *)bytes; NLMSG_OK(h, (unsigned)len) && !done; h = NLMSG_NEXT(h, len)) {
            if (h->nlmsg_seq != number) continue;
            CHECK(h->nlmsg_type == type || h->nlmsg_type == other, "socket %d: answer of type %u", which, h->nlmsg_type);
            done = h->nlmsg_type == NLMSG_DONE || !(h->nlmsg_flags & NLM_F_MULTI);
        }
    }
}

static void ask_all(void) {
    struct { struct nlmsghdr h; struct ifinfomsg m; } links = {.h = {sizeof links, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 0, 0}};
    ask(ROUTE, &links.h, RTM_NEWLINK, NLMSG_DONE);
    ask(NAMED, &links.h, RTM_NEWLINK, NLMSG_DONE);
    struct { struct nlmsghdr h; struct inet_diag_req_v2 m; } sockets = {
        .h = {sizeof sockets, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0}, .m = {.sdiag_family = AF_INET, .sdiag_protocol = 6, .idiag_states = ~0u}};
    ask(DIAG, &sockets.h, SOCK_DIAG_BY_FAMILY, NLMSG_DONE);
    struct { struct nlmsghdr h; struct genlmsghdr m; } families = {
        .h = {sizeof families, GENL_ID_CTRL, NLM_F_REQUEST | NLM_F_DUMP, 0, 0}, .m = {.cmd = CTRL_CMD_GETFAMILY, .version = 1}};
    ask(GENERIC, &families.h, GENL_ID_CTRL, NLMSG_DONE);
}

int main(void) {
    int on = 1;
    struct sockaddr_nl of_groups = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK | RTMGRP_NEIGH};
    MUST(bind(make(ROUTE, NETLINK_ROUTE), (struct sockaddr *)&of_groups, sizeof of_groups));
    int more = RTNLGRP_NSID;
    MUST(setsockopt(fds[ROUTE], SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &more, sizeof more));
    struct sockaddr_nl named = {.nl_family = AF_NETLINK, .nl_pid = 0x6f000000u + (unsigned)getpid()};
    MUST(bind(make(NAMED, NETLINK_ROUTE), (struct sockaddr *)&named, sizeof named));
    MUST(setsockopt(fds[NAMED], SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on));
    MUST(setsockopt(fds[NAMED], SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on));
    make(DIAG, NETLINK_SOCK_DIAG);
    struct sockaddr_nl events = {.nl_family = AF_NETLINK, .nl_groups = 1};
    MUST(bind(make(UEVENT, NETLINK_KOBJECT_UEVENT), (struct sockaddr *)&events, sizeof events));
    make(GENERIC, NETLINK_GENERIC);
    setsockopt(fds[GENERIC], SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
    make(UNBOUND, NETLINK_ROUTE);
    /* Connected to the kernel, and, where that is allowed, to another one. */
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    MUST(connect(make(KERNEL, NETLINK_ROUTE), (struct sockaddr *)&kernel, sizeof kernel));
    int allowed = !connect(make(PEER, NETLINK_ROUTE), (struct sockaddr *)&named, sizeof named);
    CHECK(allowed || errno == EPERM, "set-up: connect: %s", strerror(errno));
    ask_all();
    for (int i = 0; i < COUNT; i++) {
        before[i] = name(fds[i]);
        read_groups(fds[i], groups[i]);
    }

    say("ready");
    wait_to_go();

    for (int i = 0; i < COUNT; i++) {
        struct sockaddr_nl after = name(fds[i]);
        unsigned now[4];
        read_groups(fds[i], now);
        CHECK(after.nl_pid == before[i].nl_pid, "socket %d: address %u, was %u", i, after.nl_pid, before[i].nl_pid);
        CHECK(!memcmp(now, groups[i], sizeof now), "socket %d: groups %x, were %x", i, now[0], groups[i][0]);
        CHECK(fcntl(fds[i], F_GETFD) == FD_CLOEXEC, "socket %d: flags", i);
    }
    socklen_t len = sizeof on;
    CHECK(!getsockopt(fds[NAMED], SOL_NETLINK, NETLINK_EXT_ACK, &on, &len) && on == 1, "NETLINK_EXT_ACK");
    CHECK(!getsockopt(fds[NAMED], SOL_NETLINK, NETLINK_CAP_ACK, &on, &len) && on == 1, "NETLINK_CAP_ACK");
    ask_all();
    struct sockaddr_nl peer;
    len = sizeof peer;
    MUST(getpeername(fds[PEER], (struct sockaddr *)&peer, &len));
    CHECK(peer.nl_pid == (allowed ? named.nl_pid : 0), "the peer is %u", peer.nl_pid);
    /* Whoever is connected takes messages of its peer alone. */
    struct nlmsghdr noop = {.nlmsg_len = sizeof noop, .nlmsg_type = NLMSG_NOOP};
    struct sockaddr_nl to = name(fds[KERNEL]);
    if (allowed) {
        CHECK(sendto(fds[ROUTE], &noop, sizeof noop, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to) == -1 && errno == ECONNREFUSED,
              "connected to the kernel: takes others' messages: %s", strerror(errno));
        to = name(fds[NAMED]);
        CHECK(send(fds[PEER], &noop, sizeof noop, MSG_DONTWAIT) == sizeof noop, "to the peer: %s", strerror(errno));
        CHECK(recv(fds[NAMED], &noop, sizeof noop, MSG_DONTWAIT) == sizeof noop, "from the peer: %s", strerror(errno));
    }
    pass();
}
