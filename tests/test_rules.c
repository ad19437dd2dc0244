/* The rules against their patterns, on every instruction set of the CPU; and that the harness which says so can say no: on
 * backends that compute something else, only where they fuse, or that do not fuse, or fail. */
#include "fuse/rule.h"
#include "verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

static void collect(void *data, const char *text, size_t len) {
    tn_buf_add(data, text, len);
}

/* ---- the rules hold ---- */

static void check_backend(const char *backend, int threads) {
    tn_buf text = {0};
    tn_error err = {0};
    tn_verify_options options = {.what = TN_VERIFY_RULES, .backend = backend, .threads = threads};
    tn_status status = tn_verify(&options, (tn_sink){collect, &text}, &err);
    if (status != TN_ERR_UNAVAILABLE) {
        if (status != TN_OK) print_message("%s", text.p ? text.p : err.text);
        assert_int_equal(status, TN_OK);
        for (int32_t t = 0; t < tn_n_rule_tables; t++)
            for (int32_t i = 0; i < tn_rule_tables[t].n; i++) {
                char line[80];
                snprintf(line, sizeof line, "ok   rule %s: every form fires", tn_rule_tables[t].rules[i].name);
                assert_non_null(strstr(text.p, line));
            }
        assert_non_null(strstr(text.p, "\nok: "));
    }
    tn_buf_free(&text);
}

static void test_ref(void **state) {
    (void)state;
    check_backend("cpu:ref", 1);
}
static void test_avx2(void **state) {
    (void)state;
    check_backend("cpu:avx2", 1);
}
static void test_avx512(void **state) {
    (void)state;
    check_backend("cpu:avx512", 2);
}

/* ---- the harness can fail ---- */

typedef enum fault { NONE, WRONG, WRONG_WHERE_SMALL, WRONG_WHEN_FUSED, ONE_BIT_WHEN_FUSED, NEVER_FUSES, FAILS } fault;

static const tn_backend *g_real;
static fault g_fault;
static const tn_plan *g_plan; /* compiled last: the rig runs one program at a time */

static tn_status compile(tn_device *device, const tn_plan *plan, tn_memory *memory, tn_program **program,
                         tn_error *err) {
    g_plan = plan;
    return g_real->compile(device, plan, memory, program, err);
}

static tn_status wait_for(tn_program *program, tn_result *result, tn_error *err) {
    if (g_fault == FAILS) return tn_fail(err, TN_ERR_INTERNAL, "a step that fails");
    tn_status status = g_real->wait(program, result, err);
    bool fused = g_plan->partition.n < g_plan->n_plain;
    float *first = (float *)(uintptr_t)result->logits;
    uint32_t bits;
    memcpy(&bits, first, sizeof bits);
    if (g_fault == WRONG || (g_fault == WRONG_WHEN_FUSED && fused)) *first += 0.5f;
    size_t n = (size_t)g_plan->graph.nodes[g_plan->graph.output].out[0].cols;
    for (size_t i = 0; g_fault == WRONG_WHERE_SMALL && i < n; i++)
        if (first[i] != 0 && fabsf(first[i]) < 1e-20f) first[i] = 1e-9f;
    bits ^= 1;
    if (g_fault == ONE_BIT_WHEN_FUSED && fused) memcpy(first, &bits, sizeof bits);
    return status;
}

static const char *find_kernel(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n, tn_buf *name) {
    if (g_fault == NEVER_FUSES && n > 1) return "it does not fuse";
    return g_real->find_kernel(device, g, nodes, n, name);
}

