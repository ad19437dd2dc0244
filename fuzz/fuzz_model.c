/* Any bytes as a model: an error that is the file's fault or the machine's, or a model that takes a prefill and a decode step and
 * samples ids of its vocabulary, whatever its numbers are. The last bit chooses the reference's kernels or the machine's best. */
#include "engine.h"
#include "gguf_mutate.h"

#include <string.h>

/* A failure that a file may cause. */
static void check_error(tn_status status, const tn_error *err) {
    if (status != TN_ERR_INPUT && status != TN_ERR_RESOURCES) fprintf(stderr, "status %d: %s\n", status, err->text);
    FUZZ_CHECK(status == TN_ERR_INPUT || status == TN_ERR_RESOURCES);
    FUZZ_CHECK(err->code == status && err->text[0] && !strchr(err->text, '\n'));
}

static void sample(const float *logits, int32_t n_vocab) {
    static const float temps[] = {0, 1};
    for (int i = 0; i < 2; i++) {
        tn_sampler_options o = tn_sampler_defaults();
        tn_sampler *s;
        o.temp = temps[i];
        FUZZ_CHECK(tn_sampler_open(&s, &o, n_vocab, NULL) == TN_OK);
        for (int k = 0; k < 2; k++) {
            int32_t id = tn_sampler_pick(s, logits);
            FUZZ_CHECK(id >= 0 && id < n_vocab);
            tn_sampler_accept(s, id);
        }
        tn_sampler_close(&s);
    }
}

static void step(tn_session *s, int32_t n_tokens, int32_t n_vocab) {
    static const int32_t ids[] = {0, 1, 2, 3, 1};
    int32_t known[5];
    tn_error err = {0};
    for (int i = 0; i < 5; i++) known[i] = ids[i] % n_vocab;
    tn_status status = tn_step(s, &(tn_batch){known, NULL, n_tokens}, &err);
    if (status != TN_OK) {
        check_error(status, &err);
        return;
    }
    FUZZ_CHECK(tn_logits_rows(s) == 1);
    sample(tn_logits(s, 0), n_vocab);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    tn_gguf *file;
    tn_model *model;
    tn_session *session;
    tn_error err = {0};
    tn_model_options options = {.backend = n && data[n - 1] & 1 ? "cpu" : "cpu:ref", .threads = 1};
    tn_status status = tn_gguf_open_memory(&file, data, n, &err);
    if (status == TN_OK) status = tn_engine_open_file(&model, &file, &options, &err);
    if (status != TN_OK) {
        check_error(status, &err);
        return 0;
    }
    int32_t n_vocab = model->hp.n_vocab;
    status = tn_session_open(&session, model, NULL, &err);
    if (status == TN_OK) {
        step(session, 5, n_vocab);
        step(session, 1, n_vocab);
        tn_session_close(&session);
    } else {
        check_error(status, &err);
    }
    tn_model_close(&model);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed) {
    return tn_fuzz_mutate_gguf(data, n, max, seed);
}
