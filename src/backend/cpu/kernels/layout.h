/* TILE16: the weight layout of the SIMD kernels. 16 rows lie together, so that a vector lane is a row: dot products
 * need no horizontal sums and one activation value serves 16 rows.
 *
 * A weight of n_out rows is ceil(n_out / 16) tiles, each padded to a multiple of 64 bytes; rows past n_out are zeros.
 * A tile is a run of chunks, one per `cols` columns (32, or 256 for the K types). A chunk is a head with the scales,
 * then the quants of its blocks of 32 columns, one block after the other.
 *
 * Quants. Every type's integers are brought to u, unsigned, with w = d * (u - zero) + m. The u[row][column] of a block
 * are cut into planes; a plane is 64-byte vectors in which byte 4r + j belongs to row r (r < 16) and a column 4h + j
 * (j < 4), so that a group h (h < 8) of four columns is what one 8-bit dot-product instruction takes with four bytes
 * of activation:
 *   N: nibbles  4 vectors; vector g: low nibble = u & 15 of group g, high nibble = that of group g + 4
 *   B: a bit    1 vector; bit h of a byte = one bit of u of group h
 *   P: pairs    2 vectors; vector p: bits 2i, 2i + 1 of a byte = two bits of u of group 4p + i
 *   U: bytes    8 vectors; vector h = u of group h
 *
 * Head. Arrays over the 16 rows: f16 d[16], f16 m[16] (in the K types m is -dmin, the sign bit being flipped, so that
 * it is always added), and for the K types the sub-scales as bytes: sc[8] of 32 columns each, sc[16] of 16 each. Then
 * the weight's scale is d * sc and its minimum m * mn.
 *
 *   type        cols  head                            planes of a block         zero  bytes   16 of the file's
 *   Q4_0        32    d                               N                         8     288     288
 *   Q4_1        32    d, m                            N                         0     320     320
 *   Q5_0        32    d                               N, B (bit 4)              16    352     352
 *   Q5_1        32    d, m                            N, B (bit 4)              0     384     384
 *   Q8_0        32    d                               U (the file's + 128)      128   544     544
 *   IQ4_NL      32    d                               N (i of u = tn_iq4_u[i])  128   288     288
 *   IQ4_XS      256   d, i8 sc[8][16]                 N (likewise)              128   2208    2176
 *   Q2_K        256   d, m, u8 (sc | mn << 4)[16][16] P (bits 0, 1)             0     1344    1344
 *   Q3_K        256   d, i8 sc[16][16]                P (bits 0, 1), B (bit 2)  4     1824    1760
 *   Q4_K        256   d, m, u8 sc[8][16], mn[8][16]   N                         0     2368    2304
 *   Q5_K        256   d, m, u8 sc[8][16], mn[8][16]   N, B (bit 4)              0     2880    2816
 *   Q6_K        256   d, i8 sc[16][16]                N, P (bits 4, 5)          32    3360    3360
 *   F32         1     -                               float[16]                       64      64
 *   F16, BF16   1     -                               16 bits [16]                    32      32 */
#ifndef TN_CPU_LAYOUT_H
#define TN_CPU_LAYOUT_H

#include "backend/cpu/kernels/isa.h"
#include "backend/cpu/kernels/kernels.h"

/* What the kernels must know of a type; folds to constants where the type is one. */
typedef struct tn_tile_format {
    int cols;   /* columns of a chunk; 0: the type has no tiles */
    int head;   /* bytes of a chunk's head */
    int quants; /* bytes of a block of 32 columns (of one column for the float types) */
    int bits;   /* of u; 4, 5, 6, 8, 2, 3 tell the planes; 0: float */
    int zero;
    int subs;  /* scales in a block of 32: 1 or 2 */
    bool mins; /* there is an m */
} tn_tile_format;

TN_INLINE tn_tile_format tn_tile_format_of(tn_type type) {
    switch (type) {
    /*                                         cols head quants bits zero subs mins */
    case TN_TYPE_Q4_0: return (tn_tile_format){32, 32, 256, 4, 8, 1, false};
    case TN_TYPE_Q4_1: return (tn_tile_format){32, 64, 256, 4, 0, 1, true};
    case TN_TYPE_Q5_0: return (tn_tile_format){32, 32, 320, 5, 16, 1, false};
    case TN_TYPE_Q5_1: return (tn_tile_format){32, 64, 320, 5, 0, 1, true};
    case TN_TYPE_Q8_0: return (tn_tile_format){32, 32, 512, 8, 128, 1, false};
    case TN_TYPE_IQ4_NL: return (tn_tile_format){32, 32, 256, 4, 128, 1, false};
    case TN_TYPE_IQ4_XS: return (tn_tile_format){256, 160, 256, 4, 128, 1, false};
    case TN_TYPE_Q2_K: return (tn_tile_format){256, 320, 128, 2, 0, 2, true};
    case TN_TYPE_Q3_K: return (tn_tile_format){256, 288, 192, 3, 4, 2, false};
    case TN_TYPE_Q4_K: return (tn_tile_format){256, 320, 256, 4, 0, 1, true};
    case TN_TYPE_Q5_K: return (tn_tile_format){256, 320, 320, 5, 0, 1, true};
    case TN_TYPE_Q6_K: return (tn_tile_format){256, 288, 384, 6, 32, 2, false};
    case TN_TYPE_F32: return (tn_tile_format){.cols = 1, .quants = 64};
    case TN_TYPE_F16: return (tn_tile_format){.cols = 1, .quants = 32};
    case TN_TYPE_BF16: return (tn_tile_format){.cols = 1, .quants = 32};
    default: return (tn_tile_format){0};
    }
}

/* Bytes of a chunk. */
TN_INLINE int tn_tile_chunk(tn_tile_format f) {
    return f.head + (f.cols < 32 ? f.cols : f.cols / 32) * f.quants;
}

/* The codebook of IQ4_NL and IQ4_XS: its values + 128. */
extern const uint8_t tn_iq4_u[16];

/* Bytes of a tile (its stride); 0 when the type has no tiles or n_in is not whole chunks. */
size_t tn_tile_bytes(tn_type type, int32_t n_in);
/* Packs tiles [t0, t1) of a weight in ROWS. `tiles` is where tile 0 lies. */
void tn_tile_pack(const tn_cpu_weight *rows, int32_t t0, int32_t t1, void *tiles);

#endif
