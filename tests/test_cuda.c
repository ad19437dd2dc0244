/* The CUDA backend's parts. Without a device: every kernel of small models through NVRTC for four architectures, and the word that
 * says what is missing. With one: ops on odd shapes against cpu:ref, the same bits twice. test_cuda_verify.c has every op and rule,
 * test_cuda_models.c whole models. */
#include "backend/cuda/cuda.h"
#include "best_rig.h"
#include "cuda_rig.h"
#include "engine.h"
#include "failing.h"
#include "model/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- what is missing is said ---- */

static void test_word(void **state) {
    (void)state;
    tn_device *d = NULL;
    tn_error err = {0};
    tn_status status = tn_cuda_find_device(&err);
    if (status == TN_OK) {
        print_message("cuda: %s\n", tn_backend_cuda.caps(tn_cuda_held)->description);
        assert_int_equal(tn_backend_cuda.open(&d, &(tn_device_options){.variant = "99"}, &err), TN_ERR_UNAVAILABLE);
        assert_int_equal(tn_backend_cuda.open(&d, &(tn_device_options){.variant = "x"}, &err), TN_ERR_USAGE);
        return;
    }
    print_message("cuda: tests on a device are skipped: %s\n", err.text);
    assert_int_equal(status, TN_ERR_UNAVAILABLE);
    assert_true(!strncmp(err.text, "cuda: ", 6) && strlen(err.text) > 20);
    assert_null(tn_cuda_held);
}

/* ---- kernels compile ---- */

typedef struct small_model {
    tn_gguf *file;
    const tn_arch *arch;
    tn_hparams hp;
    tn_weight_table weights;
} small_model;

static void open_small(small_model *m, const char *name) {
    char path[400];
    tn_error err = {0};
    tn_str arch;
    snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, name);
    *m = (small_model){0};
    if (tn_gguf_open(&m->file, path, &err) != TN_OK) fail_msg("%s", err.text);
    assert_true(tn_gguf_get_str(m->file, "general.architecture", &arch));
    m->arch = tn_arch_find(arch);
    assert_non_null(m->arch);
    assert_int_equal(m->arch->read(&m->hp, m->file, &err), TN_OK);
}

static void close_small(small_model *m) {
    tn_weight_table_free(&m->weights);
    tn_gguf_close(&m->file);
}

static void plan_small(tn_plan *plan, small_model *m, const tn_device *d, int32_t tokens, bool f32,
                       const char *fuse) {
    tn_phase_shape shape = {.max_tokens = tokens, .max_outputs = 1, .one_token = tokens <= 2};
    tn_plan_target target = {d, tn_cuda_find_kernel, d->caps.int8_types, d->caps.align};
    tn_graph g;
    tn_error err = {0};
    if (tn_model_build(&g, m->arch, &m->hp, m->file, &m->weights, &shape, &err) != TN_OK) fail_msg("%s", err.text);
    if (tn_plan_make(plan, &g, f32, fuse, &target, &err) != TN_OK) fail_msg("%s", err.text);
}

enum { MAX_CODE = 400 };
static tn_cuda_code g_code[MAX_CODE];
static int32_t g_n_code;

/* Collects the sources of a plan that were not met before. */
static void collect(const tn_plan *plan, const tn_device *d) {
    for (int32_t i = 0; i < plan->partition.n; i++) {
        const tn_launch *l = &plan->partition.launch[i];
        tn_cuda_ask ask = {d, &plan->graph, l->nodes, l->n, plan, NULL};
        tn_cuda_launch launch;
        tn_buf head = {0};
        const char *why = tn_cuda_build(&launch, &ask, &head);
        if (why) fail_msg("%s: %s", plan->graph.nodes[l->nodes[0]].name, why);
        char *source = tn_cuda_source(launch.kernel, &head);
        assert_non_null(source);
        tn_buf_free(&head);
        int32_t k = 0;
        while (k < g_n_code && strcmp(g_code[k].source, source) != 0) k++;
        if (k < g_n_code) {
            tn_free(source);
            continue;
        }
        assert_true(g_n_code < MAX_CODE);
        g_code[g_n_code++] = (tn_cuda_code){.source = source, .name = launch.kernel->entry};
    }
}

