/* A job that holds, at every moment of it, locks that name their holder by its thread id: two threads with a recursive mutex, an
 * error-checking one and a read-write lock each, all taken before the first line and given back after the last. What it prints
 * depends neither on time nor on ids. glibc or musl. */
#include "guest.h"

#include <pthread.h>

enum { THREADS = 2, STEPS = 1500 };

struct locks {
    pthread_mutex_t recursive, checking;
    pthread_rwlock_t written;
};

static struct locks all[THREADS];
static pthread_barrier_t held, done;
static uint64_t sums[THREADS];

static void set(struct locks *locks) {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    CHECK(!pthread_mutex_init(&locks->recursive, &kind), "set-up: recursive");
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    CHECK(!pthread_mutex_init(&locks->checking, &kind), "set-up: checking");
    CHECK(!pthread_rwlock_init(&locks->written, NULL), "set-up: rwlock");
    CHECK(!pthread_mutex_lock(&locks->recursive) && !pthread_mutex_lock(&locks->checking), "set-up: lock");
    CHECK(!pthread_rwlock_wrlock(&locks->written), "set-up: wrlock");
}

/* They are this thread's, and nobody else's. */
static void expect_held(int me, int step) {
    struct locks *own = &all[me], *other = &all[(me + 1) % THREADS];
    CHECK(!pthread_mutex_lock(&own->recursive) && !pthread_mutex_unlock(&own->recursive), "thread %d, step %d: recursive", me, step);
    int error = pthread_mutex_lock(&own->checking);
    CHECK(error == EDEADLK, "thread %d, step %d: a second lock: %s", me, step, strerror(error));
    error = pthread_mutex_trylock(&other->recursive);
    CHECK(error == EBUSY, "thread %d, step %d: the other's recursive mutex: %s", me, step, strerror(error));
    error = pthread_mutex_unlock(&other->checking);
    CHECK(error == EPERM, "thread %d, step %d: the other's mutex is unlocked: %s", me, step, strerror(error));
    error = pthread_rwlock_tryrdlock(&other->written);
    CHECK(error == EBUSY, "thread %d, step %d: the other's read-write lock: %s", me, step, strerror(error));
}

static void expect_given_back(struct locks *own, int me) {
    CHECK(!pthread_mutex_unlock(&own->recursive), "thread %d: recursive: unlock", me);
    CHECK(pthread_mutex_unlock(&own->recursive) == EPERM, "thread %d: recursive: one unlock too many", me);
    CHECK(!pthread_mutex_unlock(&own->checking), "thread %d: checking: unlock", me);
    CHECK(pthread_mutex_unlock(&own->checking) == EPERM, "thread %d: checking: one unlock too many", me);
    CHECK(!pthread_rwlock_unlock(&own->written), "thread %d: read-write: unlock", me);
    CHECK(!pthread_rwlock_tryrdlock(&own->written) && !pthread_rwlock_unlock(&own->written), "thread %d: it is not free", me);
}

static void *one(void *number) {
    int me = (int)(intptr_t)number;
    set(&all[me]);
    pthread_barrier_wait(&held);
    uint64_t value = 88172645463325252u + (uint64_t)me;
    for (int step = 0; step < STEPS; step++) {
        for (int k = 0; k < 200000; k++) {
            value ^= value << 13;
            value ^= value >> 7;
            value ^= value << 17;
        }
        sums[me] += value;
        expect_held(me, step);
        if (me == 0 && step % 100 == 0) {
            printf("step %d value %016llx\n", step, (unsigned long long)value);
            fflush(stdout);
        }
    }
    pthread_barrier_wait(&done);
    expect_given_back(&all[me], me);
    return NULL;
}

int main(void) {
    pthread_barrier_init(&held, NULL, THREADS);
    pthread_barrier_init(&done, NULL, THREADS);
    pthread_t other;
    CHECK(!pthread_create(&other, NULL, one, (void *)1), "set-up: pthread_create");
    one(0);
    CHECK(!pthread_join(other, NULL), "pthread_join");
    printf("sum %016llx %016llx\n", (unsigned long long)sums[0], (unsigned long long)sums[1]);
    pass();
}
