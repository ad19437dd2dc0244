/* Packed weights against the decoders of their types, and their way to the device, without one: a driver that copies as late as it
 * may. */
#include "backend/cuda/pack.h"
#include "base/half.h"
#include "base/mem.h"
#include "cuda_fake.h"
#include "cuda_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- packed matrices against the decoders of the file's types ---- */

static uint32_t word_at(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* An element of a packed matrix, by the words of pack.h. */
static float packed_element(const uint8_t *m, int traits, tn_cuda_planes p, int32_t n_in, int32_t row, int32_t c) {
    int32_t blocks = (n_in + 31) / 32, block = c / 32, i = c % 32, low = TN_K_LOW(traits);
    size_t four = ((size_t)(row / 4) * (size_t)blocks + (size_t)block) * 4 + (size_t)(row % 4);
    size_t each = low == 4 ? 32 : 128 / (size_t)low, piece = (size_t)i / each;
    const uint8_t *at = m + (((size_t)row * (size_t)(low / 4) + piece) * (size_t)blocks + (size_t)block) * 16;
    if (low == 32) return tn_bits_float(word_at(at + (size_t)i % each * 4));
    if (low == 16) {
        uint16_t h = (uint16_t)word_at(at + ((size_t)i % each * 2 & ~(size_t)3));
        memcpy(&h, at + (size_t)i % each * 2, 2);
        return TN_K_SCALE(traits) == TN_K_BF16 ? tn_bf16_to_f32(h) : tn_f16_to_f32(h);
    }
    int q = low == 8 ? (int8_t)at[(size_t)i % each] : i < 16 ? at[i] & 15 : at[i - 16] >> 4;
    int h = i / 16, w = i % 16 / 4, b = i % 4;
    const uint8_t *high = m + p.high + four * 4 * (size_t)TN_K_HIGH(traits);
    if (TN_K_HIGH(traits) == 1) q |= (int)(word_at(high) >> (8 * b + 4 * h + w) & 1) << 4;
    if (TN_K_HIGH(traits) == 2) q |= (int)(word_at(high + 4 * h) >> (8 * b + 2 * w) & 3) << 4;
    int kind = TN_K_SCALE(traits);
    const uint8_t *s = m + p.scale + four * (kind == TN_K_DM ? 4 : 2);
    const uint8_t *super =
        m + p.super + (((size_t)(row / 4) * (size_t)(blocks / 8) + (size_t)(block / 8)) * 4 + (size_t)(row % 4)) * 4;
    float x = (float)(q - TN_K_OFF(traits));
    uint16_t half[2];
    memcpy(half, kind >= TN_K_KM ? super : s, kind == TN_K_D ? 2 : 4);
    float d = tn_f16_to_f32(half[0]), min = kind == TN_K_D ? 0 : tn_f16_to_f32(half[1]);
    switch (kind) {
    case TN_K_D: return d * x;
    case TN_K_DM: return d * x + min;
    case TN_K_KM: return d * (float)s[0] * x - min * (float)s[1];
    case TN_K_K16: return d * (float)(int8_t)s[h] * x;
    default: return d * (float)(s[h] & 15) * x - min * (float)(s[h] >> 4);
    }
}

/* Each expert is a matrix of its own, as if the file had it alone. */
static void test_packing_experts(void **state) {
    (void)state;
    enum { EXPERTS = 3, ROWS = 37, COLS = 512 };
    tn_weight all = tn_make_weight("w", TN_TYPE_Q6_K, EXPERTS * ROWS, COLS), one = all;
    all.n_expert = EXPERTS;
    one.n_out = ROWS;
    one.bytes = all.bytes / EXPERTS;
    size_t bytes = tn_cuda_matrix_bytes(&all);
    assert_int_equal(bytes, tn_cuda_matrix_bytes(&one));
    uint8_t *got = calloc(1, bytes), *want = calloc(1, bytes);
    for (int32_t e = 0; e < EXPERTS; e++) {
        one.data = (const uint8_t *)all.data + (size_t)e * one.bytes;
        memset(got, 0, bytes);
        memset(want, 0, bytes);
        tn_cuda_pack(&all, &(tn_cuda_rows){e, 0, ROWS}, 0, 3, got);
        tn_cuda_pack(&all, &(tn_cuda_rows){e, 0, ROWS}, 3, (ROWS + 3) / 4, got);
        tn_cuda_pack(&one, &(tn_cuda_rows){0, 0, ROWS}, 0, (ROWS + 3) / 4, want);
        assert_memory_equal(got, want, bytes);
    }
    free(got);
    free(want);
    free((void *)(uintptr_t)all.data);
}

static void test_packing(void **state) {
    (void)state;
    for (size_t t = 0; t < TN_N_TYPES; t++) {
        int32_t n_in = tn_type_get(tn_all_types[t])->block == 1 ? 40 : 512, n_out = 37;
        tn_weight w = tn_make_weight("w", tn_all_types[t], n_out, n_in);
        int traits = tn_cuda_traits(w.type);
        assert_true(traits >= 0);
        tn_cuda_planes p = tn_cuda_planes_of(traits, n_out, n_in);
        uint8_t *m = calloc(1, p.bytes);
        float *row = malloc((size_t)n_in * sizeof *row);
        tn_cuda_pack(&w, &(tn_cuda_rows){0, 0, n_out}, 0, 5, m);
        tn_cuda_pack(&w, &(tn_cuda_rows){0, 0, n_out}, 5, (n_out + 3) / 4, m);
        for (int32_t r = 0; r < n_out; r++) {
            tn_type_get(w.type)->decode(tn_weight_row(&w, r), row, (size_t)n_in);
            for (int32_t c = 0; c < n_in; c++) {
                float got = packed_element(m, traits, p, n_in, r, c);
                if (got != row[c])
                    fail_msg("%s[%d][%d]: %g instead of %g", tn_type_name((uint32_t)w.type), r, c, (double)got,
                             (double)row[c]);
            }
        }
        free(m);
        free(row);
        free((void *)(uintptr_t)w.data);
    }
}

/* ---- the way to the device ---- */

static void stored_in_order(void *data, int32_t weight, int32_t rows, double share) {
    int32_t *next = data;
    assert_true(rows > 0);
    assert_int_equal(weight, (*next)++);
    assert_true(share >= 0 && share <= 1);
}

/* Any bytes will do: nothing is decoded. */
static tn_weight make_weight(const char *name, tn_type type, int32_t n_out, int32_t n_in) {
    tn_weight w = {.name = name, .type = type, .n_out = n_out, .n_in = n_in, .n_expert = 1, .elements = n_out == 1};
    static uint32_t seed = 1;
    w.bytes = tn_type_row_bytes(type, (size_t)n_in) * (size_t)n_out;
    uint8_t *data = malloc(w.bytes);
    assert_non_null(data);
    for (size_t i = 0; i < w.bytes; i++) data[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
    w.data = data;
    return w;
}

/* Matrices that share a slab, fill many, or have experts lie on the device as if each were packed as a whole. */
static void test_sending(void **state) {
    (void)state;
    tn_weight w[] = {
        make_weight("vector", TN_TYPE_F32, 1, 512),      make_weight("small", TN_TYPE_Q4_K, 37, 512),
        make_weight("large", TN_TYPE_Q6_K, 30011, 1024), make_weight("experts", TN_TYPE_Q8_0, 3 * 37, 512),
        make_weight("halves", TN_TYPE_F16, 9001, 1000),  make_weight("last", TN_TYPE_F32, 1, 40)};
    const tn_weight *all[COUNT(w)];
    tn_device *d;
    tn_error err;
    int32_t next = 0;
    w[3].n_expert = 3;
    for (size_t i = 0; i < COUNT(w); i++) all[i] = &w[i];
    tn_cuda_fake_open(&d, 3);
    if (tn_cuda_put_weights(d, all, COUNT(w), stored_in_order, &next, &err) != TN_OK) fail_msg("%s", err.text);
    assert_int_equal(next, COUNT(w));
    for (size_t i = 0; i < COUNT(w); i++) {
        const uint8_t *at = (const uint8_t *)(uintptr_t)d->weights[i].low;
        int32_t rows = w[i].n_out / w[i].n_expert;
        size_t bytes = w[i].elements ? w[i].bytes : tn_cuda_matrix_bytes(&w[i]);
        for (int32_t e = 0; e < w[i].n_expert; e++, at += bytes) {
            uint8_t *want = calloc(1, bytes);
            if (w[i].elements)
                memcpy(want, w[i].data, bytes);
            else
                tn_cuda_pack(&w[i], &(tn_cuda_rows){e, 0, rows}, 0, (rows + 3) / 4, want);
            if (memcmp(at, want, bytes)) fail_msg("%s, expert %d", w[i].name, e);
            free(want);
        }
        free((void *)(uintptr_t)w[i].data);
    }
    tn_backend_cuda.close(&d);
    assert_int_equal(tn_fake.live, 0);
}

/* Whichever call of the driver fails, it is told (but of the last one, which only makes sure), and nothing stays behind. */
static void test_failing(void **state) {
    (void)state;
    tn_weight w[] = {make_weight("vector", TN_TYPE_F32, 1, 512), make_weight("large", TN_TYPE_Q8_0, 20011, 1024)};
    const tn_weight *all[] = {&w[0], &w[1]};
    long calls = 0;
    for (long n = 0; n <= calls; n++) { /* at first none fails */
        tn_device *d;
        tn_error err = {0};
        tn_cuda_fake_open(&d, 2);
        tn_fake.error = TN_FAKE_MEMORY;
        tn_fake.fail_at = n;
        tn_status status = tn_cuda_put_weights(d, all, COUNT(all), NULL, NULL, &err);
        if (n == 0) calls = tn_fake.calls;
        assert_int_equal(status, n > 0 && n < calls ? TN_ERR_RESOURCES : TN_OK);
        tn_backend_cuda.close(&d);
        assert_int_equal(tn_fake.live, 0);
    }
    assert_true(calls > 10);
    for (size_t i = 0; i < COUNT(w); i++) free((void *)(uintptr_t)w[i].data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packing_experts),
        cmocka_unit_test(test_packing),
        cmocka_unit_test(test_sending),
        cmocka_unit_test(test_failing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