/* Every form of a plan, or those that run by themselves. */
static void collect_model(const char *name, const tn_device *d, bool every) {
    static const char *const fuse[] = {"all", "none"};
    static const int32_t tokens[] = {1, 2, 64};
    small_model m;
    open_small(&m, name);
    for (size_t f = 0; f < COUNT(fuse); f++)
        for (size_t t = 0; t < COUNT(tokens); t++)
            for (int f32 = 0; f32 < 2; f32++) {
                if (f == 1 && tokens[t] == 2) continue;
                if (!every && (f == 1 || f32 || tokens[t] == 2)) continue;
                tn_plan plan;
                plan_small(&plan, &m, d, tokens[t], f32, fuse[f]);
                if (f == 0 && tokens[t] == 1 && !f32 && !strncmp(name, "llama", 5))
                    assert_true(plan.partition.n <= 5 * m.hp.n_layer + 5); /* angles, embedding, head, choice, best */
                collect(&plan, d);
                tn_plan_free(&plan);
            }
    close_small(&m);
}

static void compile_collected(const tn_device *d) {
    tn_error err = {0};
    tn_status status = tn_cuda_compile_all(d, g_code, g_n_code, &err);
    if (status != TN_OK) fail_msg("%s", err.text);
    for (int32_t i = 0; i < g_n_code; i++) assert_true(g_code[i].bytes > 0);
    print_message("sm_%d: %d kernels\n", d->arch, g_n_code);
    for (int32_t i = 0; i < g_n_code; i++) {
        tn_free((void *)(uintptr_t)g_code[i].source);
        tn_free(g_code[i].cubin);
    }
    g_n_code = 0;
}

/* The types that files hold most, and every family, for one architecture; one model for the others. */
static void test_compile(void **state) {
    (void)state;
    static const int archs[] = {80, 90, 100, 120};
    static const char *const types[] = {"llama-q.Q4_K-pure", "llama-q.Q6_K-pure", "llama-q.Q5_0-pure", "llama-a.F16"};
    static const char *const families[] = {"qwen3moe-a.Q8_0", "qwen35-a.Q8_0",  "qwen35moe-a.F32",
                                           "gemma3-a.F32",    "gemma4-ple.F32", "gemma4-moe.F32"};
    for (size_t a = 0; a < COUNT(archs); a++) {
        tn_device *d;
        tn_error err = {0};
        tn_status status = tn_cuda_open_offline(&d, archs[a], &err);
        if (status == TN_ERR_UNAVAILABLE) {
            print_message("skipped: %s\n", err.text);
            continue;
        }
        assert_int_equal(status, TN_OK);
        for (size_t m = 0; m < (archs[a] == 90 ? COUNT(types) : 1); m++) collect_model(types[m], d, true);
        for (size_t m = 0; m < (archs[a] == 90 ? COUNT(families) : 0); m++) collect_model(families[m], d, false);
        compile_collected(d);
        tn_backend_cuda.close(&d);
    }
}

/* ---- planning without a device ---- */

static tn_status open_plan(const char *name, tn_model **m, tn_session **s, tn_error *err) {
    char path[400];
    *m = NULL, *s = NULL;
    snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, name);
    tn_status status = tn_model_open(m, path, &(tn_model_options){.backend = "cuda:plan", .threads = 1}, err);
    if (status == TN_OK) status = tn_session_open(s, *m, &(tn_session_options){.n_ctx = 64}, err);
    return status;
}

/* It plans, whichever allocation fails, and says that it runs nothing. Only the compiler of the tokenizer's pattern can do
 * without memory, and then the plans are the same. */
static void test_plan_only(void **state) {
    (void)state;
    static const char *const names[] = {"llama-q.Q4_K-pure", "qwen35moe-a.F32", "gemma4-moe.F32"};
    for (size_t i = 0; i < COUNT(names); i++) {
        tn_model *m;
        tn_session *s;
        tn_error err = {0};
        uint64_t hash = 0;
        tn_failing f = {.skip = 16};
        if (open_plan(names[i], &m, &s, &err) != TN_OK) fail_msg("%s: %s", names[i], err.text);
        hash = s->plan[TN_PHASE_DECODE].hash ^ s->plan[TN_PHASE_PREFILL].hash;
        assert_int_equal(tn_step(s, &(tn_batch){.ids = (int32_t[]){1}, .n_tokens = 1}, &err), TN_ERR_UNAVAILABLE);
        assert_non_null(strstr(err.text, "runs nothing"));
        while (!f.done) {
            tn_session_close(&s);
            tn_model_close(&m);
            tn_failing_start(&f);
            tn_status status = open_plan(names[i], &m, &s, &err);
            bool failed = tn_failing_stop(&f);
            if (status != TN_OK && (status != TN_ERR_RESOURCES || !failed)) fail_msg("%s: %s", names[i], err.text);
            if (status == TN_OK)
                assert_true((s->plan[TN_PHASE_DECODE].hash ^ s->plan[TN_PHASE_PREFILL].hash) == hash);
        }
        tn_session_close(&s);
        tn_model_close(&m);
        assert_true(f.n > 100);
    }
}

