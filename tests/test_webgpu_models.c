/* Whole small models on the WebGPU backend, with whatever device there is (a software one will do), against exact logits: families,
 * block types, sequences side by side, long contexts, greedy steps ahead. Takes one set of features at a time:
 *
 *     test_webgpu_models [none|f16|subgroups|both [all]]
 *
 * Without "all" each model and way is one set's. Skipped where no implementation or no device is found. */
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

#include "recorded.h"
#include "webgpu_rig.h"

static bool everything;
static int first_set, last_set; /* of features, that are tested here */
enum { N_TOKENS = 48, N_ROWS = 16 };

/* ---- models ---- */

typedef struct reference {
    char name[64];
    int32_t n_vocab, ids[N_TOKENS];
    float *exact; /* the last N_ROWS rows */
} reference;

static bool read_reference(reference *r, const char *name) {
    json_t *list = json_load_file(TESTS_DIR "/data/reference/reference.json", 0, NULL), *m;
    size_t i;
    *r = (reference){0};
    snprintf(r->name, sizeof r->name, "%s", name);
    json_array_foreach(list, i, m) {
        const json_t *tokens = json_object_get(m, "tokens");
        if (strcmp(json_string_value(json_object_get(m, "name")), name)) continue;
        r->n_vocab = (int32_t)json_integer_value(json_object_get(m, "n_vocab"));
        for (size_t k = 0; k < N_TOKENS; k++) r->ids[k] = (int32_t)json_integer_value(json_array_get(tokens, k));
    }
    json_decref(list);
    r->exact = tn_read_exact(name, (size_t)N_ROWS * (size_t)r->n_vocab);
    return r->exact != NULL;
}

static float *run(tn_model *m, const reference *r, bool f32, const char *fuse, int32_t chunk, int32_t *launches) {
    return tn_run_tokens(m, r->ids, N_TOKENS, r->n_vocab, (tn_run_as){f32, fuse, chunk}, launches);
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
    tn_model *m = tn_webgpu_open_model(r->name, backend), *cpu = tn_webgpu_open_model(r->name, "cpu:ref");
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
    for (int v = first_set; v <= last_set; v++)
        if (everything || v == (int)(i % TN_WEBGPU_SETS))
            check_model(&r, tn_webgpu_sets[v], everything ? 0 : i / TN_WEBGPU_SETS % 2, everything ? 1 : 2);
    free(r.exact);
}

static void test_models(void **state) {
    static const char *const names[] = {
        "llama-a.F32",       "llama-a.F16",         "llama-a.BF16",        "llama-q.Q4_0-pure",
        "llama-q.Q4_1-pure", "llama-q.Q5_0-pure",   "llama-q.Q5_1-pure",   "llama-q.Q8_0-pure",
        "llama-q.Q2_K-pure", "llama-q.Q3_K-pure",   "llama-q.Q4_K-pure",   "llama-q.Q5_K-pure",
        "llama-q.Q6_K-pure", "llama-q.IQ4_NL-pure", "llama-q.IQ4_XS-pure", "llama-ropefreqs.F32"};
    (void)state;
    tn_webgpu_need("webgpu");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_named(names[i], i);
}

static void test_families(void **state) {
    static const char *const names[] = {"qwen3-q.Q4_K_M", "qwen3moe-a.Q8_0", "qwen35-a.Q8_0", "qwen35moe-a.F32",
                                        "gemma3-a.F32",   "gemma4-ple.F32",  "gemma4-moe.F32"};
    (void)state;
    tn_webgpu_need("webgpu");
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
    tn_model *m = tn_webgpu_open_model(name, backend);
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
    tn_webgpu_need("webgpu");
    for (size_t k = 0; k < sizeof cases / sizeof *cases * TN_WEBGPU_SETS; k++) {
        size_t i = k / TN_WEBGPU_SETS;
        int set = k % TN_WEBGPU_SETS;
        if (set < first_set || set > last_set || !(everything || i % TN_WEBGPU_SETS == (size_t)set)) continue;
        int32_t n;
        double error = 0, power = 0;
        float *want = two_sequences(cases[i].name, "cpu:ref", cases[i].kv, cases[i].length, &n);
        float *got = two_sequences(cases[i].name, tn_webgpu_sets[set], cases[i].kv, cases[i].length, &n);
        for (int32_t j = 0; j < n; j++) {
            error += ((double)got[j] - (double)want[j]) * ((double)got[j] - (double)want[j]);
            power += (double)want[j] * (double)want[j];
        }
        free(want);
        free(got);
        if (!(error <= cases[i].bound * power))
            fail_msg("%s after %d tokens on %s: %.3g (bound %.3g)", cases[i].name, cases[i].length,
                     tn_webgpu_sets[set], error / power, cases[i].bound);
    }
}

/* One model in all ways on every set. */
static void test_features(void **state) {
    (void)state;
    reference r;
    tn_webgpu_need("webgpu");
    if (!read_reference(&r, "llama-q.Q4_K-pure")) fail_msg("no reference");
    for (int v = first_set; v <= last_set; v++) check_model(&r, tn_webgpu_sets[v], 0, 1);
    free(r.exact);
}

/* The same steps give the same bits; fusing leaves five launches a layer. */
static void test_repeats(void **state) {
    (void)state;
    reference r;
    int32_t fused, plain;
    tn_webgpu_need("webgpu");
    if (!read_reference(&r, "llama-a.F32")) fail_msg("no reference");
    tn_model *m = tn_webgpu_open_model(r.name, tn_webgpu_sets[last_set]);
    tn_model_info info;
    tn_model_get_info(m, &info);
    float *a = run(m, &r, true, "all", 1, &fused), *b = run(m, &r, true, "all", 1, NULL);
    float *c = run(m, &r, true, "none", 1, &plain);
    assert_memory_equal(a, b, (size_t)N_TOKENS * (size_t)r.n_vocab * sizeof *a);
    assert_in_range(fused, 1, 5 * info.n_layer + 4); /* embed, rope_table; norm + logits; chosen, best */
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
    tn_webgpu_need("webgpu");
    tn_model *m = tn_webgpu_open_model("llama-q.Q4_K-pure", tn_webgpu_sets[last_set]);
    tn_model_info info;
    tn_model_get_info(m, &info);
    tn_session *s = open_session(m);
    for (int32_t i = 0, id = 5; i < N_GREEDY; i++) {
        tn_batch batch = {.ids = &id, .n_tokens = 1, .want = TN_WANT_LOGITS | TN_WANT_CHOSEN};
        if (tn_step(s, &batch, &err) != TN_OK) fail_msg("%s", err.text);
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
    if (last_set == 0) return; /* no features, no timestamps */
    tn_error err = {0};
    int32_t ids[] = {5, 9, 44};
    tn_webgpu_need("webgpu");
    tn_model *m = tn_webgpu_open_model("llama-a.F32", tn_webgpu_sets[last_set]);
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

int main(int argc, char **argv) {
    int set = argc > 1 ? tn_webgpu_set(argv[1]) : -1;
    first_set = set < 0 ? 0 : set;
    last_set = set < 0 ? TN_WEBGPU_SETS - 1 : set;
    everything = argc > 2 && !strcmp(argv[2], "all");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features),  cmocka_unit_test(test_models), cmocka_unit_test(test_families),
        cmocka_unit_test(test_sequences), cmocka_unit_test(test_greedy), cmocka_unit_test(test_times),
        cmocka_unit_test(test_repeats),
    };
    return cmocka_run_group_tests_name("webgpu models", tests, NULL, NULL);
}
