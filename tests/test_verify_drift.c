/* The measures of drift, on logits whose divergence is known; and what is checked, by types and backend. */
#include "temp_dir.h"
#include "tiny_model.h"
#include "verify.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* p = (1/2, 1/2), q = (3/4, 1/4): KL = 1/2 log (1/2 / 3/4) + 1/2 log (1/2 / 1/4); a shift of all logits changes neither. */
static void test_divergence(void **state) {
    (void)state;
    const float want[] = {5, 5}, got[] = {logf(3) - 2, -2};
    tn_drift d = {0};
    tn_drift_add(&d, got, want, 2);
    assert_true(fabs(d.kl - 0.5 * log(2.0 / 3) - 0.5 * log(2)) < 1e-6);
    assert_true(d.kl == d.kl_most && d.differs);
    assert_int_equal(d.positions, 1);
    assert_int_equal(d.same_top, 1);
    assert_true(fabs(d.error - (double)((5 - got[0]) * (5 - got[0])) - 49) < 1e-4);
    assert_true(d.power == 50);
    assert_int_equal(d.id, 1);
    assert_true(d.worst == 7);
}

static void test_positions_add_up(void **state) {
    (void)state;
    const float a[] = {1, 2, 3}, b[] = {3, 2, 1};
    tn_drift d = {0};
    tn_drift_add(&d, a, a, 3);
    assert_false(d.differs);
    assert_true(d.kl == 0 && d.error == 0);
    tn_drift_add(&d, a, b, 3);
    tn_drift_add(&d, b, b, 3);
    assert_int_equal(d.positions, 3);
    assert_int_equal(d.same_top, 2);
    assert_true(d.kl_most > 0 && d.kl == d.kl_most);
    assert_int_equal(d.at, 1);
}

static void test_nan_is_the_worst(void **state) {
    (void)state;
    const float want[] = {1, 2, 3}, got[] = {9, NAN, 3};
    tn_drift d = {0};
    tn_drift_add(&d, got, want, 3);
    assert_int_equal(d.id, 1);
    assert_true(isinf(d.worst) && isnan(d.error) && !(d.kl_most <= 1));
}

static void ignore(void *data, const char *text, size_t n) {
    (void)data, (void)text, (void)n;
}

static void expect_verdict(const float *got, const float *want, double bound, bool good) {
    tn_report report = {.out = {ignore, NULL}};
    tn_drift d = {0};
    tn_drift_add(&d, got, want, 2);
    tn_report_drift(&report, &d, NULL, "a case", bound);
    assert_int_equal(report.n_failed, !good);
}

static void test_bounds(void **state) {
    (void)state;
    const float even[] = {100, 100}, same[] = {100, 100.001f}, other[] = {100, 101}, above[] = {10.001f, 10},
                below[] = {10, 10.001f};
    expect_verdict(even, even, 0, true);
    expect_verdict(same, even, 0, false);
    expect_verdict(even, same, 1e-2, false);  /* of equals the first is the likeliest */
    expect_verdict(other, same, 1e-2, false); /* KL 0.12, NMSE 5e-5 */
    expect_verdict(same, other, 1, true);
    expect_verdict(below, above, 1e-2, false); /* another token is the likeliest */
    expect_verdict(above, above, 1e-2, true);
    expect_verdict(other, same, 1e-5, false);
}

static int32_t checks_of(const char *backend, tn_act_type act, tn_kv_type kv) {
    tn_report report = {.out = {ignore, NULL}};
    tn_verify_options o = {.backend = backend, .path = temp("m"), .text = "abc", .text_len = 3, .threads = 1};
    o.act = act;
    o.kv_type = kv;
    tn_error err;
    if (tn_verify_drift(&report, &o, &err) != TN_OK) fail_msg("%s", err.text);
    assert_int_equal(report.n_failed, 0);
    return report.n;
}

/* Prompts and single tokens, with the types asked for and, where bits may differ, with f32: but nothing twice. */
static void test_types(void **state) {
    (void)state;
    tn_error err;
    tn_tiny_options tiny = {.arch = "llama", .type = TN_TYPE_Q8_0, .width = 32, .vocab = true};
    if (tn_tiny_write(&tiny, temp("m"), &err) != TN_OK) fail_msg("%s", err.text);
    assert_int_equal(checks_of("cpu", TN_ACT_INT8, TN_KV_F16), 2);
    assert_int_equal(checks_of("cpu", TN_ACT_F32, TN_KV_F32), 2);
    assert_int_equal(checks_of("null", TN_ACT_INT8, TN_KV_F16), 4);
    assert_int_equal(checks_of("null", TN_ACT_F32, TN_KV_F16), 4);
    assert_int_equal(checks_of("null", TN_ACT_F32, TN_KV_F32), 2);
    unlink(temp("m"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_positions_add_up),
        cmocka_unit_test(test_nan_is_the_worst),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_types),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
