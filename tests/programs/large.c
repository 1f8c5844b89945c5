/* A process that is large in one way, NUMBER of it: `areas` that are mapped one by one, a reservation of TiB (`reserved`),
 * `threads`, or MiB of which every second page was touched (`holes`). */
#include "guest.h"

#include <pthread.h>

static char *base;
static size_t number;
static volatile int stop;

static char *map(size_t len, int protection) {
    char *at = mmap(NULL, len, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(at != MAP_FAILED, "set-up: mmap: %s", strerror(errno));
    return at;
}

static void *one(void *index) {
    uint64_t sum = 0, steps = 0;
    while (!stop) {
        struct timespec moment = {0, 50000000};
        nanosleep(&moment, NULL);
        sum += (uintptr_t)index;
        steps++;
    }
    return (void *)(uintptr_t)(sum == steps * (uintptr_t)index ? (uintptr_t)index + 1 : 0);
}

int main(int argc, char **argv) {
    CHECK(argc == 3, "usage: large KIND NUMBER");
    char kind = argv[1][0];
    number = strtoul(argv[2], NULL, 10);
    pthread_t *threads = calloc(number, sizeof *threads);
    if (kind == 'a') {
        /* Every second page has another protection, so that each is an area of its own. */
        base = map(number * 4096, PROT_READ);
        for (size_t i = 0; i < number; i += 2) {
            MUST(mprotect(base + i * 4096, 4096, PROT_READ | PROT_WRITE));
            base[i * 4096] = (char)(i % 251);
        }
    }
    if (kind == 'r') {
        base = map(number << 40, PROT_NONE);
        for (size_t i = 0; i < number; i++) {
            MUST(mprotect(base + (i << 40) + (i << 12), 4096, PROT_READ | PROT_WRITE));
            base[(i << 40) + (i << 12)] = (char)(i + 1);
        }
    }
    if (kind == 't') {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, 65536);
        for (size_t i = 0; i < number; i++)
            CHECK(!pthread_create(&threads[i], &attributes, one, (void *)i), "set-up: pthread_create %zu", i);
    }
    if (kind == 'h') {
        base = map(number << 20, PROT_READ | PROT_WRITE);
        MUST(madvise(base, number << 20, MADV_NOHUGEPAGE));
        for (size_t i = 0; i < number << 8; i += 2) *(uint64_t *)(base + i * 4096) = i * 3 + 1;
    }

    say("ready");
    wait_to_go();

    stop = 1;
    for (size_t i = 0; kind == 'a' && i < number; i++)
        CHECK(base[i * 4096] == (i % 2 ? 0 : (char)(i % 251)), "area %zu: %d", i, base[i * 4096]);
    for (size_t i = 0; kind == 'r' && i < number; i++)
        CHECK(base[(i << 40) + (i << 12)] == (char)(i + 1), "TiB %zu", i);
    for (size_t i = 0; kind == 't' && i < number; i++) {
        void *result;
        CHECK(!pthread_join(threads[i], &result) && (uintptr_t)result == i + 1, "thread %zu", i);
    }
    for (size_t i = 0; kind == 'h' && i < number << 8; i += 2)
        CHECK(*(uint64_t *)(base + i * 4096) == i * 3 + 1, "page %zu", i);
    if (kind == 'h') {
        /* To read a page that was never touched would make it: as many as the kernel counts now were touched. */
        char *resident = malloc(number << 8);
        CHECK(resident && !mincore(base, number << 20, (unsigned char *)resident), "mincore: %s", strerror(errno));
        size_t touched = 0;
        for (size_t i = 0; i < number << 8; i++) touched += resident[i] & 1;
        CHECK(touched == number << 7, "%zu pages are there, were %zu", touched, number << 7);
        for (size_t i = 1; i < number << 8; i += 2) CHECK(*(uint64_t *)(base + i * 4096) == 0, "page %zu", i);
    }
    pass();
}
