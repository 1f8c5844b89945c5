/* What an epoll set can watch besides counters, timers and pipes: signalfds, a pidfd, both ends of a pseudo-terminal, inotify, a FIFO,
 * and sockets; quiet ones and ready ones, by level and by edge. */
#include "guest.h"

#include <netinet/in.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>

enum { QUIET_SIGNAL, LOUD_SIGNAL, PROCESS, MASTER, SLAVE, NOTICES, FIFO, LISTENER, PAIR, ALL };

/* Exactly these are ready, each with its own word. */
static void expect(int set, const char *what, uint32_t wanted) {
    struct epoll_event got[16];
    uint32_t seen = 0;
    for (int tries = 0; tries < 5000; tries++) {
        int n = epoll_wait(set, got, 16, 0);
        CHECK(n >= 0, "%s: epoll_wait: %s", what, strerror(errno));
        /* A terminal hands on by itself, and needs a moment. */
        for (int i = 0; i < n; i++) {
            CHECK(got[i].data.u64 >> 32 == 0xabcd && got[i].events == EPOLLIN, "%s: word %llx with %#x", what,
                  (unsigned long long)got[i].data.u64, got[i].events);
            seen |= 1u << (got[i].data.u64 & 31);
        }
        if (seen == wanted) return;
        nap();
    }
    fail("%s: %#x are ready, not %#x", what, seen, wanted);
}

static int signals(int number) {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, number);
    MUST(sigprocmask(SIG_BLOCK, &mask, NULL));
    int fd = signalfd(-1, &mask, SFD_NONBLOCK);
    MUST(fd);
    return fd;
}

static void sends(int fd, const char *text) {
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "write: %s", strerror(errno));
}

static void watch_all(int set, const int *fds, uint32_t also) {
    for (int i = 0; i < ALL; i++) {
        struct epoll_event event = {.events = EPOLLIN | also, .data.u64 = 0xabcdull << 32 | (uint32_t)i};
        MUST(epoll_ctl(set, EPOLL_CTL_ADD, fds[i], &event));
    }
}

int main(void) {
    int fds[ALL], pair[2], level = epoll_create1(EPOLL_CLOEXEC), edges = epoll_create1(0);
    MUST(level);
    MUST(edges);
    fds[QUIET_SIGNAL] = signals(SIGHUP);
    fds[LOUD_SIGNAL] = signals(SIGTERM);
    MUST(fds[PROCESS] = (int)syscall(SYS_pidfd_open, getpid(), 0));
    struct termios raw;
    memset(&raw, 0, sizeof raw);
    cfmakeraw(&raw);
    raw.c_cflag |= CREAD | CS8;
    MUST(openpty(&fds[MASTER], &fds[SLAVE], NULL, &raw, NULL));
    mkdir("watched", 0755);
    MUST(fds[NOTICES] = inotify_init1(IN_NONBLOCK));
    MUST(inotify_add_watch(fds[NOTICES], "watched", IN_CREATE));
    unlink("fifo-in-set");
    MUST(mkfifo("fifo-in-set", 0600));
    MUST(fds[FIFO] = open("fifo-in-set", O_RDWR | O_NONBLOCK));
    MUST(fds[LISTENER] = socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    MUST(setsockopt(fds[LISTENER], SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
    MUST(bind(fds[LISTENER], (struct sockaddr *)&address, sizeof address));
    MUST(listen(fds[LISTENER], 3));
    MUST(getsockname(fds[LISTENER], (struct sockaddr *)&address, &len));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    fds[PAIR] = pair[0];
    watch_all(level, fds, 0);
    watch_all(edges, fds, EPOLLET);
    MUST(kill(getpid(), SIGTERM));
    sends(fds[SLAVE], "shown");
    sends(fds[FIFO], "text");
    expect(level, "set-up", 1 << LOUD_SIGNAL | 1 << MASTER | 1 << FIFO);

    say("ready");
    wait_to_go();

    expect(level, "level", 1 << LOUD_SIGNAL | 1 << MASTER | 1 << FIFO);
    expect(edges, "edges", 1 << LOUD_SIGNAL | 1 << MASTER | 1 << FIFO);
    for (int i = 0; i < ALL; i++) {
        struct epoll_event event = {.events = EPOLLIN};
        CHECK(epoll_ctl(level, EPOLL_CTL_ADD, fds[i], &event) == -1 && errno == EEXIST, "number %d is not watched", i);
    }
    struct signalfd_siginfo info;
    char text[16];
    CHECK(read(fds[LOUD_SIGNAL], &info, sizeof info) == sizeof info && info.ssi_signo == SIGTERM, "no signal");
    CHECK(read(fds[MASTER], text, sizeof text) == 5 && memcmp(text, "shown", 5) == 0, "what was shown");
    CHECK(read(fds[FIFO], text, sizeof text) == 4 && memcmp(text, "text", 4) == 0, "what is in the FIFO");
    expect(level, "quiet", 0);

    MUST(kill(getpid(), SIGHUP));
    sends(fds[MASTER], "typed");
    sends(pair[1], "x");
    spill("watched/new", "text");
    int client = socket(AF_INET, SOCK_STREAM, 0);
    MUST(client);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0, "connect: %s", strerror(errno));
    uint32_t later = 1 << QUIET_SIGNAL | 1 << SLAVE | 1 << PAIR | 1 << NOTICES | 1 << LISTENER;
    expect(level, "later", later);
    expect(edges, "later edges", later);
    expect(edges, "edges once", 0);
    unlink("watched/new");
    unlink("fifo-in-set");
    pass();
}
