/* Sequences of every family: together or apart, in any chunks, in a slot that was used before: the same bits. */
#include "tenon.h"

#include "quantized.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 40, TAIL = 6 };

static const char *const models[] = {"llama-a.F32",   "qwen3-q.Q4_K_M", "qwen3moe-a.Q8_0",
                                     "qwen35-a.Q8_0", "qwen35-mtp.F32", "qwen35moe-a.F32",
                                     "gemma3-a.F32",  "gemma4-ple.F32", "gemma4-moe.F32"};

typedef struct rig {
    tn_model *model;
    tn_model_info info;
    int32_t ids[2][N];
} rig;

static void open_rig(rig *r, const char *name, bool q8) {
    char path[400];
    tn_error err = {0};
    tn_model_options options = {.threads = 2};
    snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, name);
    tn_status status =
        q8 ? tn_open_quantized(&r->model, name, &options, &err) : tn_model_open(&r->model, path, &options, &err);
    if (status != TN_OK) fail_msg("%s: %s", name, err.text);
    tn_model_get_info(r->model, &r->info);
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < N; i++) r->ids[s][i] = (i * 37 + s * 11 + i * i % 7) % r->info.n_vocab;
}

static tn_session *open_session(const rig *r, int32_t n_seq) {
    tn_session *s;
    tn_error err = {0};
    tn_session_options o = {.n_ctx = 128, .n_seq = n_seq, .n_ubatch = 16};
    if (tn_session_open(&s, r->model, &o, &err)) fail_msg("%s", err.text);
    return s;
}

static void feed(tn_session *s, int32_t seq, const int32_t *ids, int32_t n) {
    int32_t seqs[N];
    tn_error err = {0};
    for (int i = 0; i < n; i++) seqs[i] = seq;
    if (tn_step(s, &(tn_batch){.ids = ids, .seqs = seqs, .n_tokens = n}, &err)) fail_msg("%s", err.text);
}

/* Logits after all N tokens of text `which`, alone, in one batch. The caller frees them. */
static float *alone(const rig *r, int which) {
    tn_session *s = open_session(r, 1);
    size_t bytes = (size_t)r->info.n_vocab * sizeof(float);
    float *logits = malloc(bytes);
    feed(s, 0, r->ids[which], N);
    memcpy(logits, tn_logits(s, 0), bytes);
    tn_session_close(&s);
    return logits;
}

static void same(const rig *r, const float *got, const float *want, const char *name, const char *what) {
    if (!got || memcmp(got, want, (size_t)r->info.n_vocab * sizeof *want)) fail_msg("%s: %s: other bits", name, what);
}

/* Both texts in one session: mixed in one batch, then token by token in turn. */
static void interleaved(const rig *r, float *const *want, const char *name) {
    tn_session *s = open_session(r, 2);
    int32_t ids[2 * N], seqs[2 * N], n = 0;
    tn_error err = {0};
    for (int i = 0; i < N - TAIL; i++)
        for (int q = 0; q < 2; q++, n++) ids[n] = r->ids[q][i], seqs[n] = q;
    assert_int_equal(tn_step(s, &(tn_batch){.ids = ids, .seqs = seqs, .n_tokens = n}, &err), TN_OK);
    for (int i = N - TAIL; i < N; i++) {
        int32_t pair[] = {r->ids[1][i], r->ids[0][i]}, order[] = {1, 0};
        assert_int_equal(tn_step(s, &(tn_batch){.ids = pair, .seqs = order, .n_tokens = 2}, &err), TN_OK);
    }
    same(r, tn_logits(s, 0), want[1], name, "two sequences, the second's token first");
    same(r, tn_logits(s, 1), want[0], name, "two sequences, the first's token second");
    tn_session_close(&s);
}

/* A slot is used, dropped and used again, while another sequence goes on. */
static void reused(const rig *r, float *const *want, const char *name) {
    tn_session *s = open_session(r, 2);
    tn_error err = {0};
    feed(s, 0, r->ids[0], N - TAIL);
    feed(s, 1, r->ids[0], 7);
    assert_int_equal(tn_sequence_cut(s, 1, 0, &err), TN_OK);
    assert_int_equal(tn_sequence_length(s, 1), 0);
    feed(s, 1, r->ids[1], N);
    same(r, tn_logits(s, 0), want[1], name, "a slot used again");
    feed(s, 0, r->ids[0] + N - TAIL, TAIL);
    same(r, tn_logits(s, 0), want[0], name, "the sequence beside it");
    tn_session_close(&s);
}

/* Cut back and continued: the same as without; a recurrent state says that it cannot, and stays as it is. */
static void cut(const rig *r, float *const *want, const char *name) {
    bool recurrent = strstr(name, "qwen35") != NULL;
    tn_session *s = open_session(r, 1);
    tn_error err = {0};
    feed(s, 0, r->ids[0], N - TAIL);
    if (!recurrent) feed(s, 0, r->ids[1], TAIL);
    tn_status status = tn_sequence_cut(s, 0, recurrent ? N - TAIL - 1 : N - TAIL, &err);
    assert_int_equal(status, recurrent ? TN_ERR_USAGE : TN_OK);
    assert_int_equal(tn_sequence_length(s, 0), N - TAIL);
    feed(s, 0, r->ids[0] + N - TAIL, TAIL);
    same(r, tn_logits(s, 0), want[0], name, "continued after a cut");
    tn_session_close(&s);
}

static void check_model(const char *name, bool q8) {
    rig r;
    open_rig(&r, name, q8);
    float *want[2] = {alone(&r, 0), alone(&r, 1)};
    assert_memory_not_equal(want[0], want[1], (size_t)r.info.n_vocab * sizeof(float));
    interleaved(&r, want, name);
    reused(&r, want, name);
    cut(&r, want, name);
    free(want[0]);
    free(want[1]);
    tn_model_close(&r.model);
}

/* What is F32 there as Q8_0 too, so that activations are int8. */
static void test_sequences(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        check_model(models[i], false);
        if (strstr(models[i], ".F32")) check_model(models[i], true);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sequences)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
