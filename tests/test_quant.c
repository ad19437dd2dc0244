/* Block types: decoders and encoders against blocks worked out by hand, and to the bit against those of another
 * implementation (data/quant); the int8 activation row. */
#include "base/half.h"
#include "base/mem.h"
#include "quant/quant.h"
#include "tenon.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- names and sizes ---- */

static void test_names(void **state) {
    (void)state;
    assert_string_equal(tn_type_name(TN_TYPE_Q4_K), "Q4_K");
    assert_string_equal(tn_type_name(16), "IQ2_XXS");
    assert_string_equal(tn_type_name(26), "I32");
    assert_string_equal(tn_type_name(39), "MXFP4");
    assert_string_equal(tn_type_name(40), "NVFP4");
    assert_null(tn_type_name(63));
    assert_null(tn_type_name(64));
    assert_null(tn_type_name(UINT32_MAX));
    assert_null(tn_type_get(16));
    assert_null(tn_type_get(64));
    assert_null(tn_type_get(UINT32_MAX));
    assert_int_equal(tn_type_find("IQ4_XS"), TN_TYPE_IQ4_XS);
    assert_int_equal(tn_type_find("F32"), 0);
    assert_int_equal(tn_type_find("IQ2_XXS"), -1);
    assert_int_equal(tn_type_find("q4_k"), -1);
    assert_int_equal(tn_type_find(""), -1);
}

/* Every id that a file may hold today has a name, and no two the same. */
static void test_names_complete(void **state) {
    (void)state;
    const char *seen[42];
    for (uint32_t i = 0; i <= 41; i++) {
        seen[i] = tn_type_name(i);
        assert_non_null(seen[i]);
        for (uint32_t j = 0; j < i; j++) assert_string_not_equal(seen[i], seen[j]);
    }
}

static void test_sizes(void **state) {
    (void)state;
    for (int type = 0; type < TN_TYPE_LIMIT; type++) {
        const tn_type_info *t = tn_type_get((uint32_t)type);
        if (!t) {
            assert_int_equal(tn_type_row_bytes((tn_type)type, 256), 0);
            continue;
        }
        assert_non_null(t->decode);
        assert_non_null(t->encode);
        assert_int_equal(tn_type_row_bytes((tn_type)type, 0), 0);
        assert_int_equal(tn_type_row_bytes((tn_type)type, 3 * (size_t)t->block), 3 * t->bytes);
        if (t->block > 1) assert_int_equal(tn_type_row_bytes((tn_type)type, 3 * (size_t)t->block + 1), 0);
    }
}

/* ---- blocks worked out by hand ---- */

/* One block, and some of the elements in it; `rest` is what most others are. */
typedef struct hand {
    tn_type type;
    uint8_t block[210];
    struct {
        int i;
        float x;
    } want[8];
    int n_want;
} hand;

#define HALF  0x00, 0x38 /* 0.5 as f16 */
#define ONE   0x00, 0x3c
#define TWO   0x00, 0x40
#define MINUS 0x00, 0xc0 /* -2 */

