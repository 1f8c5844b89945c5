/* Floating point state that lives in registers only: loaded, kept while a flag is 0, stored again.
 *
 * hold_*(from, into, flag) loads the x87 stack and control word, MXCSR and all vector registers (with AVX-512 the
 * masks too) with unusual values, spins until *flag is not 0, and stores what the registers hold then. No compiler's code runs
 * between, so whatever is lost was lost by somebody else. */
#ifndef FLOAT_H
#define FLOAT_H

#include "guest.h"

/* Byte offsets in the area are known to the assembly. */
struct registers {
    unsigned char vector[32][64]; /* 0: 16 or 32 registers, 16, 32 or 64 bytes of each in use */
    double x87[8];                /* 2048 */
    uint64_t mask[8];             /* 2112: k0 unused */
    uint32_t mxcsr;               /* 2176 */
    uint16_t control;             /* 2180 */
    volatile uint16_t held;       /* 2182: set in `into` once all is loaded */
    uint64_t general[6];          /* 2184: rbx, r12 to r15, r11 */
};

void hold_sse(const struct registers *from, struct registers *into, volatile int *flag);
void hold_avx(const struct registers *from, struct registers *into, volatile int *flag);
void hold_avx512(const struct registers *from, struct registers *into, volatile int *flag);

enum hold_level { HOLD_SSE, HOLD_AVX, HOLD_AVX512 };

/* The best that this CPU offers, at most `wanted`. */
__attribute__((unused)) static enum hold_level hold_level(enum hold_level wanted) {
    if (wanted >= HOLD_AVX512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) return HOLD_AVX512;
    if (wanted >= HOLD_AVX && __builtin_cpu_supports("avx")) return HOLD_AVX;
    return HOLD_SSE;
}

/* Holds values made from `seed` until *flag and leaves them in `into` (zeros before); returns NULL, or what differs. */
__attribute__((unused)) static const char *hold(enum hold_level level, unsigned seed, struct registers *into,
                                                 volatile int *flag) {
    struct registers from;
    memset(&from, 0, sizeof from);
    static const struct {
        int registers, bytes;
    } shape[] = {{16, 16}, {16, 32}, {32, 64}};
    for (int i = 0; i < shape[level].registers; i++) fill(seed * 64 + i, from.vector[i], shape[level].bytes);
    for (int i = 0; i < 8; i++) from.x87[i] = seed * 1000 + i + 0.25;
    for (int i = 1; i < 8; i++) fill(seed * 64 + 40 + i, &from.mask[i], 8);
    fill(seed * 64 + 50, from.general, sizeof from.general);
    from.mxcsr = 0x1f80 | (seed % 4) << 13 | 1 << 15; /* rounding mode, flush to zero */
    from.control = 0x037f & ~(3 << 8) & 0xffff;       /* single precision */
    from.control |= (seed % 4) << 10;                 /* rounding mode */
    switch (level) {
    case HOLD_SSE: hold_sse(&from, into, flag); break;
    case HOLD_AVX: hold_avx(&from, into, flag); break;
    case HOLD_AVX512: hold_avx512(&from, into, flag); break;
    }
    if (memcmp(from.vector, into->vector, sizeof from.vector)) return "vector registers";
    if (memcmp(from.x87, into->x87, sizeof from.x87)) return "x87 registers";
    if (level == HOLD_AVX512 && memcmp(from.mask, into->mask, sizeof from.mask)) return "mask registers";
    if ((from.mxcsr ^ into->mxcsr) & ~0x3fu) return "MXCSR";
    if (from.control != into->control) return "the x87 control word";
    if (memcmp(from.general, into->general, sizeof from.general)) return "general registers";
    return NULL;
}

#endif
