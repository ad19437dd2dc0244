/* Matmul on TILE16 weights: against the scalar reference, for every block type, activation and instruction set this
 * machine has; the same bits however a call is cut and whatever the instruction set; tiles; int8 activations. */
#include "backend/cpu/kernels/layout.h"
#include "backend/cpu/kernels/matmul.h"
#include "backend/cpu/kernels/pieces.h"
#include "base/half.h"
#include "base/mem.h"
#include "block_data.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- weights and activations ---- */

typedef enum kind { RANDOM, ONES, ZEROS, DENORMAL } kind;

static void fill_block(tn_type type, kind how, uint8_t *b, int bytes) {
    float value = how == ZEROS ? 0 : how == DENORMAL ? 0x1p-24f : how == ONES ? 1.0f : tn_random_float();
    float scales[2] = {how == RANDOM ? tn_random_float() * 0.1f : value,
                       how == RANDOM ? tn_random_float() * 0.1f : value};
    uint16_t half = type == TN_TYPE_BF16 ? tn_f32_to_bf16(value) : tn_f32_to_f16(value);
    for (int i = 0; i < bytes; i++) b[i] = how == ONES ? 0xff : how == ZEROS ? 0 : (uint8_t)tn_random();
    if (bytes == 4)
        memcpy(b, &value, 4);
    else if (bytes == 2)
        memcpy(b, &half, 2);
    else
        tn_set_scales(type, b, scales);
}

/* A weight in both layouts. */
typedef struct sample {
    tn_cpu_weight rows, tiles;
    size_t tiles_bytes;
} sample;

static int32_t padded(int32_t n_out) {
    return (n_out + 15) / 16 * 16;
}

static sample make_weight(tn_type type, kind how, int32_t n_out, int32_t n_in) {
    const tn_type_info *info = tn_type_get(type);
    size_t row = tn_type_row_bytes(type, (size_t)n_in), tile = tn_tile_bytes(type, n_in);
    sample w = {.tiles_bytes = tile * (size_t)padded(n_out) / 16};
    uint8_t *rows = malloc(row * (size_t)n_out), *tiles = tn_alloc_pages(w.tiles_bytes);
    assert_true(tile % 64 == 0 && tile > 0);
    assert_true(rows && tiles);
    for (uint8_t *b = rows; b < rows + row * (size_t)n_out; b += info->bytes) fill_block(type, how, b, info->bytes);
    w.rows = (tn_cpu_weight){rows, row, type, n_out, n_in};
    w.tiles = (tn_cpu_weight){tiles, tile, type, n_out, n_in};
    memset(tiles, 0xa5, w.tiles_bytes);
    tn_tile_pack(&w.rows, 0, padded(n_out) / 16, tiles);
    return w;
}

static void free_weight(sample *w) {
    free((void *)w->rows.data);
    tn_free_pages((void *)w->tiles.data, w->tiles_bytes);
}

static size_t act_stride(tn_act_type act, int32_t n_in) {
    return act == TN_ACT_F32 ? (size_t)n_in * 4 : tn_q8_row_bytes((size_t)n_in);
}

/* Rows of activations; `constant` for all elements unless it is NAN. */
static uint8_t *make_acts(tn_act_type act, int32_t n_in, int32_t n, float constant) {
    size_t stride = act_stride(act, n_in);
    uint8_t *x = malloc(stride * (size_t)n);
    float *row = malloc(sizeof(float) * (size_t)n_in);
    assert_true(x && row);
    for (int32_t t = 0; t < n; t++) {
        for (int32_t i = 0; i < n_in; i++) row[i] = isnan(constant) ? tn_random_float() : constant;
        if (act == TN_ACT_F32)
            memcpy(x + (size_t)t * stride, row, stride);
        else
            tn_q8_encode(row, x + (size_t)t * stride, (size_t)n_in, 0, (size_t)n_in);
    }
    free(row);
    return x;
}

/* ---- results ---- */

