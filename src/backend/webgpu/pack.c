/* From blocks as a file has them to blocks as the shaders want them: 32 weights, whose bits lie so that a mask and a shift
 * give four of them, in order, as the four bytes of a word. Word k (0..7) holds elements 4k .. 4k + 3:
 *   8 bits   word k of 8
 *   4 bits   bits 0-3 of word k of 4, words 4..7 in bits 4-7
 *   2 bits   bits 2k of word 0, words 4..7 in word 1
 *   1 bit    bit k of the one word */
#include "backend/webgpu/webgpu.h"

#include <string.h>

static uint16_t load16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}
static uint32_t load32(const uint8_t *p) {
    return load16(p) | (uint32_t)load16(p + 2) << 16;
}

/* Adds element i's `bits` low bits to words in the order above. */
static void put(uint32_t *words, int bits, int i, uint32_t v) {
    int k = i / 4, byte = i % 4 * 8, per_word = 8 / bits;
    int word = bits == 4 ? k % 4 : k / per_word, place = bits == 4 ? k / 4 : k % per_word;
    words[word] |= (v & ((1u << bits) - 1)) << (byte + place * bits);
}

static void put_all(uint32_t *words, int bits, const uint8_t *q, int shift) {
    for (int i = 0; i < 32; i++) put(words, bits, i, (uint32_t)q[i] >> shift);
}

/* Each pack_X: the block of 32 elements at element i of a row in the file's layout. */
#define PACK(name)                                                                                                   \
    static void pack_##name(const uint8_t *row, int32_t i, uint32_t *quants, uint32_t *high, uint32_t *scale,        \
                            uint32_t *super)
#define UNUSED(a, b) (void)(a), (void)(b)

PACK(F32) {
    UNUSED(high, scale), (void)super;
    memcpy(quants, row + (size_t)i * 4, 128);
}
PACK(F16) {
    UNUSED(high, scale), (void)super;
    memcpy(quants, row + (size_t)i * 2, 64);
}
#define pack_BF16 pack_F16

/* Types of blocks of 32: bytes in a block, where the nibbles begin; low nibbles are elements 0..15. */
static const uint8_t *nibbles(const uint8_t *row, int32_t i, int bytes, int at, uint8_t *q) {
    const uint8_t *b = row + (size_t)(i / 32) * (size_t)bytes;
    for (int j = 0; j < 16; j++) {
        q[j] = b[at + j] & 15;
        q[j + 16] = b[at + j] >> 4;
    }
    return b;
}

PACK(Q4_0) {
    UNUSED(high, super);
    uint8_t q[32];
    *scale = load16(nibbles(row, i, 18, 2, q));
    put_all(quants, 4, q, 0);
}
#define pack_IQ4_NL pack_Q4_0
PACK(Q4_1) {
    UNUSED(high, super);
    uint8_t q[32];
    *scale = load32(nibbles(row, i, 20, 4, q));
    put_all(quants, 4, q, 0);
}
PACK(Q5_0) {
    (void)super;
    uint8_t q[32];
    const uint8_t *b = nibbles(row, i, 22, 6, q);
    *scale = load16(b);
    put_all(quants, 4, q, 0);
    for (int j = 0; j < 32; j++) put(high, 1, j, load32(b + 2) >> j);
}
PACK(Q5_1) {
    (void)super;
    uint8_t q[32];
    const uint8_t *b = nibbles(row, i, 24, 8, q);
    *scale = load32(b);
    put_all(quants, 4, q, 0);
    for (int j = 0; j < 32; j++) put(high, 1, j, load32(b + 4) >> j);
}
PACK(Q8_0) {
    UNUSED(high, super);
    const uint8_t *b = row + (size_t)(i / 32) * 34;
    *scale = load16(b);
    memcpy(quants, b + 2, 32);
}

/* Types of blocks of 256; g: which 32 of them. */
PACK(Q2_K) {
    (void)high;
    const uint8_t *b = row + (size_t)(i / 256) * 84;
    int g = i % 256 / 32;
    *scale = load16(b + 2 * g);
    put_all(quants, 2, b + 16 + g / 4 * 32, g % 4 * 2);
    if (super) *super = load32(b + 80);
}
PACK(Q3_K) {
    const uint8_t *b = row + (size_t)(i / 256) * 110, *scales = b + 96;
    int g = i % 256 / 32;
    put_all(quants, 2, b + 32 + g / 4 * 32, g % 4 * 2);
    put_all(high, 1, b, g);
    for (int half = 0; half < 2; half++) {
        int s = 2 * g + half;
        int low = scales[s % 8] >> (s / 8 * 4) & 15, top = scales[8 + s % 4] >> (s / 4 * 2) & 3;
        *scale |= ((uint32_t)((low | top << 4) - 32) & 0xff) << (8 * half);
    }
    if (super) *super = load16(b + 108);
}

/* Scale and min number g of the 12 bytes of Q4_K and Q5_K, 6 bits each, as two bytes. */
static uint32_t six_bits(const uint8_t *p, int g) {
    int scale = g < 4 ? p[g] & 63 : (p[g + 4] & 15) | p[g - 4] >> 6 << 4;
    int min = g < 4 ? p[g + 4] & 63 : p[g + 4] >> 4 | p[g] >> 6 << 4;
    return (uint32_t)(scale | min << 8);
}
PACK(Q4_K) {
    (void)high;
    const uint8_t *b = row + (size_t)(i / 256) * 144;
    int g = i % 256 / 32;
    put_all(quants, 4, b + 16 + g / 2 * 32, g % 2 * 4);
    *scale = six_bits(b + 4, g);
    if (super) *super = load32(b);
}
PACK(Q5_K) {
    const uint8_t *b = row + (size_t)(i / 256) * 176;
    int g = i % 256 / 32;
    put_all(quants, 4, b + 48 + g / 2 * 32, g % 2 * 4);
    put_all(high, 1, b + 16, g);
    *scale = six_bits(b + 4, g);
    if (super) *super = load32(b);
}
PACK(Q6_K) {
    const uint8_t *b = row + (size_t)(i / 256) * 210;
    int g = i % 256 / 32, half = g / 4, part = g % 4;
    put_all(quants, 4, b + 64 * half + part % 2 * 32, part / 2 * 4);
    put_all(high, 2, b + 128 + 32 * half, part * 2);
    *scale = load16(b + 192 + 2 * g);
    if (super) *super = load16(b + 208);
}
PACK(IQ4_XS) {
    (void)high;
    const uint8_t *b = row + (size_t)(i / 256) * 136;
    int g = i % 256 / 32;
    uint8_t q[32];
    nibbles(b + 8 + 16 * g, 0, 0, 0, q);
    put_all(quants, 4, q, 0);
    *scale = (uint32_t)(((b[4 + g / 2] >> (g % 2 * 4) & 15) | (load16(b + 2) >> (2 * g) & 3) << 4) - 32) & 0xff;
    if (super) *super = load16(b);
}

static const tn_webgpu_type types[] = {
#define TYPE(NAME, name, quants, high, scale_bytes, super, floats, scales)                                           \
    {TN_TYPE_##NAME, #name, quants, high, scale_bytes, super, floats, scales, pack_##NAME},
#include "backend/webgpu/types.def"
#undef TYPE
};

const tn_webgpu_type *tn_webgpu_type_of(tn_type type) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == type) return &types[i];
    return NULL;
}
