/* Repacking: the file's blocks -> integers, scales -> planes. */
#include "backend/cuda/pack.h"

#include "base/mem.h"

#include <string.h>

static const struct {
    tn_type type;
    int traits;
} layouts[] = {
#define LAYOUT(type, low, high, scale, off) {TN_TYPE_##type, TN_K_TRAITS(low, high, TN_K_##scale, off)},
#include "backend/cuda/layouts.def"
#undef LAYOUT
};

int tn_cuda_traits(tn_type type) {
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i].type == type) return layouts[i].traits;
    return -1;
}

static size_t scale_bytes(int traits) {
    if (TN_K_LOW(traits) >= 16) return 0;
    return TN_K_SCALE(traits) == TN_K_DM ? 4 : 2;
}
static bool has_super(int traits) {
    return TN_K_LOW(traits) < 16 && TN_K_SCALE(traits) >= TN_K_KM;
}

tn_cuda_planes tn_cuda_row_planes(int traits, int32_t n_in) {
    size_t blocks = ((size_t)n_in + 31) / 32;
    return (tn_cuda_planes){.low = blocks * 4 * (size_t)TN_K_LOW(traits),
                            .high = blocks * 4 * (size_t)TN_K_HIGH(traits),
                            .scale = blocks * scale_bytes(traits),
                            .super = has_super(traits) ? blocks / 8 * 4 : 0};
}

tn_cuda_planes tn_cuda_planes_of(int traits, int32_t n_out, int32_t n_in) {
    size_t rows = tn_align_up((size_t)n_out, 32);
    tn_cuda_planes row = tn_cuda_row_planes(traits, n_in), p = {0};
    p.high = rows * row.low;
    p.scale = p.high + rows * row.high;
    p.super = tn_align_up(p.scale + rows * row.scale, 16);
    p.bytes = tn_align_up(p.super + rows * row.super, 256);
    return p;
}

/* ---- the file's blocks: 32 integers (before `off`), the bytes of their scales ---- */

typedef struct block {
    uint8_t q[32];
    uint32_t scale, super;
} block;

static uint32_t load16(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}
static uint32_t load32(const uint8_t *p) {
    return load16(p) | load16(p + 2) << 16;
}

static void nibbles(block *b, const uint8_t *p) {
    for (int i = 0; i < 16; i++) {
        b->q[i] = p[i] & 15;
        b->q[i + 16] = p[i] >> 4;
    }
}

static void fifth_bits(block *b, uint32_t bits) {
    for (int i = 0; i < 32; i++) b->q[i] |= (uint8_t)((bits >> i & 1) << 4);
}

