/* Never the same for long: `threads` makes and ends threads, `exec` calls exec again and again, `fork` and `vfork` make and
 * reap children all the time, which take NUMBER milliseconds. Each checks every result until it may go. */
#include "guest.h"

#include <pthread.h>
#include <sys/wait.h>

static unsigned long sum[4];

static void *short_lived(void *number) {
    return (void *)((uintptr_t)number * 3 + 1);
}

static void *maker(void *slot) {
    unsigned long *count = slot;
    while (!may_go()) {
        pthread_t threads[4];
        for (uintptr_t i = 0; i < 4; i++) {
            int error = pthread_create(&threads[i], NULL, short_lived, (void *)i);
            CHECK(!error, "pthread_create: %s", strerror(error));
        }
        for (uintptr_t i = 0; i < 4; i++) {
            void *result;
            CHECK(!pthread_join(threads[i], &result) && (uintptr_t)result == i * 3 + 1, "a thread's result");
        }
        __atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void storm_of_threads(void) {
    pthread_t makers[4];
    for (int i = 0; i < 4; i++) CHECK(!pthread_create(&makers[i], NULL, maker, &sum[i]), "set-up: pthread_create");
    for (int i = 0; i < 4; i++)
        while (__atomic_load_n(&sum[i], __ATOMIC_RELAXED) < 10) nap();
    say("ready");
    for (int i = 0; i < 4; i++) CHECK(!pthread_join(makers[i], NULL), "pthread_join");
}

static void storm_of_execs(char **argv) {
    unsigned long count = strtoul(argv[2], NULL, 10);
    if (count == 20) say("ready");
    if (count > 20 && may_go()) return;
    char next[24];
    snprintf(next, sizeof next, "%lu", count + 1);
    char *arguments[] = {argv[0], argv[1], next, NULL};
    execv(argv[0], arguments);
    fail("execv: %s", strerror(errno));
}

/* One child, which ends with `code`; what it does first depends on how it was made. */
static void child(int is_vfork, int code, const struct timespec *moment) {
    pid_t pid = is_vfork ? vfork() : fork();
    CHECK(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        if (moment) nanosleep(moment, NULL);
        _exit(code);
    }
    int status;
    pid_t got = waitpid(pid, &status, 0);
    CHECK(got == pid, "waitpid: %d (%s), not %d", got, strerror(errno), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code, "status %#x of a child, not %d", status, code);
    CHECK(waitpid(-1, &status, __WALL | WNOHANG) == -1 && errno == ECHILD, "one child more");
}

int main(int argc, char **argv) {
    CHECK(argc == 3, "usage: storm KIND NUMBER");
    char kind = argv[1][0];
    if (kind == 't') storm_of_threads();
    if (kind == 'e') storm_of_execs(argv);
    if (kind == 'f' || kind == 'v') {
        int milliseconds = atoi(argv[2]);
        struct timespec moment = {milliseconds / 1000, milliseconds % 1000 * 1000000};
        say("ready");
        for (int i = 0; !may_go(); i++) child(kind == 'v', i % 100, milliseconds ? &moment : NULL);
    }
    pass();
}
