/* The WebGPU backend, with whatever device there is (a software one will do): every op and every rule against the reference, with
 * each set of features; weights in many bindings; what no device can run. Takes one set of features at a time:
 *
 *     test_webgpu [none|f16|subgroups|both [all|part [PATTERN]]]
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

/* ---- limits ---- */

/* Each of a device's limits in turn so small that launches of a rule meet it: they are refused with that reason, which is what
 * `explain` shows, what stays alone is right, and nothing reaches the implementation that it would call invalid. */
typedef struct limit {
    const char *rule, *why;
    uint64_t max_window; /* 0: the device's */
    uint32_t max_buffers, max_groups, max_shared;
} limit;

static void keep_text(void *data, const char *text, size_t len) {
    tn_buf_add(data, text, len);
}

static void check_limit(const limit *l) {
    tn_verify_rigs rigs = {.turn = 1};
    tn_error err = {0};
    tn_buf text = {0};
    tn_report report = {.out = {keep_text, &text}};
    tn_webgpu_open_rig(&rigs.device, tn_webgpu_sets[last_set]);
    tn_webgpu_open_rig(&rigs.reference, "cpu:ref");
    tn_device *d = rigs.device.device;
    if (l->max_window) d->max_window = l->max_window;
    if (l->max_buffers) d->limits.maxStorageBuffersPerShaderStage = l->max_buffers;
    if (l->max_groups) d->limits.maxComputeWorkgroupsPerDimension = l->max_groups;
    if (l->max_shared) d->limits.maxComputeWorkgroupStorageSize = l->max_shared;
    tn_status status = tn_verify_rules(&report, &rigs, l->rule, &err);
    if (status != TN_OK) fail_msg("%s: %s", l->why, err.text);
    if (!text.p || !strstr(text.p, l->why)) fail_msg("no launch of %s was refused: %s\n%s", l->rule, l->why, text.p);
    if (strstr(text.p, "Validation")) fail_msg("%s", text.p);
    tn_buf_free(&text);
    tn_rig_close(&rigs.device);
    tn_rig_close(&rigs.reference);
}

static void test_limits(void **state) {
    static const limit limits[] = {
        {"group", "the weights lie in more buffers than a shader may bind", .max_window = 4096, .max_buffers = 3},
        {"matmul_add", "more workgroups in a row than a dispatch may have", .max_groups = 1},
        {"norm", "what a workgroup keeps of its rows does not fit into its memory", .max_shared = 600},
    };
    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) check_limit(&limits[i]);
}

int main(int argc, char **argv) {
    int set = argc > 1 ? tn_webgpu_set(argv[1]) : -1;
    first_set = set < 0 ? 0 : set;
    last_set = set < 0 ? TN_WEBGPU_SETS - 1 : set;
    everything = argc > 2 && !strcmp(argv[2], "all");
    if (argc > 3) cmocka_set_test_filter(argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_small_bindings),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests_name("webgpu", tests, NULL, NULL);
}
