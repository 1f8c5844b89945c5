/* A session on a terminal whose foreground process group has ended, as a shell's has while the shell is about to take the terminal back. */
#include "guest.h"

#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>

int main(void) {
    int said[2], master = posix_openpt(O_RDWR | O_NOCTTY);
    char byte;
    MUST(master);
    MUST(grantpt(master));
    MUST(unlockpt(master));
    MUST(pipe(said));
    pid_t shell = fork();
    MUST(shell);
    if (shell == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGTTOU, SIG_IGN);
        MUST(setsid());
        int terminal = open(ptsname(master), O_RDWR);
        MUST(terminal);
        pid_t job = fork();
        MUST(job);
        if (job == 0) {
            MUST(setpgid(0, 0));
            MUST(tcsetpgrp(terminal, getpid()));
            _exit(0);
        }
        MUST(waitpid(job, NULL, 0));
        (void)!write(said[1], "r", 1);
        while (!may_go()) nap();
        int done = tcsetpgrp(terminal, getpgrp());
        byte = done < 0 ? (char)errno : 0;
        if (byte == 0 && tcgetpgrp(terminal) != getpid()) byte = 1;
        (void)!write(said[1], &byte, 1);
        for (;;) pause();
    }
    CHECK(read(said[0], &byte, 1) == 1 && byte == 'r', "set-up: the child");

    say("ready");
    wait_to_go();

    CHECK(read(said[0], &byte, 1) == 1, "the child is gone");
    CHECK(byte == 0, "the terminal is not the session's any more: %s", strerror(byte));
    kill(shell, SIGKILL);
    pass();
}
