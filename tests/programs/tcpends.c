/* TCP connections that have ended, or half: in every state in which one can be left, with data that waits; full ones; ones that nobody has
 * accepted; and attempts to connect. IPv4 and IPv6, and both at once. */
#include "guest.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} address;

enum { FULL = 1 << 20 };

static address loopback(int family) {
    address at = {.any.sa_family = (sa_family_t)family};
    if (family == AF_INET) at.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (family == AF_INET6) at.v6.sin6_addr = in6addr_loopback;
    return at;
}

static address name(int fd) {
    address at;
    memset(&at, 0, sizeof at);
    socklen_t len = sizeof at;
    CHECK(getsockname(fd, &at.any, &len) == 0, "name of %d: %s", fd, strerror(errno));
    return at;
}

/* 0 where there is none. */
static int peer_port(int fd) {
    address at;
    memset(&at, 0, sizeof at);
    socklen_t len = sizeof at;
    return getpeername(fd, &at.any, &len) == 0 ? ntohs(at.v4.sin_port) : 0;
}

static int port(int fd) { return ntohs(name(fd).v4.sin_port); }

/* Binds it to a port below those that the kernel gives to anybody: nobody else has it at the restart. */
static void take_port(int fd, int family) {
    static unsigned next;
    if (!next) next = 10000 + (unsigned)getpid() * 41 % 20000;
    address at = loopback(family);
    do {
        at.v4.sin_port = htons((uint16_t)next);
        next = next < 32000 ? next + 1 : 10000;
    } while (bind(fd, &at.any, sizeof at) && errno == EADDRINUSE);
    CHECK(port(fd) != 0, "set-up: bind: %s", strerror(errno));
}

static int listens(int family, int backlog) {
    int fd = socket(family, SOCK_STREAM, 0), one = 1;
    MUST(fd);
    MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    take_port(fd, family);
    MUST(listen(fd, backlog));
    return fd;
}

static int client(int listener, int how) {
    address at = name(listener);
    int fd = socket(at.any.sa_family, SOCK_STREAM | how, 0), one = 1;
    MUST(fd);
    /* What is left of it for a minute does not keep its port from it. */
    MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    take_port(fd, at.any.sa_family);
    int done = connect(fd, &at.any, sizeof at);
    CHECK(done == 0 || (how && errno == EINPROGRESS), "set-up: connect: %s", strerror(errno));
    return fd;
}

static void join(int listener, int *c, int *s) {
    *c = client(listener, 0);
    *s = accept(listener, NULL, NULL);
    MUST(*s);
}

static void put(int fd, const char *text) { MUST(send(fd, text, strlen(text), MSG_NOSIGNAL)); }

/* Ends it without a farewell. */
static void reset(int fd) {
    struct linger linger = {1, 0};
    MUST(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    close(fd);
}

static int state(int fd) {
    struct tcp_info info;
    socklen_t len = sizeof info;
    MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len));
    return info.tcpi_state;
}

static void becomes(int fd, int wanted) {
    for (int i = 0; i < 2000 && state(fd) != wanted; i++) nap();
    CHECK(state(fd) == wanted, "set-up: %d is in state %d instead of %d", fd, state(fd), wanted);
}

static void expect(const char *what, int fd, const char *text) {
    char have[256];
    size_t len = strlen(text);
    ssize_t got = recv(fd, have, sizeof have, MSG_DONTWAIT);
    CHECK(got == (ssize_t)len && memcmp(have, text, len) == 0, "%s: %zd bytes instead of \"%s\": %s", what, got, text, strerror(errno));
}

static void expect_end(const char *what, int fd) {
    char byte;
    ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT);
    CHECK(got == 0, "%s: %zd instead of the end: %s", what, got, got < 0 ? strerror(errno) : "");
}

static void expect_error(const char *what, int fd, int error) {
    char byte;
    ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT);
    CHECK(got == -1 && errno == error, "%s: %zd instead of an error: %s", what, got, strerror(errno));
}

