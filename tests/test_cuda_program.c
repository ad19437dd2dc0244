/* Programs on a driver that computes nothing: what is captured and enqueued, what is refused, and that whichever call of the driver
 * or allocation fails it is told, nothing stays behind, and a device that is not lost goes on. */
#include "cuda_fake.h"
#include "cuda_rig.h"
#include "failing.h"
#include "plan/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 70, COLS = 64, BEST = 5 };

static float g_numbers[VOCAB * COLS];
static const tn_weight g_embed = {.name = "embd",
                                  .type = TN_TYPE_F32,
                                  .n_out = VOCAB,
                                  .n_in = COLS,
                                  .n_expert = 1,
                                  .data = g_numbers,
                                  .bytes = sizeof g_numbers};
static const tn_weight *const g_weights[] = {&g_embed};

/* A program of one token: embed, attend, logits, their argmax and the best. */
typedef struct setting {
    tn_device *d;
    tn_plan plan;
    tn_memory *memory;
    tn_program *program;
} setting;

static void make_plan(setting *s) {
    tn_graph g = {.max_tokens = 1, .max_outputs = 1, .one_token = true, .layer = -1, .weights = (void *)g_weights};
    tn_attr heads = {.n_head = 1, .n_kv = 1, .head_dim = COLS, .v_dim = COLS};
    tn_plan_target target = {s->d, tn_cuda_find_kernel, s->d->caps.int8_types, s->d->caps.align};
    tn_error err = {0};
    g.n_weights = 1;
    tn_val w = tn_g_weight(&g, 0, &g_embed), x = tn_g_embed(&g, tn_g_tokens(&g), w, "x");
    tn_val cache = tn_g_kv_write(&g, tn_g_state(&g, 0, "cache", &heads), x, x, "write");
    heads.factor = 1;
    tn_val y = tn_g_attention(&g, x, cache, &heads, "y");
    tn_val logits = tn_g_matmul(&g, tn_g_select_rows(&g, y, "last"), w, "logits");
    g.output = logits.node;
    g.choice = tn_g_argmax(&g, logits, "chosen").node;
    g.best = tn_g_best(&g, logits, BEST, "best").node;
    if (tn_plan_make(&s->plan, &g, true, "all", &target, &err) != TN_OK) fail_msg("%s", err.text);
}

static void open_setting(setting *s) {
    *s = (setting){0};
    tn_cuda_fake_open(&s->d, 1);
    make_plan(s);
}

static void close_setting(setting *s) {
    tn_backend_cuda.free_program(s->d, &s->program);
    tn_backend_cuda.free_memory(s->d, &s->memory);
    tn_plan_free(&s->plan);
    tn_backend_cuda.close(&s->d);
    assert_false(tn_fake.capturing);
    assert_int_equal(tn_fake.live, 0);
}

/* ---- what is done with a program ---- */

static const tn_step_input g_step = {.n_tokens = 1,
                                     .n_outputs = 1,
                                     .n_runs = 1,
                                     .ids = (const int32_t[]){3},
                                     .pos = (const int32_t[]){0},
                                     .seq = (const int32_t[]){0},
                                     .outputs = (const int32_t[]){0},
                                     .runs = &(const tn_run){0, 1, 0, 0},
                                     .pages = (const int32_t[]){0},
                                     .max_pages = 1};

