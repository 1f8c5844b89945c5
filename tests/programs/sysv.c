/* System V shared memory: comes back as memory of the process's own, attached as often as before. */
#include "guest.h"

#include <sys/shm.h>

enum { PAGE = 4096 };

int main(void) {
    int id = shmget(IPC_PRIVATE, 5 * PAGE + 1, IPC_CREAT | 0600);
    MUST(id);
    char *one = shmat(id, NULL, 0), *two = shmat(id, NULL, SHM_RDONLY);
    MUST(one);
    MUST(two);
    MUST(shmctl(id, IPC_RMID, NULL)); /* goes with its last attachment */
    fill(1, one, 2 * PAGE);
    fill(2, one + 5 * PAGE, PAGE);

    say("ready");
    wait_to_go();

    expect_filled(1, one, 2 * PAGE);
    expect_filled(2, two + 5 * PAGE, PAGE);
    for (int i = 0; i < 3 * PAGE; i++) CHECK(!one[2 * PAGE + i], "not zero");
    one[3] = 'x';
    CHECK(two[3] == 'x', "attached twice: no longer the same");
    CHECK(mprotect(two, PAGE, PROT_READ | PROT_WRITE) == -1, "the read-only attachment becomes writable");
    pass();
}
