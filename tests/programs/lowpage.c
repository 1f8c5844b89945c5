/* Occupies the lowest page that may be mapped, and some after it. */
#include "guest.h"

int main(void) {
    char text[32];
    slurp("/proc/sys/vm/mmap_min_addr", text, sizeof text);
    unsigned long lowest = strtoul(text, NULL, 10);
    if (lowest < 4096) lowest = 4096;
    size_t len = 16 * 4096;
    char *at = mmap((void *)lowest, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(at == (char *)lowest, "set-up: mmap at %#lx: %s", lowest, strerror(errno));
    fill(1, at, len);

    say("ready");
    wait_to_go();

    expect_filled(1, at, len);
    CHECK(munmap(at, len) == 0, "munmap: %s", strerror(errno));
    pass();
}
