/* POSIX timers that count the processor time of one thread among several, as profilers make them: each still counts its own thread's. */
#include "guest.h"

#include <pthread.h>
#include <semaphore.h>

enum { THREADS = 3, PROFILE = 0, SHOT = 1, OTHER = 2, KINDS };

static int timers[THREADS][KINDS];
static volatile int tids[THREADS], hits[THREADS], wrong;
static sem_t begin[THREADS], done;

static void on_timer(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    int whose = info->si_value.sival_int;
    if (syscall(SYS_gettid) != tids[whose]) wrong++;
    hits[whose]++;
}

static int make(clockid_t clock, int notify, int whose, long sec, long nsec, long period) {
    struct sigevent event = {.sigev_notify = notify, .sigev_signo = SIGPROF, .sigev_value.sival_int = whose};
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    int timer;
    MUST(syscall(SYS_timer_create, clock, &event, &timer));
    struct itimerspec spec = {{0, period}, {sec, nsec}};
    MUST(syscall(SYS_timer_settime, timer, 0, &spec, NULL));
    return timer;
}

/* Nanoseconds. */
static long long left(int timer) {
    struct itimerspec is;
    MUST(syscall(SYS_timer_gettime, timer, &is));
    return is.it_value.tv_sec * 1000000000LL + is.it_value.tv_nsec;
}

/* Until this thread has used so much time. */
static void burn(long nsec) {
    struct timespec first, now;
    MUST(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &first));
    do MUST(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now));
    while ((now.tv_sec - first.tv_sec) * 1000000000L + now.tv_nsec - first.tv_nsec < nsec);
}

static void await(sem_t *what) {
    while (sem_wait(what)) continue;
}

static void *work(void *at) {
    int mine = (int)(long)at;
    timers[mine][PROFILE] = make(CLOCK_THREAD_CPUTIME_ID, SIGEV_THREAD_ID, mine, 0, 100000000, 10000000);
    timers[mine][SHOT] = make(CLOCK_THREAD_CPUTIME_ID, SIGEV_SIGNAL, mine, 3000 + mine, 0, 0);
    sem_post(&done);
    await(&begin[mine]);
    tids[mine] = (int)syscall(SYS_gettid);
    burn(300000000);
    sem_post(&done);
    await(&begin[mine]);
    return NULL;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
    MUST(sigaction(SIGPROF, &action, NULL));
    pthread_t threads[THREADS];
    sem_init(&done, 0, 0);
    for (long i = 0; i < THREADS; i++) {
        sem_init(&begin[i], 0, 0);
        CHECK(!pthread_create(&threads[i], NULL, work, (void *)i), "set-up: pthread_create");
        await(&done);
        clockid_t clock;
        CHECK(!pthread_getcpuclockid(threads[i], &clock), "set-up: pthread_getcpuclockid");
        timers[i][OTHER] = make(clock, SIGEV_NONE, (int)i, 5000 + i, 0, 0);
    }
    clockid_t process;
    CHECK(!clock_getcpuclockid(getpid(), &process), "set-up: clock_getcpuclockid");
    int whole = make(process, SIGEV_NONE, 0, 7000, 0, 0), tai = make(CLOCK_TAI, SIGEV_NONE, 0, 9000, 0, 0);

    say("ready");
    wait_to_go();

    CHECK(left(whole) > 6900000000000 && left(whole) <= 7000000000000, "of the process: %lld ns left", left(whole));
    CHECK(left(tai) > 8800000000000 && left(tai) < 9000000000000, "CLOCK_TAI: %lld ns left", left(tai));
    for (int i = 0; i < THREADS; i++) {
        long long before[THREADS][KINDS];
        for (int j = 0; j < THREADS; j++)
            for (int k = SHOT; k < KINDS; k++) before[j][k] = left(timers[j][k]);
        CHECK(!hits[i], "thread %d: %d expiries before it has used its time", i, hits[i]);
        sem_post(&begin[i]);
        await(&done);
        CHECK(hits[i] >= 5 && hits[i] <= 21, "thread %d: %d expiries in 300 ms", i, hits[i]);
        CHECK(!wrong, "thread %d: %d expiries told to another one", i, wrong);
        for (int j = 0; j < THREADS; j++)
            for (int k = SHOT; k < KINDS; k++) {
                long long used = before[j][k] - left(timers[j][k]);
                CHECK(j == i ? used >= 300000000 : used < 50000000, "timer %d of thread %d: %lld ns of thread %d", k, j, used, i);
            }
    }
    for (int i = 0; i < THREADS; i++) {
        sem_post(&begin[i]);
        CHECK(!pthread_join(threads[i], NULL), "pthread_join");
    }
    pass();
}
