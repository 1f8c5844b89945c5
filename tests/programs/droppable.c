/* Memory that the kernel may drop (MAP_DROPPABLE), where libcs keep the state of their random numbers: it is saved live, and a
 * restarted process finds zeros there, so that no number comes twice. */
#include "guest.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

enum { PAGE = 4096 };

/* Whether the kernel still may drop it (`dp` in smaps). */
static void may_be_dropped(const char *state) {
    static char text[1 << 20];
    char begin[32];
    snprintf(begin, sizeof begin, "%lx-", (unsigned long)state);
    slurp("/proc/self/smaps", text, sizeof text);
    char *at = strstr(text, begin), *flags = at ? strstr(at, "VmFlags:") : NULL;
    CHECK(flags, "its mapping is not found");
    *strchrnul(flags, '\n') = 0;
    CHECK(strstr(flags, " dp"), "it is no memory that may be dropped: %s", flags);
}

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
    may_be_dropped(state);
    pass();
}
