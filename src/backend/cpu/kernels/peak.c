/* What a core can do at most: scalar forms, and which one an instruction set gets. */
#include "backend/cpu/kernels/peak.h"

#include "backend/cpu/kernels/isa.h"

double tn_peak_dots__ref(int32_t rounds) {
    volatile int32_t sum = 0;
    for (int32_t r = 0; r < rounds; r++) sum = (sum & 0xffff) + (r & 15) * (r & 127);
    return rounds;
}

void tn_peak_read__ref(const void *p, size_t bytes) {
    volatile uint64_t all;
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes / 8; i++) sum += ((const uint64_t *)p)[i];
    all = sum;
    (void)all;
}

tn_peak_dots_fn *tn_peak_dots_find(tn_isa isa) {
    return TN_ISA_FIND(tn_peak_dots, isa);
}

tn_peak_read_fn *tn_peak_read_find(tn_isa isa) {
    return TN_ISA_FIND(tn_peak_read, isa);
}
