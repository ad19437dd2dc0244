/* Matmul over TILE16 weights, for every block type, with int8 or f32 activations. One core per activation; a type is
 * only how to load a group of quants and a scale, and is a constant of each kernel, made at the end of the file.
 *
 * Order of operations, for every element and however the call is cut: blocks of 32 columns in order;
 *   int8  t = sum over the block's scales of m * s_x + dot * d, all fma, left to right; f = fma(t, d_x, f)
 *   f32   t0, t1 = sum of w * x over the even, the odd columns, all fma; f += t0 + t1
 * where dot is exact, in integers, s_x is the sum of the activation's integers and w = fma(u, d, m or -zero * d). The
 * sums of a block start from zero, so that the processor may overlap blocks: only the last step waits for the one
 * before. */
#include "backend/cpu/kernels/matmul.h"
#include "backend/cpu/kernels/isa.h"
#include "backend/cpu/kernels/layout.h"

#include "backend/cpu/kernels/vec.h"

enum { TILE_V = TN_TILE_ROWS / LANES }; /* vectors of a tile */
enum { BATCH = 64 };                    /* tokens that share one pass over the weights */
enum { SIDE = 12288 };                  /* floats for what a batch's blocks need besides their integers */

/* A block of 32 columns in a tile, for LANES rows of it. */
typedef struct place {
    const uint8_t *head, *quants;
    int lane, i; /* first row; which block of its chunk */
} place;

TN_INLINE place find(tn_tile_format f, const uint8_t *tile, int32_t b, int lane) {
    int per = f.cols / 32, i = b % per;
    const uint8_t *head = tile + (size_t)(b / per) * (size_t)tn_tile_chunk(f);
    return (place){head, head + f.head + i * f.quants + 4 * lane, lane, i};
}

/* ---- what a type is ---- */

TN_INLINE bool has_codebook(tn_type type) {
    return type == TN_TYPE_IQ4_NL || type == TN_TYPE_IQ4_XS;
}
TN_INLINE int dot_bits(tn_type type) {
    return has_codebook(type) ? 8 : tn_tile_format_of(type).bits;
}

/* Planes: q is at the lanes' first byte of the block. */
TN_INLINE vi nibble(const uint8_t *q, int h) {
    vi v = vi_load(q + 64 * (h & 3));
    return vi_and(h < 4 ? v : vi_shr(v, 4), vi_set(0x0f0f0f0f));
}
/* The vector shifted so that its bit `from` stands at bit `to` of each byte, alone under the mask (repeated per
 * byte). */
TN_INLINE vi field(const uint8_t *q, int from, int to, int mask) {
    vi v = vi_load(q);
    v = from > to ? vi_shr(v, (unsigned)(from - to)) : from < to ? vi_shl(v, (unsigned)(to - from)) : v;
    return vi_and(v, vi_set(mask * 0x01010101));
}

/* u of group h of a block. */
TN_INLINE vi group(tn_type type, const uint8_t *q, int h) {
    if (has_codebook(type)) return vi_lookup(tn_iq4_u, nibble(q, h));
    switch (tn_tile_format_of(type).bits) {
    case 2: return field(q + 64 * (h / 4), 2 * (h % 4), 0, 3);
    case 3: return vi_or(field(q + 64 * (h / 4), 2 * (h % 4), 0, 3), field(q + 128, h, 2, 4));
    case 4: return nibble(q, h);
    case 5: return vi_or(nibble(q, h), field(q + 256, h, 4, 16));
    case 6: return vi_or(nibble(q, h), field(q + 256 + 64 * (h / 4), 2 * (h % 4), 4, 48));
    default: return vi_load(q + 64 * h);
    }
}

