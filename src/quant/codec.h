/* The row codecs of the block types: a decoder and an encoder for each row of types.def. */
#ifndef TN_QUANT_CODEC_H
#define TN_QUANT_CODEC_H

#include <stddef.h>
#include <stdint.h>

#define TYPE(name, id, block, bytes)                                                                                 \
    void tn_decode_##name(const void *src, float *dst, size_t n);                                                    \
    void tn_encode_##name(const float *src, void *dst, size_t n);
#include "quant/types.def"
#undef TYPE

/* The 16 levels of the IQ4 types, denser around zero. */
extern const int8_t tn_iq4_levels[16];

#endif
