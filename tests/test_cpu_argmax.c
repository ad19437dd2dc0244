/* The choice of the likeliest token on the CPU, inside the launch that makes the logits and apart from it: ties across tiles and threads,
 * the last columns, infinities, rows in which nothing is a number. */
#include "backend/backend.h"
#include "base/mem.h"
#include "engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

enum { N_IN = 32, N_OUT = 1024, N_TOKENS = 8, NAN_ROWS = 10 };

static float g_embed[N_TOKENS][N_IN], g_head[N_OUT][N_IN];
static const int32_t g_ids[N_TOKENS] = {0, 1, 2, 3, 4, 5, 6, 7}, g_zero[N_TOKENS];

/* Token t is the unit vector t, so column t of the head is its logits; the last one is not a number. */
static void fill(bool some_nan) {
    memset(g_embed, 0, sizeof g_embed);
    memset(g_head, 0, sizeof g_head);
    for (int t = 0; t < N_TOKENS - 1; t++) g_embed[t][t] = 1;
    g_embed[6][6] = 1e30f;
    g_embed[7][7] = NAN;
    for (int r = 0; r < N_OUT; r++) {
        g_head[r][0] = r == 700 ? 5.0f : (float)(r % 5);
        g_head[r][1] = r == 30 || r == 511 || r == 512 || r == 999 ? 1 : -1;
        g_head[r][2] = 0.5f;
        g_head[r][3] = (float)r;
        g_head[r][4] = r == 600 ? -1 : -2;
        g_head[r][5] = r == 520 || r == 1000 ? 9 : 8;
        g_head[r][6] = -1e30f;
        g_head[r][8] = some_nan && r < NAN_ROWS ? NAN : 0; /* 0 * nan, for all tokens */
    }
}

enum { LAST = -1 };
static const int32_t g_expected[2][N_TOKENS] = {
    {700, 30, 0, LAST, 600, 520, 0, 0},
    {700, 30, NAN_ROWS, LAST, 600, 520, NAN_ROWS, 0},
};

/* logits = embed(tokens) head^T, and their argmax */
static void build(tn_graph *g, const tn_weight *const *weights) {
    *g = (tn_graph){.max_tokens = N_TOKENS, .max_outputs = N_TOKENS, .all_outputs = true, .layer = -1};
    g->weights = weights;
    g->n_weights = 2;
    tn_val x = tn_g_embed(g, tn_g_tokens(g), tn_g_weight(g, 0, weights[0]), "x");
    tn_val y = tn_g_matmul(g, x, tn_g_weight(g, 1, weights[1]), "y");
    g->output = y.node;
    g->choice = tn_g_argmax(g, y, "chosen").node;
}

static void run(const tn_plan *plan, const tn_backend *b, tn_device *device, const int32_t *expected, int32_t n_out) {
    tn_error err = {0};
    tn_memory *memory;
    tn_program *program;
    tn_memory_desc desc = {.n_seq = 1, .arena_bytes = plan->arena_bytes};
    tn_step_input in = {.n_tokens = N_TOKENS,
                        .n_outputs = N_TOKENS,
                        .n_runs = 1,
                        .ids = g_ids,
                        .pos = g_ids,
                        .seq = g_zero,
                        .outputs = g_ids,
                        .runs = &(tn_run){.n = N_TOKENS},
                        .pages = g_zero,
                        .max_pages = 1};
    assert_int_equal(b->make_memory(device, &desc, &memory, &err), TN_OK);
    assert_int_equal(b->compile(device, plan, memory, &program, &err), TN_OK);
    static const int wants[] = {TN_WANT_CHOSEN, TN_WANT_CHOSEN | TN_WANT_LOGITS};
    for (int i = 0; i < 2; i++) {
        tn_result result;
        assert_int_equal(b->submit(program, &in, wants[i], &err), TN_OK);
        assert_int_equal(b->wait(program, &result, &err), TN_OK);
        for (int t = 0; t < N_TOKENS; t++)
            assert_int_equal(result.ids[t], expected[t] == LAST ? n_out - 1 : expected[t]);
        assert_true(!result.logits || result.logits[700] == 5.0f);
    }
    b->free_program(device, &program);
    b->free_memory(device, &memory);
}

static void check(const char *isa, int threads, const char *fuse, bool some_nan, int32_t n_out) {
    tn_error err = {0};
    const char *variant;
    const tn_backend *b = tn_backend_find(isa, &variant);
    tn_weight embed = {"embed", TN_TYPE_F32, N_TOKENS, N_IN, 1, g_embed, sizeof g_embed};
    tn_weight head = {"head", TN_TYPE_F32, n_out, N_IN, 1, g_head, sizeof *g_head * (size_t)n_out};
    const tn_weight *const weights[] = {&embed, &head};
    tn_device *device;
    tn_graph g;
    tn_plan plan;
    fill(some_nan);
    if (b->open(&device, &(tn_device_options){.variant = variant, .threads = threads}, &err) == TN_ERR_UNAVAILABLE)
        return;
    assert_int_equal(b->put_weights(device, weights, 2, NULL, NULL, &err), TN_OK);
    build(&g, weights);
    tn_plan_target target = tn_engine_target(b, device);
    assert_int_equal(tn_plan_make(&plan, &g, true, fuse, &target, &err), TN_OK);
    assert_int_equal(plan.partition.n, strcmp(fuse, "all") ? 3 : 2);
    run(&plan, b, device, g_expected[some_nan], n_out);
    tn_plan_free(&plan);
    b->close(&device);
}

static void test_argmax(void **state) {
    (void)state;
    static const char *const isas[] = {"cpu:ref", "cpu:avx2", "cpu:avx512", "cpu:neon"};
    for (int i = 0; i < 4; i++)
        for (int threads = 1; threads <= 3; threads++)
            for (int some_nan = 0; some_nan < 2; some_nan++) {
                check(isas[i], threads, "all", some_nan, N_OUT);
                check(isas[i], threads, "all", some_nan, N_OUT - 11); /* no whole tile at the end */
                check(isas[i], threads, "none", some_nan, N_OUT);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_argmax)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
