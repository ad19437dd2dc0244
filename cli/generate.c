/* The loop from a prompt to an answer: feed, pick, show, until something ends it. */
#include "generate.h"
#include "out.h"

#include <stdlib.h>
#include <string.h>

/* Appends the text of id, which follows `before` (a tokenizer may treat the first token of a text in its own way). */
static tn_status add_text(cli_engine *e, cli_answer *a, int32_t before, int32_t id, tn_error *err) {
    int32_t pair[] = {before, id};
    char *old = NULL, *both = NULL;
    size_t n_old, n_both;
    tn_status status = tn_detokenize(e->model, pair, 1, false, &old, &n_old, err);
    if (!status) status = tn_detokenize(e->model, pair, 2, false, &both, &n_both, err);
    if (!status) {
        a->text = cli_realloc(a->text, a->len + n_both - n_old + 1);
        memcpy(a->text + a->len, both + n_old, n_both - n_old);
        a->len += n_both - n_old;
        a->text[a->len] = 0;
    }
    tn_free(old);
    tn_free(both);
    return status;
}

/* Shows what is new, characters whole unless the answer ends here. */
static void show_text(cli_answer *a, bool at_end) {
    if (!a->text) return;
    size_t upto = at_end ? a->len : a->shown + cli_utf8_complete(a->text + a->shown, a->len - a->shown);
    fwrite(a->text + a->shown, 1, upto - a->shown, stdout);
    fflush(stdout);
    a->shown = upto;
}

/* One token: false in *more where the answer ends with it. */
static tn_status add_token(cli_engine *e, const cli_prompt *prompt, cli_answer *a, int32_t id, bool *more,
                           tn_error *err) {
    int32_t before = a->n ? a->ids[a->n - 1] : prompt->ids[prompt->n - 1];
    a->ids = cli_realloc(a->ids, (a->n + 1) * sizeof *a->ids);
    a->ids[a->n++] = id;
    if (tn_token_ends(e->model, id) && !e->o->ignore_eos) {
        a->stop = CLI_STOP_END;
        *more = false;
        return TN_OK;
    }
    tn_status status = add_text(e, a, before, id, err);
    if (status == TN_ERR_INPUT && !prompt->show) { /* no vocabulary: ids are all there is */
        free(a->text);
        a->text = NULL;
        status = TN_OK;
    }
    if (status) return status;
    if (prompt->show) show_text(a, false);
    if (a->n == (size_t)e->o->n_predict)
        a->stop = CLI_STOP_LENGTH;
    else if (tn_sequence_length(e->session, 0) == e->info.n_ctx)
        a->stop = CLI_STOP_CONTEXT;
    else
        return TN_OK;
    *more = false;
    return TN_OK;
}

static tn_status answer(cli_engine *e, tn_sampler *sampler, const cli_prompt *prompt, cli_answer *a, tn_error *err) {
    tn_status status = TN_OK;
    bool more = e->o->n_predict != 0;
    if (!more) a->stop = CLI_STOP_LENGTH;
    while (more && !status) {
        if (prompt->interrupts && *prompt->interrupts) {
            a->stop = CLI_STOP_USER;
            break;
        }
        int32_t id = tn_sampler_pick(sampler, tn_logits(e->session, 0));
        tn_sampler_accept(sampler, id);
        status = add_token(e, prompt, a, id, &more, err);
        if (!status && more) status = cli_feed(e, &id, 1, err);
    }
    if (prompt->show) show_text(a, true);
    return status;
}

tn_status cli_generate(cli_engine *e, tn_sampler *sampler, const cli_prompt *prompt, cli_answer *a, tn_error *err) {
    if (prompt->n > (size_t)e->info.n_ctx)
        return cli_fail(err, TN_ERR_INPUT, "the prompt is too long: %zu tokens, and the context (-c) is of %d",
                        prompt->n, e->info.n_ctx);
    double start = cli_seconds();
    a->n_fed = prompt->n - prompt->cached;
    a->text = memcpy(cli_realloc(NULL, 1), "", 1);
    tn_status status = cli_feed(e, prompt->ids + prompt->cached, a->n_fed, err);
    if (status) return status;
    for (size_t i = prompt->cached; i < prompt->n; i++) tn_sampler_accept(sampler, prompt->ids[i]);
    a->prompt_seconds = cli_seconds() - start;
    status = answer(e, sampler, prompt, a, err);
    a->seconds = cli_seconds() - start - a->prompt_seconds;
    return status;
}

void cli_answer_free(cli_answer *a) {
    free(a->ids);
    free(a->text);
    *a = (cli_answer){0};
}

const char *cli_stop_name(cli_stop stop) {
    static const char *const names[] = {"end", "length", "context", "user"};
    return names[stop];
}

static void note_rate(const cli_options *o, const char *what, size_t n, double seconds) {
    if (!n || seconds <= 0) return;
    cli_note(o, "%11s time = %10.2f ms / %5zu tokens (%8.2f ms per token, %8.2f tokens per second)", what,
             1e3 * seconds, n, 1e3 * seconds / (double)n, (double)n / seconds);
}

void cli_note_answer(const cli_engine *e, const cli_answer *a) {
    if (a->stop == CLI_STOP_CONTEXT)
        cli_note(e->o, "the context of %d tokens is full (-c N gives more)", e->info.n_ctx);
    note_rate(e->o, "prompt eval", a->n_fed, a->prompt_seconds);
    note_rate(e->o, "eval", a->n, a->seconds);
}
