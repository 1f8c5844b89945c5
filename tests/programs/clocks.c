/* Four threads call all entries of the kernel's code (vdso) as fast as they can, before, while and after they are saved, and hold
 * every value against a system call's. Clocks may jump once, where the program went on elsewhere: a value belongs to one side
 * of the jump or to the other. Prints how often they called. */
#include "guest.h"
#include "vdso.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/auxv.h>
#include <sys/time.h>

enum { THREADS = 4, STATE_ROOM = 4096 };

/* What wall clocks of two machines may differ by, and how long a thread may stand still between two calls, seconds. */
static const double APART = 3, STILL = 20;

static int (*v_clock_gettime)(clockid_t, struct timespec *);
static int (*v_gettimeofday)(struct timeval *, void *);
static time_t (*v_time)(time_t *);
static int (*v_getcpu)(unsigned *, unsigned *, void *);
static int (*v_clock_getres)(clockid_t, struct timespec *);
static ssize_t (*v_getrandom)(void *, size_t, unsigned, void *, size_t);
static size_t state_len;

static atomic_int stop;
static atomic_long calls[THREADS];

/* An entry of the vdso; NULL when there is no vdso, or no such entry. */
static void *entry(const char *name) {
    char *vdso = (char *)getauxval(AT_SYSINFO_EHDR);
    return vdso ? vdso_entry(vdso, name) : NULL;
}

static double seconds(const struct timespec *t) {
    return (double)t->tv_sec + (double)t->tv_nsec * 1e-9;
}

static double by_call(clockid_t clock) {
    struct timespec t;
    CHECK(!syscall(SYS_clock_gettime, clock, &t), "clock_gettime %d: %s", (int)clock, strerror(errno));
    return seconds(&t);
}

/* `value` was read between `before` and `after`; `grain`: it may be that much older. */
static void between(const char *what, double before, double value, double after, double grain, int is_wall) {
    double slack = is_wall ? APART : 0;
    int sooner = value >= before - grain - slack && value <= before + STILL;
    int later = value <= after + slack && value >= after - STILL;
    int plain = value >= before - grain - slack && value <= after + slack;
    CHECK(plain || (after < before && (sooner || later)) || (after - before > STILL && (sooner || later)),
          "%s: %.9f, by system calls %.9f before and %.9f after", what, value, before, after);
}

static void clocks(void) {
    static const struct { clockid_t id; double grain; int is_wall; } all[] = {
        {CLOCK_MONOTONIC, 0, 0},         {CLOCK_REALTIME, 0, 1},     {CLOCK_BOOTTIME, 0, 0},   {CLOCK_MONOTONIC_RAW, 0, 0},
        {CLOCK_MONOTONIC_COARSE, .1, 0}, {CLOCK_REALTIME_COARSE, .1, 1},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct timespec t = {-1, -1};
        double before = by_call(all[i].id);
        CHECK(!v_clock_gettime(all[i].id, &t), "clock_gettime %d", (int)all[i].id);
        CHECK(t.tv_nsec >= 0 && t.tv_nsec < 1000000000, "clock %d: %ld nanoseconds", (int)all[i].id, t.tv_nsec);
        char name[32];
        snprintf(name, sizeof name, "clock %d", (int)all[i].id);
        between(name, before, seconds(&t), by_call(all[i].id), all[i].grain, all[i].is_wall);
    }
}

static void others(unsigned char *state) {
    if (v_gettimeofday) {
        struct timeval t = {-1, -1};
        double before = by_call(CLOCK_REALTIME);
        CHECK(!v_gettimeofday(&t, NULL), "gettimeofday");
        between("gettimeofday", before, (double)t.tv_sec + (double)t.tv_usec * 1e-6, by_call(CLOCK_REALTIME), 1e-6, 1);
    }
    if (v_time) {
        double before = by_call(CLOCK_REALTIME);
        time_t at = -1, t = v_time(&at);
        CHECK(t == at, "time: %ld and %ld", (long)t, (long)at);
        between("time", before, (double)t, by_call(CLOCK_REALTIME), 1.1, 1);
    }
    if (v_getcpu) {
        unsigned cpu = ~0u, node = ~0u;
        CHECK(!v_getcpu(&cpu, &node, NULL), "getcpu");
        CHECK(cpu < 4096 && node < 1024, "getcpu: CPU %u, node %u", cpu, node);
    }
    if (v_clock_getres) {
        struct timespec one = {-1, -1}, two = {-1, -1};
        CHECK(!v_clock_getres(CLOCK_MONOTONIC, &one) && !syscall(SYS_clock_getres, CLOCK_MONOTONIC, &two), "clock_getres");
        /* A kernel without a fine clock has another one, and the program may have moved in between. */
        CHECK(one.tv_sec == 0 && one.tv_nsec > 0 && one.tv_nsec <= 10000000, "clock_getres: %ld.%09ld, by system call %ld",
              (long)one.tv_sec, one.tv_nsec, two.tv_nsec);
    }
    if (v_getrandom) {
        static _Thread_local unsigned char last[16];
        unsigned char now[16] = {0};
        CHECK(v_getrandom(now, sizeof now, 0, state, state_len) == sizeof now, "getrandom");
        CHECK(memcmp(now, last, sizeof now), "getrandom: the same number twice");
        memcpy(last, now, sizeof now);
    }
}

static void *caller(void *number) {
    unsigned char *state = mmap(NULL, STATE_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(state);
    while (!atomic_load(&stop)) {
        clocks();
        others(state);
        atomic_fetch_add(&calls[(intptr_t)number], 1);
    }
    return NULL;
}

int main(void) {
    *(void **)&v_clock_gettime = entry("__vdso_clock_gettime");
    *(void **)&v_gettimeofday = entry("__vdso_gettimeofday");
    *(void **)&v_time = entry("__vdso_time");
    *(void **)&v_getcpu = entry("__vdso_getcpu");
    *(void **)&v_clock_getres = entry("__vdso_clock_getres");
    *(void **)&v_getrandom = entry("__vdso_getrandom");
    CHECK(v_clock_gettime, "set-up: there is no clock_gettime");
    if (v_getrandom) {
        struct { uint32_t size, prot, flags, reserved[13]; } params = {0};
        CHECK(!v_getrandom(NULL, 0, 0, &params, ~0ul), "set-up: getrandom");
        state_len = params.size;
        CHECK(state_len <= STATE_ROOM, "set-up: getrandom wants %zu bytes", state_len);
    }
    pthread_t threads[THREADS];
    for (intptr_t i = 0; i < THREADS; i++) CHECK(!pthread_create(&threads[i], NULL, caller, (void *)i), "pthread_create");
    for (int i = 0; i < THREADS; i++)
        while (!atomic_load(&calls[i])) nap();
    say("ready");
    /* From time to time a line, so that one can see that it has gone on. */
    while (!may_go()) {
        long last = atomic_load(&calls[0]);
        while (atomic_load(&calls[0]) < last + 50 && !may_go()) nap();
        say("called");
    }
    long before[THREADS];
    for (int i = 0; i < THREADS; i++) before[i] = atomic_load(&calls[i]);
    for (int i = 0; i < THREADS; i++)
        while (atomic_load(&calls[i]) < before[i] + 10) nap();
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pass();
}
