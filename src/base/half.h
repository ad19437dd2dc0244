/* Half floats: IEEE binary16 and bfloat16, to and from float, rounding to nearest even. */
#ifndef TN_BASE_HALF_H
#define TN_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float tn_bits_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline uint32_t tn_float_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float tn_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
    if (rest >= 0x7c00) return tn_bits_float(sign | 0x7f800000 | (rest & 0x3ff) << 13); /* inf, nan */
    /* 2^112 moves the exponent from bias 15 to bias 127 and normalises subnormals on the way */
    float magnitude = tn_bits_float(rest << 13) * 0x1p112f;
    return tn_bits_float(sign | tn_float_bits(magnitude));
}

static inline uint16_t tn_f32_to_f16(float f) {
    uint32_t bits = tn_float_bits(f), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00);  /* nan */
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* rounds past 65504 */
    if (rest < 0x38800000) { /* subnormal: adding 0.5 leaves the rounded value in the low bits */
        uint32_t r = tn_float_bits(tn_bits_float(rest) + 0.5f) - 0x3f000000;
        return (uint16_t)(sign | r);
    }
    rest += 0xc8000fff + (rest >> 13 & 1); /* bias 127 -> 15, round to even */
    return (uint16_t)(sign | rest >> 13);
}

static inline float tn_bf16_to_f32(uint16_t h) {
    return tn_bits_float((uint32_t)h << 16);
}

static inline uint16_t tn_f32_to_bf16(float f) {
    uint32_t bits = tn_float_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40); /* nan stays nan */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
