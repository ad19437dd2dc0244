/* What a core can do at most: dot products of bytes in registers with nothing to wait for, and reading memory in order. */
#include "backend/cpu/kernels/peak.h"

#include "backend/cpu/kernels/isa.h"
#include "backend/cpu/kernels/vec.h"

/* The vector is wanted: nothing that makes it may be left out. */
#ifdef __aarch64__
#define KEEP(v) __asm__ volatile("" : "+w"(v))
#else
#define KEEP(v) __asm__ volatile("" : "+v"(v))
#endif

enum { SUMS = 8 };

double TN_ISA_NAME(tn_peak_dots)(int32_t rounds) {
    vi sum[SUMS], u = vi_set(0x01020304), x = vi_set(rounds);
    TN_UNROLL
    for (int i = 0; i < SUMS; i++) sum[i] = vi_set(i);
    for (int32_t r = 0; r < rounds; r++) {
        TN_UNROLL
        for (int i = 0; i < SUMS; i++) {
            KEEP(u); /* not the same as a round before */
            sum[i] = dot(4, sum[i], u, x);
            KEEP(sum[i]);
        }
    }
    return (double)rounds * SUMS * LANES * 4;
}

void TN_ISA_NAME(tn_peak_read)(const void *p, size_t bytes) {
    const char *at = p, *end = at + bytes;
    vi sum[SUMS];
    TN_UNROLL
    for (int i = 0; i < SUMS; i++) sum[i] = vi_set(0);
    for (; at < end; at += SUMS * sizeof(vi)) {
        TN_UNROLL
        for (int i = 0; i < SUMS; i++) sum[i] = vi_or(sum[i], vi_load(at + (size_t)i * sizeof(vi)));
    }
    TN_UNROLL
    for (int i = 0; i < SUMS; i++) KEEP(sum[i]);
}
