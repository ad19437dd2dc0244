/* The vocabulary of matmul.isa.c on AVX2; see vec_avx512.h. */
#ifndef TN_CPU_VEC_AVX2_H
#define TN_CPU_VEC_AVX2_H

#include "backend/cpu/kernels/isa.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 8, REGISTERS = 16 };
enum { TOKENS = 4 };

typedef __m256 vf;
typedef __m256i vi;

TN_INLINE vf vf_zero(void) {
    return _mm256_setzero_ps();
}
TN_INLINE vf vf_set(float x) {
    return _mm256_set1_ps(x);
}
TN_INLINE vf vf_load(const void *p) {
    return _mm256_loadu_ps(p);
}
TN_INLINE void vf_store(float *p, vf a) {
    _mm256_storeu_ps(p, a);
}
TN_INLINE vf vf_add(vf a, vf b) {
    return _mm256_add_ps(a, b);
}
TN_INLINE vf vf_mul(vf a, vf b) {
    return _mm256_mul_ps(a, b);
}
TN_INLINE vf vf_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}
TN_INLINE vf vf_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
TN_INLINE vf vf_of(vi a) {
    return _mm256_cvtepi32_ps(a);
}
TN_INLINE vf vf_f16(const void *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}
TN_INLINE vf vf_bf16(const void *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}

TN_INLINE vi vi_load(const void *p) {
    return _mm256_loadu_si256(p);
}
TN_INLINE vi vi_set(int32_t x) {
    return _mm256_set1_epi32(x);
}
TN_INLINE vi vi_bcast(const void *p) {
    int32_t x;
    memcpy(&x, p, 4);
    return _mm256_set1_epi32(x);
}
TN_INLINE vi vi_u8(const void *p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(p));
}
TN_INLINE vi vi_i8(const void *p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(p));
}
TN_INLINE vi vi_and(vi a, vi b) {
    return _mm256_and_si256(a, b);
}
TN_INLINE vi vi_or(vi a, vi b) {
    return _mm256_or_si256(a, b);
}
TN_INLINE vi vi_sub(vi a, vi b) {
    return _mm256_sub_epi32(a, b);
}
TN_INLINE vi vi_shr(vi a, unsigned n) {
    return _mm256_srli_epi32(a, (int)n);
}
TN_INLINE vi vi_shl(vi a, unsigned n) {
    return _mm256_slli_epi32(a, (int)n);
}
TN_INLINE vi vi_byte(vi a, int j) {
    const __m128i lane = _mm_set_epi32(12, 8, 4, 0);
    const __m128i pick = _mm_or_si128(_mm_add_epi32(lane, _mm_set1_epi32(j)), _mm_set1_epi32(-256));
    return _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(pick));
}
TN_INLINE vi vi_lookup(const void *table, vi i) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table)), i);
}

/* vpmaddubsw adds two products in 16 bits, with saturation: 2 * 127 * u must fit, and so must the products of a run.
 *   u <= 15: 8 * 3810 = 30480;  u <= 31: 4 * 7874 = 31496;  u <= 63: 2 * 16002 = 32004.
 * Full bytes would not fit: they become |u - 128| with the sign given to x, at most 2 * 128 * 127 = 32512. */
TN_INLINE int dot_run(int bits) {
    return bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
}
TN_INLINE int dot_zero(int bits, int zero) {
    return bits == 8 ? zero - 128 : zero;
}
TN_INLINE vi dot_open(vi sum) {
    return (void)sum, _mm256_setzero_si256();
}
TN_INLINE vi dot(int bits, vi part, vi u, vi x) {
    if (bits == 8) {
        vi w = _mm256_xor_si256(u, _mm256_set1_epi8(-128));
        return _mm256_add_epi16(part, _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)));
    }
    return _mm256_add_epi16(part, _mm256_maddubs_epi16(u, x));
}
TN_INLINE vi dot_close(vi sum, vi part) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(part, _mm256_set1_epi16(1)));
}

#endif
