/* Seccomp filters: several on top of each other, others on another thread, with every kind of answer. */
#include "guest.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, value)
#define ON(nr, answer) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), ANSWER(answer)

enum { BY_PRCTL = 0x1000 };

/* No process has this id: it is above the greatest. */
enum { NOBODY = 0x7ffffff0 };

static void install(struct sock_filter *code, unsigned short len, unsigned how) {
    struct sock_fprog program = {len, code};
    if (how == BY_PRCTL) {
        MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
    } else {
        MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, how, &program));
    }
}

#define INSTALL(how, ...)                                                                                              \
    do {                                                                                                               \
        struct sock_filter code[] = {__VA_ARGS__};                                                                     \
        install(code, sizeof code / sizeof *code, how);                                                                \
    } while (0)

static __thread volatile int trapped;
static void on_trap(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    trapped = info->si_syscall;
}

/* A line of the thread's own status. */
static int status(const char *name) {
    static __thread char text[1 << 13], path[64];
    snprintf(path, sizeof path, "/proc/self/task/%ld/status", syscall(SYS_gettid));
    slurp(path, text, sizeof text);
    char *found = strstr(text, name);
    return found ? atoi(found + strlen(name)) : -1;
}

static void expect_errno(int thread, const char *what, long result, int want) {
    CHECK(result == -1 && errno == want, "thread %d: %s: %ld (%s), not errno %d", thread, what, result, strerror(errno), want);
}

static void expect_common(int thread, int filters) {
    CHECK(status("Seccomp:\t") == 2, "thread %d: mode %d", thread, status("Seccomp:\t"));
    CHECK(status("Seccomp_filters:\t") == filters, "thread %d: %d filters, not %d", thread, status("Seccomp_filters:\t"), filters);
    CHECK(status("NoNewPrivs:\t") == 1, "thread %d: no_new_privs is %d", thread, status("NoNewPrivs:\t"));
    expect_errno(thread, "the first filter", syscall(SYS_sysfs, 1, 2), 71);
    CHECK(syscall(SYS_getpid) > 0, "thread %d: getpid", thread);
}

static void check_main(void) {
    expect_common(0, 4);
    /* The argument decides, with arithmetic and memory. */
    expect_errno(0, "the second filter", syscall(SYS_getpgid, NOBODY), 72);
    CHECK(syscall(SYS_getpgid, 0) >= 0, "an argument that the second filter allows");
    trapped = 0;
    syscall(SYS_uselib, "x");
    CHECK(trapped == SYS_uselib, "no signal from the third filter (%d)", trapped);
    expect_errno(0, "seccomp(2)", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL), 73);
    /* Of two answers the stricter one counts. */
    expect_errno(0, "the stricter answer", syscall(SYS_getpriority, 0, 0), 74);
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (!child) {
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        syscall(SYS_swapon, "x", 0);
        _exit(1);
    }
    int ended = 0;
    CHECK(waitpid(child, &ended, 0) == child, "waitpid");
    CHECK(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGSYS, "a call that ends a process: status %#x", ended);
}

static void check_second(void) {
    expect_common(1, 2);
    expect_errno(1, "the thread's own filter", syscall(SYS_getpriority, 0, 0), 75);
    CHECK(syscall(SYS_getpgid, NOBODY) == -1 && errno == ESRCH, "the other thread's filter");
    trapped = 0;
    syscall(SYS_uselib, "x");
    CHECK(!trapped, "the other thread's trap");
}

static volatile int ready;

static void *second(void *arg) {
    INSTALL(SECCOMP_FILTER_FLAG_LOG, LOAD(nr), ON(SYS_getpriority, SECCOMP_RET_ERRNO | 75), ANSWER(SECCOMP_RET_ALLOW));
    check_second();
    ready = 1;
    while (!may_go()) nap();
    check_second();
    return arg;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    MUST(sigaction(SIGSYS, &action, NULL));
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    INSTALL(BY_PRCTL, LOAD(arch), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0), ANSWER(SECCOMP_RET_KILL_PROCESS),
            LOAD(nr), ON(SYS_sysfs, SECCOMP_RET_ERRNO | 71), ON(SYS_swapon, SECCOMP_RET_KILL_PROCESS), ANSWER(SECCOMP_RET_ALLOW));
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, second, NULL), "set-up: thread");
    while (!ready) nap();
    INSTALL(0, LOAD(args[0]), BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 3), BPF_STMT(BPF_ST, 5), LOAD(nr),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgid, 0, 3), BPF_STMT(BPF_LD | BPF_MEM, 5),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NOBODY + 3, 0, 1), ANSWER(SECCOMP_RET_ERRNO | 72), ANSWER(SECCOMP_RET_ALLOW));
    INSTALL(0, LOAD(nr), ON(SYS_uselib, SECCOMP_RET_TRAP), ON(SYS_seccomp, SECCOMP_RET_ERRNO | 73),
            ON(SYS_getpriority, SECCOMP_RET_ERRNO | 74), ANSWER(SECCOMP_RET_ALLOW));
    /* Only prctl(2) is left to install the last one by. */
    INSTALL(BY_PRCTL, LOAD(nr), ON(SYS_getpriority, SECCOMP_RET_LOG), ANSWER(SECCOMP_RET_ALLOW));
    check_main();

    say("ready");
    wait_to_go();

    check_main();
    CHECK(!pthread_join(thread, NULL), "join");
    pass();
}
