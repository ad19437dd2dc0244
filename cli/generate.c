/* The loop from a prompt to an answer: feed, pick, show, until something ends it. */
#include "generate.h"
#include "out.h"

#include <stdlib.h>
#include <string.h>

/* ---- text ---- */

tn_status cli_piece(const cli_engine *e, int32_t before, int32_t id, bool special, char **text, size_t *len,
                    tn_error *err) {
    int32_t pair[] = {before, id};
    char *old = NULL, *both = NULL;
    size_t n_old, n_both;
    tn_status status = tn_detokenize(e->model, pair, 1, special, &old, &n_old, err);
    if (!status) status = tn_detokenize(e->model, pair, 2, special, &both, &n_both, err);
    tn_free(old);
    if (status) return status;
    *len = n_both - n_old;
    memmove(both, both + n_old, *len + 1);
    *text = both;
    return TN_OK;
}

static tn_status add_text(cli_engine *e, cli_answer *a, int32_t before, int32_t id, tn_error *err) {
    char *piece;
    size_t n;
    tn_status status = cli_piece(e, before, id, false, &piece, &n, err);
    if (status) return status;
    a->text = cli_realloc(a->text, a->len + n + 1);
    memcpy(a->text + a->len, piece, n + 1);
    a->len += n;
    tn_free(piece);
    return TN_OK;
}

/* Cuts the answer before the stop text that was complete first, if one ends behind the first `old` bytes: where it
 * ends does not depend on how the text came in tokens. */
static bool cut_at_stop(const cli_words *stops, cli_answer *a, size_t old) {
    for (size_t end = old + 1; end <= a->len; end++) {
        size_t longest = 0;
        for (size_t i = 0; i < stops->n; i++) {
            size_t n = strlen(stops->v[i]);
            if (n > longest && n <= end && !memcmp(a->text + end - n, stops->v[i], n)) longest = n;
        }
        if (!longest) continue;
        a->len = end - longest;
        a->text[a->len] = 0;
        return true;
    }
    return false;
}

/* How many of the last bytes may become a stop text: the longest end of the text that one begins with. */
static size_t held_back(const cli_words *stops, const cli_answer *a) {
    size_t longest = 0;
    for (size_t i = 0; i < stops->n; i++) {
        size_t n = strlen(stops->v[i]) - 1;
        if (n > a->len) n = a->len;
        while (n > longest && memcmp(a->text + a->len - n, stops->v[i], n)) n--;
        if (n > longest) longest = n;
    }
    return longest;
}

/* Shows what is new; before the end of the answer only whole characters, and nothing that may become a stop text. */
static void show_text(const cli_options *o, cli_answer *a, bool at_end) {
    if (!a->text) return;
    size_t upto = a->len;
    if (!at_end) { /* what is held back now was held back as far as it was there: it is not shown yet */
        upto -= held_back(&o->stops, a);
        upto = a->shown + cli_utf8_complete(a->text + a->shown, upto - a->shown);
    }
    fwrite(a->text + a->shown, 1, upto - a->shown, stdout);
    fflush(stdout);
    a->shown = upto;
}

/* ---- tokens ---- */

/* Notes the likeliest tokens at the place of the last one. */
static void rank(const cli_engine *e, cli_answer *a, const float *logits) {
    cli_ranking *r = &a->ranking;
    int32_t id = a->ids[a->n - 1], k = e->o->n_logprobs > 1 ? e->o->n_logprobs : 1;
    r->k = k < e->about.n_vocab ? k : e->about.n_vocab;
    size_t at = (a->n - 1) * (size_t)r->k;
    r->ids = cli_realloc(r->ids, a->n * (size_t)r->k * sizeof *r->ids);
    r->logprobs = cli_realloc(r->logprobs, a->n * (size_t)r->k * sizeof *r->logprobs);
    r->chosen = cli_realloc(r->chosen, a->n * sizeof *r->chosen);
    tn_top_logprobs(logits, e->about.n_vocab, r->k, r->ids + at, r->logprobs + at);
    r->chosen[a->n - 1] = r->logprobs[at] + (logits[id] - logits[r->ids[at]]);
    for (int32_t i = 0; i < r->k; i++) /* the very same number where it is among them */
        if (r->ids[at + (size_t)i] == id) r->chosen[a->n - 1] = r->logprobs[at + (size_t)i];
}

/* Appends one token; a->stop tells where the answer ends with it. */
static tn_status add_token(cli_engine *e, const cli_prompt *prompt, cli_answer *a, int32_t id, tn_error *err) {
    const cli_options *o = e->o;
    int32_t before = a->n ? a->ids[a->n - 1] : prompt->ids[prompt->n - 1];
    size_t old = a->len;
    a->ids = cli_realloc(a->ids, (a->n + 1) * sizeof *a->ids);
    a->ids[a->n++] = id;
    if (o->n_logprobs >= 0) rank(e, a, tn_logits(e->session, 0));
    if (tn_token_ends(e->model, id) && !o->ignore_eos) {
        a->stop = CLI_STOP_END;
        return TN_OK;
    }
    tn_status status = add_text(e, a, before, id, err);
    if (status == TN_ERR_INPUT && !prompt->show && !o->stops.n) { /* no vocabulary: ids are all there is */
        free(a->text);
        a->text = NULL;
        status = TN_OK;
    }
    if (status) return status;
    if (cut_at_stop(&o->stops, a, old))
        a->stop = CLI_STOP_TEXT;
    else if (a->n == (size_t)o->n_predict)
        a->stop = CLI_STOP_LENGTH;
    else if (prompt->n + a->n > (size_t)e->info.n_ctx) /* this token has no place in it */
        a->stop = CLI_STOP_CONTEXT;
    return TN_OK;
}

