/* Interval timers: what was left is left, the period stays, and they still fire. */
#include "guest.h"

#include <sys/time.h>

static volatile sig_atomic_t fired;
static void on_alarm(int signal) {
    (void)signal;
    fired++;
}

static const struct {
    int which;
    struct itimerval set;
} timers[] = {
    {ITIMER_REAL, {{7, 250000}, {5000, 0}}},
    {ITIMER_VIRTUAL, {{0, 0}, {6000, 500000}}},
    {ITIMER_PROF, {{9, 0}, {7000, 0}}},
};

int main(void) {
    signal(SIGALRM, on_alarm);
    for (int i = 0; i < 3; i++) MUST(setitimer(timers[i].which, &timers[i].set, NULL));

    say("ready");
    wait_to_go();

    for (int i = 0; i < 3; i++) {
        struct itimerval is;
        MUST(getitimer(timers[i].which, &is));
        long set = timers[i].set.it_value.tv_sec;
        CHECK(is.it_interval.tv_sec == timers[i].set.it_interval.tv_sec &&
                  labs(is.it_interval.tv_usec - timers[i].set.it_interval.tv_usec) < 10000,
              "timer %d: period %ld.%06ld", timers[i].which, (long)is.it_interval.tv_sec, (long)is.it_interval.tv_usec);
        CHECK(is.it_value.tv_sec <= set && is.it_value.tv_sec >= set - 120, "timer %d: %ld s are left of %ld",
              timers[i].which, (long)is.it_value.tv_sec, set);
    }
    CHECK(fired == 0, "a timer fired %d times, thousands of seconds early", (int)fired);
    struct itimerval soon = {{0, 2000}, {0, 2000}};
    MUST(setitimer(ITIMER_REAL, &soon, NULL));
    for (int i = 0; i < 10000 && fired < 3; i++) nap();
    CHECK(fired >= 3, "the timer was set again and does not fire");
    pass();
}