/* Scale of sub-block `sub` (0 or 1) of a block, and its minimum; d and m: those of the chunk. */
TN_INLINE vf chunk_scale(place b) {
    return vf_f16(b.head + 2 * b.lane);
}
TN_INLINE vf chunk_minimum(tn_type type, place b) {
    return tn_tile_format_of(type).mins ? vf_f16(b.head + 32 + 2 * b.lane) : vf_zero();
}
TN_INLINE vf scale(tn_type type, place b, int sub, vf d) {
    const uint8_t *sc = b.head + 32 + b.lane;
    switch (type) {
    case TN_TYPE_IQ4_XS: return vf_mul(d, vf_of(vi_i8(sc + 16 * b.i)));
    case TN_TYPE_Q3_K:
    case TN_TYPE_Q6_K: return vf_mul(d, vf_of(vi_i8(sc + 16 * (2 * b.i + sub))));
    case TN_TYPE_Q2_K: return vf_mul(d, vf_of(vi_and(vi_u8(sc + 32 + 16 * (2 * b.i + sub)), vi_set(15))));
    case TN_TYPE_Q4_K:
    case TN_TYPE_Q5_K: return vf_mul(d, vf_of(vi_u8(sc + 32 + 16 * b.i)));
    default: return d;
    }
}
TN_INLINE vf minimum(tn_type type, place b, int sub, vf m) {
    const uint8_t *sc = b.head + 64 + b.lane;
    switch (type) {
    case TN_TYPE_Q2_K: return vf_mul(m, vf_of(vi_shr(vi_u8(sc + 16 * (2 * b.i + sub)), 4)));
    case TN_TYPE_Q4_K:
    case TN_TYPE_Q5_K: return vf_mul(m, vf_of(vi_u8(sc + 128 + 16 * b.i)));
    default: return m;
    }
}

/* LANES elements of a float tile from element e on. */
TN_INLINE vf float_weights(tn_type type, const uint8_t *tile, size_t e) {
    if (type == TN_TYPE_F32) return vf_load(tile + 4 * e);
    return type == TN_TYPE_F16 ? vf_f16(tile + 2 * e) : vf_bf16(tile + 2 * e);
}

/* ---- cores: V vectors of rows x T tokens ---- */

/* What a core works on. */
typedef struct stretch {
    const uint8_t *tile;
    int lane;       /* first row of the tile */
    int32_t c0, c1; /* columns */
    const uint8_t *x[TOKENS];
    const float *side; /* see fill_side */
} stretch;

/* Adds to `sum` the dot products of `run` groups from h on; c: the block's first column. */
TN_INLINE void dots_q8(tn_type type, int V, int T, int run, const place *at, int h, const uint8_t *const *x, size_t c,
                       vi sum[TILE_V][TOKENS]) {
    const int bits = dot_bits(type);
    vi part[TILE_V][TOKENS];
    TN_UNROLL
    for (int k = 0; k < T; k++)
        for (int v = 0; v < V; v++) part[v][k] = dot_open(sum[v][k]);
    TN_UNROLL
    for (int i = h; i < h + run; i++) {
        vi u[TILE_V];
        for (int v = 0; v < V; v++) u[v] = group(type, at[v].quants, i);
        TN_UNROLL
        for (int k = 0; k < T; k++) {
            vi xk = vi_bcast(x[k] + c + 4 * i);
            for (int v = 0; v < V; v++) part[v][k] = dot(bits, part[v][k], u[v], xk);
        }
    }
    TN_UNROLL
    for (int k = 0; k < T; k++)
        for (int v = 0; v < V; v++) sum[v][k] = dot_close(sum[v][k], part[v][k]);
}