/* Per element: the largest |w| of its row times the sum of |x|. Rounding errors are a small multiple of 2^-24 of it. */
static float *magnitudes(const sample *w, tn_act_type act, const uint8_t *x, int32_t n) {
    int32_t n_out = w->rows.n_out, n_in = w->rows.n_in;
    float *mag = malloc(sizeof(float) * (size_t)n_out * (size_t)n), *row = malloc(sizeof(float) * (size_t)n_in);
    float *sums = malloc(sizeof(float) * (size_t)n);
    assert_true(mag && row && sums);
    for (int32_t t = 0; t < n; t++) {
        const uint8_t *xt = x + (size_t)t * act_stride(act, n_in);
        if (act == TN_ACT_F32)
            memcpy(row, xt, sizeof(float) * (size_t)n_in);
        else
            tn_q8_decode(xt, row, (size_t)n_in);
        sums[t] = 0;
        for (int32_t i = 0; i < n_in; i++) sums[t] += fabsf(row[i]);
    }
    for (int32_t r = 0; r < n_out; r++) {
        float top = 0;
        tn_weight_row__ref(&w->rows, r, row);
        for (int32_t i = 0; i < n_in; i++) top = fmaxf(top, fabsf(row[i]));
        for (int32_t t = 0; t < n; t++) mag[(size_t)t * (size_t)n_out + (size_t)r] = top * sums[t];
    }
    free(row);
    free(sums);
    return mag;
}

static void assert_close(const sample *w, tn_act_type act, const uint8_t *x, int32_t n, const float *y, size_t ld,
                         const char *name) {
    const float bound = 5e-7f;
    int32_t n_out = w->rows.n_out;
    float *mag = magnitudes(w, act, x, n), *want = malloc(sizeof(float) * (size_t)n_out * (size_t)n);
    assert_non_null(want);
    tn_matmul_find(w->rows.type, act, TN_ISA_REF)
        ->run(&w->rows, 0, n_out, x, act_stride(act, w->rows.n_in), n, want, (size_t)n_out);
    for (int32_t t = 0; t < n; t++)
        for (int32_t r = 0; r < n_out; r++) {
            float got = y[(size_t)t * ld + (size_t)r], expected = want[t * n_out + r], m = mag[t * n_out + r];
            if (!(fabsf(got - expected) <= bound * m))
                fail_msg("%s %dx%d, token %d of %d, row %d: %.9g, not %.9g (%.2g of %.3g)", name, n_out, w->rows.n_in,
                         t, n, r, (double)got, (double)expected, (double)(fabsf(got - expected) / m), (double)m);
        }
    free(mag);
    free(want);
}

enum { CANARY = 3 };

/* Runs a kernel into fresh memory: n rows of ld = padded rows + CANARY floats, the canaries checked. */
static float *run(const tn_matmul_kernel *k, const sample *w, const uint8_t *x, int32_t n) {
    int32_t rows = padded(w->tiles.n_out);
    size_t ld = (size_t)rows + CANARY;
    float *y = malloc(sizeof(float) * ld * (size_t)n);
    assert_non_null(y);
    for (size_t i = 0; i < ld * (size_t)n; i++) y[i] = 12345.0f;
    k->run(&w->tiles, 0, rows, x, act_stride(k->act, w->tiles.n_in), n, y, ld);
    for (int32_t t = 0; t < n; t++) {
        float *row = y + (size_t)t * ld;
        for (int32_t r = w->tiles.n_out; r < rows; r++) assert_true(row[r] == 0.0f);
        for (int32_t r = rows; r < rows + CANARY; r++) assert_true(row[r] == 12345.0f);
    }
    return y;
}

/* The SIMD kernel of a type, or NULL where this machine cannot run it. */
static const tn_matmul_kernel *simd_kernel(tn_type type, tn_act_type act, tn_isa isa) {
    if (!tn_isa_has(isa)) return NULL;
    const tn_matmul_kernel *k = tn_matmul_find(type, act, isa);
    assert_int_equal(k->isa, isa);
    assert_int_equal(k->layout, TN_LAYOUT_TILE16);
    return k;
}

