/* The text functions of tenon.h: thin covers of src/text. */
#include "base/mem.h"
#include "engine.h"
#include "text/template.h"

#include <string.h>
#include <time.h>

const char *tn_version(void) {
    return TN_VERSION;
}

static tn_status need_tokenizer(const tn_model *m, tn_error *err) {
    return m->tokenizer ? TN_OK : tn_fail(err, TN_ERR_INPUT, "%s", m->no_tokenizer.text);
}

tn_status tn_tokenize(const tn_model *m, const char *text, size_t len, const tn_tokenize_options *options,
                      int32_t **ids, size_t *n_ids, tn_error *err) {
    static const tn_tokenize_options defaults = {0};
    const tn_tokenize_options *o = options ? options : &defaults;
    *ids = NULL;
    *n_ids = 0;
    tn_status status = need_tokenizer(m, err);
    if (status != TN_OK) return status;
    tn_ids list = {0};
    tn_encode_options how = {.add_special = !o->no_bos, .parse_special = !o->no_special};
    status = tn_tokenizer_encode(m->tokenizer, (tn_str){text, len}, how, &list, err);
    if (status != TN_OK) {
        tn_free(list.p);
        return status;
    }
    *ids = list.p;
    *n_ids = list.n;
    return TN_OK;
}

tn_status tn_detokenize(const tn_model *m, const int32_t *ids, size_t n_ids, bool special, char **text, size_t *len,
                        tn_error *err) {
    *text = NULL;
    tn_status status = need_tokenizer(m, err);
    if (status != TN_OK) return status;
    tn_buf b = {0};
    tn_buf_add(&b, "", 0); /* so that no text is an empty string */
    status = tn_tokenizer_decode(m->tokenizer, ids, n_ids, special, &b, err);
    if (status == TN_OK && b.failed) status = tn_fail_memory(err);
    if (status != TN_OK) {
        tn_buf_free(&b);
        return status;
    }
    *text = b.p;
    if (len) *len = b.n;
    return TN_OK;
}

const char *tn_token_text(const tn_model *m, int32_t id) {
    return m->tokenizer ? tn_tokenizer_text(m->tokenizer, id) : NULL;
}

bool tn_token_ends(const tn_model *m, int32_t id) {
    return m->tokenizer && tn_tokenizer_ends(m->tokenizer, id);
}

bool tn_has_chat_template(const tn_model *m) {
    return m->chat_template != NULL;
}

/* ---- chat ---- */

/* NULL after an error. Where memory runs out, jansson says so, or nothing. */
static json_t *parse_json(const char *text, const char *what, tn_error *err) {
    json_error_t e;
    json_t *v = json_loads(text, 0, &e);
    if (v) return v;
    if (!e.text[0] || json_error_code(&e) == json_error_out_of_memory)
        tn_fail_memory(err);
    else
        tn_fail(err, TN_ERR_INPUT, "%s: line %d: %s", what, e.line, e.text);
    return NULL;
}

static json_t *parse_messages(const char *text, tn_error *err) {
    json_t *v = parse_json(text, "messages", err);
    if (json_is_array(v)) {
        v = json_pack("{s:o}", "messages", v);
        if (!v) tn_fail_memory(err);
    }
    if (!v || json_is_array(json_object_get(v, "messages"))) return v;
    json_decref(v);
    tn_fail(err, TN_ERR_INPUT, "messages: an array of messages is expected, or an object with one");
    return NULL;
}

/* The variables that the caller gives: {"messages": [...], ...}. */
static json_t *given_variables(const tn_message *messages, size_t n, const char *text, tn_error *err) {
    if (text) return parse_messages(text, err);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_error_t e = {0};
        json_t *message = json_pack_ex(&e, 0, "{s:s, s:s}", "role", messages[i].role, "content", messages[i].content);
        if (message && json_array_append_new(list, message) == 0) continue;
        json_decref(list);
        if (!message && json_error_code(&e) == json_error_invalid_utf8)
            tn_fail(err, TN_ERR_INPUT, "message %zu is not valid UTF-8", i + 1);
        else
            tn_fail_memory(err);
        return NULL;
    }
    json_t *v = json_pack("{s:o}", "messages", list);
    if (!v) tn_fail_memory(err);
    return v;
}

static const char *token_text(const tn_model *m, int32_t id) {
    const char *text = m->tokenizer && id >= 0 ? tn_tokenizer_text(m->tokenizer, id) : NULL;
    return text ? text : "";
}

