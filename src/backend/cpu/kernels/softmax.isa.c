/* softmax as vector loops. */
#include "backend/cpu/kernels/expf.h"
#include "backend/cpu/kernels/norm.h"
#include "backend/cpu/kernels/pieces.h"

/* By lanes, so that it vectorises; a maximum has no order. */
static float row_max(const float *x, int32_t n) {
    float m[16];
    for (int l = 0; l < 16; l++) m[l] = -INFINITY;
    int32_t j = 0;
    for (; j + 16 <= n; j += 16) {
        TN_UNROLL
        for (int l = 0; l < 16; l++) m[l] = x[j + l] > m[l] ? x[j + l] : m[l];
    }
    for (int l = 0; j + l < n; l++) m[l] = x[j + l] > m[l] ? x[j + l] : m[l];
    for (int l = 1; l < 16; l++) m[0] = m[l] > m[0] ? m[l] : m[0];
    return m[0];
}

void TN_ISA_NAME(tn_softmax)(const tn_piece *p) {
    const float *x = p->src[0];
    float *dst = p->dst, max = row_max(x, p->n);
    int32_t n = p->n;
    TN_VECTORISE
    for (int32_t j = 0; j < n; j++) dst[j] = tn_expf(x[j] - max);
    tn_row_scale(dst, dst, n, (float)(1.0 / tn_sum(dst, n)));
}
