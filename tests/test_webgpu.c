/* The WebGPU backend, with whatever device there is (a software one will do): every op against the reference on odd shapes
 * and whole small models against exact logits, with each set of features; weights in many bindings; failures that are
 * told, after which the device can be opened again. Skipped where no implementation or no device is found. */
#include "tenon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/webgpu/webgpu.h"
#include "base/mem.h"
#include "verify.h"

static bool everything; /* every model in every way on every set of features, not a part of it in turn */
static const char *const variants[] = {"webgpu:none", "webgpu:f16", "webgpu:subgroups", "webgpu:both"};
enum { N_VARIANTS = 4, N_TOKENS = 48, N_ROWS = 16 };

/* Opens a device; skips the test where there is none. */
static void open_rig(tn_rig *rig, const char *name) {
    tn_error err = {0};
    tn_status status = tn_rig_open(rig, name, 1, &err);
    if (status == TN_ERR_UNAVAILABLE) {
        print_message("skipped: %s\n", err.text);
        skip();
    }
    if (status != TN_OK) fail_msg("%s", err.text);
}

/* ---- ops ---- */

static void write_out(void *data, const char *text, size_t len) {
    (void)data;
    if (len >= 4 && !memcmp(text, "FAIL", 4)) print_message("%.*s", (int)len, text);
}

static void check_ops(const char *variant, uint64_t max_window, const char *const *ops) {
    tn_verify_rigs rigs = {0};
    tn_error err = {0};
    for (; *ops; ops++) {                       /* a device takes its weights once */
        bool half = !everything && !max_window; /* these two share most: each with one set of features */
        if (half && !strcmp(*ops, strcmp(variant, "webgpu:none") ? "matmul_id" : "matmul")) continue;
        tn_report report = {.out = {write_out, NULL}};
        open_rig(&rigs.device, variant);
        open_rig(&rigs.reference, "cpu:ref");
        if (max_window) rigs.device.device->max_window = max_window;
        if (tn_verify_ops(&report, &rigs, *ops, &err) != TN_OK) fail_msg("%s: %s", *ops, err.text);
        assert_true(report.n > 0);
        assert_int_equal(report.n_failed, 0);
        tn_rig_close(&rigs.device);
        tn_rig_close(&rigs.reference);
    }
}

static void test_ops(void **state) {
    static const char *const ops[] = {
        "embed",     "rope_table", "select_rows", "rms_norm", "l2_norm",         "add",       "mul",
        "scale",     "softcap",    "silu",        "gelu",     "gelu_quick",      "sigmoid",   "softplus",
        "softmax",   "quantize",   "matmul",      "rope",     "kv_write",        "attention", "argmax",
        "matmul_id", "top_k",      "expert_sum",  "conv1d",   "gated_delta_net", NULL};
    check_ops(*state, 0, ops);
}

static void check_rule(const char *variant, uint64_t max_window, const char *rule) {
    tn_verify_rigs rigs = {0};
    tn_error err = {0};
    tn_report report = {.out = {write_out, NULL}};
    open_rig(&rigs.device, variant);
    open_rig(&rigs.reference, "cpu:ref");
    if (max_window) rigs.device.device->max_window = max_window;
    if (tn_verify_rules(&report, &rigs, rule, &err) != TN_OK) fail_msg("%s", err.text);
    assert_true(report.n > 0);
    assert_int_equal(report.n_failed, 0);
    tn_rig_close(&rigs.device);
    tn_rig_close(&rigs.reference);
}

/* Rules, fused against unfused and against the reference; all of them take a quarter of an hour on a software device. */
static void test_rules(void **state) {
    static const char *const rules[] = {"group_experts", "route", "conv_act", "delta_net", "attention_quantize"};
    (void)state;
    for (size_t i = 0; i < (everything ? N_VARIANTS : sizeof rules / sizeof *rules); i++)
        check_rule(variants[i % N_VARIANTS], 0, everything ? NULL : rules[i]);
}

/* Bindings of a few kilobytes: weights lie in many windows, matrices in several pieces. */
static void test_small_bindings(void **state) {
    static const char *const ops[] = {"embed", "matmul", "matmul_id", "mul", NULL};
    (void)state;
    check_ops("webgpu", 4096, ops);
    check_rule("webgpu", 4096, "row_append"); /* rows looked up in a table of several pieces, and what follows */
}

