/* Its first thread has ended; another one goes on. */
#include "guest.h"

#include <pthread.h>

static void *rest(void *leader) {
    pthread_join(*(pthread_t *)leader, NULL);
    say("ready");
    wait_to_go();
    pass();
}

int main(void) {
    static pthread_t leader;
    pthread_t other;
    leader = pthread_self();
    CHECK(!pthread_create(&other, NULL, rest, &leader), "no thread");
    pthread_exit(NULL);
}
