/* timerfds: clocks, the time that is left, periods, moments of the wall clock, expiries that were not read. */
#include "guest.h"

#include <poll.h>
#include <sys/timerfd.h>

static time_t now(clockid_t clock) {
    struct timespec time;
    MUST(clock_gettime(clock, &time));
    return time.tv_sec;
}

static int timer(clockid_t clock, int flags, int how, time_t value, long nsec, time_t period) {
    int fd = timerfd_create(clock, flags);
    MUST(fd);
    struct itimerspec spec = {{period, 0}, {value, nsec}};
    MUST(timerfd_settime(fd, how, &spec, NULL));
    return fd;
}

static void left(int fd, const char *what, time_t value, time_t period) {
    struct itimerspec is;
    MUST(timerfd_gettime(fd, &is));
    CHECK(is.it_interval.tv_sec == period && is.it_interval.tv_nsec == 0, "%s: period %ld", what,
          (long)is.it_interval.tv_sec);
    CHECK(is.it_value.tv_sec <= value && is.it_value.tv_sec >= value - 200, "%s: %ld s left of %ld", what,
          (long)is.it_value.tv_sec, (long)value);
}

static uint64_t ticks(int fd, const char *what) {
    uint64_t count = 0;
    ssize_t got = read(fd, &count, 8);
    CHECK(got == 8 || (got == -1 && errno == EAGAIN), "%s: read: %zd, %s", what, got, strerror(errno));
    return count;
}

static int may_read(int fd, int timeout) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    int ready;
    while ((ready = poll(&wait, 1, timeout)) < 0 && errno == EINTR) {
    }
    return ready == 1;
}

int main(void) {
    time_t moment = now(CLOCK_REALTIME) + 7000;
    int single = timer(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC, 0, 5000, 0, 0);
    int periodic = timer(CLOCK_BOOTTIME, TFD_NONBLOCK, 0, 6000, 0, 9);
    int alarm = timer(CLOCK_REALTIME, TFD_NONBLOCK, TFD_TIMER_ABSTIME, moment, 0, 0);
    int cancelled = timer(CLOCK_REALTIME, TFD_NONBLOCK, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, moment, 0, 0);
    int later = timer(CLOCK_MONOTONIC, 0, TFD_TIMER_ABSTIME, now(CLOCK_MONOTONIC) + 8000, 0, 0);
    int idle = timer(CLOCK_MONOTONIC, TFD_NONBLOCK, 0, 0, 0, 0);
    int expired = timer(CLOCK_MONOTONIC, TFD_NONBLOCK, 0, 0, 1, 0);
    int often = timer(CLOCK_MONOTONIC, TFD_NONBLOCK, 0, 0, 1, 4000);
    int soon = timer(CLOCK_MONOTONIC, 0, 0, 0, 20000000, 0);
    int quick = timer(CLOCK_MONOTONIC, TFD_NONBLOCK, 0, 0, 1000, 0);
    struct itimerspec millisecond = {{0, 1000000}, {0, 1000000}};
    MUST(timerfd_settime(quick, 0, &millisecond, NULL));
    int also = dup(single);
    MUST(also);
    CHECK(may_read(expired, 10000) && may_read(often, 10000), "set-up: nothing expires");
    int flags = fcntl(single, F_GETFL);

    say("ready");
    wait_to_go();

    CHECK(fcntl(single, F_GETFL) == flags && fcntl(single, F_GETFD) == FD_CLOEXEC && fcntl(also, F_GETFD) == 0, "flags");
    left(single, "single", 5000, 0);
    left(also, "its second number", 5000, 0);
    left(periodic, "periodic", 6000, 9);
    left(later, "a moment of another clock", 8000, 0);
    left(alarm, "alarm", moment - now(CLOCK_REALTIME) + 1, 0);
    left(cancelled, "alarm, cancelled on set", moment - now(CLOCK_REALTIME) + 1, 0);
    char info[512];
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", cancelled);
    slurp(path, info, sizeof info);
    CHECK(strstr(info, "settime flags: 03"), "not cancelled on set any more: %s", info);
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", periodic);
    slurp(path, info, sizeof info);
    CHECK(strstr(info, "clockid: 7"), "another clock: %s", info);
    left(idle, "idle", 0, 0);
    CHECK(!may_read(idle, 0) && ticks(idle, "idle") == 0, "idle: expired");
    CHECK(ticks(expired, "expired") == 1, "expired: not exactly once");
    CHECK(ticks(expired, "expired") == 0, "expired: again");
    left(expired, "expired", 0, 0);
    left(often, "often", 4000, 4000);
    CHECK(ticks(often, "often") == 1, "often: not exactly once");
    CHECK(may_read(soon, 10000) && ticks(soon, "soon") == 1, "soon: did not expire");
    CHECK(may_read(quick, 10000) && ticks(quick, "quick") >= 1, "quick: does not expire");
    CHECK(may_read(quick, 10000) && ticks(quick, "quick") >= 1, "quick: stopped");
    CHECK(!may_read(single, 0) && ticks(single, "single") == 0, "single: expired thousands of seconds early");
    struct itimerspec now_ish = {{0, 0}, {0, 1000000}};
    MUST(timerfd_settime(also, 0, &now_ish, NULL));
    CHECK(may_read(single, 10000) && ticks(single, "single") == 1, "the two numbers are no longer one timer");
    pass();
}
