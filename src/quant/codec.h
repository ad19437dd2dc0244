/* The row codecs of the block types, one decoder for each row of types.def; encoders for the types tenon can write.
 */
#ifndef TN_QUANT_CODEC_H
#define TN_QUANT_CODEC_H

#include <stddef.h>

#define TYPE(name, id, block, bytes) void tn_decode_##name(const void *src, float *dst, size_t n);
#include "quant/types.def"
#undef TYPE

void tn_encode_F32(const float *src, void *dst, size_t n);
void tn_encode_F16(const float *src, void *dst, size_t n);
void tn_encode_BF16(const float *src, void *dst, size_t n);
void tn_encode_Q4_0(const float *src, void *dst, size_t n);
void tn_encode_Q4_1(const float *src, void *dst, size_t n);
void tn_encode_Q5_0(const float *src, void *dst, size_t n);
void tn_encode_Q5_1(const float *src, void *dst, size_t n);
void tn_encode_Q8_0(const float *src, void *dst, size_t n);

#endif
