/* What a process sets for itself by prctl(2), personality(2), membarrier(2) and files of its own in /proc. */
#include "guest.h"

#include <linux/membarrier.h>
#include <sys/personality.h>
#include <sys/prctl.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

struct facts {
    int keep_caps, securebits, subreaper, privileges, huge_pages, write_or_execute, merge, personality, tsc;
    int barriers[3], registered;
    char oom[32], filter[32];
};

static void read_file(const char *path, char *to) {
    FILE *f = fopen(path, "r");
    if (!f || !fgets(to, 32, f)) fail("%s: %s", path, strerror(errno));
    fclose(f);
}

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f)) fail("set-up: %s: %s", path, strerror(errno));
}

static void read_facts(struct facts *f) {
    memset(f, 0, sizeof *f);
    f->keep_caps = prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0);
    f->securebits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);
    MUST(prctl(PR_GET_CHILD_SUBREAPER, &f->subreaper, 0, 0, 0));
    f->privileges = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    f->huge_pages = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
    f->write_or_execute = prctl(PR_GET_MDWE, 0, 0, 0, 0);
    f->merge = prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0);
    MUST(f->personality = personality(0xffffffff));
    MUST(prctl(PR_GET_TSC, &f->tsc, 0, 0, 0));
    /* The barriers of membarrier(2) are for who has registered; all registrations are told from Linux 6.3 on. */
    for (int i = 0; i < 3; i++) f->barriers[i] = (int)syscall(SYS_membarrier, 1 << (3 + 2 * i), 0, 0);
    f->registered = (int)syscall(SYS_membarrier, 1 << 9, 0, 0);
    read_file("/proc/self/oom_score_adj", f->oom);
    read_file("/proc/self/coredump_filter", f->filter);
}

int main(void) {
    MUST(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    /* Except where they are asked for: Linux 6.18. */
    if (prctl(PR_SET_THP_DISABLE, 1, 2, 0, 0)) MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    MUST(personality(ADDR_NO_RANDOMIZE | SHORT_INODE));
    MUST(prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0));
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
    prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0);
    prctl(PR_SET_MDWE, 1, 0, 0, 0);
    write_file("/proc/self/oom_score_adj", "321");
    write_file("/proc/self/coredump_filter", "0x7");
    struct facts before, after;
    read_facts(&before);

    say("ready");
    wait_to_go();

    read_facts(&after);
    CHECK(after.keep_caps == before.keep_caps, "keep-caps is %d", after.keep_caps);
    CHECK(after.securebits == before.securebits, "securebits are %#x", after.securebits);
    CHECK(after.subreaper == before.subreaper, "child-subreaper is %d", after.subreaper);
    CHECK(after.privileges == before.privileges, "no-new-privs is %d", after.privileges);
    CHECK(after.huge_pages == before.huge_pages, "thp-disable is %d", after.huge_pages);
    CHECK(after.write_or_execute == before.write_or_execute, "mdwe is %d", after.write_or_execute);
    CHECK(after.merge == before.merge, "memory-merge is %d", after.merge);
    CHECK(after.personality == before.personality, "the personality is %#x, was %#x", after.personality, before.personality);
    CHECK(after.tsc == before.tsc, "tsc is %d, was %d", after.tsc, before.tsc);
    for (int i = 0; i < 3; i++) CHECK(after.barriers[i] == before.barriers[i], "barrier %d: %d", i, after.barriers[i]);
    CHECK(after.registered == before.registered, "membarrier: %#x, was %#x", after.registered, before.registered);
    CHECK(!strcmp(after.oom, before.oom), "oom_score_adj is %s", after.oom);
    CHECK(!strcmp(after.filter, before.filter), "coredump_filter is %s", after.filter);
    pass();
}