/* ---- a graph on a backend ---- */

typedef struct bench {
    const tn_backend *backend;
    tn_device *device;
} bench;

static bench open_bench(const char *name) {
    const char *variant;
    bench b = {.backend = tn_backend_find(name, &variant)};
    tn_error err = {0};
    if (b.backend->open(&b.device, &(tn_device_options){.variant = variant, .threads = 2}, &err) != TN_OK)
        fail_msg("%s", err.text);
    return b;
}

enum { MAX_TOKENS = 80, MAX_STEPS = 300, N_EMBED = 50 };

typedef struct sample {
    tn_val (*build)(tn_graph *g, tn_val x, const struct sample *s);
    tn_type type;
    int32_t n_in, n_out;       /* of the embedding; of a matmul */
    int32_t n_head, n_kv, dim; /* attention */
    int32_t window, steps[MAX_STEPS];
    tn_kv_type kv;
    size_t shared_limit; /* as on a device with so much shared memory a block; 0: the device's own */
    bool f32;
    tn_op op;
    const char *fuse;
    bool apart; /* the second time node by node */
    tn_weight w[8];
    int32_t n_w;
} sample;

static tn_val weight(tn_graph *g, const sample *s, int32_t i) {
    return tn_g_weight(g, i, &s->w[i]);
}

/* Runs the sample's steps (that many tokens each, of one sequence); the rows of all of them, one after the other. */
static float *run_sample(const bench *b, const sample *s, size_t *n) {
    const tn_weight *table[COUNT(s->w)];
    tn_error err = {0};
    tn_graph g = {.max_tokens = 1, .max_outputs = MAX_TOKENS, .all_outputs = true, .layer = -1};
    for (int32_t i = 0; i < s->n_w; i++) table[i] = &s->w[i];
    g.weights = table;
    g.n_weights = s->n_w;
    size_t total = 0;
    for (int i = 0; i < MAX_STEPS; i++) {
        if (s->steps[i] > g.max_tokens) g.max_tokens = s->steps[i];
        total += (size_t)s->steps[i];
    }
    g.max_outputs = g.max_tokens;
    g.one_token = g.max_tokens == 1;
    tn_val ids = tn_g_tokens(&g), x = tn_g_embed(&g, ids, weight(&g, s, 0), "x");
    tn_val y = s->build(&g, x, s);
    g.output = y.node;
    const tn_caps *caps = b->backend->caps(b->device);
    tn_plan_target target = {b->device, b->backend->find_kernel, caps->int8_types, caps->align};
    tn_plan plan;
    if (tn_plan_make(&plan, &g, s->f32, s->fuse, &target, &err) != TN_OK) fail_msg("%s", err.text);
    if (b->backend->put_weights(b->device, table, s->n_w, NULL, NULL, &err) != TN_OK) fail_msg("%s", err.text);
    tn_state_desc cache = {.n_kv = s->n_kv, .k_dim = s->dim, .v_dim = s->dim};
    tn_memory_desc desc = {&cache, plan.graph.n_states, 8, 1, s->kv, plan.arena_bytes};
    tn_memory *memory;
    tn_program *program;
    if (b->backend->make_memory(b->device, &desc, &memory, &err) != TN_OK) fail_msg("%s", err.text);
    if (b->backend->compile(b->device, &plan, memory, &program, &err) != TN_OK) fail_msg("%s", err.text);
    int32_t at = 0, cols = plan.graph.nodes[plan.graph.output].out[0].cols;
    float *all = malloc(total * (size_t)cols * sizeof *all);
    for (int i = 0; i < MAX_STEPS && s->steps[i]; i++) {
        int32_t id[MAX_TOKENS], pos[MAX_TOKENS], seq[MAX_TOKENS] = {0}, out[MAX_TOKENS];
        static const int32_t pages[8] = {3, 0, 7, 1, 2, 4, 5, 6};
        for (int32_t t = 0; t < s->steps[i]; t++) id[t] = (at + t) * 7 % N_EMBED, pos[t] = at + t, out[t] = t;
        tn_run run = {0, s->steps[i], at, 0};
        tn_step_input in = {s->steps[i], s->steps[i], 1, id, pos, seq, out, &run, pages, 8};
        tn_result result;
        if (b->backend->submit(program, &in, TN_WANT_LOGITS, &err) != TN_OK) fail_msg("%s", err.text);
        if (b->backend->wait(program, &result, &err) != TN_OK) fail_msg("%s", err.text);
        memcpy(all + (size_t)at * (size_t)cols, result.logits, (size_t)s->steps[i] * (size_t)cols * sizeof *all);
        at += s->steps[i];
    }
    *n = (size_t)at * (size_t)cols;
    b->backend->free_program(b->device, &program);
    b->backend->free_memory(b->device, &memory);
    tn_plan_free(&plan);
    return all;
}

