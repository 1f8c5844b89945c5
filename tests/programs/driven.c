/* Owners and signals of a single process's descriptors: sockets, pipes, a FIFO, a terminal, an inotify instance; the process, one of
 * its threads and its group as the owner; signal-driven, or only told of urgent data, or set for later. */
#include "guest.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <termios.h>

static volatile sig_atomic_t got_io, got_urgent, descriptor;
static volatile pid_t taker;
static pid_t thread_id;

static void on_io(int signal, siginfo_t *info, void *context) {
    (void)context;
    descriptor = signal == SIGIO ? -1 : info->si_fd;
    taker = (pid_t)syscall(SYS_gettid);
    got_io++;
}
static void on_urgent(int signal) {
    (void)signal;
    got_urgent++;
}

static void *runs(void *nothing) {
    (void)nothing;
    thread_id = (pid_t)syscall(SYS_gettid);
    for (;;) pause();
    return NULL;
}

static void own(int fd, int type, pid_t owner, int signal, int driven) {
    struct f_owner_ex ex = {type, owner};
    MUST(fcntl(fd, F_SETOWN_EX, &ex));
    MUST(fcntl(fd, F_SETSIG, signal));
    if (driven) MUST(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC));
}

static void has(const char *what, int fd, int type, pid_t owner, int signal, int driven) {
    struct f_owner_ex ex = {0, -1};
    MUST(fcntl(fd, F_GETOWN_EX, &ex));
    CHECK((int)ex.type == type && ex.pid == owner, "%s: owner %d of type %d, was %d of %d", what, ex.pid, ex.type, owner, type);
    CHECK(fcntl(fd, F_GETSIG) == signal, "%s: signal %d, was %d", what, fcntl(fd, F_GETSIG), signal);
    CHECK(!(fcntl(fd, F_GETFL) & O_ASYNC) == !driven, "%s: flags %o", what, fcntl(fd, F_GETFL));
}

