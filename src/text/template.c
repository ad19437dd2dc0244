/* A chat template: its tree, JSON variables into values, one rendering, and the spans of its result. */
#include "text/template.h"

#include "base/mem.h"
#include "text/jinja.h"

#include <stdlib.h>

struct tn_template {
    tn_jsource source; /* the tree lives in its arena */
    tn_jnode *body;
};

tn_status tn_template_open(tn_template **out, tn_str source, tn_error *err) {
    *out = NULL;
    tn_template *t = tn_alloc_zero(1, sizeof *t);
    if (!t) return tn_fail_memory(err);
    tn_status st = tn_jinja_lex(&t->source, source, err);
    if (!st) st = tn_jinja_parse(&t->source, &t->body, err);
    tn_free(t->source.tokens);
    t->source.tokens = NULL;
    if (st) {
        tn_template_close(&t);
    } else {
        *out = t;
    }
    return st;
}

void tn_template_close(tn_template **t) {
    if (!*t) return;
    tn_arena_free(&(*t)->source.arena);
    tn_free(*t);
    *t = NULL;
}

void tn_rendered_free(tn_rendered *r) {
    tn_buf_free(&r->text);
    tn_free(r->spans);
    *r = (tn_rendered){0};
}

/* What of a JSON value is input: nothing, the strings of a list of messages, or every string. */
typedef enum trust { TRUSTED, MESSAGES, MESSAGE, INPUT } trust;

static tn_jval string_value(tn_jinja *c, const char *p, size_t n, bool input) {
    tn_jval v = {TN_J_STR, .n = n, .p = p};
    unsigned char *mark = input && n ? tn_jinja_alloc(c, n, 1) : NULL;
    if (mark) memset(mark, 1, n);
    v.mark = mark;
    return v;
}

static tn_jval from_json(tn_jinja *c, const json_t *json, trust from);

static tn_jval object_value(tn_jinja *c, const json_t *json, trust from) {
    tn_jval v = tn_jinja_new(c, TN_J_DICT);
    size_t n = json_object_size(json), i = 0;
    tn_jentry *entries = tn_jinja_alloc(c, n, sizeof *entries);
    if (c->status) return tn_jinja_undefined;
    *v.dict = (tn_jdict){entries, n, n};
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)json, key, item) {
        bool role = from == MESSAGE && strcmp(key, "role") == 0;
        trust inner = role ? TRUSTED : from == TRUSTED ? TRUSTED : INPUT;
        entries[i].key = string_value(c, key, strlen(key), from == INPUT);
        entries[i++].value = from_json(c, item, inner);
    }
    return v;
}

static tn_jval from_json(tn_jinja *c, const json_t *json, trust from) {
    tn_jval v = tn_jinja_none;
    if (tn_jinja_enter(c)) {
        switch (json_typeof(json)) {
        case JSON_OBJECT: v = object_value(c, json, from == MESSAGES ? MESSAGE : from); break;
        case JSON_ARRAY:
            v = tn_jinja_new(c, TN_J_LIST);
            for (size_t i = 0; i < json_array_size(json) && !c->status; i++) {
                tn_jinja_push(c, v, from_json(c, json_array_get(json, i), from == MESSAGES ? MESSAGE : from));
            }
            break;
        case JSON_STRING:
            v = string_value(c, json_string_value(json), json_string_length(json), from != TRUSTED);
            break;
        case JSON_INTEGER: v = tn_jinja_int(json_integer_value(json)); break;
        case JSON_REAL: v = tn_jinja_float(json_real_value(json)); break;
        case JSON_TRUE: v = tn_jinja_bool(true); break;
        case JSON_FALSE: v = tn_jinja_bool(false); break;
        case JSON_NULL: break;
        }
    }
    c->depth--;
    return v;
}

static void add_variables(tn_jinja *c, const json_t *variables) {
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)variables, key, item) {
        trust from = strcmp(key, "messages") == 0 ? MESSAGES : strcmp(key, "tools") == 0 ? INPUT : TRUSTED;
        tn_jvar *v = tn_jinja_alloc(c, 1, sizeof *v);
        if (!v) return;
        *v = (tn_jvar){tn_str_of(key), from_json(c, item, from), c->scope->vars};
        c->scope->vars = v;
    }
}

/* Cuts the text where its marks change. */
static tn_status make_spans(const tn_buf *mark, tn_rendered *out, tn_error *err) {
    size_t n = 0, k = 0;
    for (size_t i = 0; i < mark->n; i++) n += i == 0 || mark->p[i] != mark->p[i - 1];
    out->spans = n ? tn_alloc(n * sizeof *out->spans) : NULL;
    if (n && !out->spans) return tn_fail_memory(err);
    for (size_t i = 0; i < mark->n; i++) {
        if (i == 0 || mark->p[i] != mark->p[i - 1]) out->spans[k++] = (tn_span){.begin = i, .from_input = mark->p[i]};
        out->spans[k - 1].end = i + 1;
    }
    out->n_spans = n;
    return TN_OK;
}

tn_status tn_template_render(const tn_template *t, const json_t *variables, tn_rendered *out, tn_error *err) {
    *out = (tn_rendered){0};
    tn_jinja c = {.err = err, .line = 1};
    tn_jscope *scope = tn_jinja_alloc(&c, 1, sizeof *scope);
    tn_jscope *top = tn_jinja_alloc(&c, 1, sizeof *top);
    if (scope && top) {
        top->parent = scope; /* what the template sets hides the variables it was given */
        c.scope = scope;
        add_variables(&c, variables);
        c.scope = top;
        tn_jinja_run(&c, t->body);
    }
    tn_status st = c.status;
    if (!st) {
        tn_buf_add(&c.text, "", 0); /* so that even an empty text is a string */
        st = c.text.failed ? tn_fail_memory(err) : make_spans(&c.mark, out, err);
    }
    if (st) {
        tn_buf_free(&c.text);
    } else {
        if (c.text.p) c.text.p[c.text.n] = 0;
        out->text = c.text;
    }
    tn_buf_free(&c.mark);
    tn_arena_free(&c.arena);
    return st;
}
