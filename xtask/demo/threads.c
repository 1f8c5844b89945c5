/* Four threads stir a number each, round after round. After every round the first thread folds the four into one
 * and writes a line to the terminal and to a file. The lines are the same in every undisturbed run. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

enum { THREADS = 4, ROUNDS = 40, STEPS = 9000000 };

static pthread_barrier_t begin, end;
static uint64_t result[THREADS];
static __thread uint64_t number; /* each thread's own, in its thread-local storage */

static void *stir(void *arg)
{
    const size_t me = (size_t)arg;
    number = 0x9e3779b97f4a7c15u * (me + 1);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&begin);
        for (int step = 0; step < STEPS; step++) {
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
        }
        result[me] = number;
        pthread_barrier_wait(&end);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread[THREADS];
    FILE *file = fopen(argc > 1 ? argv[1] : "progress.txt", "w");
    if (!file) {
        perror("progress file");
        return 1;
    }
    pthread_barrier_init(&begin, NULL, THREADS + 1);
    pthread_barrier_init(&end, NULL, THREADS + 1);
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, stir, (void *)i)) {
            perror("pthread_create");
            return 1;
        }
    for (int round = 1; round <= ROUNDS; round++) {
        uint64_t sum = 0;
        pthread_barrier_wait(&begin);
        pthread_barrier_wait(&end);
        for (size_t i = 0; i < THREADS; i++)
            sum = sum * 31 + result[i];
        fprintf(file, "step %d of %d: %016jx\n", round, ROUNDS, (uintmax_t)sum);
        fflush(file);
        printf("step %d of %d: %016jx\n", round, ROUNDS, (uintmax_t)sum);
        fflush(stdout);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    return fclose(file) ? 1 : 0;
}