/* One weight and its tokens on every instruction set: right, and the same bits on all of them. */
static void check(const sample *w, tn_act_type act, const uint8_t *x, int32_t n) {
    size_t ld = (size_t)padded(w->tiles.n_out) + CANARY, bytes = sizeof(float) * ld * (size_t)n;
    float *first = NULL;
    for (int isa = TN_ISA_REF + 1; isa < TN_ISA_COUNT; isa++) {
        const tn_matmul_kernel *k = simd_kernel(w->tiles.type, act, (tn_isa)isa);
        if (!k) continue;
        float *y = run(k, w, x, n);
        if (first)
            assert_memory_equal(y, first, bytes);
        else
            assert_close(w, act, x, n, y, ld, k->name);
        if (first) free(y);
        if (!first) first = y;
    }
    free(first);
}

/* The columns to test a type with: so many of its blocks, or of 32 where int8 rows need them. */
static int32_t columns(tn_type type, tn_act_type act, int32_t blocks) {
    int32_t block = tn_type_get(type)->block;
    return blocks * (act == TN_ACT_INT8 && block < 32 ? 32 : block);
}

/* ---- tests ---- */

static void test_find(void **state) {
    (void)state;
    for (size_t i = 0; i < TN_N_TYPES; i++)
        for (int isa = 0; isa < TN_ISA_COUNT; isa++) {
            const tn_matmul_kernel *q8 = tn_matmul_find(tn_all_types[i], TN_ACT_INT8, (tn_isa)isa);
            const tn_matmul_kernel *f32 = tn_matmul_find(tn_all_types[i], TN_ACT_F32, (tn_isa)isa);
            assert_true(q8->act == TN_ACT_INT8 && f32->act == TN_ACT_F32);
            assert_int_equal(q8->layout, f32->layout);
            assert_true((int)q8->isa <= isa && (int)f32->isa <= isa);
            assert_non_null(tn_weight_row_find(q8->layout));
        }
    assert_ptr_equal(tn_matmul_find(TN_TYPE_Q4_K, TN_ACT_INT8, TN_ISA_REF)->run, tn_matmul_q8__ref);
    assert_ptr_equal(tn_matmul_find(TN_TYPE_F32, TN_ACT_F32, TN_ISA_REF)->run, tn_matmul_f32__ref);
    assert_string_equal(tn_matmul_find(TN_TYPE_F32, TN_ACT_F32, TN_ISA_REF)->name, "tn_matmul_f32__ref");
    assert_ptr_equal(tn_weight_row_find(TN_LAYOUT_ROWS), tn_weight_row__ref);
    assert_ptr_equal(tn_weight_row_find(TN_LAYOUT_TILE16), tn_weight_row_tile16);
}

/* What the reference says on a case worked out by hand: rows (1, 2, 3, ...) and (-1, 1, -1, ...). */
static void test_reference(void **state) {
    (void)state;
    float w[2][64], x[2][64], y[2][3] = {{9, 9, 9}, {9, 9, 9}};
    uint8_t q8[2][80];
    for (int i = 0; i < 64; i++) {
        w[0][i] = (float)(i + 1), w[1][i] = i % 2 ? 1 : -1;
        x[0][i] = i < 32 ? 1 : 2, x[1][i] = i == 5 ? -127 : 0;
    }
    for (int t = 0; t < 2; t++) tn_q8_encode(x[t], q8[t], 64, 0, 64);
    tn_cpu_weight weight = {w, sizeof w[0], TN_TYPE_F32, 2, 64};
    tn_matmul_f32__ref(&weight, 0, 2, x, sizeof x[0], 2, y[0], 3);
    float want[2][3] = {{528 + 2 * 1552, 0, 9}, {-127 * 6, -127, 9}};
    assert_memory_equal(y, want, sizeof y);
    tn_matmul_q8__ref(&weight, 1, 1, q8, sizeof q8[0], 2, y[0] + 1, 3);
    tn_matmul_q8__ref(&weight, 0, 1, q8, sizeof q8[0], 2, y[0], 3);
    for (int t = 0; t < 2; t++)
        for (int r = 0; r < 3; r++) assert_true(fabsf(y[t][r] - want[t][r]) <= 1e-3f);
}

