/* System V shared memory: comes back as attachments, which shmdt(2) knows, with all bytes. Marked for removal it needs no id;
 * `kept`: it has its key, id, mode and owner again. */
#include "guest.h"

#include <errno.h>
#include <sys/shm.h>

enum { PAGE = 4096 };

int main(int argc, char **argv) {
    int kept = argc > 1;
    key_t key = kept ? (key_t)strtol(argv[1], NULL, 0) : IPC_PRIVATE;
    int id = shmget(key, 5 * PAGE + 1, IPC_CREAT | IPC_EXCL | 0640);
    MUST(id);
    char *one = shmat(id, NULL, 0), *two = shmat(id, NULL, SHM_RDONLY), *three = shmat(id, NULL, 0);
    MUST(one);
    MUST(two);
    MUST(three);
    if (!kept) MUST(shmctl(id, IPC_RMID, NULL)); /* goes with its last attachment */
    fill(1, one, 2 * PAGE);
    fill(2, one + 5 * PAGE, PAGE);
    MUST(mprotect(three + PAGE, PAGE, PROT_NONE)); /* one attachment, three mappings */

    say("ready");
    wait_to_go();

    expect_filled(1, one, 2 * PAGE);
    expect_filled(2, two + 5 * PAGE, PAGE);
    for (int i = 0; i < 3 * PAGE; i++) CHECK(!one[2 * PAGE + i], "not zero");
    one[3] = 'x';
    CHECK(two[3] == 'x' && three[3] == 'x', "attached twice: no longer the same");
    CHECK(mprotect(two, PAGE, PROT_READ | PROT_WRITE) == -1, "the read-only attachment becomes writable");
    struct shmid_ds ds;
    if (kept) {
        CHECK(shmget(key, 0, 0) == id, "another id under the key");
        MUST(shmctl(id, IPC_STAT, &ds));
        CHECK(ds.shm_perm.__key == key && ds.shm_segsz == 5 * PAGE + 1, "another segment");
        CHECK((ds.shm_perm.mode & 07777) == 0640, "mode %o", ds.shm_perm.mode);
        CHECK(ds.shm_perm.uid == geteuid() && ds.shm_perm.cuid == geteuid(), "owner");
        CHECK(ds.shm_nattch == 5, "%lu attachments", (unsigned long)ds.shm_nattch);
        char *four = shmat(id, NULL, 0);
        MUST(four);
        CHECK(four[3] == 'x', "attached once more: another segment");
        MUST(shmdt(four));
    }
    if (kept || getenv("ATTACHED")) {
        CHECK(shmdt(one + PAGE) == -1 && errno == EINVAL, "shmdt in the middle");
        MUST(shmdt(one));
        MUST(shmdt(three)); /* all three parts */
        CHECK(mprotect(three + 2 * PAGE, PAGE, PROT_READ) == -1, "a part stays");
        if (kept) {
            MUST(shmctl(id, IPC_STAT, &ds));
            CHECK(ds.shm_nattch == 1, "%lu attachments stay", (unsigned long)ds.shm_nattch);
            MUST(shmctl(id, IPC_RMID, NULL));
        }
        CHECK(two[3] == 'x', "the last attachment");
        MUST(shmdt(two));
        CHECK(shmctl(id, IPC_STAT, &ds) == -1, "it did not end with its last attachment");
    }
    pass();
}