/* The device against cpu:ref, and against itself. */
static void compare(sample *s, double bound, const char *what) {
    sample second = *s;
    if (s->apart) second.fuse = "none";
    bench ref = open_bench("cpu:ref"), cuda = open_bench("cuda"), again = open_bench("cuda");
    if (s->shared_limit) cuda.device->shared_limit = again.device->shared_limit = s->shared_limit;
    size_t n, m;
    float *want = run_sample(&ref, s, &n), *got = run_sample(&cuda, s, &m), *same = run_sample(&again, &second, &m);
    assert_int_equal(n, m);
    double error = tn_nmse(got, want, n);
    if (!(error <= bound)) {
        print_message("%s: nmse %.3g, bound %.3g\n", what, error, bound);
        for (size_t i = 0; i < 8 && i < n; i++) print_message("  %g %g\n", (double)got[i], (double)want[i]);
        fail();
    }
    assert_memory_equal(got, same, n * sizeof *got);
    free(want);
    free(got);
    free(same);
    ref.backend->close(&ref.device);
    cuda.backend->close(&cuda.device);
    again.backend->close(&again.device);
    for (int32_t i = 0; i < s->n_w; i++) free((void *)(uintptr_t)s->w[i].data);
}

/* ---- ops ---- */

static tn_val build_matmul(tn_graph *g, tn_val x, const sample *s) {
    return tn_g_matmul(g, x, weight(g, s, 1), "y");
}

static void test_matmul(void **state) {
    (void)state;
    tn_cuda_need_device();
    static const int32_t tokens[] = {1, 3, 8, 70}; /* f32: those at odd places */
    for (size_t t = 0; t < TN_N_TYPES; t++)
        for (size_t k = 0; k < COUNT(tokens); k++)
            for (int f32 = 0; f32 < 2; f32++) {
                int32_t block = tn_type_get(tn_all_types[t])->block, n_in = block == 1 ? 72 : block == 32 ? 96 : 1280;
                if (block == 1 ? !f32 : f32 && k % 2 == 0) continue;
                sample s = {
                    .build = build_matmul, .n_in = n_in, .n_out = 75, .steps = {tokens[k]}, .f32 = f32, .n_w = 2};
                char what[80];
                s.w[0] = tn_make_weight("embd", TN_TYPE_F32, N_EMBED, n_in);
                s.w[1] = tn_make_weight("w", tn_all_types[t], 75, n_in);
                snprintf(what, sizeof what, "matmul %s, %d tokens, %s", tn_type_name((uint32_t)tn_all_types[t]),
                         tokens[k], f32 ? "f32" : "int8");
                compare(&s, 1e-10, what);
            }
}

enum { N_EXPERT = 6, N_USED = 3, N_ROUTER = 32 };

/* A router on the first columns, and the experts it chooses on all of the row, or each on its own third. */
static tn_val build_experts(tn_graph *g, tn_val x, const sample *s) {
    tn_val router = tn_g_matmul(g, tn_g_slice(x, 0, N_ROUTER), weight(g, s, 1), "router");
    tn_val probs = tn_g_unary(g, TN_OP_SOFTMAX, router, "probs");
    tn_val weights = tn_g_top_k(g, probs, NULL, N_USED, true, "chosen");
    tn_val y = tn_g_matmul_id(g, x, weight(g, s, 2), tn_g_out(weights, 1, N_USED), "y");
    return tn_g_expert_sum(g, y, weights, "sum");
}

