/* Attention as it is defined, one head of one token after the other. */
#include "backend/cpu/kernels/attention.h"

#include "backend/cpu/kernels/expf.h"
#include "backend/cpu/kernels/kv.h"
#include "backend/cpu/kernels/pieces.h"
#include "base/mem.h"

#include <math.h>

size_t tn_attention_scratch(int32_t n_head, int32_t n_kv, int32_t k_dim, int32_t v_dim) {
    (void)n_head, (void)n_kv;
    size_t page = TN_PAGE * (size_t)(k_dim + v_dim), rows = TN_ATTENTION_ROWS * (size_t)(k_dim + 2 * (v_dim + 2));
    return tn_align_up((page + rows) * sizeof(float), 64);
}

void tn_attention_fold(tn_sums total, tn_sums later, int32_t v_dim) {
    if (*later.sum == 0) return; /* saw nothing; what is not a number counts */
    float max = *total.max > *later.max ? *total.max : *later.max;
    float a = tn_expf(*total.max - max), b = tn_expf(*later.max - max);
    bool first = *total.sum == 0;
    for (int32_t i = 0; i < v_dim; i++) total.out[i] = first ? later.out[i] : total.out[i] * a + later.out[i] * b;
    *total.sum = first ? *later.sum : *total.sum * a + *later.sum * b;
    *total.max = max;
}

void tn_attention_join(const float *part, int32_t n, size_t stride, int32_t v_dim, float *out) {
    float max = -INFINITY, sum = 0;
    for (int32_t k = 0; k < n; k++, part += stride) {
        float *p = (float *)(uintptr_t)part;
        tn_attention_fold((tn_sums){out, &max, &sum}, (tn_sums){p, p + v_dim, p + v_dim + 1}, v_dim);
    }
    float inverse = 1.0f / sum;
    for (int32_t i = 0; i < v_dim; i++) out[i] *= inverse;
}

/* Element i of a row of the cache. */
static float element(tn_kv_type type, tn_kv_block block, tn_kv_row at, tn_kv_row scale_at, int32_t i) {
    size_t e = at.start + (size_t)i * at.step;
    if (type == TN_KV_F32) return ((const float *)block.elements)[e];
    if (type == TN_KV_F16) return tn_f16_to_f32(((const uint16_t *)block.elements)[e]);
    float scale = tn_f16_to_f32(block.scales[scale_at.start + (size_t)(i / TN_KV_SCALED) * scale_at.step]);
    return scale * ((const int8_t *)block.elements)[e];
}

/* scale * q k of one position, softcapped */
static float score(const tn_cpu_attention *a, tn_kv_block keys, int32_t slot, const float *q) {
    tn_kv_row at = tn_kv_key_row(slot, a->kv.k_dim), scale_at = tn_kv_key_row(slot, a->kv.k_dim / TN_KV_SCALED);
    float sum = 0;
    for (int32_t i = 0; i < a->kv.k_dim; i++) sum += q[i] * element(a->kv.type, keys, at, scale_at, i);
    sum *= a->scale;
    return a->softcap != 0 ? a->softcap * tanhf(sum / a->softcap) : sum;
}

static void add_value(const tn_cpu_attention *a, tn_kv_block values, int32_t slot, float weight, float *out) {
    tn_kv_row at = tn_kv_value_row(slot, a->kv.v_dim), scale_at = tn_kv_value_row(slot, a->kv.v_dim / TN_KV_SCALED);
    for (int32_t i = 0; i < a->kv.v_dim; i++) out[i] += weight * element(a->kv.type, values, at, scale_at, i);
}

/* Online softmax: with every page the maximum so far may grow; what was summed is scaled down to it. */
static void attend(const tn_cpu_attention *a, int32_t kv_head, int32_t position, const float *q, tn_sums sums,
                   int32_t segment) {
    float max = -INFINITY, sum = 0, *out = sums.out;
    tn_pages pages = tn_pages_of(a, position, position, segment);
    for (int32_t i = 0; i < a->kv.v_dim; i++) out[i] = 0;
    for (int32_t page = pages.begin; page < pages.end; page++) {
        tn_kv_block keys = tn_kv_keys(&a->kv, a->pages[page], kv_head);
        tn_kv_block values = tn_kv_values(&a->kv, a->pages[page], kv_head);
        tn_seen seen = tn_seen_from(a, position, page);
        float s[TN_PAGE], before = max;
        for (int32_t p = seen.low; p < seen.high; p++) {
            s[p] = score(a, keys, p, q);
            max = fmaxf(max, s[p]);
        }
        float shrink = expf(before - max);
        sum *= shrink;
        for (int32_t i = 0; i < a->kv.v_dim; i++) out[i] *= shrink;
        for (int32_t p = seen.low; p < seen.high; p++) {
            float weight = expf(s[p] - max);
            sum += weight;
            add_value(a, values, p, weight, out);
        }
    }
    *sums.max = max;
    *sums.sum = sum;
}

void tn_attention__ref(const tn_cpu_attention *a, int32_t kv_head, int32_t pos0, int32_t n_tokens, const float *q,
                       size_t q_stride, float *out, size_t out_stride, void *scratch) {
    int32_t group = a->n_head / a->kv.n_kv, v_dim = a->kv.v_dim;
    for (int32_t t = 0; t < n_tokens; t++) {
        for (int32_t i = 0; i < group; i++) {
            size_t h = (size_t)(kv_head * group + i);
            const float *row = q + (size_t)t * q_stride + h * (size_t)a->kv.k_dim;
            float max = -INFINITY, sum = 0, *part = a->part ? a->part + i * (v_dim + 2) : scratch;
            tn_sums sums = {part, part + v_dim, part + v_dim + 1};
            if (a->part) {
                attend(a, kv_head, pos0, row, sums, a->segment);
                continue;
            }
            float *dst = out + (size_t)t * out_stride + h * (size_t)v_dim;
            for (int32_t s = tn_first_page(a, pos0 + t) / TN_SEGMENT; s <= (pos0 + t) / TN_PAGE / TN_SEGMENT; s++) {
                attend(a, kv_head, pos0 + t, row, sums, s);
                tn_attention_fold((tn_sums){dst, &max, &sum}, sums, v_dim);
            }
            for (int32_t k = 0; k < v_dim; k++) dst[k] *= 1.0f / sum;
        }
    }
}
