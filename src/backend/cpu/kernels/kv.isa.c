/* Writing into the KV cache, half floats made by the machine. */
#include "backend/cpu/kernels/kv.h"
#include "backend/cpu/kernels/pieces.h"

#ifdef __aarch64__
#include <arm_neon.h>

static inline void to_f16(const float *x, uint16_t *half) {
    for (int i = 0; i < 8; i += 4) vst1_u16(half + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
}
#else
#include <immintrin.h>

static inline void to_f16(const float *x, uint16_t *half) {
    _mm_storeu_si128((__m128i *)half, _mm256_cvtps_ph(_mm256_loadu_ps(x), _MM_FROUND_TO_NEAREST_INT));
}
#endif

void TN_ISA_NAME(tn_kv_write)(const tn_cpu_kv *kv, int32_t page, int32_t slot, int32_t kv_head, const float *k,
                              const float *v) {
    tn_kv_write(kv, page, slot, kv_head, k, v, to_f16);
}
