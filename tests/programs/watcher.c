/* Two threads that do nothing but look: for a child, a SIGCHLD, a descriptor, a mapping, a thread that is not theirs. */
#include "guest.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/wait.h>

static volatile sig_atomic_t ended_children;
static volatile int stop;
static unsigned long looks[2];
static char mappings[1 << 16];

static void on_child(int signal) {
    (void)signal;
    ended_children++;
}

static int entries(const char *path) {
    DIR *dir = opendir(path);
    CHECK(dir, "%s: %s", path, strerror(errno));
    int count = 0;
    while (readdir(dir)) count++;
    closedir(dir);
    return count;
}

static void expect_no_children(void) {
    DIR *dir = opendir("/proc/self/task");
    CHECK(dir, "threads: %s", strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        char path[300], text[100];
        snprintf(path, sizeof path, "/proc/self/task/%s/children", entry->d_name);
        CHECK(slurp(path, text, sizeof text) == 0, "a child: %s", text);
    }
    closedir(dir);
}

static void look(int me) {
    int status;
    CHECK(wait4(-1, &status, __WALL | WNOHANG, NULL) == -1 && errno == ECHILD, "wait4 found a child");
    siginfo_t info;
    CHECK(waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WNOHANG | __WALL) == -1 && errno == ECHILD, "waitid found a child");
    expect_no_children();
    CHECK(!ended_children, "SIGCHLD");
    if (me == 0) {
        char now[sizeof mappings];
        slurp("/proc/self/maps", now, sizeof now);
        CHECK(!strcmp(now, mappings), "mappings:\n%s\nwere:\n%s", now, mappings);
        CHECK(entries("/proc/self/task") == 4, "%d threads", entries("/proc/self/task") - 2);
    }
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    CHECK(sigisemptyset(&mask), "signals are blocked");
    /* Lowest first: one that was taken meanwhile shows. */
    int fd = dup(0);
    CHECK(fd >= 3 && fd < 8, "the next descriptor is %d", fd);
    close(fd);
    __atomic_add_fetch(&looks[me], 1, __ATOMIC_RELAXED);
}

static void *second(void *unused) {
    (void)unused;
    while (!stop) look(1);
    return NULL;
}

int main(void) {
    MUST(signal(SIGCHLD, on_child) == SIG_ERR ? -1 : 0);
    pthread_t thread;
    /* What the C library maps at the first use. */
    stop = 1;
    CHECK(!pthread_create(&thread, NULL, second, NULL) && !pthread_join(thread, NULL), "set-up: pthread_create");
    stop = 0;
    CHECK(!pthread_create(&thread, NULL, second, NULL), "set-up: pthread_create");
    printf("%d descriptors\n", entries("/proc/self/fd") - 3);
    while (!__atomic_load_n(&looks[1], __ATOMIC_RELAXED)) nap();
    slurp("/proc/self/maps", mappings, sizeof mappings);

    say("ready");
    while (!may_go()) look(0);

    stop = 1;
    pthread_join(thread, NULL);
    CHECK(looks[0] > 50 && looks[1] > 50, "%lu and %lu looks are too few", looks[0], looks[1]);
    pass();
}
