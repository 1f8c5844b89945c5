/* A tree of processes: who is whose parent, groups, sessions and their terminals, those that have ended, and what they share:
 * pipes, offsets, memory, locks. A tree keeps its ids, so that each may use them across the wait. */
#include "child.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>

/* What all share: written by one, seen by the others. */
struct shared {
    volatile int counter;
    volatile int by_child[8];
};

static struct shared *shared;
static int file, master, from_children;
static volatile sig_atomic_t got_usr1;

static void on_usr1(int signal) {
    (void)signal;
    got_usr1++;
}

/* One child: told what to do by a byte in its pipe, answers by a line in the common one, which each reads from its own end. */
struct child {
    pid_t pid;
    int tell;
};

/* What a child does: remembers who it is, waits to be asked, and compares. */
static void live(const char *who, int orders, int index, pid_t parent, int exit_code) {
    pid_t pid = getpid(), group = getpgrp(), session = getsid(0);
    char order;
    answers();
    while (read(orders, &order, 1) == 1) {
        CHILD_CHECK(who, getpid() == pid && gettid() == pid, "its id is %d, was %d", getpid(), pid);
        CHILD_CHECK(who, getppid() == parent, "its parent is %d, was %d", getppid(), parent);
        /* The root's group and session are those of the restart. */
        CHILD_CHECK(who, getpgrp() == group || getpgrp() == getpgid(parent), "its group is %d, was %d", getpgrp(), group);
        CHILD_CHECK(who, getsid(0) == session || session != pid, "its session is %d, was %d", getsid(0), session);
        CHILD_CHECK(who, lseek(file, 0, SEEK_CUR) == 6, "the common offset is %ld", (long)lseek(file, 0, SEEK_CUR));
        CHILD_CHECK(who, shared->counter == 42, "the common memory has %d", shared->counter);
        CHILD_CHECK(who, got_usr1 == 1, "it got %d signals", (int)got_usr1);
        shared->by_child[index] = pid;
        answers();
    }
    _exit(exit_code);
}

static struct child begin(const char *who, int index, int exit_code, void (*first)(void)) {
    int ends[2];
    MUST(pipe2(ends, O_CLOEXEC));
    pid_t parent = getpid(), pid = fork();
    MUST(pid);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[1]);
        if (first) first();
        live(who, ends[0], index, parent, exit_code);
    }
    close(ends[0]);
    return (struct child){pid, ends[1]};
}

static void own_group(void) {
    setpgid(0, 0);
}

/* A session on a terminal whose other side the root holds. */
static void own_session(void) {
    setsid();
    char name[64];
    if (ptsname_r(master, name, sizeof name) != 0) child_fails("session", "ptsname: %s", strerror(errno));
    int terminal = open(name, O_RDWR);
    CHILD_CHECK("session", terminal >= 0 && ioctl(terminal, TIOCSCTTY, 0) == 0, "terminal: %s", strerror(errno));
    dup2(terminal, 0);
    /* A job in the foreground. */
    pid_t job = fork();
    if (job == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        for (;;) pause();
    }
    setpgid(job, job);
    signal(SIGTTOU, SIG_IGN);
    CHILD_CHECK("session", tcsetpgrp(0, job) == 0, "tcsetpgrp: %s", strerror(errno));
}

static void locks(void) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 10};
    CHILD_CHECK("locker", fcntl(file, F_SETLK, &lock) == 0, "lock: %s", strerror(errno));
}

static pid_t left_group;

/* In a group whose leader has ended and was waited for. */
static void join_left(void) {
    setpgid(0, left_group);
}

static void expect_answers(int count, const char *when) {
    for (int i = 0; i < count; i++) {
        char line[256] = "";
        struct pollfd wait = {.fd = from_children, .events = POLLIN};
        CHECK(poll(&wait, 1, 20000) == 1, "%s: a child says nothing", when);
        ssize_t got = read(from_children, line, sizeof line);
        CHECK(got > 0 && line[0] != 'F', "%s: %s", when, got > 0 ? line + 1 : "closed");
    }
}

