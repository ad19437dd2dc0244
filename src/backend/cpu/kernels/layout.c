/* Packing rows into TILE16 and reading one row back. The kernels of matmul.isa.c read what is written here; the bytes
 * are described in layout.h. Integers are handled four at a time, as the bytes of a uint32_t (little-endian). */
#include "backend/cpu/kernels/layout.h"

#include "backend/cpu/kernels/matmul.h"
#include "base/half.h"
#include "base/mem.h"

#include <string.h>

const uint8_t tn_iq4_u[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

enum { ROWS = TN_TILE_ROWS };

static inline uint32_t load32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static inline void store32(uint8_t *p, uint32_t v) {
    memcpy(p, &v, 4);
}
static inline uint16_t load16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline void store16(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v, p[1] = (uint8_t)(v >> 8);
}

/* ---- a block of 32 columns of one row in the file -> u, groups of four columns ---- */

#define LOW4 0x0f0f0f0fu
#define LOW2 0x03030303u
#define LOW1 0x01010101u

/* Byte j of qs holds the elements j and j + 16. */
TN_INLINE void unpack_nibbles(const uint8_t *qs, uint32_t u[8]) {
    for (int g = 0; g < 4; g++) {
        uint32_t v = load32(qs + 4 * g);
        u[g] = v & LOW4, u[g + 4] = v >> 4 & LOW4;
    }
}

/* Adds bit 4 of 32 elements from 32 bits: 4 bits are spread to 4 bytes by one multiplication. */
TN_INLINE void add_fifth(uint32_t bits, uint32_t u[8]) {
    for (int h = 0; h < 8; h++) u[h] |= ((bits >> 4 * h & 15) * 0x00204081u & LOW1) << 4;
}

/* Block c (of 8) of the types of 256 columns whose quants share their bytes among blocks. */
TN_INLINE void unpack_q2_k(const uint8_t *b, int c, uint32_t u[8]) {
    for (int h = 0; h < 8; h++) u[h] = load32(b + 16 + 32 * (c / 4) + 4 * h) >> 2 * (c % 4) & LOW2;
}
TN_INLINE void unpack_q3_k(const uint8_t *b, int c, uint32_t u[8]) {
    for (int h = 0; h < 8; h++)
        u[h] = (load32(b + 32 + 32 * (c / 4) + 4 * h) >> 2 * (c % 4) & LOW2) | (load32(b + 4 * h) >> c & LOW1) << 2;
}
TN_INLINE void unpack_q4_k(const uint8_t *qs, int c, uint32_t u[8]) {
    for (int h = 0; h < 8; h++) u[h] = load32(qs + 32 * (c / 2) + 4 * h) >> 4 * (c % 2) & LOW4;
}
TN_INLINE void unpack_q5_k(const uint8_t *b, int c, uint32_t u[8]) {
    unpack_q4_k(b + 48, c, u);
    for (int h = 0; h < 8; h++) u[h] |= (load32(b + 16 + 4 * h) >> c & LOW1) << 4;
}
TN_INLINE void unpack_q6_k(const uint8_t *b, int c, uint32_t u[8]) {
    const uint8_t *low = b + 64 * (c / 4) + 32 * (c % 2), *high = b + 128 + 32 * (c / 4);
    for (int h = 0; h < 8; h++)
        u[h] = (load32(low + 4 * h) >> 4 * (c % 4 / 2) & LOW4) | (load32(high + 4 * h) >> 2 * (c % 4) & LOW2) << 4;
}

/* Block c of the file's block b. */
TN_INLINE void unpack(tn_type type, const uint8_t *b, int c, uint32_t u[8]) {
    switch (type) {
    case TN_TYPE_Q4_0:
    case TN_TYPE_IQ4_NL: unpack_nibbles(b + 2, u); break;
    case TN_TYPE_Q4_1: unpack_nibbles(b + 4, u); break;
    case TN_TYPE_Q5_0: unpack_nibbles(b + 6, u), add_fifth(load32(b + 2), u); break;
    case TN_TYPE_Q5_1: unpack_nibbles(b + 8, u), add_fifth(load32(b + 4), u); break;
    case TN_TYPE_Q8_0:
        for (int h = 0; h < 8; h++) u[h] = load32(b + 2 + 4 * h) ^ 0x80808080u;
        break;
    case TN_TYPE_IQ4_XS: unpack_nibbles(b + 8 + 16 * c, u); break;
    case TN_TYPE_Q2_K: unpack_q2_k(b, c, u); break;
    case TN_TYPE_Q3_K: unpack_q3_k(b, c, u); break;
    case TN_TYPE_Q4_K: unpack_q4_k(b + 16, c, u); break;
    case TN_TYPE_Q5_K: unpack_q5_k(b, c, u); break;
    case TN_TYPE_Q6_K: unpack_q6_k(b, c, u); break;
    default: break;
    }
}

/* ---- u of one row <-> planes; p is at the row's first byte of the block ---- */

TN_INLINE uint8_t *put_nibbles(uint8_t *p, const uint32_t u[8]) {
    for (int g = 0; g < 4; g++, p += 64) store32(p, (u[g] & LOW4) | (u[g + 4] & LOW4) << 4);
    return p;
}
TN_INLINE uint8_t *put_pairs(uint8_t *p, const uint32_t u[8], int bit) {
    for (int g = 0; g < 8; g += 4, p += 64) {
        uint32_t v = 0;
        for (int i = 0; i < 4; i++) v |= (u[g + i] >> bit & LOW2) << 2 * i;
        store32(p, v);
    }
    return p;
}
TN_INLINE uint8_t *put_bit(uint8_t *p, const uint32_t u[8], int bit) {
    uint32_t v = 0;
    for (int h = 0; h < 8; h++) v |= (u[h] >> bit & LOW1) << h;
    store32(p, v);
    return p + 64;
}

TN_INLINE void put(int bits, uint8_t *p, const uint32_t u[8]) {
    if (bits == 8)
        for (int h = 0; h < 8; h++) store32(p + 64 * h, u[h]);
    if (bits >= 4 && bits <= 6) p = put_nibbles(p, u);
    if (bits == 5) p = put_bit(p, u, 4);
    if (bits == 6) p = put_pairs(p, u, 4);
    if (bits <= 3) p = put_pairs(p, u, 0);
    if (bits == 3) p = put_bit(p, u, 2);
}

static void get(int bits, const uint8_t *p, uint32_t u[8]) {
    for (int h = 0; h < 8; h++) {
        uint32_t nibble = load32(p + 64 * (h & 3)) >> (h & 4) & LOW4;
        uint32_t low_pair = load32(p + 64 * (h >> 2)) >> 2 * (h & 3) & LOW2;
        switch (bits) {
        case 8: u[h] = load32(p + 64 * h); break;
        case 4: u[h] = nibble; break;
        case 5: u[h] = nibble | (load32(p + 256) >> h & LOW1) << 4; break;
        case 6: u[h] = nibble | (load32(p + 256 + 64 * (h >> 2)) >> 2 * (h & 3) & LOW2) << 4; break;
        case 2: u[h] = low_pair; break;
        case 3: u[h] = low_pair | (load32(p + 128) >> h & LOW1) << 2; break;
        }
    }
}

/* ---- heads ---- */

/* The eight 6-bit scales and minima of Q4_K and Q5_K. */
static void k_scales(const uint8_t *s, uint8_t sc[8], uint8_t m[8]) {
    for (int i = 0; i < 4; i++) {
        sc[i] = s[i] & 63, m[i] = s[i + 4] & 63;
        sc[i + 4] = (uint8_t)((s[i + 8] & 15) | s[i] >> 6 << 4);
        m[i + 4] = (uint8_t)(s[i + 8] >> 4 | s[i + 4] >> 6 << 4);
    }
}

static uint8_t q3_k_scale(const uint8_t *s, int i) {
    int low = (i < 8 ? s[i] : s[i - 8] >> 4) & 15, high = s[8 + i % 4] >> 2 * (i / 4) & 3;
    return (uint8_t)((low | high << 4) - 32);
}
static uint8_t iq4_xs_scale(const uint8_t *b, int i) {
    int low = b[4 + i / 2] >> 4 * (i % 2) & 15, high = load16(b + 2) >> 2 * i & 3;
    return (uint8_t)((low | high << 4) - 32);
}

/* Head of row r. Bit 15 of a half is its sign: m = -dmin. */
TN_INLINE void put_head(tn_type type, const uint8_t *b, int r, uint8_t *head) {
    uint8_t *d = head + 2 * r, *m = d + 32, *sub;
    uint8_t sc[8], mn[8];
    switch (type) {
    case TN_TYPE_Q4_1:
    case TN_TYPE_Q5_1: store16(m, load16(b + 2)); /* fall through */
    case TN_TYPE_Q4_0:
    case TN_TYPE_Q5_0:
    case TN_TYPE_Q8_0:
    case TN_TYPE_IQ4_NL: store16(d, load16(b)); break;
    case TN_TYPE_IQ4_XS:
        store16(d, load16(b)), sub = head + 32 + r;
        for (int i = 0; i < 8; i++) sub[16 * i] = iq4_xs_scale(b, i);
        break;
    case TN_TYPE_Q2_K:
        store16(d, load16(b + 80)), store16(m, load16(b + 82) ^ 0x8000u), sub = head + 64 + r;
        for (int i = 0; i < 16; i++) sub[16 * i] = b[i];
        break;
    case TN_TYPE_Q3_K:
        store16(d, load16(b + 108)), sub = head + 32 + r;
        for (int i = 0; i < 16; i++) sub[16 * i] = q3_k_scale(b + 96, i);
        break;
    case TN_TYPE_Q4_K:
    case TN_TYPE_Q5_K:
        store16(d, load16(b)), store16(m, load16(b + 2) ^ 0x8000u), sub = head + 64 + r;
        k_scales(b + 4, sc, mn);
        for (int i = 0; i < 8; i++) sub[16 * i] = sc[i], sub[128 + 16 * i] = mn[i];
        break;
    case TN_TYPE_Q6_K:
        store16(d, load16(b + 208)), sub = head + 32 + r;
        for (int i = 0; i < 16; i++) sub[16 * i] = b[192 + i];
        break;
    default: break;
    }
}

/* Scale of the half block c16 (of 16 columns) of a row; *m its minimum, or 0. */
static float get_scale(tn_type type, const uint8_t *head, int r, int c16, float *m) {
    float d = tn_f16_to_f32(load16(head + 2 * r));
    const uint8_t *sub = head + 32 + r;
    *m = tn_tile_format_of(type).mins ? tn_f16_to_f32(load16(head + 32 + 2 * r)) : 0;
    switch (type) {
    case TN_TYPE_IQ4_XS: return d * (float)(int8_t)sub[16 * (c16 / 2)];
    case TN_TYPE_Q3_K:
    case TN_TYPE_Q6_K: return d * (float)(int8_t)sub[16 * c16];
    case TN_TYPE_Q2_K: *m *= (float)(sub[32 + 16 * c16] >> 4); return d * (float)(sub[32 + 16 * c16] & 15);
    case TN_TYPE_Q4_K:
    case TN_TYPE_Q5_K: *m *= (float)sub[160 + 16 * (c16 / 2)]; return d * (float)sub[32 + 16 * (c16 / 2)];
    default: return d;
    }
}

/* ---- whole tiles ---- */

size_t tn_tile_bytes(tn_type type, int32_t n_in) {
    tn_tile_format f = tn_tile_format_of(type);
    if (f.cols == 0 || n_in < 0 || n_in % f.cols != 0) return 0;
    return tn_align_up((size_t)(n_in / f.cols) * (size_t)tn_tile_chunk(f), 64);
}

/* Row after row of one file block each; absent rows point at a block of zeros, with step 0. */
typedef struct rows16 {
    const uint8_t *p[ROWS];
    size_t step[ROWS];
} rows16;

TN_INLINE void pack_tile(tn_type type, rows16 *from, int32_t n_in, uint8_t *to) {
    tn_tile_format f = tn_tile_format_of(type);
    for (int32_t k = 0; k < n_in; k += f.cols, to += tn_tile_chunk(f)) {
        for (int r = 0; r < ROWS; r++) {
            const uint8_t *b = from->p[r];
            put_head(type, b, r, to);
            for (int c = 0; c < f.cols / 32; c++) {
                uint32_t u[8];
                unpack(type, b, c, u);
                put(f.bits, to + f.head + c * f.quants + 4 * r, u);
            }
            from->p[r] = b + from->step[r];
        }
    }
}

/* Float types: a transposition of elements of 2 or 4 bytes. */
TN_INLINE void pack_floats(rows16 *from, int32_t n_in, uint8_t *to, size_t size) {
    for (int32_t k = 0; k < n_in; k++)
        for (int r = 0; r < ROWS; r++, to += size) {
            memcpy(to, from->p[r], size);
            from->p[r] += from->step[r];
        }
}

static void pack_any(tn_type type, rows16 *from, int32_t n_in, uint8_t *to) {
    switch (type) {
#define CASE(name)                                                                                                   \
    case TN_TYPE_##name: pack_tile(TN_TYPE_##name, from, n_in, to); break;
        CASE(Q4_0)
        CASE(Q4_1)
        CASE(Q5_0)
        CASE(Q5_1)
        CASE(Q8_0)
        CASE(IQ4_NL)
        CASE(IQ4_XS)
        CASE(Q2_K)
        CASE(Q3_K)
        CASE(Q4_K)
        CASE(Q5_K)
        CASE(Q6_K)
#undef CASE
    case TN_TYPE_F32: pack_floats(from, n_in, to, 4); break;
    case TN_TYPE_F16:
    case TN_TYPE_BF16: pack_floats(from, n_in, to, 2); break;
    default: break;
    }
}

void tn_tile_pack(const tn_cpu_weight *rows, int32_t t0, int32_t t1, void *tiles) {
    static const uint8_t zeros[256];
    size_t tile_bytes = tn_tile_bytes(rows->type, rows->n_in);
    size_t used = (size_t)(rows->n_in / tn_tile_format_of(rows->type).cols) *
                  (size_t)tn_tile_chunk(tn_tile_format_of(rows->type));
    for (int32_t t = t0; t < t1; t++) {
        uint8_t *to = (uint8_t *)tiles + (size_t)t * tile_bytes;
        rows16 from;
        for (int i = 0; i < ROWS; i++) {
            int64_t r = (int64_t)t * ROWS + i;
            bool there = r < rows->n_out;
            from.p[i] = there ? (const uint8_t *)rows->data + (size_t)r * rows->stride : zeros;
            from.step[i] = there ? (size_t)tn_type_get(rows->type)->bytes : 0;
        }
        pack_any(rows->type, &from, rows->n_in, to);
        memset(to + used, 0, tile_bytes - used);
    }
}

static void float_row(tn_type type, const uint8_t *p, int32_t n_in, float *dst) {
    for (int32_t k = 0; k < n_in; k++) {
        const uint8_t *e = p + (type == TN_TYPE_F32 ? 64 : 32) * (size_t)k;
        if (type == TN_TYPE_F32) dst[k] = tn_bits_float(load32(e));
        if (type == TN_TYPE_F16) dst[k] = tn_f16_to_f32(load16(e));
        if (type == TN_TYPE_BF16) dst[k] = tn_bf16_to_f32(load16(e));
    }
}

void tn_weight_row_tile16(const tn_cpu_weight *w, int32_t r, float *dst) {
    tn_tile_format f = tn_tile_format_of(w->type);
    bool codebook = w->type == TN_TYPE_IQ4_NL || w->type == TN_TYPE_IQ4_XS;
    const uint8_t *tile = (const uint8_t *)w->data + (size_t)(r / ROWS) * w->stride;
    int lane = r % ROWS;
    if (f.bits == 0) {
        float_row(w->type, tile + lane * (w->type == TN_TYPE_F32 ? 4 : 2), w->n_in, dst);
        return;
    }
    for (int32_t k = 0; k < w->n_in; k += 32, dst += 32) {
        const uint8_t *head = tile + (size_t)(k / f.cols) * (size_t)tn_tile_chunk(f);
        int c = k % f.cols / 32;
        uint32_t u[8];
        get(f.bits, head + f.head + c * f.quants + 4 * lane, u);
        for (int i = 0; i < 32; i++) {
            float m, d = get_scale(w->type, head, lane, 2 * c + i / 16, &m);
            int q = (int)(u[i / 4] >> 8 * (i % 4) & 255);
            float y = d * (float)((codebook ? tn_iq4_u[q] : q) - f.zero);
            dst[i] = f.mins ? y + m : y;
        }
    }
}