/* One block of 32 columns: f += d_x * (sum over its scales of dot * d + m * s_x). `side` is at the block. */
TN_INLINE void block_q8(tn_type type, int V, int T, const place *at, const vf *d, const vf *m,
                        const uint8_t *const *x, size_t c, const float *side, vf f[TILE_V][TOKENS]) {
    const tn_tile_format format = tn_tile_format_of(type);
    const int bits = dot_bits(type), groups = 8 / format.subs;
    const int run = dot_run(bits) < groups ? dot_run(bits) : groups;
    vf t[TILE_V][TOKENS];
    TN_UNROLL
    for (int sub = 0; sub < format.subs; sub++) {
        const float *s = side + (1 + sub) * T;
        vi sum[TILE_V][TOKENS];
        TN_UNROLL
        for (int k = 0; k < T; k++)
            for (int v = 0; v < V; v++) sum[v][k] = format.mins ? vi_set(0) : vi_bcast(s + k);
        TN_UNROLL
        for (int h = sub * groups; h < (sub + 1) * groups; h += run) dots_q8(type, V, T, run, at, h, x, c, sum);
        TN_UNROLL
        for (int v = 0; v < V; v++) {
            vf scaled = scale(type, at[v], sub, d[v]), least = minimum(type, at[v], sub, m[v]);
            TN_UNROLL
            for (int k = 0; k < T; k++) {
                vf dots = vf_of(sum[v][k]), sx = vf_set(s[k]);
                if (format.mins) t[v][k] = sub ? vf_fma(least, sx, t[v][k]) : vf_mul(least, sx);
                t[v][k] = format.mins || sub ? vf_fma(dots, scaled, t[v][k]) : vf_mul(dots, scaled);
            }
        }
    }
    TN_UNROLL
    for (int k = 0; k < T; k++)
        for (int v = 0; v < V; v++) f[v][k] = vf_fma(t[v][k], vf_set(side[k]), f[v][k]);
}

TN_INLINE void core_q8(tn_type type, int V, int T, const stretch *z, vf f[TILE_V][TOKENS]) {
    const tn_tile_format format = tn_tile_format_of(type);
    const int per = format.cols / 32;
    const float *side = z->side;
    for (int32_t b = z->c0 / 32; b < z->c1 / 32; b += per) {
        place at[TILE_V];
        vf d[TILE_V], m[TILE_V];
        TN_UNROLL
        for (int v = 0; v < V; v++) {
            at[v] = find(format, z->tile, b, z->lane + v * LANES);
            d[v] = chunk_scale(at[v]);
            m[v] = chunk_minimum(type, at[v]);
        }
        for (int i = 0; i < per; i++, side += (1 + format.subs) * T) {
            block_q8(type, V, T, at, d, m, z->x, 32 * (size_t)(b + i), side, f);
            TN_UNROLL
            for (int v = 0; v < V; v++) at[v].i++, at[v].quants += format.quants;
        }
    }
}

/* f += t0 + t1 */
TN_INLINE void add_sums(int V, int T, vf t[2][TILE_V][TOKENS], vf f[TILE_V][TOKENS]) {
    TN_UNROLL
    for (int k = 0; k < T; k++)
        for (int v = 0; v < V; v++) f[v][k] = vf_add(f[v][k], vf_add(t[0][v][k], t[1][v][k]));
}

TN_INLINE void core_f32(tn_type type, int V, int T, const stretch *z, vf f[TILE_V][TOKENS]) {
    const tn_tile_format format = tn_tile_format_of(type);
    for (int32_t b = z->c0 / 32; b < z->c1 / 32; b++) {
        vf t[2][TILE_V][TOKENS] = {0};
        TN_UNROLL
        for (int h = 0; h < 8; h++)
            for (int v = 0; v < V; v++) {
                place at = find(format, z->tile, b, z->lane + v * LANES);
                int sub = h / 4 * (format.subs - 1);
                vi u = group(type, at.quants, h);
                vf d = scale(type, at, sub, chunk_scale(at));
                vf m = format.mins ? minimum(type, at, sub, chunk_minimum(type, at))
                                   : vf_mul(d, vf_set((float)-format.zero));
                TN_UNROLL
                for (int j = 0; j < 4; j++) {
                    vf w = vf_fma(vf_of(vi_byte(u, j)), d, m);
                    TN_UNROLL
                    for (int k = 0; k < T; k++) {
                        vf x = vf_set(((const float *)z->x[k])[32 * (size_t)b + 4 * h + j]);
                        t[j & 1][v][k] = vf_fma(w, x, t[j & 1][v][k]);
                    }
                }
            }
        add_sums(V, T, t, f);
    }
}

/* Column c of an activation row. */
TN_INLINE float column(tn_act_type act, const uint8_t *x, int32_t n_in, int32_t c) {
    if (act == TN_ACT_F32) return ((const float *)x)[c];
    return ((const float *)(x + n_in))[c / 32] * (float)((const int8_t *)x)[c];
}