/* The report on one rule, on a CPU with a fault. */
static char *report_on(fault f, const char *rule, tn_status expected) {
    tn_buf text = {0};
    tn_error err = {0};
    tn_report report = {.out = {collect, &text}};
    tn_verify_rigs rigs = {0};
    assert_int_equal(tn_rig_open(&rigs.device, "cpu", 1, &err), TN_OK);
    assert_int_equal(tn_rig_open(&rigs.reference, "cpu:ref", 1, &err), TN_OK);
    g_real = rigs.device.backend;
    g_fault = f;
    tn_backend faulty = *g_real;
    faulty.compile = compile;
    faulty.wait = wait_for;
    faulty.find_kernel = find_kernel;
    rigs.device.backend = &faulty;
    assert_int_equal(tn_verify_rules(&report, &rigs, rule, &err), TN_OK);
    assert_int_equal(tn_report_end(&report, &err), expected);
    assert_int_equal(report.n_failed > 0, expected != TN_OK);
    rigs.device.backend = g_real;
    tn_rig_close(&rigs.device);
    tn_rig_close(&rigs.reference);
    return text.p;
}

static void expect(fault f, const char *rule, const char *text) {
    char *report = report_on(f, rule, text ? TN_ERR_CHECK : TN_OK);
    if (text && !strstr(report, text)) fail_msg("'%s' is not in:\n%s", text, report);
    tn_free(report);
}

static void test_faults(void **state) {
    (void)state;
    static const char *const rules[] = {"group", "matmul_add", "norm", "rope_kv"};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        expect(NONE, rules[i], NULL);
        expect(WRONG, rules[i], ", column 0 is");
        expect(WRONG_WHEN_FUSED, rules[i], "not the same bits");
        expect(ONE_BIT_WHEN_FUSED, rules[i], "not the same bits");
        expect(NEVER_FUSES, rules[i], "never with");
        expect(FAILS, rules[i], "a step that fails");
    }
    expect(WRONG_WHERE_SMALL, "norm", "nmse of a part");
    expect(WRONG_WHERE_SMALL, "row_append", "column 0 is 9.99999972e-10, not");
}

/* A rule that is absent from the table is not a success. */
static void test_nothing_checked(void **state) {
    (void)state;
    char *report = report_on(NONE, "no_such_rule", TN_OK);
    assert_string_equal(report, "ok: 0 checks, 0 failed\n");
    tn_free(report);
}

static void test_json(void **state) {
    (void)state;
    tn_buf text = {0};
    tn_error err = {0};
    tn_report report = {.out = {collect, &text}, .json = true};
    tn_check good = {.name = "a \"quoted\" name", .cases = 3, .nmse = 1e-9, .bound = 1e-6}, bad = good;
    tn_check_fail(&bad, "row %d", 7);
    tn_check_fail(&bad, "only the first failure is kept");
    tn_report_check(&report, &good);
    tn_report_check(&report, &bad);
    assert_int_equal(tn_report_end(&report, &err), TN_ERR_CHECK);
    json_t *list = json_loads(text.p, 0, NULL);
    assert_int_equal(json_array_size(list), 3);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "check")), "a \"quoted\" name");
    assert_true(json_is_true(json_object_get(json_array_get(list, 0), "ok")));
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 1), "failure")), "row 7");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 2), "failed")), 1);
    json_decref(list);
    tn_buf_free(&text);
}

static void test_options(void **state) {
    (void)state;
    tn_buf text = {0};
    tn_error err = {0};
    tn_sink out = {collect, &text};
    assert_int_equal(tn_verify(&(tn_verify_options){.what = TN_VERIFY_RULES, .backend = "tpu"}, out, &err),
                     TN_ERR_USAGE);
    assert_int_equal(tn_verify(&(tn_verify_options){.what = TN_VERIFY_OPS, .backend = "cpu:mmx"}, out, &err),
                     TN_ERR_USAGE);
    assert_int_equal(tn_verify(&(tn_verify_options){.what = TN_VERIFY_MODEL}, out, &err), TN_ERR_USAGE);
    assert_int_equal(tn_verify(&(tn_verify_options){.what = TN_VERIFY_MODEL, .path = "/nowhere"}, out, &err),
                     TN_ERR_INPUT);
    assert_int_equal(text.n, 0);
    tn_buf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults), cmocka_unit_test(test_nothing_checked),
        cmocka_unit_test(test_json),   cmocka_unit_test(test_options),
        cmocka_unit_test(test_ref),    cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_avx512),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