static void test_experts(void **state) {
    (void)state;
    tn_cuda_need_device();
    static const int32_t tokens[] = {1, 5, 70};
    for (size_t t = 0; t < TN_N_TYPES; t++)
        for (size_t k = 0; k < COUNT(tokens); k++)
            for (int form = 0; form < 4; form++) {
                bool f32 = form & 1, own = form & 2;
                int32_t block = tn_type_get(tn_all_types[t])->block, n_in = block == 1 ? 72 : block == 32 ? 96 : 1280;
                if (block == 1 ? !f32 : f32 && k != 1) continue;
                if (block > 32 && tn_all_types[t] != TN_TYPE_Q4_K && tn_all_types[t] != TN_TYPE_Q6_K) continue;
                sample s = {.build = build_experts,
                            .n_in = own ? N_USED * n_in : n_in,
                            .steps = {tokens[k]},
                            .f32 = f32,
                            .n_w = 3};
                char what[80];
                s.w[0] = tn_make_weight("embd", TN_TYPE_F32, N_EMBED, s.n_in);
                s.w[1] = tn_make_weight("router", TN_TYPE_F32, N_EXPERT, N_ROUTER);
                s.w[2] = tn_make_weight("w", tn_all_types[t], N_EXPERT * 75, n_in);
                s.w[2].n_expert = N_EXPERT;
                snprintf(what, sizeof what, "experts %s, %d tokens, %s, rows %s",
                         tn_type_name((uint32_t)tn_all_types[t]), tokens[k], f32 ? "f32" : "int8",
                         own ? "of their own" : "shared");
                compare(&s, 1e-10, what);
            }
}

/* Experts with one beside them that all tokens share, added to the row they read. */
static tn_val build_shared(tn_graph *g, tn_val x, const sample *s) {
    tn_val probs =
        tn_g_unary(g, TN_OP_SOFTMAX, tn_g_matmul(g, tn_g_slice(x, 0, N_ROUTER), weight(g, s, 1), "r"), "p");
    tn_val weights = tn_g_top_k(g, probs, NULL, N_USED, true, "chosen"), ids = tn_g_out(weights, 1, N_USED);
    tn_val a = tn_g_unary(g, TN_OP_SILU, tn_g_matmul_id(g, x, weight(g, s, 2), ids, "gate_e"), "act_e");
    a = tn_g_binary(g, TN_OP_MUL, a, tn_g_matmul_id(g, x, weight(g, s, 3), ids, "up_e"), "gated_e");
    tn_val sum = tn_g_expert_sum(g, tn_g_matmul_id(g, a, weight(g, s, 4), ids, "down_e"), weights, "sum");
    a = tn_g_unary(g, TN_OP_SILU, tn_g_matmul(g, x, weight(g, s, 5), "gate"), "act");
    a = tn_g_binary(g, TN_OP_MUL, a, tn_g_matmul(g, x, weight(g, s, 6), "up"), "gated");
    a = tn_g_binary(g, TN_OP_ADD, sum, tn_g_matmul(g, a, weight(g, s, 7), "down"), "both");
    return tn_g_binary(g, TN_OP_ADD, a, x, "y");
}

/* Fused or not, the same bits. */
static void test_shared_expert(void **state) {
    (void)state;
    tn_cuda_need_device();
    enum { IN = 768, FF = 256, SHARED = 512, E = N_EXPERT };
    static const tn_type types[][2] = {{TN_TYPE_Q4_K, TN_TYPE_Q6_K}, {TN_TYPE_Q8_0, TN_TYPE_Q4_0}};
    static const int32_t tokens[] = {1, 2, 5, 70},
                         shapes[8][2] = {{N_EMBED, IN}, {E, N_ROUTER}, {E * FF, IN}, {E * FF, IN},
                                         {E * IN, FF},  {SHARED, IN},  {SHARED, IN}, {IN, SHARED}};
    for (int k = 0; k < 8; k++) {
        sample s = {.build = build_shared, .n_in = IN, .steps = {tokens[k / 2]}, .apart = true, .n_w = 8};
        for (int i = 0; i < 8; i++) {
            s.w[i] = tn_make_weight("w", i < 2 ? TN_TYPE_F32 : types[k % 2][i / 2 % 2], shapes[i][0], shapes[i][1]);
            if (i >= 2 && i < 5) s.w[i].n_expert = E;
        }
        compare(&s, 2e-5, "a shared expert");
    }
}

