/* softmax of a whole row: exp(x - max) / sum. */
#include "backend/cpu/kernels/norm.h"
#include "backend/cpu/kernels/pieces.h"

void tn_softmax__ref(const tn_piece *p) {
    const float *x = p->src[0];
    float *dst = p->dst, max = -INFINITY;
    for (int32_t j = 0; j < p->n; j++) max = x[j] > max ? x[j] : max;
    for (int32_t j = 0; j < p->n; j++) dst[j] = expf(x[j] - max);
    tn_row_scale(dst, dst, p->n, (float)(1.0 / tn_sum(dst, p->n)));
}