/* Writes, and waits for the signal of that. */
static void tells(const char *what, int to, int names, pid_t whom) {
    int before = got_io;
    CHECK(write(to, "x\n", 2) == 2, "%s: write: %s", what, strerror(errno));
    for (int i = 0; i < 10000 && got_io == before; i++) nap();
    CHECK(got_io == before + 1, "%s: %d signals instead of 1", what, (int)got_io - before);
    CHECK(descriptor == names, "%s: the signal names descriptor %d instead of %d", what, (int)descriptor, names);
    CHECK(!whom || taker == whom, "%s: thread %d got it instead of %d", what, (int)taker, (int)whom);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_io, .sa_flags = SA_SIGINFO | SA_RESTART};
    for (int signal = SIGRTMIN + 1; signal < SIGRTMIN + 6; signal++) MUST(sigaction(signal, &action, NULL));
    MUST(sigaction(SIGIO, &action, NULL));
    action = (struct sigaction){.sa_handler = on_urgent, .sa_flags = SA_RESTART};
    MUST(sigaction(SIGURG, &action, NULL));
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, runs, NULL) == 0, "set-up: no thread");
    while (!thread_id) nap();
    /* What nobody is named for comes to this thread or that. */
    int pair[2], ends[2], later[2], quiet[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    MUST(pipe(ends));
    MUST(pipe(later));
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, quiet));
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    MUST(master);
    MUST(grantpt(master));
    MUST(unlockpt(master));
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    MUST(slave);
    struct termios raw;
    MUST(tcgetattr(slave, &raw));
    cfmakeraw(&raw);
    MUST(tcsetattr(slave, TCSANOW, &raw));
    MUST(mkdir("watched", 0755));
    int watching = inotify_init1(IN_NONBLOCK);
    MUST(watching);
    MUST(inotify_add_watch(watching, "watched", IN_CREATE));
    int listener = socket(AF_INET, SOCK_STREAM, 0), near = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof name;
    MUST(bind(listener, (void *)&name, len));
    MUST(listen(listener, 1));
    MUST(getsockname(listener, (void *)&name, &len));
    MUST(connect(near, (void *)&name, len));
    int far = accept(listener, NULL, NULL);
    MUST(far);
    /* No TIME_WAIT when they are killed. */
    struct linger reset = {1, 0};
    MUST(setsockopt(near, SOL_SOCKET, SO_LINGER, &reset, sizeof reset));
    MUST(setsockopt(far, SOL_SOCKET, SO_LINGER, &reset, sizeof reset));

    own(pair[0], F_OWNER_PID, getpid(), SIGRTMIN + 1, 1);
    own(ends[0], F_OWNER_TID, thread_id, SIGRTMIN + 2, 1);
    own(slave, F_OWNER_PID, getpid(), 0, 1);
    own(master, F_OWNER_TID, (pid_t)syscall(SYS_gettid), SIGRTMIN + 3, 1);
    own(watching, F_OWNER_PID, getpid(), SIGRTMIN + 4, 1);
    own(later[0], F_OWNER_PID, getpid(), SIGRTMIN + 5, 0);
    own(quiet[1], F_OWNER_PGRP, getpgrp(), 0, 0);
    own(quiet[0], F_OWNER_PGRP, 0, SIGRTMIN + 1, 0);
    own(far, F_OWNER_PID, getpid(), 0, 0);
    int opened = open("watched/plain", O_RDWR | O_CREAT | O_ASYNC, 0600);
    MUST(opened);
    /* The file that was made in it has told already. */
    for (int i = 0; i < 10000 && !got_io; i++) nap();
    char event[4096];
    CHECK(got_io == 1 && read(watching, event, sizeof event) > 0, "set-up: inotify tells nothing");
    got_io = 0;

    say("ready");
    wait_to_go();

    pid_t self = getpid(), first = (pid_t)syscall(SYS_gettid);
    /* The other thread's id of now. */
    got_io = 0;
    pthread_kill(thread, SIGRTMIN + 5);
    for (int i = 0; i < 10000 && !got_io; i++) nap();
    pid_t other = taker;
    CHECK(got_io == 1 && other != first, "the other thread does not run");
    has("socket", pair[0], F_OWNER_PID, self, SIGRTMIN + 1, 1);
    has("pipe", ends[0], F_OWNER_TID, other, SIGRTMIN + 2, 1);
    has("terminal", slave, F_OWNER_PID, self, 0, 1);
    has("master", master, F_OWNER_TID, first, SIGRTMIN + 3, 1);
    has("inotify", watching, F_OWNER_PID, self, SIGRTMIN + 4, 1);
    has("pipe for later", later[0], F_OWNER_PID, self, SIGRTMIN + 5, 0);
    has("of the group", quiet[1], F_OWNER_PGRP, getpgrp(), 0, 0);
    has("without an owner", quiet[0], F_OWNER_PGRP, 0, SIGRTMIN + 1, 0);
    has("urgent", far, F_OWNER_PID, self, 0, 0);
    CHECK(fcntl(opened, F_GETFL) & O_ASYNC, "the file's flags are %o", fcntl(opened, F_GETFL));
    CHECK(got_urgent == 0, "a signal that nobody has sent");
    tells("socket", pair[1], pair[0], 0);
    tells("pipe", ends[1], ends[0], other);
    tells("terminal", master, -1, 0);
    tells("master", slave, master, first);
    MUST(fcntl(later[0], F_SETFL, O_ASYNC));
    tells("pipe for later", later[1], later[0], 0);
    int before = got_io;
    MUST(open("watched/more", O_WRONLY | O_CREAT, 0600));
    for (int i = 0; i < 10000 && got_io == before; i++) nap();
    CHECK(got_io == before + 1 && descriptor == watching, "inotify: %d signals, the last one of %d", got_io - before, descriptor);
    CHECK(send(near, "!", 1, MSG_OOB) == 1, "send: %s", strerror(errno));
    for (int i = 0; i < 10000 && !got_urgent; i++) nap();
    CHECK(got_urgent == 1, "%d signals of urgent data", (int)got_urgent);
    pass();
}