static void test_tile_bytes(void **state) {
    (void)state;
    assert_int_equal(tn_tile_bytes(TN_TYPE_Q4_1, 576), 18 * 320);
    assert_int_equal(tn_tile_bytes(TN_TYPE_Q4_0, 32), 320); /* 288, padded */
    assert_int_equal(tn_tile_bytes(TN_TYPE_Q8_0, 64), 2 * 544);
    assert_int_equal(tn_tile_bytes(TN_TYPE_Q4_K, 512), 2 * 2368);
    assert_int_equal(tn_tile_bytes(TN_TYPE_F32, 3), 192);
    assert_int_equal(tn_tile_bytes(TN_TYPE_Q4_1, 33), 0);
    assert_int_equal(tn_tile_bytes(TN_TYPE_Q6_K, 128), 0);
    assert_int_equal(tn_tile_bytes(TN_TYPE_F32, -1), 0);
    assert_int_equal(tn_tile_bytes((tn_type)40, 256), 0);
    for (size_t i = 0; i < TN_N_TYPES; i++) { /* nothing grows by more than 4 % */
        double tile = (double)tn_tile_bytes(tn_all_types[i], 2048);
        assert_true(tile <= 1.04 * 16 * (double)tn_type_row_bytes(tn_all_types[i], 2048));
    }
}

/* Rows come back from tiles with the very bits that the type's decoder gives. */
static void test_rows(void **state) {
    (void)state;
    static const kind kinds[] = {RANDOM, ONES, ZEROS, DENORMAL};
    for (size_t i = 0; i < TN_N_TYPES; i++)
        for (size_t k = 0; k < COUNT(kinds); k++) {
            int32_t n_in = columns(tn_all_types[i], TN_ACT_F32, 3), n_out = 37;
            sample w = make_weight(tn_all_types[i], kinds[k], n_out, n_in);
            float *got = malloc(sizeof(float) * (size_t)n_in), *want = malloc(sizeof(float) * (size_t)n_in);
            for (int32_t r = 0; r < padded(n_out); r++) {
                tn_weight_row_tile16(&w.tiles, r, got);
                memset(want, 0, sizeof(float) * (size_t)n_in);
                if (r < n_out) tn_weight_row__ref(&w.rows, r, want);
                for (int32_t c = 0; c < n_in; c++) /* a zero may have another sign */
                    if (!(got[c] == want[c]))
                        fail_msg("%s row %d column %d: %.9g, not %.9g", tn_type_name(tn_all_types[i]), r, c,
                                 (double)got[c], (double)want[c]);
            }
            free(got);
            free(want);
            free_weight(&w);
        }
}

/* Tiles packed a few at a time are those packed at once, the padding between them included. */
static void test_pack_parts(void **state) {
    (void)state;
    for (size_t i = 0; i < TN_N_TYPES; i++) {
        sample w = make_weight(tn_all_types[i], RANDOM, 65, columns(tn_all_types[i], TN_ACT_F32, 3));
        uint8_t *parts = malloc(w.tiles_bytes);
        assert_non_null(parts);
        memset(parts, 0x5a, w.tiles_bytes);
        tn_tile_pack(&w.rows, 3, 5, parts);
        tn_tile_pack(&w.rows, 0, 1, parts);
        tn_tile_pack(&w.rows, 1, 3, parts);
        assert_memory_equal(parts, w.tiles.data, w.tiles_bytes);
        free(parts);
        free_weight(&w);
    }
}

static void check_shape(tn_type type, tn_act_type act, int32_t n_out, int32_t n_in, int32_t n) {
    sample w = make_weight(type, RANDOM, n_out, n_in);
    uint8_t *x = make_acts(act, n_in, n, NAN);
    check(&w, act, x, n);
    free(x);
    free_weight(&w);
}

