/* Eight threads at work: floating point in registers, mutex, condition variables, thread-locals, a running interval
 * timer; and sched_getcpu() follows each thread between cores afterwards. */
#include "float.h"

#include <pthread.h>
#include <sched.h>
#include <sys/time.h>

enum { HOLDERS = 4, WORKERS = 4, RING = 16 };

static volatile int stop;
static volatile sig_atomic_t ticks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER, not_full = PTHREAD_COND_INITIALIZER;
static uint64_t ring[RING], put_count, got_count, put_sum, got_sum;
static int ended;
static __thread uint64_t own_sum;
static const char *lost[HOLDERS];
static struct registers registers[HOLDERS];
static pthread_barrier_t started;

static void on_tick(int signal) {
    (void)signal;
    ticks++;
}

static void expect_core_follows(const char *who) {
    cpu_set_t all, one;
    MUST(sched_getaffinity(0, sizeof all, &all));
    for (int round = 0; round < 3; round++)
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (!CPU_ISSET(cpu, &all)) continue;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            MUST(sched_setaffinity(0, sizeof one, &one));
            CHECK(sched_getcpu() == cpu, "%s: moved to core %d, sched_getcpu() says %d", who, cpu, sched_getcpu());
        }
    MUST(sched_setaffinity(0, sizeof all, &all));
}

static void *holder(void *number) {
    int i = (int)(intptr_t)number;
    pthread_barrier_wait(&started);
    lost[i] = hold(hold_level(i < 3 ? (enum hold_level)i : HOLD_AVX512), 11 + i, &registers[i], &stop);
    expect_core_follows("a holder");
    return NULL;
}

static void *producer(void *unused) {
    (void)unused;
    pthread_barrier_wait(&started);
    uint64_t next = 1;
    for (;;) {
        pthread_mutex_lock(&lock);
        while (put_count - got_count == RING && !stop) pthread_cond_wait(&not_full, &lock);
        if (stop) break;
        next = next * 6364136223846793005u + 1442695040888963407u;
        ring[put_count++ % RING] = next;
        put_sum += next;
        own_sum += next;
        pthread_cond_signal(&not_empty);
        pthread_mutex_unlock(&lock);
        if (next % 64 == 0) nap();
    }
    ended++;
    pthread_cond_broadcast(&not_empty);
    pthread_cond_broadcast(&not_full);
    pthread_mutex_unlock(&lock);
    expect_core_follows("a producer");
    return (void *)(uintptr_t)own_sum;
}

static void *consumer(void *unused) {
    (void)unused;
    pthread_barrier_wait(&started);
    pthread_mutex_lock(&lock);
    for (;;) {
        while (put_count == got_count && ended < WORKERS / 2) pthread_cond_wait(&not_empty, &lock);
        if (put_count == got_count) break;
        uint64_t value = ring[got_count++ % RING];
        got_sum += value;
        own_sum += value;
        pthread_cond_signal(&not_full);
    }
    pthread_mutex_unlock(&lock);
    expect_core_follows("a consumer");
    return (void *)(uintptr_t)own_sum;
}

int main(void) {
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    MUST(sigaction(SIGALRM, &action, NULL));
    struct itimerval every = {{0, 5000}, {0, 5000}};
    MUST(setitimer(ITIMER_REAL, &every, NULL));
    pthread_barrier_init(&started, NULL, HOLDERS + WORKERS + 1);
    pthread_t thread[HOLDERS + WORKERS];
    for (int i = 0; i < HOLDERS + WORKERS; i++) {
        void *(*body)(void *) = i < HOLDERS ? holder : i % 2 ? producer : consumer;
        CHECK(!pthread_create(&thread[i], NULL, body, (void *)(intptr_t)i), "set-up: pthread_create");
    }
    pthread_barrier_wait(&started);
    while (ticks < 3) nap();
    for (int i = 0; i < HOLDERS; i++)
        while (!registers[i].held) nap();
    /* All eight are at work. */
    while (__atomic_load_n(&got_count, __ATOMIC_RELAXED) < 1000) nap();

    say("ready");
    wait_to_go();

    int before = ticks;
    for (int i = 0; i < 10000 && ticks < before + 3; i++) nap();
    CHECK(ticks >= before + 3, "the interval timer no longer runs (%d ticks)", (int)ticks);
    pthread_mutex_lock(&lock);
    stop = 1;
    pthread_cond_broadcast(&not_full);
    pthread_mutex_unlock(&lock);
    uint64_t produced = 0, consumed = 0;
    for (int i = 0; i < HOLDERS + WORKERS; i++) {
        void *sum;
        CHECK(!pthread_join(thread[i], &sum), "pthread_join");
        if (i >= HOLDERS) *(i % 2 ? &produced : &consumed) += (uintptr_t)sum;
    }
    for (int i = 0; i < HOLDERS; i++) CHECK(!lost[i], "thread %d: %s changed", i, lost[i]);
    CHECK(put_count == got_count && put_count > 0, "%lu values were put, %lu got", put_count, got_count);
    CHECK(put_sum == got_sum && produced == put_sum && consumed == got_sum, "sums: %lx put, %lx got; threads: %lx, %lx",
          put_sum, got_sum, produced, consumed);
    expect_core_follows("main");
    pass();
}