/* ---- models ---- */

typedef struct reference {
    char name[64];
    int32_t n_vocab, ids[N_TOKENS];
    float *exact; /* the last N_ROWS rows */
} reference;

static bool read_reference(reference *r, const char *name) {
    json_t *list = json_load_file(TESTS_DIR "/data/reference/reference.json", 0, NULL), *m;
    size_t i;
    char path[600];
    *r = (reference){0};
    snprintf(r->name, sizeof r->name, "%s", name);
    json_array_foreach(list, i, m) {
        const json_t *tokens = json_object_get(m, "tokens");
        if (strcmp(json_string_value(json_object_get(m, "name")), name)) continue;
        r->n_vocab = (int32_t)json_integer_value(json_object_get(m, "n_vocab"));
        for (size_t k = 0; k < N_TOKENS; k++) r->ids[k] = (int32_t)json_integer_value(json_array_get(tokens, k));
    }
    json_decref(list);
    size_t n = (size_t)N_ROWS * (size_t)r->n_vocab;
    snprintf(path, sizeof path, "%s/data/reference/%s.exact", TESTS_DIR, name);
    FILE *f = fopen(path, "rb");
    r->exact = malloc(n * sizeof *r->exact + 1);
    bool ok = f && n && r->exact && fread(r->exact, sizeof *r->exact, n, f) == n;
    if (f) fclose(f);
    return ok;
}

/* Skips the test where there is no device, before it holds anything. */
static void need_device(void) {
    tn_rig rig;
    open_rig(&rig, "webgpu");
    tn_rig_close(&rig);
}

static tn_model *open_model(const char *name, const char *backend) {
    char path[600];
    tn_error err = {0};
    tn_model *m;
    snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, name);
    tn_status status = tn_model_open(&m, path, &(tn_model_options){.backend = backend}, &err);
    if (status == TN_ERR_UNAVAILABLE) {
        print_message("skipped: %s\n", err.text);
        skip();
    }
    if (status != TN_OK) fail_msg("%s", err.text);
    return m;
}

static float *run(tn_model *m, const reference *r, bool f32, const char *fuse, int32_t chunk, int32_t *launches) {
    tn_session *s;
    tn_error err = {0};
    tn_session_info info;
    tn_session_options options = {.n_ctx = N_TOKENS,
                                  .kv_type = f32 ? TN_KV_F32 : TN_KV_F16,
                                  .act = f32 ? TN_ACT_F32 : TN_ACT_INT8,
                                  .fuse = fuse,
                                  .all_logits = true};
    float *all = malloc((size_t)N_TOKENS * (size_t)r->n_vocab * sizeof *all);
    assert_non_null(all);
    if (tn_session_open(&s, m, &options, &err) != TN_OK) fail_msg("%s", err.text);
    for (int32_t i = 0; i < N_TOKENS; i += chunk) {
        int32_t n = N_TOKENS - i < chunk ? N_TOKENS - i : chunk;
        if (tn_step(s, &(tn_batch){.ids = r->ids + i, .n_tokens = n}, &err) != TN_OK) fail_msg("%s", err.text);
        for (int32_t k = 0; k < n; k++)
            memcpy(all + (size_t)(i + k) * (size_t)r->n_vocab, tn_logits(s, k), (size_t)r->n_vocab * sizeof *all);
    }
    tn_session_get_info(s, &info);
    if (launches) *launches = info.launches_decode;
    tn_session_close(&s);
    return all;
}

static double error_of(const float *all, const reference *r) {
    const float *got = all + (size_t)(N_TOKENS - N_ROWS) * (size_t)r->n_vocab;
    double error = 0, power = 0;
    for (int32_t i = 0; i < N_ROWS * r->n_vocab; i++) {
        double d = (double)got[i] - (double)r->exact[i];
        error += d * d;
        power += (double)r->exact[i] * (double)r->exact[i];
    }
    return error / power;
}

/* Within 1e-6 with f32 activations and cache; int8 and f16 as far off as the CPU's reference is, by a fifth. In all ways, or
 * every second one. */
