/* mlockall(MCL_FUTURE): what is mapped later is locked, too; with MCL_ONFAULT page by page, when it is touched. */
#include "guest.h"

enum { PAGE = 4096 };

/* How a new mapping is: its flags in smaps. */
static void expect_locked(const char *flag) {
    char *at = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), line[4096], head[64];
    MUST(at);
    MUST(mprotect(at + PAGE, PAGE, PROT_READ)); /* a mapping of its own */
    snprintf(head, sizeof head, "%lx-", (long)at + PAGE);
    FILE *smaps = fopen("/proc/self/smaps", "r");
    int found = 0, seen = 0;
    while (fgets(line, sizeof line, smaps)) {
        if (!strncmp(line, head, strlen(head))) seen = 1;
        if (seen && !strncmp(line, "VmFlags:", 8)) {
            found = !!strstr(line, " lo ");
            CHECK(!!strstr(line, " lf") == !strcmp(flag, "onfault"), "%s: %s", flag, line);
            break;
        }
    }
    CHECK(seen && found, "%s: what is mapped now is not locked", flag);
    fclose(smaps);
    munmap(at, 3 * PAGE);
}

int main(int count, char **arguments) {
    const char *flag = count > 1 ? arguments[1] : "onfault";
    char *early = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(early);
    MUST(mlock(early, PAGE));
    MUST(mlockall(strcmp(flag, "onfault") ? MCL_FUTURE : MCL_FUTURE | MCL_ONFAULT));
    expect_locked(flag);

    say("ready");
    wait_to_go();

    expect_locked(flag);
    MUST(munlockall());
    pass();
}
