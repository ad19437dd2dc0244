/* Blocks -> floats, for every type of types.def. Scalars in a block are little-endian, as the machine is, and not
 * aligned. The order of the float operations is that of ggml's reference, so that results agree to the bit. Each type
 * has a function for one block; the rows follow from it at the end. */
#include "base/half.h"
#include "quant/codec.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint16_t load16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static uint32_t load32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static float load_f16(const uint8_t *p) {
    return tn_f16_to_f32(load16(p));
}

/* ---- plain floats ---- */

static void block_F32(const uint8_t *b, float *y) {
    *y = tn_bits_float(load32(b));
}
static void block_F16(const uint8_t *b, float *y) {
    *y = load_f16(b);
}
static void block_BF16(const uint8_t *b, float *y) {
    *y = tn_bf16_to_f32(load16(b));
}

/* ---- blocks of 32 with one scale: byte j holds elements j and j + 16 ---- */

/* f16 d; 4 bits each: x = d (q - 8) */
static void block_Q4_0(const uint8_t *b, float *y) {
    float d = load_f16(b);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((b[2 + j] & 15) - 8);
        y[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
}

/* f16 d, m; 4 bits each: x = d q + m */
static void block_Q4_1(const uint8_t *b, float *y) {
    float d = load_f16(b), m = load_f16(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)(b[4 + j] & 15) + m;
        y[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
}

/* f16 d; 32 fifth bits; 4 bits each: x = d (q - 16) */
static void block_Q5_0(const uint8_t *b, float *y) {
    float d = load_f16(b);
    uint32_t high = load32(b + 2);
    for (int j = 0; j < 16; j++) {
        int lo = (b[6 + j] & 15) | (int)(high >> j & 1) << 4;
        int hi = b[6 + j] >> 4 | (int)(high >> (j + 16) & 1) << 4;
        y[j] = d * (float)(lo - 16);
        y[j + 16] = d * (float)(hi - 16);
    }
}

/* f16 d, m; 32 fifth bits; 4 bits each: x = d q + m */
static void block_Q5_1(const uint8_t *b, float *y) {
    float d = load_f16(b), m = load_f16(b + 2);
    uint32_t high = load32(b + 4);
    for (int j = 0; j < 16; j++) {
        int lo = (b[8 + j] & 15) | (int)(high >> j & 1) << 4;
        int hi = b[8 + j] >> 4 | (int)(high >> (j + 16) & 1) << 4;
        y[j] = d * (float)lo + m;
        y[j + 16] = d * (float)hi + m;
    }
}

/* f16 d; int8 each: x = d q */
static void block_Q8_0(const uint8_t *b, float *y) {
    float d = load_f16(b);
    for (int j = 0; j < 32; j++) y[j] = d * (float)(int8_t)b[2 + j];
}

const int8_t tn_iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* 16 bytes -> 32 elements: x = d level(q) */
static void iq4_nibbles(const uint8_t *q, float d, float *y) {
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)tn_iq4_levels[q[j] & 15];
        y[j + 16] = d * (float)tn_iq4_levels[q[j] >> 4];
    }
}

/* f16 d; 4 bits each */
static void block_IQ4_NL(const uint8_t *b, float *y) {
    iq4_nibbles(b + 2, load_f16(b), y);
}

/* ---- blocks of 256 with a scale for each 16 or 32 elements, itself a few bits times the block's f16 d ---- */

