/* What a CPU kernel is: the signatures that kernels.def rows name. Kernels know nothing of graphs, plans or threads;
 * they are pure functions over rows and tiles. Every family has a scalar form (`..__ref`) that is the definition.
 *
 * Same bits, however the work is cut: a result element may depend only on its own row of operands, never on how many
 * tokens, rows or columns one call handles. So each kernel fixes its order of floating-point operations per element. */
#ifndef TN_CPU_KERNELS_H
#define TN_CPU_KERNELS_H

#include "quant/quant.h"
#include "tenon.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Instruction sets, worst first: NEON with the dot product of ARMv8.2, AVX-512 with VNNI. Chosen once, when the device
 * opens. */
typedef enum tn_isa { TN_ISA_REF, TN_ISA_NEON, TN_ISA_AVX2, TN_ISA_AVX512, TN_ISA_COUNT } tn_isa;
bool tn_isa_has(tn_isa isa); /* this processor */
tn_isa tn_isa_best(void);    /* of those it has */
const char *tn_isa_name(tn_isa isa);

/* Weight layouts. ROWS: as in the file. TILE16: 16 rows interleaved, the last tile padded with zero rows; one tile after the
 * other, each covering all n_in columns (see layout.h for the bytes of each type). */
typedef enum tn_cpu_layout { TN_LAYOUT_ROWS, TN_LAYOUT_TILE16 } tn_cpu_layout;
enum { TN_TILE_ROWS = 16 };

typedef struct tn_cpu_weight {
    const void *data;
    size_t stride; /* bytes from row to row (ROWS) or tile to tile (TILE16) */
    tn_type type;
    int32_t n_out, n_in; /* rows, columns */
} tn_cpu_weight;

/* dst[t * ld + r - r0] = sum over k of w[r][k] * x[t][k], for rows r in [r0, r0 + n_rows), tokens t in [0, n_tokens).
 * x: row t at (char *)x + t * x_stride: float[n_in], or an int8 activation row (quant.h). For TILE16 r0 and n_rows are
 * multiples of 16 and rows past n_out (padding) are written too. */
typedef void tn_matmul_fn(const tn_cpu_weight *w, int32_t r0, int32_t n_rows, const void *x, size_t x_stride,
                          int32_t n_tokens, float *dst, size_t ld);

/* Row r of a weight, decoded (embedding lookup). */
typedef void tn_weight_row_fn(const tn_cpu_weight *w, int32_t r, float *dst);

/* One call of a row or element kernel. Pointers to per-token operands already point at the first element handled. */
typedef struct tn_piece {
    void *dst;
    const void *src[3];
    int32_t n;     /* elements to handle */
    int32_t first; /* column of the first one in its row */
    int32_t n_row; /* columns of the whole row */
    int32_t i[4];
    float f[6];
} tn_piece;
typedef void tn_piece_fn(const tn_piece *p);
/* op          src                          i                                   f
 * rms_norm    x                            group (elements normed together)    eps        x / sqrt(mean(x^2) + eps)
 * l2_norm     x                            group                               eps        x / max(sqrt(sum x^2), eps)
 * add, mul    a, b                         period: 0 = b is like a; else b has `period` elements, repeated along the
 *                                          row: b[(first + j) % period]
 * silu, gelu (tanh form), gelu_quick (x * sigmoid(1.702 x)), sigmoid, softplus (log(1 + e^x); x where x > 20): x
 * scale       x                                                                factor
 * softcap     x                                                                c          c * tanh(x / c)
 * softmax     x                                                                           whole row; max subtracted
 * quantize    x; dst = start of the int8 row; handles columns [first, first + n) of n_row (multiples of 32)
 * rope        x, table                     head_dim, n_rot, neox (0: pairs are (2i, 2i+1); 1: (i, i + n_rot/2))
 *                                          table: cos, sin of each pair, n_rot floats; elements from n_rot on are copied
 *             also handles several heads: n is a multiple of head_dim
 * rope_table  freq_factors or NULL         n_rot, position                     base, freq_scale, ext_factor, attn_factor,
 *                                          i[2] = original context (YaRN)      beta_fast, beta_slow
 *             dst: cos, sin interleaved for each pair; angle = freq_scale * position * base^(-2i/n_rot) / factor[i]; where
 *             ext_factor != 0, YaRN (Peng et al. 2023) as in its authors' code: the ramp is linear in the pair's number;
 *             cos and sin are multiplied by attn_factor (and YaRN's mscale)
 * Element kernels (add ... softcap, quantize) may be called on any stretch of a row (quantize: whole blocks of 32) with
 * the same bits; norms, softmax, rope on whole groups. dst may be equal to src[0] (or src[1] for add, mul) in all of
 * them but quantize and rope_table. */

