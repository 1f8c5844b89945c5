/* Children of a guest, which tell it by a pipe how they are: "ok", or F and what is wrong. */
#ifndef CHILD_H
#define CHILD_H

#include "guest.h"

/* Where a child answers. */
static int answer_fd;

__attribute__((noreturn, format(printf, 2, 3))) static void child_fails(const char *who, const char *format, ...) {
    char line[9000];
    int at = snprintf(line, sizeof line, "F%s: ", who);
    va_list list;
    va_start(list, format);
    vsnprintf(line + at, sizeof line - (size_t)at, format, list);
    va_end(list);
    (void)!write(answer_fd, line, strlen(line) + 1);
    _exit(99);
}

#define CHILD_CHECK(who, condition, ...)                                                                               \
    do {                                                                                                               \
        if (!(condition)) child_fails(who, __VA_ARGS__);                                                               \
    } while (0)

static void answers(void) {
    (void)!write(answer_fd, "ok", 3);
}

#endif
