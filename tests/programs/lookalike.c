/* Data of the program's own that look like locks held by its threads, and like its ids in every form: none of it may change, whatever ids a
 * restart gives. usage: lookalike [THREADS] */
#include "guest.h"
#include <pthread.h>

enum { WORDS = 4096 };

/* glibc's pthread_mutex_t: lock, count, owner, users, kind. */
struct lock_like {
    int lock, count, owner, users, kind;
};

static struct lock_like initialised[4] = {{1, 1, 1, 1, 1}};
static uint32_t zeroed[WORDS];
static pthread_barrier_t ready;

static void *one(void *at) {
    struct lock_like *mine = at;
    int tid = (int)syscall(SYS_gettid);
    *mine = (struct lock_like){1, 1, tid, 1, 1};
    pthread_barrier_wait(&ready);
    wait_to_go();
    return NULL;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    uint32_t id = (uint32_t)getpid();
    struct lock_like *heap = malloc(sizeof *heap * 8);
    uint64_t *words = malloc(WORDS * 8);
    char *text = malloc(64);
    MUST(heap && words && text ? 0 : -1);
    for (int i = 0; i < 8; i++) heap[i] = (struct lock_like){2, 1, (int)id, 1, i & 3};
    for (size_t i = 0; i < WORDS; i++) {
        zeroed[i] = i % 3 ? id : id | 0x80000000;
        words[i] = (uint64_t)id << (i % 3 ? 1 : 32);
    }
    initialised[1] = heap[0];
    snprintf(text, 64, "%u", id);
    uint32_t written = (uint32_t)strtoul(text, NULL, 10) ^ 0x5a5a5a5a;
    pthread_barrier_init(&ready, NULL, (unsigned)threads);
    static struct lock_like of_thread[64];
    pthread_t other[64];
    for (int i = 1; i < threads; i++) pthread_create(&other[i], NULL, one, &of_thread[i]);
    of_thread[0] = heap[0];
    pthread_barrier_wait(&ready);
    struct lock_like before[64];
    uint32_t mask = 0x5a5a5a5a;
    memcpy(before, of_thread, sizeof before);
    for (int i = 0; i < 64; i++) before[i].owner ^= (int)mask;
    say("ready");
    wait_to_go();
    id = written ^ mask;
    for (int i = 0; i < 8; i++) CHECK((uint32_t)heap[i].owner == id && heap[i].lock == 2, "heap %d: %d", i, heap[i].owner);
    for (size_t i = 0; i < WORDS; i++) {
        CHECK(zeroed[i] == (i % 3 ? id : id | 0x80000000), "word %zu of .bss: %u, not %u", i, zeroed[i], id);
        CHECK(words[i] == (uint64_t)id << (i % 3 ? 1 : 32), "word %zu of the heap: %lu", i, (unsigned long)words[i]);
    }
    CHECK((uint32_t)initialised[1].owner == id, "initialised data: %d, not %u", initialised[1].owner, id);
    CHECK((uint32_t)atoi(text) == id, "text: %s, not %u", text, id);
    for (int i = 0; i < threads; i++)
        CHECK(of_thread[i].owner == (before[i].owner ^ (int)mask), "thread %d: %d", i, of_thread[i].owner);
    pass();
}