/* In the types of 2 and 3 bits, 32 bytes hold 128 elements: bit pair k of byte l is element 32 k + l of them. */
static int crumb(const uint8_t *q, int i) {
    return q[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
}

/* 16 x (4 bits scale, 4 bits min); 64 bytes q; f16 d, dmin: x = (d scale) q - (dmin min) */
static void block_Q2_K(const uint8_t *b, float *y) {
    float d = load_f16(b + 80), dmin = load_f16(b + 82);
    for (int i = 0; i < 256; i++) {
        uint8_t s = b[i / 16];
        y[i] = d * (float)(s & 15) * (float)crumb(b + 16, i) - dmin * (float)(s >> 4);
    }
}

/* 32 bytes third bits; 64 bytes q; 12 bytes scales; f16 d: x = d (scale - 32) (q - 4).
 * Bit k of third-bit byte l belongs to element 32 k + l. Scale s has its low 4 bits in a nibble of bytes 0..7 (low
 * nibbles are scales 0..7) and its high 2 in bit pair s / 4 of byte 8 + s % 4. */
static void block_Q3_K(const uint8_t *b, float *y) {
    const uint8_t *high = b, *q = b + 32, *scales = b + 96;
    float d = load_f16(b + 108);
    for (int s = 0; s < 16; s++) {
        int low = scales[s % 8] >> (s / 8 * 4) & 15, top = scales[8 + s % 4] >> (s / 4 * 2) & 3;
        float scale = d * (float)((low | top << 4) - 32);
        for (int i = 16 * s; i < 16 * s + 16; i++) {
            int v = crumb(q, i) | (high[i % 32] >> (i / 32) & 1) << 2;
            y[i] = scale * (float)(v - 4);
        }
    }
}

/* The 12 bytes of Q4_K and Q5_K: 8 scales and 8 mins of 6 bits. The first four of each are the low 6 bits of bytes
 * 0..3 and 4..7, the last four are the nibbles of bytes 8..11 with the spare top bits of bytes 0..7. */
static void six_bits(const uint8_t *p, int i, int *scale, int *min) {
    if (i < 4) {
        *scale = p[i] & 63;
        *min = p[i + 4] & 63;
    } else {
        *scale = (p[i + 4] & 15) | p[i - 4] >> 6 << 4;
        *min = p[i + 4] >> 4 | p[i] >> 6 << 4;
    }
}

/* f16 d, dmin; 12 bytes scales and mins; `high`: 32 bytes of fifth bits or NULL; 128 bytes of nibbles, where 32 bytes
 * hold 64 elements, the low nibbles first: x = (d scale) q - (dmin min) */
static void block_45(const uint8_t *b, const uint8_t *high, const uint8_t *q, float *y) {
    float d = load_f16(b), dmin = load_f16(b + 2);
    for (int g = 0; g < 8; g++) {
        int s, m;
        six_bits(b + 4, g, &s, &m);
        float scale = d * (float)s, min = dmin * (float)m;
        for (int l = 0; l < 32; l++) {
            int v = q[g / 2 * 32 + l] >> (g % 2 * 4) & 15;
            if (high) v |= (high[l] >> g & 1) << 4;
            y[32 * g + l] = scale * (float)v - min;
        }
    }
}

static void block_Q4_K(const uint8_t *b, float *y) {
    block_45(b, NULL, b + 16, y);
}
static void block_Q5_K(const uint8_t *b, float *y) {
    block_45(b, b + 16, b + 48, y);
}

/* 128 bytes low nibbles; 64 bytes high bit pairs; 16 int8 scales; f16 d: x = d scale (q - 32).
 * Each half block of 128 has 64 + 32 bytes: element i's nibble is in byte i % 64 (low for i < 64), its bit pair is
 * number i / 32 of byte i % 32. */
static void block_Q6_K(const uint8_t *b, float *y) {
    float d = load_f16(b + 208);
    for (int half = 0; half < 2; half++) {
        const uint8_t *low = b + 64 * half, *high = b + 128 + 32 * half, *scales = b + 192 + 8 * half;
        for (int i = 0; i < 128; i++) {
            int v = (low[i % 64] >> (i / 64 * 4) & 15) | (high[i % 32] >> (i / 32 * 2) & 3) << 4;
            y[128 * half + i] = d * (float)(int8_t)scales[i / 16] * (float)(v - 32);
        }
    }
}

/* f16 d; 16 bits: the high 2 bits of 8 scales; 4 bytes: their low 4; 128 bytes, 16 for each 32 elements:
 * x = d (scale - 32) level(q) */
static void block_IQ4_XS(const uint8_t *b, float *y) {
    float d = load_f16(b);
    uint16_t high = load16(b + 2);
    for (int g = 0; g < 8; g++) {
        int scale = (b[4 + g / 2] >> (g % 2 * 4) & 15) | (high >> (2 * g) & 3) << 4;
        iq4_nibbles(b + 8 + 16 * g, d * (float)(scale - 32), y + 32 * g);
    }
}

/* ---- rows ---- */

#define TYPE(name, id, block, bytes)                                                                                 \
    void tn_decode_##name(const void *src, float *dst, size_t n) {                                                   \
        const uint8_t *b = src;                                                                                      \
        for (size_t i = 0; i < n; i += block, b += bytes) block_##name(b, dst + i);                                  \
    }
#include "quant/types.def"
#undef TYPE
