/* Attention by blocks. Up to TN_ATTENTION_ROWS rows (heads of tokens) go through the cache together, page by page: a
 * page is decoded to floats once; then tiles of a few rows that see the same part of it do three steps,
 *   scores (lanes are positions); softmax so far (maximum, sum, and what the output shrinks by); output += weights v.
 * A row only meets positions that it sees, always in the same order: it gets the same bits whatever rows are beside
 * it. */
#include "backend/cpu/kernels/attention.h"

#include "backend/cpu/kernels/expf.h"
#include "backend/cpu/kernels/kv.h"
#include "backend/cpu/kernels/pieces.h"
#include "backend/cpu/kernels/vec.h"

#include <math.h>
#include <string.h>

enum { TILE_ROWS = 6 };

/* What a tile finds in a page: f16 and q8_0 are decoded before, or on the way to the registers. */
typedef enum page_form { FLOATS, HALVES, SCALED, FORMS } page_form;

typedef struct work {
    const tn_cpu_attention *a;
    int32_t k_dim, v_dim;
    page_form form;
    const void *k, *v;        /* the page: in the cache itself, or decoded to .. */
    float *k_room, *v_room;   /* .. here */
    const uint16_t *k_scales; /* of SCALED elements */
    const float *v_scales;
    ptrdiff_t next;                       /* bytes from the page to the one that is read after it */
    float *q, *out;                       /* rows: the queries scaled, the outputs so far */
    float *max, *sum;                     /* of each row so far, in this segment */
    float *total, *total_max, *total_sum; /* .. and in those before */
} work;

/* ---- the page, decoded ----------------------------------------------------------------------------------------- */

static void decode_f16(const uint16_t *src, float *dst, size_t from, size_t to) {
    for (size_t i = from; i < to; i += LANES) vf_store(dst + i, vf_f16(src + i));
}

/* groups [from, to) of 16 positions; a scale for each position, every 32 elements */
static void decode_keys_q8(tn_kv_block b, float *dst, int32_t dim, int32_t from, int32_t to) {
    const int8_t *q = (const int8_t *)b.elements;
    size_t blocks = (size_t)dim / TN_KV_SCALED, begin = (size_t)from * blocks, end = (size_t)to * blocks;
    for (size_t i = begin; i < end; i++) {
        for (size_t l = 0; l < TN_KV_LANES; l += LANES) {
            vf scale = vf_f16(b.scales + i * TN_KV_LANES + l);
            for (size_t e = i * TN_KV_SCALED; e < (i + 1) * TN_KV_SCALED; e++) {
                size_t at = e * TN_KV_LANES + l;
                vf_store(dst + at, vf_mul(vf_of(vi_i8(q + at)), scale));
            }
        }
    }
}

/* positions [from, to) */
static void decode_values_q8(tn_kv_block b, float *dst, int32_t dim, int32_t from, int32_t to) {
    const int8_t *q = (const int8_t *)b.elements;
    size_t blocks = (size_t)dim / TN_KV_SCALED, begin = (size_t)from * blocks, end = (size_t)to * blocks;
    for (size_t i = begin; i < end; i++) {
        vf scale = vf_set(tn_f16_to_f32(b.scales[i]));
        for (size_t e = i * TN_KV_SCALED; e < (i + 1) * TN_KV_SCALED; e += LANES) {
            vf_store(dst + e, vf_mul(vf_of(vi_i8(q + e)), scale));
        }
    }
}

static void decode_page(work *w, tn_kv_block keys, tn_kv_block values, tn_seen seen) {
    int32_t from = seen.low / TN_KV_LANES, to = (seen.high + TN_KV_LANES - 1) / TN_KV_LANES;
    if (w->a->kv.type == TN_KV_F16) { /* whole groups of keys, an even number of positions: whole vectors */
        size_t group = (size_t)w->k_dim * TN_KV_LANES, pair = (size_t)w->v_dim * 2;
        decode_f16((const uint16_t *)keys.elements, w->k_room, (size_t)from * group, (size_t)to * group);
        decode_f16((const uint16_t *)values.elements, w->v_room, (size_t)(seen.low / 2) * pair,
                   (size_t)((seen.high + 1) / 2) * pair);
    } else {
        decode_keys_q8(keys, w->k_room, w->k_dim, from, to);
        decode_values_q8(values, w->v_room, w->v_dim, seen.low, seen.high);
    }
    w->form = FLOATS;
    w->k = w->k_room;
    w->v = w->v_room;
}