int main(void) {
    int pair[2];
    /* Each answer is a message of its own. */
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
    from_children = pair[0];
    answer_fd = pair[1];
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(shared);
    char path[] = "tree-XXXXXX";
    file = mkstemp(path);
    MUST(file);
    unlink(path);
    MUST(master = posix_openpt(O_RDWR | O_NOCTTY));
    MUST(grantpt(master));
    MUST(unlockpt(master));
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);

    pid_t root = getpid(), group = getpgrp();
    pid_t exited = fork();
    MUST(exited);
    if (exited == 0) _exit(7);
    pid_t killed = fork();
    MUST(killed);
    if (killed == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) pause();
    }
    kill(killed, SIGKILL);
    left_group = fork();
    MUST(left_group);
    if (left_group == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        for (;;) pause();
    }
    setpgid(left_group, left_group);

    struct child all[5];
    all[0] = begin("plain", 0, 10, NULL);
    /* The later ones inherit it: what it stands for ends before them. */
    int first_ends, exited_ends, watch;
    MUST(first_ends = (int)syscall(SYS_pidfd_open, all[0].pid, 0));
    MUST(exited_ends = (int)syscall(SYS_pidfd_open, exited, 0));
    MUST(watch = epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77};
    MUST(epoll_ctl(watch, EPOLL_CTL_ADD, first_ends, &event));
    all[1] = begin("leader", 1, 11, own_group);
    all[2] = begin("session", 2, 12, own_session);
    all[3] = begin("locker", 3, 13, locks);
    all[4] = begin("left", 4, 14, join_left);
    const int count = 5;
    expect_answers(count, "set-up");
    kill(left_group, SIGKILL);
    MUST(waitpid(left_group, NULL, 0));
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)exited, &info, WEXITED | WNOWAIT));
    MUST(waitid(P_PID, (id_t)killed, &info, WEXITED | WNOWAIT));
    pid_t leaders_group = getpgid(all[1].pid), foreground = 0;
    MUST(ioctl(master, TIOCGPGRP, &foreground));
    CHECK(write(file, "abcdef", 6) == 6, "set-up: write");
    shared->counter = 41;

    say("ready");
    wait_to_go();

    CHECK(getpid() == root, "the root's id is %d, was %d", getpid(), root);
    CHECK(getpgrp() == group || group != root, "the root's group is %d, was %d", getpgrp(), group);
    CHECK(getpgid(all[0].pid) == getpgrp(), "a child is in another group than its parent");
    CHECK(getpgid(all[1].pid) == leaders_group && leaders_group == all[1].pid, "a leader's group");
    CHECK(getsid(all[2].pid) == all[2].pid, "a session's leader leads none");
    CHECK(getpgid(all[4].pid) == left_group, "the group without leader is %d, was %d", getpgid(all[4].pid), left_group);
    CHECK(kill(left_group, 0) == -1 && errno == ESRCH, "a process that was gone is there");
    pid_t now = 0;
    CHECK(ioctl(master, TIOCGPGRP, &now) == 0 && now == foreground, "the terminal's foreground is %d, was %d", now, foreground);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 105, .l_len = 1};
    CHECK(fcntl(file, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK && lock.l_pid == all[3].pid, "the child's lock: type %d of %d",
          lock.l_type, lock.l_pid);

    shared->counter++;
    for (int i = 0; i < count; i++) CHECK(kill(all[i].pid, SIGUSR1) == 0, "kill: %s", strerror(errno));
    for (int i = 0; i < count; i++) CHECK(write(all[i].tell, "?", 1) == 1, "a child's pipe: %s", strerror(errno));
    expect_answers(count, "after");
    for (int i = 0; i < count; i++) CHECK(shared->by_child[i] == all[i].pid, "child %d and the root do not share memory", i);

    struct pollfd ends = {.fd = first_ends, .events = POLLIN};
    CHECK(poll(&ends, 1, 0) == 0, "a child's pidfd tells of its end");
    CHECK(epoll_wait(watch, &event, 1, 0) == 0, "a set tells of a child's end");
    CHECK(syscall(SYS_pidfd_send_signal, first_ends, 0, NULL, 0) == 0, "a child's pidfd: %s", strerror(errno));
    ends.fd = exited_ends;
    CHECK(poll(&ends, 1, 0) == 1, "the pidfd of one that has ended tells nothing");

    int status;
    CHECK(waitpid(exited, &status, WNOHANG) == exited && WIFEXITED(status) && WEXITSTATUS(status) == 7, "one that had exited: %x", status);
    CHECK(waitpid(killed, &status, WNOHANG) == killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "one that was killed: %x", status);
    for (int i = 0; i < count; i++) {
        close(all[i].tell);
        /* Later children have a copy of the pipe's end for writing. */
    }
    CHECK(epoll_wait(watch, &event, 1, 20000) == 1 && event.data.u64 == 77, "a set does not tell of a child's end");
    ends.fd = first_ends;
    CHECK(poll(&ends, 1, 0) == 1, "a child's pidfd does not tell of its end");
    for (int i = count - 1; i >= 0; i--) {
        CHECK(waitpid(all[i].pid, &status, 0) == all[i].pid && WIFEXITED(status) && WEXITSTATUS(status) == 10 + i, "child %d ended with %x", i, status);
    }
    CHECK(waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD, "there is a child that was not there");
    pass();
}
