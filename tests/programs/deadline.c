/* Threads that wait for moments of the monotonic clock, which may be another one when they wake: a sleep, a condition variable, a
 * timerfd, a POSIX timer. Whoever waits by a call finds its moment moved with the clock; the timers have the time that was left.
 * (Kept moments of CLOCK_MONOTONIC are not compared across the move: only the ones that were waited for.) */
#include "guest.h"

#include <poll.h>
#include <pthread.h>
#include <sys/timerfd.h>

enum { SECONDS = 6, LATE = 20 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never;

static struct timespec from_now(clockid_t clock) {
    struct timespec t;
    MUST(clock_gettime(clock, &t));
    t.tv_sec += SECONDS;
    return t;
}

/* The moment is here, and not long ago. */
static void expect_now(const char *what, clockid_t clock, const struct timespec *moment) {
    struct timespec now;
    clock_gettime(clock, &now);
    double ago = (double)(now.tv_sec - moment->tv_sec) + (double)(now.tv_nsec - moment->tv_nsec) * 1e-9;
    CHECK(ago >= 0 && ago < LATE, "%s: %.3f s after its moment", what, ago);
}

static void *sleeper(void *clock_number) {
    clockid_t clock = (clockid_t)(intptr_t)clock_number;
    struct timespec moment = from_now(clock);
    int error;
    while ((error = clock_nanosleep(clock, TIMER_ABSTIME, &moment, NULL)) == EINTR) {
    }
    CHECK(!error, "clock_nanosleep: %s", strerror(error));
    expect_now("clock_nanosleep", clock, &moment);
    return NULL;
}

static void *waiter(void *unused) {
    (void)unused;
    struct timespec moment = from_now(CLOCK_MONOTONIC);
    pthread_mutex_lock(&lock);
    int error;
    while (!(error = pthread_cond_timedwait(&never, &lock, &moment))) {
    }
    pthread_mutex_unlock(&lock);
    CHECK(error == ETIMEDOUT, "pthread_cond_timedwait: %s", strerror(error));
    expect_now("pthread_cond_timedwait", CLOCK_MONOTONIC, &moment);
    return NULL;
}

static void *reader(void *unused) {
    (void)unused;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    MUST(fd);
    struct itimerspec spec = {.it_value = from_now(CLOCK_MONOTONIC)};
    MUST(timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, NULL));
    uint64_t count = 0;
    CHECK(read(fd, &count, sizeof count) == sizeof count && count == 1, "timerfd: %llu expiries", (unsigned long long)count);
    return NULL;
}

static void *taker(void *set) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    MUST(timer_create(CLOCK_BOOTTIME, &event, &timer));
    struct itimerspec spec = {.it_value = from_now(CLOCK_BOOTTIME)};
    MUST(timer_settime(timer, TIMER_ABSTIME, &spec, NULL));
    int signal;
    CHECK(!sigwait(set, &signal), "sigwait");
    return NULL;
}

int main(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&never, &attributes);
    struct { void *(*run)(void *); void *argument; } all[] = {
        {sleeper, (void *)CLOCK_MONOTONIC}, {sleeper, (void *)CLOCK_BOOTTIME}, {waiter, NULL}, {reader, NULL}, {taker, &set},
    };
    pthread_t threads[5];
    for (int i = 0; i < 5; i++) CHECK(!pthread_create(&threads[i], NULL, all[i].run, all[i].argument), "pthread_create");
    say("ready");
    for (int i = 0; i < 5; i++) pthread_join(threads[i], NULL);
    pass();
}