static tn_status put_weights(setting *s, tn_error *err) {
    return tn_backend_cuda.put_weights(s->d, g_weights, 1, NULL, NULL, err);
}
static tn_status make_memory(setting *s, tn_error *err) {
    tn_state_desc cache = {.n_kv = 1, .k_dim = COLS, .v_dim = COLS};
    tn_memory_desc desc = {&cache, 1, 1, 1, TN_KV_F16, s->plan.arena_bytes};
    return tn_backend_cuda.make_memory(s->d, &desc, &s->memory, err);
}
static tn_status compile(setting *s, tn_error *err) {
    return tn_backend_cuda.compile(s->d, &s->plan, s->memory, &s->program, err);
}
static tn_status run(setting *s, int want, tn_result *result, tn_error *err) {
    tn_status status = tn_backend_cuda.submit(s->program, &g_step, want, err);
    return status == TN_OK ? tn_backend_cuda.wait(s->program, result, err) : status;
}
static tn_status run_chosen(setting *s, tn_error *err) {
    tn_result result;
    return run(s, TN_WANT_CHOSEN, &result, err);
}
static tn_status run_rest(setting *s, tn_error *err) { /* for which there is no graph yet */
    tn_result result;
    return run(s, TN_WANT_LOGITS | TN_WANT_BEST, &result, err);
}
static tn_status profile(setting *s, tn_error *err) {
    tn_launch_time times[TN_LAUNCH_MAX];
    assert_true(s->plan.partition.n <= TN_LAUNCH_MAX);
    return tn_backend_cuda.profile(s->program, &g_step, times, err);
}

static tn_status (*const g_stages[])(setting *, tn_error *) = {put_weights, make_memory, compile,
                                                               run_chosen,  run_rest,    profile};
enum { N_STAGES = sizeof g_stages / sizeof *g_stages, STEPS_FROM = 3 };

static void go_to(setting *s, int stage) {
    tn_error err = {0};
    for (int i = 0; i < stage; i++)
        if (g_stages[i](s, &err) != TN_OK) fail_msg("stage %d: %s", i, err.text);
}

/* ---- tests ---- */

/* A graph for every set of results, made once, with the launches that make them. */
static void test_graphs(void **state) {
    (void)state;
    setting s;
    tn_error err = {0};
    tn_result result;
    open_setting(&s);
    go_to(&s, STEPS_FROM);
    assert_int_equal(tn_fake.captured, s.plan.partition.n - 1); /* all but the best */
    assert_int_equal(run(&s, TN_WANT_CHOSEN, &result, &err), TN_OK);
    assert_true(result.ids && !result.logits && !result.best.ids);
    assert_int_equal(run(&s, TN_WANT_LOGITS, &result, &err), TN_OK);
    assert_true(!result.ids && result.logits && !result.best.ids);
    assert_int_equal(tn_fake.captured, s.plan.partition.n - 2);
    assert_int_equal(run(&s, TN_WANT_CHOSEN | TN_WANT_BEST | TN_WANT_LOGITS, &result, &err), TN_OK);
    assert_true(result.ids && result.logits && result.best.ids && result.best.n == BEST);
    assert_int_equal(tn_fake.captured, s.plan.partition.n);
    tn_fake.captured = 0;
    assert_int_equal(run(&s, TN_WANT_BEST | TN_WANT_CHOSEN, &result, &err), TN_OK);
    assert_int_equal(tn_fake.captured, 0);
    assert_int_equal(tn_fake.launched, 4);
    close_setting(&s);
}

/* Two steps may be outstanding; a third one and one that nobody began are refused, and so is what nobody chose. */
static void test_ahead(void **state) {
    (void)state;
    setting s;
    tn_error err = {0};
    tn_result result;
    tn_step_input chosen = g_step;
    chosen.ids = (const int32_t[]){TN_ID_CHOSEN};
    open_setting(&s);
    go_to(&s, STEPS_FROM);
    assert_int_equal(tn_backend_cuda.wait(s.program, &result, &err), TN_ERR_INTERNAL);
    assert_int_equal(tn_backend_cuda.submit(s.program, &chosen, TN_WANT_CHOSEN, &err), TN_ERR_INTERNAL);
    assert_non_null(strstr(err.text, "chose no token in row 0"));
    assert_int_equal(tn_backend_cuda.submit(s.program, &g_step, TN_WANT_CHOSEN, &err), TN_OK);
    assert_int_equal(tn_backend_cuda.submit(s.program, &chosen, TN_WANT_CHOSEN, &err), TN_OK);
    assert_int_equal(tn_backend_cuda.submit(s.program, &chosen, TN_WANT_CHOSEN, &err), TN_ERR_INTERNAL);
    assert_non_null(strstr(err.text, "too many steps ahead"));
    tn_launch_time times[TN_LAUNCH_MAX];
    assert_int_equal(tn_backend_cuda.profile(s.program, &g_step, times, &err), TN_ERR_INTERNAL);
    assert_int_equal(tn_backend_cuda.wait(s.program, &result, &err), TN_OK);
    assert_int_equal(tn_backend_cuda.wait(s.program, &result, &err), TN_OK);
    assert_int_equal(tn_backend_cuda.submit(s.program, &g_step, TN_WANT_LOGITS, &err), TN_OK);
    assert_int_equal(tn_backend_cuda.submit(s.program, &chosen, TN_WANT_CHOSEN, &err), TN_ERR_INTERNAL);
    close_setting(&s); /* with a step under way */
}

