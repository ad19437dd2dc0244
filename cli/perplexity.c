/* tenon perplexity: how well a model predicts a text, counted as llama-perplexity counts it: the text is cut into
 * chunks of one context each, every chunk is run alone, and the second half of its tokens is scored given what stands
 * before them. */
#include "engine.h"
#include "out.h"
#include "verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct score {
    double sum, squares; /* of the negative log likelihood of a token */
    size_t n;
} score;

/* -log softmax(logits)[id] */
static double surprise(const float *logits, int32_t n_vocab, int32_t id) {
    float most = logits[0];
    double sum = 0;
    for (int32_t i = 1; i < n_vocab; i++) most = logits[i] > most ? logits[i] : most;
    for (int32_t i = 0; i < n_vocab; i++) sum += exp((double)(logits[i] - most));
    return log(sum) - (double)(logits[id] - most);
}

static tn_status score_chunk(cli_engine *e, const int32_t *ids, int32_t n, score *s, tn_error *err) {
    tn_status status = tn_sequence_cut(e->session, 0, 0, err);
    tn_batch batch = {.ids = ids, .n_tokens = n};
    if (!status) status = tn_step(e->session, &batch, err);
    for (int32_t i = n / 2; i + 1 < n && !status; i++) {
        double nll = surprise(tn_logits(e->session, i), e->about.n_vocab, ids[i + 1]);
        s->sum += nll;
        s->squares += nll * nll;
        s->n++;
    }
    return status;
}

/* Whether the tokenizer puts a BOS in front, and which: every chunk then begins with it. */
static tn_status find_bos(cli_engine *e, int32_t *bos, tn_error *err) {
    int32_t *ids;
    size_t n;
    tn_status status = tn_tokenize(e->model, "", 0, NULL, &ids, &n, err);
    if (status) return status;
    *bos = n ? ids[0] : -1;
    tn_free(ids);
    return TN_OK;
}

static void print_result(const cli_options *o, const score *s, int32_t n_ctx, size_t chunks) {
    double mean = s->sum / (double)s->n, ppl = exp(mean);
    double spread = s->n > 1 ? sqrt((s->squares / (double)s->n - mean * mean) / (double)(s->n - 1)) : 0;
    if (o->json) {
        cli_out_json(json_pack("{s:f, s:f, s:i, s:i, s:i}", "ppl", ppl, "stderr", spread * ppl, "n_ctx", (int)n_ctx,
                               "chunks", (int)chunks, "scored", (int)s->n));
    } else {
        printf("perplexity: %.4f +/- %.5f (%zu chunks of %d tokens)\n", ppl, spread * ppl, chunks, n_ctx);
    }
}

static tn_status score_text(cli_engine *e, int32_t *ids, size_t n_ids, tn_error *err) {
    int32_t n_ctx = e->info.n_ctx, bos;
    size_t chunks = n_ids / (size_t)n_ctx;
    score s = {0};
    if (n_ctx < 4) return cli_fail(err, TN_ERR_USAGE, "-c: chunks of %d tokens are too short", n_ctx);
    if (!chunks)
        return cli_fail(err, TN_ERR_INPUT, "the text is too short: %zu tokens, and a chunk (-c) has %d", n_ids,
                        n_ctx);
    tn_status status = find_bos(e, &bos, err);
    for (size_t c = 0; c < chunks && !status; c++) {
        cli_show_progress(e->o, "perplexity", (double)c / (double)chunks);
        int32_t *chunk = ids + c * (size_t)n_ctx;
        if (bos >= 0) chunk[0] = bos;
        status = score_chunk(e, chunk, n_ctx, &s, err);
        if (!status && e->o->verbose) cli_note(e->o, "[%zu] %.4f", c + 1, exp(s.sum / (double)s.n));
    }
    cli_show_progress(e->o, "perplexity", 1);
    if (!status) print_result(e->o, &s, n_ctx, chunks);
    return status;
}

tn_status cli_perplexity(const cli_options *o, tn_error *err) {
    cli_engine e = {0};
    cli_session_wish wish = cli_default_wish(o);
    char *text = NULL;
    int32_t *ids = NULL;
    size_t len = 0, n_ids = 0;
    wish.all_logits = true;
    if (!wish.n_ctx) wish.n_ctx = 512;
    tn_status status = cli_read_file(o->file, &text, &len, err);
    if (!status && len && text[len - 1] == '\n') len--; /* one line break at the end is no part of the text */
    if (!status) status = cli_open_model(&e, o, &wish, err);
    if (!status) status = tn_tokenize(e.model, text, len, NULL, &ids, &n_ids, err);
    if (!status) status = cli_open_session(&e, &wish, err);
    if (!status) status = score_text(&e, ids, n_ids, err);
    if (!status) cli_note_memory(&e);
    tn_free(ids);
    free(text);
    cli_close(&e);
    return status;
}
