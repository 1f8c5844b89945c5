/* Descriptors in transit that their sender has closed: of all kinds, twice the same, in a stream and in messages, sockets with what waits in
 * them, and within each other. */
#include "guest.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static void give(int fd, const char *text, int count, const int *with) {
    char control[CMSG_SPACE(8 * sizeof(int))] = {0};
    struct iovec part = {(void *)text, strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(head), with, (size_t)count * sizeof(int));
    CHECK(sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)strlen(text), "set-up: send \"%s\": %s", text, strerror(errno));
}

/* Gives one away: the message has the only descriptor then. */
static void part_with(int fd, const char *text, int with) {
    give(fd, text, 1, &with);
    close(with);
}

/* Takes a message of this text, and its descriptors, of which there must be so many. */
static void take(int fd, const char *text, int count, int *with) {
    char have[100], control[CMSG_SPACE(8 * sizeof(int))];
    struct iovec part = {have, strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    CHECK(got == (ssize_t)strlen(text) && !memcmp(have, text, (size_t)got), "%zd bytes instead of \"%s\": %s", got, text, got < 0 ? strerror(errno) : "");
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    CHECK(count ? head && head->cmsg_len == CMSG_LEN((size_t)count * sizeof(int)) : !head, "\"%s\": another number of descriptors", text);
    if (count) memcpy(with, CMSG_DATA(head), (size_t)count * sizeof(int));
}

static int taken(int fd, const char *text) {
    int with;
    take(fd, text, 1, &with);
    return with;
}

static void expect(const char *what, int fd, const char *text) {
    char have[100];
    ssize_t got = read(fd, have, sizeof have);
    CHECK(got == (ssize_t)strlen(text) && !memcmp(have, text, (size_t)got), "%s: %zd bytes instead of \"%s\": %s", what, got, text, got < 0 ? strerror(errno) : "");
}

int main(void) {
    int stream[2], messages[2], packets[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, messages));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets));

    /* A file, at an offset; the same once more, twice in one message; a file without a name, and memory. */
    spill("named", "0123456789");
    int file = open("named", O_RDWR | O_APPEND);
    MUST(file);
    MUST(lseek(file, 3, SEEK_SET));
    give(stream[0], "file", 2, (int[]){file, file});
    part_with(messages[0], "again", file);
    spill("gone", "deleted");
    int gone = open("gone", O_RDONLY);
    MUST(gone);
    MUST(unlink("gone"));
    part_with(stream[0], "gone", gone);
    int memory = memfd_create("transit", 0);
    MUST(memory);
    CHECK(write(memory, "in memory", 9) == 9 && lseek(memory, 0, SEEK_SET) == 0, "set-up: memfd");
    part_with(packets[0], "memory", memory);
    /* Plain bytes in between. */
    CHECK(send(stream[0], "plain", 5, 0) == 5, "set-up: plain");
    /* A pipe both of whose ends are under way, with what it holds; an end whose other end stays. */
    int both[2], one[2];
    MUST(pipe(both));
    MUST(pipe(one));
    CHECK(write(both[1], "in the pipe", 11) == 11 && write(one[1], "one end", 7) == 7, "set-up: pipes");
    give(stream[0], "pipe", 2, both);
    close(both[0]);
    close(both[1]);
    part_with(messages[0], "end", one[0]);
    /* Events. */
    int event = eventfd(7, EFD_NONBLOCK), timer = timerfd_create(CLOCK_MONOTONIC, 0), epoll = epoll_create1(0);
    struct itimerspec soon = {.it_value = {0, 1000000}};
    MUST(timerfd_settime(timer, 0, &soon, NULL));
    nap();
    nap();
    struct epoll_event in = {.events = EPOLLIN, .data.u32 = 5};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, one[1], &(struct epoll_event){.events = EPOLLOUT, .data.u32 = 6}));
    part_with(stream[0], "event", event);
    part_with(stream[0], "timer", timer);
    part_with(packets[0], "epoll", epoll);
    /* Sockets: a listener, one with data whose peer stays here, a whole pair. */
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    MUST(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    MUST(bind(listener, (struct sockaddr *)&at, sizeof at));
    MUST(listen(listener, 3));
    MUST(getsockname(listener, (struct sockaddr *)&at, &len));
    part_with(messages[0], "listener", listener);
    int half[2], pair[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, half));
    CHECK(send(half[0], "to the half", 11, 0) == 11, "set-up: half");
    part_with(stream[0], "half", half[1]);
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    CHECK(send(pair[0], "within the pair", 15, 0) == 15, "set-up: pair");
    give(stream[0], "pair", 2, pair);
    close(pair[0]);
    close(pair[1]);
    /* In each other: a socket under way holds one under way, which holds a file; and two hold each other. */
    int outer[2], inner[2], x[2], y[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, outer));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, inner));
    int deep = open("deep", O_RDWR | O_CREAT, 0600);
    MUST(deep);
    CHECK(write(deep, "deep down", 9) == 9 && lseek(deep, 0, SEEK_SET) == 0, "set-up: deep");
    part_with(inner[0], "file", deep);
    part_with(outer[0], "inner", inner[1]);
    part_with(messages[0], "outer", outer[1]);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, x));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, y));
    give(y[0], "x", 1, &x[1]);
    give(x[0], "y", 1, &y[1]);
    close(x[1]);

    say("ready");
    wait_to_go();

    int with[2], files[3];
    char bytes[20];
    take(stream[1], "file", 2, files);
    files[2] = taken(messages[1], "again");
    CHECK(lseek(files[0], 0, SEEK_CUR) == 3, "the file's offset: %ld", (long)lseek(files[0], 0, SEEK_CUR));
    CHECK(read(files[0], bytes, 3) == 3 && !memcmp(bytes, "345", 3), "the file's bytes");
    for (int i = 1; i < 3; i++) CHECK(lseek(files[i], 0, SEEK_CUR) == 6, "the file does not share its offset");
    CHECK((fcntl(files[2], F_GETFL) & (O_ACCMODE | O_APPEND)) == (O_RDWR | O_APPEND), "the file's flags");
    expect("gone", taken(stream[1], "gone"), "deleted");
    expect("memory", taken(packets[1], "memory"), "in memory");
    take(stream[1], "plain", 0, NULL);
    take(stream[1], "pipe", 2, with);
    expect("pipe", with[0], "in the pipe");
    CHECK(write(with[1], "more", 4) == 4, "pipe: %s", strerror(errno));
    expect("pipe", with[0], "more");
    close(with[1]);
    CHECK(read(with[0], bytes, 1) == 0, "pipe: somebody else has its end");
    int end = taken(messages[1], "end");
    expect("end", end, "one end");
    CHECK(write(one[1], "still", 5) == 5, "end: %s", strerror(errno));
    expect("end", end, "still");
    uint64_t count;
    event = taken(stream[1], "event");
    CHECK(read(event, &count, 8) == 8 && count == 7, "eventfd");
    timer = taken(stream[1], "timer");
    CHECK(read(timer, &count, 8) == 8 && count == 1, "timerfd");
    epoll = taken(packets[1], "epoll");
    CHECK(epoll_wait(epoll, &in, 1, 5000) == 1 && in.data.u32 == 6, "epoll");
    listener = taken(messages[1], "listener");
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&at, sizeof at) == 0 && accept(listener, NULL, NULL) >= 0, "listener: %s", strerror(errno));
    half[1] = taken(stream[1], "half");
    expect("half", half[1], "to the half");
    CHECK(send(half[1], "back", 4, 0) == 4, "half: %s", strerror(errno));
    expect("half", half[0], "back");
    take(stream[1], "pair", 2, pair);
    expect("pair", pair[1], "within the pair");
    CHECK(send(pair[1], "back", 4, 0) == 4, "pair: %s", strerror(errno));
    expect("pair", pair[0], "back");
    outer[1] = taken(messages[1], "outer");
    inner[1] = taken(outer[1], "inner");
    expect("deep", taken(inner[1], "file"), "deep down");
    CHECK(send(inner[1], "back", 4, 0) == 4 && recv(inner[0], bytes, sizeof bytes, 0) == 4, "inner: %s", strerror(errno));
    CHECK(send(outer[0], "on", 2, 0) == 2, "outer: %s", strerror(errno));
    expect("outer", outer[1], "on");
    x[1] = taken(y[1], "x");
    int same = taken(x[1], "y");
    CHECK(send(y[0], "both", 4, 0) == 4, "y: %s", strerror(errno));
    expect("y", same, "both");
    CHECK(send(x[0], "too", 3, 0) == 3, "x: %s", strerror(errno));
    expect("x", x[1], "too");
    CHECK(fcntl(100, F_GETFD) == -1 && fcntl(64, F_GETFD) == -1, "a descriptor more");
    pass();
}
