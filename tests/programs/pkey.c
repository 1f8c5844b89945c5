/* Memory protection keys: which are allocated, which memory has them, what each thread may do with it. */
#include "guest.h"

#include <pthread.h>
#include <setjmp.h>

enum { PAGE = 4096 };

static __thread sigjmp_buf fault;
static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    siglongjmp(fault, info->si_code == SEGV_PKUERR ? 2 : 1);
}

static unsigned rights(void) {
    unsigned pkru, high;
    __asm__ volatile("rdpkru" : "=a"(pkru), "=d"(high) : "c"(0));
    return pkru;
}

static void set_rights(unsigned pkru) {
    __asm__ volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0) : "memory");
}

/* 0: it can be done; 1: the protection forbids it; 2: the key. */
static int try(volatile char *at, int write) {
    volatile unsigned before = rights();
    int why = sigsetjmp(fault, 1);
    if (why) {
        set_rights(before); /* A handler has fewer. */
        return why;
    }
    char byte = *at;
    if (write) *at = byte;
    return 0;
}

/* The key of a mapping, as the kernel tells it. */
static int key_of(const void *at) {
    static char text[1 << 18], line[64];
    slurp("/proc/self/smaps", text, sizeof text);
    snprintf(line, sizeof line, "%lx-", (unsigned long)at);
    char *found = strstr(text, line);
    found = found ? strstr(found, "ProtectionKey:") : NULL;
    return found ? atoi(found + 14) : -1;
}

static char *plain, *read_only, *hidden, *code, *file, *shared;
static int keys[4];
static unsigned before[2];
static volatile int ready;

static void check_rights(int thread) {
    CHECK(rights() == before[thread], "thread %d: PKRU %#x, was %#x", thread, rights(), before[thread]);
    CHECK(try(plain, 1) == 0, "thread %d: plain memory", thread);
    int seen[] = {try(read_only, 0), try(read_only, 1), try(hidden, 0), try(file, 1), try(shared, 1), try(code, 0)};
    int want[] = {0, thread ? 0 : 2, thread ? 2 : 0, thread ? 2 : 0, thread ? 0 : 2, 2};
    for (int i = 0; i < 6; i++) CHECK(seen[i] == want[i], "thread %d, try %d: %d, not %d", thread, i, seen[i], want[i]);
}

static void *second(void *arg) {
    MUST(pkey_set(keys[0], 0));
    MUST(pkey_set(keys[2], PKEY_DISABLE_ACCESS));
    before[1] = rights();
    ready = 1;
    while (!may_go()) nap();
    check_rights(1);
    return arg;
}

static char *map(int prot, int flags, int fd) {
    char *at = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
    MUST(at);
    fill(1, at, 3 * PAGE);
    if (!(prot & PROT_WRITE)) MUST(mprotect(at, 3 * PAGE, prot));
    /* Neighbours with the same properties would be one mapping. */
    MUST(mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    return at;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    MUST(sigaction(SIGSEGV, &action, NULL));
    keys[0] = pkey_alloc(0, PKEY_DISABLE_WRITE);
    if (keys[0] < 0) { /* This CPU has none. */
        say("ready");
        wait_to_go();
        CHECK(pkey_alloc(0, 0) == -1, "there are protection keys now");
        pass();
    }
    keys[1] = pkey_alloc(0, 0);
    keys[2] = pkey_alloc(0, 0);
    keys[3] = pkey_alloc(0, PKEY_DISABLE_ACCESS); /* of no memory */
    for (int i = 0; i < 4; i++) CHECK(keys[i] == i + 1, "set-up: key %d is %d", i, keys[i]);
    spill("keyed", "");
    int fd = open("keyed", O_RDWR);
    MUST(ftruncate(fd, 3 * PAGE));
    int memory = PROT_READ | PROT_WRITE;
    plain = map(memory, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    read_only = map(memory, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    hidden = map(memory, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    file = map(memory, MAP_PRIVATE, fd);
    shared = map(memory, MAP_SHARED, fd);
    code = map(PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    MUST(pkey_mprotect(read_only, 3 * PAGE, memory, keys[0]));
    MUST(pkey_mprotect(hidden, 3 * PAGE, memory, keys[2]));
    MUST(pkey_mprotect(file, 3 * PAGE, memory, keys[2]));
    MUST(pkey_mprotect(shared, 3 * PAGE, memory, keys[0]));
    MUST(pkey_free(keys[1]));
    int own = key_of(code); /* the kernel's choice */
    before[0] = rights();
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, second, NULL), "set-up: thread");
    while (!ready) nap();

    say("ready");
    wait_to_go();

    check_rights(0);
    const void *all[] = {plain, read_only, hidden, file, shared};
    int want[] = {0, keys[0], keys[2], keys[2], keys[0]};
    for (int i = 0; i < 5; i++) CHECK(key_of(all[i]) == want[i], "memory %d: key %d, was %d", i, key_of(all[i]), want[i]);
    CHECK(key_of(code) == own, "code: key %d, was %d", key_of(code), own);
    CHECK(!pthread_join(thread, NULL), "join");
    pkey_set(keys[0], 0);
    expect_filled(1, plain, 3 * PAGE);
    expect_filled(1, read_only, 3 * PAGE);
    expect_filled(1, hidden, 3 * PAGE);
    expect_filled(1, file, 3 * PAGE);
    expect_filled(1, shared, 3 * PAGE);
    CHECK(try(shared, 1) == 0 && try(read_only, 1) == 0, "writing is not allowed again");
    CHECK(pkey_free(keys[1]) == -1, "a key that was free is not");
    int next = pkey_alloc(0, 0);
    CHECK(next == keys[1], "the next key is %d, not %d", next, keys[1]);
    for (int i = 0; i < 4; i++) CHECK(!pkey_free(keys[i]), "key %d cannot be freed", keys[i]);
    pass();
}
