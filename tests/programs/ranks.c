/* Ranks of an MPI job that add up what each has, step by step; the first one writes the sums. usage: ranks STEPS FILE [PASS]
   They wait before each step until the file PASS has as many bytes. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Waits until FILE allows this step. */
static void wait_for(int step, const char *file) {
    struct stat pass;
    for (;; usleep(10000)) {
        if (stat(file, &pass)) abort();
        if (pass.st_size >= step) return;
    }
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, size, steps = atoi(argv[1]);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    FILE *file = rank == 0 ? fopen(argv[2], "a") : NULL;
    long own = rank + 1, token = 0;
    for (int step = 1; step <= steps; step++) {
        long sum = 0;
        if (rank == 0 && argc > 3) wait_for(step, argv[3]);
        own = own * 31 % 1000003 + step;
        MPI_Allreduce(&own, &sum, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
        MPI_Sendrecv(&sum, 1, MPI_LONG, (rank + 1) % size, 7, &token, 1, MPI_LONG, (rank + size - 1) % size, 7,
                     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        own += token % 17;
        if (file) {
            fprintf(file, "step %d %ld\n", step, sum);
            fflush(file);
        }
        usleep(20000);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) puts("PASS");
    fflush(stdout);
    MPI_Finalize();
    return 0;
}
