/* A whole model: fused against unfused, in one batch against token by token, backend against reference. The tokens are always the
 * same: random ones, then one again and again, the first and the last of the vocabulary; more than a page of the cache. */
#include "base/mem.h"
#include "engine.h"
#include "verify.h"

#include <stdio.h>
#include <string.h>

enum { N_RANDOM = 40, N_PREFILL = TN_PAGE_TOKENS + 2, N_DECODE = 4, N_TOKENS = N_PREFILL + N_DECODE };

/* One way to run the model: in a session with these options, the first tokens in chunks. */
typedef struct way {
    const char *name;
    bool reference;   /* on the reference */
    bool plain;       /* node by node */
    bool exact_types; /* f32 activations and cache */
    int32_t chunk;
} way;

static void choose_ids(int32_t *ids, int32_t n_vocab) {
    uint32_t x = 12345;
    for (int32_t i = 0; i < N_TOKENS; i++) {
        x = x * 1664525u + 1013904223u;
        ids[i] = i < N_RANDOM ? (int32_t)((uint64_t)x * (uint64_t)n_vocab >> 32) : ids[N_RANDOM - 1];
    }
    ids[N_PREFILL - 1] = n_vocab - 1;
    ids[N_TOKENS - 2] = 0;
}

/* All tokens but the last few in steps of `chunk`, those one by one; every token's logits. */
static tn_status run_session(tn_session *s, int32_t chunk, tn_table *t, tn_error *err) {
    int32_t ids[N_TOKENS];
    choose_ids(ids, t->cols);
    for (int32_t done = 0; done < N_TOKENS;) {
        int32_t n = done < N_PREFILL ? chunk : 1;
        if (done < N_PREFILL && n > N_PREFILL - done) n = N_PREFILL - done;
        tn_status status = tn_step(s, &(tn_batch){.ids = ids + done, .n_tokens = n}, err);
        if (status != TN_OK) return status;
        for (int32_t i = 0; i < n; i++)
            memcpy(t->p + (size_t)(done + i) * (size_t)t->cols, tn_logits(s, i), (size_t)t->cols * sizeof(float));
        done += n;
    }
    t->rows = N_TOKENS;
    return TN_OK;
}

typedef struct judge {
    const tn_verify_options *o;
    tn_report *report;
    tn_model *model, *reference;
    bool exact;
} judge;

static tn_status run_way(const judge *j, const way *w, tn_table *t, tn_error *err) {
    tn_model *m = w->reference ? j->reference : j->model;
    tn_session *s = NULL;
    tn_session_options options = {.n_ctx = N_TOKENS,
                                  .n_ubatch = N_PREFILL,
                                  .fuse = w->plain ? "none" : j->o->fuse,
                                  .kv_type = w->exact_types ? TN_KV_F32 : j->o->kv_type,
                                  .act = w->exact_types ? TN_ACT_F32 : j->o->act,
                                  .all_logits = true};
    *t = (tn_table){.cols = m->hp.n_vocab};
    t->p = tn_alloc((size_t)N_TOKENS * (size_t)t->cols * sizeof(float));
    tn_status status = t->p ? tn_session_open(&s, m, &options, err) : tn_fail_memory(err);
    if (status == TN_OK) status = run_session(s, w->chunk, t, err);
    tn_session_close(&s);
    return status;
}

/* ---- checks ---- */