static const hand hands[] = {
    {TN_TYPE_F32, {0x00, 0x00, 0x20, 0xc1}, {{0, -10.0f}}, 1},
    {TN_TYPE_F16, {0xff, 0x7b}, {{0, 65504.0f}}, 1},
    {TN_TYPE_F16, {0x01, 0x80}, {{0, -0x1p-24f}}, 1},
    {TN_TYPE_BF16, {0x49, 0xc0}, {{0, -3.140625f}}, 1},
    /* 0.5 (1 - 8), 0.5 (15 - 8); the rest 0.5 (0 - 8) */
    {TN_TYPE_Q4_0, {HALF, 0xf1}, {{0, -3.5f}, {16, 3.5f}, {1, -4}, {31, -4}}, 4},
    /* 0.5 * 5 - 2, 0.5 * 10 - 2 */
    {TN_TYPE_Q4_1, {HALF, MINUS, [7] = 0xa5}, {{3, 0.5f}, {19, 3}, {0, -2}, {31, -2}}, 4},
    /* fifth bits of 1 and 31: 2 (16 + 3 - 16), 2 (7 - 16), 2 (0 - 16), 2 (16 + 15 - 16) */
    {TN_TYPE_Q5_0,
     {TWO, 0x02, 0, 0, 0x80, [7] = 0x73, [21] = 0xf0},
     {{1, 6}, {17, -18}, {15, -32}, {31, 30}, {0, -32}},
     5},
    /* fifth bits of 0 and 16: 0.5 (16 + 2) + 1, 0.5 (16 + 9) + 1 */
    {TN_TYPE_Q5_1, {HALF, ONE, 0x01, 0, 0x01, 0, 0x92}, {{0, 10}, {16, 13.5f}, {1, 1}, {31, 1}}, 4},
    {TN_TYPE_Q8_0, {MINUS, 127, [33] = 0x80}, {{0, -254}, {31, 256}, {1, 0}}, 3},
    /* bytes 0..15 scales and mins, 16..79 q, d = 1, dmin = 0.5. Byte 16 is q = 0, 1, 2, 3 of elements 0, 32, 64, 96:
     * 1 * 0 - 0.5 * 2, 3 * 1 - 0.5 * 1, 5 * 2 - 0, 2 * 3 - 0.5 * 15; element 177 is bit pair 1 of q byte 32 + 17, of
     * group 11: 15 * 2 - 0.5 * 4 */
    {TN_TYPE_Q2_K,
     {0x21, [2] = 0x13, [4] = 0x05, [6] = 0xf2, [11] = 0x4f, [16] = 0xe4, [16 + 49] = 0x08, [80] = ONE, HALF},
     {{0, -1}, {32, 2.5f}, {64, 10}, {96, -1.5f}, {177, 28}, {1, -1}, {255, 0}},
     7},
    /* third bits 0..31, q 32..95, scales 96..107, d = 1. Group 0: 1 | 2 << 4 = 33 -> 1; group 8: 15 | 3 << 4 = 63 ->
     * 31; others 0 -> -32. 1 (3 + 4 - 4), 1 (0 - 4), 31 (1 + 4 - 4), 31 (0 - 4), -32 (0 - 4) */
    {TN_TYPE_Q3_K,
     {0x11, [32] = 0x03, [64] = 0x01, [96] = 0xf1, [104] = 0x32, [108] = ONE},
     {{0, 3}, {1, -4}, {128, 31}, {129, -124}, {16, 128}, {255, 128}},
     6},
    /* d = 1, dmin = 0.5. Group 0: scale 5, min 3; group 4: scale 7 | 3 << 4 = 55, min 2 | 1 << 4 = 18; group 7: scale
     * 1, min 2. 5 * 10 - 1.5, 55 * 15 - 9, 55 * 0 - 9, 1 * 12 - 1 */
    {TN_TYPE_Q4_K,
     {ONE, HALF, 0xc5, 0, 0, 0, 0x43, 0, 0, 0, 0x27, 0, 0, 0x21, 0x0a, [16 + 64] = 0x0f, [16 + 127] = 0xc0},
     {{0, 48.5f}, {1, -1.5f}, {32, 0}, {128, 816}, {129, -9}, {255, 11}, {254, -1}},
     7},
    /* the same with fifth bits for element 0, 128 (byte 16, bits 0 and 4) and 255 (byte 47, bit 7):
     * 5 * 26 - 1.5, 55 * 31 - 9, 1 * 28 - 1 */
    {TN_TYPE_Q5_K,
     {ONE, HALF, 0xc5, 0, 0, 0, 0x43, 0, 0, 0, 0x27, 0, 0, 0x21, 0x11, [47] = 0x80, [48] = 0x0a, [48 + 64] = 0x0f,
      [48 + 127] = 0xc0},
     {{0, 128.5f}, {1, -1.5f}, {32, 0}, {128, 1696}, {129, -9}, {255, 27}, {254, -1}},
     7},
    /* low nibbles 0..127, high pairs 128..191, scales 192..207, d = 0.5: 0.5 * 2 (10 + 16 - 32), 0.5 * -1 (3 - 32),
     * 0.5 * 3 (5 + 32 - 32), 0.5 * -128 (12 + 48 - 32), 0.5 * 4 (1 + 16 - 32) */
    {TN_TYPE_Q6_K,
     {0x5a, [32] = 0xc3, [127] = 0x10, [128] = 0xe1, [191] = 0x40, [192] = 2, [194] = 0xff, [196] = 3, [198] = 0x80,
      [207] = 4, [208] = HALF},
     {{0, -6}, {32, 14.5f}, {64, 7.5f}, {96, -1792}, {255, -30}, {1, -32}, {16, 0}},
     7},
    {TN_TYPE_IQ4_NL, {ONE, 0xf0, [17] = 0x78}, {{0, -127}, {16, 113}, {15, 1}, {31, -10}, {1, -127}}, 5},
    /* scales: group 0: 1 | 2 << 4 -> 1; group 1: 2 -> -30; group 7: 15 | 3 << 4 -> 31 */
    {TN_TYPE_IQ4_XS,
     {ONE, 0x02, 0xc0, 0x21, 0, 0, 0xf0, 0x8f, [24] = 0x09, [135] = 0x7f},
     {{0, 113}, {16, 1}, {32, -390}, {48, 3810}, {239, 3503}, {255, -310}, {1, -127}, {64, 4064}},
     8},
};

