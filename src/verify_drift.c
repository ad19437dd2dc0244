/* What fusion does to a model on a text: its logits, fused, beside those of the same nodes run one by one. The text is run in
 * chunks, each by itself, as prompts; and its first tokens once more as they are when they are generated, one a step. */
#include "base/mem.h"
#include "engine.h"
#include "verify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { N_CHUNK = 256, N_SINGLE = 64 };

static int32_t top(const float *x, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* log sum e^x */
static double log_sum(const float *x, int32_t n, int32_t best) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)x[best]);
    return log(sum) + (double)x[best];
}

void tn_drift_add(tn_drift *d, const float *got, const float *want, int32_t n) {
    int32_t best[] = {top(got, n), top(want, n)};
    double norm[] = {log_sum(got, n, best[0]), log_sum(want, n, best[1])}, kl = 0;
    for (int32_t i = 0; i < n; i++) {
        double g = (double)got[i], w = (double)want[i], e = fabs(g - w);
        d->error += e * e;
        d->power += w * w;
        kl += exp(w - norm[1]) * ((w - norm[1]) - (g - norm[0]));
        if (!(e <= d->worst)) {
            d->worst = isnan(e) ? INFINITY : e;
            d->at = d->positions;
            d->id = i;
            d->got = got[i];
            d->want = want[i];
        }
    }
    d->differs |= memcmp(got, want, (size_t)n * sizeof *got) != 0;
    d->kl += kl;
    if (!(kl <= d->kl_most)) d->kl_most = kl;
    d->positions++;
    d->same_top += best[0] == best[1];
}

/* A chunk in both sessions, `step` tokens at a time. */
static tn_status run_chunk(tn_drift *d, tn_session *const s[2], const int32_t *ids, int32_t n, int32_t step,
                           tn_error *err) {
    int32_t n_vocab = s[0]->model->hp.n_vocab;
    tn_status status = TN_OK;
    for (int k = 0; k < 2 && status == TN_OK; k++) status = tn_sequence_cut(s[k], 0, 0, err);
    for (int32_t at = 0, m; at < n && status == TN_OK; at += m) {
        m = n - at < step ? n - at : step;
        for (int k = 0; k < 2 && status == TN_OK; k++)
            status = tn_step(s[k], &(tn_batch){.ids = ids + at, .n_tokens = m}, err);
        for (int32_t i = 0; i < m && status == TN_OK; i++)
            tn_drift_add(d, tn_logits(s[0], i), tn_logits(s[1], i), n_vocab);
    }
    return status;
}

/* A logit's square is about the spread of all, so that an NMSE of e moves the probabilities by about a few e. */
static void judge(tn_check *c, const tn_drift *d, double bound) {
    double kl = 5 * bound, top = bound > 2e-3 ? 1 - 10 * bound : 0.98;
    if (bound == 0 && d->differs) tn_check_fail(c, "not the same bits: %s", c->worst);
    if (bound == 0) return;
    if (!(c->nmse <= bound)) tn_check_fail(c, "nmse %.2g, bound %.2g: %s", c->nmse, bound, c->worst);
    if (!(c->kl <= kl)) tn_check_fail(c, "KL divergence %.2g, bound %.2g: %s", c->kl, kl, c->worst);
    if (c->same_top < top)
        tn_check_fail(c, "likeliest token the same at %.2f %%, at least %.2f expected", 100 * c->same_top, 100 * top);
}

void tn_report_drift(tn_report *r, const tn_drift *d, const tn_model *m, const char *name, double bound) {
    tn_check c = {.cases = (int32_t)d->positions, .bound = bound, .drift = true};
    const char *token = m ? tn_token_text(m, d->id) : NULL;
    double n = (double)d->positions;
    c.nmse = d->error == 0 ? 0 : d->error / d->power;
    c.kl = d->kl / n;
    c.kl_most = d->kl_most;
    c.same_top = (double)d->same_top / n;
    snprintf(c.name, sizeof c.name, "%s", name);
    snprintf(c.worst, sizeof c.worst, "position %lld, token %d (%.40s) is %.9g, not %.9g", (long long)d->at, d->id,
             token ? token : "", (double)d->got, (double)d->want);
    judge(&c, d, bound);
    tn_report_check(r, &c);
}

static tn_status run_text(tn_report *r, tn_session *const s[2], const int32_t *ids, size_t n, const char *types,
                          double bound, tn_error *err) {
    tn_drift prompts = {0}, singles = {0};
    char what[80];
    tn_status status = TN_OK;
    for (size_t at = 0; at < n && status == TN_OK; at += N_CHUNK) {
        size_t m = n - at < N_CHUNK ? n - at : N_CHUNK;
        status = run_chunk(&prompts, s, ids + at, (int32_t)m, N_CHUNK, err);
    }
    if (status == TN_OK) status = run_chunk(&singles, s, ids, n < N_SINGLE ? (int32_t)n : N_SINGLE, 1, err);
    if (status != TN_OK) return status;
    snprintf(what, sizeof what, "text, prefill, %s: fused against unfused", types);
    tn_report_drift(r, &prompts, s[0]->model, what, bound);
    snprintf(what, sizeof what, "text, decode, %s: fused against unfused", types);
    tn_report_drift(r, &singles, s[0]->model, what, bound);
    return TN_OK;
}

/* With the types asked for, and where these may be rounded to another side, with f32 as well (or f32 alone, where that is what was
 * asked for): a flipped int8 is worth 1e-4 a layer later, so that the bound of the first is loose. */
static tn_status run_types(tn_report *r, tn_model *m, const int32_t *ids, size_t n, const tn_verify_options *o,
                           bool exact, tn_error *err) {
    tn_status status = TN_OK;
    bool all_f32 = o->act == TN_ACT_F32 && o->kv_type == TN_KV_F32;
    for (int f32 = all_f32 && !exact; f32 < (exact ? 1 : 2) && status == TN_OK; f32++) {
        tn_session *s[2] = {NULL};
        const char *types = f32 || all_f32 ? "f32" : o->act == TN_ACT_F32 ? "f32 activations" : "int8";
        double bound = f32 ? 1e-6 : 1e-2;
        tn_session_options options = {.n_ctx = N_CHUNK, .n_ubatch = N_CHUNK, .all_logits = true};
        options.act = f32 ? TN_ACT_F32 : o->act;
        options.kv_type = f32 ? TN_KV_F32 : o->kv_type;
        for (int k = 0; k < 2 && status == TN_OK; k++) {
            options.fuse = k ? "none" : o->fuse;
            status = tn_session_open(&s[k], m, &options, err);
        }
        if (status == TN_OK) status = run_text(r, s, ids, n, types, exact ? 0 : bound, err);
        tn_session_close(&s[0]);
        tn_session_close(&s[1]);
    }
    return status;
}

tn_status tn_verify_drift(tn_report *r, const tn_verify_options *o, tn_error *err) {
    const char *backend = o->backend ? o->backend : "cpu";
    tn_model_options options = {.backend = backend, .threads = o->threads, .webgpu_lib = o->webgpu_lib};
    tn_model *m = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    tn_status status = tn_model_open(&m, o->path, &options, err);
    if (status == TN_OK) status = tn_tokenize(m, o->text, o->text_len, NULL, &ids, &n, err);
    if (status == TN_OK && n == 0) status = tn_fail(err, TN_ERR_INPUT, "the text has no tokens");
    if (status == TN_OK) status = run_types(r, m, ids, n, o, tn_verify_exact(backend), err);
    tn_free(ids);
    tn_model_close(&m);
    return status;
}
