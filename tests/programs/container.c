// Runs a command as a container engine does: in a session of its own, under a seccomp filter with the rules of Docker's default profile, and with no more capabilities than
// the engine leaves. Where this process may, it installs the filter by its rights, as the engine does, and else with no_new_privs.
// usage: container [-p] [-n] [-o] PROG ARG...    -p: ptrace and reading other processes' memory are forbidden, too (before Linux 4.8)
//                                           -n: with no_new_privs (`allowPrivilegeEscalation: false`)
//                                           -o: as before Linux 6.10, where fcntl(2) does not tell of open file descriptions
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef F_DUPFD_QUERY
#define F_DUPFD_QUERY 1027
#endif

#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
#define ERROR(err) RETURN(SECCOMP_RET_ERRNO | (err))
#define WORD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IS(value, then, otherwise) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then, otherwise)
#define ALLOW(call) IS(SYS_##call, 0, 1), RETURN(SECCOMP_RET_ALLOW)
#define ALLOW_UNLESS(flag, call) IS((flag) ? ~0u : SYS_##call, 0, 1), RETURN(SECCOMP_RET_ALLOW)

#define NAMESPACES \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

// What Docker leaves to root: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD,
// AUDIT_WRITE, SETFCAP.
#define CAPABILITIES 0xa80425fbull

static void give_up_rights(void)
{
    for (int cap = 0; cap < 64; cap++) {
        if (!(CAPABILITIES >> cap & 1)) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    }
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct caps[2];
    if (syscall(SYS_capget, &head, caps)) return;
    unsigned left = geteuid() ? 0 : CAPABILITIES;
    caps[0].effective &= left, caps[0].permitted &= left, caps[0].inheritable = 0;
    caps[1] = (struct __user_cap_data_struct){ 0, 0, 0 };
    syscall(SYS_capset, &head, caps);
}

