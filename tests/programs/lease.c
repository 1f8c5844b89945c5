/* Leases on files: they are held, tell of somebody who opens the file by their signal, and are given up. */
#include "guest.h"

#include <sys/wait.h>

static volatile sig_atomic_t got, on;
static void broken(int signal, siginfo_t *info, void *context) {
    (void)context;
    got = signal;
    on = info->si_fd;
}

static int lease(const char *path, int flags, int type, int signal) {
    spill(path, "leased");
    int fd = open(path, flags | O_CLOEXEC);
    MUST(fd);
    if (signal) MUST(fcntl(fd, F_SETSIG, signal));
    MUST(fcntl(fd, F_SETLEASE, type));
    return fd;
}

/* Somebody else opens the file. */
static void open_by_child(const char *path, int flags) {
    pid_t child = fork();
    CHECK(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) _exit(open(path, flags | O_NONBLOCK) == -1 && errno == EWOULDBLOCK ? 0 : 1);
    int status;
    CHECK(waitpid(child, &status, 0) == child, "waitpid: %s", strerror(errno));
    CHECK(status == 0, "%s: was opened in spite of the lease", path);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = broken, .sa_flags = SA_SIGINFO | SA_RESTART};
    MUST(sigaction(SIGIO, &action, NULL));
    MUST(sigaction(SIGRTMIN + 3, &action, NULL));
    int reads = lease("read-lease", O_RDONLY, F_RDLCK, SIGRTMIN + 3), writes = lease("write-lease", O_RDWR, F_WRLCK, 0);
    int flags = fcntl(reads, F_GETFL);

    say("ready");
    wait_to_go();

    CHECK(fcntl(reads, F_GETLEASE) == F_RDLCK, "a read lease became %d", fcntl(reads, F_GETLEASE));
    CHECK(fcntl(writes, F_GETLEASE) == F_WRLCK, "a write lease became %d", fcntl(writes, F_GETLEASE));
    CHECK(fcntl(reads, F_GETSIG) == SIGRTMIN + 3 && fcntl(writes, F_GETSIG) == 0, "other signals: %d, %d", fcntl(reads, F_GETSIG),
          fcntl(writes, F_GETSIG));
    CHECK(fcntl(reads, F_GETFL) == flags, "flags: %#o, were %#o", fcntl(reads, F_GETFL), flags);
    CHECK(fcntl(reads, F_GETOWN) == getpid(), "owner %d, not %d", fcntl(reads, F_GETOWN), getpid());
    CHECK(got == 0, "signal %d came by itself", got);
    open_by_child("read-lease", O_WRONLY);
    CHECK(got == SIGRTMIN + 3 && on == reads, "signal %d of descriptor %d tells that a read lease is broken", got, on);
    got = 0;
    open_by_child("write-lease", O_RDONLY);
    CHECK(got == SIGIO, "signal %d tells that a write lease is broken", got);
    CHECK(!fcntl(reads, F_SETLEASE, F_UNLCK) && !fcntl(writes, F_SETLEASE, F_UNLCK), "not given up: %s", strerror(errno));
    pass();
}
