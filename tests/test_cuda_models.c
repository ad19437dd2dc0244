/* Whole models on a CUDA device: against exact logits, fused against unfused, the same bits twice, sequences beside each other,
 * and what fails. Most of the time goes into compiling, so shares of the models may be run beside each other:
 *
 *     test_cuda_models [PATTERN of tests [SHARE SHARES]]
 *
 * Without a device each is skipped. */
#include "backend/cuda/cuda.h"
#include "cuda_rig.h"
#include "engine.h"
#include "recorded.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static size_t share, shares = 1; /* of the models */

/* ---- models ---- */

enum { N_TOKENS = 48, N_ROWS = 16 };

typedef struct exact {
    char name[64];
    int32_t n_vocab, ids[N_TOKENS];
    double native[N_TOKENS]; /* errors of llama.cpp's own rows */
    float *rows;
} exact;

static void read_exact(exact *e, const json_t *m) {
    snprintf(e->name, sizeof e->name, "%s", json_string_value(json_object_get(m, "name")));
    e->n_vocab = (int32_t)json_integer_value(json_object_get(m, "n_vocab"));
    for (size_t k = 0; k < N_TOKENS; k++)
        e->ids[k] = (int32_t)json_integer_value(json_array_get(json_object_get(m, "tokens"), k));
    for (size_t k = 0; k < N_TOKENS; k++)
        e->native[k] = json_number_value(json_array_get(json_object_get(m, "native"), k));
    e->rows = tn_read_exact(e->name, (size_t)N_ROWS * (size_t)e->n_vocab);
    assert_non_null(e->rows);
}

static float *run_model(tn_model *m, const exact *e, bool f32, const char *fuse, int32_t chunk) {
    return tn_run_tokens(m, e->ids, N_TOKENS, e->n_vocab, (tn_run_as){f32, fuse, chunk}, NULL);
}

static tn_model *open_model(const char *name) {
    char path[400];
    tn_model *m;
    tn_error err = {0};
    snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, name);
    if (tn_model_open(&m, path, &(tn_model_options){.backend = "cuda"}, &err) != TN_OK) fail_msg("%s", err.text);
    return m;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *x) {
    double sorted[N_ROWS];
    memcpy(sorted, x, sizeof sorted);
    qsort(sorted, N_ROWS, sizeof *sorted, by_value);
    return (sorted[N_ROWS / 2 - 1] + sorted[N_ROWS / 2]) / 2;
}

/* The errors of the last rows against llama.cpp's own: the median may be 1.25 times as much, and one row may err more than
 * its worst (another expert chosen is another row); below 5e-5 nothing is said. Returns the median. */
static double check_int8(const exact *e, const float *rows) {
    const double floor = 5e-5;
    double error[N_ROWS], worst = floor, middle = 1.25 * median(e->native + N_TOKENS - N_ROWS);
    int above = 0;
    for (int i = 0; i < N_TOKENS; i++) worst = fmax(worst, e->native[i]);
    for (int i = 0; i < N_ROWS; i++) {
        size_t at = (size_t)i * (size_t)e->n_vocab;
        error[i] = tn_nmse(rows + at, e->rows + at, (size_t)e->n_vocab);
        above += !(error[i] <= worst);
    }
    if (above > 1 || !(median(error) <= fmax(middle, floor)))
        fail_msg("%s: int8 errs by %g, %d rows above %g", e->name, median(error), above, worst);
    return median(error);
}

static void check_model(const exact *e) {
    tn_model *m = open_model(e->name);
    size_t n = (size_t)N_TOKENS * (size_t)e->n_vocab, skip_rows = (size_t)(N_TOKENS - N_ROWS) * (size_t)e->n_vocab;
    static const int32_t chunks[] = {N_TOKENS, 7, 1};
    double f32 = 0, fused = 0, int8 = 0;
    for (size_t i = 0; i < COUNT(chunks); i++) {
        float *a = run_model(m, e, true, "all", chunks[i]);
        float *b = run_model(m, e, true, "none", chunks[i]);
        float *c = run_model(m, e, false, "all", chunks[i]), *d = run_model(m, e, false, "all", chunks[i]);
        f32 = fmax(f32, tn_nmse(a + skip_rows, e->rows, n - skip_rows));
        fused = fmax(fused, tn_nmse(a, b, n));
        int8 = fmax(int8, check_int8(e, c + skip_rows));
        assert_memory_equal(c, d, n * sizeof *c);
        free(a), free(b), free(c), free(d);
    }
    print_message("%-22s f32 %.2g, fused against unfused %.2g, int8 median %.2g (llama.cpp %.2g)\n", e->name, f32,
                  fused, int8, median(e->native + N_TOKENS - N_ROWS));
    assert_true(f32 <= 1e-6 && fused <= 1e-6);
    tn_model_close(&m);
}