int main(int argc, char **argv)
{
    int strict = 0, forced = 0, old = 0, first = 1;
    for (; first < argc && argv[first][0] == '-'; first++) {
        strict |= !strcmp(argv[first], "-p");
        forced |= !strcmp(argv[first], "-n");
        old |= !strcmp(argv[first], "-o");
    }
    struct sock_filter filter[] = {
        WORD(arch),
        IS(AUDIT_ARCH_X86_64, 1, 0),
        ERROR(EPERM),
        WORD(nr),
        // Unknown flags of clone3 cannot be looked at: libcs fall back to clone.
        IS(SYS_clone3, 0, 1), ERROR(ENOSYS),
        IS(old ? SYS_fcntl : ~0u, 0, 4),
        WORD(args[1]),
        IS(F_DUPFD_QUERY, 0, 1), ERROR(EINVAL),
        WORD(nr),
         ALLOW(accept), ALLOW(accept4), ALLOW(access), ALLOW(adjtimex), ALLOW(alarm), ALLOW(bind), ALLOW(brk), ALLOW(capget), ALLOW(capset),
        ALLOW(chdir), ALLOW(chmod), ALLOW(chown), ALLOW(clock_adjtime), ALLOW(clock_getres), ALLOW(clock_gettime), ALLOW(clock_nanosleep),
        ALLOW(close), ALLOW(close_range), ALLOW(connect), ALLOW(copy_file_range), ALLOW(creat), ALLOW(dup), ALLOW(dup2), ALLOW(dup3),
        ALLOW(epoll_create), ALLOW(epoll_create1), ALLOW(epoll_ctl), ALLOW(epoll_ctl_old), ALLOW(epoll_pwait), ALLOW(epoll_pwait2),
        ALLOW(epoll_wait), ALLOW(epoll_wait_old), ALLOW(eventfd), ALLOW(eventfd2), ALLOW(execve), ALLOW(execveat), ALLOW(exit),
        ALLOW(exit_group), ALLOW(faccessat), ALLOW(faccessat2), ALLOW(fadvise64), ALLOW(fallocate), ALLOW(fanotify_mark), ALLOW(fchdir),
        ALLOW(fchmod), ALLOW(fchmodat), ALLOW(fchown), ALLOW(fchownat), ALLOW(fcntl), ALLOW(fdatasync), ALLOW(fgetxattr), ALLOW(flistxattr),
        ALLOW(flock), ALLOW(fork), ALLOW(fremovexattr), ALLOW(fsetxattr), ALLOW(fstat), ALLOW(fstatfs), ALLOW(fsync), ALLOW(ftruncate),
        ALLOW(futex), ALLOW(futex_waitv), ALLOW(futimesat), ALLOW(getcpu), ALLOW(getcwd), ALLOW(getdents), ALLOW(getdents64), ALLOW(getegid),
        ALLOW(geteuid), ALLOW(getgid), ALLOW(getgroups), ALLOW(getitimer), ALLOW(getpeername), ALLOW(getpgid), ALLOW(getpgrp), ALLOW(getpid),
        ALLOW(getppid), ALLOW(getpriority), ALLOW(getrandom), ALLOW(getresgid), ALLOW(getresuid), ALLOW(getrlimit), ALLOW(get_robust_list),
        ALLOW(getrusage), ALLOW(getsid), ALLOW(getsockname), ALLOW(getsockopt), ALLOW(get_thread_area), ALLOW(gettid), ALLOW(gettimeofday),
        ALLOW(getuid), ALLOW(getxattr), ALLOW(inotify_add_watch), ALLOW(inotify_init), ALLOW(inotify_init1), ALLOW(inotify_rm_watch),
        ALLOW(io_cancel), ALLOW(ioctl), ALLOW(io_destroy), ALLOW(io_getevents), ALLOW(io_pgetevents), ALLOW(ioprio_get), ALLOW(ioprio_set),
        ALLOW(io_setup), ALLOW(io_submit), ALLOW(kill), ALLOW(landlock_add_rule), ALLOW(landlock_create_ruleset), ALLOW(landlock_restrict_self),
        ALLOW(lchown), ALLOW(lgetxattr), ALLOW(link), ALLOW(linkat), ALLOW(listen), ALLOW(listxattr), ALLOW(llistxattr), ALLOW(lremovexattr),
        ALLOW(lseek), ALLOW(lsetxattr), ALLOW(lstat), ALLOW(madvise), ALLOW(membarrier), ALLOW(memfd_create), ALLOW(memfd_secret),
        ALLOW(mincore), ALLOW(mkdir), ALLOW(mkdirat), ALLOW(mknod), ALLOW(mknodat), ALLOW(mlock), ALLOW(mlock2), ALLOW(mlockall), ALLOW(mmap),
        ALLOW(mprotect), ALLOW(mq_getsetattr), ALLOW(mq_notify), ALLOW(mq_open), ALLOW(mq_timedreceive), ALLOW(mq_timedsend), ALLOW(mq_unlink),
        ALLOW(mremap), ALLOW(msgctl), ALLOW(msgget), ALLOW(msgrcv), ALLOW(msgsnd), ALLOW(msync), ALLOW(munlock), ALLOW(munlockall),
        ALLOW(munmap), ALLOW(name_to_handle_at), ALLOW(nanosleep), ALLOW(newfstatat), ALLOW(open), ALLOW(openat), ALLOW(openat2), ALLOW(pause),
        ALLOW(pidfd_open), ALLOW(pidfd_send_signal), ALLOW(pipe), ALLOW(pipe2), ALLOW(pkey_alloc), ALLOW(pkey_free), ALLOW(pkey_mprotect),
        ALLOW(poll), ALLOW(ppoll), ALLOW(prctl), ALLOW(pread64), ALLOW(preadv), ALLOW(preadv2), ALLOW(prlimit64), ALLOW(process_mrelease),
        ALLOW(pselect6), ALLOW(pwrite64), ALLOW(pwritev), ALLOW(pwritev2), ALLOW(read), ALLOW(readahead), ALLOW(readlink), ALLOW(readlinkat),
        ALLOW(readv), ALLOW(recvfrom), ALLOW(recvmmsg), ALLOW(recvmsg), ALLOW(remap_file_pages), ALLOW(removexattr), ALLOW(rename),
        ALLOW(renameat), ALLOW(renameat2), ALLOW(restart_syscall), ALLOW(rmdir), ALLOW(rseq), ALLOW(rt_sigaction), ALLOW(rt_sigpending),
        ALLOW(rt_sigprocmask), ALLOW(rt_sigqueueinfo), ALLOW(rt_sigreturn), ALLOW(rt_sigsuspend), ALLOW(rt_sigtimedwait),
        ALLOW(rt_tgsigqueueinfo), ALLOW(sched_getaffinity), ALLOW(sched_getattr), ALLOW(sched_getparam), ALLOW(sched_get_priority_max),
        ALLOW(sched_get_priority_min), ALLOW(sched_getscheduler), ALLOW(sched_rr_get_interval), ALLOW(sched_setaffinity), ALLOW(sched_setattr),
        ALLOW(sched_setparam), ALLOW(sched_setscheduler), ALLOW(sched_yield), ALLOW(seccomp), ALLOW(select), ALLOW(semctl), ALLOW(semget),
        ALLOW(semop), ALLOW(semtimedop), ALLOW(sendfile), ALLOW(sendmmsg), ALLOW(sendmsg), ALLOW(sendto), ALLOW(setfsgid), ALLOW(setfsuid),
        ALLOW(setgid), ALLOW(setgroups), ALLOW(setitimer), ALLOW(setpgid), ALLOW(setpriority), ALLOW(setregid), ALLOW(setresgid),
        ALLOW(setresuid), ALLOW(setreuid), ALLOW(setrlimit), ALLOW(set_robust_list), ALLOW(setsid), ALLOW(setsockopt), ALLOW(set_thread_area),
        ALLOW(set_tid_address), ALLOW(setuid), ALLOW(setxattr), ALLOW(shmat), ALLOW(shmctl), ALLOW(shmdt), ALLOW(shmget), ALLOW(shutdown),
        ALLOW(sigaltstack), ALLOW(signalfd), ALLOW(signalfd4), ALLOW(socketpair), ALLOW(splice), ALLOW(stat), ALLOW(statfs), ALLOW(statx),
        ALLOW(symlink), ALLOW(symlinkat), ALLOW(sync), ALLOW(sync_file_range), ALLOW(syncfs), ALLOW(sysinfo), ALLOW(tee), ALLOW(tgkill),
        ALLOW(time), ALLOW(timer_create), ALLOW(timer_delete), ALLOW(timer_getoverrun), ALLOW(timer_gettime), ALLOW(timer_settime),
        ALLOW(timerfd_create), ALLOW(timerfd_gettime), ALLOW(timerfd_settime), ALLOW(times), ALLOW(tkill), ALLOW(truncate), ALLOW(umask),
        ALLOW(uname), ALLOW(unlink), ALLOW(unlinkat), ALLOW(utime), ALLOW(utimensat), ALLOW(utimes), ALLOW(vfork), ALLOW(vmsplice),
        ALLOW(wait4), ALLOW(waitid), ALLOW(write), ALLOW(writev), ALLOW(arch_prctl), ALLOW(modify_ldt),
        ALLOW_UNLESS(strict, ptrace), ALLOW_UNLESS(strict, process_vm_readv), ALLOW_UNLESS(strict, process_vm_writev),
        // Sockets but for virtual machines' ones.
        IS(SYS_socket, 0, 4),
        WORD(args[0]),
        IS(AF_VSOCK, 0, 1), ERROR(EPERM),
        RETURN(SECCOMP_RET_ALLOW),
        // clone(2) without namespaces.
        IS(SYS_clone, 0, 4),
        WORD(args[0]),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 0, 1), ERROR(EPERM),
        RETURN(SECCOMP_RET_ALLOW),
        IS(SYS_personality, 1, 0), ERROR(EPERM),
        WORD(args[0]),
        IS(PER_LINUX, 4, 0), IS(PER_LINUX32, 3, 0), IS(UNAME26, 2, 0), IS(PER_LINUX32 | UNAME26, 1, 0), IS(0xffffffff, 0, 1),
        RETURN(SECCOMP_RET_ALLOW),
        ERROR(EPERM),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    if (forced || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
            perror("seccomp");
            return 99;
        }
    }
    give_up_rights();
    // As the engine's own init does before it becomes the container's first program; as somebody's group leader this cannot, and need not.
    setsid();
    execvp(argv[first], argv + first);
    perror(argv[first]);
    return 98;
}
