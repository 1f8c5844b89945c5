/* A terminal: settings as they were, SIGWINCH after a restart, the controlling terminal, keys in raw mode. */
#include "guest.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

static volatile sig_atomic_t resized;
static void on_resize(int signal) {
    (void)signal;
    resized++;
}

int main(void) {
    CHECK(isatty(0) && isatty(1) && isatty(2), "set-up: run it on a terminal");
    signal(SIGWINCH, on_resize);
    int control = open("/dev/tty", O_RDWR | O_CLOEXEC);
    MUST(control);
    struct termios before, after;
    MUST(tcgetattr(0, &before));
    cfmakeraw(&before);
    before.c_oflag |= OPOST | ONLCR;
    before.c_cc[VINTR] = 7;
    before.c_cc[VMIN] = 1;
    before.c_cc[VTIME] = 3;
    MUST(tcsetattr(0, TCSANOW, &before));
    MUST(tcgetattr(0, &before));
    int flags = fcntl(0, F_GETFL), control_flags = fcntl(control, F_GETFL);
    struct winsize size, size_now;
    MUST(ioctl(0, TIOCGWINSZ, &size));

    say("ready");
    wait_to_go();

    CHECK(isatty(0) && isatty(1) && isatty(2) && isatty(control), "a descriptor is no terminal any more");
    MUST(tcgetattr(0, &after));
    CHECK(before.c_iflag == after.c_iflag && before.c_oflag == after.c_oflag && before.c_cflag == after.c_cflag &&
              before.c_lflag == after.c_lflag,
          "modes %x %x %x %x, were %x %x %x %x", after.c_iflag, after.c_oflag, after.c_cflag, after.c_lflag,
          before.c_iflag, before.c_oflag, before.c_cflag, before.c_lflag);
    CHECK(!memcmp(before.c_cc, after.c_cc, sizeof before.c_cc), "the control characters changed");
    CHECK(fcntl(0, F_GETFL) == flags && fcntl(control, F_GETFL) == control_flags, "flags %#x %#x, were %#x %#x",
          fcntl(0, F_GETFL), fcntl(control, F_GETFL), flags, control_flags);
    CHECK(fcntl(control, F_GETFD) == FD_CLOEXEC, "/dev/tty no longer closes on exec");
    CHECK(tcgetsid(control) == getsid(0), "/dev/tty is not the controlling terminal");
    CHECK(tcgetpgrp(0) == getpgrp(), "the process is not in the foreground");
    /* A restart stands on another terminal, of another size; its pid may be the same. */
    MUST(ioctl(0, TIOCGWINSZ, &size_now));
    if (size_now.ws_col != size.ws_col) {
        for (int i = 0; i < 5000 && !resized; i++) nap();
        CHECK(resized, "restarted, and no SIGWINCH came");
    } else {
        CHECK(!resized, "not restarted, and SIGWINCH came");
    }
    say("type k");
    char key = 0;
    for (int i = 0; i < 10000 && key != 'k'; i++) {
        struct pollfd wait = {.fd = control, .events = POLLIN};
        if (poll(&wait, 1, 1) == 1 && read(control, &key, 1) != 1) fail("read: %s", strerror(errno));
    }
    CHECK(key == 'k', "the key is %#x", key);
    pass();
}