static void check_model(const reference *r, const char *backend, size_t first, size_t step) {
    static const struct {
        const char *fuse;
        int32_t chunk;
    } ways[] = {{"all", 1}, {"all", N_TOKENS}, {"none", 1}, {"none", 7}};
    tn_model *m = open_model(r->name, backend), *cpu = open_model(r->name, "cpu:ref");
    float *want = run(cpu, r, false, "all", N_TOKENS, NULL);
    double bound = 1.2 * error_of(want, r) + 1e-6;
    free(want);
    for (size_t k = first; k < sizeof ways / sizeof *ways; k += step) {
        float *f32 = run(m, r, true, ways[k].fuse, ways[k].chunk, NULL);
        float *int8 = run(m, r, false, ways[k].fuse, ways[k].chunk, NULL);
        double e = error_of(f32, r), q = error_of(int8, r);
        if (!(e <= 1e-6) || !(q <= bound))
            fail_msg("%s on %s, fuse %s, by %d: f32 %.3g, int8 %.3g (bound %.3g)", r->name, backend, ways[k].fuse,
                     ways[k].chunk, e, q, bound);
        free(f32);
        free(int8);
    }
    tn_model_close(&m);
    tn_model_close(&cpu);
}

static void check_named(const char *name, size_t i) {
    reference r;
    if (!read_reference(&r, name)) fail_msg("no reference of %s", name);
    for (size_t v = 0; v < N_VARIANTS; v++)
        if (everything || v == i % N_VARIANTS)
            check_model(&r, variants[v], everything ? 0 : i / N_VARIANTS % 2, everything ? 1 : 2);
    free(r.exact);
}

static void test_models(void **state) {
    static const char *const names[] = {
        "llama-a.F32",       "llama-a.F16",         "llama-a.BF16",        "llama-q.Q4_0-pure",
        "llama-q.Q4_1-pure", "llama-q.Q5_0-pure",   "llama-q.Q5_1-pure",   "llama-q.Q8_0-pure",
        "llama-q.Q2_K-pure", "llama-q.Q3_K-pure",   "llama-q.Q4_K-pure",   "llama-q.Q5_K-pure",
        "llama-q.Q6_K-pure", "llama-q.IQ4_NL-pure", "llama-q.IQ4_XS-pure", "llama-ropefreqs.F32"};
    (void)state;
    need_device();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_named(names[i], i);
}

static void test_families(void **state) {
    static const char *const names[] = {"qwen3-q.Q4_K_M", "qwen3moe-a.Q8_0", "qwen35-a.Q8_0", "qwen35moe-a.F32",
                                        "gemma3-a.F32",   "gemma4-ple.F32",  "gemma4-moe.F32"};
    (void)state;
    need_device();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_named(names[i], i);
}

/* ---- sequences ---- */

enum { LONG = 420, SHORT = 9, STEPS = 4 };

static int32_t token(int32_t seq, int32_t i, int32_t n_vocab) {
    return (i * 37 + seq * 11 + i * i % 7) % n_vocab;
}

static void feed(tn_session *s, int32_t seq, int32_t first, int32_t n, int32_t n_vocab) {
    int32_t ids[LONG], seqs[LONG];
    tn_error err = {0};
    for (int32_t i = 0; i < n; i++) ids[i] = token(seq, first + i, n_vocab), seqs[i] = seq;
    if (tn_step(s, &(tn_batch){.ids = ids, .seqs = seqs, .n_tokens = n}, &err)) fail_msg("%s", err.text);
}

/* A long sequence beside a short one, whose place another one had before it: the rows of their last steps together. */
static float *two_sequences(const char *name, const char *backend, tn_kv_type kv, int32_t length, int32_t *n) {
    tn_model *m = open_model(name, backend);
    tn_model_info info;
    tn_session *s;
    tn_error err = {0};
    tn_session_options o = {.n_ctx = 512, .n_seq = 2, .n_ubatch = 128, .kv_type = kv, .act = TN_ACT_F32};
    tn_model_get_info(m, &info);
    if (tn_session_open(&s, m, &o, &err) != TN_OK) fail_msg("%s: %s", name, err.text);
    float *rows = malloc((size_t)STEPS * 2 * (size_t)info.n_vocab * sizeof *rows);
    assert_non_null(rows);
    feed(s, 1, 50, 20, info.n_vocab);
    feed(s, 0, 0, length, info.n_vocab);
    assert_int_equal(tn_sequence_cut(s, 1, 0, &err), TN_OK);
    feed(s, 1, 0, SHORT, info.n_vocab);
    *n = 0;
    for (int32_t i = 0; i < STEPS; i++) {
        int32_t ids[] = {token(0, length + i, info.n_vocab), token(1, SHORT + i, info.n_vocab)}, seqs[] = {0, 1};
        if (tn_step(s, &(tn_batch){.ids = ids, .seqs = seqs, .n_tokens = 2}, &err)) fail_msg("%s", err.text);
        for (int32_t k = 0; k < 2; k++, *n += info.n_vocab)
            memcpy(rows + *n, tn_logits(s, k), (size_t)info.n_vocab * sizeof *rows);
    }
    tn_session_close(&s);
    tn_model_close(&m);
    return rows;
}

