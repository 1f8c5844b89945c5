/* Stores to a file in memory through a shared mapping, and knows in private memory what it has stored. */
#include "guest.h"

enum { PAGE = 4096 };

int main(int count, char **arguments) {
    CHECK(count == 2, "usage: stores FILE");
    int fd = open(arguments[1], O_RDWR | O_CREAT, 0600);
    MUST(fd);
    MUST(ftruncate(fd, 3 * PAGE));
    volatile char *shared = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    MUST(shared);
    static volatile char known;
    shared[PAGE] = known = 1;

    say("ready");
    wait_to_go();

    CHECK(shared[PAGE] == known, "later bytes: %d beside %d", shared[PAGE], known);
    shared[PAGE] = known = 2;
    pass();
}
