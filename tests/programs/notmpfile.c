/* Runs a program as on a file system that knows no nameless files: open with O_TMPFILE gives EOPNOTSUPP.
 *
 * usage: notmpfile PROGRAM [ARGUMENT]... */
#include "guest.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

/* O_TMPFILE without the O_DIRECTORY in it. */
#define NAMELESS 020000000

int main(int argc, char **argv) {
    CHECK(argc > 1, "usage: notmpfile PROGRAM [ARGUMENT]...");
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMELESS, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
    execv(argv[1], argv + 1);
    CHECK(0, "%s: %s", argv[1], strerror(errno));
}
