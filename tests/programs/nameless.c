/* What has no name any more keeps its owner, mode and time: files, FIFOs, pipes, device nodes. And a memfd can be executed, as long as
 * nobody but its maker has it open for writing. */
#include "guest.h"

#include <sys/sysmacros.h>
#include <sys/wait.h>

enum { USER = 1234, GROUP = 4321, MOST = 8 };

static struct {
    const char *what;
    int fd;
    struct stat stat;
} seen[MOST];
static int count;

/* A file of another user's, where this one may make some, and of a time of its own. */
static int see(const char *what, int fd, int mode) {
    MUST(fd);
    if (geteuid() == 0) MUST(fchown(fd, USER, GROUP));
    MUST(fchmod(fd, (mode_t)mode));
    struct timespec times[] = {{100, 0}, {123456, 789}};
    MUST(futimens(fd, times));
    seen[count].what = what;
    seen[count].fd = fd;
    MUST(fstat(fd, &seen[count++].stat));
    return fd;
}

/* A program that ends with 0. */
static int program(void) {
    int from = open("/bin/true", O_RDONLY | O_CLOEXEC), memfd = memfd_create("program", 0);
    MUST(from);
    MUST(memfd);
    char bytes[4096];
    for (ssize_t got; (got = read(from, bytes, sizeof bytes)) > 0;) CHECK(write(memfd, bytes, (size_t)got) == got, "set-up: write");
    close(from);
    return memfd;
}

static void executes(const char *when, int memfd) {
    pid_t pid = fork();
    MUST(pid);
    if (pid == 0) {
        char *arguments[] = {"true", NULL};
        fexecve(memfd, arguments, environ);
        _exit(errno == ETXTBSY ? 26 : 99);
    }
    int status;
    MUST(waitpid(pid, &status, 0));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: the memfd is not executed: status %#x", when, status);
}

static void login(const char *when, char *into, size_t room) {
    int fd = open("/proc/self/loginuid", O_RDONLY | O_CLOEXEC);
    into[0] = 0;
    if (fd < 0) return;
    ssize_t got = read(fd, into, room - 1);
    CHECK(got >= 0, "%s: loginuid: %s", when, strerror(errno));
    into[got] = 0;
    close(fd);
}

int main(void) {
    int deleted = open("deleted", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    MUST(deleted);
    CHECK(write(deleted, "deleted", 7) == 7, "set-up: write");
    MUST(unlink("deleted"));
    see("deleted file", deleted, 04751);
    int memfd = program();
    see("memfd", memfd, 0755);
    char *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    MUST((long)mapped);
    executes("set-up", memfd);
    MUST(mkfifo("fifo", 0600));
    int fifo = open("fifo", O_RDWR | O_CLOEXEC), ends[2];
    MUST(fifo);
    MUST(unlink("fifo"));
    see("FIFO", fifo, 0622);
    MUST(pipe2(ends, O_CLOEXEC));
    see("pipe", ends[0], 0640);
    if (mknod("null", S_IFCHR | 0600, makedev(1, 3)) == 0) {
        int node = open("null", O_RDWR | O_CLOEXEC);
        MUST(node);
        MUST(unlink("null"));
        see("device node", node, 0660);
    }
    char own[16], before[16], after[16];
    login("set-up", before, sizeof before);
    if (!strcmp(before, "4294967295")) {
        snprintf(own, sizeof own, "%u", getuid());
        int fd = open("/proc/self/loginuid", O_WRONLY | O_CLOEXEC);
        if (fd >= 0 && write(fd, own, strlen(own)) < 0) perror("loginuid");
        close(fd);
    }
    login("set-up", before, sizeof before);

    say("ready");
    wait_to_go();

    for (int i = 0; i < count; i++) {
        struct stat now, *was = &seen[i].stat;
        const char *what = seen[i].what;
        MUST(fstat(seen[i].fd, &now));
        CHECK(now.st_uid == was->st_uid && now.st_gid == was->st_gid, "%s: owner %u:%u, was %u:%u", what, now.st_uid, now.st_gid, was->st_uid, was->st_gid);
        CHECK(now.st_mode == was->st_mode, "%s: mode %o, was %o", what, now.st_mode, was->st_mode);
        if (S_ISREG(now.st_mode))
            CHECK(now.st_mtim.tv_sec == 123456 && now.st_mtim.tv_nsec == 789, "%s: time %ld.%ld", what, now.st_mtim.tv_sec, now.st_mtim.tv_nsec);
        if (S_ISCHR(now.st_mode)) CHECK(now.st_nlink == 0 && now.st_rdev == makedev(1, 3), "%s: another one", what);
    }
    executes("afterwards", memfd);
    mapped[0] ^= 0;
    login("afterwards", after, sizeof after);
    CHECK(!strcmp(before, after), "loginuid '%s', was '%s'", after, before);
    pass();
}
