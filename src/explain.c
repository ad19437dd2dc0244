/* What happened between the model and the machine, for people (text), pictures (dot) and programs (json). */
#include "base/mem.h"
#include "engine.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(tn_sink out, tn_buf *b) {
    if (b->p) out.write(out.data, b->p, b->n);
    b->n = 0;
}

/* ---- folding: layers that differ in nothing but their number are shown once ---- */

typedef struct folder {
    tn_buf text, shape, last; /* a layer's lines, the same without layer numbers, those of the layer shown last */
    int32_t layer, alike;     /* the layer in hand; how many were like the last one shown */
    bool all;                 /* show every layer */
    tn_buf *out;
} folder;

/* Appends text with "l7." and "blk.7." of this layer as "l#." and "blk.#.", and the layer before's as "l#-1.". */
static void add_shape(tn_buf *to, const char *text, int32_t layer) {
    char own[16], before[16], file[24];
    snprintf(own, sizeof own, "l%d.", layer);
    snprintf(before, sizeof before, "l%d.", layer - 1);
    snprintf(file, sizeof file, "blk.%d.", layer);
    for (const char *p = text; *p;) {
        if (!strncmp(p, own, strlen(own)))
            tn_buf_str(to, "l#."), p += strlen(own);
        else if (layer > 0 && !strncmp(p, before, strlen(before)))
            tn_buf_str(to, "l#-1."), p += strlen(before);
        else if (!strncmp(p, file, strlen(file)))
            tn_buf_str(to, "blk.#."), p += strlen(file);
        else if (*p == ' ') /* columns shift where a number gets longer */
            p++;
        else
            tn_buf_char(to, *p++);
    }
}

/* Says which layers, up to `last`, were like the one shown before them. */
static void end_fold(folder *f, int32_t last) {
    if (f->alike == 1) tn_buf_printf(f->out, "  layer %d: alike\n", last);
    if (f->alike > 1) tn_buf_printf(f->out, "  layers %d to %d: alike\n", last - f->alike + 1, last);
    f->alike = 0;
}

static void end_layer(folder *f) {
    bool same = !f->all && f->layer > 0 && f->shape.n == f->last.n && f->shape.n &&
                !memcmp(f->shape.p, f->last.p, f->shape.n);
    if (same) {
        f->alike++;
    } else {
        end_fold(f, f->layer - 1);
        tn_buf_add(f->out, f->text.p ? f->text.p : "", f->text.n);
        f->last.n = 0;
        tn_buf_add(&f->last, f->shape.p ? f->shape.p : "", f->shape.n);
    }
    f->text.n = f->shape.n = 0;
}

/* One line of a layer; lines come in layer order. */
static void add_line(folder *f, int32_t layer, const char *line) {
    if (layer != f->layer) {
        end_layer(f);
        if (layer != f->layer + 1) end_fold(f, f->layer);
        f->layer = layer;
    }
    tn_buf_str(&f->text, line);
    add_shape(&f->shape, line, layer);
}

static void finish(folder *f) {
    end_layer(f);
    end_fold(f, f->layer);
    f->out->failed |= f->text.failed || f->shape.failed || f->last.failed;
    tn_buf_free(&f->text);
    tn_buf_free(&f->shape);
    tn_buf_free(&f->last);
}

/* ---- text ---- */

static void text_graph(tn_buf *b, const tn_plan *p, bool all) {
    const tn_graph *g = &p->graph;
    tn_buf_printf(b, "\nplain graph: %d nodes, activations quantized by nodes of their own\n", p->n_plain);
    folder f = {.layer = -1, .all = all, .out = b};
    tn_buf line = {0};
    for (int32_t i = 0; i < g->n; i++) {
        if (tn_is_leaf(&g->nodes[i])) continue;
        line.n = 0;
        tn_buf_str(&line, "  ");
        tn_print_node(&line, g, &g->nodes[i]);
        tn_buf_char(&line, '\n');
        if (line.p) add_line(&f, g->nodes[i].layer, line.p);
    }
    b->failed |= line.failed;
    tn_buf_free(&line);
    finish(&f);
}