/* What templates are given, under the names that Hugging Face's apply_chat_template uses; `given` (consumed) goes over it. */
static json_t *variables(const tn_model *m, json_t *given, const tn_chat_options *o, tn_error *err) {
    char date[32];
    time_t t = time(NULL);
    struct tm local;
    strftime(date, sizeof date, "%d %b %Y", localtime_r(&t, &local));
    int32_t bos = m->tokenizer ? tn_tokenizer_bos(m->tokenizer) : -1;
    int32_t eos = m->tokenizer ? tn_tokenizer_eos(m->tokenizer) : -1;
    json_t *v = json_pack("{s:b, s:s, s:s, s:s}", "add_generation_prompt", !o->no_generation_prompt, "date_string",
                          date, "bos_token", token_text(m, bos), "eos_token", token_text(m, eos));
    json_t *extra = o->extra_json ? parse_json(o->extra_json, "template variables", err) : NULL;
    bool bad = o->extra_json && !extra, no_object = extra && !json_is_object(extra);
    bool ok =
        v && !bad && !no_object && json_object_update(v, given) == 0 && (!extra || json_object_update(v, extra) == 0);
    json_decref(extra);
    json_decref(given);
    if (ok) return v;
    json_decref(v);
    if (no_object)
        tn_fail(err, TN_ERR_INPUT, "template variables: a JSON object is expected");
    else if (!bad)
        tn_fail_memory(err);
    return NULL;
}

/* The tokenizer adds the BOS, so a template must not write it a second time. */
static void drop_bos(const tn_model *m, tn_rendered *r) {
    if (!m->tokenizer || !tn_tokenizer_adds_bos(m->tokenizer)) return;
    const char *bos = token_text(m, tn_tokenizer_bos(m->tokenizer));
    size_t n = strlen(bos);
    if (!n || r->text.n < n || memcmp(r->text.p, bos, n) || (r->n_spans && r->spans[0].from_input)) return;
    memmove(r->text.p, r->text.p + n, r->text.n - n + 1);
    r->text.n -= n;
    for (size_t i = 0; i < r->n_spans; i++) {
        r->spans[i].begin -= r->spans[i].begin < n ? r->spans[i].begin : n;
        r->spans[i].end -= r->spans[i].end < n ? r->spans[i].end : n;
    }
}

static tn_status render(const tn_model *m, json_t *vars, const char *source, tn_rendered *r, tn_error *err) {
    tn_template *t;
    tn_status status = tn_template_open(&t, tn_str_of(source), err);
    if (status != TN_OK) return status;
    status = tn_template_render(t, vars, r, err);
    tn_template_close(&t);
    if (status == TN_OK) drop_bos(m, r);
    return status;
}

static tn_status encode(const tn_model *m, const tn_rendered *r, int32_t **ids, size_t *n_ids, tn_error *err) {
    tn_status status = need_tokenizer(m, err);
    if (status != TN_OK) return status;
    tn_ids list = {0};
    tn_encode_options how = {.add_special = true, .parse_special = true};
    tn_str text = {r->text.p ? r->text.p : "", r->text.n};
    status = tn_tokenizer_encode_spans(m->tokenizer, text, r->spans, r->n_spans, how, &list, err);
    if (status != TN_OK) {
        tn_free(list.p);
        return status;
    }
    *ids = list.p;
    *n_ids = list.n;
    return TN_OK;
}

tn_status tn_chat_render(const tn_model *m, const tn_message *messages, size_t n_messages, const char *json,
                         const tn_chat_options *options, char **text, int32_t **ids, size_t *n_ids, tn_error *err) {
    static const tn_chat_options defaults = {0};
    const tn_chat_options *o = options ? options : &defaults;
    const char *source = o->chat_template ? o->chat_template : m->chat_template;
    if (text) *text = NULL;
    if (ids) *ids = NULL, *n_ids = 0;
    if (!source) return tn_fail(err, TN_ERR_INPUT, "the model has no chat template");
    json_t *given = given_variables(messages, n_messages, json, err);
    json_t *vars = given ? variables(m, given, o, err) : NULL;
    if (!vars) return err ? err->code : TN_ERR_INPUT;
    tn_rendered r = {0};
    tn_status status = render(m, vars, source, &r, err);
    if (status == TN_OK && ids) status = encode(m, &r, ids, n_ids, err);
    if (status == TN_OK && text) {
        *text = tn_strndup(r.text.p ? r.text.p : "", r.text.n);
        if (!*text) status = tn_fail_memory(err);
    }
    if (status != TN_OK && ids) {
        tn_free(*ids);
        *ids = NULL;
    }
    tn_rendered_free(&r);
    json_decref(vars);
    return status;
}