/* The paged cache of one layer: pages of TN_PAGE positions. Page p is page_bytes at base + p * page_bytes; inside, per kv
 * head, a K block and then a V block. What a block looks like is the kernels' affair: tn_kv_page_bytes gives its size. */
enum { TN_PAGE = 64 };
typedef struct tn_cpu_kv {
    uint8_t *base;
    size_t page_bytes;
    tn_kv_type type;
    int32_t n_kv, k_dim, v_dim;
} tn_cpu_kv;
size_t tn_kv_page_bytes(tn_kv_type type, int32_t n_kv, int32_t k_dim, int32_t v_dim);

/* Writes one head's k and v of one position into slot (0..TN_PAGE-1) of a page. k or v may be NULL: leave as it is. */
typedef void tn_kv_write_fn(const tn_cpu_kv *kv, int32_t page, int32_t slot, int32_t kv_head, const float *k,
                            const float *v);

typedef struct tn_cpu_attention {
    tn_cpu_kv kv;
    int32_t n_head;       /* query heads; n_head / kv.n_kv of them share a kv head */
    int32_t window;       /* 0: none; else a position sees the last `window` positions, itself included */
    float scale, softcap; /* softcap 0: none */
    const int32_t *pages; /* page table of the sequence */
    float *part;          /* NULL: all of the context; else one token, one segment: */
    int32_t segment;      /* for each head of the kv head v_dim sums, the largest score, the sum of weights */
} tn_cpu_attention;
/* For the query heads of one kv head and tokens at positions pos0 .. pos0 + n_tokens - 1 of one sequence:
 *   out = softmax(scale * q k^T [softcapped]) v over the positions <= its own (and inside the window).
 * Head h (of all n_head) of token t: q + t * q_stride + h * k_dim (floats), out + t * out_stride + h * v_dim. Online softmax over the
 * pages of a segment (TN_SEGMENT pages from a multiple of it on), then over segments, in order: the same steps for a token whatever else
 * is in the call, and also where segments are done apart (a->part) and joined. scratch: tn_attention_scratch bytes, 64-aligned. */
typedef void tn_attention_fn(const tn_cpu_attention *a, int32_t kv_head, int32_t pos0, int32_t n_tokens,
                             const float *q, size_t q_stride, float *out, size_t out_stride, void *scratch);
enum { TN_SEGMENT = 8 };
/* Joins n parts, `stride` floats apart, into a head's output. */
void tn_attention_join(const float *part, int32_t n, size_t stride, int32_t v_dim, float *out);
size_t tn_attention_scratch(int32_t n_head, int32_t n_kv, int32_t k_dim, int32_t v_dim);

/* ---- recurrences: one token; called in the order of the sequence ---- */

/* y[c] = sum over j of w[c * taps + j] * (the last `taps` inputs)[j][c] for columns [c0, c0 + n) of n_row. state:
 * [taps - 1][n_row], the inputs before, oldest first; x is moved in. */
typedef void tn_conv1d_fn(float *state, const float *w, const float *x, float *y, int32_t taps, int32_t n_row,
                          int32_t c0, int32_t n);

/* The gated delta rule of one head (Yang et al. 2024): state S [k_dim][v_dim];
 *   S = e^g S;  d = beta * (v - S^T k);  S = S + k d^T;  out = S^T q / sqrt(k_dim)
 * scratch: v_dim floats. */
typedef void tn_delta_fn(float *state, const float *q, const float *k, const float *v, float g, float beta,
                         float *out, int32_t k_dim, int32_t v_dim, float *scratch);

#endif
