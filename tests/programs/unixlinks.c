/* Unix sockets by the way in which they are connected, and by their names: clients that wait behind accepted ones, listeners and paths
 * that are gone, names of connected sockets, files with owner, group and mode; sockets of messages that are connected to each other;
 * sequenced packets without a connection. Nothing that was removed may come back. */
#include "guest.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { CLIENTS = 6 };

static socklen_t address(struct sockaddr_un *at, const char *name) {
    memset(at, 0, sizeof *at);
    at->sun_family = AF_UNIX;
    strcpy(at->sun_path, name);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
    if (*name == '@') at->sun_path[0] = 0;
    return *name == '@' ? len : len + 1;
}

/* A socket's own name, or its peer's: "" for none, with @ for an abstract one. */
static const char *name(int fd, int peer) {
    static char names[4][200];
    static int turn;
    char *to = names[turn++ % 4];
    struct sockaddr_un at;
    memset(&at, 0, sizeof at);
    socklen_t len = sizeof at;
    CHECK((peer ? getpeername : getsockname)(fd, (struct sockaddr *)&at, &len) == 0, "name of %d: %s", fd, strerror(errno));
    memset(to, 0, sizeof names[0]);
    if (len > sizeof(sa_family_t)) {
        memcpy(to, at.sun_path, len - sizeof(sa_family_t));
        if (!to[0]) to[0] = '@';
    }
    return to;
}

static int bound(int type, const char *name) {
    struct sockaddr_un at;
    socklen_t len = address(&at, name);
    int fd = socket(AF_UNIX, type, 0);
    MUST(fd);
    MUST(bind(fd, (struct sockaddr *)&at, len));
    return fd;
}

static int listens(int type, const char *name, int backlog) {
    int fd = bound(type, name);
    MUST(listen(fd, backlog));
    return fd;
}

static int to(int fd, const char *name) {
    struct sockaddr_un at;
    socklen_t len = address(&at, name);
    return connect(fd, (struct sockaddr *)&at, len);
}

static int joined(int type, const char *name) {
    int fd = socket(AF_UNIX, type, 0);
    MUST(fd);
    MUST(to(fd, name));
    return fd;
}

static void put(int fd, const char *text) { CHECK(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text), "send \"%s\": %s", text, strerror(errno)); }

static void get(const char *what, int fd, const char *text) {
    char have[200];
    ssize_t got = recv(fd, have, sizeof have, MSG_DONTWAIT);
    CHECK(got == (ssize_t)strlen(text) && memcmp(have, text, (size_t)got) == 0, "%s: %zd bytes (%.*s) instead of \"%s\": %s", what, got,
          got > 0 ? (int)got : 0, have, text, got < 0 ? strerror(errno) : "");
}

static void talk(const char *what, int a, int b) {
    put(a, "hello");
    get(what, b, "hello");
    put(b, "and back");
    get(what, a, "and back");
}

static int there(const char *name) {
    struct stat stat;
    return lstat(name, &stat) == 0;
}

/* Clients of one listener: the odd ones are accepted, in another order than their descriptors'; the others wait. */
typedef struct {
    int type, listener, client[CLIENTS], server[CLIENTS];
    char at[100];
} queue;

static void line_up(queue *q, int type, const char *at) {
    static const int ORDER[CLIENTS] = {3, 1, 5, 4, 0, 2};
    q->type = type;
    strcpy(q->at, at);
    q->listener = listens(type, at, 10);
    for (int i = 0; i < CLIENTS; i++) MUST(q->client[i] = socket(AF_UNIX, type, 0));
    for (int i = 0; i < CLIENTS; i++) MUST(to(q->client[ORDER[i]], at));
    for (int i = 0; i < CLIENTS / 2; i++) {
        MUST(q->server[ORDER[i]] = accept(q->listener, NULL, NULL));
        char text[20];
        sprintf(text, "client %d", ORDER[i]);
        put(q->client[ORDER[i]], text);
    }
}

