/* Descriptors: which numbers are open, which of them share an open file, which close on exec. */
#include "guest.h"

#include <dirent.h>
#include <linux/kcmp.h>

enum { TOP = 600 };

/* One letter for each number: '.' closed, 'o' open, 'c' open and closing on exec. */
static void survey(char *table) {
    for (int fd = 0; fd < TOP; fd++) {
        int flags = fcntl(fd, F_GETFD);
        table[fd] = flags < 0 ? '.' : flags & FD_CLOEXEC ? 'c' : 'o';
    }
    table[TOP] = 0;
}

static int same_file(int a, int b) {
    return syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, a, b) == 0;
}

static off_t where(int fd) {
    return lseek(fd, 0, SEEK_CUR);
}

int main(void) {
    static char before[TOP + 1], after[TOP + 1];
    spill("numbers", "0123456789");
    int first = open("numbers", O_RDWR);
    MUST(first);
    int shared = dup2(first, 77);
    int high = fcntl(first, F_DUPFD_CLOEXEC, 500);
    int own = open("numbers", O_RDWR | O_CLOEXEC);
    MUST(shared);
    MUST(high);
    MUST(own);
    MUST(lseek(first, 3, SEEK_SET));
    MUST(lseek(own, 7, SEEK_SET));
    int out = dup(1);
    MUST(out);
    survey(before);

    say("ready");
    wait_to_go();

    survey(after);
    for (int fd = 0; fd < TOP; fd++)
        CHECK(before[fd] == after[fd], "descriptor %d is '%c', was '%c' ('.' closed, 'o' open, 'c' closes on exec)", fd,
              after[fd], before[fd]);
    CHECK(where(first) == 3 && where(shared) == 3 && where(high) == 3, "the shared offset is %ld, %ld, %ld, was 3",
          (long)where(first), (long)where(shared), (long)where(high));
    CHECK(where(own) == 7, "the own offset is %ld, was 7", (long)where(own));
    char byte = 0;
    CHECK(read(high, &byte, 1) == 1 && byte == '3', "read through the highest number gave %#x", byte);
    CHECK(where(first) == 4 && where(shared) == 4, "the offset is no longer shared");
    CHECK(where(own) == 7, "the offset is shared with one that had its own");
    CHECK(same_file(first, shared) && same_file(first, high), "kcmp: dup'ed descriptors are not one file");
    CHECK(!same_file(first, own), "kcmp: two open calls became one file");
    CHECK(same_file(out, 1), "kcmp: the dup of standard output is another file");
    pass();
}
