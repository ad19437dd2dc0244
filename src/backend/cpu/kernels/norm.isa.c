/* Norms, see norm.h: 16 partial sums are vector lanes here. */
#include "backend/cpu/kernels/norm.h"

#include "backend/cpu/kernels/pieces.h"

void TN_ISA_NAME(tn_rms_norm)(const tn_piece *p) {
    tn_rms_norm(p);
}
void TN_ISA_NAME(tn_l2_norm)(const tn_piece *p) {
    tn_l2_norm(p);
}
