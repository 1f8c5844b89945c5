/* Signal actions: handler, flags, mask and restorer of all 64 signals, the thread's mask, and an alternate stack. */
#include "guest.h"

struct kernel_action {
    uint64_t handler, flags, restorer, mask;
};

static volatile sig_atomic_t plain, with_info, on_stack;
static char stack[65536];

static void handle_plain(int signal) {
    plain = signal;
}
static void handle_info(int signal, siginfo_t *info, void *context) {
    (void)context;
    char here;
    with_info = signal == info->si_signo ? info->si_value.sival_int : -1;
    on_stack = &here >= stack && &here < stack + sizeof stack;
}

static void read_all(struct kernel_action *table) {
    for (int i = 1; i <= 64; i++) MUST(syscall(SYS_rt_sigaction, i, NULL, &table[i], 8));
}

int main(void) {
    static struct kernel_action before[65], after[65];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack}, now;
    MUST(sigaltstack(&alternate, NULL));
    const int flags[] = {0, SA_RESTART, SA_NODEFER, SA_RESETHAND, SA_NOCLDSTOP | SA_RESTART, SA_ONSTACK};
    for (int i = 1; i <= 64; i++) {
        /* SIGUSR1 is the one that saves; 32 and 33 are libc's own. */
        if (i == SIGKILL || i == SIGSTOP || i == SIGUSR1 || i == 32 || i == 33) continue;
        struct sigaction action = {.sa_flags = flags[i % 6]};
        sigemptyset(&action.sa_mask);
        sigaddset(&action.sa_mask, 1 + (i * 7) % 31);
        if (i % 5 == 0) {
            action.sa_handler = SIG_IGN;
        } else if (i % 2) {
            action.sa_handler = handle_plain;
        } else {
            action.sa_sigaction = handle_info;
            action.sa_flags |= SA_SIGINFO;
        }
        MUST(sigaction(i, &action, NULL));
    }
    struct sigaction onto = {.sa_sigaction = handle_info, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    MUST(sigaction(SIGRTMIN + 4, &onto, NULL));
    sigset_t blocked, mask;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGRTMIN + 9);
    sigaddset(&blocked, SIGHUP);
    MUST(sigprocmask(SIG_SETMASK, &blocked, NULL));
    read_all(before);

    say("ready");
    wait_to_go();

    read_all(after);
    for (int i = 1; i <= 64; i++)
        CHECK(!memcmp(&before[i], &after[i], sizeof before[i]),
              "signal %d: handler %#lx flags %#lx restorer %#lx mask %#lx, were %#lx %#lx %#lx %#lx", i, after[i].handler,
              after[i].flags, after[i].restorer, after[i].mask, before[i].handler, before[i].flags, before[i].restorer,
              before[i].mask);
    MUST(sigprocmask(SIG_SETMASK, NULL, &mask));
    for (int i = 1; i <= 64; i++)
        CHECK(sigismember(&mask, i) == (i == SIGHUP || i == SIGRTMIN + 9), "signal %d is %sblocked", i,
              sigismember(&mask, i) ? "" : "not ");
    MUST(sigaltstack(NULL, &now));
    CHECK(now.ss_sp == stack && now.ss_size == sizeof stack && now.ss_flags == 0, "the alternate stack is %p+%zu flags %d",
          now.ss_sp, now.ss_size, now.ss_flags);
    raise(SIGQUIT);
    CHECK(plain == SIGQUIT, "a plain handler does not run");
    union sigval value = {.sival_int = 4711};
    MUST(sigqueue(getpid(), SIGRTMIN + 4, value));
    CHECK(with_info == 4711, "a handler with siginfo got %d", (int)with_info);
    CHECK(on_stack, "a handler with SA_ONSTACK runs elsewhere");
    pass();
}