static void text_rules(tn_buf *b, const tn_plan *p) {
    tn_buf_str(b, "\nrules\n");
    for (int32_t i = 0; i < p->partition.n_rules; i++) {
        const tn_rule_log *r = &p->partition.log[i];
        tn_buf_printf(b, "  %-20s %5d fired  %s\n", r->name, r->fired, r->formula);
        if (r->fired) continue;
        if (!r->on)
            tn_buf_str(b, "                       it was switched off\n");
        else if (!r->rejects)
            tn_buf_str(b, "                       its pattern does not occur\n");
        for (const tn_reject *e = r->rejects; e && r->on; e = e->next)
            tn_buf_printf(b, "                       %d x %s (%s)\n", e->count, e->reason, e->example);
    }
}

/* "l0.attn_norm .. l0.v": what a launch computes, by its first and last node. */
static void launch_span(tn_buf *b, const tn_graph *g, const tn_launch *l) {
    tn_buf_str(b, g->nodes[l->nodes[0]].name);
    if (l->n > 1) tn_buf_printf(b, " .. %s", g->nodes[l->nodes[l->n - 1]].name);
}

static void text_launches(tn_buf *b, const tn_plan *p, bool all) {
    const tn_graph *g = &p->graph;
    tn_buf_printf(b, "\nlaunches: %d (%d without fusion)\n", p->partition.n, p->n_plain);
    folder f = {.layer = -1, .all = all, .out = b};
    tn_buf line = {0}, span = {0};
    for (int32_t i = 0; i < p->partition.n; i++) {
        const tn_launch *l = &p->partition.launch[i];
        line.n = span.n = 0;
        launch_span(&span, g, l);
        tn_buf_printf(&line, "  %-14s %-36s %s\n", tn_kind_name(l->kind), span.p ? span.p : "", p->kernel[i]);
        if (l->rules) tn_buf_printf(&line, "                   by %s\n", l->rules);
        if (line.p) add_line(&f, g->nodes[l->nodes[0]].layer, line.p);
    }
    b->failed |= line.failed || span.failed;
    tn_buf_free(&line);
    tn_buf_free(&span);
    finish(&f);
}

/* Norms, and those of them that share a launch with something. */
static void count_norms(const tn_plan *p, int32_t *norms, int32_t *fused) {
    *norms = *fused = 0;
    for (int32_t i = 0; i < p->graph.n; i++) {
        if (p->graph.nodes[i].op != TN_OP_RMS_NORM) continue;
        ++*norms;
        *fused += p->partition.launch[p->partition.owner[i]].n > 1;
    }
}

static void text(tn_buf *b, const tn_session *s, const tn_plan *p, const tn_explain_options *o) {
    int32_t norms, fused;
    count_norms(p, &norms, &fused);
    tn_buf_printf(b, "%s, %d layers, on %s\n", s->model->arch->name, s->model->hp.n_layer,
                  s->model->backend->caps(s->model->device)->description);
    tn_buf_printf(b, "%s: up to %d token%s a step\n", o->phase == TN_PHASE_DECODE ? "decode" : "prefill",
                  p->graph.max_tokens, p->graph.max_tokens == 1 ? "" : "s");
    text_graph(b, p, o->verbose);
    text_rules(b, p);
    text_launches(b, p, o->verbose);
    tn_buf_printf(b, "\nnorms fused: %d of %d\n", fused, norms);
    tn_buf_printf(b, "activations: %zu bytes in one arena, %zu without reuse; %d values in the place of another\n",
                  p->arena_bytes, p->naive_bytes, p->in_place);
    tn_buf_printf(b, "weights read: %llu bytes of the file a token\n", (unsigned long long)p->read_bytes);
    tn_buf_printf(b, "plan hash: %016llx\n", (unsigned long long)p->hash);
}

/* ---- dot ---- */

static void dot(tn_buf *b, const tn_plan *p) {
    const tn_graph *g = &p->graph;
    tn_buf_str(b, "digraph plan {\n  node [shape=box, fontname=\"monospace\", fontsize=10];\n");
    for (int32_t l = 0; l < p->partition.n; l++) {
        const tn_launch *launch = &p->partition.launch[l];
        tn_buf_printf(b, "  subgraph cluster_%d { label=\"%s\"; style=filled; color=%s;\n", l,
                      tn_kind_name(launch->kind), launch->n > 1 ? "lightblue" : "gray90");
        for (int32_t i = 0; i < launch->n; i++) {
            const tn_node *n = &g->nodes[launch->nodes[i]];
            tn_buf_printf(b, "    n%d [label=\"%s\\n%s\"];\n", launch->nodes[i], n->name, tn_ops[n->op].name);
        }
        tn_buf_str(b, "  }\n");
    }
    for (int32_t i = 0; i < g->n; i++)
        for (int k = 0; k < g->nodes[i].n_src; k++) {
            int32_t from = g->nodes[i].src[k].node;
            if (!tn_is_leaf(&g->nodes[from])) tn_buf_printf(b, "  n%d -> n%d;\n", from, i);
        }
    tn_buf_str(b, "}\n");
}

