/* The file mode creation mask: read back, and applied to a new file. */
#include "guest.h"

int main(void) {
    umask(0137);

    say("ready");
    wait_to_go();

    struct stat st;
    unlink("made-by-umask");
    int fd = open("made-by-umask", O_WRONLY | O_CREAT | O_EXCL, 0777);
    CHECK(fd >= 0 && !fstat(fd, &st), "open: %s", strerror(errno));
    CHECK((st.st_mode & 0777) == 0640, "a new file has mode %o, not 640", st.st_mode & 0777);
    mode_t mask = umask(0);
    CHECK(mask == 0137, "the mask is %o, was 137", mask);
    pass();
}