static void test_decode_by_hand(void **state) {
    (void)state;
    bool seen[TN_TYPE_LIMIT] = {false};
    for (size_t k = 0; k < COUNT(hands); k++) {
        const hand *h = &hands[k];
        const tn_type_info *t = tn_type_get(h->type);
        float y[256];
        seen[h->type] = true;
        t->decode(h->block, y, (size_t)t->block);
        for (int i = 0; i < h->n_want; i++) {
            if (y[h->want[i].i] != h->want[i].x) {
                fail_msg("%s: element %d is %g, not %g", t->name, h->want[i].i, y[h->want[i].i], h->want[i].x);
            }
        }
    }
    for (uint32_t i = 0; i < TN_TYPE_LIMIT; i++) assert_int_equal(seen[i], tn_type_get(i) != NULL);
}

/* ---- encoders by hand ---- */

static void encode(tn_type type, const float *x, size_t n, uint8_t *out) {
    tn_type_get(type)->encode(x, out, n);
}

static void test_encode_by_hand(void **state) {
    (void)state;
    uint8_t b[34];
    float x[32] = {-8, 7, 8, 0.5f, 0.4375f, -0.5f};
    encode(TN_TYPE_Q4_0, x, 32, b); /* d = 1, q = trunc(x + 8.5) <= 15 */
    const uint8_t q4_0[] = {ONE, 0x80, 0x8f, 0x8f, 0x89, 0x88, 0x88, 0x88};
    assert_memory_equal(b, q4_0, sizeof q4_0);
    x[0] = 8; /* now the extreme is positive: d = -1, q = trunc(-x + 8.5) */
    x[2] = 0;
    encode(TN_TYPE_Q4_0, x, 32, b);
    const uint8_t negative[] = {0x00, 0xbc, 0x80, 0x81, 0x88, 0x88, 0x88, 0x89};
    assert_memory_equal(b, negative, sizeof negative);

    float y[32] = {-2, 5.5f, 0.25f, [16] = -1, [31] = 3};
    encode(TN_TYPE_Q4_1, y, 32, b); /* d = 0.5, m = -2, q = trunc(2 (x + 2) + 0.5) */
    const uint8_t q4_1[] = {HALF, MINUS, 0x20, 0x4f, 0x45, 0x44};
    assert_memory_equal(b, q4_1, sizeof q4_1);
    assert_int_equal(b[19], 0xa4);

    float z[32] = {-32, 30, [17] = -2, [31] = 1};
    encode(TN_TYPE_Q5_0, z, 32, b); /* d = 2, q = trunc(x / 2 + 16.5): 0, 31; 16; 15, 17 */
    const uint8_t q5_0[] = {TWO, 0xfe, 0xff, 0xfd, 0xff, 0x00, 0xff, 0x00};
    assert_memory_equal(b, q5_0, sizeof q5_0);
    assert_int_equal(b[21], 0x10);

    float v[32] = {1, 16.5f, [16] = 9};
    for (int i = 0; i < 32; i++) v[i] = v[i] == 0 ? 1 : v[i];
    encode(TN_TYPE_Q5_1, v, 32, b); /* d = 0.5, m = 1: 0, 31, 16 */
    const uint8_t q5_1[] = {HALF, ONE, 0x02, 0, 0x01, 0, 0x00, 0x0f, 0x00};
    assert_memory_equal(b, q5_1, sizeof q5_1);

    float u[32] = {127, 0.5f, -0.5f, -2.5f, 1.5f, -127};
    encode(TN_TYPE_Q8_0, u, 32, b); /* d = 1; halves away from zero */
    const uint8_t q8_0[] = {ONE, 127, 1, 0xff, 0xfd, 2, 0x81, 0};
    assert_memory_equal(b, q8_0, sizeof q8_0);

    float half[2] = {1.0f + 0x1p-11f, 65520.0f}; /* a tie, to even; past the largest */
    encode(TN_TYPE_F16, half, 2, b);
    const uint8_t f16[] = {ONE, 0x00, 0x7c};
    assert_memory_equal(b, f16, sizeof f16);
    float brain[2] = {1.0f + 0x1p-8f, 1.0f + 0x1.8p-7f}; /* ties, to even */
    encode(TN_TYPE_BF16, brain, 2, b);
    const uint8_t bf16[] = {0x80, 0x3f, 0x82, 0x3f};
    assert_memory_equal(b, bf16, sizeof bf16);
}

