/* What all guests share: say `ready`, wait until they may go on, check, say `PASS` or `FAIL: reason`.
 *
 * A guest waits for the file named by GUEST_GO to appear (or, run by hand, for a line on standard input). A file
 * stays, so nothing is lost when it appears while the program lies in an image. Must never use a pid across the wait: a
 * restarted process has another one. */
#ifndef GUEST_H
#define GUEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

__attribute__((unused)) static void say(const char *line) {
    printf("%s\n", line);
    fflush(stdout);
}

__attribute__((unused, noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list list;
    va_start(list, format);
    printf("FAIL: ");
    vprintf(format, list);
    printf("\n");
    va_end(list);
    fflush(stdout);
    _exit(1);
}

__attribute__((unused, noreturn)) static void pass(void) {
    say("PASS");
    _exit(0);
}

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) fail(__VA_ARGS__);                                                                           \
    } while (0)

/* Set-up that must work, or the guest tells nothing about the object. */
#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if ((long)(call) == -1) fail("set-up: %s: %s", #call, strerror(errno));                                        \
    } while (0)

/* Sleeps a millisecond, or less when a signal comes. */
__attribute__((unused)) static void nap(void) {
    struct timespec millisecond = {0, 1000000};
    nanosleep(&millisecond, NULL);
}

/* A nice value that is greater by `more` than that of whoever runs the tests. */
__attribute__((unused)) static int nicer(int more) {
    errno = 0;
    int now = getpriority(PRIO_PROCESS, 0);
    if (errno) fail("set-up: getpriority: %s", strerror(errno));
    return now + more < 19 ? now + more : 19;
}

__attribute__((unused)) static int may_go(void) {
    return access(getenv("GUEST_GO"), F_OK) == 0;
}

__attribute__((unused)) static void wait_to_go(void) {
    if (getenv("GUEST_GO")) {
        while (!may_go()) nap();
        return;
    }
    char byte;
    while (read(0, &byte, 1) == 1 && byte != '\n') {
    }
}

/* A repeatable byte for each place: what lies at `index` of area `area`. */
__attribute__((unused)) static unsigned char pattern(unsigned area, size_t index) {
    uint64_t x = (uint64_t)area * 0x9e3779b97f4a7c15u + index * 0xbf58476d1ce4e5b9u;
    x ^= x >> 29;
    return (unsigned char)(x * 0x94d049bb133111ebu >> 56);
}

__attribute__((unused)) static void fill(unsigned area, void *at, size_t len) {
    for (size_t i = 0; i < len; i++) ((unsigned char *)at)[i] = pattern(area, i);
}

__attribute__((unused)) static void expect_filled(unsigned area, const void *at, size_t len) {
    for (size_t i = 0; i < len; i++) {
        unsigned char is = ((const unsigned char *)at)[i], was = pattern(area, i);
        CHECK(is == was, "area %u, byte %zu at %p: %#x, was %#x", area, i, (const void *)((const char *)at + i), is, was);
    }
}

/* Reads a whole small file (of /proc: no size is known before). */
__attribute__((unused)) static size_t slurp(const char *path, char *into, size_t room) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0, "open %s: %s", path, strerror(errno));
    size_t have = 0;
    ssize_t got;
    while ((got = read(fd, into + have, room - 1 - have)) > 0) have += (size_t)got;
    CHECK(got == 0, "read %s: %s", path, strerror(errno));
    close(fd);
    into[have] = 0;
    return have;
}

/* Writes a file anew. */
__attribute__((unused)) static void spill(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    MUST(fd);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "set-up: write %s", path);
    close(fd);
}

#endif
