/* Every second page of a large mapping, so that the image needs more segments than an ELF header can count.
 *
 * usage: manysegs [MIB]   600 MiB by default: 76,800 runs of one page */
#include "guest.h"

int main(int argc, char **argv) {
    size_t len = (argc > 1 ? strtoul(argv[1], NULL, 10) : 600) << 20;
    char *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MUST(at);
    madvise(at, len, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < len; i += 8192) *(size_t *)(at + i) = i ^ 0x5555;

    say("ready");
    wait_to_go();

    unsigned char *there = calloc(1, len / 4096);
    CHECK(there && !mincore(at, len, there), "mincore: %s", strerror(errno));
    size_t untouched = 0;
    for (size_t i = 4096; i < len; i += 8192) untouched += !(there[i / 4096] & 1);
    CHECK(untouched >= len / 8192 - 16, "of %zu untouched pages only %zu still are", len / 8192, untouched);
    for (size_t i = 0; i < len; i += 8192)
        CHECK(*(size_t *)(at + i) == (i ^ 0x5555) && *(size_t *)(at + i + 4096) == 0, "page %zu", i / 4096);
    pass();
}
