/* Takes an id that somebody else is about to need: as soon as the process PID is there, a child of this program has the id TID, unless somebody was
   faster. Says `taken` or `late`; the child lives as long as this program. usage: taker PID TID */
#include "guest.h"

#include <linux/sched.h>
#include <sys/prctl.h>

int main(int argc, char **argv) {
    CHECK(argc == 3, "set-up: usage");
    pid_t pid = atoi(argv[1]), tid = atoi(argv[2]);
    struct clone_args how = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&tid, .set_tid_size = 1};
    say("ready");
    while (kill(pid, 0)) {
    }
    long made = syscall(SYS_clone3, &how, sizeof how);
    if (made == 0) {
        MUST(prctl(PR_SET_PDEATHSIG, SIGKILL));
        for (;;) pause();
    }
    CHECK(made > 0 || errno == EEXIST, "set-up: clone3: %s", strerror(errno));
    say(made > 0 ? "taken" : "late");
    for (;;) pause();
}
