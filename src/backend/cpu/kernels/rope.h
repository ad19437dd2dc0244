/* Rotation of the pairs of each head by the angles of a table of cos, sin, cos, sin ... One multiply-add of each output
 * is fused, and says so: left to itself, gcc 12 fuses the other form in the body of a vector loop (as an add-subtract)
 * and not in its tail, -ffp-contract=off or not. */
#ifndef TN_CPU_ROPE_H
#define TN_CPU_ROPE_H

#include "backend/cpu/kernels/element.h"
#include "backend/cpu/kernels/expf.h"
#include "backend/cpu/kernels/isa.h"
#include "backend/cpu/kernels/kernels.h"

#include <string.h>

/* (a, b) -> (a cos - b sin, a sin + b cos); pair i is at i * step and i * step + apart */
TN_INLINE void tn_rope_pairs(float *dst, const float *x, const float *table, int32_t n_pairs, int32_t step,
                             int32_t apart) {
    TN_VECTORISE
    for (int32_t i = 0; i < n_pairs; i++) {
        float a = x[i * step], b = x[i * step + apart], cosine = table[2 * i], sine = table[2 * i + 1];
        dst[i * step] = tn_fma(a, cosine, -(b * sine));
        dst[i * step + apart] = tn_fma(a, sine, b * cosine);
    }
}

TN_INLINE void tn_rope(const tn_piece *p) {
    int32_t head_dim = p->i[0], n_rot = p->i[1], neox = p->i[2];
    for (int32_t at = 0; at < p->n; at += head_dim) {
        float *dst = (float *)p->dst + at;
        const float *x = (const float *)p->src[0] + at;
        if (neox) {
            tn_rope_pairs(dst, x, p->src[1], n_rot / 2, 1, n_rot / 2);
        } else {
            tn_rope_pairs(dst, x, p->src[1], n_rot / 2, 2, 1);
        }
        if (dst != x) memcpy(dst + n_rot, x + n_rot, (size_t)(head_dim - n_rot) * sizeof *dst);
    }
}

#endif
