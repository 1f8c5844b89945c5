/* Ends of pipes that were opened again by way of another one, as shells do: each with flags of its own, on what the pipe holds; the first
 * end may be closed by the program later, and the last one of all ends the pipe. */
#include "guest.h"

static int again(int fd, int flags) {
    char path[32];
    snprintf(path, sizeof path, "/dev/fd/%d", fd);
    int opened = open(path, flags);
    CHECK(opened >= 0, "set-up: %s: %s", path, strerror(errno));
    return opened;
}

static void take(int fd, const char *expected) {
    char got[64] = "";
    ssize_t len = read(fd, got, sizeof got - 1);
    CHECK(len == (ssize_t)strlen(expected) && !strcmp(got, expected), "descriptor %d: '%s' (%zd, %s), expected '%s'", fd, got, len,
          len < 0 ? strerror(errno) : "", expected);
}

static void put(int fd, const char *text) {
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "descriptor %d: write: %s", fd, strerror(errno));
}

int main(void) {
    int pipes[3][2];
    for (int i = 0; i < 3; i++) MUST(pipe(pipes[i]));
    /* bash: the first number is lower than that of the end it was opened from. */
    int high = fcntl(pipes[0][1], F_DUPFD, 63);
    MUST(high);
    close(pipes[0][1]);
    int writer = again(high, O_WRONLY | O_APPEND), shared = dup(writer), reader = again(pipes[0][0], O_RDONLY | O_NONBLOCK);
    put(writer, "left");
    /* Nobody writes but who does both. */
    int both = again(pipes[1][0], O_RDWR);
    close(pipes[1][1]);
    put(both, "own");
    /* A reader of what nobody writes any more. */
    int second = again(pipes[2][0], O_RDONLY);
    put(pipes[2][1], "last");
    close(pipes[2][1]);
    int flags[] = {fcntl(writer, F_GETFL), fcntl(reader, F_GETFL), fcntl(both, F_GETFL), fcntl(high, F_GETFL)};

    say("ready");
    wait_to_go();

    int is[] = {fcntl(writer, F_GETFL), fcntl(reader, F_GETFL), fcntl(both, F_GETFL), fcntl(high, F_GETFL)};
    for (int i = 0; i < 4; i++) CHECK(is[i] == flags[i], "flags %d: %#x, were %#x", i, is[i], flags[i]);
    take(reader, "left");
    MUST(fcntl(shared, F_SETFL, O_NONBLOCK));
    CHECK(fcntl(writer, F_GETFL) & O_NONBLOCK && !(fcntl(high, F_GETFL) & O_NONBLOCK), "not the descriptions that were");
    put(shared, "by a copy");
    take(pipes[0][0], "by a copy");
    close(high);
    close(shared);
    put(writer, "alone");
    take(reader, "alone");
    close(writer);
    take(pipes[0][0], "");
    take(pipes[1][0], "own");
    put(both, "both");
    take(both, "both");
    close(both);
    take(pipes[1][0], "");
    take(second, "last");
    take(pipes[2][0], "");
    pass();
}