static void serve(queue *q) {
    static const int WAIT[] = {4, 0, 2};
    for (int i = 0; i < 3; i++) {
        char text[20];
        sprintf(text, "late %d", WAIT[i]);
        put(q->client[WAIT[i]], text);
    }
    for (int i = 0; i < 3; i++) {
        MUST(q->server[WAIT[i]] = accept(q->listener, NULL, NULL));
        char text[20];
        sprintf(text, "late %d", WAIT[i]);
        get(q->at, q->server[WAIT[i]], text);
    }
    for (int i = 1; i < CLIENTS; i += 2) {
        char text[20];
        sprintf(text, "client %d", i);
        get(q->at, q->server[i], text);
    }
    for (int i = 0; i < CLIENTS; i++) {
        talk(q->at, q->client[i], q->server[i]);
        CHECK(!strcmp(name(q->server[i], 0), q->at) && !strcmp(name(q->client[i], 1), q->at), "%s: %d is %s, its peer %s", q->at, i,
              name(q->server[i], 0), name(q->client[i], 1));
        CHECK(!*name(q->client[i], 0) && !*name(q->server[i], 1), "%s: a client has a name", q->at);
    }
    int late = joined(q->type, q->at), server = accept(q->listener, NULL, NULL);
    CHECK(server >= 0, "%s: accept: %s", q->at, strerror(errno));
    talk(q->at, late, server);
}

