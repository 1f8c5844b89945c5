/* A program whose system calls are watched: a filter that ends it for a mmap, strict mode, or calls dispatched to itself. A saver
 * that makes a call in it before it asks ends it. It runs until it is killed, or until it may go. */
#include "guest.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

static volatile char selector;

static void filter(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    say("ready");
    if (!strcmp(how, "filter")) {
        filter();
        wait_to_go();
        pass();
    }
    if (!strcmp(how, "strict")) {
        MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
    } else {
        MUST(prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &selector));
        selector = 1;
    }
    for (;;) {
    }
}
