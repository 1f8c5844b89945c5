/* A child's own files of /proc, one under two numbers, and what stands for a namespace that both are in: each leads to its own process. */
#include "guest.h"

#include <sys/prctl.h>

static int tells(int fd, pid_t pid) {
    char text[64] = "";
    return pread(fd, text, sizeof text - 1, 0) > 0 && atoi(text) == pid;
}

int main(void) {
    int said[2], own = open("/proc/self/stat", O_RDONLY), net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    char byte;
    MUST(own);
    MUST(net);
    MUST(pipe(said));
    pid_t child = fork();
    MUST(child);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int inner = open("/proc/self/stat", O_RDONLY), again = dup(inner), user = open("/proc/self/ns/user", O_RDONLY);
        struct stat is, was;
        MUST(inner);
        MUST(again);
        MUST(user);
        char digit;
        MUST(read(inner, &digit, 1));
        (void)!write(said[1], "r", 1);
        while (!may_go()) nap();
        byte = 'g';
        if (!tells(inner, getpid()) || !tells(again, getpid())) byte = 'o';
        if (!tells(own, getppid())) byte = 'p';
        if (lseek(inner, 0, SEEK_CUR) != 1 || lseek(again, 0, SEEK_CUR) != 1) byte = 's';
        if (fstat(user, &is) || stat("/proc/self/ns/user", &was) || is.st_ino != was.st_ino) byte = 'u';
        (void)!write(said[1], &byte, 1);
        for (;;) pause();
    }
    CHECK(read(said[0], &byte, 1) == 1 && byte == 'r', "set-up: the child");

    say("ready");
    wait_to_go();

    struct stat is, was;
    CHECK(tells(own, getpid()), "the parent's own file is another process's");
    MUST(fstat(net, &is));
    MUST(stat("/proc/self/ns/net", &was));
    CHECK(is.st_ino == was.st_ino && is.st_dev == was.st_dev, "another namespace");
    CHECK(fcntl(net, F_GETFD) == FD_CLOEXEC, "flags");
    CHECK(read(said[0], &byte, 1) == 1 && byte == 'g', "the child says %c", byte);
    kill(child, SIGKILL);
    pass();
}
