/* Signal-driven sockets and pipes between the processes of a tree: who gets which signal, be it a process, a thread of another one, or a group. */
#include "guest.h"

#include <poll.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>

static volatile sig_atomic_t got_sigio, got_usr2;
static int groups;

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

static void owned(int fd, int type, pid_t owner, int signal) {
    struct f_owner_ex ex = {type, owner};
    MUST(fcntl(fd, F_SETOWN_EX, &ex));
    MUST(fcntl(fd, F_SETSIG, signal));
    MUST(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC));
}

static void has(int fd, int type, pid_t owner, int signal) {
    struct f_owner_ex ex = {0, -1};
    MUST(fcntl(fd, F_GETOWN_EX, &ex));
    CHECK((int)ex.type == type && ex.pid == owner && fcntl(fd, F_GETSIG) == signal, "descriptor %d signals %d of type %d by %d", fd,
          ex.pid, ex.type, fcntl(fd, F_GETSIG));
}

static void on_group(int signal) {
    (void)signal;
    (void)!write(groups, "g", 1);
}

/* Tells its id, and which signals it gets. */
static void *thread(void *to) {
    sigset_t set;
    siginfo_t info;
    pid_t id = (pid_t)syscall(SYS_gettid);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 2);
    (void)!write(*(int *)to, &id, sizeof id);
    for (;;) {
        if (sigwaitinfo(&set, &info) == SIGRTMIN + 2) (void)!write(*(int *)to, "t", 1);
    }
    return NULL;
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
    int to_thread[2], to_group[2], said[2];
    MUST(pipe(to_thread));
    MUST(pipe(to_group));
    MUST(pipe(said));
    groups = said[1];
    sigset_t waits;
    sigemptyset(&waits);
    sigaddset(&waits, SIGRTMIN + 2);
    MUST(sigprocmask(SIG_BLOCK, &waits, NULL));
    struct sigaction action = {.sa_handler = on_sigio, .sa_flags = SA_RESTART};
    sigaction(SIGIO, &action, NULL);
    action.sa_sigaction = on_usr2;
    action.sa_flags |= SA_SIGINFO;
    sigaction(SIGUSR2, &action, NULL);
    pid_t child = fork();
    MUST(child);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        action = (struct sigaction){.sa_handler = on_group, .sa_flags = SA_RESTART};
        sigaction(SIGRTMIN + 3, &action, NULL);
        pid_t member = fork();
        if (member == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void)!write(talk[1], "m", 1);
            for (;;) pause();
        }
        pthread_t other;
        pthread_create(&other, NULL, thread, &said[1]);
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
    /* The group's other member. */
    MUST(read(talk[0], &byte, 1));
    pid_t tid = 0;
    CHECK(read(said[0], &tid, sizeof tid) == sizeof tid, "set-up: no id of the thread");
    owned(to_thread[0], F_OWNER_TID, tid, SIGRTMIN + 2);
    owned(to_group[0], F_OWNER_PGRP, child, SIGRTMIN + 3);

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
    has(to_thread[0], F_OWNER_TID, tid, SIGRTMIN + 2);
    has(to_group[0], F_OWNER_PGRP, child, SIGRTMIN + 3);
    CHECK(write(to_thread[1], "x", 1) == 1, "write: %s", strerror(errno));
    CHECK(read(said[0], &byte, 1) == 1 && byte == 't', "the thread says %c", byte);
    CHECK(write(to_group[1], "x", 1) == 1, "write: %s", strerror(errno));
    for (int i = 0; i < 2; i++) CHECK(read(said[0], &byte, 1) == 1 && byte == 'g', "a member of the group says %c", byte);
    kill(child, SIGKILL);
    pass();
}
