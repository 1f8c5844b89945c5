/* What waits in pseudo-terminals, both ways: lines, parts of lines, ends of files, bytes, a full queue; and how their other end is:
 * closed, never opened, exclusive, stopped. */
#include "guest.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

struct pair {
    int master, slave;
};

static struct pair make(int raw) {
    struct pair pair = {.master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK)};
    MUST(pair.master);
    MUST(grantpt(pair.master));
    MUST(unlockpt(pair.master));
    MUST(pair.slave = open(ptsname(pair.master), O_RDWR | O_NOCTTY | O_NONBLOCK));
    struct termios set;
    MUST(tcgetattr(pair.slave, &set));
    if (raw)
        cfmakeraw(&set);
    MUST(tcsetattr(pair.slave, TCSANOW, &set));
    return pair;
}

static void put(int fd, const char *bytes, size_t len) {
    ssize_t n = write(fd, bytes, len);
    CHECK(n == (ssize_t)len, "write: %zd of %zu: %s", n, len, strerror(errno));
}

/* One read gives exactly this. */
static void expect(int fd, const char *bytes, size_t len, const char *what) {
    char got[4096];
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    CHECK(poll(&ready, 1, 10000) == 1, "%s: nothing came", what);
    ssize_t n = read(fd, got, sizeof got);
    CHECK(n == (ssize_t)len && !memcmp(got, bytes, len), "%s: %zd bytes, not %zu: %.*s", what, n, len, n > 0 ? (int)n : 0, got);
}

/* Reads give exactly this, and then nothing. */
static void expect_all(int fd, const char *bytes, size_t len, const char *what) {
    char *got = malloc(len + 1);
    size_t have = 0;
    while (have < len) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        CHECK(poll(&ready, 1, 10000) == 1, "%s: %zu of %zu came", what, have, len);
        ssize_t n = read(fd, got + have, len + 1 - have);
        CHECK(n > 0, "%s: after %zu of %zu: %s", what, have, len, strerror(errno));
        have += n;
    }
    CHECK(have == len && !memcmp(got, bytes, len), "%s: %zu of %zu bytes, other ones", what, have, len);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    CHECK(poll(&ready, 1, 0) == 0, "%s: more than that", what);
    free(got);
}

