/* Every op alone against the reference, on every instruction set of the CPU; whole models likewise; and that the harness
 * notices a backend that is wrong. */
#include "verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void collect(void *data, const char *text, size_t len) {
    tn_buf_add(data, text, len);
}

static tn_status verify(tn_verify_options options, tn_buf *text) {
    tn_error err = {0};
    options.threads = 2;
    tn_status status = tn_verify(&options, (tn_sink){collect, text}, &err);
    if (status != TN_OK && status != TN_ERR_UNAVAILABLE) print_message("%s%s\n", text->p ? text->p : "", err.text);
    return status;
}

static void test_ops(void **state) {
    (void)state;
    static const char *const backends[] = {"cpu:ref", "cpu:neon", "cpu:avx2", "cpu:avx512"};
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        tn_buf text = {0};
        tn_status status = verify((tn_verify_options){.what = TN_VERIFY_OPS, .backend = backends[i]}, &text);
        if (status == TN_ERR_UNAVAILABLE) continue;
        assert_int_equal(status, TN_OK);
        for (int op = 0; op < TN_OP_COUNT; op++) { /* each has a line */
            char line[80];
            snprintf(line, sizeof line, "ok   op %s ", tn_ops[op].name);
            if (tn_ops[op].class != TN_LEAF && !strstr(text.p, line)) fail_msg("no check of %s", tn_ops[op].name);
        }
        tn_buf_free(&text);
    }
}

static void test_models(void **state) {
    (void)state;
    static const char *const models[] = {"llama-a.F32", "llama-ropefreqs.F32", "llama-q.Q4_K-pure",
                                         "llama-q.Q5_1-pure"};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[400];
        tn_buf text = {0};
        snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, models[i]);
        assert_int_equal(verify((tn_verify_options){.what = TN_VERIFY_MODEL, .path = path}, &text), TN_OK);
        assert_non_null(strstr(text.p, "ok   model decode: fused (f32) against reference (f32)"));
        assert_non_null(strstr(text.p, "ok   model prefill: fused against token by token"));
        tn_buf_free(&text);
    }
}

/* ---- the harness can fail ---- */

static void test_null_backend(void **state) {
    (void)state;
    tn_buf text = {0};
    tn_error err = {0};
    tn_verify_options options = {.what = TN_VERIFY_OPS, .backend = "null"};
    assert_int_equal(tn_verify(&options, (tn_sink){collect, &text}, &err), TN_ERR_CHECK);
    for (int op = 0; op < TN_OP_COUNT; op++) { /* it computes nothing: no op may pass */
        char line[80];
        snprintf(line, sizeof line, "ok   op %s ", tn_ops[op].name);
        if (strstr(text.p, line)) fail_msg("zeros pass for %s", tn_ops[op].name);
    }
    tn_buf_free(&text);
}

static void test_near(void **state) {
    (void)state;
    float want[] = {1, 2, 3, 4, 5, 6}, got[] = {1, 2, 3, 4, 5, 6};
    tn_table a = {got, 2, 3}, b = {want, 2, 3};
    tn_check c = {0};
    tn_check_near(&c, &a, &b, &(tn_near){1e-6, 3, 0}, "here");
    assert_true(c.nmse == 0 && !c.failure[0]);
    got[4] = 5.001f; /* nmse 1e-6 / 91 */
    tn_check_near(&c, &a, &b, &(tn_near){1e-6, 3, 0}, "here");
    assert_true(c.nmse > 1e-8 && c.nmse < 1.2e-8 && !c.failure[0]);
    assert_non_null(strstr(c.worst, "here: row 1, column 1 is 5.00"));
    tn_check_near(&c, &a, &b, &(tn_near){1e-8, 3, 0}, "there");
    assert_non_null(strstr(c.failure, "there: row 1, column 1"));
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tn_check d = {0};
        got[0] = bad[i];
        tn_check_near(&d, &a, &b, &(tn_near){1e30, 3, 0}, "not a number");
        assert_non_null(strstr(d.failure, "row 0, column 0"));
    }
    tn_check zero = {0};
    memset(want, 0, sizeof want);
    got[0] = 1e-20f;
    tn_check_near(&zero, &a, &b, &(tn_near){1e-6, 3, 0}, "against zeros");
    assert_true(zero.failure[0]);
}

/* An error of small values that is nothing beside large ones. */
static void test_parts(void **state) {
    (void)state;
    float want[] = {1e9f, 2e9f, 1e-30f, 2e-30f, 0, 1e-39f}, got[] = {1e9f, 2e9f, 1e-30f, 2e-30f, 0, 0};
    tn_table a = {got, 1, 6}, b = {want, 1, 6};
    tn_check c = {0};
    tn_check_near(&c, &a, &b, &(tn_near){1e-12, 2, FLT_MIN}, "here"); /* a denormal may be 0 */
    assert_true(c.part == 0 && !c.failure[0]);
    got[2] = 1.001f * 1e-30f;
    tn_check_near(&c, &a, &b, &(tn_near){1e-12, 2, FLT_MIN}, "here");
    assert_true(c.nmse < 1e-60 && c.part > 1e-7 && c.part_bound == TN_PART * 1e-12);
    assert_non_null(strstr(c.failure, "nmse of a part"));
    assert_non_null(strstr(c.failure, "here: row 0, column 2 is 1.001"));
    tn_check d = {0};
    got[2] = 1e-30f;
    got[4] = 1e-9f; /* where there should be nothing */
    tn_check_near(&d, &a, &b, &(tn_near){1e-12, 2, FLT_MIN}, "there");
    assert_true(isinf(d.part));
    assert_non_null(strstr(d.worst, "column 4"));
    tn_check e = {0};
    tn_check_near(&e, &a, &b, &(tn_near){1e-12, 4, FLT_MIN}, "whole"); /* two more columns are no part of their own */
    assert_true(e.part < 1e-30 && !e.failure[0]);
}

static void test_equal(void **state) {
    (void)state;
    float want[] = {1, 0, 3, 4}, got[] = {1, -0.0f, 3, 4};
    tn_table a = {got, 2, 2}, b = {want, 2, 2};
    tn_check c = {0};
    tn_check_equal(&c, &a, &b, "zeros"); /* equal numbers, other bits */
    assert_non_null(strstr(c.failure, "zeros: row 0, column 1"));
    tn_check d = {0};
    got[1] = 0;
    tn_check_equal(&d, &a, &b, "same");
    assert_false(d.failure[0]);
    a.rows = 1;
    tn_check_equal(&d, &a, &b, "shape");
    assert_true(d.failure[0]);
    tn_check e = {0};
    a.rows = b.rows = 0;
    tn_check_equal(&e, &a, &b, "nothing"); /* nothing was compared */
    assert_true(e.failure[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops),  cmocka_unit_test(test_models), cmocka_unit_test(test_null_backend),
        cmocka_unit_test(test_near), cmocka_unit_test(test_parts),  cmocka_unit_test(test_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
