/* Floats -> blocks, for the types whose encoding is plain rounding. Every step is that of ggml's reference
 * quantisers, because files must come out equal to those that llama-quantize writes: which of two equal magnitudes
 * counts, scales kept in f32 while rounding, the added half in front of a truncation. Products and sums are rounded
 * separately (no fused multiply-add). */
#include "base/half.h"
#include "quant/codec.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static void store16(uint8_t *p, uint16_t v) {
    memcpy(p, &v, sizeof v);
}
static void store32(uint8_t *p, uint32_t v) {
    memcpy(p, &v, sizeof v);
}
static void store_f16(uint8_t *p, float f) {
    store16(p, tn_f32_to_f16(f));
}

/* ---- plain floats ---- */

static void block_F32(const float *x, uint8_t *b) {
    store32(b, tn_float_bits(*x));
}
static void block_F16(const float *x, uint8_t *b) {
    store_f16(b, *x);
}
static void block_BF16(const float *x, uint8_t *b) {
    store16(b, tn_f32_to_bf16(*x));
}

/* ---- blocks of 32 ---- */

/* The element of greatest magnitude, with its sign; the first of equals. */
static float extreme(const float *x) {
    float top = 0, magnitude = 0;
    for (int i = 0; i < 32; i++) {
        if (fabsf(x[i]) > magnitude) magnitude = fabsf(top = x[i]);
    }
    return top;
}

static void range(const float *x, float *min, float *max) {
    *min = *max = x[0];
    for (int i = 1; i < 32; i++) {
        if (x[i] < *min) *min = x[i];
        if (x[i] > *max) *max = x[i];
    }
}

/* 1 / d, or 0 where there is nothing to scale. */
static float inverse(float d) {
    return d != 0 ? 1 / d : 0;
}

/* Truncates x into 0..top. Written so that a NaN or an infinity, which a weight should not have, gives 0 or top. */
static int level(float x, int top) {
    if (!(x > 0)) return 0;
    return x >= (float)top ? top : (int)x;
}

/* q[i] = trunc((x[i] - offset) * scale + half) */
static void levels(const float *x, float offset, float scale, float half, int top, int *q) {
    for (int i = 0; i < 32; i++) {
        float scaled = (x[i] - offset) * scale;
        q[i] = level(scaled + half, top);
    }
}

/* Byte j: the low 4 bits of elements j and j + 16. */
static void store_nibbles(const int *q, uint8_t *b) {
    for (int j = 0; j < 16; j++) b[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

static void store_fifth_bits(const int *q, uint8_t *b) {
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) bits |= (uint32_t)(q[i] >> 4 & 1) << i;
    store32(b, bits);
}

/* The extreme element becomes level 0, whatever its sign: d = extreme / -8 */
static void block_Q4_0(const float *x, uint8_t *b) {
    int q[32];
    float d = extreme(x) / -8;
    store_f16(b, d);
    levels(x, 0, inverse(d), 8.5f, 15, q);
    store_nibbles(q, b + 2);
}

static void block_Q5_0(const float *x, uint8_t *b) {
    int q[32];
    float d = extreme(x) / -16;
    store_f16(b, d);
    levels(x, 0, inverse(d), 16.5f, 31, q);
    store_fifth_bits(q, b + 2);
    store_nibbles(q, b + 6);
}

static void block_Q4_1(const float *x, uint8_t *b) {
    int q[32];
    float min, max;
    range(x, &min, &max);
    float d = (max - min) / 15;
    store_f16(b, d);
    store_f16(b + 2, min);
    levels(x, min, inverse(d), 0.5f, 15, q);
    store_nibbles(q, b + 4);
}

static void block_Q5_1(const float *x, uint8_t *b) {
    int q[32];
    float min, max;
    range(x, &min, &max);
    float d = (max - min) / 31;
    store_f16(b, d);
    store_f16(b + 2, min);
    levels(x, min, inverse(d), 0.5f, 31, q);
    store_fifth_bits(q, b + 4);
    store_nibbles(q, b + 8);
}

/* Rounds halves away from zero. */
static void block_Q8_0(const float *x, uint8_t *b) {
    float d = fabsf(extreme(x)) / 127, scale = inverse(d);
    store_f16(b, d);
    for (int i = 0; i < 32; i++) {
        float scaled = roundf(x[i] * scale);
        b[2 + i] = (uint8_t)(int8_t)(fabsf(scaled) <= 127 ? scaled : 0);
    }
}

/* ---- rows ---- */

enum {
#define TYPE(name, id, block, bytes) BLOCK_##name = block, BYTES_##name = bytes,
#include "quant/types.def"
#undef TYPE
};

#define ROW(name)                                                                                                    \
    void tn_encode_##name(const float *src, void *dst, size_t n) {                                                   \
        uint8_t *b = dst;                                                                                            \
        for (size_t i = 0; i < n; i += BLOCK_##name, b += BYTES_##name) block_##name(src + i, b);                    \
    }
ROW(F32)
ROW(F16)
ROW(BF16)
ROW(Q4_0)
ROW(Q4_1)
ROW(Q5_0)
ROW(Q5_1)
ROW(Q8_0)
