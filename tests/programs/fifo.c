/* FIFOs with both ends inside the process: what they hold, who holds which end, flags. */
#include "guest.h"

#include <sys/ioctl.h>

enum { MANY = 10000 };

int main(void) {
    MUST(mkfifo("both", 0600));
    MUST(mkfifo("ends", 0600));
    MUST(mkfifo("empty", 0600));
    int both = open("both", O_RDWR | O_CLOEXEC), reader = open("ends", O_RDONLY | O_NONBLOCK);
    int writer = open("ends", O_WRONLY), again = open("ends", O_WRONLY | O_NONBLOCK | O_APPEND), twin = dup(reader);
    int empty = open("empty", O_RDWR | O_NONBLOCK);
    MUST(empty);
    static char bytes[MANY];
    fill(1, bytes, MANY);
    CHECK(write(both, bytes, MANY) == MANY && write(writer, "through", 7) == 7, "set-up: write: %s", strerror(errno));
    int flags[] = {fcntl(both, F_GETFL), fcntl(reader, F_GETFL), fcntl(writer, F_GETFL), fcntl(again, F_GETFL)};

    say("ready");
    wait_to_go();

    int fds[] = {both, reader, writer, again};
    for (int i = 0; i < 4; i++) CHECK(fcntl(fds[i], F_GETFL) == flags[i], "end %d: flags %#x, were %#x", i, fcntl(fds[i], F_GETFL), flags[i]);
    CHECK(fcntl(both, F_GETFD) == FD_CLOEXEC && fcntl(reader, F_GETFD) == 0, "close-on-exec changed");
    int held = -1;
    CHECK(!ioctl(both, FIONREAD, &held) && held == MANY, "it holds %d bytes", held);
    CHECK(read(both, bytes, MANY) == MANY, "both: %s", strerror(errno));
    expect_filled(1, bytes, MANY);
    CHECK(read(twin, bytes, 100) == 7 && !memcmp(bytes, "through", 7), "ends: other bytes");
    CHECK(read(reader, bytes, 1) == -1 && errno == EAGAIN, "ends: more bytes");
    CHECK(write(again, "x", 1) == 1 && read(reader, bytes, 1) == 1 && *bytes == 'x', "ends: no longer one pipe");
    CHECK(read(empty, bytes, 1) == -1 && errno == EAGAIN, "empty: it is not");
    CHECK(write(empty, "y", 1) == 1 && read(empty, bytes, 1) == 1, "empty: not one pipe");
    close(writer);
    close(again);
    CHECK(read(reader, bytes, 1) == 0, "ends: somebody still writes");
    struct stat stat;
    CHECK(!fstat(both, &stat) && S_ISFIFO(stat.st_mode) && stat.st_nlink == 1, "both: no FIFO with a name");
    pass();
}
