/* Holds memory for the benchmark: fills it with random bytes, says "ready", and says "here" whenever a signal has
 * woken it, so also at once after a restart. On SIGUSR2 it says whether the memory's sum is still the same.
 *
 * usage: memory MIB     random memory
 *        memory sparse  three pages touched in a reservation of 1 TiB */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static volatile sig_atomic_t asked;

static void on_question(int signal)
{
    (void)signal;
    asked = 1;
}

static uint64_t sum(const uint64_t *memory, size_t words)
{
    uint64_t total = 0;
    for (size_t i = 0; i < words; i++)
        total = total * 31 + memory[i];
    return total;
}

static uint64_t *reserve(size_t bytes, int flags)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return memory;
}

int main(int argc, char **argv)
{
    size_t bytes = argc > 1 ? strtoul(argv[1], NULL, 10) << 20 : 0;
    uint64_t *memory, x = 0x9e3779b97f4a7c15u;
    if (argc > 1 && !strcmp(argv[1], "sparse")) {
        size_t reserved = (size_t)1 << 40;
        memory = reserve(reserved, MAP_NORESERVE);
        for (size_t at = 0; at < 3; at++)
            memory[at * (reserved / 3) / sizeof x] = at + 1;
    } else {
        memory = reserve(bytes + 1, 0);
        for (size_t i = 0; i < bytes / sizeof x; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            memory[i] = x;
        }
    }
    uint64_t before = sum(memory, bytes / sizeof x);

    /* Signals come only while it waits, so none is lost. */
    sigset_t none, both;
    sigemptyset(&none);
    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGUSR2);
    sigprocmask(SIG_BLOCK, &both, NULL);
    signal(SIGUSR2, on_question);
    puts("ready");
    fflush(stdout);
    for (;;) {
        sigsuspend(&none);
        if (asked)
            puts(sum(memory, bytes / sizeof x) == before ? "sum equal" : "SUM DIFFERS");
        else
            puts("here");
        asked = 0;
        fflush(stdout);
    }
}
