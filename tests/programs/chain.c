/* A job as people write them: two threads take turns on a chain of numbers, with memory that grows and shrinks, signals of a
 * timer and short sleeps. Prints its progress, and the sum of everything at the end; nothing that it prints depends on time. */
#include "guest.h"

#include <pthread.h>
#include <sys/time.h>

enum { STEPS = 3000, BLOCKS = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static int step;
static uint64_t value = 42, sum;
static uint64_t *blocks[BLOCKS];
static size_t sizes[BLOCKS];
static volatile sig_atomic_t ticks;

static void on_tick(int signal) {
    (void)signal;
    ticks++;
}

static uint64_t next(void) {
    value ^= value << 13;
    value ^= value >> 7;
    return value ^= value << 17;
}

static void work(void) {
    size_t i = next() % BLOCKS;
    for (size_t k = 0; k < sizes[i]; k++) sum = sum * 31 + blocks[i][k];
    free(blocks[i]);
    sizes[i] = 1 + next() % 20000;
    blocks[i] = malloc(sizes[i] * sizeof(uint64_t));
    CHECK(blocks[i], "no memory");
    for (size_t k = 0; k < sizes[i]; k++) blocks[i][k] = next();
    double x = (double)(next() % 1000) / 7;
    for (int k = 0; k < 30000; k++) x = x * 1.0000001 + (double)(k & 3);
    sum += (uint64_t)(x * 1000);
}

static void *player(void *number) {
    int me = (int)(intptr_t)number;
    pthread_mutex_lock(&lock);
    while (step < STEPS) {
        while (step < STEPS && step % 2 != me) pthread_cond_wait(&turn, &lock);
        if (step >= STEPS) break;
        work();
        if (step % 250 == 0) {
            printf("step %d value %016llx\n", step, (unsigned long long)value);
            fflush(stdout);
        }
        step++;
        pthread_cond_broadcast(&turn);
        if (step % 10 == 0) nap();
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

int main(void) {
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 3000}, {0, 3000}};
    MUST(setitimer(ITIMER_REAL, &often, NULL));
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(!pthread_create(&threads[i], NULL, player, (void *)(intptr_t)i), "pthread_create");
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    CHECK(ticks > 0, "the timer never ticked");
    printf("sum %016llx\n", (unsigned long long)sum);
    pass();
}
