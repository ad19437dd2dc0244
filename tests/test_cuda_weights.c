/* Weights on their way to the device, without one: a driver that copies as late as it may. */
#include "backend/cuda/pack.h"
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sending), cmocka_unit_test(test_failing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
