/* tenon run: answers a prompt from -p, -f, --ids or stdin; where there is none and stdin is a terminal, chats. */
#include "chat.h"
#include "generate.h"
#include "out.h"
#include "verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

typedef struct ids {
    int32_t *v; /* freed with tn_free() */
    size_t n;
} ids;

/* What makes no sense together, told before the model is opened. */
static tn_status check_options(const cli_options *o, bool chat, tn_error *err) {
    int given = !!o->prompt + !!o->file + !!o->ids.n;
    if (given > 1) return cli_fail(err, TN_ERR_USAGE, "run takes one of -p, -f and --ids");
    if (o->system && (o->raw || o->ids.n))
        return cli_fail(err, TN_ERR_USAGE, "-sys goes through the chat template, which --raw and --ids leave out");
    if (o->chat_template && (o->raw || o->ids.n))
        return cli_fail(err, TN_ERR_USAGE, "--chat-template makes no sense with --raw or --ids");
    if (o->n_logprobs >= 0 && !o->json) return cli_fail(err, TN_ERR_USAGE, "--logprobs needs --json");
    if (chat && (o->json || o->raw)) return cli_fail(err, TN_ERR_USAGE, "run needs a prompt: -p, -f, --ids or stdin");
    return TN_OK;
}

/* The words of the prompt. One newline at the end of a file or of stdin is the editor's, not the prompt's. */
static tn_status read_prompt(const cli_options *o, char **text, size_t *len, tn_error *err) {
    if (o->prompt) {
        *len = strlen(o->prompt);
        *text = cli_realloc(NULL, *len + 1);
        memcpy(*text, o->prompt, *len + 1);
        return TN_OK;
    }
    tn_status status = cli_read_file(o->file ? o->file : "-", text, len, err);
    if (status) return status;
    if (*len && (*text)[*len - 1] == '\n') (*text)[--*len] = 0;
    return TN_OK;
}

static tn_status render(cli_engine *e, const char *chat_template, const char *text, ids *out, tn_error *err) {
    tn_message messages[] = {{"system", e->o->system}, {"user", text}};
    size_t skip = e->o->system ? 0 : 1;
    tn_chat_options options = {.chat_template = chat_template};
    return tn_chat_render(e->model, messages + skip, 2 - skip, NULL, &options, NULL, &out->v, &out->n, err);
}

/* The tokens of the prompt, through the chat template where there is one to go through. */
static tn_status prompt_ids(cli_engine *e, const char *chat_template, ids *out, tn_error *err) {
    const cli_options *o = e->o;
    char *text = NULL;
    size_t len = 0;
    tn_status status = read_prompt(o, &text, &len, err);
    if (status) return status;
    if (!o->raw && (chat_template || tn_has_chat_template(e->model))) {
        if (strlen(text) != len)
            status = cli_fail(err, TN_ERR_INPUT, "the prompt holds a zero byte");
        else
            status = render(e, chat_template, text, out, err);
    } else if (o->system) {
        status =
            cli_fail(err, TN_ERR_USAGE, "-sys needs a chat template, and the model has none (--chat-template FILE)");
    } else {
        tn_tokenize_options options = {0};
        status = tn_tokenize(e->model, text, len, &options, &out->v, &out->n, err);
    }
    free(text);
    return status;
}

static json_t *timings(const cli_engine *e, const cli_answer *a) {
    double n_fed = (double)a->n_fed, n = (double)a->n;
    json_t *t = json_object();
    json_object_set_new(t, "load_ms", json_real(1e3 * e->about.load_seconds));
    json_object_set_new(t, "prompt_n", json_integer((json_int_t)a->n_fed));
    json_object_set_new(t, "prompt_ms", json_real(1e3 * a->prompt_seconds));
    json_object_set_new(t, "prompt_per_second", json_real(a->prompt_seconds > 0 ? n_fed / a->prompt_seconds : 0));
    json_object_set_new(t, "predicted_n", json_integer((json_int_t)a->n));
    json_object_set_new(t, "predicted_ms", json_real(1e3 * a->seconds));
    json_object_set_new(t, "predicted_per_second", json_real(a->seconds > 0 ? n / a->seconds : 0));
    return t;
}