static void test_best(void **state) {
    (void)state;
    tn_cuda_need_device();
    assert_true(tn_check_best("cuda", INT32_MAX));
}

static tn_val build_embed(tn_graph *g, tn_val x, const sample *s) {
    (void)s;
    return tn_g_scale(g, x, 1.0f, "y");
}

static void test_embed(void **state) {
    (void)state;
    tn_cuda_need_device();
    for (size_t t = 0; t < TN_N_TYPES; t++) {
        int32_t n_in = tn_type_get(tn_all_types[t])->block == 1 ? 42 : 512;
        sample s = {.build = build_embed, .n_in = n_in, .steps = {5}, .n_w = 1};
        s.w[0] = tn_make_weight("embd", tn_all_types[t], N_EMBED, n_in);
        compare(&s, 0, tn_type_name((uint32_t)tn_all_types[t]));
    }
}

static tn_val build_rows(tn_graph *g, tn_val x, const sample *s) {
    tn_val w = weight(g, s, 1);
    switch (s->op) {
    case TN_OP_RMS_NORM: return tn_g_norm(g, s->op, x, s->dim, 1e-5f, "y");
    case TN_OP_L2_NORM: return tn_g_norm(g, s->op, x, s->dim, 1e-6f, "y");
    case TN_OP_ADD:
    case TN_OP_MUL: return tn_g_binary(g, s->op, x, w, "y");
    case TN_OP_SCALE: return tn_g_scale(g, x, 0.3f, "y");
    case TN_OP_SOFTCAP: return tn_g_softcap(g, tn_g_scale(g, x, 40.0f, "s"), 30.0f, "y");
    case TN_OP_ROPE: {
        tn_rope_params rope = {10000.0f, 0.25f, s->window ? 1.0f : 0.0f, 1.0f, 32.0f, 1.0f, 64};
        tn_val table = tn_g_rope_table(g, NULL, 16, rope, "table");
        return tn_g_rope(g, x, table, 24, 16, s->n_kv, "y");
    }
    default: return tn_g_unary(g, s->op, tn_g_scale(g, x, 4.0f, "s"), "y");
    }
}

static void test_rows(void **state) {
    (void)state;
    tn_cuda_need_device();
    static const tn_op ops[] = {TN_OP_RMS_NORM, TN_OP_L2_NORM, TN_OP_ADD,  TN_OP_MUL,        TN_OP_SCALE,
                                TN_OP_SOFTCAP,  TN_OP_SILU,    TN_OP_GELU, TN_OP_GELU_QUICK, TN_OP_SIGMOID,
                                TN_OP_SOFTPLUS, TN_OP_SOFTMAX, TN_OP_ROPE};
    for (size_t i = 0; i < COUNT(ops); i++)
        for (int form = 0; form < 4; form++) {
            sample s = {.build = build_rows, .n_in = 1032, .op = ops[i], .steps = {3, 2}, .n_w = 2, .fuse = "none"};
            s.dim = form % 2 ? 24 : 0;
            s.n_kv = form % 2;
            s.window = form / 2;
            s.w[0] = tn_make_weight("embd", TN_TYPE_F32, N_EMBED, s.n_in);
            s.w[1] = tn_make_weight("w", TN_TYPE_F32, 1, form % 2 ? 24 : s.n_in);
            compare(&s, 1e-11, tn_ops[ops[i]].name);
        }
}

static tn_val build_attention(tn_graph *g, tn_val x, const sample *s) {
    tn_attr heads = {.n_head = s->n_head, .n_kv = s->n_kv, .head_dim = s->dim, .v_dim = s->dim, .window = s->window};
    tn_rope_params rope = {10000.0f, 1.0f, 0.0f, 1.0f, 32.0f, 1.0f, 64};
    tn_val table = tn_g_rope_table(g, NULL, s->dim, rope, "table");
    int32_t q_cols = s->n_head * s->dim, kv_cols = s->n_kv * s->dim;
    tn_val q = tn_g_rope(g, tn_g_slice(x, 0, q_cols), table, s->dim, s->dim, true, "q");
    tn_val k = tn_g_rope(g, tn_g_slice(x, q_cols, kv_cols), table, s->dim, s->dim, true, "k");
    tn_val v = tn_g_slice(x, q_cols + kv_cols, kv_cols);
    tn_val cache = tn_g_kv_write(g, tn_g_state(g, 0, "cache", &heads), k, v, "write");
    heads.factor = 0.3f;
    return tn_g_attention(g, q, cache, &heads, "y");
}