static void expect_broken(const char *what, int fd) {
    CHECK(send(fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == -1 && errno == EPIPE, "%s: takes data: %s", what, strerror(errno));
}

static void expect_ready(const char *what, int fd, short wanted) {
    struct pollfd ready = {.fd = fd, .events = POLLIN | POLLRDHUP};
    MUST(poll(&ready, 1, 0));
    CHECK(ready.revents == wanted, "%s: poll tells %#x, was %#x", what, ready.revents, wanted);
}

static short ready(int fd) {
    struct pollfd ready = {.fd = fd, .events = POLLIN | POLLRDHUP};
    MUST(poll(&ready, 1, 0));
    return ready.revents;
}

static int error_of(int fd) {
    int error = -1;
    socklen_t len = sizeof error;
    MUST(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
    return error;
}

/* Sends what fits, without waiting; how much that was. */
static size_t stuff(int fd, unsigned area) {
    static unsigned char bytes[16 * FULL];
    fill(area, bytes, sizeof bytes);
    size_t sent = 0;
    for (int i = 0; i < 20; i++) {
        ssize_t took;
        while (sent < sizeof bytes && (took = send(fd, bytes + sent, sizeof bytes - sent, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0) sent += (size_t)took;
        nap();
    }
    CHECK(sent > 100000 && sent < sizeof bytes, "set-up: %zu bytes fill it", sent);
    return sent;
}

static void expect_stuffed(const char *what, int fd, unsigned area, size_t len) {
    static unsigned char bytes[16 * FULL];
    size_t have = 0;
    while (have < len) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        CHECK(poll(&wait, 1, 10000) == 1, "%s: nothing comes behind %zu of %zu bytes", what, have, len);
        ssize_t got = recv(fd, bytes + have, sizeof bytes - have, MSG_DONTWAIT);
        CHECK(got > 0, "%s: %zd behind %zu of %zu bytes: %s", what, got, have, len, strerror(errno));
        have += (size_t)got;
    }
    CHECK(have == len, "%s: %zu bytes, were %zu", what, have, len);
    expect_filled(area, bytes, len);
}

static void talk(const char *what, int a, int b) {
    for (int i = 0; i < 2; i++) {
        int from = i ? b : a, to = i ? a : b;
        CHECK(send(from, "hello", 5, MSG_NOSIGNAL) == 5, "%s: send: %s", what, strerror(errno));
        struct pollfd wait = {.fd = to, .events = POLLIN};
        CHECK(poll(&wait, 1, 5000) == 1, "%s: nothing comes", what);
        expect(what, to, "hello");
    }
}

enum { TIMEWAIT, PASSIVE, LASTACK, RESET, ENDRESET, TAKEN, ORPHAN, BOTHC, BOTHS, HALFC, HALFS, FULLC, FULLS, LEFT, FINC, FINS, READS, READC, REFUSED, ENDED };
static const char *const NAMES[ENDED] = {"closed first",  "closed by the peer", "closed by both", "reset",      "ended and reset", "reset, and told",  "orphan",
                                         "both, client",  "both, server",       "half, client",   "half, server", "full, client",  "full, server",     "left while full",
                                         "full and closed, client", "full and closed, server", "reads no more", "reads no more, peer", "refused"};

typedef struct {
    int fd[ENDED], local[ENDED], peer[ENDED];
    short ready[ENDED];
    size_t full, left, fin;
    int listener, waits, ends, begins, crowded;
} stage;

static void set(stage *s, int family) {
    int plain = listens(family, 16), peer;
    /* This side has closed its half first, and got an answer and the end. */
    join(plain, &peer, &s->fd[TIMEWAIT]);
    MUST(shutdown(s->fd[TIMEWAIT], SHUT_WR));
    put(peer, "answer");
    close(peer);
    becomes(s->fd[TIMEWAIT], TCP_CLOSE);
    join(plain, &peer, &s->fd[PASSIVE]);
    put(peer, "farewell");
    close(peer);
    becomes(s->fd[PASSIVE], TCP_CLOSE_WAIT);
    join(plain, &peer, &s->fd[LASTACK]);
    put(peer, "last");
    close(peer);
    becomes(s->fd[LASTACK], TCP_CLOSE_WAIT);
    MUST(shutdown(s->fd[LASTACK], SHUT_WR));
    becomes(s->fd[LASTACK], TCP_CLOSE);
    join(plain, &peer, &s->fd[RESET]);
    put(peer, "before the reset");
    reset(peer);
    becomes(s->fd[RESET], TCP_CLOSE);
    join(plain, &s->fd[ENDRESET], &peer);
    put(peer, "before the end");
    MUST(shutdown(peer, SHUT_WR));
    becomes(s->fd[ENDRESET], TCP_CLOSE_WAIT);
    reset(peer);
    becomes(s->fd[ENDRESET], TCP_CLOSE);
    join(plain, &peer, &s->fd[TAKEN]);
    put(peer, "told");
    reset(peer);
    becomes(s->fd[TAKEN], TCP_CLOSE);
    CHECK(error_of(s->fd[TAKEN]) == ECONNRESET, "set-up: no reset");
    /* A client whose server has gone. */
    join(plain, &s->fd[ORPHAN], &peer);
    put(peer, "from the server");
    close(peer);
    becomes(s->fd[ORPHAN], TCP_CLOSE_WAIT);
    /* Both sides are here, and both have closed. */
    join(plain, &s->fd[BOTHC], &s->fd[BOTHS]);
    put(s->fd[BOTHC], "to the server");
    put(s->fd[BOTHS], "to the client");
    MUST(shutdown(s->fd[BOTHC], SHUT_WR));
    MUST(shutdown(s->fd[BOTHS], SHUT_WR));
    becomes(s->fd[BOTHC], TCP_CLOSE);
    becomes(s->fd[BOTHS], TCP_CLOSE);
    join(plain, &s->fd[HALFC], &s->fd[HALFS]);
    put(s->fd[HALFC], "request");
    put(s->fd[HALFS], "reply");
    MUST(shutdown(s->fd[HALFC], SHUT_WR));
    becomes(s->fd[HALFS], TCP_CLOSE_WAIT);
    join(plain, &s->fd[FULLC], &s->fd[FULLS]);
    s->full = stuff(s->fd[FULLC], 1);
    join(plain, &peer, &s->fd[LEFT]);
    s->left = stuff(peer, 2);
    close(peer);
    join(plain, &s->fd[FINC], &s->fd[FINS]);
    s->fin = stuff(s->fd[FINC], 3);
    put(s->fd[FINS], "meanwhile");
    MUST(shutdown(s->fd[FINC], SHUT_WR));
    join(plain, &s->fd[READS], &s->fd[READC]);
    put(s->fd[READC], "first");
    MUST(shutdown(s->fd[READS], SHUT_RD));
    /* Nobody listens any more where these were accepted. */
    close(plain);
    /* Nobody ever listened. */
    int closed = socket(family, SOCK_STREAM, 0);
    address at = loopback(family);
    MUST(bind(closed, &at.any, sizeof at));
    s->fd[REFUSED] = client(closed, SOCK_NONBLOCK);
    becomes(s->fd[REFUSED], TCP_CLOSE);
    close(closed);

    s->listener = listens(family, 8);
    s->waits = client(s->listener, 0);
    s->ends = client(s->listener, 0);
    MUST(shutdown(s->ends, SHUT_WR));
    /* One more than may wait here: the kernel asks again and again. */
    s->crowded = listens(family, 0);
    client(s->crowded, SOCK_NONBLOCK);
    s->begins = client(s->crowded, SOCK_NONBLOCK);
    nap();
    CHECK(state(s->begins) == TCP_SYN_SENT, "set-up: connected at once");
    for (int i = 0; i < ENDED; i++) {
        s->local[i] = port(s->fd[i]);
        s->peer[i] = peer_port(s->fd[i]);
        s->ready[i] = ready(s->fd[i]);
    }
}

static void check(stage *s) {
    for (int i = 0; i < ENDED; i++) {
        if (i != FULLC && i != FULLS && i != FINC && i != FINS && i != LEFT) expect_ready(NAMES[i], s->fd[i], s->ready[i]);
        CHECK(i == REFUSED || port(s->fd[i]) == s->local[i], "%s: port %d, was %d", NAMES[i], port(s->fd[i]), s->local[i]);
        CHECK((peer_port(s->fd[i]) == 0) == (s->peer[i] == 0) || i == LEFT, "%s: peer %d, was %d", NAMES[i], peer_port(s->fd[i]), s->peer[i]);
    }
    expect(NAMES[TIMEWAIT], s->fd[TIMEWAIT], "answer");
    expect_end(NAMES[TIMEWAIT], s->fd[TIMEWAIT]);
    expect_broken(NAMES[TIMEWAIT], s->fd[TIMEWAIT]);
    expect(NAMES[PASSIVE], s->fd[PASSIVE], "farewell");
    expect_end(NAMES[PASSIVE], s->fd[PASSIVE]);
    CHECK(send(s->fd[PASSIVE], "x", 1, MSG_NOSIGNAL) == 1, "closed by the peer: takes nothing: %s", strerror(errno));
    expect(NAMES[LASTACK], s->fd[LASTACK], "last");
    expect_end(NAMES[LASTACK], s->fd[LASTACK]);
    expect_broken(NAMES[LASTACK], s->fd[LASTACK]);
    expect(NAMES[RESET], s->fd[RESET], "before the reset");
    expect_error(NAMES[RESET], s->fd[RESET], ECONNRESET);
    expect_end(NAMES[RESET], s->fd[RESET]);
    expect(NAMES[ENDRESET], s->fd[ENDRESET], "before the end");
    expect_end(NAMES[ENDRESET], s->fd[ENDRESET]);
    CHECK(error_of(s->fd[ENDRESET]) == EPIPE, "ended and reset: another error");
    expect(NAMES[TAKEN], s->fd[TAKEN], "told");
    expect_end(NAMES[TAKEN], s->fd[TAKEN]);
    expect(NAMES[ORPHAN], s->fd[ORPHAN], "from the server");
    expect_end(NAMES[ORPHAN], s->fd[ORPHAN]);
    expect(NAMES[BOTHS], s->fd[BOTHS], "to the server");
    expect(NAMES[BOTHC], s->fd[BOTHC], "to the client");
    expect_end(NAMES[BOTHS], s->fd[BOTHS]);
    expect_end(NAMES[BOTHC], s->fd[BOTHC]);
    expect_broken(NAMES[BOTHC], s->fd[BOTHC]);
    expect(NAMES[HALFS], s->fd[HALFS], "request");
    expect_end(NAMES[HALFS], s->fd[HALFS]);
    expect(NAMES[HALFC], s->fd[HALFC], "reply");
    expect_broken(NAMES[HALFC], s->fd[HALFC]);
    put(s->fd[HALFS], "more");
    expect(NAMES[HALFC], s->fd[HALFC], "more");
    expect_stuffed(NAMES[FULLS], s->fd[FULLS], 1, s->full);
    talk(NAMES[FULLC], s->fd[FULLC], s->fd[FULLS]);
    expect_stuffed(NAMES[LEFT], s->fd[LEFT], 2, s->left);
    expect_end(NAMES[LEFT], s->fd[LEFT]);
    expect_stuffed(NAMES[FINS], s->fd[FINS], 3, s->fin);
    expect_end(NAMES[FINS], s->fd[FINS]);
    expect(NAMES[FINC], s->fd[FINC], "meanwhile");
    expect_broken(NAMES[FINC], s->fd[FINC]);
    expect(NAMES[READS], s->fd[READS], "first");
    expect_end(NAMES[READS], s->fd[READS]);
    put(s->fd[READS], "still writes");
    expect(NAMES[READC], s->fd[READC], "still writes");
    CHECK(error_of(s->fd[REFUSED]) == ECONNREFUSED, "refused: another error");

    int one = accept(s->listener, NULL, NULL), two = accept(s->listener, NULL, NULL);
    CHECK(one >= 0 && two >= 0, "nobody waits at the listener: %s", strerror(errno));
    int first = peer_port(one) == port(s->waits) ? one : two, second = first == one ? two : one;
    talk("waits", s->waits, first);
    expect_end("waits, closed", second);
    put(second, "an answer");
    expect("waits, closed", s->ends, "an answer");
    CHECK(accept(s->crowded, NULL, NULL) >= 0, "crowded: %s", strerror(errno));
    struct pollfd wait = {.fd = s->begins, .events = POLLOUT};
    CHECK(poll(&wait, 1, 20000) == 1 && error_of(s->begins) == 0, "does not connect: %#x", wait.revents);
    one = accept(s->crowded, NULL, NULL);
    CHECK(one >= 0, "the attempt to connect comes to nothing: %s", strerror(errno));
    talk("began to connect", s->begins, one);
}

int main(void) {
    static stage v4, v6;
    set(&v4, AF_INET);
    set(&v6, AF_INET6);
    /* An IPv4 client of a listener of both families, its server's options, and what waits. */
    int both = socket(AF_INET6, SOCK_STREAM, 0), off = 0, one = 1, ttl = 0;
    MUST(both);
    MUST(setsockopt(both, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off));
    MUST(setsockopt(both, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    address any = {.v6 = {.sin6_family = AF_INET6}};
    MUST(bind(both, &any.any, sizeof any.v6));
    MUST(listen(both, 4));
    address at = loopback(AF_INET);
    at.v4.sin_port = name(both).v6.sin6_port;
    int c = socket(AF_INET, SOCK_STREAM, 0);
    MUST(connect(c, &at.any, sizeof at.v4));
    int s = accept(both, NULL, NULL);
    MUST(s);
    put(c, "to both");
    put(s, "from both");
    /* It takes nothing that comes from further away than its neighbour. */
    ttl = 255;
    MUST(setsockopt(s, IPPROTO_IP, IP_MINTTL, &ttl, sizeof ttl));
    MUST(setsockopt(c, IPPROTO_IP, IP_TTL, &ttl, sizeof ttl));

    say("ready");
    wait_to_go();

    check(&v4);
    check(&v6);
    expect("both", s, "to both");
    expect("both", c, "from both");
    socklen_t len = sizeof ttl;
    MUST(getsockopt(s, IPPROTO_IP, IP_MINTTL, &ttl, &len));
    CHECK(ttl == 255, "IP_MINTTL %d", ttl);
    talk("both", c, s);
    CHECK(name(s).any.sa_family == AF_INET6 && peer_port(s) == port(c), "both: another family or port");
    c = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(c, &at.any, sizeof at.v4) == 0 && accept(both, NULL, NULL) >= 0, "both: %s", strerror(errno));
    pass();
}
