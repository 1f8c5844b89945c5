/* Counts: a static variable, each number printed and appended to a file. The small program of the benchmarks.
 *
 * usage: counter [LAST [FILE [MILLISECONDS [HELD]]]]   without LAST it counts for ever; behind the number HELD it waits until it may go on */
#include "guest.h"

static unsigned long count;

int main(int argc, char **argv) {
    unsigned long last = argc > 1 ? strtoul(argv[1], NULL, 10) : ~0ul;
    int file = argc > 2 ? open(argv[2], O_WRONLY | O_CREAT | O_APPEND, 0644) : -1;
    long pause = argc > 3 ? atol(argv[3]) : 100;
    unsigned long held = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
    if (argc > 2) MUST(file);
    while (count < last) {
        char line[32];
        int len = snprintf(line, sizeof line, "count %lu\n", ++count);
        if (file >= 0) CHECK(write(file, line, (size_t)len) == len, "%s: %s", argv[2], strerror(errno));
        CHECK(write(1, line, (size_t)len) == len, "standard output: %s", strerror(errno));
        for (long i = 0; i < pause || (count == held && !may_go()); i++) nap();
    }
    pass();
}
