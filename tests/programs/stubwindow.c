/* Occupies a window of addresses: start and length in hex. */
#include "guest.h"

int main(int argc, char **argv) {
    CHECK(argc == 3, "usage: stubwindow START LENGTH");
    char *start = (char *)strtoul(argv[1], NULL, 16);
    size_t len = strtoul(argv[2], NULL, 16);
    char *at = mmap(start, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(at == start, "set-up: mmap at %p: %s", (void *)start, strerror(errno));
    fill(1, at, len);
    MUST(mprotect(at, len / 2 & -4096ul, PROT_READ));

    say("ready");
    wait_to_go();

    expect_filled(1, at, len);
    pass();
}
