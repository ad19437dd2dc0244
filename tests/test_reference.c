/* Logits of small models of every family against exact ones that llama.cpp computed (data/reference/make.py): with f32
 * activations and cache, near equality; with the defaults (int8 activations, f16 cache), errors like those of llama.cpp's own.
 * Models that are F32 there have no int8 activations: as Q8_0 too, the defaults against f32.
 * Each in one batch, in chunks and token by token, fused and not, on every instruction set. */
#include "tenon.h"

#include "quantized.h"
#include "recorded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 130, N_ROWS = 16, MAX_CASES = 64 };

/* A sequence for a model: what is exact in its last N_ROWS rows, and the NMSE of each row of llama.cpp's own result. */
typedef struct reference {
    char model[64], name[80]; /* the name tells a model's sequences apart */
    int32_t n_vocab, n_tokens, ids[MAX_TOKENS];
    double native[MAX_TOKENS];
    float *exact;
} reference;

static double row_error(const float *got, const float *want, int32_t n) {
    double error = 0, power = 0;
    for (int32_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        error += d * d;
        power += (double)want[i] * (double)want[i];
    }
    return error / power;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *x, int n) {
    double sorted[MAX_TOKENS];
    memcpy(sorted, x, (size_t)n * sizeof *x);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

static double worst(const double *x, int n) {
    double most = 0;
    for (int i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
    return most;
}

static tn_model *open_model(const reference *r, const char *backend, bool q8) {
    char path[400];
    tn_error err = {0};
    tn_model *m;
    tn_model_options options = {.backend = backend, .threads = 2};
    snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, r->model);
    tn_status status = q8 ? tn_open_quantized(&m, r->model, &options, &err) : tn_model_open(&m, path, &options, &err);
    if (status == TN_ERR_UNAVAILABLE) return NULL; /* an instruction set that is not here */
    if (status != TN_OK) fail_msg("%s", err.text);
    return m;
}

static float *run(tn_model *m, const reference *r, bool f32, const char *fuse, int32_t chunk) {
    return tn_run_tokens(m, r->ids, r->n_tokens, r->n_vocab, (tn_run_as){f32, fuse, chunk}, NULL);
}

/* However the tokens are cut, and whatever is fused, the bits are the same. */
static float *run_all_ways(tn_model *m, const reference *r, bool f32) {
    float *whole = run(m, r, f32, "all", r->n_tokens);
    static const struct {
        const char *fuse;
        int32_t chunk;
    } ways[] = {{"all", 7}, {"all", 1}, {"none", MAX_TOKENS}};
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
        float *other = run(m, r, f32, ways[k].fuse, ways[k].chunk);
        assert_memory_equal(whole, other, (size_t)r->n_tokens * (size_t)r->n_vocab * sizeof *other);
        free(other);
    }
    return whole;
}

static void check_exact(tn_model *m, const reference *r, const char *backend) {
    float *got = run_all_ways(m, r, true);
    int32_t n = N_ROWS * r->n_vocab;
    double nmse = row_error(got + (size_t)(r->n_tokens - N_ROWS) * (size_t)r->n_vocab, r->exact, n);
    print_message("%-25s %-9s f32  nmse %.2g\n", r->name, backend, nmse);
    assert_true(nmse <= 1e-6);
    free(got);
}

/* The median row may err 1.25 times as much as llama.cpp's, and one row in ten more than its worst; below 5e-5, what an f16
 * cache is worth, nothing is said. llama.cpp's worst row is that of all it ran, its median that of the same rows. */
static void check_default(tn_model *m, const reference *r, const char *backend) {
    enum { MAX_ABOVE = N_ROWS / 10 };
    const double floor = 5e-5;
    float *got = run_all_ways(m, r, false);
    double error[N_ROWS], native = worst(r->native, r->n_tokens), limit = native > floor ? native : floor;
    int above = 0;
    for (int i = 0; i < N_ROWS; i++) {
        error[i] = row_error(got + (size_t)(r->n_tokens - N_ROWS + i) * (size_t)r->n_vocab,
                             r->exact + (size_t)i * (size_t)r->n_vocab, r->n_vocab);
        above += !(error[i] <= limit);
    }
    double middle = median(r->native + r->n_tokens - N_ROWS, N_ROWS);
    print_message("%-25s %-9s int8 median %.2g (llama.cpp %.2g), worst %.2g (%.2g), %d above\n", r->name, backend,
                  median(error, N_ROWS), middle, worst(error, N_ROWS), native, above);
    assert_true(median(error, N_ROWS) <= (1.25 * middle > floor ? 1.25 * middle : floor));
    assert_true(above <= MAX_ABOVE);
    free(got);
}

static const char *const backends[] = {"cpu:ref", "cpu:neon", "cpu:avx2", "cpu:avx512"};
enum { N_BACKENDS = sizeof backends / sizeof *backends };

static void test_model(void **state) {
    const reference *r = *state;
    for (size_t i = 0; i < N_BACKENDS; i++) {
        tn_model *m = open_model(r, backends[i], false);
        if (!m) continue;
        check_exact(m, r, backends[i]);
        check_default(m, r, backends[i]);
        tn_model_close(&m);
    }
}

