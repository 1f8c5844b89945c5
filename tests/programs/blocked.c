/* Threads inside blocking system calls: none may return before its time, and none with EINTR that no signal of the
 * program's own has caused; sleeps last as long as they were asked to. Static or dynamic, glibc or musl. With an argument: without calls that
 * end with EINTR at any stop. */
#include "guest.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <linux/futex.h>

enum { THREADS = 12 };

static const char *wrong[THREADS];
static atomic_int inside, out_early;
static atomic_int word;
static int data_pipe[2], poll_event, epoll_event, select_event, epoll, masked_epoll;
static volatile sig_atomic_t handled;
static atomic_int let_go;

static void on_usr2(int signal) {
    (void)signal;
    handled++;
}

static void on_usr1(int signal) {
    (void)signal;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static const char *result(const char *call, long got, long expected) {
    static _Thread_local char text[200];
    if (!let_go) out_early++;
    if (got == expected && let_go) return NULL;
    snprintf(text, sizeof text, "%s returned %ld (%s)%s", call, got, got < 0 ? strerror(errno) : "", let_go ? "" : ", early");
    if (!let_go) say(text);
    return strdup(text);
}

static const char *in_read(void) {
    char byte;
    return result("read", read(data_pipe[0], &byte, 1), 1);
}

static const char *in_futex(void) {
    return result("futex", syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0), 0);
}

static const char *in_timed_futex(void) {
    struct timespec hour = {3600, 0};
    return result("futex with a limit", syscall(SYS_futex, &word, FUTEX_WAIT, 0, &hour, NULL, 0), 0);
}

static const char *in_poll(void) {
    struct pollfd fd = {.fd = poll_event, .events = POLLIN};
    return result("poll", poll(&fd, 1, 3600000), 1);
}

static const char *in_select(void) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(select_event, &set);
    struct timeval hour = {3600, 0};
    return result("select", select(select_event + 1, &set, NULL, NULL, &hour), 1);
}

static const char *in_epoll(void) {
    struct epoll_event event;
    return result("epoll_wait", epoll_wait(epoll, &event, 1, 3600000), 1);
}

/* A signal with a handler waits meanwhile, which only the call's own mask blocks. */
static const char *in_ppoll(void) {
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    struct pollfd fd = {.fd = poll_event, .events = POLLIN};
    return result("ppoll", ppoll(&fd, 1, NULL, &usr1), 1);
}

static const char *in_epoll_pwait(void) {
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    struct epoll_event event;
    return result("epoll_pwait", epoll_pwait(masked_epoll, &event, 1, -1, &usr1), 1);
}

static const char *in_sigsuspend(void) {
    sigset_t none;
    sigemptyset(&none);
    long got = sigsuspend(&none);
    if (errno != EINTR || handled == 0) return "sigsuspend returned without its signal";
    return result("sigsuspend", got, -1);
}

static const char *in_sigwait(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 3);
    siginfo_t info;
    struct timespec hour = {3600, 0};
    return result("sigtimedwait", sigtimedwait(&set, &info, &hour), SIGRTMIN + 3);
}

static const char *in_sleep(void) {
    /* Many short sleeps: whatever interrupts one must not shorten it, nor make it longer than it can explain. */
    while (!let_go) {
        double start = now();
        struct timespec rest = {0, 20000000};
        if (nanosleep(&rest, &rest)) return result("nanosleep", -1, 0);
        if (now() - start < 0.0199) return "nanosleep was too short";
    }
    return NULL;
}

static const char *in_clock_sleep(void) {
    while (!let_go) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_nsec += 20000000;
        if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
        int e = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        if (e) return errno = e, result("clock_nanosleep", -1, 0);
    }
    return NULL;
}

static const char *(*const calls[THREADS])(void) = {in_read,  in_futex,      in_timed_futex, in_poll,  in_select,
                                                    in_epoll, in_sigsuspend, in_sigwait,     in_sleep, in_clock_sleep,
                                                    in_ppoll, in_epoll_pwait};

/* Whether the kernel ends the call with EINTR at any stop, and a killed saver may leave it so (signal(7)). */
static int ends_at_a_stop(int i) {
    return calls[i] == in_epoll || calls[i] == in_sigwait || calls[i] == in_epoll_pwait;
}

static int with_these;

static void *run(void *number) {
    int i = (int)(intptr_t)number;
    inside++;
    wrong[i] = ends_at_a_stop(i) && !with_these ? NULL : calls[i]();
    return NULL;
}

int main(int argc, char **argv) {
    (void)argv;
    with_these = argc == 1;
    signal(SIGUSR2, on_usr2);
    /* Without SA_RESTART: were it taken for an interruption, the call would end with EINTR. */
    struct sigaction usr1 = {.sa_handler = on_usr1};
    MUST(sigaction(SIGUSR1, &usr1, NULL));
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigaddset(&blocked, SIGRTMIN + 3);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    MUST(pipe(data_pipe));
    MUST(poll_event = eventfd(0, 0));
    MUST(epoll_event = eventfd(0, 0));
    MUST(select_event = eventfd(0, 0));
    MUST(epoll = epoll_create1(0));
    struct epoll_event wanted = {.events = EPOLLIN, .data.u64 = 7};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, epoll_event, &wanted));
    MUST(masked_epoll = epoll_create1(0));
    MUST(epoll_ctl(masked_epoll, EPOLL_CTL_ADD, epoll_event, &wanted));
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, (void *)(intptr_t)i)) fail("set-up: pthread_create");
    while (inside < THREADS) nap();
    for (int i = 0; i < 50; i++) nap();
    pthread_kill(threads[10], SIGUSR1);
    pthread_kill(threads[11], SIGUSR1);
    say("ready");
    wait_to_go();
    CHECK(out_early == 0, "%d calls returned before their time", out_early);
    let_go = 1;
    uint64_t one = 1;
    MUST(write(data_pipe[1], "x", 1));
    MUST(write(poll_event, &one, 8));
    MUST(write(epoll_event, &one, 8));
    MUST(write(select_event, &one, 8));
    word = 1;
    MUST(syscall(SYS_futex, &word, FUTEX_WAKE, 100, NULL, NULL, 0));
    pthread_kill(threads[6], SIGUSR2);
    pthread_kill(threads[7], SIGRTMIN + 3);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) CHECK(wrong[i] == NULL, "%s", wrong[i]);
    pass();
}
