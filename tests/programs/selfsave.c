/* Uses the C interface: the special branch first in main, a save in the middle, a hook that runs after a restart.
 *
 * usage: selfsave IMAGE   first run: counts to 3, saves, says `saved`, ends with 3
 *                         second run: restarts from IMAGE, the hook says so, counts on to 6, PASS */
#include "ckpt.h"
#include "guest.h"

static int sum;

static void redraw(void *text) {
    printf("hook: %s at %d\n", (char *)text, sum);
    fflush(stdout);
}

int main(int argc, char **argv) {
    CHECK(argc == 2, "usage: selfsave IMAGE");
    int there = ckpt_restart_if_saved(argv[1]);
    CHECK(there == 0, "ckpt_restart_if_saved: %d, %s", there, strerror(errno));
    static char text[] = "redrawn";
    MUST(ckpt_at_restart(redraw, text));
    int key = pkey_alloc(0, PKEY_DISABLE_WRITE); /* none on many CPUs */
    for (int i = 1; i <= 6; i++) {
        sum += i;
        printf("step %d\n", i);
        fflush(stdout);
        if (i != 3) continue;
        errno = 4711;
        int got = ckpt_save(argv[1]);
        CHECK(got >= 0, "ckpt_save: %s", strerror(errno));
        CHECK(errno == 4711, "ckpt_save changed errno to %d", errno);
        if (got == 0) {
            say("saved");
            return 3;
        }
        CHECK(got == 1, "ckpt_save: %d", got);
        say("restarted");
    }
    CHECK(key < 0 || pkey_get(key) == PKEY_DISABLE_WRITE, "rights by key %d: %d", key, pkey_get(key));
    CHECK(sum == 21, "the sum is %d", sum);
    CHECK(ckpt_save("/no/such/directory/image") == -1 && errno == ENOENT, "a save into nowhere: errno %d", errno);
    pass();
}
