/* inotify: watches of files and directories under their numbers, once-only ones, one that was removed, and what they tell. */
#include "guest.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/inotify.h>

static int watch(int fd, const char *path, uint32_t mask) {
    int wd = inotify_add_watch(fd, path, mask);
    MUST(wd);
    return wd;
}

/* The next event must be this one. */
static void expect(int fd, int wd, uint32_t mask, const char *name) {
    static char buffer[4096];
    static char *next, *end;
    if (next == end) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        CHECK(poll(&wait, 1, 5000) == 1, "no event %#x of %d comes", mask, wd);
        ssize_t got = read(fd, buffer, sizeof buffer);
        CHECK(got > 0, "read: %s", strerror(errno));
        next = buffer;
        end = buffer + got;
    }
    struct inotify_event *event = (struct inotify_event *)next;
    next += sizeof *event + event->len;
    const char *told = event->len ? event->name : "";
    CHECK(event->wd == wd && event->mask == mask && strcmp(told, name) == 0, "event %#x of %d, \"%s\", instead of %#x of %d, \"%s\"",
          event->mask, event->wd, told, mask, wd, name);
}

static void quiet(int fd) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    if (poll(&wait, 1, 0) == 0) return;
    struct {
        struct inotify_event event;
        char name[256];
    } one;
    CHECK(read(fd, &one, sizeof one) > 0, "read: %s", strerror(errno));
    fail("event %#x of %d, \"%s\"", one.event.mask, one.event.wd, one.event.len ? one.event.name : "");
}

int main(void) {
    mkdir("watched", 0755);
    mkdir("watched/deeper", 0755);
    spill("watched/file", "text");
    spill("watched/once", "text");
    spill("other", "text");
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), plain = inotify_init1(0);
    MUST(fd);
    MUST(plain);
    int dir = watch(fd, "watched", IN_CREATE | IN_DELETE | IN_ONLYDIR);
    int gone = watch(fd, "other", IN_MODIFY);
    int file = watch(fd, "watched/file", IN_MODIFY | IN_ATTRIB);
    int once = watch(fd, "watched/once", IN_MODIFY | IN_ONESHOT);
    int deep = watch(plain, "watched/deeper", IN_MOVED_TO | IN_EXCL_UNLINK);
    MUST(inotify_rm_watch(fd, gone));
    for (int i = 0; i < 100; i++) MUST(inotify_rm_watch(fd, watch(fd, "other", IN_MODIFY)));
    int late = watch(fd, "other", IN_MODIFY);
    /* Not IN_ATTRIB: another test may link or unlink the same file. */
    int own = watch(fd, "/proc/self/exe", IN_MODIFY);
    /* What all that has told. */
    char buffer[8192];
    while (read(fd, buffer, sizeof buffer) > 0) {
    }
    /* Directories that lie about where the last one is looked for, and tell of all that is done with them. */
    int alert = inotify_init1(IN_NONBLOCK);
    MUST(alert);
    MUST(mkdir("beyond", 0755));
    MUST(mkdir("beyond/far", 0755));
    for (int i = 0; i < 8; i++) {
        char name[20];
        snprintf(name, sizeof name, "alert%d", i);
        MUST(mkdir(name, 0755));
        strcat(name, "/in");
        MUST(mkdir(name, 0755));
        name[6] = 0;
        watch(alert, name, IN_ALL_EVENTS);
    }
    int far = watch(alert, "beyond/far", IN_CREATE);
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 3};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    int flags = fcntl(fd, F_GETFL), also = fcntl(fd, F_DUPFD, 77);
    MUST(also);

    say("ready");
    wait_to_go();

    CHECK(fcntl(fd, F_GETFL) == flags && fcntl(fd, F_GETFD) == FD_CLOEXEC, "flags %#x", fcntl(fd, F_GETFL));
    CHECK(fcntl(plain, F_GETFL) == O_RDONLY && fcntl(plain, F_GETFD) == 0, "flags of the other");
    quiet(fd);
    quiet(plain);
    quiet(alert);
    spill("watched/new", "text");
    CHECK(epoll_wait(epoll, &event, 1, 5000) == 1 && event.data.u32 == 3, "epoll does not see it");
    expect(also, dir, IN_CREATE, "new");
    int text = open("watched/file", O_WRONLY);
    MUST(text);
    CHECK(write(text, "x", 1) == 1, "write");
    expect(fd, file, IN_MODIFY, "");
    text = open("watched/once", O_WRONLY);
    MUST(text);
    CHECK(write(text, "x", 1) == 1 && write(text, "y", 1) == 1, "write");
    expect(fd, once, IN_MODIFY, "");
    expect(fd, once, IN_IGNORED, "");
    text = open("other", O_WRONLY);
    MUST(text);
    CHECK(write(text, "x", 1) == 1, "write");
    expect(fd, late, IN_MODIFY, "");
    MUST(rename("watched/new", "watched/deeper/moved"));
    expect(plain, deep, IN_MOVED_TO, "moved");
    CHECK(inotify_rm_watch(fd, own) == 0, "the program itself is not watched: %s", strerror(errno));
    expect(fd, own, IN_IGNORED, "");
    quiet(fd);
    spill("beyond/far/new", "text");
    expect(alert, far, IN_CREATE, "new");
    CHECK(inotify_add_watch(fd, "watched/deeper", IN_ATTRIB) > own, "numbers of watches come twice");
    pass();
}
