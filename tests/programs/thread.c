/* Threads: names, thread-locals, masks, alternate stacks, joins, rseq, and threads that are blocked. */
#include "guest.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

enum { THREADS = 6 };

static volatile int go;
static pthread_barrier_t started;
static __thread unsigned local = 17;
static __thread char area[5000];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t told = PTHREAD_COND_INITIALIZER;
static sem_t posted;
static volatile sig_atomic_t on_stack[THREADS];
static char stacks[THREADS][32768];

static void on_signal(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    char here;
    int i = info->si_value.sival_int;
    on_stack[i] = &here >= stacks[i] && &here < stacks[i] + sizeof stacks[i];
}

static void expect_name(const char *name) {
    char is[16];
    CHECK(!pthread_getname_np(pthread_self(), is, sizeof is) && !strcmp(is, name), "thread '%s' is named '%s'", name, is);
}

/* sched_getcpu reads the rseq area that the kernel writes: frozen when it was not registered again. */
static void expect_rseq(void) {
    cpu_set_t all, one;
    MUST(sched_getaffinity(0, sizeof all, &all));
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all)) continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        MUST(sched_setaffinity(0, sizeof one, &one));
        CHECK(sched_getcpu() == cpu, "moved to core %d, sched_getcpu says %d", cpu, sched_getcpu());
    }
    MUST(sched_setaffinity(0, sizeof all, &all));
}

static void *work(void *number) {
    int i = (int)(intptr_t)number;
    char name[16];
    snprintf(name, sizeof name, "worker %d", i);
    pthread_setname_np(pthread_self(), name);
    local = 1000 + i;
    fill(200 + i, area, sizeof area);
    stack_t alternate = {.ss_sp = stacks[i], .ss_size = sizeof stacks[i]}, now;
    MUST(sigaltstack(&alternate, NULL));
    sigset_t set, mask;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + i);
    CHECK(!pthread_sigmask(SIG_SETMASK, &set, NULL), "set-up: mask");
    pthread_barrier_wait(&started);

    /* Blocked in different ways, or running. */
    if (i == 0) {
        CHECK(!pthread_mutex_lock(&lock), "lock");
        while (!go) pthread_cond_wait(&told, &lock);
        CHECK(!pthread_mutex_unlock(&lock), "unlock");
    } else if (i == 1) {
        while (sem_wait(&posted) == -1) CHECK(errno == EINTR, "sem_wait: %s", strerror(errno));
    } else if (i == 2) {
        while (!go) {
        }
    } else {
        while (!go) nap();
    }

    expect_name(name);
    CHECK(local == 1000u + i, "thread %d: its variable is %u", i, local);
    expect_filled(200 + i, area, sizeof area);
    MUST(sigaltstack(NULL, &now));
    CHECK(now.ss_sp == stacks[i] && now.ss_size == sizeof stacks[i], "thread %d: alternate stack %p", i, now.ss_sp);
    CHECK(!pthread_sigmask(SIG_SETMASK, NULL, &mask), "mask");
    for (int s = 1; s <= 64; s++)
        CHECK(sigismember(&mask, s) == sigismember(&set, s), "thread %d: signal %d is %sblocked", i, s,
              sigismember(&mask, s) ? "" : "not ");
    union sigval value = {.sival_int = i};
    int error = pthread_sigqueue(pthread_self(), SIGUSR2, value);
    CHECK(!error, "thread %d: a signal to itself: %s", i, strerror(error));
    for (int n = 0; n < 5000 && !on_stack[i]; n++) nap();
    CHECK(on_stack[i], "thread %d: a handler does not run on its alternate stack", i);
    expect_rseq();
    return (void *)(intptr_t)(i * 3 + 1);
}

static void *later(void *unused) {
    (void)unused;
    CHECK(local == 17, "a new thread's variable is %u", local);
    return NULL;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    MUST(sigaction(SIGUSR2, &action, NULL));
    sem_init(&posted, 0, 0);
    pthread_barrier_init(&started, NULL, THREADS + 1);
    pthread_setname_np(pthread_self(), "the main one");
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(!pthread_create(&thread[i], NULL, work, (void *)(intptr_t)i), "set-up: pthread_create");
    pthread_barrier_wait(&started);

    say("ready");
    wait_to_go();

    expect_name("the main one");
    CHECK(pthread_kill(thread[2], 0) == 0, "a thread that runs is said to be gone");
    pthread_mutex_lock(&lock);
    go = 1;
    pthread_cond_broadcast(&told);
    pthread_mutex_unlock(&lock);
    sem_post(&posted);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        CHECK(!pthread_join(thread[i], &result), "pthread_join");
        CHECK((intptr_t)result == i * 3 + 1, "thread %d ended with %ld", i, (long)(intptr_t)result);
    }
    expect_rseq();
    CHECK(local == 17, "the main thread's variable is %u", local);
    pthread_t next;
    CHECK(!pthread_create(&next, NULL, later, NULL) && !pthread_join(next, NULL), "a new thread does not start");
    pass();
}
