/* Locks that name their holder by its thread id, held at the save: recursive, error-checking, robust mutexes and read-write locks,
 * in .bss, in the heap, in a thread's stack; and what else the C library derives from ids: raise, abort, pthread_kill. The
 * ids themselves may be others afterwards. glibc or musl. */
#include "guest.h"

#include <pthread.h>
#include <sys/wait.h>

enum { THREADS = 4, FAKES = 400, BEFORE = 5000 };

/* Numbers that look like a held lock and are none: glibc's recursive mutex, musl's. As other programs have them, in a long table, in
 * small pieces of the heap, and as running numbers of a table in .bss. Nobody may correct them. */
struct fake {
    unsigned lock, count, owner, users, kind, spins;
    void *list[2];
    unsigned type, id, waiters, none[2], uses;
    void *links[2];
    char more[64];
};
static struct fake *table;
static struct fake **pieces;
static struct fake running[BEFORE + 100];
static unsigned first_number;
static unsigned complement[THREADS];

static void fake(struct fake *f, unsigned id) {
    memset(f, 0, sizeof *f);
    *f = (struct fake){.lock = 1, .count = 1, .owner = id, .users = 1, .kind = 1, .type = 1, .id = id, .links = {f, f}};
}

static void make_fakes(void) {
    table = malloc(FAKES * sizeof *table);
    pieces = malloc(FAKES * sizeof *pieces);
    for (int i = 0; i < FAKES; i++) {
        fake(&table[i], ~complement[i % THREADS]);
        fake(pieces[i] = malloc(sizeof **pieces), ~complement[i % THREADS]);
    }
    first_number = getpid() - BEFORE;
    for (unsigned i = 0; i < BEFORE + 100; i++) fake(&running[i], first_number + i);
}

static void expect_fakes(void) {
    for (unsigned i = 0; i < BEFORE + 100; i++)
        CHECK(running[i].owner == first_number + i, "running number %u is %u", first_number + i, running[i].owner);
    for (int i = 0; i < FAKES; i++) {
        unsigned id = ~complement[i % THREADS];
        CHECK(table[i].owner == id && table[i].id == id, "number %d of the table is %u %u, was %u", i, table[i].owner, table[i].id, id);
        CHECK(pieces[i]->owner == id && pieces[i]->id == id, "piece %d is %u %u, was %u", i, pieces[i]->owner, pieces[i]->id, id);
    }
}

struct locks {
    pthread_mutex_t recursive, checking, robust;
    pthread_rwlock_t written;
};

static struct locks in_bss[THREADS];
static struct locks *of[THREADS][3];
static pthread_barrier_t held, checked;
static pthread_t threads[THREADS];
static volatile sig_atomic_t got[THREADS];
static _Thread_local int own;
static pthread_mutex_t orphan;

static void on_usr2(int signal) {
    (void)signal;
    got[own]++;
}

static void set(struct locks *locks) {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    CHECK(!pthread_mutex_init(&locks->recursive, &kind), "set-up: recursive");
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    CHECK(!pthread_mutex_init(&locks->checking, &kind), "set-up: checking");
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    CHECK(!pthread_mutex_init(&locks->robust, &kind), "set-up: robust");
    CHECK(!pthread_rwlock_init(&locks->written, NULL), "set-up: rwlock");
    CHECK(!pthread_mutex_lock(&locks->recursive) && !pthread_mutex_lock(&locks->recursive), "set-up: lock");
    CHECK(!pthread_mutex_lock(&locks->checking) && !pthread_mutex_lock(&locks->robust), "set-up: lock");
    CHECK(!pthread_rwlock_wrlock(&locks->written), "set-up: wrlock");
}

static const char *const place[3] = {"in .bss", "in the heap", "in a stack"};

