/* The recurrences: reference forms, and which one an instruction set gets. */
#include "backend/cpu/kernels/scan.h"

#include "backend/cpu/kernels/isa.h"

TN_CONV1D(tn_conv1d__ref)
TN_DELTA(tn_delta__ref)

tn_conv1d_fn *tn_conv1d_find(tn_isa isa) {
    return TN_ISA_FIND(tn_conv1d, isa);
}

tn_delta_fn *tn_delta_find(tn_isa isa) {
    return TN_ISA_FIND(tn_delta, isa);
}
