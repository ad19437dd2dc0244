/* The recurrences, one token at a time; compiled as the reference and once per instruction set. A lane is a column (of the
 * convolution, of v), so that no sum runs across lanes and the order of every sum is fixed. */
#ifndef TN_CPU_SCAN_H
#define TN_CPU_SCAN_H

#include "backend/cpu/kernels/element.h"
#include "backend/cpu/kernels/kernels.h"

#include <math.h>
#include <string.h>

#define TN_CONV1D(name)                                                                                              \
    void name(float *state, const float *w, const float *x, float *y, int32_t taps, int32_t n_row, int32_t c0,       \
              int32_t n) {                                                                                           \
        for (int32_t c = c0; c < c0 + n; c++) {                                                                      \
            float sum = 0;                                                                                           \
            for (int32_t j = 0; j < taps - 1; j++) sum = fmaf(w[c * taps + j], state[j * n_row + c], sum);           \
            y[c - c0] = fmaf(w[c * taps + taps - 1], x[c - c0], sum);                                                \
        }                                                                                                            \
        for (int32_t j = 0; j < taps - 1; j++)                                                                       \
            memcpy(state + j * n_row + c0, j < taps - 2 ? state + (j + 1) * n_row + c0 : x, (size_t)n * sizeof *x);  \
    }

#define TN_DELTA(name)                                                                                               \
    void name(float *state, const float *q, const float *k, const float *v, float g, float beta, float *out,         \
              int32_t k_dim, int32_t v_dim, float *d) {                                                              \
        float decay = expf(g), scale = 1.0f / sqrtf((float)k_dim);                                                   \
        memset(d, 0, (size_t)v_dim * sizeof *d);                                                                     \
        memset(out, 0, (size_t)v_dim * sizeof *out);                                                                 \
        for (int32_t i = 0; i < k_dim; i++) {                                                                        \
            float *row = state + i * v_dim, ki = k[i];                                                               \
            TN_VECTORISE                                                                                             \
            for (int32_t j = 0; j < v_dim; j++) {                                                                    \
                row[j] *= decay;                                                                                     \
                d[j] = fmaf(ki, row[j], d[j]);                                                                       \
            }                                                                                                        \
        }                                                                                                            \
        TN_VECTORISE                                                                                                 \
        for (int32_t j = 0; j < v_dim; j++) d[j] = beta * (v[j] - d[j]);                                             \
        for (int32_t i = 0; i < k_dim; i++) {                                                                        \
            float *row = state + i * v_dim, ki = k[i], qi = q[i] * scale;                                            \
            TN_VECTORISE                                                                                             \
            for (int32_t j = 0; j < v_dim; j++) {                                                                    \
                row[j] = fmaf(ki, d[j], row[j]);                                                                     \
                out[j] = fmaf(qi, row[j], out[j]);                                                                   \
            }                                                                                                        \
        }                                                                                                            \
    }

tn_conv1d_fn tn_conv1d__ref, tn_conv1d__neon, tn_conv1d__avx2, tn_conv1d__avx512;
tn_delta_fn tn_delta__ref, tn_delta__neon, tn_delta__avx2, tn_delta__avx512;
tn_conv1d_fn *tn_conv1d_find(tn_isa isa);
tn_delta_fn *tn_delta_find(tn_isa isa);

#endif
