/* Unix sockets inside the process: pairs of all types, names, listeners, data and descriptors that wait, closed ends. */
#include "guest.h"

#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { ROOM = 70000 };

static void pair(int type, int *fd) { MUST(socketpair(AF_UNIX, type, 0, fd)); }

/* A name, abstract when it begins with @. */
static socklen_t address(struct sockaddr_un *at, const char *name) {
    memset(at, 0, sizeof *at);
    at->sun_family = AF_UNIX;
    strcpy(at->sun_path, name);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
    if (*name == '@') at->sun_path[0] = 0;
    return *name == '@' ? len : len + 1;
}

static int named(int type, const char *name) {
    struct sockaddr_un at;
    socklen_t len = address(&at, name);
    int fd = socket(AF_UNIX, type, 0);
    MUST(fd);
    unlink(name);
    MUST(bind(fd, (struct sockaddr *)&at, len));
    return fd;
}

static int join(int fd, const char *name) {
    struct sockaddr_un at;
    socklen_t len = address(&at, name);
    return connect(fd, (struct sockaddr *)&at, len);
}

static int joined(int type, const char *name) {
    int fd = socket(AF_UNIX, type, 0);
    MUST(fd);
    MUST(join(fd, name));
    return fd;
}

static void give(int fd, const char *text, int with) {
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {(void *)text, strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (with < 0) {
        message.msg_control = NULL;
        message.msg_controllen = 0;
    } else {
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &with, sizeof with);
    }
    CHECK(sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)strlen(text), "send \"%s\": %s", text, strerror(errno));
}

/* Takes what comes in one call; returns the descriptor that came with it, or -1. */
static int take(int fd, size_t room, const char *text) {
    char have[256], control[CMSG_SPACE(4 * sizeof(int))];
    struct iovec part = {have, room};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
    CHECK(got == (ssize_t)strlen(text) && memcmp(have, text, (size_t)got) == 0, "%d: %zd bytes (%.*s) instead of \"%s\": %s", fd, got,
          got > 0 ? (int)got : 0, have, text, strerror(errno));
    int with = -1;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
        if (head->cmsg_type == SCM_RIGHTS) memcpy(&with, CMSG_DATA(head), sizeof with);
    }
    return with;
}

static void get(int fd, const char *text) { CHECK(take(fd, 256, text) == -1, "%d: \"%s\" came with a descriptor", fd, text); }

static void expect_end(int fd) {
    char byte;
    ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT);
    CHECK(got == 0, "%d: %zd instead of the end: %s", fd, got, strerror(errno));
}

