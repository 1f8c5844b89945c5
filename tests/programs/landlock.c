/* A process that has restricted itself (Landlock), or, with an argument, one that has not: what it may do is in no image, and said when it
 * is saved. */
#include "guest.h"

#include <linux/landlock.h>
#include <sys/prctl.h>

int main(int argc, char **argv) {
    (void)argv;
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (argc == 1 && abi > 0) {
        struct landlock_ruleset_attr rules = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_BLOCK};
        int fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
        MUST(fd);
        MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        MUST(syscall(SYS_landlock_restrict_self, fd, 0));
        close(fd);
    }
    say(abi > 0 ? "ready" : "unknown");
    wait_to_go();
    pass();
}