/* Call n of a stage fails: a device that has no memory for it goes on, one that is lost says so from then on (but weights are put
 * once). Returns whether there was such a call. */
static bool fail_call(int stage, long n, int error) {
    setting s;
    tn_error err = {0};
    open_setting(&s);
    go_to(&s, stage);
    tn_fake.calls = 0;
    tn_fake.error = error;
    tn_fake.fail_at = n;
    tn_status status = g_stages[stage](&s, &err);
    bool met = tn_fake.calls >= n;
    if (status != TN_OK) {
        assert_true(met && status == TN_ERR_RESOURCES && strlen(err.text) > 10);
        assert_false(tn_fake.capturing);
        if (stage < STEPS_FROM) assert_true(!s.program && (stage != 1 || !s.memory));
        bool lost = s.d->lost[0];
        if (error == TN_FAKE_MEMORY) {
            assert_false(lost);
            if (stage > 0 && g_stages[stage](&s, &err) != TN_OK)
                fail_msg("stage %d, call %ld: %s", stage, n, err.text);
        } else {
            assert_true(lost || stage < STEPS_FROM);
            if (stage > 0) assert_int_equal(g_stages[stage](&s, &err), TN_ERR_RESOURCES);
            if (lost) assert_non_null(strstr(err.text, "the device was lost: cuda: "));
        }
    } else if (
        met) { /* the least that a device says of itself; a graph without its dependent launches; launches not measured */
        bool spare = stage == 2 || stage == 4 || stage == 5;
        assert_true(stage == 0 || (spare && error == TN_FAKE_MEMORY));
    }
    close_setting(&s);
    return met;
}

static void test_failing(void **state) {
    (void)state;
    static const int errors[] = {TN_FAKE_MEMORY, TN_FAKE_ILLEGAL};
    for (int e = 0; e < 2; e++)
        for (int stage = 0; stage < N_STAGES; stage++) {
            long n = 1;
            while (fail_call(stage, n, errors[e])) n++;
            assert_true(n > 4);
        }
}

