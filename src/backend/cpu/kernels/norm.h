/* The norms, and sums over a row in one fixed order for every instruction set: element j goes to partial sum j % 16,
 * the partial sums are then added pairwise, 8 apart, 4, 2, 1. In double, where a float's square is exact. */
#ifndef TN_CPU_NORM_H
#define TN_CPU_NORM_H

#include "backend/cpu/kernels/element.h"
#include "backend/cpu/kernels/isa.h"
#include "backend/cpu/kernels/kernels.h"

#include <math.h>
#include <stdint.h>

/* The sum of `value`, which is of x. */
#define TN_SUM16(name, value)                                                                                        \
    TN_INLINE double name(const float *row, int32_t n) {                                                             \
        double s[16] = {0};                                                                                          \
        int32_t j = 0;                                                                                               \
        for (; j + 16 <= n; j += 16) {                                                                               \
            TN_UNROLL                                                                                                \
            for (int l = 0; l < 16; l++) {                                                                           \
                double x = (double)row[j + l];                                                                       \
                s[l] += value;                                                                                       \
            }                                                                                                        \
        }                                                                                                            \
        for (int l = 0; j + l < n; l++) {                                                                            \
            double x = (double)row[j + l];                                                                           \
            s[l] += value;                                                                                           \
        }                                                                                                            \
        for (int width = 8; width > 0; width /= 2) {                                                                 \
            for (int l = 0; l < width; l++) s[l] += s[l + width];                                                    \
        }                                                                                                            \
        return s[0];                                                                                                 \
    }
TN_SUM16(tn_sum, x)
TN_SUM16(tn_sum_squares, x *x)

TN_INLINE void tn_row_scale(float *dst, const float *src, int32_t n, float factor) {
    TN_VECTORISE
    for (int32_t j = 0; j < n; j++) dst[j] = src[j] * factor;
}

/* x / sqrt(mean(x^2) + eps) */
TN_INLINE void tn_rms_norm(const tn_piece *p) {
    int32_t group = p->i[0];
    for (int32_t j = 0; j < p->n; j += group) {
        const float *x = (const float *)p->src[0] + j;
        double mean = tn_sum_squares(x, group) / group;
        tn_row_scale((float *)p->dst + j, x, group, (float)(1.0 / sqrt(mean + (double)p->f[0])));
    }
}

/* x / max(sqrt(sum x^2), eps) */
TN_INLINE void tn_l2_norm(const tn_piece *p) {
    int32_t group = p->i[0];
    for (int32_t j = 0; j < p->n; j += group) {
        const float *x = (const float *)p->src[0] + j;
        tn_row_scale((float *)p->dst + j, x, group,
                     (float)(1.0 / fmax(sqrt(tn_sum_squares(x, group)), (double)p->f[0])));
    }
}

#endif
