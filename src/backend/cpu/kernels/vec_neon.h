/* The vocabulary of matmul.isa.c and attention.isa.c on NEON with the dot products of ARMv8.2; see vec_avx512.h. */
#ifndef TN_CPU_VEC_NEON_H
#define TN_CPU_VEC_NEON_H

#include "backend/cpu/kernels/isa.h"

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 4, REGISTERS = 32 };
enum { TOKENS = 8 };

typedef float32x4_t vf;
typedef int32x4_t vi;

TN_INLINE vf vf_zero(void) {
    return vdupq_n_f32(0);
}
TN_INLINE vf vf_set(float x) {
    return vdupq_n_f32(x);
}
TN_INLINE vf vf_load(const void *p) {
    return vld1q_f32(p);
}
TN_INLINE void vf_store(float *p, vf a) {
    vst1q_f32(p, a);
}
TN_INLINE vf vf_add(vf a, vf b) {
    return vaddq_f32(a, b);
}
TN_INLINE vf vf_mul(vf a, vf b) {
    return vmulq_f32(a, b);
}
TN_INLINE vf vf_max(vf a, vf b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
TN_INLINE vf vf_fma(vf a, vf b, vf c) {
    return vfmaq_f32(c, a, b);
}
TN_INLINE vf vf_of(vi a) {
    return vcvtq_f32_s32(a);
}
TN_INLINE vf vf_f16(const void *p) {
    return vcvt_f32_f16(vld1_f16(p));
}
TN_INLINE vf vf_bf16(const void *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

TN_INLINE vi vi_load(const void *p) {
    return vld1q_s32(p);
}
TN_INLINE vi vi_set(int32_t x) {
    return vdupq_n_s32(x);
}
TN_INLINE vi vi_bcast(const void *p) {
    int32_t x;
    memcpy(&x, p, 4);
    return vdupq_n_s32(x);
}
TN_INLINE vi vi_u8(const void *p) {
    uint8x8_t bytes = vreinterpret_u8_s32(vget_low_s32(vi_bcast(p)));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
}
TN_INLINE vi vi_i8(const void *p) {
    int8x8_t bytes = vreinterpret_s8_s32(vget_low_s32(vi_bcast(p)));
    return vmovl_s16(vget_low_s16(vmovl_s8(bytes)));
}
TN_INLINE vi vi_and(vi a, vi b) {
    return vandq_s32(a, b);
}
TN_INLINE vi vi_or(vi a, vi b) {
    return vorrq_s32(a, b);
}
TN_INLINE vi vi_sub(vi a, vi b) {
    return vsubq_s32(a, b);
}
TN_INLINE vi vi_shr(vi a, unsigned n) {
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-(int32_t)n)));
}
TN_INLINE vi vi_shl(vi a, unsigned n) {
    return vshlq_s32(a, vdupq_n_s32((int32_t)n));
}
TN_INLINE vi vi_byte(vi a, int j) {
    return vi_and(vi_shr(a, 8 * (unsigned)j), vi_set(255));
}
TN_INLINE vi vi_lookup(const void *table, vi i) {
    return vreinterpretq_s32_u8(vqtbl1q_u8(vld1q_u8(table), vreinterpretq_u8_s32(i)));
}

/* The dot product takes signed bytes with signed ones: u < 128 is one, and a full byte becomes u - 128. */
TN_INLINE int dot_run(int bits) {
    return (void)bits, 8;
}
TN_INLINE int dot_zero(int bits, int zero) {
    return bits == 8 ? zero - 128 : zero;
}
TN_INLINE vi dot_open(vi sum) {
    return sum;
}
TN_INLINE vi dot(int bits, vi part, vi u, vi x) {
    int8x16_t w = vreinterpretq_s8_s32(u);
    if (bits == 8) w = veorq_s8(w, vdupq_n_s8(-128));
    return vdotq_s32(part, w, vreinterpretq_s8_s32(x));
}
TN_INLINE vi dot_close(vi sum, vi part) {
    return (void)sum, part;
}

#endif
