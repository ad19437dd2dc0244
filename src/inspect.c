/* What a GGUF file holds, and what this machine has: `inspect` and `doctor`. Neither opens a model. */
#include "backend/backend.h"
#include "base/mem.h"
#include "engine.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A string as text on one line: control characters and what is not ASCII-safe are left to the reader's terminal, line
 * breaks are not. */
static void print_text(tn_buf *b, tn_str s, size_t most) {
    for (size_t i = 0; i < s.n && i < most; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '\n')
            tn_buf_str(b, "\\n");
        else if (c < 32 || c == 127)
            tn_buf_printf(b, "\\x%02x", c);
        else
            tn_buf_char(b, (char)c);
    }
    if (s.n > most) tn_buf_str(b, "...");
}

static void print_str(tn_buf *b, tn_str s, size_t most) {
    tn_buf_char(b, '"');
    print_text(b, s, most);
    tn_buf_char(b, '"');
}

static void print_value(tn_buf *b, const tn_gguf_kv *kv) {
    switch (kv->type) {
    case TN_GGUF_STR: print_str(b, kv->str, 120); return;
    case TN_GGUF_BOOL: tn_buf_str(b, kv->u ? "true" : "false"); return;
    case TN_GGUF_F32:
    case TN_GGUF_F64: tn_buf_printf(b, "%g", kv->f); return;
    case TN_GGUF_I8:
    case TN_GGUF_I16:
    case TN_GGUF_I32:
    case TN_GGUF_I64: tn_buf_printf(b, "%lld", (long long)kv->i); return;
    case TN_GGUF_ARRAY: break;
    default: tn_buf_printf(b, "%llu", (unsigned long long)kv->u); return;
    }
    const tn_gguf_array *a = &kv->array;
    tn_buf_printf(b, "%s[%llu]", tn_gguf_type_name(a->type), (unsigned long long)a->n);
    for (uint64_t i = 0; i < a->n && i < 4; i++) {
        tn_buf_str(b, i ? ", " : " ");
        if (a->strs)
            print_str(b, a->strs[i], 24);
        else
            tn_buf_printf(b, "%g", tn_gguf_array_number(a, i));
    }
    if (a->n > 4) tn_buf_str(b, ", ...");
}

/* Whether this build can run the file: NULL, or the first reason why not (into err). */
static const char *cannot_run(const tn_gguf *g, tn_error *err) {
    tn_str name;
    if (!tn_gguf_get_str(g, "general.architecture", &name)) return "the file has no general.architecture";
    const tn_arch *arch = tn_arch_find(name);
    if (!arch) return tn_fail(err, TN_ERR_INPUT, "unknown architecture; known are: %s", tn_arch_names()), err->text;
    tn_hparams hp = {0};
    if (arch->read(&hp, g, err) != TN_OK) return err->text;
    tn_weight_table weights = {0};
    tn_graph graph;
    tn_phase_shape shape = {.max_tokens = 1, .max_outputs = 1, .one_token = true};
    tn_status status = tn_model_build(&graph, arch, &hp, g, &weights, &shape, err);
    if (status == TN_OK) tn_graph_free(&graph);
    tn_weight_table_free(&weights);
    return status == TN_OK ? NULL : err->text;
}

static const char *type_name(uint32_t type) {
    const char *name = tn_type_name(type);
    return name ? name : "unknown";
}

