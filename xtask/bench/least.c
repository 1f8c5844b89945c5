/* The least pause that a tracer can leave a process of MIB MiB in which copies itself and is left without a child: stop it, read what is gone
 * when it runs again (registers, extended state, mask, /proc/PID/status, three descriptors), let a middle process (CLONE_VM) make the
 * copy and end, give the registers back. For each line on standard input: such a pause, and its nanoseconds. What a saver needs besides (an unknown
 * program, memory for its calls, timers, pending signals) comes on top of it. x86-64. */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* clone(CLONE_VM | CLONE_FILES); the middle one: clone(0), exit; the copy: pause; the process: wait4(middle, __WCLONE). */
extern char copying[];
__asm__("copying: mov $56, %eax; mov $0x500, %edi; xor %esi, %esi; xor %edx, %edx; xor %r10d, %r10d; xor %r8d, %r8d; syscall\n"
        "test %eax, %eax; jz 1f\n"
        "mov %eax, %edi; mov $0x80000000, %edx; mov $61, %eax; syscall; int3\n"
        "1: mov $56, %eax; xor %edi, %edi; syscall\n"
        "test %eax, %eax; jz 2f\n"
        "mov $60, %eax; xor %edi, %edi; syscall\n"
        "2: mov $34, %eax; syscall; jmp 2b\n");

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int stop_of(pid_t pid) {
    int status;
    return waitpid(pid, &status, __WALL) == pid ? status : -1;
}

static void read_of(pid_t pid, const char *name) {
    static char bytes[8192];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, bytes, sizeof bytes) < 0) perror(path);
    close(fd);
}

static long long once(pid_t pid) {
    static char state[1 << 15];
    struct user_regs_struct registers, aimed;
    struct iovec area = {state, sizeof state};
    uint64_t mask;
    unsigned long middle = 0, copy = 0;
    ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACECLONE);
    long long start = now();
    ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
    stop_of(pid);
    ptrace(PTRACE_GETREGS, pid, NULL, &registers);
    ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &area);
    ptrace(PTRACE_GETSIGMASK, pid, sizeof mask, &mask);
    read_of(pid, "status");
    read_of(pid, "fdinfo/0");
    read_of(pid, "fdinfo/1");
    read_of(pid, "fdinfo/2");
    aimed = registers;
    aimed.rip = (uintptr_t)copying;
    aimed.orig_rax = -1;
    ptrace(PTRACE_SETREGS, pid, NULL, &aimed);
    ptrace(PTRACE_CONT, pid, NULL, NULL);
    stop_of(pid);
    ptrace(PTRACE_GETEVENTMSG, pid, NULL, &middle);
    stop_of(middle);
    ptrace(PTRACE_CONT, middle, NULL, NULL);
    stop_of(middle);
    ptrace(PTRACE_GETEVENTMSG, middle, NULL, &copy);
    ptrace(PTRACE_CONT, middle, NULL, NULL);
    stop_of(middle);
    ptrace(PTRACE_CONT, pid, NULL, NULL);
    int last = stop_of(pid);
    ptrace(PTRACE_SETREGS, pid, NULL, &registers);
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    long long took = now() - start;
    if (!copy || !WIFSTOPPED(last) || WSTOPSIG(last) != SIGTRAP) {
        fprintf(stderr, "no copy was made: status %#x\n", last);
        exit(1);
    }
    kill(copy, SIGKILL);
    while (!WIFSIGNALED(stop_of(copy))) {}
    return took;
}

int main(int count, char **arguments) {
    size_t bytes = (size_t)(count > 1 ? atol(arguments[1]) : 1) << 20;
    int ready[2];
    if (pipe(ready)) return perror("pipe"), 1;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        uint64_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return perror("mmap"), 1;
        madvise(memory, bytes, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < bytes / 8; i += 512) memory[i] = i;
        if (write(ready[1], "", 1) != 1) return 1;
        for (;;) pause();
    }
    char line[16];
    if (read(ready[0], line, 1) != 1) return 1;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("%lld\n", once(pid));
        fflush(stdout);
    }
    kill(pid, SIGKILL);
    return 0;
}
