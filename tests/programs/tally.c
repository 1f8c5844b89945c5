/* Counts in a file that is mapped and not open (with the argument `open`: that is), and by itself: both must agree. */
#include "guest.h"

int main(int argc, char **argv) {
    (void)argv;
    int fd = open("tally", O_RDWR | O_CREAT, 0600);
    MUST(fd);
    MUST(ftruncate(fd, 4096));
    volatile unsigned *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    MUST(at);
    if (argc == 1) MUST(close(fd));
    /* Stored to before anybody saves it: what the page holds is in the image. */
    unsigned count = 1;
    *at = count;
    say("ready");
    do {
        *at = ++count;
        nap();
        CHECK(*at == count, "the file has %u, not %u", *at, count);
    } while (!may_go());
    *at = ++count;
    pass();
}