/* The levels of the IQ4 types. */
static void levels(block *b, const uint8_t *p) {
    static const int8_t level[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    nibbles(b, p);
    for (int i = 0; i < 32; i++) b->q[i] = (uint8_t)level[b->q[i]];
}

/* 32 bytes hold 128 elements: bit pair k of byte l is element 32 k + l. */
static void crumbs(block *b, const uint8_t *p, int g) {
    for (int i = 0; i < 32; i++) b->q[i] = p[g / 4 * 32 + i] >> (g % 4 * 2) & 3;
}

/* Scale and min g of the 12 bytes of Q4_K and Q5_K. */
static uint32_t six_bits(const uint8_t *p, int g) {
    uint32_t s = g < 4 ? p[g] & 63u : (p[g + 4] & 15u) | (uint32_t)(p[g - 4] >> 6 << 4);
    uint32_t m = g < 4 ? p[g + 4] & 63u : (uint32_t)(p[g + 4] >> 4) | (uint32_t)(p[g] >> 6 << 4);
    return s | m << 8;
}

/* Two signed bytes. */
static uint32_t two(int a, int b) {
    return (uint32_t)(uint8_t)a | (uint32_t)(uint8_t)b << 8;
}

static void read_q45_k(block *b, const uint8_t *p, const uint8_t *high, const uint8_t *q, int g) {
    for (int i = 0; i < 32; i++) {
        b->q[i] = q[g / 2 * 32 + i] >> (g % 2 * 4) & 15;
        if (high) b->q[i] |= (uint8_t)((high[i] >> g & 1) << 4);
    }
    b->scale = six_bits(p + 4, g);
    b->super = load32(p);
}

static void read_q6_k(block *b, const uint8_t *p, int g) {
    const uint8_t *low = p + g / 4 * 64 + g % 2 * 32, *high = p + 128 + g / 4 * 32;
    for (int i = 0; i < 32; i++)
        b->q[i] = (uint8_t)((low[i] >> (g % 4 / 2 * 4) & 15) | (high[i] >> (g % 4 * 2) & 3) << 4);
    b->scale = load16(p + 192 + 2 * g);
    b->super = load16(p + 208);
}

static int q3_scale(const uint8_t *p, int s) {
    return (((p[s % 8] >> (s / 8 * 4)) & 15) | (p[8 + s % 4] >> (s / 4 * 2) & 3) << 4) - 32;
}

static void read_q3_k(block *b, const uint8_t *p, int g) {
    crumbs(b, p + 32, g);
    for (int i = 0; i < 32; i++) b->q[i] |= (uint8_t)((p[i] >> g & 1) << 2);
    b->scale = two(q3_scale(p + 96, 2 * g), q3_scale(p + 96, 2 * g + 1));
    b->super = load16(p + 108);
}

static void read_iq4_xs(block *b, const uint8_t *p, int g) {
    int scale = ((p[4 + g / 2] >> (g % 2 * 4) & 15) | (int)(load16(p + 2) >> (2 * g) & 3) << 4) - 32;
    levels(b, p + 8 + 16 * g);
    b->scale = two(scale, scale);
    b->super = load16(p);
}

/* Block g of 32 of the file's block at p. */
static void read_block(block *b, tn_type type, const uint8_t *p, int g) {
    *b = (block){.scale = load16(p)};
    switch (type) {
    case TN_TYPE_Q4_0: nibbles(b, p + 2); break;
    case TN_TYPE_Q4_1: nibbles(b, p + 4), b->scale = load32(p); break;
    case TN_TYPE_Q5_0: nibbles(b, p + 6), fifth_bits(b, load32(p + 2)); break;
    case TN_TYPE_Q5_1: nibbles(b, p + 8), fifth_bits(b, load32(p + 4)), b->scale = load32(p); break;
    case TN_TYPE_Q8_0: memcpy(b->q, p + 2, 32); break;
    case TN_TYPE_IQ4_NL: levels(b, p + 2); break;
    case TN_TYPE_Q2_K: crumbs(b, p + 16, g), b->scale = load16(p + 2 * g), b->super = load32(p + 80); break;
    case TN_TYPE_Q3_K: read_q3_k(b, p, g); break;
    case TN_TYPE_Q4_K: read_q45_k(b, p, NULL, p + 16, g); break;
    case TN_TYPE_Q5_K: read_q45_k(b, p, p + 16, p + 48, g); break;
    case TN_TYPE_Q6_K: read_q6_k(b, p, g); break;
    case TN_TYPE_IQ4_XS: read_iq4_xs(b, p, g); break;
    default: break;
    }
}

/* ---- planes ---- */

static void put_high(uint8_t *to, int bits, const uint8_t *q) {
    uint32_t word[2] = {0};
    if (bits == 0) return;
    for (int i = 0; i < 8; i++) { /* four elements at a time: half i / 4, their bytes in order */
        uint32_t four = load32(q + 4 * i) >> 4;
        if (bits == 1) word[0] |= (four & 0x01010101) << i;
        if (bits == 2) word[i / 4] |= (four & 0x03030303) << (2 * (i % 4));
    }
    memcpy(to, word, 4 * (size_t)bits);
}

static void put_low(uint8_t *plane, int traits, size_t row, size_t blocks, size_t at, const uint8_t *q) {
    uint8_t *to = plane + (row * (size_t)(TN_K_LOW(traits) / 4) * blocks + at) * 16;
    if (TN_K_LOW(traits) == 8) {
        memcpy(to, q, 16);
        memcpy(to + blocks * 16, q + 16, 16);
        return;
    }
    for (int i = 0; i < 16; i++) to[i] = (uint8_t)((q[i] & 15) | q[i + 16] << 4);
}

size_t tn_cuda_matrix_bytes(const tn_weight *w) {
    return tn_cuda_planes_of(tn_cuda_traits(w->type), w->n_out / w->n_expert, w->n_in).bytes;
}

static void pack_row(const tn_weight *w, const uint8_t *from, int traits, const tn_cuda_planes *planes, size_t row,
                     uint8_t *to) {
    const tn_type_info *info = tn_type_get(w->type);
    size_t blocks = ((size_t)w->n_in + 31) / 32, per = (size_t)info->block / 32;
    for (size_t i = 0; i < blocks; i++) {
        block b;
        size_t at = (row / 4 * blocks + i) * 4 + row % 4;
        read_block(&b, w->type, from + i / per * (size_t)info->bytes, (int)(i % per));
        put_low(to + planes->low, traits, row, blocks, i, b.q);
        put_high(to + planes->high + at * 4 * (size_t)TN_K_HIGH(traits), TN_K_HIGH(traits), b.q);
        memcpy(to + planes->scale + at * scale_bytes(traits), &b.scale, scale_bytes(traits));
        if (has_super(traits) && i % 8 == 0)
            memcpy(to + planes->super + ((row / 4 * (blocks / 8) + i / 8) * 4 + row % 4) * 4, &b.super, 4);
    }
}

/* Plain floats: only cut into pieces. */
static void pack_float_row(const tn_weight *w, const uint8_t *from, int traits, size_t row, uint8_t *to) {
    size_t blocks = ((size_t)w->n_in + 31) / 32, bytes = (size_t)TN_K_LOW(traits) / 8, each = 16 / bytes;
    uint8_t *plane = to + row * (size_t)(TN_K_LOW(traits) / 4) * blocks * 16;
    for (size_t i = 0; i < (size_t)w->n_in; i++) {
        size_t piece = i % 32 / each, at = (piece * blocks + i / 32) * 16 + i % each * bytes;
        memcpy(plane + at, from + i * bytes, bytes);
    }
}

void tn_cuda_pack(const tn_weight *w, const tn_cuda_rows *rows, int32_t begin, int32_t end, void *to) {
    int traits = tn_cuda_traits(w->type);
    int32_t first = rows->expert * (w->n_out / w->n_expert) + rows->first;
    tn_cuda_planes planes = tn_cuda_planes_of(traits, rows->n, w->n_in);
    for (int32_t row = 4 * begin; row < 4 * end && row < rows->n; row++) {
        const uint8_t *from = tn_weight_row(w, first + row);
        if (TN_K_LOW(traits) >= 16)
            pack_float_row(w, from, traits, (size_t)row, to);
        else
            pack_row(w, from, traits, &planes, (size_t)row, to);
    }
}
