/* Pseudo-terminals with both ends in the process: settings, size, modes, and that they lead to each other. */
#include "guest.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

static int make(int *slave, int flags) {
    int master = posix_openpt(O_RDWR | O_NOCTTY | flags);
    MUST(master);
    MUST(grantpt(master));
    MUST(unlockpt(master));
    *slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    MUST(*slave);
    return master;
}

static void expect_through(int from, int to, const char *text) {
    char got[64] = "";
    CHECK(write(from, text, strlen(text)) == (ssize_t)strlen(text), "write: %s", strerror(errno));
    struct pollfd ready = {.fd = to, .events = POLLIN};
    CHECK(poll(&ready, 1, 10000) == 1, "nothing came");
    ssize_t n = read(to, got, sizeof got - 1);
    CHECK(n == (ssize_t)strlen(text) && !memcmp(got, text, n), "%zd bytes: %s", n, got);
}

int main(void) {
    int cooked, raw, again, plain = make(&cooked, O_NONBLOCK), master = make(&raw, 0);
    MUST(again = open(ptsname(master), O_WRONLY | O_NOCTTY));
    struct winsize size = {33, 77, 5, 6}, got;
    MUST(ioctl(master, TIOCSWINSZ, &size));
    struct termios set, now;
    MUST(tcgetattr(raw, &set));
    cfmakeraw(&set);
    set.c_cc[VMIN] = 3;
    MUST(tcsetattr(raw, TCSANOW, &set));
    int on = 1, value = 0;
    MUST(ioctl(plain, TIOCPKT, &on));
    MUST(ioctl(plain, TIOCSPTLCK, &on));
    expect_through(again, master, "before");
    int copy = dup(master);
    /* As terminal emulators give it to what they start: opened so that it closes on exec, by its master, then copied. */
    int peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC), kept = dup(peer);
    MUST(kept);

    say("ready");
    wait_to_go();

    CHECK(isatty(raw) && isatty(cooked), "no terminals");
    CHECK(!ioctl(raw, TIOCGWINSZ, &got) && !memcmp(&got, &size, sizeof size), "size %d x %d", got.ws_row, got.ws_col);
    CHECK(!tcgetattr(raw, &now) && now.c_lflag == set.c_lflag && now.c_oflag == set.c_oflag && now.c_cc[VMIN] == 3, "settings");
    CHECK(!tcgetattr(cooked, &now) && now.c_lflag & ICANON, "the other's settings");
    CHECK(!ioctl(plain, TIOCGPKT, &value) && value, "packets: %d", value);
    CHECK(!ioctl(plain, TIOCGPTLCK, &value) && value, "lock: %d", value);
    CHECK(!ioctl(master, TIOCGPTLCK, &value) && !value, "lock of the other: %d", value);
    CHECK(fcntl(plain, F_GETFL) & O_NONBLOCK && !(fcntl(master, F_GETFL) & O_NONBLOCK), "flags");
    struct stat by_name, by_number;
    CHECK(!stat(ptsname(master), &by_name) && !fstat(raw, &by_number) && by_name.st_rdev == by_number.st_rdev, "another slave");
    expect_through(raw, master, "out");
    expect_through(again, copy, "out again");
    expect_through(copy, raw, "in to it");
    expect_through(plain, cooked, "a line\n");
    CHECK(fcntl(peer, F_GETFD) == FD_CLOEXEC && !fcntl(kept, F_GETFD) && !fcntl(raw, F_GETFD), "close-on-exec changed");
    close(raw), close(again), close(peer), close(kept);
    struct pollfd end = {.fd = master, .events = POLLIN};
    CHECK(poll(&end, 1, 10000) == 1 && end.revents & POLLHUP, "no end when the slave is closed");
    pass();
}
