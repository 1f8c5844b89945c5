/* Pipes whose two ends are inside the process: contents, sizes, flags, packets, several numbers for an end, an end that is
 * closed, and how they go on working. */
#include "guest.h"

#include <poll.h>
#include <sys/ioctl.h>

enum { BIG = 300000, WHOLE = 16 * 4096 };

static unsigned char room[1 << 20];

static void make(int ends[2], int flags) { MUST(pipe2(ends, flags)); }

static void put(int fd, unsigned area, size_t len) {
    fill(area, room, len);
    CHECK(write(fd, room, len) == (ssize_t)len, "set-up: write of %zu: %s", len, strerror(errno));
}

static void take(int fd, unsigned area, size_t len) {
    for (size_t have = 0; have < len;) {
        ssize_t got = read(fd, room + have, len - have);
        CHECK(got > 0, "area %u: read: %zd, %s", area, got, strerror(errno));
        have += (size_t)got;
    }
    expect_filled(area, room, len);
}

static int holds(int fd) {
    int bytes;
    CHECK(!ioctl(fd, FIONREAD, &bytes), "FIONREAD: %s", strerror(errno));
    return bytes;
}

int main(void) {
    int wake[2], stream[2], full[2], big[2], packets[2], one[2], end_of_file[2], broken[2], standard[2];
    make(wake, O_NONBLOCK | O_CLOEXEC);
    make(stream, 0);
    put(stream[1], 1, 700);
    put(stream[1], 2, 5000);
    int reader = dup(stream[0]), writer = fcntl(stream[1], F_DUPFD_CLOEXEC, 90);
    MUST(reader);
    MUST(writer);
    MUST(fcntl(stream[1], F_SETFL, O_NONBLOCK)); /* one end alone */
    make(full, O_NONBLOCK);
    put(full[1], 3, WHOLE);
    make(big, 0);
    CHECK(fcntl(big[1], F_SETPIPE_SZ, 1 << 19) == 1 << 19, "set-up: F_SETPIPE_SZ: %s", strerror(errno));
    put(big[1], 4, BIG);
    make(packets, O_DIRECT | O_NONBLOCK);
    put(packets[1], 5, 100);
    put(packets[1], 6, 1);
    put(packets[1], 7, 4096);
    put(packets[1], 8, 1);
    make(one, O_DIRECT);
    put(one[1], 9, 1);
    make(end_of_file, 0);
    put(end_of_file[1], 10, 999);
    close(end_of_file[1]);
    make(broken, 0);
    close(broken[0]);
    /* A harness that reads its own standard error. */
    make(standard, 0);
    int old = dup(2);
    MUST(old);
    MUST(dup2(standard[1], 2));
    close(standard[1]);
    fprintf(stderr, "before");
    fflush(stderr);
    int size = fcntl(stream[0], F_GETPIPE_SZ), flags[2][4] = {
        {fcntl(wake[0], F_GETFL), fcntl(stream[0], F_GETFL), fcntl(stream[1], F_GETFL), fcntl(packets[1], F_GETFL)}};

    say("ready");
    wait_to_go();

    int is[4] = {fcntl(wake[0], F_GETFL), fcntl(stream[0], F_GETFL), fcntl(stream[1], F_GETFL), fcntl(packets[1], F_GETFL)};
    for (int i = 0; i < 4; i++) CHECK(is[i] == flags[0][i], "flags of end %d: %#x, were %#x", i, is[i], flags[0][i]);
    CHECK(fcntl(wake[1], F_GETFD) == FD_CLOEXEC && fcntl(stream[1], F_GETFD) == 0 && fcntl(writer, F_GETFD) == FD_CLOEXEC,
          "close-on-exec");
    CHECK(fcntl(big[0], F_GETPIPE_SZ) == 1 << 19 && fcntl(stream[0], F_GETPIPE_SZ) == size, "sizes");

    CHECK(read(wake[0], room, 1) == -1 && errno == EAGAIN, "wake: not empty");
    CHECK(write(wake[1], "x", 1) == 1 && read(wake[0], room, 9) == 1 && room[0] == 'x', "wake: does not wake");

    CHECK(holds(stream[0]) == 5700, "stream: %d bytes", holds(stream[0]));
    take(reader, 1, 700);
    take(stream[0], 2, 5000);
    put(writer, 11, 50);
    take(reader, 11, 50);
    close(stream[1]);
    put(writer, 12, 10);
    close(writer);
    take(stream[0], 12, 10);
    CHECK(read(stream[0], room, 1) == 0, "stream: no end though all writers are closed");

    CHECK(write(full[1], "y", 1) == -1 && errno == EAGAIN, "full: takes more");
    take(full[0], 3, WHOLE);
    take(big[0], 4, BIG);

    static const size_t sizes[] = {100, 1, 4096, 1};
    for (unsigned i = 0; i < 4; i++) {
        ssize_t got = read(packets[0], room, sizeof room);
        CHECK(got == (ssize_t)sizes[i], "packet %u: %zd bytes", i, got);
        expect_filled(5 + i, room, sizes[i]);
    }
    put(packets[1], 13, 30);
    put(packets[1], 14, 30);
    CHECK(read(packets[0], room, 10) == 10 && read(packets[0], room, 60) == 30, "no packets any more");
    put(one[1], 15, 5);
    CHECK(read(one[0], room, 60) == 1 && read(one[0], room, 60) == 5, "one: no packets any more");

    take(end_of_file[0], 10, 999);
    CHECK(read(end_of_file[0], room, 1) == 0, "no end of file");
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(broken[1], "z", 1) == -1 && errno == EPIPE, "broken: takes bytes");

    fprintf(stderr, "after");
    fflush(stderr);
    CHECK(read(standard[0], room, 60) == 11 && !memcmp(room, "beforeafter", 11), "the harness does not read its own");
    MUST(dup2(old, 2));
    pass();
}