static void test_models(void **state) {
    (void)state;
    tn_cuda_need_device();
    json_t *list = json_load_file(TESTS_DIR "/data/reference/reference.json", 0, NULL);
    assert_true(json_array_size(list) > 0);
    for (size_t i = share; i < json_array_size(list); i += shares) {
        exact e;
        read_exact(&e, json_array_get(list, i));
        check_model(&e);
        free(e.rows);
    }
    json_decref(list);
}

/* ---- sequences ---- */

/* Logits after the text, as the only sequence or as the second beside another one, in one batch and then token by token. */
static void run_text(tn_model *m, const exact *e, bool beside, float *logits) {
    enum { TAIL = 4 };
    tn_session *s;
    tn_error err = {0};
    tn_session_options options = {.n_ctx = 128, .n_seq = 2, .n_ubatch = 32, .act = TN_ACT_F32, .kv_type = TN_KV_F32};
    int32_t ids[2 * N_TOKENS], seqs[2 * N_TOKENS], n = 0;
    if (tn_session_open(&s, m, &options, &err) != TN_OK) fail_msg("%s", err.text);
    for (int32_t i = 0; i < N_TOKENS - TAIL; i++) {
        if (beside) ids[n] = e->ids[N_TOKENS - 1 - i], seqs[n++] = 0;
        ids[n] = e->ids[i], seqs[n++] = beside;
    }
    if (tn_step(s, &(tn_batch){.ids = ids, .seqs = seqs, .n_tokens = n}, &err) != TN_OK) fail_msg("%s", err.text);
    for (int32_t i = N_TOKENS - TAIL; i < N_TOKENS; i++) {
        int32_t pair[] = {e->ids[i], e->ids[N_TOKENS - 1 - i]}, order[] = {beside, 0};
        if (tn_step(s, &(tn_batch){.ids = pair, .seqs = order, .n_tokens = 1 + beside}, &err) != TN_OK)
            fail_msg("%s", err.text);
    }
    memcpy(logits, tn_logits(s, 0), (size_t)e->n_vocab * sizeof *logits);
    tn_session_close(&s);
}

static void test_sequences(void **state) {
    (void)state;
    tn_cuda_need_device();
    static const char *const names[] = {"llama-a.F32", "qwen3moe-a.Q8_0", "qwen35-a.Q8_0", "qwen35moe-a.F32",
                                        "gemma4-moe.F32"};
    json_t *list = json_load_file(TESTS_DIR "/data/reference/reference.json", 0, NULL);
    for (size_t i = 0; i < json_array_size(list); i++) {
        exact e;
        bool wanted = false;
        read_exact(&e, json_array_get(list, i));
        for (size_t k = 0; k < COUNT(names); k++) wanted |= !strcmp(e.name, names[k]);
        if (wanted) {
            float *alone = malloc((size_t)e.n_vocab * sizeof *alone),
                  *beside = malloc((size_t)e.n_vocab * sizeof *beside);
            tn_model *m = open_model(e.name);
            run_text(m, &e, false, alone);
            run_text(m, &e, true, beside);
            double error = tn_nmse(beside, alone, (size_t)e.n_vocab);
            print_message("%-22s beside another sequence against alone %.2g\n", e.name, error);
            assert_true(error <= 1e-9);
            tn_model_close(&m);
            free(alone), free(beside);
        }
        free(e.rows);
    }
    json_decref(list);
}

/* ---- failures on a device ---- */

static void test_out_of_memory(void **state) {
    (void)state;
    tn_cuda_need_device();
    uint64_t p;
    tn_error err = {0};
    assert_int_equal(tn_cuda_held->cu.context_set(tn_cuda_held->context), 0);
    assert_int_equal(tn_cuda_alloc(tn_cuda_held, (size_t)1 << 46, "a test", &p, &err), TN_ERR_RESOURCES);
    assert_true(strstr(err.text, "out of memory: a test: 67108864.0 MiB needed") && strstr(err.text, "MiB free"));
}

/* The last test: nothing can be run in the process after it. A page table that points nowhere makes a kernel fail. */
static void test_lost(void **state) {
    (void)state;
    tn_cuda_need_device();
    tn_model *m = open_model("llama-a.F32");
    tn_session *s;
    tn_error err = {0};
    int32_t id = 1;
    assert_int_equal(tn_session_open(&s, m, &(tn_session_options){.n_ctx = 64}, &err), TN_OK);
    tn_batch batch = {.ids = &id, .n_tokens = 1};
    assert_int_equal(tn_step(s, &batch, &err), TN_OK);
    s->pages[0] = 1 << 28;
    assert_int_equal(tn_step(s, &batch, &err), TN_ERR_RESOURCES);
    assert_true(!strncmp(err.text, "cuda: a step failed: ", 21));
    assert_int_equal(tn_step(s, &batch, &err), TN_ERR_RESOURCES);
    assert_non_null(strstr(err.text, "the device was lost: cuda: a step failed: "));
    tn_session_close(&s);
    tn_model_close(&m);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_lost),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    if (argc > 3) share = strtoul(argv[2], NULL, 10), shares = strtoul(argv[3], NULL, 10);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tn_backend_cuda.close(&tn_cuda_held);
    return failed;
}
