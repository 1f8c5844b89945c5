// Runs a command under a seccomp filter like that of a container engine's default profile.
// usage: container [-p] PROG ARG...    -p: ptrace and reading other processes' memory are forbidden, too (before Linux 4.8)
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FORBID(nr, err) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (err))

int main(int argc, char **argv)
{
    int strict = argc > 1 && !strcmp(argv[1], "-p");
    // Where a lenient profile allows a call, its entry asks for a number that no call has.
    unsigned never = 0xffff;
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        // Unknown flags of clone3 cannot be looked at: libcs fall back to clone.
        FORBID(SYS_clone3, ENOSYS),
        FORBID(SYS_unshare, EPERM), FORBID(SYS_setns, EPERM), FORBID(SYS_mount, EPERM), FORBID(SYS_umount2, EPERM),
        FORBID(SYS_pivot_root, EPERM), FORBID(SYS_userfaultfd, EPERM), FORBID(SYS_kcmp, EPERM), FORBID(SYS_bpf, EPERM),
        FORBID(SYS_perf_event_open, EPERM), FORBID(SYS_keyctl, EPERM), FORBID(SYS_add_key, EPERM),
        FORBID(SYS_open_by_handle_at, EPERM), FORBID(SYS_fanotify_init, EPERM), FORBID(SYS_io_uring_setup, EPERM),
        FORBID(SYS_quotactl, EPERM), FORBID(SYS_reboot, EPERM), FORBID(SYS_settimeofday, EPERM),
        FORBID(SYS_clock_settime, EPERM), FORBID(SYS_lookup_dcookie, EPERM), FORBID(SYS_move_pages, EPERM),
        FORBID(strict ? SYS_ptrace : never, EPERM), FORBID(strict ? SYS_process_vm_readv : never, EPERM),
        FORBID(strict ? SYS_process_vm_writev : never, EPERM),
        // clone(2) with namespaces.
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K,
                 CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("seccomp");
        return 99;
    }
    execvp(argv[1 + strict], argv + 1 + strict);
    perror(argv[1 + strict]);
    return 98;
}
