/* Files with a name, on a disk and in memory, that are written through shared mappings: they stay the program's, and others see it. */
#include "guest.h"

enum { PAGE = 4096, PAGES = 70 };

static char *map(const char *path, size_t len, int *fd) {
    *fd = open(path, O_RDWR | O_CREAT, 0600);
    MUST(*fd);
    MUST(ftruncate(*fd, len));
    char *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    MUST(at);
    return at;
}

/* What the file has, as others read it. */
static void expect_in_file(int fd, unsigned seed, const char *at, size_t len) {
    char *copy = malloc(len), *want = malloc(len);
    CHECK(pread(fd, copy, len, 0) == (ssize_t)len, "the file is short");
    fill(seed, want, len);
    CHECK(!memcmp(copy, want, len), "the file has other bytes");
    CHECK(!memcmp(at, want, len), "the mapping has other bytes");
    free(copy);
    free(want);
}

int main(void) {
    char path[64];
    snprintf(path, sizeof path, "/dev/shm/ckpt-guest-%d", (int)getpid());
    int disk, memory, small, sparse;
    /* The last page is not whole: what lies behind the end is in no file. */
    size_t len = PAGES * PAGE - 100;
    char *on_disk = map("mapped", len, &disk), *in_memory = map(path, len, &memory);
    char *little = map("little", 10, &small), *holes = map("holes", 1l << 40, &sparse);
    MUST(link("mapped", "mapped too"));
    fill(1, on_disk, len);
    fill(2, in_memory, len);
    fill(3, little, 10);
    on_disk[len] = in_memory[len] = 9;
    holes[5l << 30] = 5;
    munmap(in_memory + 3 * PAGE, PAGE);

    say("ready");
    wait_to_go();

    char *again = mmap(in_memory + 3 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, memory, 3 * PAGE);
    MUST(again);
    expect_in_file(disk, 1, on_disk, len);
    expect_in_file(memory, 2, in_memory, len);
    expect_in_file(small, 3, little, 10);
    CHECK(holes[5l << 30] == 5, "holes: other bytes");
    struct stat stat;
    CHECK(!fstat(sparse, &stat) && stat.st_blocks < 1000, "holes: filled");
    /* Still shared: a store is seen in the file. */
    on_disk[7] ^= 1, in_memory[7] ^= 1;
    char byte = 0;
    CHECK(pread(disk, &byte, 1, 7) == 1 && byte == on_disk[7], "disk: not shared any more");
    CHECK(pread(memory, &byte, 1, 7) == 1 && byte == in_memory[7], "memory: not shared any more");
    MUST(unlink(path));
    pass();
}
