/* What is shown of plans: every form for every architecture, launches that are all of the graph, bytes that add up; and no form that
 * an allocation's failure brings down. */
#include "base/mem.h"
#include "engine.h"
#include "explain.h"
#include "failing.h"
#include "tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

enum { N_FORMATS = TN_FORMAT_SVG + 1, N_PHASES = 2 };

/* A session on a tiny model; the file is gone. */
typedef struct fixture {
    tn_model *model;
    tn_session *session;
} fixture;

static tn_status open_as(fixture *f, const char *arch, const tn_model_options *options, tn_error *err) {
    char path[] = "/tmp/tenon-explain-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    tn_tiny_options o = {.arch = arch, .type = TN_TYPE_Q8_0, .width = 32};
    tn_status status = tn_tiny_write(&o, path, err);
    if (status == TN_OK) status = tn_model_open(&f->model, path, options, err);
    unlink(path);
    if (status == TN_OK)
        status = tn_session_open(&f->session, f->model, &(tn_session_options){.n_ctx = 64, .n_ubatch = 8}, err);
    if (status != TN_OK && status != TN_ERR_UNAVAILABLE) fail_msg("%s: %s", arch, err->text);
    if (status != TN_OK) tn_model_close(&f->model);
    return status;
}

static void open_tiny(fixture *f, const char *arch) {
    tn_error err = {0};
    assert_int_equal(open_as(f, arch, &(tn_model_options){.threads = 1}, &err), TN_OK);
}

static void close_tiny(fixture *f) {
    tn_session_close(&f->session);
    tn_model_close(&f->model);
}

static void keep(void *data, const char *text, size_t len) {
    tn_buf_add(data, text, len);
}

static void test_every_form(void **state) {
    (void)state;
    for (int a = 0; tn_tiny_arch(a); a++) {
        fixture f = {0};
        open_tiny(&f, tn_tiny_arch(a));
        for (int phase = 0; phase < N_PHASES; phase++)
            for (int format = 0; format < N_FORMATS; format++) {
                tn_error err = {0};
                tn_buf b = {0};
                tn_explain_options o = {.phase = (tn_phase)phase, .format = (tn_format)format};
                assert_int_equal(tn_explain(f.session, &o, (tn_sink){keep, &b}, &err), TN_OK);
                assert_true(b.n > 500);
                assert_null(strstr(b.p, "(null)"));
                tn_buf_free(&b);
            }
        close_tiny(&f);
    }
}

/* Opened for its plans only a model says the same, and no weight is put anywhere; it does not run. */
static void test_plan_only(void **state) {
    static const char *const backends[] = {"cpu", "cpu:ref", "cuda:plan", "webgpu:plan", "webgpu"};
    (void)state;
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        tn_buf said[2] = {{0}};
        for (int plan_only = 0; plan_only < 2; plan_only++) {
            tn_model_options o = {.backend = backends[i], .threads = 1, .plan_only = plan_only};
            fixture f = {0};
            tn_error err = {0};
            tn_model_info info;
            if (open_as(&f, "qwen35moe", &o, &err) == TN_ERR_UNAVAILABLE) continue; /* no device here */
            tn_model_get_info(f.model, &info);
            assert_int_equal(info.weight_bytes == 0, plan_only);
            assert_int_equal(tn_explain(f.session, NULL, (tn_sink){keep, &said[plan_only]}, &err), TN_OK);
            if (plan_only) {
                assert_int_equal(tn_step(f.session, &(tn_batch){.ids = (int32_t[]){0}, .n_tokens = 1}, &err),
                                 TN_ERR_USAGE);
                assert_int_equal(tn_step_greedy(f.session, &(tn_greedy){.n = 1}, &err), TN_ERR_USAGE);
            }
            close_tiny(&f);
        }
        if (said[0].p) assert_string_equal(said[0].p, said[1].p);
        for (int k = 0; k < 2; k++) tn_buf_free(&said[k]);
    }
}