/* What int8 activations and an f16 cache are worth in the median row. The weights are random, so that a small error chooses
 * other experts or, where attention is not scaled down, other positions. A third to a half more than was measured. */
static const struct {
    const char *model;
    double median;
} q8_limits[] = {{"qwen35-mtp.F32", 8e-4},
                 {"qwen35moe-a.F32", 4.5e-3},
                 {"gemma3-a.F32", 8e-4},
                 {"gemma4-ple.F32", 9e-3},
                 {"gemma4-moe.F32", 1.5e-3}};

static double q8_limit(const char *model) {
    for (size_t i = 0; i < sizeof q8_limits / sizeof *q8_limits; i++)
        if (!strcmp(model, q8_limits[i].model)) return q8_limits[i].median;
    fail_msg("%s: what may it err as Q8_0?", model);
    return 0;
}

/* The defaults against f32 on the same Q8_0 weights: the median row within its limit, one in ten beyond ten times that. */
static void check_quantized(tn_model *m, const reference *r, const char *backend) {
    float *exact = run(m, r, true, "all", r->n_tokens), *got = run_all_ways(m, r, false);
    double error[MAX_TOKENS], limit = q8_limit(r->model);
    int above = 0;
    for (int32_t i = 0; i < r->n_tokens; i++) {
        size_t at = (size_t)i * (size_t)r->n_vocab;
        error[i] = row_error(got + at, exact + at, r->n_vocab);
        above += !(error[i] <= 10 * limit);
    }
    print_message("%-25s %-9s Q8_0 median %.2g (limit %.2g), worst %.2g, %d above\n", r->name, backend,
                  median(error, r->n_tokens), limit, worst(error, r->n_tokens), above);
    assert_true(median(error, r->n_tokens) <= limit);
    assert_true(above <= r->n_tokens / 10);
    assert_true(median(error, r->n_tokens) > 1e-4); /* more than an f16 cache is worth: activations were int8 */
    free(exact);
    free(got);
}

static void test_quantized(void **state) {
    const reference *r = *state;
    for (size_t i = 0; i < N_BACKENDS; i++) {
        tn_model *m = open_model(r, backends[i], true);
        if (!m) continue;
        check_quantized(m, r, backends[i]);
        tn_model_close(&m);
    }
}

/* ---- the list of models ---- */

static void give_up(const char *file, const char *why) {
    fprintf(stderr, "%s: %s\n", file, why);
    exit(1);
}

static void read_exact(reference *r) {
    r->exact = tn_read_exact(r->name, (size_t)N_ROWS * (size_t)r->n_vocab);
    if (!r->exact) give_up(r->name, "not as many floats as it should have");
}

static void read_sequence(reference *r, const char *model, const char *suffix, const json_t *about) {
    const json_t *tokens = json_object_get(about, "tokens"), *native = json_object_get(about, "native");
    size_t n = json_array_size(tokens);
    if (n < N_ROWS || n > MAX_TOKENS || json_array_size(native) != n)
        give_up("reference.json", "an odd number of tokens");
    *r = (reference){.n_tokens = (int32_t)n};
    snprintf(r->model, sizeof r->model, "%s", model);
    snprintf(r->name, sizeof r->name, "%s%s", model, suffix);
    r->n_vocab = (int32_t)json_integer_value(json_object_get(about, "n_vocab"));
    for (size_t k = 0; k < n; k++) r->ids[k] = (int32_t)json_integer_value(json_array_get(tokens, k));
    for (size_t k = 0; k < n; k++) r->native[k] = json_number_value(json_array_get(native, k));
    read_exact(r);
}

static size_t read_cases(reference *cases) {
    json_error_t err = {0};
    json_t *list = json_load_file(TESTS_DIR "/data/reference/reference.json", 0, &err), *m;
    size_t i, n = 0;
    if (json_array_size(list) == 0 || json_array_size(list) > MAX_CASES / 2) give_up("reference.json", err.text);
    json_array_foreach(list, i, m) {
        const char *name = json_string_value(json_object_get(m, "name"));
        const json_t *more = json_object_get(m, "long");
        read_sequence(&cases[n++], name, "", m);
        if (more) read_sequence(&cases[n++], name, ".long", more);
    }
    json_decref(list);
    return n;
}

int main(void) {
    static reference cases[MAX_CASES];
    static struct CMUnitTest tests[2 * MAX_CASES];
    size_t n = read_cases(cases), n_tests = n;
    for (size_t i = 0; i < n; i++) {
        tests[i] = (struct CMUnitTest){cases[i].name, test_model, NULL, NULL, &cases[i]};
        if (strstr(cases[i].name, ".F32.long"))
            tests[n_tests++] = (struct CMUnitTest){"as Q8_0", test_quantized, NULL, NULL, &cases[i]};
    }
    int failed = _cmocka_run_group_tests("reference", tests, n_tests, NULL, NULL);
    for (size_t i = 0; i < n; i++) free(cases[i].exact);
    return failed;
}