/* A weight that is not finite is nonsense, but must not be undefined behaviour; zeros stay zeros. */
static void test_encode_odd_values(void **state) {
    (void)state;
    const float odd[] = {0, -0.0f, NAN, INFINITY, -INFINITY, 0x1p-149f, 3.4e38f};
    for (uint32_t type = 0; type < TN_TYPE_LIMIT; type++) {
        const tn_type_info *t = tn_type_get(type);
        if (!t) continue;
        for (size_t k = 0; k < COUNT(odd); k++) {
            float x[256], y[256];
            uint8_t b[1024];
            for (int i = 0; i < 256; i++) x[i] = odd[k];
            t->encode(x, b, 256);
            t->decode(b, y, 256);
            if (odd[k] != 0) continue;
            for (int i = 0; i < 256; i++) assert_true(y[i] == 0);
        }
    }
}

/* ---- against another implementation ---- */

static uint8_t *read_data(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    uint8_t *p = malloc(*n);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

/* To the bit, but that all zeros are equal. */
static void assert_same_floats(const char *name, const float *got, const uint8_t *want, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float w;
        memcpy(&w, want + 4 * i, 4);
        if (got[i] != w) fail_msg("%s: element %zu is %a, not %a", name, i, got[i], w);
    }
}

static void check_record(const uint32_t head[4], const uint8_t *blocks, const uint8_t *floats) {
    const tn_type_info *t = tn_type_get(head[0]);
    size_t n = head[1], bytes = head[3];
    assert_non_null(t);
    assert_int_equal(tn_type_row_bytes((tn_type)head[0], n), bytes);
    float *x = malloc(4 * n);
    uint8_t *b = malloc(bytes);
    assert_true(x && b);
    if (head[2] == 0) {
        t->decode(blocks, x, n);
        assert_same_floats(t->name, x, floats, n);
    } else {
        memcpy(x, floats, 4 * n);
        t->encode(x, b, n);
        assert_memory_equal(b, blocks, bytes);
    }
    free(b);
    free(x);
}

static void test_reference(void **state) {
    (void)state;
    size_t n, decoded = 0, encoded = 0;
    uint8_t *data = read_data(TESTS_DIR "/data/quant/blocks.bin", &n);
    for (size_t at = 0; at < n;) {
        uint32_t head[4];
        assert_true(n - at >= sizeof head);
        memcpy(head, data + at, sizeof head);
        at += sizeof head;
        assert_true(n - at >= head[3] + 4 * (size_t)head[1]);
        check_record(head, data + at, data + at + head[3]);
        at += head[3] + 4 * (size_t)head[1];
        head[2] ? encoded++ : decoded++;
    }
    free(data);
    size_t types = 0;
    for (uint32_t i = 0; i < TN_TYPE_LIMIT; i++) types += tn_type_get(i) != NULL;
    assert_int_equal(decoded, types);
    assert_int_equal(encoded, 7); /* those that are plain rounding; F32 needs none */
}

/* What was decoded from a block encodes to the same block again (for types where the scale is found back). */
static void test_encode_decode(void **state) {
    (void)state;
    const tn_type types[] = {TN_TYPE_F32, TN_TYPE_F16, TN_TYPE_BF16, TN_TYPE_Q4_0, TN_TYPE_Q5_0, TN_TYPE_Q8_0};
    for (size_t k = 0; k < COUNT(types); k++) {
        const tn_type_info *t = tn_type_get(types[k]);
        float x[256], y[256];
        uint8_t a[1024], b[1024];
        uint32_t r = 1;
        for (int i = 0; i < 256; i++) x[i] = (float)(int32_t)(r = r * 1664525 + 1013904223) * 0x1p-28f;
        t->encode(x, a, 256);
        t->decode(a, y, 256);
        t->encode(y, b, 256);
        assert_memory_equal(a, b, tn_type_row_bytes(types[k], 256));
        for (int i = 0; i < 256; i++) assert_true(fabsf(x[i] - y[i]) <= 1.0f);
    }
}

