/* The working directory: an absolute path with blanks, and relative names that still lead there. */
#include "guest.h"

#include <limits.h>

int main(void) {
    if (mkdir("a directory", 0755) && errno != EEXIST) fail("set-up: mkdir: %s", strerror(errno));
    MUST(chdir("a directory"));
    if (mkdir("deeper\\012", 0755) && errno != EEXIST) fail("set-up: mkdir: %s", strerror(errno));
    MUST(chdir("deeper\\012"));
    spill("here", "yes");
    static char before[PATH_MAX], after[PATH_MAX];
    CHECK(getcwd(before, sizeof before), "set-up: getcwd");
    struct stat was, is;
    MUST(stat(".", &was));

    say("ready");
    wait_to_go();

    CHECK(getcwd(after, sizeof after), "getcwd: %s", strerror(errno));
    CHECK(!strcmp(before, after), "the directory is %s, was %s", after, before);
    CHECK(!stat(".", &is) && is.st_ino == was.st_ino && is.st_dev == was.st_dev, "'.' is another inode");
    char text[8];
    slurp("here", text, sizeof text);
    CHECK(!strcmp(text, "yes"), "a relative name leads to '%s'", text);
    pass();
}
