/* Threads that share a seccomp filter: a later one that is to be installed for all of them (SECCOMP_FILTER_FLAG_TSYNC) is, also when one
 * of them has got another one meanwhile, and not when that is none of the others'. */
#include "guest.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>

enum { THREADS = 3 };

static void filter(unsigned flags, unsigned call, unsigned answer, long want) {
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | answer),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {4, code};
    long done = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    CHECK(done == want, "a filter with flags %u: %ld (%s), not %ld", flags, done, strerror(errno), want);
}

static int filters(void) {
    char text[1 << 13], path[64];
    snprintf(path, sizeof path, "/proc/self/task/%ld/status", syscall(SYS_gettid));
    slurp(path, text, sizeof text);
    char *found = strstr(text, "Seccomp_filters:\t");
    return found ? atoi(found + 17) : -1;
}

static void answers(int who, unsigned call, int want) {
    long done = syscall(call, 7, 0, 0);
    CHECK(done == -1 && errno == want, "thread %d: call %u: %ld (%s), not errno %d", who, call, done, strerror(errno), want);
}

static volatile int ready, stage;

static void *other(void *which) {
    int own = (int)(long)which;
    ready++;
    while (stage < 1) nap();
    /* One of them gets another one, which is in the way of those for all as long as it lives. */
    if (own == 0) filter(0, SYS_swapoff, 72, 0);
    ready++;
    while (!may_go() || stage < 2) nap();
    answers(own, SYS_sysfs, 71);
    answers(own, SYS_uselib, 73);
    if (own == 0) {
        CHECK(filters() == 3, "its own thread has %d filters", filters());
        answers(own, SYS_swapoff, 72);
        return NULL;
    }
    CHECK(filters() == 2, "thread %d has %d filters", own, filters());
    ready++;
    while (stage < 3) nap();
    CHECK(filters() == 3, "thread %d has %d filters, and not the last one", own, filters());
    answers(own, SYS_swapon, 74);
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++) CHECK(!pthread_create(&threads[i], NULL, other, (void *)i), "set-up: thread");
    while (ready < THREADS) nap();
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    filter(SECCOMP_FILTER_FLAG_TSYNC, SYS_sysfs, 71, 0);
    filter(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG, SYS_uselib, 73, 0);
    stage = 1;
    while (ready < 2 * THREADS) nap();

    say("ready");
    wait_to_go();

    CHECK(filters() == 2, "the first thread has %d filters", filters());
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {1, code};
    long tid = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    CHECK(tid > 0, "the thread with a filter of its own is passed over: %ld (%s)", tid, strerror(errno));
    stage = 2;
    CHECK(!pthread_join(threads[0], NULL), "join");
    while (ready < 3 * THREADS - 1) nap();
    filter(SECCOMP_FILTER_FLAG_TSYNC, SYS_swapon, 74, 0);
    answers(-1, SYS_swapon, 74);
    stage = 3;
    for (int i = 1; i < THREADS; i++) CHECK(!pthread_join(threads[i], NULL), "join");
    pass();
}
