/* Writing into the KV cache; the layout is in kv.h. */
#include "backend/cpu/kernels/kv.h"

#include "backend/cpu/kernels/pieces.h"

size_t tn_kv_page_bytes(tn_kv_type type, int32_t n_kv, int32_t k_dim, int32_t v_dim) {
    return (size_t)n_kv * (tn_kv_block_bytes(type, k_dim) + tn_kv_block_bytes(type, v_dim));
}

static inline void to_f16(const float *x, uint16_t *half) {
    for (int i = 0; i < 8; i++) half[i] = tn_f32_to_f16(x[i]);
}

void tn_kv_write__ref(const tn_cpu_kv *kv, int32_t page, int32_t slot, int32_t kv_head, const float *k,
                      const float *v) {
    tn_kv_write(kv, page, slot, kv_head, k, v, to_f16);
}