static void test_wrong_form(void **state) {
    (void)state;
    fixture f = {0};
    tn_buf b = {0};
    open_tiny(&f, "llama");
    for (int i = 0; i < 2; i++) {
        tn_explain_options o = {.phase = i ? TN_PHASE_FEW : TN_PHASE_DECODE,
                                .format = i ? TN_FORMAT_TEXT : (tn_format)99};
        assert_int_equal(tn_explain(f.session, &o, (tn_sink){keep, &b}, NULL), TN_ERR_USAGE);
    }
    assert_int_equal(b.n, 0);
    close_tiny(&f);
}

/* Every node but the leaves is in one launch, and the launches read every weight. */
static void test_launches_are_the_graph(void **state) {
    (void)state;
    for (int a = 0; tn_tiny_arch(a); a++) {
        fixture f = {0};
        open_tiny(&f, tn_tiny_arch(a));
        for (int phase = 0; phase < N_PHASES; phase++) {
            const tn_plan *p = &f.session->plan[phase];
            uint64_t bytes = 0;
            int32_t nodes = 0, n = tn_launch_count(f.session, (tn_phase)phase);
            for (int32_t l = 0; l < n; l++) {
                tn_launch_info info;
                tn_node_info node;
                assert_true(tn_launch_get_info(f.session, (tn_phase)phase, l, &info));
                assert_true(tn_node_get_info(f.session, (tn_phase)phase, info.nodes[0], &node));
                assert_true(info.layer < f.model->hp.n_layer && *info.kind && *info.kernel && *node.op);
                nodes += info.n_nodes;
                uint64_t one = tn_launch_bytes(f.session, (tn_phase)phase, l, 1, 3);
                assert_true(one > 0 && one <= tn_launch_bytes(f.session, (tn_phase)phase, l, 2, 3));
                bytes += one;
            }
            assert_int_equal(nodes, p->n_plain);
            assert_true(bytes > p->read_bytes);
            assert_false(tn_launch_get_info(f.session, (tn_phase)phase, n, &(tn_launch_info){0}));
            assert_int_equal(tn_launch_bytes(f.session, (tn_phase)phase, -1, 1, 0), 0);
        }
        close_tiny(&f);
    }
}

/* Alike means alike in all that is drawn: of the layers of a model with one kind of them, all but those that touch what is outside. */
static void test_alike_layers(void **state) {
    (void)state;
    fixture f = {0};
    int32_t *alike;
    open_tiny(&f, "llama");
    int32_t n = f.model->hp.n_layer;
    assert_int_equal(tn_alike_layers(&f.session->plan[0], n, &alike, NULL), TN_OK);
    for (int32_t i = 0; i < n; i++) assert_true(alike[i] <= i && (i == 0 || alike[i] >= alike[i - 1]));
    tn_free(alike);
    const int32_t folded[] = {0, 1, 1, 1, 4};
    assert_int_equal(tn_typical_layer(folded, 5), 1);
    assert_int_equal(tn_typical_layer(folded, 1), 0);
    close_tiny(&f);
}

static void test_out_of_memory(void **state) {
    (void)state;
    fixture f = {0};
    open_tiny(&f, "llama");
    json_set_alloc_funcs(tn_alloc, tn_free);
    for (int format = 0; format < N_FORMATS; format++) {
        tn_failing failing = {.skip = 20};
        while (!failing.done) {
            tn_buf b = {0};
            tn_explain_options o = {.format = (tn_format)format};
            tn_failing_start(&failing);
            tn_status status = tn_explain(f.session, &o, (tn_sink){keep, &b}, NULL);
            bool failed = tn_failing_stop(&failing) && !b.failed; /* not here, where it is kept */
            assert_int_equal(status, failed ? TN_ERR_RESOURCES : TN_OK);
            tn_buf_free(&b);
            assert_true(failing.n < 10000);
        }
        assert_true(failing.n > 1);
    }
    json_set_alloc_funcs(malloc, free);
    close_tiny(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_form),   cmocka_unit_test(test_plan_only),
        cmocka_unit_test(test_wrong_form),   cmocka_unit_test(test_launches_are_the_graph),
        cmocka_unit_test(test_alike_layers), cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