/* Gets ready what any of n_rows may look at. Decoding first pays when several tiles read it. */
static void take_page(work *w, const int32_t *page, bool last, int32_t kv_head, tn_seen seen, int32_t n_rows) {
    const tn_cpu_kv *kv = &w->a->kv;
    tn_kv_block keys = tn_kv_keys(kv, *page, kv_head), values = tn_kv_values(kv, *page, kv_head);
    w->next = 0;
    if (kv->type != TN_KV_F32 && n_rows > 2 * TILE_ROWS) {
        decode_page(w, keys, values, seen);
        return;
    }
    w->form = kv->type == TN_KV_F32 ? FLOATS : kv->type == TN_KV_F16 ? HALVES : SCALED;
    w->k = keys.elements;
    w->v = values.elements;
    if (!last) w->next = tn_kv_keys(kv, page[1], kv_head).elements - keys.elements;
    if (w->form == SCALED) {
        decode_f16(values.scales, w->v_room, 0, TN_PAGE * (size_t)w->v_dim / TN_KV_SCALED);
        w->k_scales = keys.scales;
        w->v_scales = w->v_room;
    }
}

/* ---- a tile: R rows that see the same part of the page --------------------------------------------------------- */

/* How many vectors beside each other, a power of two: R rows of accumulators, the operands of one row and one more
 * have to fit into the registers. */
TN_INLINE int width_of(const int R) {
    return (R + 1) * 4 < REGISTERS ? 4 : 2;
}

TN_INLINE size_t size_of(const page_form form) {
    return form == FLOATS ? sizeof(float) : form == HALVES ? sizeof(uint16_t) : sizeof(int8_t);
}

/* A vector of elements from i on. */
TN_INLINE vf load_as(const page_form form, const void *p, size_t i, vf scale) {
    const char *at = (const char *)p + i * size_of(form);
    return form == FLOATS ? vf_load(at) : form == HALVES ? vf_f16(at) : vf_mul(vf_of(vi_i8(at)), scale);
}

/* Fetches the same place of the page to come (floats are mostly a decoded page, which is there): a page is several short streams,
 * which processors do not see coming. Into the second cache: the first can wait for too few lines at a time to keep the memory busy. */
TN_INLINE void fetch(const page_form form, const void *p, size_t i, ptrdiff_t next) {
    if (form != FLOATS) __builtin_prefetch((const char *)p + i * size_of(form) + next, 0, 2);
}

/* Where the keys' vector g of positions is for element 0; the next element is TN_KV_LANES on. */
TN_INLINE size_t key_at(int g, int32_t dim) {
    size_t position = (size_t)g * LANES;
    return position / TN_KV_LANES * (size_t)dim * TN_KV_LANES + position % TN_KV_LANES;
}

/* s[r][position] = q[r] k[position], for G vectors of positions from the `first` on */
TN_INLINE void scores_of(const int R, const int G, const page_form form, const work *w, int32_t row, int first,
                         float *s) {
    vf sum[TILE_ROWS][4], key[4], scale[4];
    size_t at[4], scale_at[4], dim = (size_t)w->k_dim;
    const float *q = w->q + (size_t)row * dim;
    TN_UNROLL
    for (int g = 0; g < G; g++) {
        at[g] = key_at(first + g, w->k_dim);
        scale_at[g] = key_at(first + g, w->k_dim / TN_KV_SCALED);
        scale[g] = vf_zero();
        TN_UNROLL
        for (int r = 0; r < R; r++) sum[r][g] = vf_zero();
    }
    for (size_t i = 0; i < dim; i++) {
        if (form == SCALED && i % TN_KV_SCALED == 0) {
            TN_UNROLL
            for (int g = 0; g < G; g++) scale[g] = vf_f16(w->k_scales + scale_at[g] + i / TN_KV_SCALED * TN_KV_LANES);
        }
        TN_UNROLL
        for (int g = 0; g < G; g++) {
            if (g * LANES % TN_KV_LANES == 0) fetch(form, w->k, at[g] + i * TN_KV_LANES, w->next);
            key[g] = load_as(form, w->k, at[g] + i * TN_KV_LANES, scale[g]);
        }
        TN_UNROLL
        for (int r = 0; r < R; r++) {
            vf x = vf_set(q[(size_t)r * dim + i]);
            TN_UNROLL
            for (int g = 0; g < G; g++) sum[r][g] = vf_fma(x, key[g], sum[r][g]);
        }
    }
    TN_UNROLL
    for (int r = 0; r < R; r++) {
        TN_UNROLL
        for (int g = 0; g < G; g++) vf_store(s + r * TN_PAGE + (first + g) * LANES, sum[r][g]);
    }
}