/* Contexts short and long enough to be split, with every type of cache; recurrent states; experts. */
static void test_sequences(void **state) {
    static const struct {
        const char *name;
        tn_kv_type kv;
        int32_t length;
        double bound;
    } cases[] = {{"llama-a.F32", TN_KV_F32, LONG - STEPS, 1e-10},
                 {"llama-a.F32", TN_KV_F16, LONG - STEPS, 1e-7},
                 {"qwen3-q.Q4_K_M", TN_KV_Q8_0, LONG - STEPS, 1e-5},
                 {"llama-a.F32", TN_KV_F32, 254, 1e-10},
                 {"qwen35-a.Q8_0", TN_KV_F32, 300, 1e-9},
                 {"gemma4-moe.F32", TN_KV_F32, 300, 1e-9}};
    (void)state;
    need_device();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t n;
        double error = 0, power = 0;
        float *want = two_sequences(cases[i].name, "cpu:ref", cases[i].kv, cases[i].length, &n);
        float *got = two_sequences(cases[i].name, variants[i % N_VARIANTS], cases[i].kv, cases[i].length, &n);
        for (int32_t k = 0; k < n; k++) {
            error += ((double)got[k] - (double)want[k]) * ((double)got[k] - (double)want[k]);
            power += (double)want[k] * (double)want[k];
        }
        free(want);
        free(got);
        if (!(error <= cases[i].bound * power))
            fail_msg("%s after %d tokens on %s: %.3g (bound %.3g)", cases[i].name, cases[i].length,
                     variants[i % N_VARIANTS], error / power, cases[i].bound);
    }
}

static void test_features(void **state) {
    reference r;
    need_device();
    if (!read_reference(&r, "llama-q.Q4_K-pure")) fail_msg("no reference");
    check_model(&r, *state, 0, 1);
    free(r.exact);
}

/* The same steps give the same bits; fusing leaves five launches a layer. */
static void test_repeats(void **state) {
    (void)state;
    reference r;
    int32_t fused, plain;
    need_device();
    if (!read_reference(&r, "llama-a.F32")) fail_msg("no reference");
    tn_model *m = open_model(r.name, "webgpu");
    tn_model_info info;
    tn_model_get_info(m, &info);
    float *a = run(m, &r, true, "all", 1, &fused), *b = run(m, &r, true, "all", 1, NULL);
    float *c = run(m, &r, true, "none", 1, &plain);
    assert_memory_equal(a, b, (size_t)N_TOKENS * (size_t)r.n_vocab * sizeof *a);
    assert_in_range(fused, 1, 5 * info.n_layer + 3); /* embed, rope_table; norm + logits */
    assert_true(plain > 3 * fused);
    free(a);
    free(b);
    free(c);
    free(r.exact);
    tn_model_close(&m);
}

/* ---- steps ahead ---- */

enum { N_GREEDY = 20 };

