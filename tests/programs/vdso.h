/* Entries of the kernel's own code (vdso). */
#include <stdint.h>
#include <string.h>

/* An entry by its name in the dynamic symbols; NULL when there is none. */
static void *vdso_entry(char *vdso, const char *name) {
    uint64_t phoff = *(uint64_t *)(vdso + 32), dynamic = 0, base = 0;
    for (int i = 0; i < *(uint16_t *)(vdso + 56); i++) {
        char *ph = vdso + phoff + 56 * i;
        if (*(uint32_t *)ph == 2) dynamic = *(uint64_t *)(ph + 16);
        if (*(uint32_t *)ph == 1) base = *(uint64_t *)(ph + 16) - *(uint64_t *)(ph + 8);
    }
    char *symbols = NULL, *strings = NULL;
    for (uint64_t *d = (uint64_t *)(vdso + dynamic - base); d[0]; d += 2) {
        if (d[0] == 6) symbols = vdso + d[1] - base;
        if (d[0] == 5) strings = vdso + d[1] - base;
    }
    for (char *s = symbols + 24; s < strings; s += 24)
        if (!strcmp(strings + *(uint32_t *)s, name)) return vdso + *(uint64_t *)(s + 8) - base;
    return NULL;
}
