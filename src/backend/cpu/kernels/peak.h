/* What a core can do at most: what speeds are measured against. */
#ifndef TN_CPU_PEAK_H
#define TN_CPU_PEAK_H

#include "backend/cpu/kernels/kernels.h"

/* Multiplies bytes for so many rounds; returns how many products that was. */
typedef double tn_peak_dots_fn(int32_t rounds);
/* Reads memory, a multiple of 512 bytes. */
typedef void tn_peak_read_fn(const void *p, size_t bytes);

tn_peak_dots_fn tn_peak_dots__ref, tn_peak_dots__neon, tn_peak_dots__avx2, tn_peak_dots__avx512;
tn_peak_read_fn tn_peak_read__ref, tn_peak_read__neon, tn_peak_read__avx2, tn_peak_read__avx512;
tn_peak_dots_fn *tn_peak_dots_find(tn_isa isa);
tn_peak_read_fn *tn_peak_read_find(tn_isa isa);

#endif
