/* Files on a file system of layers (or any other), which hold their own names: opened below and copied up since, created above, renamed,
 * deleted while they are open or mapped. It is meant to run from there, too. */
#include "guest.h"

static int opened(const char *name, int flags) {
    int fd = open(name, flags | O_CLOEXEC);
    CHECK(fd >= 0, "set-up: open %s: %s", name, strerror(errno));
    return fd;
}

static void reads(int fd, const char *text) {
    char buffer[64] = "";
    ssize_t got = read(fd, buffer, strlen(text));
    CHECK(got == (ssize_t)strlen(text) && memcmp(buffer, text, (size_t)got) == 0, "\"%s\" instead of \"%s\"", buffer, text);
}

static void writes(int fd, const char *text) {
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "write: %s", strerror(errno));
}

static char *mapped(int fd, int protection, int flags) {
    char *at = mmap(NULL, 4096, protection, flags, fd, 0);
    CHECK(at != MAP_FAILED, "set-up: mmap: %s", strerror(errno));
    return at;
}

int main(void) {
    int below = opened("below", O_RDONLY), both = opened("copied", O_RDONLY), copied = opened("copied", O_RDWR);
    int gone = opened("gone", O_RDONLY), gone_copied = opened("gone-copied", O_RDWR), gone_mapped = opened("gone-mapped", O_RDONLY);
    int renamed = opened("old", O_RDWR), directory = opened(".", O_DIRECTORY), above = opened("above", O_RDWR | O_CREAT | O_APPEND);
    int mapping = opened("mapped", O_RDWR), private = opened("private", O_RDONLY);
    MUST(fchmod(above, 0644));
    writes(above, "first ");
    writes(copied, "COP");
    reads(both, "COP");
    reads(below, "bel");
    reads(gone, "go");
    writes(gone_copied, "GONE");
    char *shared = mapped(mapping, PROT_READ | PROT_WRITE, MAP_SHARED), *own = mapped(private, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    char *both_ways = mapped(gone_copied, PROT_READ | PROT_WRITE, MAP_SHARED);
    char *last = mapped(gone_mapped, PROT_READ, MAP_SHARED);
    memcpy(shared, "MAP", 3);
    memcpy(own, "own", 3);
    MUST(close(mapping));
    MUST(close(private));
    MUST(close(gone_mapped));
    MUST(unlink("gone"));
    MUST(unlink("gone-copied"));
    MUST(unlink("gone-mapped"));
    MUST(rename("old", "new"));

    say("ready");
    wait_to_go();

    reads(below, "ow");
    reads(both, "ied");
    writes(copied, "IED");
    reads(gone, "ne");
    memcpy(both_ways + 5, "COP", 3);
    reads(gone_copied, "-COPied");
    CHECK(pwrite(gone_copied, "x", 1, 0) == 1 && *both_ways == 'x', "a deleted file and its mapping are two");
    CHECK(pwrite(renamed, "O", 1, 0) == 1, "pwrite: %s", strerror(errno));
    writes(above, "second");
    CHECK(memcmp(own, "own", 3) == 0 && strcmp(own + 3, "vate") == 0, "private: %s", own);
    CHECK(strcmp(last, "gone-mapped") == 0, "gone-mapped: %s", last);
    memcpy(shared + 3, "PED", 3);
    const char *const all[][2] = {{"copied", "COPIED"}, {"new", "Old"}, {"above", "first second"}, {"mapped", "MAPPED"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char text[64];
        int fd = openat(directory, all[i][0], O_RDONLY);
        CHECK(fd >= 0, "open %s: %s", all[i][0], strerror(errno));
        ssize_t got = read(fd, text, sizeof text - 1);
        text[got > 0 ? got : 0] = 0;
        CHECK(strcmp(text, all[i][1]) == 0, "%s holds \"%s\"", all[i][0], text);
        close(fd);
    }
    CHECK(faccessat(directory, "gone", F_OK, 0) == -1 && faccessat(directory, "old", F_OK, 0) == -1, "old names are there");
    pass();
}
