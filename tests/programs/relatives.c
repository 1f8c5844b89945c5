/* Sockets between the processes of a tree: made in any way, with nobody left who listens; a socket whose file lies in its process's own
 * directory; a client that waits for another process; what a child has left behind; a descriptor under way from one to the other. */
#include "guest.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static struct sockaddr_un path(const char *name) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    strcpy(at.sun_path, name);
    return at;
}

static int listens(const char *name, int backlog) {
    struct sockaddr_un at = path(name);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(fd);
    MUST(bind(fd, (struct sockaddr *)&at, sizeof at));
    MUST(listen(fd, backlog));
    return fd;
}

static int joined(const char *name) {
    struct sockaddr_un at = path(name);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(fd);
    MUST(connect(fd, (struct sockaddr *)&at, sizeof at));
    return fd;
}

static void get(const char *what, int fd, const char *text) {
    char have[100];
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    CHECK(poll(&wait, 1, 10000) == 1, "%s: nothing comes", what);
    ssize_t got = recv(fd, have, sizeof have, MSG_DONTWAIT);
    CHECK(got == (ssize_t)strlen(text) && !memcmp(have, text, (size_t)got), "%s: %zd bytes (%.*s) instead of \"%s\": %s", what, got, got > 0 ? (int)got : 0,
          have, text, got < 0 ? strerror(errno) : "");
}

/* Answers each byte, upper-case, on all of these, until the first ends. */
static _Noreturn void echo(const int *fds, int count) {
    struct pollfd wait[8];
    for (int i = 0; i < count; i++) wait[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    for (;;) {
        if (poll(wait, (nfds_t)count, -1) < 0) continue;
        for (int i = 0; i < count; i++) {
            char bytes[100];
            if (!wait[i].revents) continue;
            ssize_t got = recv(fds[i], bytes, sizeof bytes, MSG_DONTWAIT);
            if (got <= 0) _exit(i == 0 ? 0 : 1);
            for (ssize_t j = 0; j < got; j++) bytes[j] = (char)(bytes[j] - 'a' + 'A');
            if (send(fds[i], bytes, (size_t)got, MSG_NOSIGNAL) != got) _exit(2);
        }
    }
}

static void talks(const char *what, int fd) {
    CHECK(send(fd, "hello", 5, MSG_NOSIGNAL) == 5, "%s: %s", what, strerror(errno));
    get(what, fd, "HELLO");
}

static pid_t begin(void) {
    pid_t pid = fork();
    MUST(pid);
    if (pid == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

int main(void) {
    int pair[2], packets[2], ready[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets));
    MUST(pipe(ready));
    int one = 1, tcp = socket(AF_INET, SOCK_STREAM, 0), gone = listens("gone.sock", 3), bytes;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    MUST(setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    MUST(bind(tcp, (struct sockaddr *)&at, sizeof at));
    MUST(listen(tcp, 3));
    MUST(getsockname(tcp, (struct sockaddr *)&at, &len));
    MUST(mkdir("below", 0777));
    /* A child with one side of each, and a listener of its own, in its own directory. */
    pid_t child = begin();
    if (child == 0) {
        int fds[5] = {pair[1], packets[1], socket(AF_INET, SOCK_STREAM, 0), joined("gone.sock"), -1};
        close(pair[0]);
        close(packets[0]);
        MUST(connect(fds[2], (struct sockaddr *)&at, sizeof at));
        close(tcp);
        close(gone);
        MUST(chdir("below"));
        int own = listens("own.sock", 5);
        (void)!write(ready[1], "r", 1);
        MUST(fds[4] = accept(own, NULL, NULL));
        (void)!write(ready[1], "r", 1);
        /* The next one waits until all have gone on. */
        while (!may_go()) {
            struct pollfd wait[4];
            for (int i = 0; i < 4; i++) wait[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
            if (poll(wait, 4, 1) > 0) break;
        }
        int late = accept(own, NULL, NULL);
        MUST(late);
        int all[6] = {fds[0], fds[1], fds[2], fds[3], fds[4], late};
        echo(all, 6);
    }
    close(pair[1]);
    close(packets[1]);
    int accepted = accept(tcp, NULL, NULL), named = accept(gone, NULL, NULL);
    MUST(accepted);
    MUST(named);
    char byte;
    CHECK(read(ready[0], &byte, 1) == 1, "set-up: the child");
    int first = joined("below/own.sock");
    CHECK(read(ready[0], &byte, 1) == 1, "set-up: the child");
    int second = joined("below/own.sock");
    MUST(unlink("gone.sock"));
    close(gone);
    /* A child that has ended, or has closed: what it left waits here. */
    int left = socket(AF_INET, SOCK_STREAM, 0), way[2];
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, way));
    pid_t other = begin();
    if (other == 0) {
        close(pair[0]);
        MUST(connect(left, (struct sockaddr *)&at, sizeof at));
        CHECK(send(left, "farewell", 8, 0) == 8, "set-up: farewell");
        close(left);
        spill("given", "from the child");
        int given = open("given", O_RDONLY);
        char control[CMSG_SPACE(sizeof(int))] = {0};
        struct iovec part = {"file", 4};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        *head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(head), &given, sizeof given);
        CHECK(sendmsg(way[1], &message, 0) == 4, "set-up: %s", strerror(errno));
        close(given);
        (void)!write(ready[1], "r", 1);
        for (;;) pause();
    }
    close(left);
    close(way[1]);
    int orphan = accept(tcp, NULL, NULL);
    MUST(orphan);
    CHECK(read(ready[0], &byte, 1) == 1, "set-up: the other child");
    close(tcp);

    say("ready");
    wait_to_go();

    talks("pair", pair[0]);
    talks("packets", packets[0]);
    talks("TCP", accepted);
    talks("a listener that is gone", named);
    talks("accepted by the child", first);
    talks("waited for the child", second);
    int third = joined("below/own.sock");
    close(third);
    struct stat stat_;
    CHECK(stat("own.sock", &stat_) == -1, "the child's socket lies in the wrong directory");
    get("what the child left", orphan, "farewell");
    CHECK(recv(orphan, &byte, 1, MSG_DONTWAIT) == 0, "what the child left: no end");
    char control[CMSG_SPACE(sizeof(int))], text[20];
    struct iovec part = {text, sizeof text};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK(recvmsg(way[0], &message, MSG_DONTWAIT) == 4, "under way: %s", strerror(errno));
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    CHECK(head && head->cmsg_type == SCM_RIGHTS, "under way: no descriptor");
    memcpy(&bytes, CMSG_DATA(head), sizeof bytes);
    CHECK(read(bytes, text, sizeof text) == 14 && !memcmp(text, "from the child", 14), "under way: another file");
    close(pair[0]);
    int status;
    MUST(waitpid(child, &status, 0));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child: %#x", status);
    MUST(kill(other, SIGKILL));
    MUST(waitpid(other, &status, 0));
    pass();
}
