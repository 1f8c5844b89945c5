/* Is saved inside signal handlers, while the code that they interrupted has all sixteen AVX registers in use: one handler on the
 * usual stack, and one on an alternate stack that has interrupted another one on the usual stack. When it may go on, each returns,
 * and what it interrupted must find its registers as they were. */
#include "guest.h"

#include <pthread.h>
#include <stdatomic.h>

enum { REGISTERS = 16, WIDTH = 32, STACK = 256 << 10 };

static atomic_int inside, go;

/* Whether a handler has run, for the inner and for the outer code. */
static _Thread_local volatile int spins[2];

#define ALL(X, place)                                                                                                  \
    X(0, place) X(1, place) X(2, place) X(3, place) X(4, place) X(5, place) X(6, place) X(7, place) X(8, place)        \
    X(9, place) X(10, place) X(11, place) X(12, place) X(13, place) X(14, place) X(15, place)
#define LOAD(n, place) "vmovdqu 32*" #n "(" place "), %%ymm" #n "\n\t"
#define STORE(n, place) "vmovdqu %%ymm" #n ", 32*" #n "(" place ")\n\t"

/* Sends itself a signal with the registers in use, and looks at them when the handler has returned. */
static void hold(unsigned area, int signal) {
    unsigned char in[REGISTERS][WIDTH], out[REGISTERS][WIDTH];
    for (size_t i = 0; i < sizeof in; i++) in[i / WIDTH][i % WIDTH] = pattern(area, i);
    long result = SYS_tgkill, process = getpid(), thread = gettid(), number = signal;
    asm volatile(ALL(LOAD, "%[in]") "syscall\n\t" ALL(STORE, "%[out]") "vzeroupper\n\t"
                 : "+a"(result)
                 : [in] "r"(in), [out] "r"(out), "D"(process), "S"(thread), "d"(number)
                 : "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                   "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    CHECK(!result, "tgkill: %ld", result);
    CHECK(spins[area & 1], "no handler has run");
    for (int i = 0; i < REGISTERS; i++)
        for (int j = 0; j < WIDTH; j++)
            CHECK(in[i][j] == out[i][j], "byte %d of register %d below handler %u is %u, not %u", j, i, area, out[i][j], in[i][j]);
}

/* The innermost handler. */
static void stay(int signal) {
    (void)signal;
    spins[0] = spins[1] = 1;
    atomic_fetch_add(&inside, 1);
    while (!atomic_load(&go)) nap();
}

/* A handler that is interrupted itself. */
static void between(int signal) {
    hold(2, signal + 1);
}

static void *usual(void *unused) {
    (void)unused;
    hold(0, SIGRTMIN + 3);
    return NULL;
}

static void *nested(void *unused) {
    (void)unused;
    stack_t stack = {.ss_sp = malloc(STACK), .ss_size = STACK};
    MUST(sigaltstack(&stack, NULL));
    hold(3, SIGRTMIN + 1);
    return NULL;
}

int main(void) {
    CHECK(__builtin_cpu_supports("avx"), "set-up: this CPU has no AVX");
    MUST(sigaction(SIGRTMIN + 1, &(struct sigaction){.sa_handler = between}, NULL));
    MUST(sigaction(SIGRTMIN + 2, &(struct sigaction){.sa_handler = stay, .sa_flags = SA_ONSTACK}, NULL));
    MUST(sigaction(SIGRTMIN + 3, &(struct sigaction){.sa_handler = stay}, NULL));
    pthread_t threads[2];
    CHECK(!pthread_create(&threads[0], NULL, usual, NULL), "pthread_create");
    CHECK(!pthread_create(&threads[1], NULL, nested, NULL), "pthread_create");
    while (atomic_load(&inside) < 2) nap();
    say("ready");
    wait_to_go();
    atomic_store(&go, 1);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    pass();
}
