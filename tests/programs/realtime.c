/* Scheduling with a deadline, of two threads, and what their children are not to have. Where that is not allowed: nice, with the flag alone.
 *
 * One of them cannot be copied by fork(2), as it would not share its time: a live save of such a process stands still. */
#include "guest.h"

#include <pthread.h>

enum { NORMAL = 0, DEADLINE = 6, RESET_ON_FORK = 1 };

struct attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static volatile int set_up, let_go;
static const char *wrong;

/* One that is given, or what is allowed instead. */
static struct attr set(struct attr attr) {
    struct attr less = {.size = sizeof less, .policy = NORMAL, .nice = nicer(4), .flags = RESET_ON_FORK}, now;
    attr.size = sizeof attr;
    if (syscall(SYS_sched_setattr, 0, &attr, 0)) MUST(syscall(SYS_sched_setattr, 0, &less, 0));
    MUST(syscall(SYS_sched_getattr, 0, &now, sizeof now, 0));
    return now;
}

static const char *differs(const struct attr *then) {
    struct attr now;
    if (syscall(SYS_sched_getattr, 0, &now, sizeof now, 0)) return "cannot be read";
    if (now.policy != then->policy) return "has another policy";
    if (now.flags != then->flags) return "has other flags";
    if (now.nice != then->nice) return "has another nice value";
    if (now.runtime != then->runtime || now.deadline != then->deadline || now.period != then->period) return "has other times";
    return NULL;
}

static void *other(void *unused) {
    (void)unused;
    struct attr then = set((struct attr){.policy = DEADLINE, .flags = RESET_ON_FORK, .runtime = 2000000, .deadline = 30000000, .period = 30000000});
    set_up = 1;
    while (!let_go) nap();
    wrong = differs(&then);
    return NULL;
}

int main(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, other, NULL)) fail("set-up: pthread_create");
    while (!set_up) nap();
    struct attr then = set((struct attr){.policy = DEADLINE, .runtime = 1000000, .deadline = 15000000, .period = 20000000});

    say("ready");
    wait_to_go();

    const char *what = differs(&then);
    CHECK(!what, "the first thread %s", what);
    let_go = 1;
    pthread_join(thread, NULL);
    CHECK(!wrong, "the second thread %s", wrong);
    pass();
}
