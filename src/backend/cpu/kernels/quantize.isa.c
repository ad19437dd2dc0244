/* The quantize piece. Bit for bit what tn_q8_encode does: the largest magnitude is found among the bits, as integers;
 * q = low byte of x * (127 / max) + 1.5 * 2^23. Vectors of 256 bits serve AVX2 and AVX-512: a block is four. */
#include "backend/cpu/kernels/isa.h"
#include "backend/cpu/kernels/pieces.h"
#include "base/half.h"

/* Magnitudes below this count as zero, as in tn_q8_encode. */
#define TINY 0x1p-120f

#ifdef __aarch64__
#include <arm_neon.h>

static inline void quantize_block(const float *from, int8_t *q, float *d, int16_t *s) {
    float32x4_t x[8];
    uint32x4_t top = vdupq_n_u32(0);
    for (int i = 0; i < 8; i++) {
        x[i] = vld1q_f32(from + 4 * i);
        top = vmaxq_u32(top, vandq_u32(vreinterpretq_u32_f32(x[i]), vdupq_n_u32(0x7fffffff)));
    }
    float max = tn_bits_float(vmaxvq_u32(top));
    if (max < TINY) max = 0;
    float32x4_t inverse = vdupq_n_f32(max == 0 ? 0 : 127 / max);
    *d = max / 127;
    for (int h = 0; h < 2; h++) {
        uint16x4_t v[4];
        for (int i = 0; i < 4; i++)
            v[i] =
                vmovn_u32(vreinterpretq_u32_f32(vaddq_f32(vmulq_f32(x[4 * h + i], inverse), vdupq_n_f32(0x1.8p23f))));
        uint8x8_t low = vmovn_u16(vcombine_u16(v[0], v[1])), high = vmovn_u16(vcombine_u16(v[2], v[3]));
        int8x16_t bytes = vreinterpretq_s8_u8(vcombine_u8(low, high));
        vst1q_s8(q + 16 * h, bytes);
        s[h] = vaddlvq_s8(bytes);
    }
}
#else
#include <immintrin.h>

static inline float block_max(const __m256 x[4]) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) top = _mm256_max_epu32(top, _mm256_and_si256(_mm256_castps_si256(x[i]), magnitude));
    __m128i t = _mm_max_epu32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0xb1));
    return tn_bits_float((uint32_t)_mm_cvtsi128_si32(t));
}

/* The four vectors of 32-bit integers as bytes: their low bytes. */
static inline __m256i low_bytes(const __m256i v[4]) {
    const __m256i byte = _mm256_set1_epi32(255);
    __m256i a = _mm256_packus_epi32(_mm256_and_si256(v[0], byte), _mm256_and_si256(v[1], byte));
    __m256i b = _mm256_packus_epi32(_mm256_and_si256(v[2], byte), _mm256_and_si256(v[3], byte));
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

static inline void quantize_block(const float *from, int8_t *q, float *d, int16_t *s) {
    __m256 x[4];
    __m256i v[4];
    for (int i = 0; i < 4; i++) x[i] = _mm256_loadu_ps(from + 8 * i);
    float max = block_max(x);
    if (max < TINY) max = 0;
    __m256 inverse = _mm256_set1_ps(max == 0 ? 0 : 127 / max);
    *d = max / 127;
    for (int i = 0; i < 4; i++)
        v[i] = _mm256_castps_si256(_mm256_add_ps(_mm256_mul_ps(x[i], inverse), _mm256_set1_ps(0x1.8p23f)));
    __m256i bytes = low_bytes(v);
    _mm256_storeu_si256((__m256i *)q, bytes);
    /* sums of four bytes, then of the four in each half */
    __m256i sum = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1));
    sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0x4e));
    sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0xb1));
    s[0] = (int16_t)_mm256_extract_epi16(sum, 0);
    s[1] = (int16_t)_mm256_extract_epi16(sum, 8);
}
#endif

void TN_ISA_NAME(tn_quantize)(const tn_piece *p) {
    tn_q8_row row = tn_q8_row_at(p->dst, (size_t)p->n_row);
    const float *x = p->src[0];
    for (int32_t i = 0; i < p->n; i += 32) {
        int32_t c = p->first + i;
        quantize_block(x + i, row.q + c, row.d + c / 32, row.s + c / 16);
    }
}