static void test_attention(void **state) {
    (void)state;
    tn_cuda_need_device();
    static const int32_t shapes[][3] = {{6, 2, 40}, {9, 3, 64}, {8, 1, 128}, {4, 4, 32}, {5, 1, 256}, {8, 2, 256}};
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int kv = TN_KV_F16; kv <= TN_KV_F32; kv++)
            for (int window = 0; window < 2; window++) {
                sample s = {
                    .build = build_attention, .n_head = shapes[i][0], .n_kv = shapes[i][1], .dim = shapes[i][2]};
                if (kv == TN_KV_Q8_0 && s.dim % 32) continue;
                s.kv = (tn_kv_type)kv;
                s.window = window ? 70 : 0;
                s.n_in = (s.n_head + 2 * s.n_kv) * s.dim;
                s.n_w = 1;
                memcpy(s.steps, (int32_t[]){80, 80, 3, 1}, 4 * sizeof *s.steps);
                s.w[0] = tn_make_weight("embd", TN_TYPE_F32, N_EMBED, s.n_in);
                char what[80];
                snprintf(what, sizeof what, "attention %d/%d x %d, kv %d, window %d", s.n_head, s.n_kv, s.dim, kv,
                         s.window);
                compare(&s, 1e-9, what);
            }
}

/* Shared memory of a block, as devices of these architectures have it. */
static const struct {
    int arch;
    size_t shared_limit;
    int32_t wide_rows; /* of the tile for heads 256 wide */
} g_devices[] = {{80, 162 << 10, 64}, {90, 226 << 10, 128}, {100, 226 << 10, 128}, {120, 98 << 10, 48}};

/* Many tokens on the tensor cores: the tiles for the shared memory of other devices. */
static void test_attention_tiles(void **state) {
    (void)state;
    tn_cuda_need_device();
    static const int32_t shapes[][3] = {{8, 1, 256}, {5, 1, 256}, {6, 2, 192}, {9, 3, 64}};
    for (size_t d = 0; d < COUNT(g_devices); d++)
        for (size_t i = 0; i < COUNT(shapes); i++) {
            if (g_devices[d].shared_limit > tn_cuda_held->shared_limit) continue;
            sample s = {.build = build_attention,
                        .n_head = shapes[i][0],
                        .n_kv = shapes[i][1],
                        .dim = shapes[i][2],
                        .window = i % 2 ? 70 : 0,
                        .shared_limit = g_devices[d].shared_limit};
            s.n_in = (s.n_head + 2 * s.n_kv) * s.dim;
            s.n_w = 1;
            memcpy(s.steps, (int32_t[]){80, 80, 33, 1}, 4 * sizeof *s.steps);
            s.w[0] = tn_make_weight("embd", TN_TYPE_F32, N_EMBED, s.n_in);
            char what[80];
            snprintf(what, sizeof what, "attention %d/%d x %d, as on sm_%d", s.n_head, s.n_kv, s.dim,
                     g_devices[d].arch);
            compare(&s, 1e-9, what);
        }
}

/* A prompt of heads of this size; one plan at a time. */
static void plan_attention(tn_plan *plan, const tn_device *d, int32_t dim) {
    static tn_weight embed;
    static const tn_weight *const table[] = {&embed};
    sample s = {.n_head = 8, .n_kv = 2, .dim = dim};
    tn_graph g = {.max_tokens = 64, .max_outputs = 64, .all_outputs = true, .layer = -1};
    tn_plan_target target = {d, tn_cuda_find_kernel, d->caps.int8_types, d->caps.align};
    tn_error err = {0};
    embed = (tn_weight){.name = "embd", .type = TN_TYPE_F32, .n_out = N_EMBED, .n_in = 12 * dim, .n_expert = 1};
    g.weights = table;
    g.n_weights = 1;
    tn_val x = tn_g_embed(&g, tn_g_tokens(&g), tn_g_weight(&g, 0, &embed), "x");
    g.output = build_attention(&g, x, &s).node;
    if (tn_plan_make(plan, &g, false, "all", &target, &err) != TN_OK) fail_msg("%s", err.text);
}

