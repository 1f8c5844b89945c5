/* Clocks that begin anew with each boot never go back, wherever the program goes on; what it keeps of them, as runtimes do for their timers,
 * comes due. Prints the hours that they stand at in the end. */
#include "guest.h"

static struct timespec now(clockid_t clock) {
    struct timespec t;
    MUST(clock_gettime(clock, &t));
    return t;
}

static int earlier(struct timespec a, struct timespec b) {
    return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

int main(void) {
    static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME};
    struct timespec last[2] = {now(clocks[0]), now(clocks[1])};
    uid_t user = geteuid();
    gid_t group = getegid();
    pid_t pid = getpid();
    say("ready");
    while (!may_go()) {
        for (int i = 0; i < 2; i++) {
            struct timespec t = now(clocks[i]);
            CHECK(!earlier(t, last[i]), "clock %d went back from %ld to %ld seconds", (int)clocks[i], (long)last[i].tv_sec, (long)t.tv_sec);
            last[i] = t;
        }
        if (getpid() != pid) {
            pid = getpid();
            say("again");
        }
        nap();
    }
    CHECK(geteuid() == user && getegid() == group, "user %d and group %d were %d and %d", geteuid(), getegid(), user, group);
    int fd = open("uptime.txt", O_CREAT | O_WRONLY | O_TRUNC, 0600);
    struct stat made;
    CHECK(fd >= 0 && !fstat(fd, &made) && made.st_uid == user && made.st_gid == group, "a file of its own is of user %d", made.st_uid);
    printf("hours %ld %ld\n", (long)now(clocks[0]).tv_sec / 3600, (long)now(clocks[1]).tv_sec / 3600);
    pass();
}
