/* Holds MIB MiB of memory in small pages, random or, with a second argument, of each page that many per cent; for each line on standard input forks once and says how many nanoseconds
 * the fork took. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

int main(int count, char **arguments) {
    size_t bytes = (size_t)(count > 1 ? atol(arguments[1]) : 1) << 20;
    size_t random = (count > 2 ? atol(arguments[2]) : 100) * 512 / 100;
    uint64_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return perror("mmap"), 1;
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    uint64_t x = 88172645463325252ull;
    for (size_t i = 0; i < bytes / 8; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memory[i] = i % 512 < random ? x : i % 1000;
    }
    puts("ready");
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        long long start = now();
        pid_t child = fork();
        if (child == 0) _exit(0);
        long long took = now() - start;
        waitpid(child, NULL, 0);
        printf("%lld\n", took);
        fflush(stdout);
    }
    return 0;
}
