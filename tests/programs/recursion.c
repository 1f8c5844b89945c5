/* The shape of the program that started it all: deep recursion on the stack, a large BSS, a growing heap. Each level
 * stirs all three; on the way back they are summed. Prints a line at every thousandth level, so that it can be saved midway,
 * and three sums at the end that tell whether anything was lost.
 *
 * usage: recursion [LEVELS [STIRS PER LEVEL]] */
#include "guest.h"

enum { BSS_WORDS = 8 << 20 }; /* 64 MiB */

static uint64_t bss[BSS_WORDS];
static uint64_t *heap, heap_words, stirs = 1500, bss_sum, heap_sum;

static uint64_t stir(uint64_t x) {
    x ^= x << 13;
    x ^= x >> 7;
    return x ^ x << 17;
}

__attribute__((noinline)) static uint64_t descend(unsigned level, unsigned levels, uint64_t seed) {
    volatile uint64_t frame[32];
    for (int i = 0; i < 32; i++) frame[i] = seed = stir(seed);
    for (uint64_t i = 0; i < stirs; i++) {
        seed = stir(seed);
        bss[seed % BSS_WORDS] += seed;
    }
    heap_words += 512;
    heap = realloc(heap, heap_words * sizeof *heap);
    CHECK(heap, "the heap is full");
    for (int i = 0; i < 512; i++) heap[heap_words - 512 + i] = seed = stir(seed);
    if (level % 1000 == 0) {
        printf("down %u\n", level);
        fflush(stdout);
    }
    uint64_t below = level < levels ? descend(level + 1, levels, seed) : 0;
    for (uint64_t i = 0; i < stirs; i++) {
        seed = stir(seed);
        bss_sum += bss[seed % BSS_WORDS] * (i + 1);
    }
    uint64_t sum = below * 31;
    for (int i = 0; i < 32; i++) sum += frame[i];
    if (level % 1000 == 0) {
        printf("up %u\n", level);
        fflush(stdout);
    }
    return sum;
}

int main(int argc, char **argv) {
    unsigned levels = argc > 1 ? (unsigned)atoi(argv[1]) : 12000;
    if (argc > 2) stirs = strtoull(argv[2], NULL, 10);
    uint64_t stack_sum = descend(1, levels, 88172645463325252u);
    for (uint64_t i = 0; i < heap_words; i++) heap_sum = heap_sum * 7 + heap[i];
    printf("sums: stack %016lx bss %016lx heap %016lx\n", stack_sum, bss_sum, heap_sum);
    return 0;
}