static void text(tn_buf *b, const tn_gguf *g, const char *why_not) {
    tn_buf_printf(b, "GGUF v%u, %llu bytes, %zu keys, %zu tensors\n", tn_gguf_version(g),
                  (unsigned long long)tn_gguf_file_bytes(g), tn_gguf_n_kv(g), tn_gguf_n_tensors(g));
    tn_buf_printf(b, "runs here: %s%s\n\n", why_not ? "no: " : "yes", why_not ? why_not : "");
    for (size_t i = 0; i < tn_gguf_n_kv(g); i++) {
        const tn_gguf_kv *kv = tn_gguf_kv_at(g, i);
        tn_buf_printf(b, "%-6s ", tn_gguf_type_name(kv->type));
        print_text(b, kv->key, 200);
        tn_buf_str(b, " = ");
        print_value(b, kv);
        tn_buf_char(b, '\n');
    }
    tn_buf_char(b, '\n');
    for (size_t i = 0; i < tn_gguf_n_tensors(g); i++) {
        const tn_gguf_tensor *t = tn_gguf_tensor_at(g, i);
        tn_buf_printf(b, "%-8s %12zu bytes  ", type_name(t->type), t->bytes);
        print_text(b, tn_str_of(t->name), 200);
        tn_buf_str(b, " [");
        for (int d = 0; d < t->n_dims; d++) tn_buf_printf(b, "%s%lld", d ? ", " : "", (long long)t->ne[d]);
        tn_buf_str(b, "]\n");
    }
}

/* A string of the file; what is not UTF-8 is told, not lost. */
static json_t *json_text(tn_str s) {
    json_t *text = json_stringn(s.p, s.n);
    return text ? text : json_string("(not UTF-8)");
}

static json_t *json_value(const tn_gguf_kv *kv) {
    switch (kv->type) {
    case TN_GGUF_STR: return json_text(kv->str);
    case TN_GGUF_BOOL: return json_boolean(kv->u);
    case TN_GGUF_F32:
    case TN_GGUF_F64: {
        json_t *f = json_real(kv->f);
        return f ? f : json_null(); /* JSON has no infinity */
    }
    case TN_GGUF_I8:
    case TN_GGUF_I16:
    case TN_GGUF_I32:
    case TN_GGUF_I64: return json_integer((json_int_t)kv->i);
    case TN_GGUF_ARRAY:
        return json_pack("{s:s, s:I}", "array", tn_gguf_type_name(kv->array.type), "count", (json_int_t)kv->array.n);
    default: return json_integer((json_int_t)kv->u);
    }
}

static bool json(tn_buf *b, const tn_gguf *g, const char *why_not) {
    json_t *metadata = json_object(), *tensors = json_array();
    for (size_t i = 0; i < tn_gguf_n_kv(g); i++) {
        const tn_gguf_kv *kv = tn_gguf_kv_at(g, i);
        char number[40];
        snprintf(number, sizeof number, "(not UTF-8, key %zu)", i);
        if (json_object_setn_new(metadata, kv->key.p, kv->key.n, json_value(kv)))
            json_object_set_new(metadata, number, json_value(kv));
    }
    for (size_t i = 0; i < tn_gguf_n_tensors(g); i++) {
        const tn_gguf_tensor *t = tn_gguf_tensor_at(g, i);
        json_t *shape = json_array();
        for (int d = 0; d < t->n_dims; d++) json_array_append_new(shape, json_integer((json_int_t)t->ne[d]));
        json_array_append_new(tensors,
                              json_pack("{s:o, s:s, s:o, s:I}", "name", json_text(tn_str_of(t->name)), "type",
                                        type_name(t->type), "shape", shape, "bytes", (json_int_t)t->bytes));
    }
    json_t *j = json_pack("{s:i, s:I, s:b, s:s*, s:o, s:o}", "version", (int)tn_gguf_version(g), "bytes",
                          (json_int_t)tn_gguf_file_bytes(g), "runs", why_not == NULL, "why_not", why_not, "metadata",
                          metadata, "tensors", tensors);
    char *t = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
    if (t) tn_buf_printf(b, "%s\n", t);
    free(t);
    json_decref(j);
    return t != NULL;
}

tn_status tn_inspect(const char *path, bool as_json, tn_sink out, tn_error *err) {
    tn_gguf *g;
    tn_error why = {0};
    tn_buf b = {0};
    tn_status status = tn_gguf_open(&g, path, err);
    if (status != TN_OK) return status;
    const char *why_not = cannot_run(g, &why);
    if (as_json)
        b.failed |= !json(&b, g, why_not);
    else
        text(&b, g, why_not);
    tn_gguf_close(&g);
    if (!b.failed)
        out.write(out.data, b.p, b.n);
    else
        status = tn_fail_memory(err);
    tn_buf_free(&b);
    return status;
}
