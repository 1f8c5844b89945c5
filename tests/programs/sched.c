/* Scheduling: policy, nice value, I/O priority, timer slack and CPUs of two threads, each with its own; the signal for the parent's end. */
#include "guest.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

struct attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

struct facts {
    struct attr attr;
    int io_priority, slack, death_signal;
    cpu_set_t cpus;
};

static volatile int set_up, let_go;
static const char *wrong;

static void read_facts(struct facts *f) {
    memset(f, 0, sizeof *f);
    MUST(syscall(SYS_sched_getattr, 0, &f->attr, sizeof f->attr, 0));
    MUST(f->io_priority = syscall(SYS_ioprio_get, 1, 0));
    MUST(f->slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
    MUST(prctl(PR_GET_PDEATHSIG, &f->death_signal, 0, 0, 0));
    MUST(sched_getaffinity(0, sizeof f->cpus, &f->cpus));
}

static const char *differs(const struct facts *a, const struct facts *b) {
    if (a->attr.policy != b->attr.policy) return "the policy";
    if (a->attr.flags != b->attr.flags) return "the scheduling flags";
    if (a->attr.nice != b->attr.nice) return "the nice value";
    if (a->attr.priority != b->attr.priority) return "the real-time priority";
    if (a->io_priority != b->io_priority) return "the I/O priority";
    if (a->slack != b->slack) return "the timer slack";
    if (a->death_signal != b->death_signal) return "the signal for the parent's end";
    if (!CPU_EQUAL(&a->cpus, &b->cpus)) return "the CPUs";
    return NULL;
}

/* The last CPU that this thread may use: one on any machine. */
static void keep_to_one(void) {
    cpu_set_t all, one;
    MUST(sched_getaffinity(0, sizeof all, &all));
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all)) {
            CPU_ZERO(&one);
            CPU_SET(i, &one);
        }
    MUST(sched_setaffinity(0, sizeof one, &one));
}

static void *other(void *unused) {
    (void)unused;
    struct attr attr = {.size = sizeof attr, .policy = SCHED_BATCH, .nice = nicer(9), .flags = 1};
    MUST(syscall(SYS_sched_setattr, 0, &attr, 0));
    MUST(syscall(SYS_ioprio_set, 1, 0, 3 << 13));
    MUST(prctl(PR_SET_TIMERSLACK, 123456, 0, 0, 0));
    keep_to_one();
    struct facts before, after;
    read_facts(&before);
    set_up = 1;
    while (!let_go) nap();
    read_facts(&after);
    wrong = differs(&before, &after);
    return NULL;
}

int main(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, other, NULL)) fail("set-up: pthread_create");
    while (!set_up) nap();
    /* The signal that saves is for the other thread, whose CPUs are its own: no other thread's are to be measured by them. */
    sigset_t saves;
    sigemptyset(&saves);
    sigaddset(&saves, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &saves, NULL);
    struct attr attr = {.size = sizeof attr, .nice = nicer(3)};
    /* Real time where that is allowed. */
    struct attr real = {.size = sizeof real, .policy = SCHED_RR, .priority = 2};
    if (syscall(SYS_sched_setattr, 0, &real, 0)) MUST(syscall(SYS_sched_setattr, 0, &attr, 0));
    MUST(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6));
    MUST(prctl(PR_SET_PDEATHSIG, SIGWINCH, 0, 0, 0));
    struct facts before, after;
    read_facts(&before);

    say("ready");
    wait_to_go();

    read_facts(&after);
    const char *what = differs(&before, &after);
    CHECK(!what, "%s of the first thread changed: policy %u, nice %d, slack %d, parent's end %d", what, after.attr.policy,
          after.attr.nice, after.slack, after.death_signal);
    let_go = 1;
    pthread_join(thread, NULL);
    CHECK(!wrong, "%s of the second thread changed", wrong);
    pass();
}
