/* The vocabulary of matmul.isa.c on AVX-512 with VNNI. vec_avx2.h has the same words. vf: LANES floats; vi: LANES
 * 32-bit integers, or four times as many bytes. A word does the same to every lane whatever LANES is, so both files
 * give the same bits. */
#ifndef TN_CPU_VEC_AVX512_H
#define TN_CPU_VEC_AVX512_H

#include "backend/cpu/kernels/isa.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 16, REGISTERS = 32 };
enum { TOKENS = 8 }; /* tokens of a register tile */

typedef __m512 vf;
typedef __m512i vi;

TN_INLINE vf vf_zero(void) {
    return _mm512_setzero_ps();
}
TN_INLINE vf vf_set(float x) {
    return _mm512_set1_ps(x);
}
TN_INLINE vf vf_load(const void *p) {
    return _mm512_loadu_ps(p);
}
TN_INLINE void vf_store(float *p, vf a) {
    _mm512_storeu_ps(p, a);
}
TN_INLINE vf vf_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
TN_INLINE vf vf_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
/* a > b ? a : b */
TN_INLINE vf vf_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
TN_INLINE vf vf_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
TN_INLINE vf vf_of(vi a) {
    return _mm512_cvtepi32_ps(a);
}
TN_INLINE vf vf_f16(const void *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
TN_INLINE vf vf_bf16(const void *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}

TN_INLINE vi vi_load(const void *p) {
    return _mm512_loadu_si512(p);
}
TN_INLINE vi vi_set(int32_t x) {
    return _mm512_set1_epi32(x);
}
TN_INLINE vi vi_bcast(const void *p) {
    int32_t x;
    memcpy(&x, p, 4);
    return _mm512_set1_epi32(x);
}
TN_INLINE vi vi_u8(const void *p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(p));
}
TN_INLINE vi vi_i8(const void *p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(p));
}
TN_INLINE vi vi_and(vi a, vi b) {
    return _mm512_and_si512(a, b);
}
TN_INLINE vi vi_or(vi a, vi b) {
    return _mm512_or_si512(a, b);
}
TN_INLINE vi vi_sub(vi a, vi b) {
    return _mm512_sub_epi32(a, b);
}
TN_INLINE vi vi_shr(vi a, unsigned n) {
    return _mm512_srli_epi32(a, n);
}
TN_INLINE vi vi_shl(vi a, unsigned n) {
    return _mm512_slli_epi32(a, n);
}
/* Byte j of each 32-bit lane, alone. */
TN_INLINE vi vi_byte(vi a, int j) {
    const __m128i lane = _mm_set_epi32(12, 8, 4, 0);
    const __m128i pick = _mm_or_si128(_mm_add_epi32(lane, _mm_set1_epi32(j)), _mm_set1_epi32(-256));
    return _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(pick));
}
/* table[i] for each byte i < 16 */
TN_INLINE vi vi_lookup(const void *table, vi i) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table)), i);
}

/* Dot products of unsigned bytes u (< 2^bits) with signed bytes x (-127 .. 127), exact. A sum is built as
 *   part = dot_open(sum); up to dot_run(bits) times part = dot(bits, part, u, x); sum = dot_close(sum, part).
 * For bits = 8 a set may take u as u - 128: dot_zero tells what the zero point `zero` has become. */
TN_INLINE int dot_run(int bits) {
    return (void)bits, 8;
}
TN_INLINE int dot_zero(int bits, int zero) {
    return (void)bits, zero;
}
TN_INLINE vi dot_open(vi sum) {
    return sum;
}
TN_INLINE vi dot(int bits, vi part, vi u, vi x) {
    return (void)bits, _mm512_dpbusd_epi32(part, u, x);
}
TN_INLINE vi dot_close(vi sum, vi part) {
    return (void)sum, part;
}

#endif
