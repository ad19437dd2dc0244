/* Norms. The order of the sum is the whole definition, so all instruction sets share norm.h. */
#include "backend/cpu/kernels/norm.h"

#include "backend/cpu/kernels/pieces.h"

void tn_rms_norm__ref(const tn_piece *p) {
    tn_rms_norm(p);
}
void tn_l2_norm__ref(const tn_piece *p) {
    tn_l2_norm(p);
}