/* On every architecture prompts go through the tensor cores, with the tile that its shared memory has room for. */
static void test_tile_choice(void **state) {
    (void)state;
    for (size_t a = 0; a < COUNT(g_devices); a++) {
        tn_device *d;
        tn_error err = {0};
        if (tn_cuda_open_offline(&d, g_devices[a].arch, &err) == TN_ERR_UNAVAILABLE) skip();
        d->shared_limit = g_devices[a].shared_limit;
        for (int32_t dim = 64; dim <= 256; dim *= 2) {
            tn_plan plan;
            char rows[40];
            int32_t first = g_n_code, found = 0;
            plan_attention(&plan, d, dim);
            collect(&plan, d);
            snprintf(rows, sizeof rows, "#define ROWS %d\n", dim == 256 ? g_devices[a].wide_rows : 128);
            for (int32_t i = first; i < g_n_code; i++) {
                assert_string_not_equal(g_code[i].name, "attend");
                if (strcmp(g_code[i].name, "attend_tile") != 0) continue;
                found++;
                if (!strstr(g_code[i].source, rows)) fail_msg("sm_%d, heads of %d: not %s", d->arch, dim, rows);
            }
            assert_int_equal(found, 1);
            tn_plan_free(&plan);
        }
        compile_collected(d);
        tn_backend_cuda.close(&d);
    }
}

/* A context long enough for several shares: tokens one by one (the cache written where it is read), and in eights. */
static void test_attention_shares(void **state) {
    (void)state;
    tn_cuda_need_device();
    static const int32_t shapes[][3] = {{9, 3, 64}, {16, 2, 128}, {2, 2, 128}, {5, 1, 40}};
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int32_t each = 1; each <= 8; each += 7)
            for (int window = 0; window < 2; window++) {
                sample s = {
                    .build = build_attention, .n_head = shapes[i][0], .n_kv = shapes[i][1], .dim = shapes[i][2]};
                s.window = window ? 170 : 0;
                s.n_in = (s.n_head + 2 * s.n_kv) * s.dim;
                s.n_w = 1;
                for (int k = 0; k < (each == 1 ? MAX_STEPS : 60); k++) s.steps[k] = each;
                s.w[0] = tn_make_weight("embd", TN_TYPE_F32, N_EMBED, s.n_in);
                char what[80];
                snprintf(what, sizeof what, "attention %d/%d x %d, %d a step, window %d", s.n_head, s.n_kv, s.dim,
                         each, s.window);
                compare(&s, 1e-9, what);
            }
}

/* Many tokens: tiles of several sizes, two products on a tile. */
static tn_val build_gated(tn_graph *g, tn_val x, const sample *s) {
    tn_val gate = tn_g_matmul(g, x, weight(g, s, 1), "gate"), up = tn_g_matmul(g, x, weight(g, s, 2), "up");
    return tn_g_binary(g, TN_OP_MUL, tn_g_unary(g, TN_OP_SILU, gate, "act"), up, "y");
}

static void test_tiles(void **state) {
    (void)state;
    tn_cuda_need_device();
    static const tn_type types[][2] = {
        {TN_TYPE_Q4_K, TN_TYPE_Q4_K}, {TN_TYPE_Q6_K, TN_TYPE_Q2_K}, {TN_TYPE_Q8_0, TN_TYPE_Q4_0}};
    for (size_t t = 0; t < COUNT(types); t++)
        for (int32_t n_out = 200; n_out <= 9000; n_out += 8800) {
            sample s = {.build = build_gated, .n_in = 1280, .n_out = n_out, .steps = {80, 3}, .n_w = 3};
            s.w[0] = tn_make_weight("embd", TN_TYPE_F32, N_EMBED, 1280);
            s.w[1] = tn_make_weight("gate", types[t][0], n_out, 1280);
            s.w[2] = tn_make_weight("up", types[t][1], n_out, 1280);
            char what[80];
            snprintf(what, sizeof what, "tiles of %s and %s, %d columns", tn_type_name((uint32_t)types[t][0]),
                     tn_type_name((uint32_t)types[t][1]), n_out);
            compare(&s, 1e-9, what);
        }
}

/* An argument is a pattern of the tests to run. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_word),
        cmocka_unit_test(test_plan_only),
        cmocka_unit_test(test_compile),
        cmocka_unit_test(test_tile_choice),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_shares),
        cmocka_unit_test(test_attention_tiles),
        cmocka_unit_test(test_tiles),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_shared_expert),
        cmocka_unit_test(test_best),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tn_backend_cuda.close(&tn_cuda_held);
    return failed;
}
