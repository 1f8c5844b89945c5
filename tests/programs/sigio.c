/* Signal-driven sockets between the processes of a tree: who gets which signal. */
#include "guest.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

static volatile sig_atomic_t got_sigio, got_usr2;

static void on_sigio(int signal) {
    (void)signal;
    got_sigio++;
}

static void on_usr2(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    got_usr2 = info->si_fd;
}

static void driven(int fd, pid_t owner, int signal) {
    MUST(fcntl(fd, F_SETOWN, owner));
    MUST(fcntl(fd, F_SETSIG, signal));
    MUST(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC | O_NONBLOCK));
}

static void awaits(volatile sig_atomic_t *what, int value, const char *name) {
    for (int i = 0; i < 10000 && *what != value; i++) nap();
    CHECK(*what == value, "%s is %d instead of %d", name, (int)*what, value);
}

int main(void) {
    int to_root[2], to_child[2], talk[2];
    char byte;
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, to_root));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, to_child));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, talk));
    struct sigaction action = {.sa_handler = on_sigio, .sa_flags = SA_RESTART};
    sigaction(SIGIO, &action, NULL);
    action.sa_sigaction = on_usr2;
    action.sa_flags |= SA_SIGINFO;
    sigaction(SIGUSR2, &action, NULL);
    pid_t child = fork();
    MUST(child);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)!write(talk[1], "r", 1);
        (void)!read(talk[1], &byte, 1);
        (void)!write(to_root[1], "x", 1);
        while (!got_usr2) nap();
        byte = got_usr2 == to_child[0] ? 'g' : 'b';
        (void)!write(talk[1], &byte, 1);
        for (;;) pause();
    }
    MUST(read(talk[0], &byte, 1));
    driven(to_root[0], getpid(), 0);
    driven(to_child[0], child, SIGUSR2);

    say("ready");
    wait_to_go();

    CHECK(fcntl(to_root[0], F_GETOWN) == getpid() && fcntl(to_root[0], F_GETSIG) == 0, "the root's socket signals %d by %d",
          fcntl(to_root[0], F_GETOWN), fcntl(to_root[0], F_GETSIG));
    CHECK(fcntl(to_child[0], F_GETOWN) == child && fcntl(to_child[0], F_GETSIG) == SIGUSR2, "the child's socket signals %d by %d",
          fcntl(to_child[0], F_GETOWN), fcntl(to_child[0], F_GETSIG));
    CHECK((fcntl(to_child[0], F_GETFL) & (O_ASYNC | O_NONBLOCK)) == (O_ASYNC | O_NONBLOCK), "flags %o", fcntl(to_child[0], F_GETFL));
    CHECK(got_sigio == 0, "a signal that nobody has sent");
    CHECK(write(talk[0], "!", 1) == 1, "write: %s", strerror(errno));
    awaits(&got_sigio, 1, "SIGIO");
    CHECK(write(to_child[1], "x", 1) == 1, "write: %s", strerror(errno));
    CHECK(read(talk[0], &byte, 1) == 1 && byte == 'g', "the child's signal names another descriptor");
    kill(child, SIGKILL);
    pass();
}