/* ---- json ---- */

static json_t *json_rules(const tn_plan *p) {
    json_t *rules = json_array();
    for (int32_t i = 0; i < p->partition.n_rules; i++) {
        const tn_rule_log *r = &p->partition.log[i];
        json_t *rejects = json_array();
        for (const tn_reject *e = r->rejects; e; e = e->next)
            json_array_append_new(
                rejects, json_pack("{s:s, s:s, s:i}", "reason", e->reason, "example", e->example, "count", e->count));
        json_array_append_new(rules, json_pack("{s:s, s:s, s:b, s:i, s:o}", "name", r->name, "formula", r->formula,
                                               "on", r->on, "fired", r->fired, "rejects", rejects));
    }
    return rules;
}

static json_t *json_launches(const tn_plan *p) {
    const tn_graph *g = &p->graph;
    json_t *launches = json_array();
    tn_buf line = {0};
    for (int32_t l = 0; l < p->partition.n; l++) {
        const tn_launch *launch = &p->partition.launch[l];
        json_t *nodes = json_array();
        for (int32_t i = 0; i < launch->n; i++) {
            const tn_node *n = &g->nodes[launch->nodes[i]];
            line.n = 0;
            tn_print_node(&line, g, n);
            json_array_append_new(nodes,
                                  json_pack("{s:s, s:s, s:i, s:s, s:I}", "name", n->name, "op", tn_ops[n->op].name,
                                            "layer", n->layer, "text", line.p ? line.p : "", "offset",
                                            (json_int_t)p->offset[launch->nodes[i] * TN_MAX_OUT]));
        }
        json_array_append_new(launches,
                              json_pack("{s:s, s:s, s:s, s:o}", "kind", tn_kind_name(launch->kind), "kernel",
                                        p->kernel[l], "rules", launch->rules ? launch->rules : "", "nodes", nodes));
    }
    tn_buf_free(&line);
    return launches;
}

static void json(tn_buf *b, const tn_session *s, const tn_plan *p, const tn_explain_options *o) {
    int32_t norms, fused;
    char hash[20];
    count_norms(p, &norms, &fused);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)p->hash);
    json_t *j =
        json_pack("{s:s, s:i, s:s, s:s, s:i, s:i, s:i, s:i, s:I, s:I, s:i, s:I, s:s, s:o, s:o}", "architecture",
                  s->model->arch->name, "layers", s->model->hp.n_layer, "backend",
                  s->model->backend->caps(s->model->device)->description, "phase",
                  o->phase == TN_PHASE_DECODE ? "decode" : "prefill", "launches", p->partition.n, "plain_nodes",
                  p->n_plain, "norms", norms, "norms_fused", fused, "arena_bytes", (json_int_t)p->arena_bytes,
                  "arena_naive_bytes", (json_int_t)p->naive_bytes, "in_place", p->in_place, "read_bytes",
                  (json_int_t)p->read_bytes, "plan_hash", hash, "rules", json_rules(p), "plan", json_launches(p));
    char *t = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
    if (t)
        tn_buf_printf(b, "%s\n", t);
    else
        b->failed = true;
    free(t);
    json_decref(j);
}

tn_status tn_explain(const tn_session *s, const tn_explain_options *options, tn_sink out, tn_error *err) {
    static const tn_explain_options defaults = {0};
    const tn_explain_options *o = options ? options : &defaults;
    if ((unsigned)o->phase >= TN_N_PHASES || (unsigned)o->format > TN_FORMAT_JSON)
        return tn_fail(err, TN_ERR_USAGE, "explain: no such phase or format");
    const tn_plan *p = &s->plan[o->phase];
    tn_buf b = {0};
    switch (o->format) {
    case TN_FORMAT_TEXT: text(&b, s, p, o); break;
    case TN_FORMAT_DOT: dot(&b, p); break;
    case TN_FORMAT_JSON: json(&b, s, p, o); break;
    }
    bool failed = b.failed;
    if (!failed) put(out, &b);
    tn_buf_free(&b);
    return failed ? tn_fail_memory(err) : TN_OK;
}