static void test_shapes(tn_act_type act) {
    static const int32_t outs[] = {1, 5, 16, 17, 33, 576}, blocks[] = {1, 2, 3, 9};
    static const int32_t tokens[] = {33, 1, 7, 9, 2, 8, 3};
    int turn = 0;
    for (size_t i = 0; i < TN_N_TYPES; i++)
        for (size_t o = 0; o < COUNT(outs); o++)
            for (size_t b = 0; b < COUNT(blocks); b++) {
                int32_t n = outs[o] == 576 ? 9 : tokens[turn++ % (int)COUNT(tokens)];
                check_shape(tn_all_types[i], act, outs[o], columns(tn_all_types[i], act, blocks[b]), n);
            }
}
static void test_shapes_q8(void **state) {
    (void)state;
    test_shapes(TN_ACT_INT8);
}
static void test_shapes_f32(void **state) {
    (void)state;
    test_shapes(TN_ACT_F32);
    static const tn_type floats[] = {TN_TYPE_F32, TN_TYPE_F16, TN_TYPE_BF16};
    static const int32_t cols[] = {31, 33, 65, 515, 1025}; /* not whole blocks of 32 */
    for (size_t i = 0; i < COUNT(floats); i++)
        for (size_t c = 0; c < COUNT(cols); c++) check_shape(floats[i], TN_ACT_F32, 20, cols[c], (int32_t)c + 1);
}

/* More tokens and columns than the kernels take at once. */
static void test_long(void **state) {
    (void)state;
    for (size_t i = 0; i < TN_N_TYPES; i++)
        for (int act = 0; act < 2; act++) {
            check_shape(tn_all_types[i], (tn_act_type)act, 17, 5120, 70);
            check_shape(tn_all_types[i], (tn_act_type)act, 2, 25600, 1);
            check_shape(tn_all_types[i], (tn_act_type)act, 33, 512, 130);
        }
}

/* A token's results are the same bits in any company, a row's in any cut. */
static void check_cuts(tn_type type, tn_act_type act, tn_isa isa) {
    static const int32_t cuts[] = {1, 2, 3, 7, 8, 9, 32};
    const tn_matmul_kernel *k = simd_kernel(type, act, isa);
    if (!k) return;
    int32_t n = 70, n_out = 41, n_in = 5120, rows = padded(n_out);
    size_t ld = (size_t)rows + CANARY, stride = act_stride(act, n_in);
    sample w = make_weight(type, RANDOM, n_out, n_in);
    uint8_t *x = make_acts(act, n_in, n, NAN);
    float *all = run(k, &w, x, n);
    for (size_t c = 0; c < COUNT(cuts); c++)
        for (int32_t t = 0; t + cuts[c] <= n; t += c < 2 ? 23 : cuts[c]) {
            float *some = run(k, &w, x + (size_t)t * stride, cuts[c]);
            assert_memory_equal(some, all + (size_t)t * ld, sizeof(float) * ld * (size_t)cuts[c]);
            free(some);
        }
    float part[9][16];
    for (int32_t r = 0; r < rows; r += 16) {
        k->run(&w.tiles, r, 16, x, stride, 9, part[0], 16);
        for (int t = 0; t < 9; t++) assert_memory_equal(part[t], all + (size_t)t * ld + r, sizeof part[t]);
    }
    free(all);
    free(x);
    free_weight(&w);
}
static void test_cuts(void **state) {
    (void)state;
    for (size_t i = 0; i < TN_N_TYPES; i++)
        for (int act = 0; act < 2; act++)
            for (int isa = TN_ISA_REF + 1; isa < TN_ISA_COUNT; isa++)
                check_cuts(tn_all_types[i], (tn_act_type)act, (tn_isa)isa);
}

/* Nothing overflows or saturates: largest quants and scales against activations of one sign, all +-127. */
static void test_extremes(void **state) {
    (void)state;
    static const kind kinds[] = {ONES, ZEROS, DENORMAL};
    static const float xs[] = {127.0f, -127.0f, 0.0f, 1e-30f};
    for (size_t i = 0; i < TN_N_TYPES; i++)
        for (size_t k = 0; k < COUNT(kinds); k++)
            for (size_t v = 0; v < COUNT(xs); v++)
                for (int act = 0; act < 2; act++) {
                    int32_t n_in = columns(tn_all_types[i], (tn_act_type)act, 4);
                    sample w = make_weight(tn_all_types[i], kinds[k], 18, n_in);
                    uint8_t *x = make_acts((tn_act_type)act, n_in, 9, xs[v]);
                    check(&w, (tn_act_type)act, x, 9);
                    free(x);
                    free_weight(&w);
                }
}