/* 16 numbers become one, 8 apart, 4, 2, 1; straight code, so that it stays in registers. */
#define FOLD16(name, value)                                                                                          \
    TN_INLINE float name##_step(float a, float b) {                                                                  \
        return value;                                                                                                \
    }                                                                                                                \
    TN_INLINE float name(const float *x) {                                                                           \
        float y[8], z[4];                                                                                            \
        TN_UNROLL                                                                                                    \
        for (int l = 0; l < 8; l++) y[l] = name##_step(x[l], x[l + 8]);                                              \
        TN_UNROLL                                                                                                    \
        for (int l = 0; l < 4; l++) z[l] = name##_step(y[l], y[l + 4]);                                              \
        return name##_step(name##_step(z[0], z[2]), name##_step(z[1], z[3]));                                        \
    }
FOLD16(sum_of_16, a + b)
FOLD16(max_of_16, a > b ? a : b)

/* Scores become weights; returns what the row's output shrinks by. The sum has one fixed order. */
static float weights_of(float *s, tn_seen seen, float softcap, float *max, float *sum) {
    _Alignas(64) float lane[16];
    if (softcap != 0) {
        for (int p = 0; p < TN_PAGE; p++) s[p] = softcap * tn_tanhf(s[p] / softcap);
    }
    for (int p = 0; p < seen.low; p++) s[p] = -INFINITY;
    for (int p = seen.high; p < TN_PAGE; p++) s[p] = -INFINITY;
    TN_UNROLL
    for (int l = 0; l < 16; l += LANES) {
        vf a = vf_max(vf_load(s + 16 + l), vf_load(s + l));
        vf b = vf_max(vf_load(s + 48 + l), vf_load(s + 32 + l));
        vf_store(lane + l, vf_max(b, a));
    }
    float top = max_of_16(lane), before = *max, now = top > before ? top : before;
    for (int p = 0; p < TN_PAGE; p++) s[p] = tn_expf_weight(s[p] - now);
    TN_UNROLL
    for (int l = 0; l < 16; l += LANES) {
        vf a = vf_add(vf_load(s + l), vf_load(s + 16 + l)), b = vf_add(vf_load(s + 32 + l), vf_load(s + 48 + l));
        vf_store(lane + l, vf_add(a, b));
    }
    float shrink = tn_expf(before - now);
    *max = now;
    *sum = *sum * shrink + sum_of_16(lane);
    return shrink;
}

/* out[r][i ..] = shrink[r] * out[r][i ..] + sum over the seen positions p of s[r][p] * v[p][i ..], N vectors */
TN_INLINE void values_of(const int R, const int N, const page_form form, const work *w, tn_seen seen, const float *s,
                         const float *shrink, float *out, size_t i) {
    vf sum[TILE_ROWS][4];
    size_t dim = (size_t)w->v_dim;
    TN_UNROLL
    for (int r = 0; r < R; r++) {
        TN_UNROLL
        for (int n = 0; n < N; n++) {
            sum[r][n] = vf_mul(vf_load(out + (size_t)r * dim + i + n * LANES), vf_set(shrink[r]));
        }
    }
    for (int32_t p = seen.low; p < seen.high; p++) {
        TN_UNROLL
        for (int n = 0; n < N; n++) {
            size_t at = (size_t)p * dim + i + (size_t)(n * LANES);
            if ((size_t)(n * LANES) * size_of(form) % 64 == 0) fetch(form, w->v, at, w->next);
            vf scale = form == SCALED ? vf_set(w->v_scales[at / TN_KV_SCALED]) : vf_zero();
            vf value = load_as(form, w->v, at, scale);
            TN_UNROLL
            for (int r = 0; r < R; r++) sum[r][n] = vf_fma(vf_set(s[r * TN_PAGE + p]), value, sum[r][n]);
        }
    }
    TN_UNROLL
    for (int r = 0; r < R; r++) {
        TN_UNROLL
        for (int n = 0; n < N; n++) vf_store(out + (size_t)r * dim + i + n * LANES, sum[r][n]);
    }
}

