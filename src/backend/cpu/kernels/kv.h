/* What a page of the KV cache looks like. Per kv head a block of keys and a block of values; a block is a plane of
 * TN_PAGE * dim elements and, for q8_0, a plane of f16 scales, one for every 32 elements of a position.
 *
 *   keys    [position / 16][element][position % 16]   lanes are positions: a score needs no sum across lanes
 *   values  [position][element]                       lanes are elements of the output
 *
 * Scales lie like elements of a head 32 times smaller. */
#ifndef TN_CPU_KV_H
#define TN_CPU_KV_H

#include "backend/cpu/kernels/isa.h"
#include "backend/cpu/kernels/kernels.h"
#include "base/half.h"

enum { TN_KV_LANES = 16, TN_KV_GROUPS = TN_PAGE / TN_KV_LANES, TN_KV_SCALED = 32 };

typedef struct tn_kv_block {
    uint8_t *elements;
    uint16_t *scales;
} tn_kv_block;

static inline size_t tn_kv_element_bytes(tn_kv_type type) {
    return type == TN_KV_F32 ? 4 : type == TN_KV_F16 ? 2 : 1;
}

static inline size_t tn_kv_block_bytes(tn_kv_type type, int32_t dim) {
    size_t scales = type == TN_KV_Q8_0 ? (size_t)dim / TN_KV_SCALED * sizeof(uint16_t) : 0;
    return TN_PAGE * ((size_t)dim * tn_kv_element_bytes(type) + scales);
}

static inline tn_kv_block tn_kv_block_at(const tn_cpu_kv *kv, uint8_t *p, int32_t dim) {
    return (tn_kv_block){p, (uint16_t *)(p + TN_PAGE * (size_t)dim * tn_kv_element_bytes(kv->type))};
}

static inline uint8_t *tn_kv_head_at(const tn_cpu_kv *kv, int32_t page, int32_t kv_head) {
    size_t head_bytes = tn_kv_block_bytes(kv->type, kv->k_dim) + tn_kv_block_bytes(kv->type, kv->v_dim);
    return kv->base + (size_t)page * kv->page_bytes + (size_t)kv_head * head_bytes;
}

static inline tn_kv_block tn_kv_keys(const tn_cpu_kv *kv, int32_t page, int32_t kv_head) {
    return tn_kv_block_at(kv, tn_kv_head_at(kv, page, kv_head), kv->k_dim);
}

static inline tn_kv_block tn_kv_values(const tn_cpu_kv *kv, int32_t page, int32_t kv_head) {
    uint8_t *head = tn_kv_head_at(kv, page, kv_head);
    return tn_kv_block_at(kv, head + tn_kv_block_bytes(kv->type, kv->k_dim), kv->v_dim);
}

/* Where the elements of one position are in a plane: element i at start + i * step. */
typedef struct tn_kv_row {
    size_t start, step;
} tn_kv_row;

static inline tn_kv_row tn_kv_key_row(int32_t slot, int32_t dim) {
    size_t group = (size_t)slot / TN_KV_LANES * (size_t)dim;
    return (tn_kv_row){group * TN_KV_LANES + (size_t)slot % TN_KV_LANES, TN_KV_LANES};
}

static inline tn_kv_row tn_kv_value_row(int32_t slot, int32_t dim) {
    return (tn_kv_row){(size_t)slot * (size_t)dim, 1};
}

/* 32 elements; the scale is max|x| / 127 as a half float, to which the elements are then rounded. */
TN_INLINE void tn_kv_put_scaled(int8_t *q, size_t step, uint16_t *scale, const float *x) {
    float max = 0;
    for (int i = 0; i < TN_KV_SCALED; i++) {
        float a = x[i] < 0 ? -x[i] : x[i];
        max = a > max ? a : max;
    }
    *scale = tn_f32_to_f16(max / 127.0f);
    float d = tn_f16_to_f32(*scale), inverse = d > 0 ? 1.0f / d : 0;
    for (int i = 0; i < TN_KV_SCALED; i++) {
        float v = x[i] * inverse; /* may be past 127, since the scale was rounded */
        v = v > 127.0f ? 127.0f : v < -127.0f ? -127.0f : v;
        q[(size_t)i * step] = (int8_t)(uint8_t)tn_float_bits(v + 0x1.8p23f); /* the integer is in the low bits */
    }
}

/* Writes one position's k or v. to_f16 converts eight elements. */
TN_INLINE void tn_kv_put(tn_kv_type type, tn_kv_block block, tn_kv_row at, tn_kv_row scale_at, const float *x,
                         int32_t dim, void (*to_f16)(const float *, uint16_t *)) {
    if (type == TN_KV_F32) {
        float *dst = (float *)block.elements + at.start;
        for (int32_t i = 0; i < dim; i++) dst[(size_t)i * at.step] = x[i];
    } else if (type == TN_KV_F16) {
        uint16_t *dst = (uint16_t *)block.elements + at.start, eight[8];
        for (int32_t i = 0; i < dim; i += 8) {
            to_f16(x + i, eight);
            for (int l = 0; l < 8; l++) dst[(size_t)(i + l) * at.step] = eight[l];
        }
    } else {
        int8_t *dst = (int8_t *)block.elements + at.start;
        uint16_t *scales = block.scales + scale_at.start;
        for (int32_t b = 0; b < dim / TN_KV_SCALED; b++) {
            tn_kv_put_scaled(dst + (size_t)b * TN_KV_SCALED * at.step, at.step, scales + (size_t)b * scale_at.step,
                             x + b * TN_KV_SCALED);
        }
    }
}

TN_INLINE void tn_kv_write(const tn_cpu_kv *kv, int32_t page, int32_t slot, int32_t kv_head, const float *k,
                           const float *v, void (*to_f16)(const float *, uint16_t *)) {
    if (k) {
        tn_kv_put(kv->type, tn_kv_keys(kv, page, kv_head), tn_kv_key_row(slot, kv->k_dim),
                  tn_kv_key_row(slot, kv->k_dim / TN_KV_SCALED), k, kv->k_dim, to_f16);
    }
    if (v) {
        tn_kv_put(kv->type, tn_kv_values(kv, page, kv_head), tn_kv_value_row(slot, kv->v_dim),
                  tn_kv_value_row(slot, kv->v_dim / TN_KV_SCALED), v, kv->v_dim, to_f16);
    }
}

#endif
