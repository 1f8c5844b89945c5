/* Files with a name that are mapped and not open, and have been deleted a moment later: again and again, until it is killed. */
#include "guest.h"

/* Works for so long: a program that sleeps is saved at its sleep alone. */
static void work(long nanoseconds) {
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - start.tv_sec) * 1000000000 + now.tv_nsec - start.tv_nsec < nanoseconds);
}

/* Makes, maps and deletes a file of so many bytes. */
static void one(size_t size) {
    int fd = open("fleeting", O_RDWR | O_CREAT | O_TRUNC, 0600);
    MUST(fd);
    MUST(ftruncate(fd, (off_t)size));
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    MUST(at);
    MUST(close(fd));
    at[0] = 1;
    work(400000);
    MUST(unlink("fleeting"));
    work(400000);
    MUST(munmap(at, size));
}

int main(void) {
    say("ready");
    for (;;) one(4096);
}