/* An answer on its way. */
typedef struct answering {
    cli_engine *e;
    const cli_prompt *prompt;
    cli_answer *a;
    int want; /* of a step */
    tn_status status;
    tn_error *err;
} answering;

/* A token was found; whether the answer goes on. */
static bool on_token(void *data, int32_t id) {
    answering *w = data;
    cli_answer *a = w->a;
    w->status = add_token(w->e, w->prompt, a, id, w->err);
    if (w->status || a->stop) return false;
    if (w->prompt->show) show_text(w->e->o, a, false);
    /* what was found is part of the answer: the device may have been given it already */
    if (w->prompt->interrupts && *w->prompt->interrupts) a->stop = CLI_STOP_USER;
    return !a->stop;
}

/* What a step has to tell. Where it is the likeliest token only, a device may go ahead. */
static int want_for(const cli_options *o, const tn_sampler *sampler) {
    int32_t n = tn_sampler_needs(sampler);
    if (o->n_logprobs >= 0 || n == 0 || n > TN_N_BEST) return TN_WANT_LOGITS;
    return n == 1 ? TN_WANT_CHOSEN : TN_WANT_BEST;
}

static tn_status answer_greedily(answering *w) {
    int32_t id = tn_chosen(w->e->session, 0);
    if (!on_token(w, id)) return w->status;
    tn_greedy options = {.id = id, .n = w->e->info.n_ctx, .each = on_token, .data = w};
    tn_status status = tn_step_greedy(w->e->session, &options, w->err);
    return status ? status : w->status;
}

static tn_status answer_by_sampling(answering *w, tn_sampler *sampler) {
    for (;;) {
        tn_candidates best = tn_best(w->e->session, 0);
        int32_t id =
            best.n ? tn_sampler_pick_from(sampler, &best) : tn_sampler_pick(sampler, tn_logits(w->e->session, 0));
        tn_sampler_accept(sampler, id);
        if (!on_token(w, id)) return w->status;
        tn_status status = cli_feed(w->e, &id, 1, w->want, w->err);
        if (status) return status;
    }
}

static tn_status answer(answering *w, tn_sampler *sampler) {
    const cli_options *o = w->e->o;
    tn_status status = TN_OK;
    if (!o->n_predict)
        w->a->stop = CLI_STOP_LENGTH;
    else
        status = w->want == TN_WANT_CHOSEN ? answer_greedily(w) : answer_by_sampling(w, sampler);
    if (w->prompt->show) show_text(o, w->a, true);
    return status;
}

tn_status cli_generate(cli_engine *e, tn_sampler *sampler, const cli_prompt *prompt, cli_answer *a, tn_error *err) {
    if (prompt->n > (size_t)e->info.n_ctx)
        return cli_fail(err, TN_ERR_INPUT, "the prompt is too long: %zu tokens, and the context (-c) is of %d",
                        prompt->n, e->info.n_ctx);
    double start = cli_seconds();
    a->n_fed = prompt->n - prompt->cached;
    a->text = memcpy(cli_realloc(NULL, 1), "", 1);
    answering w = {.e = e, .prompt = prompt, .a = a, .want = want_for(e->o, sampler), .err = err};
    tn_status status = cli_feed(e, prompt->ids + prompt->cached, a->n_fed, w.want, err);
    if (status) return status;
    for (size_t i = prompt->cached; i < prompt->n; i++) tn_sampler_accept(sampler, prompt->ids[i]);
    a->prompt_seconds = cli_seconds() - start;
    status = answer(&w, sampler);
    a->seconds = cli_seconds() - start - a->prompt_seconds;
    return status;
}

void cli_answer_free(cli_answer *a) {
    free(a->ids);
    free(a->text);
    free(a->ranking.ids);
    free(a->ranking.logprobs);
    free(a->ranking.chosen);
    *a = (cli_answer){0};
}

const char *cli_stop_name(cli_stop stop) {
    static const char *const names[] = {"", "end", "stop", "length", "context", "user"};
    return names[stop];
}

static void note_rate(const cli_options *o, const char *what, size_t n, double seconds) {
    if (!n || seconds <= 0) return;
    cli_note(o, "%11s time = %10.2f ms / %5zu tokens (%8.2f ms per token, %8.2f tokens per second)", what,
             1e3 * seconds, n, 1e3 * seconds / (double)n, (double)n / seconds);
}

void cli_note_timings(const cli_engine *e, const cli_answer *a) {
    note_rate(e->o, "prompt eval", a->n_fed, a->prompt_seconds);
    note_rate(e->o, "eval", a->n, a->seconds);
}