/* Float weights. An int8 activation is decoded on the way (such matmuls are better given floats). */
TN_INLINE void core_float(tn_type type, tn_act_type act, int V, int T, const stretch *z, int32_t n_in,
                          vf f[TILE_V][TOKENS]) {
    for (int32_t c0 = z->c0; c0 < z->c1; c0 += 32) {
        vf t[2][TILE_V][TOKENS] = {0};
        int n = z->c1 - c0 < 32 ? z->c1 - c0 : 32;
        for (int i = 0; i < n; i += 2) {
            TN_UNROLL
            for (int odd = 0; odd < 2; odd++) {
                int32_t c = c0 + i + odd;
                if (i + odd == n) break;
                for (int v = 0; v < V; v++) {
                    vf w = float_weights(type, z->tile, (size_t)c * TN_TILE_ROWS + (size_t)(z->lane + v * LANES));
                    TN_UNROLL
                    for (int k = 0; k < T; k++)
                        t[odd][v][k] = vf_fma(w, vf_set(column(act, z->x[k], n_in, c)), t[odd][v][k]);
                }
            }
        }
        add_sums(V, T, t, f);
    }
}

/* ---- the loops around the cores ---- */

typedef struct call {
    const tn_cpu_weight *w;
    const uint8_t *x;
    size_t x_stride;
    float *dst; /* of row r0, token 0 */
    int32_t r0;
    size_t ld;
} call;

/* Part of a call: the tile at row `row`, tokens [t0, t0 + n), columns [c0, c1). */
typedef struct part {
    int32_t row, t0, c0, c1;
    int n;
    const float *side;
} part;

/* A tile with T tokens, on top of what earlier columns left in dst. Where n < T the last token is done again and
 * again, and stored once. (No prefetch: a tile is read in order, which processors fetch ahead better by themselves.) */
TN_INLINE void tile(tn_type type, tn_act_type act, int T, const call *a, const part *p) {
    const int V = T == 1 ? TILE_V : 1;
    float *dst = a->dst + (size_t)p->t0 * a->ld + (size_t)(p->row - a->r0);
    stretch z = {.c0 = p->c0, .c1 = p->c1, .side = p->side};
    z.tile = (const uint8_t *)a->w->data + (size_t)(p->row / TN_TILE_ROWS) * a->w->stride;
    for (int k = 0; k < T; k++) z.x[k] = a->x + (size_t)(p->t0 + (k < p->n ? k : p->n - 1)) * a->x_stride;
    for (; z.lane < TN_TILE_ROWS; z.lane += V * LANES, dst += V * LANES) {
        vf f[TILE_V][TOKENS];
        TN_UNROLL
        for (int k = 0; k < T; k++)
            for (int v = 0; v < V; v++)
                f[v][k] = p->c0 > 0 && k < p->n ? vf_load(dst + (size_t)k * a->ld + v * LANES) : vf_zero();
        if (tn_tile_format_of(type).bits == 0)
            core_float(type, act, V, T, &z, a->w->n_in, f);
        else if (act == TN_ACT_F32)
            core_f32(type, V, T, &z, f);
        else
            core_q8(type, V, T, &z, f);
        TN_UNROLL
        for (int k = 0; k < T; k++)
            for (int v = 0; v < V; v++)
                if (k < p->n) vf_store(dst + (size_t)k * a->ld + v * LANES, f[v][k]);
    }
}

/* How many tokens the register tile for n of them has. */
TN_INLINE int tile_tokens(int n) {
    return n > TOKENS / 2 ? TOKENS : n > 1 ? TOKENS / 2 : 1;
}

/* Writes what core_q8 reads beside the integers of tokens [t0, t0 + n), columns [c0, c1): for each block d_x[T], then
 * for each scale of a block T numbers: s_x (float) where the type has minima, else -zero * s_x (integer). */
