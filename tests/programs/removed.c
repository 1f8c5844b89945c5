/* Directories that were removed: the working directory, open ones, and one whose parent is gone, too. Nothing of them has a name again. */
#include "guest.h"

#include <dirent.h>
#include <limits.h>

static void expect_removed(int fd, int lists, const char *when) {
    _Alignas(8) char buffer[256];
    struct stat stat;
    CHECK(!fstat(fd, &stat) && S_ISDIR(stat.st_mode), "%s, descriptor %d: no directory", when, fd);
    errno = 0;
    if (lists)
        CHECK(syscall(SYS_getdents64, fd, buffer, sizeof buffer) == -1 && errno == ENOENT, "%s, descriptor %d lists: %s", when, fd,
              strerror(errno));
    errno = 0;
    CHECK(openat(fd, "new", O_WRONLY | O_CREAT, 0600) == -1 && errno == ENOENT, "%s, descriptor %d takes a file: %s", when, fd,
          strerror(errno));
}

int main(void) {
    static char here[PATH_MAX], found[PATH_MAX];
    CHECK(getcwd(here, sizeof here), "set-up: getcwd");
    int home = open(".", O_RDONLY | O_DIRECTORY);
    MUST(home);
    MUST(mkdir("outer", 0755));
    MUST(mkdir("outer/inner", 0755));
    MUST(mkdir("gone", 0755));
    int listed = open("outer/inner", O_RDONLY | O_DIRECTORY | O_CLOEXEC), path = open("gone", O_PATH | O_DIRECTORY);
    MUST(listed);
    MUST(path);
    MUST(chdir("gone"));
    MUST(unlinkat(home, "gone", AT_REMOVEDIR));
    MUST(unlinkat(home, "outer/inner", AT_REMOVEDIR));
    MUST(unlinkat(home, "outer", AT_REMOVEDIR));
    expect_removed(listed, 1, "set-up");

    say("ready");
    wait_to_go();

    expect_removed(listed, 1, "later");
    expect_removed(path, 0, "later");
    CHECK(fcntl(listed, F_GETFD) == FD_CLOEXEC && fcntl(path, F_GETFL) & O_PATH, "flags");
    errno = 0;
    CHECK(!getcwd(found, sizeof found) && errno == ENOENT, "the working directory is %s", found);
    errno = 0;
    CHECK(open("new", O_WRONLY | O_CREAT, 0600) == -1 && errno == ENOENT, "the working directory takes a file: %s", strerror(errno));
    CHECK(faccessat(home, "gone", F_OK, 0) == -1 && faccessat(home, "outer", F_OK, 0) == -1, "a name is back");
    MUST(fchdir(home));
    DIR *all = opendir(".");
    CHECK(all, "opendir: %s", strerror(errno));
    for (struct dirent *one; (one = readdir(all));) CHECK(strncmp(one->d_name, ".ckpt-", 6), "left behind: %s", one->d_name);
    pass();
}
