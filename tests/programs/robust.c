/* A robust mutex that a thread holds across the wait and never unlocks: its end must tell the others. */
#include "guest.h"

#include <pthread.h>

static volatile int state;
static pthread_mutex_t robust;

static void *holder(void *unused) {
    (void)unused;
    CHECK(!pthread_mutex_lock(&robust), "set-up: lock");
    state = 1;
    while (state == 1) nap();
    return NULL;
}

int main(void) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&robust, &attributes);
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, holder, NULL), "set-up: pthread_create");
    while (state != 1) nap();

    say("ready");
    wait_to_go();

    state = 2;
    CHECK(!pthread_join(thread, NULL), "pthread_join");
    struct timespec soon;
    clock_gettime(CLOCK_REALTIME, &soon);
    soon.tv_sec += 3;
    int error = pthread_mutex_timedlock(&robust, &soon);
    CHECK(error == EOWNERDEAD, "the mutex of an ended thread: %s", strerror(error));
    pass();
}
