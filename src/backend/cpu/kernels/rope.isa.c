/* Rotary position embedding, see rope.h. */
#include "backend/cpu/kernels/rope.h"

#include "backend/cpu/kernels/pieces.h"

void TN_ISA_NAME(tn_rope)(const tn_piece *p) {
    tn_rope(p);
}