/* Two ways, compared in the rows of each phase. bound 0: the same bits. */
static tn_status compare(const judge *j, const way *a, const way *b, double bound, tn_error *err) {
    tn_table got = {0}, want = {0};
    tn_status status = run_way(j, a, &got, err);
    if (status == TN_OK) status = run_way(j, b, &want, err);
    for (int phase = 0; phase < 2 && status == TN_OK; phase++) {
        tn_check c = {.cases = 1};
        int32_t first = phase ? N_PREFILL : 0, n = phase ? N_DECODE : N_PREFILL;
        tn_table x = {got.p + (size_t)first * (size_t)got.cols, n, got.cols};
        tn_table y = {want.p + (size_t)first * (size_t)want.cols, n, want.cols};
        snprintf(c.name, sizeof c.name, "model %s: %s against %s", phase ? "decode" : "prefill", a->name, b->name);
        if (bound == 0)
            tn_check_equal(&c, &x, &y, "logits");
        else
            tn_check_near(&c, &x, &y, &(tn_near){bound, got.cols, 0}, "logits");
        tn_report_check(j->report, &c);
    }
    tn_free(got.p);
    tn_free(want.p);
    return status;
}

/* The same by what it does to the tokens' probabilities. */
static tn_status compare_drift(const judge *j, const way *a, const way *b, double bound, tn_error *err) {
    tn_table got = {0}, want = {0};
    tn_drift d = {0};
    char name[120];
    tn_status status = run_way(j, a, &got, err);
    if (status == TN_OK) status = run_way(j, b, &want, err);
    for (size_t i = 0; i < N_TOKENS && status == TN_OK; i++)
        tn_drift_add(&d, got.p + i * (size_t)got.cols, want.p + i * (size_t)got.cols, got.cols);
    snprintf(name, sizeof name, "model: %s against %s", a->name, b->name);
    if (status == TN_OK) tn_report_drift(j->report, &d, j->model, name, bound);
    tn_free(got.p);
    tn_free(want.p);
    return status;
}

/* With f32 first. With the types asked for, an int8 activation that flips is worth 1e-4 a layer later: where bits differ, these are
 * judged by the tokens' probabilities. */
static tn_status check_all(const judge *j, tn_error *err) {
    static const way fused = {"fused", false, false, false, N_PREFILL},
                     unfused = {"unfused", false, true, false, N_PREFILL},
                     reference = {"reference", true, true, false, N_PREFILL},
                     chunks = {"in chunks of 7", false, false, false, 7},
                     single = {"token by token", false, false, false, 1},
                     fused_f32 = {"fused (f32)", false, false, true, N_PREFILL},
                     unfused_f32 = {"unfused (f32)", false, true, true, N_PREFILL},
                     single_f32 = {"token by token (f32)", false, false, true, 1},
                     reference_f32 = {"reference (f32)", true, true, true, N_PREFILL};
    tn_status status = compare(j, &fused_f32, &reference_f32, 1e-6, err);
    if (status == TN_OK) status = compare(j, &fused_f32, &unfused_f32, j->exact ? 0 : 1e-6, err);
    if (j->exact) {
        if (status == TN_OK) status = compare(j, &fused, &unfused, 0, err);
        if (status == TN_OK) status = compare(j, &fused, &chunks, 0, err);
        if (status == TN_OK) status = compare(j, &fused, &single, 0, err);
        return status;
    }
    if (status == TN_OK) status = compare(j, &fused_f32, &single_f32, 1e-6, err);
    if (status == TN_OK) status = compare_drift(j, &fused, &reference, 1e-2, err);
    if (status == TN_OK) status = compare_drift(j, &fused, &unfused, 1e-2, err);
    if (status == TN_OK) status = compare_drift(j, &fused, &single, 1e-2, err);
    return status;
}

tn_status tn_verify_model(tn_report *report, const tn_verify_options *o, tn_error *err) {
    const char *backend = o->backend ? o->backend : "cpu";
    judge j = {.o = o, .report = report, .exact = tn_verify_exact(backend)};
    tn_model_options options = {.backend = backend, .threads = o->threads, .webgpu_lib = o->webgpu_lib};
    tn_status status = tn_model_open(&j.model, o->path, &options, err);
    options.backend = "cpu:ref";
    if (status == TN_OK) status = tn_model_open(&j.reference, o->path, &options, err);
    if (status == TN_OK) status = check_all(&j, err);
    tn_model_close(&j.model);
    tn_model_close(&j.reference);
    return status;
}
