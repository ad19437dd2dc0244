/* What a norm costs on a GPU: x * rsqrt(mean(x^2) + eps) * w as two launches and as one, by words and by four words at a time,
 * on rows of published models. A chain of them is timed, in which each waits for the one before it, so that what a launch
 * costs by itself is in the figures, as it is in a model.
 * webgpu_norms [BACKEND] */
#include "backend/webgpu/webgpu.h"
#include "base/clock.h"
#include "verify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHAIN = 100, STEPS = 20, ROWS = 512 };

static const struct {
    const char *model;
    int32_t cols;
} shapes[] = {
    {"Llama-3.2-3B", 3072}, {"Qwen3.5-4B", 2560}, {"Gemma-4-E4B", 2560}, {"Gemma-4-E4B, a layer's input", 256}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void quit(const tn_error *err) {
    fprintf(stderr, "webgpu_norms: %s\n", err->text);
    exit(1);
}

static void build(tn_graph *g, tn_rig_weights *weights, int32_t rows, int32_t cols) {
    *g = (tn_graph){.max_tokens = rows, .max_outputs = rows, .all_outputs = true, .one_token = rows == 1};
    tn_val table = tn_rig_weight(weights, g, &(tn_weight){.type = TN_TYPE_F32, .n_out = TN_RIG_VOCAB, .n_in = cols},
                                 TN_FILL_RANDOM, 0);
    tn_val w =
        tn_rig_weight(weights, g, &(tn_weight){.type = TN_TYPE_F32, .n_out = 1, .n_in = cols}, TN_FILL_POSITIVE, 1);
    tn_val x = tn_g_embed(g, tn_g_tokens(g), table, "x");
    for (int i = 0; i < CHAIN; i++)
        x = tn_g_binary(g, TN_OP_MUL, tn_g_norm(g, TN_OP_RMS_NORM, x, 0, 1e-5f, "norm"), w, "mul");
    g->output = x.node;
}

static double run_steps(const tn_rig *rig, tn_program *program, int32_t rows, int n, tn_error *err) {
    static int32_t zeros[ROWS], count[ROWS];
    int32_t pages[ROWS / TN_PAGE_TOKENS + 1] = {0};
    tn_run run = {.n = rows};
    for (int32_t i = 0; i < rows; i++) count[i] = i;
    tn_step_input in = {.n_tokens = rows,
                        .n_outputs = rows,
                        .n_runs = 1,
                        .ids = zeros,
                        .pos = count,
                        .seq = zeros,
                        .outputs = count,
                        .runs = &run,
                        .pages = pages,
                        .max_pages = (int32_t)(sizeof pages / sizeof *pages)};
    double start = tn_seconds();
    for (int i = 0; i < n; i++) {
        tn_result result;
        if (rig->backend->submit(program, &in, i + 1 == n ? TN_WANT_LOGITS : 0, err) != TN_OK ||
            rig->backend->wait(program, &result, err) != TN_OK)
            quit(err);
    }
    return tn_seconds() - start;
}

/* Microseconds of a norm and its product. */
static double measure(const tn_rig *rig, const tn_graph *g, const char *fuse) {
    tn_error err = {0};
    tn_plan plan = {0};
    tn_memory *memory;
    tn_program *program;
    double one = 1e9, all = 1e9; /* seconds of one step, of many; with what is paid once */
    if (tn_rig_plan(rig, &plan, g, &(tn_rig_options){.fuse = fuse, .act_f32 = true}, &err) != TN_OK) quit(&err);
    tn_memory_desc desc = {.n_pages = ROWS / TN_PAGE_TOKENS + 1, .n_seq = 1, .arena_bytes = plan.arena_bytes};
    if (rig->backend->make_memory(rig->device, &desc, &memory, &err) != TN_OK ||
        rig->backend->compile(rig->device, &plan, memory, &program, &err) != TN_OK)
        quit(&err);
    run_steps(rig, program, g->max_tokens, 8 * STEPS, &err); /* until the clocks are up */
    for (int i = 0; i < 9; i++) {
        one = fmin(one, run_steps(rig, program, g->max_tokens, 1, &err));
        all = fmin(all, run_steps(rig, program, g->max_tokens, STEPS + 1, &err));
    }
    rig->backend->free_program(rig->device, &program);
    rig->backend->free_memory(rig->device, &memory);
    tn_plan_free(&plan);
    return (all - one) * 1e6 / (STEPS * CHAIN);
}

int main(int argc, char **argv) {
    static const int32_t rows[] = {1, ROWS};
    tn_rig rig;
    tn_error err = {0};
    tn_rig_weights weights = {0};
    tn_graph graph[N_SHAPES][2];
    if (tn_rig_open(&rig, argc > 1 ? argv[1] : "webgpu", 0, &err) != TN_OK) quit(&err);
    for (int i = 0; i < N_SHAPES; i++)
        for (int k = 0; k < 2; k++) build(&graph[i][k], &weights, rows[k], shapes[i].cols);
    if (weights.failed || rig.backend->put_weights(rig.device, weights.p, weights.n, NULL, NULL, &err) != TN_OK)
        quit(&err);
    printf(
        "%s; us a norm and its product\n| rows of | columns | rows | two launches, words | two, vec4 | fused, words "
        "| fused, vec4 |\n|---|---|---|---|---|---|---|\n",
        rig.backend->caps(rig.device)->description);
    for (int i = 0; i < N_SHAPES; i++)
        for (int k = 0; k < 2; k++) {
            printf("| %s | %d | %d |", shapes[i].model, shapes[i].cols, rows[k]);
            for (int how = 0; how < 4; how++) {
                rig.device->scalar = how % 2 == 0;
                printf(" %.2f |", measure(&rig, &graph[i][k], how < 2 ? "none" : "norm"));
                fflush(stdout);
            }
            printf("\n");
            tn_graph_free(&graph[i][k]);
        }
    tn_rig_weights_free(&weights);
    tn_rig_close(&rig);
    return 0;
}