/* The same for the elements from i on, fewer than a vector has (of q8_0 there are none). */
static void values_rest(int R, page_form form, const work *w, tn_seen seen, const float *s, const float *shrink,
                        float *out, size_t i) {
    size_t dim = (size_t)w->v_dim;
    for (; i < dim; i++) {
        for (int r = 0; r < R; r++) {
            float sum = out[(size_t)r * dim + i] * shrink[r];
            for (int32_t p = seen.low; p < seen.high; p++) {
                size_t at = (size_t)p * dim + i;
                float value =
                    form == HALVES ? tn_f16_to_f32(((const uint16_t *)w->v)[at]) : ((const float *)w->v)[at];
                sum = tn_fma(s[r * TN_PAGE + p], value, sum);
            }
            out[(size_t)r * dim + i] = sum;
        }
    }
}

TN_INLINE void tile(const int R, const page_form form, const work *w, int32_t row, tn_seen seen) {
    _Alignas(64) float s[TILE_ROWS * TN_PAGE];
    float shrink[TILE_ROWS], *out = w->out + (size_t)row * (size_t)w->v_dim;
    const int width = width_of(R);
    for (int g = seen.low / LANES / width * width; g * LANES < seen.high; g += width) {
        scores_of(R, width, form, w, row, g, s);
    }
    for (int r = 0; r < R; r++) {
        shrink[r] = weights_of(s + r * TN_PAGE, seen, w->a->softcap, &w->max[row + r], &w->sum[row + r]);
    }
    size_t dim = (size_t)w->v_dim, i = 0;
    for (size_t step = (size_t)width * LANES; i + step <= dim; i += step) {
        values_of(R, width, form, w, seen, s, shrink, out, i);
    }
    for (; i + LANES <= dim; i += LANES) values_of(R, 1, form, w, seen, s, shrink, out, i);
    values_rest(R, form, w, seen, s, shrink, out, i);
}

#define TILES(R)                                                                                                     \
    static void tile_##R(const work *w, int32_t row, tn_seen seen) {                                                 \
        tile(R, FLOATS, w, row, seen);                                                                               \
    }                                                                                                                \
    static void tile_##R##_halves(const work *w, int32_t row, tn_seen seen) {                                        \
        tile(R, HALVES, w, row, seen);                                                                               \
    }                                                                                                                \
    static void tile_##R##_scaled(const work *w, int32_t row, tn_seen seen) {                                        \
        tile(R, SCALED, w, row, seen);                                                                               \
    }
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)

#define TILES_ROW(R) [R] = {tile_##R, tile_##R##_halves, tile_##R##_scaled}
static void (*const g_tiles[TILE_ROWS + 1][FORMS])(const work *, int32_t, tn_seen) = {
    TILES_ROW(1), TILES_ROW(2), TILES_ROW(3), TILES_ROW(4), TILES_ROW(5), TILES_ROW(6),
};

/* Rows [row, end) see the same: tiles of about equal height. */
static void tiles(const work *w, int32_t row, int32_t end, tn_seen seen) {
    if (seen.low >= seen.high) return;
    for (int32_t n_tiles = (end - row + TILE_ROWS - 1) / TILE_ROWS; n_tiles > 0; n_tiles--) {
        int32_t height = (end - row + n_tiles - 1) / n_tiles;
        g_tiles[height][w->form](w, row, seen);
        row += height;
    }
}

/* ---- a block of rows ------------------------------------------------------------------------------------------- */

/* Rows are heads of tokens: row i of the call is head i % group of token i / group. */
typedef struct block {
    int32_t first, n, group, pos0;
} block;

static int32_t position_of(const block *b, int32_t row) {
    return b->pos0 + (b->first + row) / b->group;
}

static void attend_segment(work *w, const block *b, int32_t kv_head, int32_t segment) {
    int32_t begin = position_of(b, 0), end = position_of(b, b->n - 1);
    tn_pages pages = tn_pages_of(w->a, begin, end, segment);
    for (int32_t r = 0; r < b->n; r++) w->max[r] = -INFINITY;
    memset(w->sum, 0, sizeof *w->sum * (size_t)b->n);
    memset(w->out, 0, sizeof *w->out * (size_t)b->n * (size_t)w->v_dim);
    for (int32_t page = pages.begin; page < pages.end; page++) {
        tn_seen all = {tn_seen_from(w->a, begin, page).low, tn_seen_from(w->a, end, page).high};
        take_page(w, &w->a->pages[page], page == end / TN_PAGE, kv_head, all, b->n);
        for (int32_t row = 0, next; row < b->n; row = next) {
            tn_seen seen = tn_seen_from(w->a, position_of(b, row), page), other = seen;
            for (next = row + 1; next < b->n; next++) {
                other = tn_seen_from(w->a, position_of(b, next), page);
                if (other.low != seen.low || other.high != seen.high) break;
            }
            tiles(w, row, next, seen);
        }
    }
}

