/* A tree of several users: ids of all kinds, supplementary groups, capabilities, securebits, with and without other threads. Only root
 * can be several users; for others nothing may change. */
#include "child.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <poll.h>
#include <pthread.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

static int is_root;
static const char *who = "root";

/* What a thread's status tells of it, and what it alone can ask. */
struct state {
    char text[4096];
    int securebits, keep_caps, dumpable, signal;
};

#define IN_CHILD(condition, ...) CHILD_CHECK(who, condition, __VA_ARGS__)

#define DO(call) IN_CHILD((call) != -1, "set-up: %s: %s", #call, strerror(errno))

static void look(struct state *to) {
    static _Thread_local char status[8192];
    memset(to, 0, sizeof *to);
    int fd = open("/proc/thread-self/status", O_RDONLY);
    IN_CHILD(fd >= 0, "status: %s", strerror(errno));
    ssize_t got = read(fd, status, sizeof status - 1);
    IN_CHILD(got > 0, "status: %s", strerror(errno));
    status[got] = 0;
    close(fd);
    for (char *line = status; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        /* Rights in a user namespace are another matter. */
        int wanted = !strncmp(line, "Uid:", 4) || !strncmp(line, "Gid:", 4) || (is_root && !strncmp(line, "Groups:", 7)) ||
                     (is_root && !strncmp(line, "Cap", 3));
        size_t len = strcspn(line, "\n") + 1, have = strlen(to->text);
        if (wanted && have + len < sizeof to->text) memcpy(to->text + have, line, len);
    }
    to->securebits = prctl(PR_GET_SECUREBITS);
    to->keep_caps = prctl(PR_GET_KEEPCAPS);
    to->dumpable = prctl(PR_GET_DUMPABLE);
    prctl(PR_GET_PDEATHSIG, &to->signal);
}

static void compare(const struct state *before) {
    static _Thread_local struct state now;
    look(&now);
    IN_CHILD(!strcmp(now.text, before->text), "credentials are\n%swere\n%s", now.text, before->text);
    IN_CHILD(now.securebits == before->securebits, "securebits %x, were %x", now.securebits, before->securebits);
    IN_CHILD(now.keep_caps == before->keep_caps, "keep-caps %d, was %d", now.keep_caps, before->keep_caps);
    IN_CHILD(now.dumpable == before->dumpable, "dumpable %d, was %d", now.dumpable, before->dumpable);
    IN_CHILD(now.signal == before->signal, "signal for the parent's end %d, was %d", now.signal, before->signal);
}

static void caps(unsigned long long effective, unsigned long long permitted, unsigned long long inheritable) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
                                             {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)}};
    DO(syscall(SYS_capset, &head, sets));
}

#define BIT(name) (1ull << (name))

static void as_worker(void) {
    gid_t groups[] = {2000, 33, 70000};
    DO(setgroups(3, groups));
    DO(setresgid(33, 33, 33));
    DO(setresuid(33, 33, 33));
    IN_CHILD(open("secret", O_RDONLY) == -1 && errno == EACCES, "it may read what is root's");
}

static void as_mixed(void) {
    DO(setgroups(0, NULL));
    DO(setresgid(1001, 1002, 1003));
    setfsgid(1003);
    DO(setresuid(100, 101, 0));
    setfsuid(100);
}

static void as_capable(void) {
    DO(prctl(PR_SET_KEEPCAPS, 1));
    DO(prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE));
    DO(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME));
    DO(setresuid(500, 500, 500));
    unsigned long long own = BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_CHOWN);
    caps(own, own | BIT(CAP_KILL), BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_KILL));
    DO(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0));
    DO(prctl(PR_SET_DUMPABLE, 1));
    DO(prctl(PR_SET_PDEATHSIG, SIGKILL));
}

/* Rights that root's id has nothing to do with, for ever. */
static void as_locked(void) {
    unsigned long long own = BIT(CAP_NET_RAW) | BIT(CAP_SETPCAP);
    DO(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS_LOCKED |
                                    SECBIT_NO_CAP_AMBIENT_RAISE));
    DO(setresgid(600, 600, 600));
    DO(setresuid(600, 600, 600));
    caps(own, own, 0);
}

/* Root with fewer rights: no id differs. */
static void as_less(void) {
    caps(BIT(CAP_SYS_CHROOT), BIT(CAP_SYS_CHROOT) | BIT(CAP_SYS_NICE), 0);
}

static void *second(void *orders) {
    static struct state state;
    char order;
    look(&state);
    answers();
    while (read((int)(long)orders, &order, 1) == 1) {
        compare(&state);
        answers();
    }
    return NULL;
}

static int thread_orders;

/* The C library gives the same to all threads. */
static void as_all_threads(void) {
    int ends[2];
    DO(pipe(ends));
    thread_orders = ends[0];
    DO(setresgid(800, 800, 800));
    DO(setresuid(800, 800, 800));
    pthread_t thread;
    IN_CHILD(pthread_create(&thread, NULL, second, (void *)(long)ends[0]) == 0, "thread");
    thread_orders = ends[1];
}

static void as_before(void) {
}

struct child {
    const char *name;
    void (*become)(void);
    pid_t pid;
    int tell;
};

static void live(int orders) {
    static struct state state;
    char order;
    look(&state);
    answers();
    while (read(orders, &order, 1) == 1) {
        compare(&state);
        if (thread_orders) (void)!write(thread_orders, "?", 1);
        answers();
    }
    _exit(0);
}

static void expect(int from, const char *when) {
    char line[9000] = "";
    struct pollfd wait = {.fd = from, .events = POLLIN};
    CHECK(poll(&wait, 1, 20000) == 1, "%s: a child says nothing", when);
    ssize_t got = read(from, line, sizeof line);
    CHECK(got > 0 && line[0] != 'F', "%s: %s", when, got > 0 ? line + 1 : "closed");
}

int main(void) {
    struct child all[] = {{"worker", as_worker, 0, 0}, {"mixed", as_mixed, 0, 0},   {"capable", as_capable, 0, 0},
                          {"locked", as_locked, 0, 0}, {"less", as_less, 0, 0},     {"threads", as_all_threads, 0, 0},
                          {"as before", as_before, 0, 0}};
    const int count = sizeof all / sizeof *all;
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
    answer_fd = pair[1];
    is_root = geteuid() == 0;
    if (is_root) {
        spill("secret", "root's alone");
        MUST(chmod("secret", 0600));
    }
    int answers = 0;
    for (int i = 0; i < count; i++) {
        int ends[2];
        MUST(pipe2(ends, O_CLOEXEC));
        MUST(all[i].pid = fork());
        if (all[i].pid == 0) {
            close(ends[1]);
            who = all[i].name;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (is_root) all[i].become();
            live(ends[0]);
        }
        close(ends[0]);
        all[i].tell = ends[1];
        answers += 1 + (is_root && all[i].become == as_all_threads);
    }
    for (int i = 0; i < answers; i++) expect(pair[0], "set-up");
    static struct state own;
    look(&own);

    say("ready");
    wait_to_go();

    static struct state now;
    look(&now);
    CHECK(!strcmp(own.text, now.text), "the root's credentials are\n%swere\n%s", now.text, own.text);
    for (int i = 0; i < count; i++) CHECK(write(all[i].tell, "?", 1) == 1, "a child's pipe: %s", strerror(errno));
    for (int i = 0; i < answers; i++) expect(pair[0], "after");
    for (int i = 0; i < count; i++) kill(all[i].pid, SIGKILL);
    pass();
}
