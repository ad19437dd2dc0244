/* The CUDA backend by the lists of cases that `tenon verify` has: every op and every form of every rule against the reference.
 * Most of the time goes into compiling, so shares of it may be run beside each other:
 *
 *     test_cuda_verify [SHARE SHARES [all]]
 *
 * Without "all": one case of each op, type and form. Skipped where there is no device. */
#include "cuda_rig.h"
#include "fuse/rule.h"
#include "verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int share, shares = 1;
static bool everything;

typedef tn_status (*verification)(tn_report *r, const tn_verify_rigs *rigs, const char *only, tn_error *err);

static void write_out(void *data, const char *text, size_t len) {
    (void)data;
    if (everything || (len >= 4 && !memcmp(text, "FAIL", 4))) print_message("%.*s", (int)len, text);
}

/* Returns how many checks there were. */
static int check(verification verify, const char *only) {
    tn_verify_rigs rigs = {.turn = everything ? 0 : 1};
    tn_report report = {.out = {write_out, NULL}};
    tn_error err = {0};
    assert_int_equal(tn_rig_open(&rigs.device, "cuda", 2, &err), TN_OK);
    assert_int_equal(tn_rig_open(&rigs.reference, "cpu:ref", 1, &err), TN_OK);
    if (verify(&report, &rigs, only, &err) != TN_OK) fail_msg("%s: %s", only, err.text);
    assert_int_equal(report.n_failed, 0);
    tn_rig_close(&rigs.device);
    tn_rig_close(&rigs.reference);
    return report.n;
}

static void test_ops(void **state) {
    (void)state;
    int n = 0, checks = 0;
    tn_cuda_need_device();
    for (int op = 0; op < TN_OP_COUNT; op++)
        if (tn_ops[op].class != TN_LEAF && n++ % shares == share) checks += check(tn_verify_ops, tn_ops[op].name);
    print_message("ops: %d checks\n", checks);
    assert_true(checks > 0);
}

/* Whether a rule of that name comes before the i-th of a table. */
static bool met(int32_t table, int32_t i) {
    const char *name = tn_rule_tables[table].rules[i].name;
    for (int32_t t = 0; t <= table; t++)
        for (int32_t k = 0; k < (t < table ? tn_rule_tables[t].n : i); k++)
            if (!strcmp(tn_rule_tables[t].rules[k].name, name)) return true;
    return false;
}

static void test_rules(void **state) {
    (void)state;
    int n = 0, checks = 0;
    tn_cuda_need_device();
    for (int32_t t = 0; t < tn_n_rule_tables; t++)
        for (int32_t i = 0; i < tn_rule_tables[t].n; i++)
            if (!met(t, i) && n++ % shares == share)
                checks += check(tn_verify_rules, tn_rule_tables[t].rules[i].name);
    print_message("rules: %d checks\n", checks);
    assert_true(checks > 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops),
        cmocka_unit_test(test_rules),
    };
    if (argc > 2) share = atoi(argv[1]), shares = atoi(argv[2]);
    everything = argc > 3;
    int failed = cmocka_run_group_tests_name("cuda_verify", tests, NULL, NULL);
    tn_backend_cuda.close(&tn_cuda_held);
    return failed;
}
