/* Ids and clocks that are the same after the restart: of the process, of its threads, and what the C library derives
 * from them (owners of recursive and error-checking mutexes, raise, pthread_kill). */
#include "guest.h"
#include <pthread.h>

#define THREADS 3

static pid_t tids[THREADS];
static pthread_mutex_t recursive[THREADS], checking[THREADS];
static pthread_barrier_t ready;
static volatile sig_atomic_t raised[THREADS];
static _Thread_local int own;

static void on_signal(int signal) {
    (void)signal;
    raised[own]++;
}

static pid_t tid(void) {
    return (pid_t)syscall(SYS_gettid);
}

static void *one(void *at) {
    int i = own = (int)(intptr_t)at;
    tids[i] = tid();
    pthread_mutex_lock(&recursive[i]);
    pthread_mutex_lock(&checking[i]);
    pthread_barrier_wait(&ready);
    wait_to_go();
    CHECK(tid() == tids[i], "thread %d was %d, is %d", i, tids[i], tid());
    CHECK(pthread_mutex_lock(&recursive[i]) == 0, "thread %d is no owner of its recursive mutex", i);
    CHECK(pthread_mutex_unlock(&recursive[i]) == 0 && pthread_mutex_unlock(&recursive[i]) == 0, "recursive unlock");
    CHECK(pthread_mutex_lock(&checking[i]) == EDEADLK, "thread %d is no owner of its checking mutex", i);
    CHECK(pthread_mutex_unlock(&checking[i]) == 0, "checking unlock");
    CHECK(pthread_kill(pthread_self(), SIGUSR2) == 0 && raise(SIGUSR2) == 0, "signals to oneself");
    CHECK(raised[i] == 2, "thread %d got %d of 2 signals", i, (int)raised[i]);
    return NULL;
}

static long hours(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec / 3600;
}

int main(void) {
    pid_t pid = getpid();
    signal(SIGUSR2, on_signal);
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_barrier_init(&ready, NULL, THREADS);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
        pthread_mutex_init(&recursive[i], &kind);
        pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
        pthread_mutex_init(&checking[i], &kind);
    }
    for (int i = 1; i < THREADS; i++) pthread_create(&threads[i], NULL, one, (void *)(intptr_t)i);
    own = 0;
    tids[0] = tid();
    pthread_mutex_lock(&recursive[0]);
    pthread_barrier_wait(&ready);
    printf("pid %d\n", pid);
    say("ready");
    wait_to_go();
    CHECK(getpid() == pid && tid() == pid, "the process was %d, is %d, thread %d", pid, getpid(), tid());
    CHECK(getpgrp() != 0, "the process group is of another namespace");
    char self[32] = {0};
    CHECK(readlink("/proc/self", self, sizeof self - 1) > 0, "/proc/self: %s", strerror(errno));
    CHECK(atoi(self) == pid || access("/proc/1/comm", F_OK) != 0, "/proc/self is %s, not %d", self, pid);
    CHECK(pthread_mutex_unlock(&recursive[0]) == 0, "the first thread is no owner of its mutex");
    for (int i = 1; i < THREADS; i++) pthread_join(threads[i], NULL);
    printf("hours %ld %ld\n", hours(CLOCK_MONOTONIC), hours(CLOCK_BOOTTIME));
    pass();
}
