/* Memory that the kernel may drop (MAP_DROPPABLE), where libcs keep the state of their random numbers: it is saved live, and a
 * restarted process finds zeros there, so that no number comes twice. */
#include "guest.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

enum { PAGE = 4096 };

int main(void) {
    pid_t born = getpid();
    char *state = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
    int known = state != MAP_FAILED || errno != EINVAL;
    if (known) {
        MUST(state);
        memset(state, 0x5a, PAGE);
    }

    say("ready");
    wait_to_go();

    if (!known) {
        say("unknown");
        pass();
    }
    int restarted = getpid() != born;
    for (int i = 0; i < PAGE; i++) CHECK(state[i] == (restarted ? 0 : 0x5a), "byte %d is %#x", i, state[i]);
    memset(state, 0x5a, PAGE);
    pass();
}