/* What no token can be has no number in JSON: null. */
static json_t *ranked_token(const cli_engine *e, int32_t before, int32_t id, float logprob) {
    json_t *t = json_object();
    char *text = NULL;
    size_t len;
    tn_status status = cli_piece(e, before, id, true, &text, &len, NULL);
    json_object_set_new(t, "id", json_integer(id));
    json_object_set_new(t, "text", status ? json_null() : cli_json_text(text, len));
    json_object_set_new(t, "logprob", isfinite(logprob) ? json_real((double)logprob) : json_null());
    tn_free(text);
    return t;
}

static json_t *ranking(const cli_engine *e, const cli_prompt *prompt, const cli_answer *a) {
    const cli_ranking *r = &a->ranking;
    json_t *list = json_array();
    for (size_t i = 0; i < a->n; i++) {
        int32_t before = i ? a->ids[i - 1] : prompt->ids[prompt->n - 1];
        json_t *token = ranked_token(e, before, a->ids[i], r->chosen[i]), *top = json_array();
        for (size_t j = i * (size_t)r->k; j < (i + 1) * (size_t)r->k && e->o->n_logprobs; j++)
            json_array_append_new(top, ranked_token(e, before, r->ids[j], r->logprobs[j]));
        json_object_set_new(token, "top_logprobs", top);
        json_array_append_new(list, token);
    }
    return list;
}

static void print_json(const cli_engine *e, const cli_prompt *prompt, const cli_answer *a) {
    json_t *o = json_object();
    json_object_set_new(o, "text", a->text ? cli_json_text(a->text, a->len) : json_null());
    json_object_set_new(o, "ids", cli_json_ids(a->ids, a->n));
    json_object_set_new(o, "prompt_ids", cli_json_ids(prompt->ids, prompt->n));
    json_object_set_new(o, "stop", json_string(cli_stop_name(a->stop)));
    if (e->o->n_logprobs >= 0) json_object_set_new(o, "logprobs", ranking(e, prompt, a));
    json_object_set_new(o, "timings", timings(e, a));
    cli_out_json(o);
}

static tn_status run_once(cli_engine *e, tn_sampler *sampler, const char *chat_template, tn_error *err) {
    const cli_options *o = e->o;
    ids made = {0};
    cli_answer a = {0};
    cli_prompt prompt = {.ids = o->ids.v, .n = o->ids.n, .show = !o->json};
    tn_status status = TN_OK;
    if (!prompt.n) {
        status = prompt_ids(e, chat_template, &made, err);
        prompt.ids = made.v;
        prompt.n = made.n;
    }
    if (!status && !prompt.n) status = cli_fail(err, TN_ERR_INPUT, "the prompt is empty");
    if (!status) status = cli_generate(e, sampler, &prompt, &a, err);
    if (prompt.show && a.len) putchar('\n');
    if (!status && o->json) print_json(e, &prompt, &a);
    fflush(stdout);
    if (!status) {
        if (a.stop == CLI_STOP_CONTEXT)
            cli_note(o, "the context of %d tokens is full (-c N gives more)", e->info.n_ctx);
        cli_note_timings(e, &a);
        cli_note_memory(e);
    }
    cli_answer_free(&a);
    tn_free(made.v);
    return status;
}

static tn_status open_sampler(const cli_engine *e, tn_sampler **sampler, tn_error *err) {
    tn_sampler_options options = e->o->sampler;
    if (options.repeat_last_n < 0) options.repeat_last_n = e->info.n_ctx;
    options.logit_bias = e->o->biases.v;
    options.n_logit_bias = e->o->biases.n;
    options.seed = (uint64_t)e->o->seed;
    if (e->o->seed < 0 && getrandom(&options.seed, sizeof options.seed, 0) < 0) options.seed = (uint64_t)getpid();
    if (e->o->verbose) cli_note(e->o, "seed = %llu", (unsigned long long)options.seed);
    return tn_sampler_open(sampler, &options, e->about.n_vocab, err);
}

tn_status cli_run(const cli_options *o, tn_error *err) {
    bool chat = !o->prompt && !o->file && !o->ids.n && isatty(STDIN_FILENO);
    cli_engine e = {0};
    tn_sampler *sampler = NULL;
    char *chat_template = NULL;
    size_t len;
    tn_status status = check_options(o, chat, err);
    if (!status && o->chat_template) status = cli_read_file(o->chat_template, &chat_template, &len, err);
    if (!status) status = cli_open(&e, o, err);
    if (!status) status = open_sampler(&e, &sampler, err);
    if (!status)
        status = chat ? cli_chat(&e, sampler, chat_template, err) : run_once(&e, sampler, chat_template, err);
    tn_sampler_close(&sampler);
    cli_close(&e);
    free(chat_template);
    return status;
}