/* Memory of the host fails instead. */
static void test_no_memory(void **state) {
    (void)state;
    for (tn_failing f = {0}; !f.done;) {
        setting s;
        tn_error err = {0};
        tn_status status = TN_OK;
        open_setting(&s);
        tn_failing_start(&f);
        for (int stage = 0; stage < N_STAGES && status == TN_OK; stage++) status = g_stages[stage](&s, &err);
        assert_int_equal(status, tn_failing_stop(&f) ? TN_ERR_RESOURCES : TN_OK);
        assert_false(s.d->lost[0]);
        close_setting(&s);
    }
}
/* Blocks follow each other part by part, each has some, and they are no more than are resident at once. */
static void check_blocks(tn_device *d, const int32_t *columns, int32_t n) {
    tn_weight w[4], embed = g_embed;
    const tn_weight *table[5] = {&embed};
    tn_graph g = {.max_tokens = 1, .max_outputs = 1, .layer = -1, .weights = table, .n_weights = n + 1};
    int32_t nodes[4];
    embed.n_in = 512;
    tn_val x = tn_g_quantize(&g, tn_g_embed(&g, tn_g_tokens(&g), tn_g_weight(&g, 0, &embed), "x"), "q");
    for (int32_t i = 0; i < n; i++) {
        w[i] = (tn_weight){.name = "w", .type = TN_TYPE_Q4_K, .n_out = columns[i], .n_in = 512, .n_expert = 1};
        table[i + 1] = &w[i];
        nodes[i] = tn_g_matmul(&g, x, tn_g_weight(&g, i + 1, &w[i]), "y").node;
    }
    tn_cuda_ask ask = {d, &g, nodes, n, NULL, NULL};
    tn_cuda_launch launch;
    tn_buf head = {0};
    assert_null(tn_cuda_build(&launch, &ask, &head));
    const char *part = strstr(head.p, "#define PARTS "), *most = strstr(head.p, "#define MIN_BLOCKS ");
    assert_true(part && most);
    int block = 0, resident = atoi(most + 19) * d->n_sm;
    for (int32_t i = 0; i < n; i++) {
        int cols, first, blocks;
        part = strchr(part, '{');
        assert_true(part && sscanf(part++, "{%d,%d,%d,", &cols, &first, &blocks) == 3);
        assert_true(cols == columns[i] && first == block && blocks > 0);
        block += blocks;
    }
    assert_int_equal(launch.grid[0], block);
    assert_true(block <= resident || block == n);
    tn_buf_free(&head);
    tn_graph_free(&g);
}

static void test_blocks(void **state) {
    (void)state;
    static const int sms[] = {1, 2, 7, 132};
    static const int32_t columns[][4] = {
        {4096, 8, 8, 8}, {8, 8, 8, 8}, {8192, 4096, 32, 32}, {100000, 1, 1, 1}, {3000, 2800, 2900, 4000}};
    tn_device *d;
    tn_cuda_fake_open(&d, 1);
    for (size_t i = 0; i < sizeof sms / sizeof *sms; i++)
        for (size_t k = 0; k < sizeof columns / sizeof *columns; k++)
            for (int32_t n = 1; n <= 4; n++) {
                d->n_sm = sms[i];
                check_blocks(d, columns[k], n);
            }
    tn_backend_cuda.close(&d);
}

/* Rows as wide as those of models of 32 and 70 billion parameters have a kernel on every device, in floats and in int8. */
static void test_wide_rows(void **state) {
    (void)state;
    static const tn_type types[] = {TN_TYPE_F16, TN_TYPE_Q4_K};
    static const size_t limits[] = {226 << 10, 162 << 10, 98 << 10};
    tn_device *d;
    tn_cuda_fake_open(&d, 1);
    for (int i = 0; i < 3 * 2 * 2; i++) {
        tn_weight wide = {.name = "w", .type = types[i % 2], .n_out = 8192, .n_in = 53248, .n_expert = 1},
                  embed = g_embed;
        const tn_weight *table[] = {&embed, &wide};
        tn_graph g = {
            .max_tokens = i / 2 % 2 ? 8 : 1, .max_outputs = 1, .layer = -1, .weights = table, .n_weights = 2};
        d->shared_limit = limits[i / 4];
        embed.n_in = wide.n_in;
        tn_val x = tn_g_embed(&g, tn_g_tokens(&g), tn_g_weight(&g, 0, &embed), "x");
        if (i % 2) x = tn_g_quantize(&g, x, "q");
        int32_t node = tn_g_matmul(&g, x, tn_g_weight(&g, 1, &wide), "y").node;
        const char *why = tn_cuda_find_kernel(d, &g, &node, 1, NULL);
        if (why)
            fail_msg("%s, %d tokens, %zu bytes: %s", tn_type_name(types[i % 2]), g.max_tokens, d->shared_limit, why);
        tn_graph_free(&g);
    }
    tn_backend_cuda.close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graphs),    cmocka_unit_test(test_ahead),     cmocka_unit_test(test_failing),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_wide_rows), cmocka_unit_test(test_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