/* ---- the int8 activation row ---- */

static void test_q8_by_hand(void **state) {
    (void)state;
    float x[64] = {127, 0.5f, 1.5f, -0.5f, -1.5f, 2.5f, 100.4f, -127, [16] = 3, [31] = -4};
    uint8_t row[80] __attribute__((aligned(4)));
    memset(row, 0xaa, sizeof row);
    assert_int_equal(tn_q8_row_bytes(64), 80);
    tn_q8_encode(x, row, 64, 0, 64);
    tn_q8_row r = tn_q8_row_at(row, 64);
    const int8_t q[] = {127, 0, 2, 0, -2, 2, 100, -127, 0};
    assert_memory_equal(r.q, q, sizeof q);
    assert_int_equal(r.q[16], 3);
    assert_int_equal(r.q[31], -4);
    assert_true(r.d[0] == 1 && r.d[1] == 0);
    assert_int_equal(r.s[0], 102);
    assert_int_equal(r.s[1], -1);
    for (int i = 32; i < 64; i++) assert_int_equal(r.q[i], 0);
    assert_int_equal(r.s[2], 0);
    assert_int_equal(r.s[3], 0);
}

static void test_q8_stretches(void **state) {
    (void)state;
    enum { N = 256 };
    float x[N], y[N];
    uint8_t whole[N / 32 * 40] __attribute__((aligned(4))), pieces[N / 32 * 40] __attribute__((aligned(4)));
    uint32_t random = 5;
    for (int i = 0; i < N; i++) x[i] = (float)(int32_t)(random = random * 1664525 + 1013904223) * 0x1p-31f;
    memset(whole, 0, sizeof whole);
    memset(pieces, 0xff, sizeof pieces);
    tn_q8_encode(x, whole, N, 0, N);
    tn_q8_encode(x + 96, pieces, N, 96, 160);
    tn_q8_encode(x, pieces, N, 0, 32);
    tn_q8_encode(x + 32, pieces, N, 32, 64);
    assert_memory_equal(whole, pieces, sizeof whole);
    tn_q8_decode(whole, y, N);
    tn_q8_row r = tn_q8_row_at(whole, N);
    for (int i = 0; i < N; i++) {
        assert_true(fabsf(x[i] - y[i]) <= r.d[i / 32] * 0.50001f);
        if (i % 16) continue;
        int sum = 0;
        for (int j = 0; j < 16; j++) sum += r.q[i + j];
        assert_int_equal(r.s[i / 16], sum);
    }
}

/* The greatest magnitude is 127 at every scale; what is not finite is not lost. */
static void test_q8_odd_values(void **state) {
    (void)state;
    uint8_t row[40] __attribute__((aligned(4)));
    tn_q8_row r = tn_q8_row_at(row, 32);
    float x[32] = {0}, y[32];
    for (float top = 0x1p-119f; top < 0x1p127f; top *= 1.37f) {
        x[7] = -top;
        tn_q8_encode(x, row, 32, 0, 32);
        assert_int_equal(r.q[7], -127);
        assert_true(r.d[0] == top / 127);
    }
    x[7] = 0x1p-149f;
    tn_q8_encode(x, row, 32, 0, 32);
    for (int i = 0; i < 32; i++) assert_int_equal(r.q[i], 0);
    assert_true(r.d[0] == 0);
    const float odd[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (size_t k = 0; k < COUNT(odd); k++) {
        x[7] = odd[k];
        tn_q8_encode(x, row, 32, 0, 32);
        tn_q8_decode(row, y, 32);
        assert_false(isfinite(y[7]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),          cmocka_unit_test(test_names_complete),
        cmocka_unit_test(test_sizes),          cmocka_unit_test(test_decode_by_hand),
        cmocka_unit_test(test_encode_by_hand), cmocka_unit_test(test_encode_odd_values),
        cmocka_unit_test(test_reference),      cmocka_unit_test(test_encode_decode),
        cmocka_unit_test(test_q8_by_hand),     cmocka_unit_test(test_q8_stretches),
        cmocka_unit_test(test_q8_odd_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
