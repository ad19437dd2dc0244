/* The recurrences: reference forms, and which one an instruction set gets. */
#include "backend/cpu/kernels/scan.h"

TN_CONV1D(tn_conv1d__ref)
TN_DELTA(tn_delta__ref)

tn_conv1d_fn *tn_conv1d_find(tn_isa isa) {
#ifdef __x86_64__
    if (isa == TN_ISA_AVX512) return tn_conv1d__avx512;
    if (isa == TN_ISA_AVX2) return tn_conv1d__avx2;
#endif
    (void)isa;
    return tn_conv1d__ref;
}

tn_delta_fn *tn_delta_find(tn_isa isa) {
#ifdef __x86_64__
    if (isa == TN_ISA_AVX512) return tn_delta__avx512;
    if (isa == TN_ISA_AVX2) return tn_delta__avx2;
#endif
    (void)isa;
    return tn_delta__ref;
}