static int32_t argmax(const float *x, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

typedef struct tokens {
    int32_t ids[N_GREEDY], n;
} tokens;

static bool note(void *data, int32_t id) {
    tokens *t = data;
    t->ids[t->n++] = id;
    return true;
}

static tn_session *open_session(tn_model *m) {
    tn_session *s;
    tn_error err = {0};
    if (tn_session_open(&s, m, &(tn_session_options){.n_ctx = N_TOKENS}, &err) != TN_OK) fail_msg("%s", err.text);
    return s;
}

/* The device's choice is that of the logits it gives; tokens that stay on the device are those that come back. */
static void test_greedy(void **state) {
    (void)state;
    tn_error err = {0};
    tokens one = {.ids = {5}}, ahead = {.n = 0};
    need_device();
    tn_model *m = open_model("llama-q.Q4_K-pure", "webgpu");
    tn_model_info info;
    tn_model_get_info(m, &info);
    tn_session *s = open_session(m);
    for (int32_t i = 0, id = 5; i < N_GREEDY; i++) {
        if (tn_step(s, &(tn_batch){.ids = &id, .n_tokens = 1}, &err) != TN_OK) fail_msg("%s", err.text);
        id = argmax(tn_logits(s, 0), info.n_vocab);
        assert_int_equal(tn_chosen(s, 0), id);
        note(&one, id);
    }
    assert_int_equal(tn_sequence_cut(s, 0, 0, &err), TN_OK);
    tn_greedy greedy = {.id = 5, .n = N_GREEDY, .each = note, .data = &ahead};
    if (tn_step_greedy(s, &greedy, &err) != TN_OK) fail_msg("%s", err.text);
    assert_int_equal(ahead.n, N_GREEDY);
    assert_memory_equal(ahead.ids, one.ids, sizeof one.ids);
    tn_session_close(&s);
    tn_model_close(&m);
}

/* Launches run one after the other, each for some time; a timed step is like any other. */
static void test_times(void **state) {
    (void)state;
    tn_error err = {0};
    int32_t ids[] = {5, 9, 44};
    need_device();
    tn_model *m = open_model("llama-a.F32", "webgpu");
    tn_session *s = open_session(m);
    tn_session_info info;
    tn_session_get_info(s, &info);
    tn_launch_time *times = calloc((size_t)info.launches_prefill, sizeof *times);
    if (tn_step_timed(s, &(tn_batch){.ids = ids, .n_tokens = 3}, times, &err) != TN_OK) fail_msg("%s", err.text);
    assert_int_equal(tn_sequence_length(s, 0), 3);
    for (int32_t i = 0; i < info.launches_prefill; i++) {
        assert_true(times[i].end > times[i].start && times[i].end < 60);
        assert_true(times[i].start >= (i ? times[i - 1].end : 0));
    }
    free(times);
    tn_session_close(&s);
    tn_model_close(&m);
}

/* ---- failures ---- */

static void test_variants(void **state) {
    (void)state;
    tn_rig rig;
    tn_error err = {0};
    open_rig(&rig, "webgpu");
    tn_rig_close(&rig);
    assert_int_equal(tn_rig_open(&rig, "webgpu:fast", 1, &err), TN_ERR_USAGE);
    assert_non_null(strstr(err.text, "subgroups"));
    assert_null(rig.device);
}

/* A library by its path: one that is not there, one that is another. */
static void test_library(void **state) {
    (void)state;
    tn_rig rig;
    tn_error err = {0};
    tn_device_options options = {.webgpu_lib = "/nowhere/libwebgpu.so"};
    assert_int_equal(tn_rig_open_with(&rig, "webgpu", &options, &err), TN_ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, "/nowhere/libwebgpu.so"));
    options.webgpu_lib = "libm.so.6";
    assert_int_equal(tn_rig_open_with(&rig, "webgpu", &options, &err), TN_ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, "has no wgpu"));
    open_rig(&rig, "webgpu");
    tn_rig_close(&rig);
}

/* A device that is lost fails every call from then on; another one can be opened. */
static void test_lost(void **state) {
    (void)state;
    tn_rig rig;
    tn_error err = {0};
    WGPUBuffer buffer;
    need_device();
    tn_model *m = open_model("llama-a.F32", "webgpu");
    tn_session *s = open_session(m);
    int32_t id = 5;
    if (tn_step(s, &(tn_batch){.ids = &id, .n_tokens = 1}, &err) != TN_OK) fail_msg("%s", err.text);
    open_rig(&rig, "webgpu");
    rig.device->lost = true; /* as its callback would set it */
    assert_int_equal(tn_webgpu_buffer(rig.device, &buffer, 64, WGPUBufferUsage_Storage, "values", &err),
                     TN_ERR_RESOURCES);
    assert_non_null(strstr(err.text, "lost"));
    assert_null(buffer);
    tn_rig_close(&rig);
    if (tn_step(s, &(tn_batch){.ids = &id, .n_tokens = 1}, &err) != TN_OK) fail_msg("%s", err.text);
    tn_session_close(&s);
    tn_model_close(&m);
}

