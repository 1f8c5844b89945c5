/* epoll sets: what they watch, with which events and words; edges, one-shots, exclusive ones, sets in sets, numbers that were
 * closed or used again since. */
#include "guest.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

static void watch(int set, int fd, uint32_t events, uint64_t word) {
    struct epoll_event event = {.events = events, .data.u64 = word};
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

static int counter(uint64_t value) {
    int fd = eventfd(0, EFD_NONBLOCK);
    MUST(fd);
    if (value) CHECK(write(fd, &value, 8) == 8, "set-up: write");
    return fd;
}

static void add(int fd) {
    uint64_t one = 1;
    CHECK(write(fd, &one, 8) == 8, "write: %s", strerror(errno));
}

/* Exactly these words come, in any order, each with these events. */
static void expect(int set, const char *what, uint32_t events, int count, const uint64_t *words) {
    struct epoll_event got[16];
    int n = epoll_wait(set, got, 16, 0);
    CHECK(n == count, "%s: %d events, not %d (first: %llx)", what, n, count, (unsigned long long)(n > 0 ? got[0].data.u64 : 0));
    for (int i = 0; i < count; i++) {
        int found = 0;
        for (int j = 0; j < n; j++) found |= got[j].data.u64 == words[i] && got[j].events == events;
        CHECK(found, "%s: no event with word %llx", what, (unsigned long long)words[i]);
    }
}

static void lines(int set, const char *what, int count) {
    char path[64], info[4096];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", set);
    slurp(path, info, sizeof info);
    int n = 0;
    for (char *at = info; (at = strstr(at, "tfd:")); at++) n++;
    CHECK(n == count, "%s: watches %d, not %d: %s", what, n, count, info);
}

int main(void) {
    int set = epoll_create1(EPOLL_CLOEXEC), edges = epoll_create1(0), outer = epoll_create1(0), closed = epoll_create1(0);
    MUST(set);
    MUST(edges);
    MUST(outer);
    MUST(closed);
    int also = fcntl(set, F_DUPFD, 60);
    MUST(also);

    int idle = counter(0), loud = counter(3), ends[2], timer = timerfd_create(CLOCK_MONOTONIC, 0);
    MUST(pipe2(ends, O_NONBLOCK));
    MUST(timer);
    watch(set, idle, EPOLLIN, 0x123456789abcdef0ull);
    watch(set, loud, EPOLLIN, 2);
    watch(set, ends[0], EPOLLIN | EPOLLRDHUP, 3);
    watch(set, ends[1], EPOLLOUT | EPOLLEXCLUSIVE, 4);
    watch(set, timer, EPOLLIN | EPOLLWAKEUP, 5);
    int twin = dup(loud); /* one file, watched under two numbers */
    MUST(twin);
    watch(set, twin, EPOLLIN | EPOLLONESHOT, 6);

    int edge = counter(0), spent = counter(1);
    watch(edges, edge, EPOLLIN | EPOLLET, 7);
    watch(edges, spent, EPOLLIN | EPOLLONESHOT, 8);
    expect(edges, "set-up", EPOLLIN, 1, (uint64_t[]){8});

    watch(outer, edges, EPOLLIN, 9);
    watch(outer, set, EPOLLIN, 10);

    /* Closed since, its file kept by another number; and that number used again, for a file that is watched itself. */
    int gone = counter(1), kept = dup(gone), reused = counter(1), kept_too = dup(reused);
    MUST(kept);
    MUST(kept_too);
    watch(closed, gone, EPOLLIN, 11);
    close(gone);
    watch(closed, reused, EPOLLIN, 12);
    int other = counter(1);
    MUST(dup2(other, reused));
    close(other);
    watch(closed, reused, EPOLLIN, 13);

    say("ready");
    wait_to_go();

    CHECK(fcntl(set, F_GETFD) == FD_CLOEXEC && fcntl(also, F_GETFD) == 0, "close-on-exec");
    lines(set, "set", 6);
    lines(edges, "edges", 2);
    lines(outer, "outer", 2);
    lines(closed, "closed", 3);
    struct epoll_event got[16];
    int n = epoll_wait(also, got, 16, 0);
    CHECK(n == 3, "set: %d events", n);
    for (int i = 0; i < n; i++) {
        uint64_t word = got[i].data.u64;
        CHECK(((word == 2 || word == 6) && got[i].events == EPOLLIN) || (word == 4 && got[i].events == EPOLLOUT),
              "set: word %llx with %x", (unsigned long long)word, got[i].events);
    }
    add(idle);
    CHECK(write(ends[1], "x", 1) == 1, "the pipe takes nothing");
    struct itimerspec soon = {{0, 0}, {0, 1}};
    MUST(timerfd_settime(timer, 0, &soon, NULL));
    while (epoll_wait(set, got, 16, 0) < 5) nap();
    n = epoll_wait(set, got, 16, 0);
    uint32_t seen = 0;
    for (int i = 0; i < n; i++) seen |= 1u << (got[i].data.u64 & 31);
    CHECK(n == 5 && seen == (1u << 16 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5), "set: %d events, %x", n, seen);

    /* One-shots stay spent, edges come once. */
    expect(edges, "spent", EPOLLIN, 0, NULL);
    add(edge);
    expect(edges, "edge", EPOLLIN, 1, (uint64_t[]){7});
    expect(edges, "edge, again", EPOLLIN, 0, NULL);
    struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 14};
    CHECK(!epoll_ctl(edges, EPOLL_CTL_MOD, spent, &again), "EPOLL_CTL_MOD: %s", strerror(errno));
    expect(outer, "outer", EPOLLIN, 2, (uint64_t[]){9, 10});
    expect(edges, "armed again", EPOLLIN, 1, (uint64_t[]){14});
    expect(edges, "spent again", EPOLLIN, 0, NULL);

    expect(closed, "closed", EPOLLIN, 3, (uint64_t[]){11, 12, 13});
    CHECK(epoll_ctl(closed, EPOLL_CTL_DEL, kept, NULL) == -1 && errno == ENOENT, "watched under another number");
    CHECK(!epoll_ctl(closed, EPOLL_CTL_DEL, reused, NULL), "EPOLL_CTL_DEL: %s", strerror(errno));
    expect(closed, "closed, after a removal", EPOLLIN, 2, (uint64_t[]){11, 12});
    close(kept);
    expect(closed, "after the last close", EPOLLIN, 1, (uint64_t[]){12});
    CHECK(fcntl(gone, F_GETFD) == -1, "a closed number is open");
    CHECK(!epoll_ctl(set, EPOLL_CTL_DEL, idle, NULL) && epoll_ctl(set, EPOLL_CTL_DEL, idle, NULL) == -1, "idle: watched twice");
    pass();
}
