/* Resource limits: all of them as they were, soft ones lowered and one hard one too; and they bite. */
#include "guest.h"

#include <sys/resource.h>

static void lower(int resource, rlim_t soft, rlim_t hard) {
    struct rlimit limit;
    MUST(getrlimit(resource, &limit));
    if (hard < limit.rlim_max) limit.rlim_max = hard;
    limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
    MUST(setrlimit(resource, &limit));
}

int main(void) {
    lower(RLIMIT_NOFILE, 100, RLIM_INFINITY);
    lower(RLIMIT_CORE, 0, RLIM_INFINITY);
    lower(RLIMIT_STACK, 5 << 20, RLIM_INFINITY);
    lower(RLIMIT_FSIZE, 1 << 30, RLIM_INFINITY);
    lower(RLIMIT_CPU, 5000, 100000);
    lower(RLIMIT_AS, (rlim_t)8 << 30, RLIM_INFINITY);
    lower(RLIMIT_MEMLOCK, 4096 * 3, RLIM_INFINITY);
    lower(RLIMIT_SIGPENDING, 50, RLIM_INFINITY);
    struct rlimit before[RLIM_NLIMITS], after[RLIM_NLIMITS];
    for (int i = 0; i < (int)RLIM_NLIMITS; i++) MUST(getrlimit(i, &before[i]));

    say("ready");
    wait_to_go();

    for (int i = 0; i < (int)RLIM_NLIMITS; i++) {
        MUST(getrlimit(i, &after[i]));
        CHECK(before[i].rlim_cur == after[i].rlim_cur && before[i].rlim_max == after[i].rlim_max,
              "limit %d is %lu/%lu, was %lu/%lu", i, (unsigned long)after[i].rlim_cur, (unsigned long)after[i].rlim_max,
              (unsigned long)before[i].rlim_cur, (unsigned long)before[i].rlim_max);
    }
    CHECK(dup2(1, 100) == -1 && errno == EBADF, "RLIMIT_NOFILE does not bite");
    CHECK(dup2(1, 99) == 99, "RLIMIT_NOFILE bites too early: %s", strerror(errno));
    pass();
}
