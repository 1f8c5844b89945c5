/* io_uring instances, without any library: rings of several shapes whose counters have gone round, with completions that nobody has taken,
 * requests that nobody has submitted, registered buffers and sockets; one that is watched by epoll, one under two numbers, one that is not
 * mapped. The kernel's own counters show by what it does next. */
#include "guest.h"

#include <linux/io_uring.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif
#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif

struct ring {
    int fd;
    struct io_uring_params p;
    char *rings;
    char *sqes;
    size_t sqe, cqe, len;
    /* As liburing does: what the program knows by itself. */
    unsigned tail, head, data;
};

static unsigned *word(struct ring *r, unsigned offset) {
    return (unsigned *)(void *)(r->rings + offset);
}

static int set_up(struct ring *r, unsigned entries, unsigned flags) {
    *r = (struct ring){.p = {.flags = flags}};
    r->fd = (int)syscall(SYS_io_uring_setup, entries, &r->p);
    if (r->fd < 0) return -1;
    r->sqe = flags & IORING_SETUP_SQE128 ? 128 : 64;
    r->cqe = flags & IORING_SETUP_CQE32 ? 32 : 16;
    size_t array = r->p.sq_off.array + r->p.sq_entries * 4, cqes = r->p.cq_off.cqes + r->p.cq_entries * r->cqe;
    r->len = array > cqes ? array : cqes;
    r->rings = mmap(NULL, r->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
    r->sqes = mmap(NULL, r->p.sq_entries * r->sqe, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQES);
    CHECK(r->rings != MAP_FAILED && r->sqes != MAP_FAILED, "set-up: mmap: %s", strerror(errno));
    if (!(flags & IORING_SETUP_NO_SQARRAY))
        for (unsigned i = 0; i < r->p.sq_entries; i++) word(r, r->p.sq_off.array)[i] = r->p.sq_entries - 1 - i;
    return 0;
}

static struct io_uring_sqe *next(struct ring *r, unsigned char opcode) {
    unsigned slot = r->tail++ & (r->p.sq_entries - 1);
    if (!(r->p.flags & IORING_SETUP_NO_SQARRAY)) slot = word(r, r->p.sq_off.array)[slot];
    struct io_uring_sqe *sqe = (void *)(r->sqes + slot * r->sqe);
    memset(sqe, 0, r->sqe);
    sqe->opcode = opcode;
    sqe->fd = -1;
    sqe->user_data = ++r->data;
    return sqe;
}

static void publish(struct ring *r) {
    __atomic_store_n(word(r, r->p.sq_off.tail), r->tail, __ATOMIC_RELEASE);
}

static void submit(struct ring *r, unsigned count) {
    publish(r);
    long done = syscall(SYS_io_uring_enter, r->fd, count, 0, IORING_ENTER_GETEVENTS, NULL, 0);
    CHECK(done == (long)count, "submit %u: %ld, %s", count, done, strerror(errno));
}

/* Takes the next completion, which must be that of the request `data`. */
static int take(struct ring *r, unsigned data) {
    unsigned tail = __atomic_load_n(word(r, r->p.cq_off.tail), __ATOMIC_ACQUIRE);
    CHECK(tail != r->head, "request %u has not completed", data);
    struct io_uring_cqe *cqe = (void *)(r->rings + r->p.cq_off.cqes + (r->head & (r->p.cq_entries - 1)) * r->cqe);
    CHECK(cqe->user_data == data, "completion of %llu, not of %u", (unsigned long long)cqe->user_data, data);
    int result = cqe->res;
    __atomic_store_n(word(r, r->p.cq_off.head), ++r->head, __ATOMIC_RELEASE);
    return result;
}

static void nops(struct ring *r, unsigned count) {
    while (count) {
        unsigned some = count < r->p.sq_entries ? count : r->p.sq_entries;
        for (unsigned i = 0; i < some; i++) next(r, IORING_OP_NOP);
        submit(r, some);
        for (unsigned i = some; i > 0; i--) CHECK(take(r, r->data - i + 1) == 0, "a request that does nothing fails");
        count -= some;
    }
}

static unsigned char before[1 << 20];

/* Leaves `pending` completions and `prepared` requests, and remembers all of its memory. */
static size_t leave(struct ring *r, unsigned pending, unsigned prepared, size_t at) {
    for (unsigned left = pending; left > 0;) {
        unsigned some = left < r->p.sq_entries ? left : r->p.sq_entries;
        for (unsigned i = 0; i < some; i++) next(r, IORING_OP_NOP);
        submit(r, some);
        left -= some;
    }
    for (unsigned i = 0; i < prepared; i++) next(r, IORING_OP_NOP);
    publish(r);
    size_t sqes = r->p.sq_entries * r->sqe;
    CHECK(at + r->len + sqes <= sizeof before, "set-up: no room");
    memcpy(before + at, r->rings, r->len);
    memcpy(before + at + r->len, r->sqes, sqes);
    return at + r->len + sqes;
}

static size_t expect(struct ring *r, const char *what, unsigned pending, unsigned prepared, size_t at) {
    size_t sqes = r->p.sq_entries * r->sqe;
    CHECK(memcmp(before + at, r->rings, r->len) == 0, "%s: the rings have changed", what);
    CHECK(memcmp(before + at + r->len, r->sqes, sqes) == 0, "%s: the submissions have changed", what);
    unsigned first = r->data - prepared - pending;
    /* Nothing that waits is written over: as many completions as there is room for. */
    unsigned room = r->p.cq_entries - pending, more = room < r->p.sq_entries ? room : r->p.sq_entries;
    CHECK(prepared <= more, "set-up: too many");
    for (unsigned i = prepared; i < more; i++) next(r, IORING_OP_NOP);
    submit(r, more);
    for (unsigned i = 0; i < pending + more; i++) CHECK(take(r, first + 1 + i) == 0, "%s: completion %u", what, i);
    CHECK(*word(r, r->p.cq_off.tail) == r->head && *word(r, r->p.sq_off.head) == r->tail, "%s: more than that", what);
    /* Once round. */
    nops(r, 3 * r->p.cq_entries + 1);
    CHECK(*word(r, r->p.cq_off.overflow) == 0 && *word(r, r->p.sq_off.dropped) == 0, "%s: something was lost", what);
    return at + r->len + sqes;
}

enum { SHAPES = 9 };
static const struct {
    const char *name;
    unsigned entries, flags, go, pending, prepared;
} shapes[SHAPES] = {
    {"fresh", 8, 0, 0, 0, 0},
    {"one", 1, 0, 5, 1, 0},
    {"pending", 8, 0, 1003, 11, 3},
    {"full", 4, 0, 70001, 8, 0},
    {"many", 4096, 0, 5000, 4100, 7},
    {"long submissions", 8, IORING_SETUP_SQE128, 21, 3, 2},
    {"long completions", 16, IORING_SETUP_CQE32, 37, 9, 1},
    {"no array", 8, IORING_SETUP_NO_SQARRAY, 77, 5, 4},
    {"one thread's", 32, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 3001, 40, 9},
};

int main(void) {
    struct ring rings[SHAPES], other;
    MUST(set_up(&other, 8, 0));
    size_t at = 0;
    for (int i = 0; i < SHAPES; i++) {
        if (set_up(&rings[i], shapes[i].entries, shapes[i].flags) < 0) {
            CHECK(errno == EINVAL && shapes[i].flags, "set-up: %s: %s", shapes[i].name, strerror(errno));
            continue;
        }
        nops(&rings[i], shapes[i].go);
        at = leave(&rings[i], shapes[i].pending, shapes[i].prepared, at);
    }

    /* Buffers, of which one is none, and sockets, of which one lies between two that are none. */
    char *area = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(area);
    struct iovec buffers[3] = {{area + 100, 5000}, {NULL, 0}, {area + 8192, 4096}};
    MUST(syscall(SYS_io_uring_register, other.fd, IORING_REGISTER_BUFFERS, buffers, 3));
    int pair[2], files[3] = {-1, 0, -1};
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    files[1] = pair[0];
    MUST(syscall(SYS_io_uring_register, other.fd, IORING_REGISTER_FILES, files, 3));
    int also = fcntl(other.fd, F_DUPFD, 99), watch = epoll_create1(0), bare;
    MUST(also);
    MUST(watch);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1234567890abcdef};
    MUST(epoll_ctl(watch, EPOLL_CTL_ADD, other.fd, &event));
    struct io_uring_params plain = {.flags = 0};
    MUST(bare = (int)syscall(SYS_io_uring_setup, 2, &plain));

    say("ready");
    wait_to_go();

    for (int i = 0, from = 0; i < SHAPES; i++) {
        if (rings[i].fd >= 0) from = (int)expect(&rings[i], shapes[i].name, shapes[i].pending, shapes[i].prepared, (size_t)from);
    }

    CHECK(epoll_wait(watch, &event, 1, 0) == 0, "epoll: a completion, before there was any");
    fill(7, area + 200, 300);
    struct io_uring_sqe *sqe = next(&other, IORING_OP_WRITE_FIXED);
    sqe->fd = 1;
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->addr = (uint64_t)(uintptr_t)(area + 200);
    sqe->len = 300;
    sqe->buf_index = 0;
    submit(&other, 1);
    CHECK(epoll_wait(watch, &event, 1, 10000) == 1 && event.data.u64 == 0x1234567890abcdef, "epoll: no completion");
    int result = take(&other, other.data);
    CHECK(result == 300, "write to a registered file from a registered buffer: %s", strerror(-result));
    memset(area, 0, 1 << 16);
    CHECK(read(pair[1], area + 8192, 4096) == 300, "read: %s", strerror(errno));
    expect_filled(7, area + 8192, 300);
    sqe = next(&other, IORING_OP_READ);
    sqe->fd = 2;
    sqe->flags = IOSQE_FIXED_FILE;
    submit(&other, 1);
    result = take(&other, other.data);
    CHECK(result == -EBADF, "a registered file that is none: %d", result);
    sqe = next(&other, IORING_OP_READ_FIXED);
    sqe->fd = pair[1];
    sqe->buf_index = 1;
    submit(&other, 1);
    result = take(&other, other.data);
    CHECK(result < 0, "a registered buffer that is none: %d", result);
    CHECK(write(pair[0], "back", 4) == 4, "write: %s", strerror(errno));
    int own = other.fd;
    other.fd = also;
    sqe = next(&other, IORING_OP_READ_FIXED);
    sqe->fd = pair[1];
    sqe->addr = (uint64_t)(uintptr_t)(area + 8192 + 50);
    sqe->len = 4;
    sqe->buf_index = 2;
    submit(&other, 1);
    result = take(&other, other.data);
    CHECK(result == 4 && memcmp(area + 8192 + 50, "back", 4) == 0, "read by the second number: %s", strerror(-result));
    CHECK(fcntl(own, F_GETFD) == FD_CLOEXEC && fcntl(also, F_GETFD) == 0, "descriptor flags");
    CHECK(syscall(SYS_io_uring_enter, bare, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0) == 0, "not mapped: %s", strerror(errno));
    pass();
}
