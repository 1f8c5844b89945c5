/* System V semaphores: a set comes back with its id, key, owner, mode and values, and a thread that waits for one goes on waiting. */
#include "guest.h"

#include <pthread.h>
#include <sys/ipc.h>
#include <sys/sem.h>

enum { COUNT = 5, WAITED = 0 };

static int id;

static void *waiter(void *unused) {
    struct sembuf down = {WAITED, -1, 0};
    int result;
    /* A save that the process makes itself interrupts it, as any handler does. */
    while ((result = semop(id, &down, 1)) == -1 && errno == EINTR) nap();
    return result == -1 ? strerror(errno) : unused;
}

static void expect_value(int number, int expected) {
    int is = semctl(id, number, GETVAL);
    CHECK(is == expected, "semaphore %d: %d (%s), was %d", number, is, is == -1 ? strerror(errno) : "", expected);
}

int main(int argc, char **argv) {
    key_t key = argc > 1 ? (key_t)strtol(argv[1], NULL, 0) : IPC_PRIVATE;
    id = semget(key, COUNT, IPC_CREAT | IPC_EXCL | 0640);
    MUST(id);
    unsigned short values[COUNT] = {0, 1, 0, 32767, 0};
    MUST(semctl(id, 0, SETALL, values));
    struct sembuf up[] = {{2, 7, 0}, {1, -1, 0}};
    MUST(semop(id, up, 2));
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, waiter, NULL), "set-up: pthread_create");
    while (semctl(id, WAITED, GETNCNT) != 1) nap();

    say("ready");
    wait_to_go();

    struct semid_ds ds;
    MUST(semctl(id, 0, IPC_STAT, &ds));
    CHECK(ds.sem_perm.__key == key && ds.sem_nsems == COUNT, "another set");
    CHECK((ds.sem_perm.mode & 07777) == 0640, "mode %o", ds.sem_perm.mode);
    CHECK(ds.sem_perm.uid == geteuid() && ds.sem_perm.cuid == geteuid(), "owner");
    CHECK(key == IPC_PRIVATE || semget(key, 0, 0) == id, "another id under the key");
    int expected[COUNT] = {0, 0, 7, 32767, 0};
    for (int i = 0; i < COUNT; i++) {
        expect_value(i, expected[i]);
        int user = semctl(id, i, GETPID);
        CHECK(user == getpid(), "semaphore %d: last used by %d, this is %d", i, user, getpid());
    }
    while (semctl(id, WAITED, GETNCNT) != 1) nap();
    struct sembuf one = {WAITED, 1, 0};
    MUST(semop(id, &one, 1));
    void *result;
    CHECK(!pthread_join(thread, &result), "pthread_join");
    CHECK(!result, "the waiting thread: %s", (char *)result);
    expect_value(WAITED, 0);
    struct sembuf down = {2, -7, IPC_NOWAIT};
    MUST(semop(id, &down, 1));
    MUST(semctl(id, 0, IPC_RMID));
    pass();
}