static void expect_empty(int fd) {
    char byte;
    CHECK(recv(fd, &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN, "%d: holds more, or has ended", fd);
}

static void expect_broken(int fd) {
    CHECK(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "%d: takes data: %s", fd, strerror(errno));
}

static void talk(int a, int b) {
    give(a, "hello", -1);
    get(b, "hello");
    give(b, "and back", -1);
    get(a, "and back");
}

static int option(int fd, int name) {
    int value = -1;
    socklen_t len = sizeof value;
    CHECK(getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0, "option %d of %d: %s", name, fd, strerror(errno));
    return value;
}

int main(void) {
    int stream[2], dgram[2], packets[2], full[2], half[2], alone[2], reset[2], rights[2], gone[2], empty[2], one = 1, size = 20000;
    pair(SOCK_STREAM | SOCK_NONBLOCK, stream);
    pair(SOCK_DGRAM, dgram);
    pair(SOCK_SEQPACKET | SOCK_CLOEXEC, packets);
    pair(SOCK_STREAM, full);
    pair(SOCK_STREAM, half);
    pair(SOCK_STREAM, alone);
    pair(SOCK_STREAM, reset);
    pair(SOCK_STREAM, rights);
    pair(SOCK_SEQPACKET, gone);
    pair(SOCK_DGRAM, empty);
    give(stream[0], "one ", -1);
    give(stream[0], "and two", -1);
    give(stream[1], "other way", -1);
    give(dgram[0], "first", -1);
    give(dgram[0], "second", -1);
    give(dgram[1], "third", -1);
    give(packets[0], "a packet", -1);
    give(packets[0], "b packet", -1);
    give(half[0], "before the end", -1);
    MUST(shutdown(half[0], SHUT_WR));
    give(alone[1], "last words", -1);
    close(alone[1]);
    give(reset[0], "never read", -1);
    close(reset[1]);
    give(gone[1], "last packet", -1);
    close(gone[1]);
    MUST(send(empty[0], "", 0, 0));
    give(empty[0], "behind nothing", -1);
    int plain[2], ends[2];
    MUST(pipe(plain));
    MUST(pipe2(ends, O_NONBLOCK));
    give(rights[0], "before ", -1);
    give(rights[0], "with", plain[1]);
    give(rights[0], "behind", -1);
    give(dgram[0], "with too", ends[1]);
    MUST(setsockopt(stream[0], SOL_SOCKET, SO_PASSCRED, &one, sizeof one));
    MUST(setsockopt(stream[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size));
    static char pattern_[ROOM], have[ROOM];
    fill(9, pattern_, ROOM);
    CHECK(send(full[0], pattern_, ROOM, 0) == ROOM, "set-up: a large message");

    umask(0);
    int listener = named(SOCK_STREAM | SOCK_NONBLOCK, "stream.sock"), hidden = named(SOCK_SEQPACKET, "@ckpt-guest-unix"), server, client;
    char abstract[64];
    close(hidden);
    snprintf(abstract, sizeof abstract, "@ckpt-guest-%d-%ld", getpid(), (long)time(NULL));
    hidden = named(SOCK_SEQPACKET, abstract);
    MUST(chmod("stream.sock", 0640));
    MUST(listen(listener, 9));
    MUST(listen(hidden, 2));
    client = joined(SOCK_STREAM, "stream.sock");
    server = accept(listener, NULL, NULL);
    MUST(server);
    give(client, "for the server", -1);
    give(server, "for the client", -1);
    int hclient = joined(SOCK_SEQPACKET, abstract), hserver = accept(hidden, NULL, NULL);
    MUST(hserver);
    give(hclient, "hidden", -1);
    /* Its client has gone, its listener is still there. */
    int left = joined(SOCK_STREAM, "stream.sock"), kept = accept(listener, NULL, NULL);
    MUST(kept);
    give(left, "from who has gone", -1);
    close(left);
    int waits = joined(SOCK_STREAM, "stream.sock");
    int inbox = named(SOCK_DGRAM, "inbox.sock"), outbox = named(SOCK_DGRAM, "outbox.sock"), sender = joined(SOCK_DGRAM, "inbox.sock");
    give(sender, "from a sender without a name", -1);
    MUST(join(outbox, "inbox.sock"));
    give(outbox, "from the outbox", -1);
    int fresh = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(fresh);
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 7};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, rights[0], &event));
    int buffer = option(stream[1], SO_SNDBUF), flags = fcntl(stream[0], F_GETFL), listening = fcntl(listener, F_GETFL);

    say("ready");
    wait_to_go();

    CHECK(fcntl(stream[0], F_GETFL) == flags && fcntl(listener, F_GETFL) == listening, "flags");
    CHECK(fcntl(packets[0], F_GETFD) == FD_CLOEXEC && fcntl(dgram[0], F_GETFD) == 0, "descriptor flags");
    CHECK(option(stream[0], SO_PASSCRED) == 1 && option(stream[1], SO_PASSCRED) == 0, "SO_PASSCRED");
    CHECK(option(stream[1], SO_SNDBUF) == buffer, "SO_SNDBUF %d, was %d", option(stream[1], SO_SNDBUF), buffer);
    CHECK(option(rights[1], SO_PEEK_OFF) == -1, "SO_PEEK_OFF %d", option(rights[1], SO_PEEK_OFF));
    get(stream[1], "one and two");
    get(stream[0], "other way");
    talk(stream[0], stream[1]);
    get(dgram[1], "first");
    get(dgram[1], "second");
    int with = take(dgram[1], 256, "with too");
    CHECK(with >= 0, "no descriptor came with the message");
    CHECK(write(with, "x", 1) == 1 && read(ends[0], have, 9) == 1, "the descriptor in the message leads elsewhere");
    expect_empty(dgram[1]);
    get(dgram[0], "third");
    talk(dgram[0], dgram[1]);
    get(packets[1], "a packet");
    CHECK(take(packets[1], 3, "b p") == -1, "a descriptor");
    expect_empty(packets[1]);
    talk(packets[0], packets[1]);
    CHECK(recv(full[1], have, ROOM, MSG_WAITALL) == ROOM, "a large message: short");
    expect_filled(9, have, ROOM);
    talk(full[0], full[1]);
    get(half[1], "before the end");
    expect_end(half[1]);
    expect_broken(half[0]);
    give(half[1], "still open", -1);
    get(half[0], "still open");
    get(alone[0], "last words");
    expect_end(alone[0]);
    expect_broken(alone[0]);
    char byte;
    CHECK(recv(reset[0], &byte, 1, MSG_DONTWAIT) == -1 && errno == ECONNRESET, "no reset: %s", strerror(errno));
    expect_end(reset[0]);
    get(gone[0], "last packet");
    expect_end(gone[0]);
    CHECK(take(rights[1], 7, "before ") == -1, "the descriptor came too early");
    with = take(rights[1], 256, "with");
    CHECK(with >= 0, "no descriptor came with the stream");
    CHECK(write(with, "x", 1) == 1 && read(plain[0], have, 9) == 1, "the descriptor in the stream leads elsewhere");
    get(rights[1], "behind");
    get(server, "for the server");
    get(client, "for the client");
    talk(client, server);
    get(kept, "from who has gone");
    expect_end(kept);
    get(hserver, "hidden");
    talk(hserver, hclient);
    int late = accept(listener, NULL, NULL);
    CHECK(late >= 0, "nobody waits at the listener: %s", strerror(errno));
    talk(waits, late);
    CHECK(accept(listener, NULL, NULL) == -1 && errno == EAGAIN, "more than one waits at the listener");
    struct stat stat_;
    CHECK(stat("stream.sock", &stat_) == 0 && (stat_.st_mode & 07777) == 0640, "the socket file's mode: %o", stat_.st_mode);
    late = joined(SOCK_STREAM, "stream.sock");
    server = accept(listener, NULL, NULL);
    CHECK(server >= 0, "accept: %s", strerror(errno));
    talk(late, server);
    late = joined(SOCK_SEQPACKET, abstract);
    server = accept(hidden, NULL, NULL);
    CHECK(server >= 0, "accept of an abstract name: %s", strerror(errno));
    talk(late, server);
    get(inbox, "from a sender without a name");
    struct sockaddr_un from;
    socklen_t len = sizeof from;
    ssize_t got = recvfrom(inbox, have, ROOM, MSG_DONTWAIT, (struct sockaddr *)&from, &len);
    CHECK(got == 15 && strcmp(from.sun_path, "outbox.sock") == 0, "the sender's name is %s", from.sun_path);
    give(sender, "again", -1);
    get(inbox, "again");
    CHECK(recv(empty[1], have, ROOM, MSG_DONTWAIT) == 0, "an empty message is lost");
    get(empty[1], "behind nothing");
    MUST(join(fresh, "stream.sock"));
    give(rights[1], "wake", -1);
    CHECK(epoll_wait(epoll, &event, 1, 1000) == 1 && event.data.u32 == 7, "epoll does not see it");
    pass();
}
