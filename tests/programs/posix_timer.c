/* POSIX timers: ids, receivers, values, periods and the time that is left; a timer of one thread; one made by SIGEV_THREAD. */
#include "guest.h"

#include <sys/syscall.h>
#include <time.h>

static volatile sig_atomic_t fired;
static volatile sig_atomic_t value;
static volatile int called;
static void on_timer(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    value = info->si_value.sival_int;
    fired++;
}
static void on_thread(union sigval v) { called = v.sival_int; }

static timer_t make(clockid_t clock, struct sigevent *event, long sec, long period) {
    timer_t id;
    MUST(timer_create(clock, event, &id));
    struct itimerspec spec = {{period, 0}, {sec, 500}};
    MUST(timer_settime(id, 0, &spec, NULL));
    return id;
}

static void left(timer_t id, const char *name, long sec, long period) {
    struct itimerspec is;
    MUST(timer_gettime(id, &is));
    CHECK(is.it_interval.tv_sec == period, "%s: period %ld", name, (long)is.it_interval.tv_sec);
    CHECK(is.it_value.tv_sec <= sec && is.it_value.tv_sec >= sec - 120, "%s: %ld s left of %ld", name,
          (long)is.it_value.tv_sec, sec);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
    MUST(sigaction(SIGRTMIN + 3, &action, NULL));

    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = 77};
    timer_t gone = make(CLOCK_MONOTONIC, &event, 3000, 0);
    timer_t plain = make(CLOCK_MONOTONIC, &event, 5000, 7);
    MUST(timer_delete(gone)); /* ids need not begin at 0 */
    struct sigevent mine = event;
    mine.sigev_notify = SIGEV_THREAD_ID;
    mine._sigev_un._tid = (int)syscall(SYS_gettid);
    mine.sigev_value.sival_int = 78;
    timer_t own = make(CLOCK_REALTIME, &mine, 6000, 0);
    struct sigevent none = {.sigev_notify = SIGEV_NONE};
    timer_t quiet = make(CLOCK_BOOTTIME, &none, 8000, 9);
    struct sigevent call = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_thread, .sigev_value.sival_int = 79};
    timer_t thread = make(CLOCK_MONOTONIC, &call, 9000, 0);

    say("ready");
    wait_to_go();

    left(plain, "signal", 5000, 7);
    left(own, "thread id", 6000, 0);
    left(quiet, "none", 8000, 9);
    left(thread, "thread", 9000, 0);
    CHECK(fired == 0, "a timer fired %d times, thousands of seconds early", (int)fired);

    struct itimerspec soon = {{0, 0}, {0, 2000000}};
    MUST(timer_settime(plain, 0, &soon, NULL));
    for (int i = 0; i < 10000 && fired < 1; i++) nap();
    CHECK(fired == 1 && value == 77, "signal: fired %d times with value %d", (int)fired, (int)value);
    MUST(timer_settime(own, 0, &soon, NULL));
    for (int i = 0; i < 10000 && fired < 2; i++) nap();
    CHECK(fired == 2 && value == 78, "thread id: fired %d times with value %d", (int)fired, (int)value);
    MUST(timer_settime(thread, 0, &soon, NULL));
    for (int i = 0; i < 10000 && called != 79; i++) nap();
    CHECK(called == 79, "SIGEV_THREAD: the function was not called");

    timer_t later = make(CLOCK_MONOTONIC, &event, 100, 0);
    CHECK(later != plain && later != own && later != quiet && later != thread, "a new timer got an id in use");
    pass();
}
