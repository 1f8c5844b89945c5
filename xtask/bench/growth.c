/* So many of one kernel object, for the growth of a save and a restart: `growth KIND N`. Says `ready`, then waits; after a restart it says so
 * once more.
 *
 * Must never need more than plain limits allow without saying so: it says `limit` and ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void must(long result, const char *what) {
    if (result != -1) return;
    printf("limit: %s: %s\n", what, strerror(errno));
    exit(0);
}

static void *sleeper(void *none) {
    for (;;) pause();
    return none;
}

static const char *name(const char *what, int n) {
    static char path[64];
    snprintf(path, sizeof path, "%s%d", what, n);
    return path;
}

/* Makes the n-th one. */
static void make(const char *kind, int n) {
    static int epoll = -1, inotify = -1, file = -1;
    int ends[2];
#define IS(word) else if (!strcmp(kind, word))
    if (0) {
    }
    IS("eventfd") must(eventfd(1, 0), kind);
    IS("timerfd") must(timerfd_create(CLOCK_MONOTONIC, 0), kind);
    IS("signalfd") {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        must(signalfd(-1, &set, 0), kind);
    }
    IS("epoll") must(epoll_create1(0), kind);
    IS("inotify") must(inotify_init1(0), kind);
    IS("same-file") must(open("/etc/passwd", O_RDONLY), kind);
    IS("duplicate") must(dup(0), kind);
    IS("file") must(open(name("file", n), O_RDWR | O_CREAT, 0600), kind);
    IS("locked-file") {
        must(file = open(name("file", n), O_RDWR | O_CREAT, 0600), kind);
        must(flock(file, LOCK_EX), kind);
    }
    IS("deleted-file") {
        must(open(name("file", n), O_RDWR | O_CREAT, 0600), kind);
        unlink(name("file", n));
    }
    IS("memfd") must(memfd_create("one", 0), kind);
    IS("directory") must(open("/usr/lib", O_RDONLY | O_DIRECTORY), kind);
    IS("device") must(open("/dev/null", O_RDWR), kind);
    IS("pipe") must(pipe(ends), kind);
    IS("full-pipe") {
        must(pipe(ends), kind);
        must(write(ends[1], "x", 1), kind);
    }
    IS("one-pipe") {
        static int first[2] = {-1, -1};
        if (first[0] < 0) must(pipe(first), kind);
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", first[n & 1]);
        must(open(path, n & 1 ? O_WRONLY : O_RDONLY), kind);
    }
    IS("fifo") {
        must(mkfifo(name("fifo", n), 0600), kind);
        must(open(name("fifo", n), O_RDWR), kind);
    }
    IS("tcp") must(socket(AF_INET, SOCK_STREAM, 0), kind);
    IS("udp") {
        struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        int fd = socket(AF_INET, SOCK_DGRAM, 0);
        must(fd, kind);
        must(bind(fd, (struct sockaddr *)&any, sizeof any), kind);
    }
    IS("unix") must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), kind);
    IS("full-unix") {
        must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), kind);
        must(write(ends[1], "x", 1), kind);
    }
    IS("watched") { /* epoll entries */
        if (epoll < 0) must(epoll = epoll_create1(0), kind);
        int fd = eventfd(0, 0);
        must(fd, kind);
        struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), kind);
    }
    IS("closed-watched") { /* epoll entries under numbers that are closed by now */
        if (epoll < 0) must(epoll = epoll_create1(0), kind);
        int fd = eventfd(0, 0), moved = fcntl(fd, F_DUPFD, 0);
        must(moved, kind);
        struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), kind);
        close(fd);
    }
    IS("noticed") { /* inotify watches */
        if (inotify < 0) must(inotify = inotify_init1(0), kind);
        must(mkdir(name("dir", n), 0700), kind);
        must(inotify_add_watch(inotify, name("dir", n), IN_CREATE), kind);
    }
    IS("thread") {
        pthread_t thread;
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 32 << 10);
        errno = pthread_create(&thread, &small, sleeper, NULL);
        must(errno ? -1 : 0, kind);
    }
    IS("process") {
        int pid = fork();
        must(pid, kind);
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;) pause();
        }
    }
    IS("zombie") {
        int pid = fork();
        must(pid, kind);
        if (pid == 0) _exit(0);
    }
    IS("mapping") { /* not joined by the kernel */
        char *at = mmap(NULL, 8192, n & 1 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must((long)at, kind);
        must(mprotect(at + 4096, 4096, PROT_NONE), kind);
        if (!(n & 1)) *at = 1;
    }
    IS("mapped-file") {
        must(file = open(name("file", n), O_RDWR | O_CREAT, 0600), kind);
        must(ftruncate(file, 4096), kind);
        must((long)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0), kind);
        close(file);
    }
    IS("shared-file") {
        must(file = open(name("file", n), O_RDWR | O_CREAT, 0600), kind);
        must(ftruncate(file, 4096), kind);
        must((long)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), kind);
        close(file);
    }
    IS("shared-memory") {
        char *at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        must((long)at, kind);
        *at = 1;
    }
    IS("page") { /* single pages with holes between them */
        static char *at;
        if (!at) {
            at = mmap(NULL, 1ul << 32, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            must((long)at, kind);
            madvise(at, 1ul << 32, MADV_NOHUGEPAGE);
        }
        at[8192l * n] = 1;
    }
    IS("signal") { /* that wait */
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGRTMIN);
        sigprocmask(SIG_BLOCK, &set, NULL);
        union sigval value = {.sival_int = n};
        must(sigqueue(getpid(), SIGRTMIN, value), kind);
    }
    IS("lock") {
        if (file < 0) must(file = open("locks", O_RDWR | O_CREAT, 0600), kind);
        struct flock lock = {.l_type = F_WRLCK, .l_start = 2 * n, .l_len = 1};
        must(fcntl(file, F_SETLK, &lock), kind);
    }
    else {
        printf("unknown: %s\n", kind);
        exit(2);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    struct rlimit limit;
    for (int which = 0; which < RLIM_NLIMITS; which++) {
        if (!getrlimit(which, &limit) && (which == RLIMIT_NOFILE || which == RLIMIT_NPROC || which == RLIMIT_SIGPENDING)) {
            limit.rlim_cur = limit.rlim_max;
            setrlimit(which, &limit);
        }
    }
    for (int n = 0; n < atoi(argv[2]); n++) make(argv[1], n);
    static volatile struct timespec before, now;
    printf("ready\n");
    fflush(stdout);
    /* A restart is told by the time that has passed; a kernel that stops for a while would only add a line. */
    clock_gettime(CLOCK_MONOTONIC, (struct timespec *)&before);
    for (;;) {
        usleep(200);
        clock_gettime(CLOCK_MONOTONIC, (struct timespec *)&now);
        if (now.tv_sec > before.tv_sec + 1 || access("go", F_OK) == 0) break;
        before = now;
    }
    printf("again\n");
    fflush(stdout);
    for (;;) pause();
}