static void fill_side(tn_tile_format format, int zero, const call *a, int32_t t0, int n, int32_t c0, int32_t c1,
                      float *side) {
    const int32_t n_in = a->w->n_in;
    for (int t = 0; t < n; t += TOKENS) {
        int some = n - t < TOKENS ? n - t : TOKENS, T = tile_tokens(some);
        for (int32_t b = c0 / 32; b < c1 / 32; b++, side += (1 + format.subs) * T)
            for (int k = 0; k < T; k++) {
                const uint8_t *x = a->x + (size_t)(t0 + t + (k < some ? k : some - 1)) * a->x_stride + n_in;
                const int16_t *s = (const int16_t *)(x + n_in / 32 * 4) + 2 * b;
                side[k] = ((const float *)x)[b];
                for (int sub = 0; sub < format.subs; sub++) {
                    int32_t sum = format.subs == 2 ? s[sub] : s[0] + s[1], offset = -zero * sum;
                    float as_float = (float)sum;
                    memcpy(side + (1 + sub) * T + k, format.mins ? (void *)&as_float : (void *)&offset, 4);
                }
            }
    }
}

/* Columns that a batch of n tokens takes at once: as many as the side holds, or for floats what fits the caches. */
static int32_t span(tn_tile_format format, tn_act_type act, int n, int32_t n_in) {
    int32_t cols = n == 1 ? n_in : 512;
    if (act == TN_ACT_INT8 && format.bits) cols = SIDE / ((1 + format.subs) * (n + TOKENS - 1)) / 8 * 256;
    return cols < n_in ? cols : n_in;
}

/* The tiles of rows, for a batch of tokens and a span of columns. */
TN_INLINE void pass(tn_type type, tn_act_type act, const call *a, int32_t n_rows, const part *batch) {
    const size_t side_token = (size_t)(1 + tn_tile_format_of(type).subs) * (size_t)((batch->c1 - batch->c0) / 32);
    for (int32_t row = a->r0; row < a->r0 + n_rows; row += TN_TILE_ROWS)
        for (int t = 0; t < batch->n; t += TOKENS) {
            part p = *batch;
            p.row = row, p.t0 += t, p.side += (size_t)t * side_token;
            p.n = batch->n - t < TOKENS ? batch->n - t : TOKENS;
            int T = tile_tokens(p.n);
            if (T == TOKENS)
                tile(type, act, TOKENS, a, &p);
            else if (T == TOKENS / 2)
                tile(type, act, TOKENS / 2, a, &p);
            else
                tile(type, act, 1, a, &p);
        }
}

TN_INLINE void matmul(tn_type type, tn_act_type act, const call *a, int32_t n_rows, int32_t n_tokens) {
    const tn_tile_format format = tn_tile_format_of(type);
    float side[SIDE];
    for (int32_t t0 = 0; t0 < n_tokens; t0 += BATCH) {
        int n = n_tokens - t0 < BATCH ? n_tokens - t0 : BATCH;
        int32_t cols = span(format, act, n, a->w->n_in);
        for (int32_t c0 = 0; c0 < a->w->n_in; c0 += cols) {
            int32_t c1 = c0 + cols < a->w->n_in ? c0 + cols : a->w->n_in;
            if (act == TN_ACT_INT8 && format.bits)
                fill_side(format, dot_zero(dot_bits(type), format.zero), a, t0, n, c0, c1, side);
            pass(type, act, a, n_rows, &(part){.t0 = t0, .n = n, .c0 = c0, .c1 = c1, .side = side});
        }
    }
}

/* ---- the kernels ---- */

#define KERNEL(type, name, act)                                                                                      \
    void TN_ISA_NAME(tn_matmul_##name##_##type)(const tn_cpu_weight *w, int32_t r0, int32_t n_rows, const void *x,   \
                                                size_t x_stride, int32_t n_tokens, float *dst, size_t ld) {          \
        call a = {w, x, x_stride, dst, r0, ld};                                                                      \
        matmul(TN_TYPE_##type, act, &a, n_rows, n_tokens);                                                           \
    }
#define TYPE(name, id, block, bytes) KERNEL(name, q8, TN_ACT_INT8) KERNEL(name, f32, TN_ACT_F32)
#include "quant/types.def"
