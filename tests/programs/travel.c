/* A job that is on its way: three threads with memory of their own take turns at short pieces of work with pauses between them, so
 * that it takes as long on a slow machine as on a fast one. Nothing that it prints depends on time, nor on the machine. */
#include "guest.h"

#include <pthread.h>

enum { STEPS = 150, THREADS = 3, BLOCKS = 32 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static int step;
static uint64_t value = 42, shares[THREADS];
static _Thread_local uint64_t mine;
static _Thread_local double real = 1;
static uint64_t *blocks[BLOCKS];
static size_t sizes[BLOCKS];

static uint64_t next(void) {
    value ^= value << 13;
    value ^= value >> 7;
    return value ^= value << 17;
}

static void work(void) {
    size_t i = next() % BLOCKS;
    for (size_t k = 0; k < sizes[i]; k++) mine = mine * 31 + blocks[i][k];
    free(blocks[i]);
    sizes[i] = 1 + next() % 3000;
    blocks[i] = malloc(sizes[i] * sizeof(uint64_t));
    CHECK(blocks[i], "no memory");
    for (size_t k = 0; k < sizes[i]; k++) blocks[i][k] = next();
    for (int k = 0; k < 1000; k++) real = real * 1.000001 + (double)(k & 3) / (double)(step + 1);
    char text[64];
    snprintf(text, sizeof text, "%.6f %zu", real, strlen(strchr("a text, with a comma", ',')));
    for (char *c = text; *c; c++) mine = mine * 131 + (unsigned char)*c;
}

/* Waits there until the file is there that the environment names: nobody has to be quick to save it on its way. */
static void wait_at(int where, const char *variable) {
    const char *file = getenv(variable);
    while (step == where && file && access(file, F_OK)) {
        struct timespec a_while = {0, 100000000};
        nanosleep(&a_while, NULL);
    }
}

static void *player(void *number) {
    int me = (int)(intptr_t)number;
    mine = (uint64_t)me;
    pthread_mutex_lock(&lock);
    while (step < STEPS) {
        while (step < STEPS && step % THREADS != me) pthread_cond_wait(&turn, &lock);
        if (step >= STEPS) break;
        wait_at(50, "GUEST_HALF");
        wait_at(100, "GUEST_GO");
        work();
        if (step % 10 == 0) {
            printf("at %d\n", step);
            fflush(stdout);
        }
        step++;
        pthread_cond_broadcast(&turn);
        struct timespec pause = {0, 30000000};
        pthread_mutex_unlock(&lock);
        while (nanosleep(&pause, &pause)) {
        }
        pthread_mutex_lock(&lock);
    }
    shares[me] = mine;
    pthread_mutex_unlock(&lock);
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) CHECK(!pthread_create(&threads[i], NULL, player, (void *)(intptr_t)i), "pthread_create");
    uint64_t sum = 0;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) sum = sum * 31 + shares[i];
    for (int i = 0; i < BLOCKS; i++)
        for (size_t k = 0; k < sizes[i]; k++) sum = sum * 31 + blocks[i][k];
    printf("sum %016llx\n", (unsigned long long)(sum ^ value));
    pass();
}
