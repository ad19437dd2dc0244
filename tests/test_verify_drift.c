/* The measures of drift, on logits whose divergence is known. */
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_positions_add_up),
        cmocka_unit_test(test_nan_is_the_worst),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