static tn_sums sums_of(const work *w, int32_t row) {
    return (tn_sums){w->out + (size_t)row * (size_t)w->v_dim, &w->max[row], &w->sum[row]};
}

/* All segments, one after the other. */
static void attend(work *w, const block *b, int32_t kv_head) {
    int32_t first = tn_first_page(w->a, position_of(b, 0)), last = position_of(b, b->n - 1) / TN_PAGE;
    for (int32_t r = 0; r < b->n; r++) w->total_max[r] = -INFINITY, w->total_sum[r] = 0;
    for (int32_t s = first / TN_SEGMENT; s <= last / TN_SEGMENT; s++) {
        attend_segment(w, b, kv_head, s);
        for (int32_t r = 0; r < b->n; r++)
            tn_attention_fold((tn_sums){w->total + (size_t)r * (size_t)w->v_dim, &w->total_max[r], &w->total_sum[r]},
                              sums_of(w, r), w->v_dim);
    }
}

static work work_at(const tn_cpu_attention *a, float *scratch) {
    work w = {.a = a, .k_dim = a->kv.k_dim, .v_dim = a->kv.v_dim, .k_room = scratch};
    w.v_room = w.k_room + TN_PAGE * (size_t)w.k_dim;
    w.q = w.v_room + TN_PAGE * (size_t)w.v_dim;
    w.out = w.q + TN_ATTENTION_ROWS * (size_t)w.k_dim;
    w.total = w.out + TN_ATTENTION_ROWS * (size_t)w.v_dim;
    w.max = w.total + TN_ATTENTION_ROWS * (size_t)w.v_dim;
    w.sum = w.max + TN_ATTENTION_ROWS;
    w.total_max = w.sum + TN_ATTENTION_ROWS;
    w.total_sum = w.total_max + TN_ATTENTION_ROWS;
    return w;
}

void TN_ISA_NAME(tn_attention)(const tn_cpu_attention *a, int32_t kv_head, int32_t pos0, int32_t n_tokens,
                               const float *q, size_t q_stride, float *out, size_t out_stride, void *scratch) {
    work w = work_at(a, scratch);
    int32_t group = a->n_head / a->kv.n_kv, n_rows = n_tokens * group;
    size_t k_dim = (size_t)w.k_dim, v_dim = (size_t)w.v_dim;
    block b = {.group = group, .pos0 = pos0};
    for (; b.first < n_rows; b.first += b.n) {
        b.n = n_rows - b.first < TN_ATTENTION_ROWS ? n_rows - b.first : TN_ATTENTION_ROWS;
        for (int32_t r = 0; r < b.n; r++) {
            size_t t = (size_t)((b.first + r) / group), h = (size_t)(kv_head * group + (b.first + r) % group);
            const float *src = q + t * q_stride + h * k_dim;
            for (size_t i = 0; i < k_dim; i++) w.q[(size_t)r * k_dim + i] = src[i] * a->scale;
        }
        if (a->part)
            attend_segment(&w, &b, kv_head, a->segment);
        else
            attend(&w, &b, kv_head);
        for (int32_t r = 0; r < b.n; r++) {
            size_t t = (size_t)((b.first + r) / group), h = (size_t)(kv_head * group + (b.first + r) % group);
            if (a->part) {
                float *part = a->part + (size_t)(b.first + r) * (v_dim + 2);
                memcpy(part, w.out + (size_t)r * v_dim, v_dim * sizeof *part);
                part[v_dim] = w.max[r];
                part[v_dim + 1] = w.sum[r];
                continue;
            }
            float *dst = out + t * out_stride + h * v_dim, inverse = 1.0f / w.total_sum[r];
            for (size_t i = 0; i < v_dim; i++) dst[i] = w.total[(size_t)r * v_dim + i] * inverse;
        }
    }
}