int main(void) {
    umask(0);
    char hidden[3][64];
    for (int i = 0; i < 3; i++) sprintf(hidden[i], "@ckpt-guest-links-%d-%d-%ld", i, getpid(), (long)time(NULL));
    static queue queues[4];
    line_up(&queues[0], SOCK_STREAM, "queue.sock");
    line_up(&queues[1], SOCK_SEQPACKET, "packets.sock");
    line_up(&queues[2], SOCK_STREAM, hidden[0]);
    line_up(&queues[3], SOCK_SEQPACKET, hidden[1]);

    /* The listener is closed: its file was removed, or not, or another socket has the name now; its directory was removed; it had none. */
    int gone = listens(SOCK_STREAM, "gone.sock", 3), gone_c = joined(SOCK_STREAM, "gone.sock"), gone_s = accept(gone, NULL, NULL);
    put(gone_c, "to the gone");
    int second_c = joined(SOCK_STREAM, "gone.sock"), second_s = accept(gone, NULL, NULL);
    close(gone);
    MUST(unlink("gone.sock"));
    int stale = listens(SOCK_STREAM, "stale.sock", 3), stale_c = joined(SOCK_STREAM, "stale.sock"), stale_s = accept(stale, NULL, NULL);
    close(stale);
    int old = listens(SOCK_SEQPACKET, "taken.sock", 3), old_c = joined(SOCK_SEQPACKET, "taken.sock"), old_s = accept(old, NULL, NULL);
    close(old);
    MUST(unlink("taken.sock"));
    int taken = listens(SOCK_SEQPACKET, "taken.sock", 3);
    MUST(mkdir("folder", 0700));
    char inside[90], cwd[80];
    MUST(getcwd(cwd, sizeof cwd) ? 0 : -1);
    CHECK(snprintf(inside, sizeof inside, "%s/folder/x", cwd) < 88, "set-up: %s is too long", cwd);
    int away = listens(SOCK_STREAM, inside, 3), away_c = joined(SOCK_STREAM, inside), away_s = accept(away, NULL, NULL);
    close(away);
    MUST(unlink(inside));
    MUST(rmdir("folder"));
    int nameless = listens(SOCK_STREAM, hidden[2], 3), nameless_c = joined(SOCK_STREAM, hidden[2]), nameless_s = accept(nameless, NULL, NULL);
    close(nameless);

    /* Clients with names: a path, which stays or is gone, and an abstract one. */
    int host = listens(SOCK_STREAM, "host.sock", 3), own = bound(SOCK_STREAM, "client.sock");
    MUST(chmod("client.sock", 0604));
    MUST(to(own, "host.sock"));
    int own_s = accept(host, NULL, NULL);
    MUST(own_s);
    int pair[2], gone_pair[2], mixed[2], dgram[2], alone[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    struct sockaddr_un at;
    socklen_t len = address(&at, "pair.sock");
    MUST(bind(pair[1], (struct sockaddr *)&at, len));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, gone_pair));
    len = address(&at, "pair-gone.sock");
    MUST(bind(gone_pair[0], (struct sockaddr *)&at, len));
    MUST(unlink("pair-gone.sock"));
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, mixed));
    len = address(&at, "mixed.sock");
    MUST(bind(mixed[0], (struct sockaddr *)&at, len));
    put(mixed[1], "to the named");
    put(mixed[0], "from the named");
    /* Two that are connected by names. */
    dgram[0] = bound(SOCK_DGRAM, "left.sock");
    dgram[1] = bound(SOCK_DGRAM, "right.sock");
    MUST(to(dgram[0], "right.sock"));
    MUST(to(dgram[1], "left.sock"));
    put(dgram[0], "to the right");
    /* A chain: each is connected to the next, and holds a message of one that it would take none of any more. */
    int chain[3] = {bound(SOCK_DGRAM, "chain0.sock"), bound(SOCK_DGRAM, "chain1.sock"), bound(SOCK_DGRAM, "chain2.sock")};
    MUST(to(chain[0], "chain1.sock"));
    put(chain[0], "along the chain");
    MUST(to(chain[1], "chain2.sock"));
    /* Its peer has gone, which had a name. */
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, alone));
    len = address(&at, "alone.sock");
    MUST(bind(alone[0], (struct sockaddr *)&at, len));
    put(alone[1], "last words");
    close(alone[1]);
    /* A receiver whose file is gone, and who is connected to it. */
    char lost_name[100];
    sprintf(lost_name, "%s/lost.sock", cwd);
    int lost = bound(SOCK_DGRAM, lost_name), sender = joined(SOCK_DGRAM, lost_name);
    put(sender, "to the lost");
    MUST(unlink("lost.sock"));
    /* No connection at all. */
    int packets = socket(AF_UNIX, SOCK_SEQPACKET, 0), named = bound(SOCK_SEQPACKET, "named.sock");
    MUST(packets);
    /* Owner, group and mode of the files. */
    int modes = listens(SOCK_STREAM, "modes.sock", 1), none = bound(SOCK_DGRAM, "none.sock");
    gid_t groups[64];
    int count = getgroups(64, groups);
    gid_t group = getuid() == 0 ? 44 : count > 0 ? groups[count - 1] : getgid();
    uid_t user = getuid() == 0 ? 10 : getuid();
    MUST(chown("modes.sock", user, group));
    MUST(chmod("modes.sock", 01620));
    MUST(chmod("none.sock", 0));

    say("ready");
    wait_to_go();

    for (int i = 0; i < 4; i++) serve(&queues[i]);
    get("gone", gone_s, "to the gone");
    talk("gone", gone_c, gone_s);
    talk("gone, second", second_c, second_s);
    CHECK(!strcmp(name(gone_s, 0), "gone.sock") && !strcmp(name(second_c, 1), "gone.sock"), "gone: %s", name(gone_s, 0));
    CHECK(!there("gone.sock"), "gone.sock is there again");
    talk("stale", stale_c, stale_s);
    CHECK(!strcmp(name(stale_s, 0), "stale.sock") && there("stale.sock"), "stale: %s", name(stale_s, 0));
    int nobody = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(to(nobody, "stale.sock") == -1 && errno == ECONNREFUSED, "stale: somebody listens");
    talk("old", old_c, old_s);
    CHECK(!strcmp(name(old_c, 1), "taken.sock"), "old: %s", name(old_c, 1));
    int late = joined(SOCK_SEQPACKET, "taken.sock"), server = accept(taken, NULL, NULL);
    MUST(server);
    talk("taken", late, server);
    talk("away", away_c, away_s);
    CHECK(!there("folder"), "the folder is there again");
    talk("nameless", nameless_c, nameless_s);
    CHECK(!strcmp(name(nameless_s, 0), hidden[2]), "nameless: %s", name(nameless_s, 0));
    /* The name is free again. */
    close(listens(SOCK_STREAM, hidden[2], 1));
    talk("own", own, own_s);
    CHECK(!strcmp(name(own, 0), "client.sock") && !strcmp(name(own_s, 1), "client.sock") && !strcmp(name(own_s, 0), "host.sock"), "own: %s",
          name(own, 0));
    struct stat stat_;
    CHECK(stat("client.sock", &stat_) == 0 && (stat_.st_mode & 07777) == 0604, "client.sock: %o", stat_.st_mode);
    talk("pair", pair[0], pair[1]);
    CHECK(!strcmp(name(pair[0], 1), "pair.sock") && !*name(pair[0], 0) && there("pair.sock"), "pair: %s", name(pair[0], 1));
    talk("pair without its file", gone_pair[0], gone_pair[1]);
    CHECK(!strcmp(name(gone_pair[1], 1), "pair-gone.sock") && !there("pair-gone.sock"), "pair-gone: %s", name(gone_pair[1], 1));
    get("mixed", mixed[0], "to the named");
    get("mixed", mixed[1], "from the named");
    talk("mixed", mixed[0], mixed[1]);
    CHECK(!strcmp(name(mixed[1], 1), "mixed.sock"), "mixed: %s", name(mixed[1], 1));
    get("right", dgram[1], "to the right");
    talk("left and right", dgram[0], dgram[1]);
    CHECK(!strcmp(name(dgram[1], 1), "left.sock") && !strcmp(name(dgram[0], 1), "right.sock"), "left: %s", name(dgram[1], 1));
    get("chain", chain[1], "along the chain");
    CHECK(send(chain[0], "again", 5, MSG_NOSIGNAL) == -1 && errno == EPERM, "chain: takes more: %s", strerror(errno));
    put(chain[1], "further");
    get("chain", chain[2], "further");
    int stranger = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK(to(stranger, "chain1.sock") == -1 && errno == EPERM, "chain: takes strangers");
    get("alone", alone[0], "last words");
    CHECK(recv(alone[0], inside, 1, MSG_DONTWAIT) == 0, "alone: no end");
    CHECK(!strcmp(name(alone[0], 0), "alone.sock") && there("alone.sock"), "alone: %s", name(alone[0], 0));
    get("lost", lost, "to the lost");
    put(sender, "still");
    get("lost", lost, "still");
    CHECK(!strcmp(name(lost, 0), lost_name) && !there("lost.sock"), "lost: %s", name(lost, 0));
    CHECK(recv(packets, inside, 1, MSG_DONTWAIT) == -1 && errno == ENOTCONN, "packets: connected");
    MUST(to(packets, "taken.sock"));
    server = accept(taken, NULL, NULL);
    MUST(server);
    talk("packets", packets, server);
    CHECK(!strcmp(name(named, 0), "named.sock"), "named: %s", name(named, 0));
    MUST(listen(named, 1));
    CHECK(stat("modes.sock", &stat_) == 0, "modes.sock: %s", strerror(errno));
    CHECK(stat_.st_uid == user && stat_.st_gid == group && (stat_.st_mode & 07777) == 01620, "modes.sock: %d:%d %o", stat_.st_uid, stat_.st_gid,
          stat_.st_mode);
    CHECK(stat("none.sock", &stat_) == 0 && (stat_.st_mode & 07777) == 0, "none.sock: %o", stat_.st_mode);
    (void)modes;
    (void)none;
    pass();
}
