/* FIFOs and pipes of which something is gone: one side or the other, the ends that made them, the name. What was left in them is read, and
 * who waits sees what it would have seen. */
#include "guest.h"

#include <poll.h>

static int opened(const char *path, int flags) {
    int fd = open(path, flags);
    CHECK(fd >= 0, "set-up: open %s: %s", path, strerror(errno));
    return fd;
}

static int fifo(const char *path, int mode) {
    MUST(mkfifo(path, mode));
    return opened(path, O_RDWR);
}

static int again(int fd, int flags) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, flags);
}

static void put(int fd, const char *text) {
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s: write: %s", text, strerror(errno));
}

/* What is read next: "" at the end, "?" when nothing is there yet. */
static void take(int fd, const char *expected) {
    char got[64] = "";
    ssize_t len = read(fd, got, sizeof got - 1);
    if (len < 0) snprintf(got, sizeof got, "%s", errno == EAGAIN ? "?" : strerror(errno));
    CHECK(!strcmp(got, expected), "descriptor %d: '%s', expected '%s'", fd, got, expected);
}

static int told(int fd) {
    struct pollfd one = {fd, POLLIN | POLLOUT, 0};
    CHECK(poll(&one, 1, 0) >= 0, "poll: %s", strerror(errno));
    return one.revents;
}

enum { MOST = 32 };

static int watched[MOST], was[MOST], flags[MOST], modes[MOST], count;

static int watch(int fd) {
    CHECK(count < MOST, "set-up: too many");
    watched[count++] = fd;
    return fd;
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    /* A writer that has gone: what it left, then the end; told so who was there, and not who came later. */
    int both = fifo("left", 0600), left = watch(opened("left", O_RDONLY)), twin = dup(left);
    put(both, "left by a writer");
    close(both);
    int late = watch(opened("left", O_RDONLY | O_NONBLOCK));
    /* Nobody has ever written. */
    MUST(mkfifo("quiet", 0600));
    int quiet = watch(opened("quiet", O_RDONLY | O_NONBLOCK));
    /* A writer that was there and left nothing. */
    both = fifo("heard", 0600);
    int heard = watch(opened("heard", O_RDONLY | O_NONBLOCK));
    close(both);
    /* A reader that has gone; and what it did not read. */
    both = fifo("broken", 0600);
    int broken = watch(opened("broken", O_WRONLY | O_NONBLOCK));
    close(both);
    both = fifo("unread", 0600);
    int unread = watch(opened("unread", O_WRONLY));
    put(unread, "unread");
    close(both);
    /* No name any more. */
    int loose = watch(fifo("loose", 0640));
    put(loose, "loose");
    MUST(unlink("loose"));
    both = fifo("ends", 0600);
    int reader = watch(opened("ends", O_RDONLY | O_NONBLOCK)), writer = watch(opened("ends", O_WRONLY | O_APPEND));
    close(both);
    put(writer, "through");
    MUST(unlink("ends"));
    both = fifo("rest", 0600);
    int rest = watch(opened("rest", O_RDONLY));
    put(both, "rest");
    close(both);
    MUST(unlink("rest"));
    MUST(mkfifo("never", 0600));
    int never = watch(opened("never", O_RDONLY | O_NONBLOCK));
    MUST(unlink("never"));
    both = fifo("lost", 0600);
    int lost = watch(opened("lost", O_WRONLY));
    put(lost, "lost");
    close(both);
    MUST(unlink("lost"));
    /* Pipes whose own ends are closed. */
    int pipes[5][2];
    for (int i = 0; i < 5; i++) MUST(pipe(pipes[i]));
    int alone = watch(again(pipes[0][0], O_RDWR));
    put(alone, "alone");
    close(pipes[0][0]);
    close(pipes[0][1]);
    int second = watch(again(pipes[1][0], O_RDONLY | O_NONBLOCK));
    put(pipes[1][1], "second");
    close(pipes[1][0]);
    close(pipes[1][1]);
    int wasted = watch(pipes[2][1]);
    put(wasted, "wasted");
    close(pipes[2][0]);
    int third = watch(again(pipes[3][1], O_WRONLY));
    close(pipes[3][1]);
    watch(pipes[3][0]);
    MUST(fchmod(pipes[4][0], 0622));
    watch(pipes[4][0]);
    watch(pipes[4][1]);
    for (int i = 0; i < count; i++) {
        struct stat stat;
        MUST(fstat(watched[i], &stat));
        was[i] = told(watched[i]);
        flags[i] = fcntl(watched[i], F_GETFL);
        modes[i] = (int)stat.st_mode;
    }

    say("ready");
    wait_to_go();

    for (int i = 0; i < count; i++) {
        struct stat stat;
        MUST(fstat(watched[i], &stat));
        CHECK(told(watched[i]) == was[i], "descriptor %d: told %#x, was %#x", watched[i], told(watched[i]), was[i]);
        CHECK(fcntl(watched[i], F_GETFL) == flags[i], "descriptor %d: flags %#x, were %#x", watched[i], fcntl(watched[i], F_GETFL), flags[i]);
        CHECK((int)stat.st_mode == modes[i], "descriptor %d: mode %o, was %o", watched[i], stat.st_mode, modes[i]);
    }
    take(twin, "left by a writer");
    take(left, "");
    take(late, "");
    take(quiet, "");
    take(heard, "");
    int now = opened("quiet", O_WRONLY);
    put(now, "heard of");
    take(quiet, "heard of");
    take(quiet, "?");
    CHECK(write(broken, "x", 1) == -1 && errno == EPIPE, "broken: takes bytes");
    take(opened("unread", O_RDONLY | O_NONBLOCK), "unread");
    take(loose, "loose");
    put(loose, "again");
    take(loose, "again");
    take(reader, "through");
    take(reader, "?");
    put(writer, "more");
    take(reader, "more");
    close(writer);
    take(reader, "");
    take(rest, "rest");
    take(rest, "");
    take(never, "");
    take(again(lost, O_RDONLY | O_NONBLOCK), "lost");
    take(alone, "alone");
    put(alone, "still");
    take(alone, "still");
    take(second, "second");
    take(second, "");
    take(again(wasted, O_RDONLY | O_NONBLOCK), "wasted");
    put(third, "third");
    close(third);
    take(pipes[3][0], "third");
    take(pipes[3][0], "");
    pass();
}
