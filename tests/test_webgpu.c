/* The WebGPU backend, with whatever device there is (a software one will do): every op and every rule against the reference, with
 * each set of features; weights in many bindings; what no device can run. Takes one set of features at a time:
 *
 *     test_webgpu [none|f16|subgroups|both [all]]
 *
 * Without "all" a set sees one case of each op, type and form of a rule: with subgroups another one than without (f16 changes no
 * shader). Skipped where no implementation or
 * no device is found. */
#include "tenon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "webgpu_rig.h"

static bool everything;
static int first_set, last_set; /* of features, that are tested here */

static void write_out(void *data, const char *text, size_t len) {
    (void)data;
    if (len >= 4 && !memcmp(text, "FAIL", 4)) print_message("%.*s", (int)len, text);
}

typedef tn_status (*verification)(tn_report *r, const tn_verify_rigs *rigs, const char *only, tn_error *err);

/* `max_window` (0: the device's): bytes of a weight that a shader sees at once. */
static void check(verification verify, const char *backend, const char *only, int32_t turn, uint64_t max_window) {
    tn_verify_rigs rigs = {.turn = turn};
    tn_error err = {0};
    tn_report report = {.out = {write_out, NULL}};
    tn_webgpu_open_rig(&rigs.device, backend);
    tn_webgpu_open_rig(&rigs.reference, "cpu:ref");
    if (max_window) rigs.device.device->max_window = max_window;
    if (verify(&report, &rigs, only, &err) != TN_OK) fail_msg("%s: %s", only ? only : "all", err.text);
    assert_true(report.n > (only ? 0 : 100));
    assert_int_equal(report.n_failed, 0);
    tn_rig_close(&rigs.device);
    tn_rig_close(&rigs.reference);
}

static void test_ops(void **state) {
    (void)state;
    for (int v = first_set; v <= last_set; v++)
        check(tn_verify_ops, tn_webgpu_sets[v], NULL, everything ? 0 : v / 2 + 1, 0);
}

/* Fused against the reference (and against unfused where it is everything). */
static void test_rules(void **state) {
    (void)state;
    for (int v = first_set; v <= last_set; v++)
        check(tn_verify_rules, tn_webgpu_sets[v], NULL, everything ? 0 : v / 2 + 1, 0);
}

/* Bindings of a few kilobytes: weights lie in many windows, matrices in several pieces. */
static void test_small_bindings(void **state) {
    static const char *const ops[] = {"embed", "matmul", "matmul_id", "mul"};
    (void)state;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) /* a part for each set */
        for (int v = first_set; v <= last_set; v++)
            if (everything || (int)i == v) check(tn_verify_ops, tn_webgpu_sets[v], ops[i], 0, 4096);
    for (int v = first_set; v <= last_set; v++) /* rows looked up in a table of several pieces, and what follows */
        if (everything || v == 0) check(tn_verify_rules, tn_webgpu_sets[v], "row_append", 0, 4096);
}

int main(int argc, char **argv) {
    int set = argc > 1 ? tn_webgpu_set(argv[1]) : -1;
    first_set = set < 0 ? 0 : set;
    last_set = set < 0 ? TN_WEBGPU_SETS - 1 : set;
    everything = argc > 2 && !strcmp(argv[2], "all");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_small_bindings),
    };
    return cmocka_run_group_tests_name("webgpu", tests, NULL, NULL);
}
