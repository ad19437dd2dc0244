/* The recurrences: reference forms, and which one an instruction set gets. */
#include "backend/cpu/kernels/scan.h"

TN_CONV1D(tn_conv1d__ref)
TN_DELTA(tn_delta__ref)

/* A set of this architecture; where the processor lacks it nobody asks. */
#if defined(__x86_64__)
#define FIND(f, isa) (isa == TN_ISA_AVX512 ? f##__avx512 : isa == TN_ISA_AVX2 ? f##__avx2 : f##__ref)
#elif defined(__aarch64__)
#define FIND(f, isa) (isa == TN_ISA_NEON ? f##__neon : f##__ref)
#else
#define FIND(f, isa) ((void)isa, f##__ref)
#endif

tn_conv1d_fn *tn_conv1d_find(tn_isa isa) {
    return FIND(tn_conv1d, isa);
}

tn_delta_fn *tn_delta_find(tn_isa isa) {
    return FIND(tn_delta, isa);
}
