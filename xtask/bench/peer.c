/* What the figures stand beside: the least that a save or a restart of so much memory has to do. Prints nanoseconds.
 *
 * usage: peer write FILE MIB    one write() of random memory to a new file, then rename
 *        peer sync FILE MIB     the same, with fsync of the file before and of its directory after the rename
 *        peer sync2 FILE MIB    the same, each half of it by a thread of its own
 *        peer read FILE MIB     one pread() of the file into fresh anonymous memory
 *        peer touch MIB         touches memory, so that the host has given it before the next contender runs */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if ((long)(call) == -1) {                                                                                      \
            perror(#call);                                                                                             \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static long long now(void)
{
    struct timespec t;
    MUST(clock_gettime(CLOCK_MONOTONIC, &t));
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static char *memory(size_t bytes)
{
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(memory);
    return memory;
}

static void fill(int fd, char *at, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(fd, at + done, bytes - done, (off_t)done);
        MUST(n);
        if (n == 0) {
            fprintf(stderr, "the file is too short\n");
            exit(1);
        }
        done += (size_t)n;
    }
}

/* A part of the memory, written at its place. */
struct part {
    int fd;
    char *from;
    size_t at, bytes;
};

static void *put(void *argument)
{
    struct part *part = argument;
    for (size_t done = 0; done < part->bytes;) {
        ssize_t n = pwrite(part->fd, part->from + part->at + done, part->bytes - done, (off_t)(part->at + done));
        MUST(n);
        done += (size_t)n;
    }
    return NULL;
}

static long long save(const char *file, size_t bytes, int sync, int threads)
{
    char *from = memory(bytes), temporary[4096], folder[4096];
    uint64_t x = 0x9e3779b97f4a7c15u, *word = (uint64_t *)from;
    for (size_t i = 0; i < bytes / sizeof x; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        word[i] = x;
    }
    snprintf(temporary, sizeof temporary, "%s.tmp", file);
    snprintf(folder, sizeof folder, "%s", file);
    long long start = now();
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL, 0600);
    MUST(fd);
    size_t own = bytes / (size_t)threads;
    struct part first = {fd, from, 0, own}, second = {fd, from, own, bytes - own};
    pthread_t other;
    if (threads > 1 && pthread_create(&other, NULL, put, &second) != 0)
        exit(1);
    put(&first);
    if (threads > 1)
        pthread_join(other, NULL);
    if (sync)
        MUST(fsync(fd));
    MUST(close(fd));
    MUST(rename(temporary, file));
    if (sync) {
        int directory = open(dirname(folder), O_RDONLY | O_DIRECTORY);
        MUST(directory);
        MUST(fsync(directory));
    }
    return now() - start;
}

static long long load(const char *file, size_t bytes)
{
    long long start = now();
    int fd = open(file, O_RDONLY);
    MUST(fd);
    fill(fd, memory(bytes), bytes);
    return now() - start;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "touch")) {
        size_t bytes = strtoul(argv[2], NULL, 10) << 20;
        memset(memory(bytes), 1, bytes);
        return 0;
    }
    if (argc != 4) {
        fprintf(stderr, "usage: peer write|sync|sync2|read FILE MIB, or peer touch MIB\n");
        return 2;
    }
    size_t bytes = strtoul(argv[3], NULL, 10) << 20;
    int two = !strcmp(argv[1], "sync2"), sync = two || !strcmp(argv[1], "sync");
    long long took = !strcmp(argv[1], "read") ? load(argv[2], bytes) : save(argv[2], bytes, sync, two ? 2 : 1);
    printf("%lld\n", took);
    return 0;
}
