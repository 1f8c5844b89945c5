/* Pending signals: of the process and of one thread, with their values, real-time ones in order. */
#include "guest.h"

#include <pthread.h>

static volatile int state;
static volatile pid_t worker_tid;

static void send_to_thread(pid_t tid, int signal, int value) {
    siginfo_t info = {.si_signo = signal, .si_code = SI_QUEUE};
    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_value.sival_int = value;
    MUST(syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, signal, &info));
}

static void take(sigset_t *set, int signal, int code, int value) {
    siginfo_t info;
    struct timespec none = {0, 0};
    int got = sigtimedwait(set, &info, &none);
    CHECK(got == signal, "signal %d came, %d was pending (%s)", got, signal, got < 0 ? strerror(errno) : "");
    CHECK(info.si_code == code, "signal %d: si_code %d, was %d", signal, info.si_code, code);
    if (code == SI_QUEUE)
        CHECK(info.si_value.sival_int == value, "signal %d: value %d, was %d", signal, info.si_value.sival_int, value);
}

static void *worker(void *set) {
    worker_tid = (pid_t)syscall(SYS_gettid);
    state = 1;
    while (state == 1) nap();
    take(set, SIGRTMIN + 6, SI_QUEUE, 66);
    take(set, SIGRTMIN + 6, SI_QUEUE, 67);
    state = 3;
    return NULL;
}

int main(void) {
    sigset_t set, mine;
    sigemptyset(&set);
    for (int i = 0; i < 8; i++) sigaddset(&set, SIGRTMIN + i);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGTERM);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, worker, &set), "set-up: pthread_create");
    while (state != 1) nap();

    MUST(kill(getpid(), SIGUSR2));
    union sigval value = {0};
    for (int i = 0; i < 5; i++) {
        value.sival_int = 100 + i;
        MUST(sigqueue(getpid(), SIGRTMIN + 5, value));
    }
    send_to_thread((pid_t)syscall(SYS_gettid), SIGRTMIN + 7, 77);
    send_to_thread(worker_tid, SIGRTMIN + 6, 66);
    send_to_thread(worker_tid, SIGRTMIN + 6, 67);

    say("ready");
    wait_to_go();

    state = 2;
    for (int i = 0; i < 10000 && state != 3; i++) nap();
    CHECK(state == 3, "the other thread does not go on");
    MUST(sigpending(&mine));
    for (int i = 1; i <= 64; i++)
        CHECK(sigismember(&mine, i) == (i == SIGUSR2 || i == SIGRTMIN + 5 || i == SIGRTMIN + 7), "signal %d is %spending", i,
              sigismember(&mine, i) ? "" : "not ");
    /* The thread's own queue comes before the process's. */
    take(&set, SIGRTMIN + 7, SI_QUEUE, 77);
    take(&set, SIGUSR2, SI_USER, 0);
    for (int i = 0; i < 5; i++) take(&set, SIGRTMIN + 5, SI_QUEUE, 100 + i);
    struct timespec none = {0, 0};
    CHECK(sigtimedwait(&set, NULL, &none) == -1 && errno == EAGAIN, "one more signal is pending");
    pass();
}
