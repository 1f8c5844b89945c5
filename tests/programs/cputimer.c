/* POSIX timers that count processor time: of the process, and of its one thread. */
#include "guest.h"

static volatile sig_atomic_t fired[2];
static void on_timer(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    fired[info->si_value.sival_int]++;
}

static timer_t make(clockid_t clock, int which, long sec, long period) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = which};
    timer_t id;
    MUST(timer_create(clock, &event, &id));
    struct itimerspec spec = {{period, 0}, {sec, 0}};
    MUST(timer_settime(id, 0, &spec, NULL));
    return id;
}

static void left(timer_t id, long sec, long period) {
    struct itimerspec is;
    MUST(timer_gettime(id, &is));
    CHECK(is.it_interval.tv_sec == period, "period %ld", (long)is.it_interval.tv_sec);
    CHECK(is.it_value.tv_sec < sec && is.it_value.tv_sec >= sec - 60, "%ld s left of %ld", (long)is.it_value.tv_sec, sec);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
    MUST(sigaction(SIGRTMIN + 3, &action, NULL));
    timer_t process = make(CLOCK_PROCESS_CPUTIME_ID, 0, 3000, 5), thread = make(CLOCK_THREAD_CPUTIME_ID, 1, 5000, 0);

    say("ready");
    wait_to_go();

    left(process, 3000, 5);
    left(thread, 5000, 0);
    CHECK(!fired[0] && !fired[1], "a timer fired thousands of seconds early");
    struct itimerspec soon = {{0, 0}, {0, 3000000}};
    MUST(timer_settime(process, 0, &soon, NULL));
    MUST(timer_settime(thread, 0, &soon, NULL));
    time_t end = time(NULL) + 60;
    while ((!fired[0] || !fired[1]) && time(NULL) < end) continue;
    CHECK(fired[0] == 1 && fired[1] == 1, "fired %d and %d times", (int)fired[0], (int)fired[1]);
    pass();
}