static void test_bad_shader(void **state) {
    (void)state;
    tn_rig rig;
    tn_error err = {0};
    WGPUComputePipeline pipeline;
    open_rig(&rig, "webgpu");
    assert_int_equal(tn_webgpu_pipeline_get(rig.device, "fn main() {\n    let x = nothing;\n}\n", 0, &pipeline, &err),
                     TN_ERR_INTERNAL);
    assert_non_null(strstr(err.text, "nothing")); /* the line, with its number */
    assert_non_null(strstr(err.text, ":2:"));
    assert_int_equal(tn_webgpu_check(rig.device, "anything", &err), TN_OK); /* told once */
    tn_rig_close(&rig);
}

static void test_too_large(void **state) {
    (void)state;
    tn_rig rig;
    tn_error err = {0};
    tn_memory *memory;
    WGPUBuffer buffer;
    open_rig(&rig, "webgpu");
    tn_state_desc cache = {.n_kv = 8, .k_dim = 128, .v_dim = 128};
    tn_memory_desc desc = {.states = &cache, .n_states = 1, .n_pages = 1 << 24, .n_seq = 1, .arena_bytes = 4096};
    assert_int_equal(rig.backend->make_memory(rig.device, &desc, &memory, &err), TN_ERR_RESOURCES);
    assert_non_null(strstr(err.text, "caches"));
    assert_null(memory);
    assert_int_equal(
        tn_webgpu_buffer(rig.device, &buffer, UINT64_C(1) << 60, WGPUBufferUsage_Storage, "giants", &err),
        TN_ERR_RESOURCES);
    assert_non_null(strstr(err.text, "giants"));
    desc.n_pages = 1; /* and the device is as good as before */
    if (rig.backend->make_memory(rig.device, &desc, &memory, &err) != TN_OK) fail_msg("%s", err.text);
    rig.backend->free_memory(rig.device, &memory);
    tn_rig_close(&rig);
}

/* Every allocation of opening a model and a session fails once, in turn (with gaps that grow). */
static void test_no_memory(void **state) {
    (void)state;
    char path[600];
    tn_rig rig;
    open_rig(&rig, "webgpu");
    tn_rig_close(&rig);
    snprintf(path, sizeof path, "%s/reference/llama-q.Q4_K-pure.gguf", TESTS_DATA_BUILD);
    int failures = 0;
    for (long n = 0;; n += 1 + n / 12) {
        tn_model *m = NULL;
        tn_session *s = NULL;
        tn_error err = {0};
        tn_alloc_fail_after(n);
        tn_status status = tn_model_open(&m, path, &(tn_model_options){.backend = "webgpu"}, &err);
        if (status == TN_OK) status = tn_session_open(&s, m, &(tn_session_options){.n_ctx = 64}, &err);
        tn_alloc_fail_after(-1);
        tn_session_close(&s);
        tn_model_close(&m);
        if (status == TN_OK) break;
        failures++;
        if (status != TN_ERR_RESOURCES) fail_msg("allocation %ld: %s", n, err.text);
    }
    assert_true(failures > 20);
}

/* test_webgpu [all] */
int main(int argc, char **argv) {
    everything = argc > 1 && !strcmp(argv[1], "all");
    struct CMUnitTest tests[32] = {
        cmocka_unit_test(test_variants),  cmocka_unit_test(test_bad_shader), cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_repeats),   cmocka_unit_test(test_models),     cmocka_unit_test(test_small_bindings),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_greedy),     cmocka_unit_test(test_times),
        cmocka_unit_test(test_families),  cmocka_unit_test(test_sequences),  cmocka_unit_test(test_rules),
        cmocka_unit_test(test_library),   cmocka_unit_test(test_lost)};
    size_t n = 14;
    for (int i = 0; i < N_VARIANTS; i++) { /* f16 changes no op's shader: its ops are those of "none" and "both" */
        if (i % 3 == 0)
            tests[n++] = (struct CMUnitTest){variants[i], test_ops, NULL, NULL, (void *)(uintptr_t)variants[i]};
        tests[n++] = (struct CMUnitTest){variants[i], test_features, NULL, NULL, (void *)(uintptr_t)variants[i]};
    }
    return _cmocka_run_group_tests("webgpu", tests, n, NULL, NULL);
}
