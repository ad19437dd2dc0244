/* The quantize piece, scalar: a row's int8 form as quant.h describes it. */
#include "backend/cpu/kernels/pieces.h"

void tn_quantize__ref(const tn_piece *p) {
    tn_q8_encode(p->src[0], p->dst, (size_t)p->n_row, (size_t)p->first, (size_t)p->n);
}
