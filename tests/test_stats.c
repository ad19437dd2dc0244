/* The command line's statistics, beside values worked out by hand. */
#include "../cli/stats.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

void *cli_realloc(void *p, size_t bytes) {
    return realloc(p, bytes ? bytes : 1);
}

static void near(double a, double b) {
    assert_true(fabs(a - b) < 1e-9);
}

static void test_median(void **state) {
    (void)state;
    assert_true(isnan(cli_median(NULL, 0)));
    assert_true(cli_median((double[]){3}, 1) == 3);
    assert_true(cli_median((double[]){9, 1, 5}, 3) == 5);
    assert_true(cli_median((double[]){4, 1, 9, 2}, 4) == 3);
    assert_true(cli_median((double[]){2, 2, 7, 2}, 4) == 2);
}

static void test_signed_rank(void **state) {
    (void)state;
    double up[10], far[10], many[41];
    for (int i = 0; i < 10; i++) up[i] = far[i] = i + 1;
    near(cli_signed_rank(up, 10), 2 / 1024.0); /* the one choice of all, and that of none */
    far[9] = 1e9;
    near(cli_signed_rank(far, 10), cli_signed_rank(up, 10));
    for (int i = 0; i < 10; i++) up[i] = -up[i];
    near(cli_signed_rank(up, 10), cli_signed_rank(far, 10));
    near(cli_signed_rank((double[]){1, -2, 3, -4}, 4), 14 / 16.0); /* W = 4: {}, 1, 2, 3, 4, 1+2, 1+3 */
    near(cli_signed_rank((double[]){1, -1, 1, -1}, 4), 1);
    near(cli_signed_rank((double[]){0, 0, 0}, 3), 1);
    near(cli_signed_rank((double[]){2, 2, 2, 2, 2, 2}, 6), 2 / 64.0);
    for (int i = 0; i < 41; i++) many[i] = i % 4 ? i + 1 : -i - 1;
    near(cli_signed_rank(many, 41), erfc((630 - 430.5 - 0.5) / sqrt(41 * 42 * 83 / 24.0) / sqrt(2))); /* W = 630 */
}

static void test_paired(void **state) {
    (void)state;
    const double a[] = {1, 10, 2, 20, 4, 40, 8}, b[] = {2, 21, 4.2, 38, 8, 88, 24};
    cli_ratio r = cli_paired(a, b, 7); /* ratios 2, 2.1, 2.1, 1.9, 2, 2.2, 3 */
    near(r.ratio, 2.1);
    near(r.low, 1.9);
    near(r.high, 3);
    near(r.p, 2 / 128.0);
    near(cli_paired(b, a, 7).ratio, 1 / 2.1);
    r = cli_paired(a, b, 5);
    near(r.ratio, 2);
    assert_true(isnan(r.p) && isnan(r.low) && isnan(r.high));
    assert_int_equal(cli_judge(r.p, false), CLI_UNTOLD);
}

static void test_pairs_that_are_no_times(void **state) {
    (void)state;
    const double a[] = {1, 0, 10, 2, INFINITY, 20, 4, 40, NAN, 8, 1, -1},
                 b[] = {2, 5, 21, 4.2, 1, 38, 8, 88, 1, 24, 0, -2};
    cli_ratio r = cli_paired(a, b, 12); /* those of test_paired, and others */
    assert_int_equal(r.n, 7);
    near(r.ratio, 2.1);
    near(r.low, 1.9);
    near(r.high, 3);
    near(r.p, 2 / 128.0);
    r = cli_paired((double[]){0, 0, 0, 0, 0, 0}, b, 6);
    assert_int_equal(r.n, 0);
    assert_true(isnan(r.ratio) && isnan(r.p) && isnan(r.low) && isnan(r.high));
}

static void test_pairs_needed(void **state) {
    (void)state;
    assert_int_equal(cli_pairs_needed(1), 6);  /* 2 / 64 */
    assert_int_equal(cli_pairs_needed(2), 7);  /* 4 / 128, but 4 / 64 is more than 0.05 */
    assert_int_equal(cli_pairs_needed(10), 9); /* 20 / 512 */
    double few[] = {0.001, NAN, 0.002}, enough[] = {0.001, NAN, 0.002};
    cli_holm_paired(few, 3, 6);
    assert_true(isnan(few[0]) && isnan(few[1]) && isnan(few[2]));
    cli_holm_paired(enough, 3, 7);
    near(enough[0], 0.002);
    near(enough[2], 0.002);
    assert_true(isnan(enough[1]));
}

static void test_holm(void **state) {
    (void)state;
    double p[] = {0.01, NAN, 0.04, 0.03, 0.005};
    cli_holm(p, 5);
    near(p[4], 0.02);
    near(p[0], 0.03);
    near(p[3], 0.06);
    near(p[2], 0.06); /* not less than one before it */
    assert_true(isnan(p[1]));
    double much[] = {0.5, 0.9};
    cli_holm(much, 2);
    near(much[0], 1);
    near(much[1], 1);
}

static void test_welch(void **state) {
    (void)state;
    cli_spread a = cli_spread_of((double[]){1, 2, 3}, 3), b = cli_spread_of((double[]){4, 5, 6}, 3);
    near(a.mean, 2);
    near(a.deviation, 1);
    near(cli_welch(a, b), 0.021311641128756727); /* t = -3.674, 4 degrees of freedom */
    assert_int_equal(cli_judge(cli_welch(a, b), false), CLI_BETTER);
    assert_int_equal(cli_judge(cli_welch(a, b), true), CLI_WORSE);
    assert_int_equal(cli_judge(cli_welch(a, a), true), CLI_NOISE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_median),       cmocka_unit_test(test_signed_rank),
        cmocka_unit_test(test_paired),       cmocka_unit_test(test_pairs_that_are_no_times),
        cmocka_unit_test(test_pairs_needed), cmocka_unit_test(test_holm),
        cmocka_unit_test(test_welch)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