static void expect_mine(struct locks *locks, int i, const char *where) {
    for (int k = 0; k < 3; k++) CHECK(!pthread_mutex_lock(&locks->recursive), "thread %d, recursive %s: lock", i, where);
    for (int k = 0; k < 5; k++) CHECK(!pthread_mutex_unlock(&locks->recursive), "thread %d, recursive %s: unlock", i, where);
    CHECK(pthread_mutex_unlock(&locks->recursive) == EPERM, "thread %d, recursive %s: one unlock too many", i, where);
    CHECK(pthread_mutex_lock(&locks->checking) == EDEADLK, "thread %d, checking %s: second lock", i, where);
    CHECK(!pthread_mutex_unlock(&locks->checking), "thread %d, checking %s: unlock", i, where);
    CHECK(pthread_mutex_unlock(&locks->checking) == EPERM, "thread %d, checking %s: second unlock", i, where);
    CHECK(pthread_mutex_lock(&locks->robust) == EDEADLK, "thread %d, robust %s: second lock", i, where);
    CHECK(!pthread_mutex_unlock(&locks->robust), "thread %d, robust %s: unlock", i, where);
    int error = pthread_rwlock_trywrlock(&locks->written);
    CHECK(error == EBUSY, "thread %d, rwlock %s: %s", i, where, strerror(error));
    CHECK(!pthread_rwlock_unlock(&locks->written), "thread %d, rwlock %s: unlock", i, where);
}

static void expect_free(struct locks *locks, const char *where) {
    CHECK(!pthread_mutex_trylock(&locks->recursive) && !pthread_mutex_unlock(&locks->recursive), "recursive %s is not free", where);
    CHECK(!pthread_mutex_trylock(&locks->checking) && !pthread_mutex_unlock(&locks->checking), "checking %s is not free", where);
    CHECK(!pthread_mutex_trylock(&locks->robust) && !pthread_mutex_unlock(&locks->robust), "robust %s is not free", where);
    CHECK(!pthread_rwlock_tryrdlock(&locks->written) && !pthread_rwlock_unlock(&locks->written), "rwlock %s is not free", where);
}

static void *one(void *number) {
    int i = own = (int)(intptr_t)number;
    struct locks in_stack;
    complement[i] = ~(unsigned)syscall(SYS_gettid);
    of[i][0] = &in_bss[i];
    of[i][1] = malloc(sizeof in_stack);
    of[i][2] = &in_stack;
    for (int k = 0; k < 3; k++) set(of[i][k]);
    pthread_barrier_wait(&held);
    if (i == 0) make_fakes();
    if (i == 0) say("ready");
    wait_to_go();
    if (i == 0) expect_fakes();
    for (int k = 0; k < 3; k++) {
        int other = pthread_mutex_trylock(&of[(i + 1) % THREADS][k]->recursive);
        /* The neighbour may have let go already. */
        if (other == 0) pthread_mutex_unlock(&of[(i + 1) % THREADS][k]->recursive);
        else CHECK(other == EBUSY, "thread %d, a neighbour's mutex: %s", i, strerror(other));
    }
    for (int k = 0; k < 3; k++) expect_mine(of[i][k], i, place[k]);
    int before = got[i];
    CHECK(!raise(SIGUSR2) && got[i] > before, "thread %d: raise", i);
    pthread_barrier_wait(&checked);
    for (int k = 0; k < 3; k++) expect_free(of[(i + 1) % THREADS][k], place[k]);
    pthread_kill(threads[(i + 1) % THREADS], SIGUSR2);
    pthread_barrier_wait(&checked);
    for (int k = 0; k < 3000 && got[i] < 2; k++) nap();
    CHECK(got[i] >= 2, "thread %d: pthread_kill of a neighbour did not arrive", i);
    pthread_barrier_wait(&checked);
    /* Held at this thread's end: the next one gets EOWNERDEAD. */
    if (i == 1) pthread_mutex_lock(&orphan);
    return NULL;
}

static void expect_aborts(void) {
    pid_t pid = fork();
    CHECK(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0) abort();
    int status;
    CHECK(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "abort: status %#x", status);
}

int main(void) {
    signal(SIGUSR2, on_usr2);
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&orphan, &kind);
    pthread_barrier_init(&held, NULL, THREADS);
    pthread_barrier_init(&checked, NULL, THREADS);
    threads[0] = pthread_self();
    for (intptr_t i = 1; i < THREADS; i++)
        CHECK(!pthread_create(&threads[i], NULL, one, (void *)i), "set-up: pthread_create");
    one(0);
    for (int i = 1; i < THREADS; i++) CHECK(!pthread_join(threads[i], NULL), "pthread_join");
    CHECK(pthread_mutex_lock(&orphan) == EOWNERDEAD, "the mutex of an ended thread");
    expect_aborts();
    pass();
}