/* Every value of every quant byte, alone in a block, against +-127: one product at a time, exact. */
static void test_every_byte(void **state) {
    (void)state;
    static const struct {
        tn_type type;
        int quants; /* where the quants of a block begin */
    } types[] = {{TN_TYPE_Q8_0, 2}, {TN_TYPE_IQ4_NL, 2}, {TN_TYPE_Q4_0, 2}, {TN_TYPE_Q4_1, 4}};
    for (size_t i = 0; i < COUNT(types); i++) {
        int32_t n_in = 32, n_out = 256;
        sample w = make_weight(types[i].type, ONES, n_out, n_in);
        for (int r = 0; r < n_out; r++)
            memset((uint8_t *)w.rows.data + (size_t)r * w.rows.stride + types[i].quants, r,
                   w.rows.stride - (size_t)types[i].quants);
        tn_tile_pack(&w.rows, 0, n_out / 16, (void *)w.tiles.data);
        for (int sign = -1; sign <= 1; sign += 2) {
            uint8_t *x = make_acts(TN_ACT_INT8, n_in, 3, (float)sign * 127.0f);
            check(&w, TN_ACT_INT8, x, 3);
            free(x);
        }
        free_weight(&w);
    }
}

/* ---- quantize ---- */

static void assert_quantizes(const float *x, int32_t n) {
    uint8_t *want = calloc(1, tn_q8_row_bytes((size_t)n)), *got = calloc(1, tn_q8_row_bytes((size_t)n));
    assert_true(want && got);
    tn_q8_encode(x, want, (size_t)n, 0, (size_t)n);
    for (int isa = 0; isa < TN_ISA_COUNT; isa++) {
        if (!tn_isa_has((tn_isa)isa)) continue;
        for (int32_t step = 32; step <= n; step += 64) { /* in pieces of any length */
            memset(got, 0xa5, tn_q8_row_bytes((size_t)n));
            for (int32_t first = 0; first < n; first += step) {
                tn_piece p = {.dst = got, .src = {x + first}, .first = first, .n_row = n};
                p.n = n - first < step ? n - first : step;
                tn_piece_find(TN_PIECE_quantize, (tn_isa)isa)(&p);
            }
            assert_memory_equal(got, want, tn_q8_row_bytes((size_t)n));
        }
    }
    free(want);
    free(got);
}

static void test_quantize(void **state) {
    (void)state;
    enum { N = 320 };
    float x[N];
    for (int scale = -149; scale <= 127; scale += 3) {
        for (int i = 0; i < N; i++) x[i] = ldexpf(tn_random_float(), scale);
        assert_quantizes(x, N);
    }
    for (int round = 0; round < 200; round++) { /* ties: max 127, halves everywhere */
        for (int i = 0; i < N; i++) x[i] = (float)((int)(tn_random() % 509) - 254) * 0.5f;
        x[tn_random() % N] = 127;
        assert_quantizes(x, N);
    }
    for (int i = 0; i < N; i++) x[i] = i < 64 ? 0.0f : i < 96 ? -0.0f : i < 128 ? 0x1p-121f : tn_random_float();
    x[130] = INFINITY, x[170] = -INFINITY, x[200] = 3e38f;
    assert_quantizes(x, N);
    for (int i = 0; i < N; i++) x[i] = i % 2 ? 1 : -1;
    assert_quantizes(x, N);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),       cmocka_unit_test(test_reference),  cmocka_unit_test(test_tile_bytes),
        cmocka_unit_test(test_rows),       cmocka_unit_test(test_pack_parts), cmocka_unit_test(test_shapes_q8),
        cmocka_unit_test(test_shapes_f32), cmocka_unit_test(test_long),       cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_extremes),   cmocka_unit_test(test_every_byte), cmocka_unit_test(test_quantize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