int main(void) {
    /* Lines, the end of a file in the middle, a part of a line, quoted characters; and their echo. */
    struct pair lines = make(0);
    put(lines.master, "one\ntwo\nend\004\026\004\026\n.\nha", 20);
    /* The end of a file alone. */
    struct pair eof = make(0);
    put(eof.master, "\004", 1);
    struct pair line = make(0);
    put(line.master, "a line\n", 7);
    struct pair half = make(0);
    put(half.master, "hal", 3);
    /* Every byte, and more output than the slave's end took at once. */
    char all[1024], much[32768];
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)i;
    struct pair bytes = make(1);
    put(bytes.master, all, sizeof all);
    put(bytes.slave, all, 256);
    struct pair full = make(1);
    size_t len = 0;
    for (int idle = 0; idle < 100;) {
        for (size_t i = 0; i < 100; i++)
            much[len + i] = (char)((len + i) * 7);
        ssize_t n = write(full.slave, much + len, 100);
        if (n > 0)
            len += n, idle = 0;
        else
            idle++, poll(NULL, 0, 1);
        CHECK(len < sizeof much - 100, "it is never full");
    }
    CHECK(len > 8000, "%zu bytes are all", len);
    /* Fewer than the reader wants at once. */
    struct pair few = make(1);
    struct termios set, now;
    MUST(tcgetattr(few.slave, &set));
    set.c_cc[VMIN] = 5;
    MUST(tcsetattr(few.slave, TCSANOW, &set));
    put(few.master, "abc", 3);
    int on = 1, value = 0;
    struct pair packets = make(1);
    put(packets.slave, "packet", 6);
    MUST(ioctl(packets.master, TIOCPKT, &on));
    struct pair closed = make(1);
    put(closed.slave, "last words", 10);
    put(closed.master, "too late", 8);
    close(closed.slave);
    struct pair gone = make(0);
    close(gone.slave);
    struct pair new = {.master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK)};
    MUST(unlockpt(new.master));
    MUST(tcgetattr(new.master, &set));
    cfmakeraw(&set);
    MUST(tcsetattr(new.master, TCSANOW, &set));
    put(new.master, "first", 5);
    struct pair locked = {.master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK)};
    MUST(locked.master);
    struct pair alone = make(1);
    put(alone.master, "in", 2);
    put(alone.slave, "out", 3);
    MUST(ioctl(alone.slave, TIOCEXCL));
    MUST(fchmod(alone.slave, 0666));
    struct pair stopped = make(0);
    put(stopped.slave, "before\n", 7);
    put(stopped.master, "\023", 1);
    struct pollfd stops = {.fd = stopped.slave, .events = POLLOUT};
    while (poll(&stops, 1, 0) == 1)
        poll(NULL, 0, 1);
    put(stopped.master, "x", 1);

    say("ready");
    wait_to_go();

    CHECK(!tcgetattr(lines.slave, &now) && now.c_lflag & ICANON && now.c_lflag & ECHO && now.c_cc[VEOF] == 4, "settings");
    expect(lines.slave, "one\n", 4, "the first line");
    expect(lines.slave, "two\n", 4, "the second line");
    expect(lines.slave, "end", 3, "a line without an end");
    expect(lines.slave, "\004\n.\n", 4, "a quoted line");
    struct pollfd none = {.fd = lines.slave, .events = POLLIN};
    CHECK(poll(&none, 1, 0) == 0, "a part of a line can be read");
    put(lines.master, "\177i\n", 3);
    expect(lines.slave, "hi\n", 3, "the line that was not whole");
    expect_all(lines.master, "one\r\ntwo\r\nend^\b^D^\b^J.\r\nha\b \bi\r\n", 32, "echo");
    expect(eof.slave, "", 0, "the end of a file");
    CHECK(read(eof.slave, all, 1) == -1 && errno == EAGAIN, "more behind the end");
    expect(line.slave, "a line\n", 7, "a line");
    put(half.master, "f\n", 2);
    expect(half.slave, "half\n", 5, "the second half");
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)i;
    expect_all(bytes.slave, all, sizeof all, "every byte, in");
    expect_all(bytes.master, all, 256, "every byte, out");
    expect_all(full.master, much, len, "a full queue");
    put(few.master, "de", 2);
    expect(few.slave, "abcde", 5, "as many as wanted");
    expect(packets.master, "\0packet", 7, "a packet");
    CHECK(!ioctl(packets.master, TIOCGPKT, &value) && value, "no packet mode");
    expect(closed.master, "last words", 10, "what a closed end had written");
    CHECK(read(closed.master, much, 1) == -1 && errno == EIO, "no end: %s", strerror(errno));
    MUST(closed.slave = open(ptsname(closed.master), O_RDWR | O_NOCTTY | O_NONBLOCK));
    expect(closed.slave, "too late", 8, "what was written to a closed end");
    CHECK(read(gone.master, much, 1) == -1 && errno == EIO, "the other is open again");
    struct pollfd untouched = {.fd = new.master, .events = POLLIN};
    CHECK(poll(&untouched, 1, 0) == 0, "the one that nobody opened: %x", untouched.revents);
    MUST(new.slave = open(ptsname(new.master), O_RDWR | O_NOCTTY | O_NONBLOCK));
    expect(new.slave, "first", 5, "what was written before anybody opened it");
    CHECK(open(ptsname(locked.master), O_RDWR | O_NOCTTY) == -1 && errno == EIO, "it is not locked: %s", strerror(errno));
    struct stat stat;
    CHECK(!fstat(alone.slave, &stat) && (stat.st_mode & 0777) == 0666, "mode %o", stat.st_mode);
    CHECK(!ioctl(alone.slave, TIOCGEXCL, &value) && value, "not exclusive");
    expect(alone.slave, "in", 2, "the exclusive one");
    expect(alone.master, "out", 3, "the exclusive one");
    CHECK(write(stopped.slave, "x", 1) == -1 && errno == EAGAIN, "its output is not stopped");
    put(stopped.master, "\021y\n", 3);
    expect(stopped.slave, "xy\n", 3, "the stopped one");
    put(stopped.slave, "after\n", 6);
    expect_all(stopped.master, "before\r\nxy\r\nafter\r\n", 19, "what was stopped");
    pass();
}
