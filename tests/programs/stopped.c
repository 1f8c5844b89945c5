/* Children that were stopped: they stay so, and run no instruction before they are let go on; their parent learns what it had not learnt yet,
 * and nothing twice. And children that have ended as members of another child's group. */
#include "guest.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { THREADS = 3, WAITED, UNTOLD, TYPED, KINDS };

/* Written by children as long as they run. */
static volatile struct {
    unsigned long turns[KINDS][THREADS + 1];
    int passed[KINDS];
} *shared;

static volatile sig_atomic_t told;

static void on_child(int signal) {
    (void)signal;
    told++;
}

static volatile unsigned long *mine(int kind, int thread) { return &shared->turns[kind][thread]; }

/* Turns on and on with all registers in use, so that nobody stands in a system call; ends when the pipe says so. */
static void turn(int kind, int thread) {
    double sum = 0;
    for (unsigned long n = 1; !shared->passed[kind]; n++) {
        sum += 0.5;
        if (sum != 0.5 * (double)n) _exit(70);
        *mine(kind, thread) = n;
    }
}

static void *begin(void *which) {
    long number = (long)which;
    turn((int)(number / 100), (int)(number % 100));
    return NULL;
}

static pid_t child(int kind, int threads) {
    pid_t pid = fork();
    MUST(pid);
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGCHLD, SIG_DFL);
    pthread_t others[THREADS];
    for (long i = 0; i < threads; i++) pthread_create(&others[i], NULL, begin, (void *)(kind * 100L + i + 1));
    turn(kind, 0);
    for (int i = 0; i < threads; i++) pthread_join(others[i], NULL);
    _exit(7);
}

static void stop(pid_t pid, int kind, int threads, int signal) {
    for (int i = 0; i <= threads; i++)
        while (*mine(kind, i) < 1000) nap();
    MUST(kill(pid, signal));
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOWAIT));
    CHECK(info.si_status == signal, "set-up: stopped by %d", info.si_status);
}

static void stands(const char *who, pid_t pid, int kind, const unsigned long *was) {
    char path[64], stat[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    slurp(path, stat, sizeof stat);
    char *state = strrchr(stat, ')') + 2;
    CHECK(*state == 'T', "%s: its state is %c", who, *state);
    for (int i = 0; i <= THREADS; i++) CHECK(*mine(kind, i) == was[i], "%s: thread %d made %lu turns more", who, i, *mine(kind, i) - was[i]);
}

/* It goes on where it stood, and ends. */
static void ends(const char *who, pid_t pid, int kind, const unsigned long *was, int threads) {
    MUST(kill(pid, SIGCONT));
    for (int i = 0; i <= threads; i++)
        while (*mine(kind, i) <= was[i] + 1000) {
            siginfo_t info = {0};
            CHECK(!waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid == 0, "%s: ended with %d", who, info.si_status);
            nap();
        }
    shared->passed[kind] = 1;
    int status;
    MUST(waitpid(pid, &status, 0));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%s: status %#x", who, status);
}

int main(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST((long)shared);
    struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART};
    MUST(sigaction(SIGCHLD, &action, NULL));
    pid_t waited = child(WAITED, THREADS), untold = child(UNTOLD, 0), typed = child(TYPED, 0);
    stop(waited, WAITED, THREADS, SIGSTOP);
    stop(untold, UNTOLD, 0, SIGSTOP);
    stop(typed, TYPED, 0, SIGSTOP);
    int status;
    CHECK(waitpid(waited, &status, WUNTRACED) == waited && WIFSTOPPED(status), "set-up: %#x", status);
    CHECK(waitpid(typed, &status, WUNTRACED) == typed && WIFSTOPPED(status), "set-up: %#x", status);
    /* One that has ended, in the group of one that is stopped. */
    MUST(setpgid(typed, typed));
    pid_t gone = fork();
    MUST(gone);
    if (gone == 0) {
        setpgid(0, typed);
        _exit(5);
    }
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)gone, &info, WEXITED | WNOWAIT));
    unsigned long was[KINDS][THREADS + 1];
    for (int kind = WAITED; kind < KINDS; kind++)
        for (int i = 0; i <= THREADS; i++) was[kind][i] = *mine(kind, i);
    int told_before = told;

    say("ready");
    wait_to_go();

    CHECK(told == told_before, "SIGCHLD came %d times", told - told_before);
    stands("waited for", waited, WAITED, was[WAITED]);
    stands("not told of", untold, UNTOLD, was[UNTOLD]);
    stands("in its own group", typed, TYPED, was[TYPED]);
    CHECK(waitpid(waited, &status, WUNTRACED | WNOHANG) == 0, "the first stop is reported again");
    CHECK(waitpid(typed, &status, WUNTRACED | WNOHANG) == 0, "the third stop is reported again");
    CHECK(waitpid(untold, &status, WUNTRACED | WNOHANG) == untold && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP,
          "the second stop is not told: %#x", status);
    CHECK(getpgid(gone) == typed && getpgid(typed) == typed, "groups %d and %d, were %d", getpgid(gone), getpgid(typed), typed);
    CHECK(waitpid(-typed, &status, WNOHANG) == gone && WEXITSTATUS(status) == 5, "who has ended is not of its group");
    ends("waited for", waited, WAITED, was[WAITED], THREADS);
    ends("not told of", untold, UNTOLD, was[UNTOLD], 0);
    ends("in its own group", typed, TYPED, was[TYPED], 0);
    pass();
}
