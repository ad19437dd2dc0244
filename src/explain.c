/* What happened between the model and the machine, as text and as JSON; pictures are in explain_draw.c and
 * explain_html.c. */
#include "explain.h"
#include "base/mem.h"
#include "fuse/rule.h"

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
    tn_add_shape(&f->shape, line, layer);
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

void tn_print_plain(tn_buf *b, const tn_plan *p, bool all) {
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
        if (!r->on)
            tn_buf_str(b, "                       it was switched off\n");
        else if (!r->rejects && !r->fired)
            tn_buf_str(b, "                       its pattern does not occur\n");
        for (const tn_reject *e = r->rejects; e && r->on; e = e->next)
            tn_buf_printf(b, "                       not %d x: %s (%s)\n", e->count, e->reason, e->example);
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

/* Norms: all, and those of whole rows as wide as the embedding; and how many of each share a launch with something. */
typedef struct norm_counts {
    int32_t all, all_fused, stream, stream_fused;
} norm_counts;

static norm_counts count_norms(const tn_session *s, const tn_plan *p) {
    norm_counts c = {0};
    for (int32_t i = 0; i < p->graph.n; i++) {
        const tn_node *n = &p->graph.nodes[i];
        if (n->op != TN_OP_RMS_NORM) continue;
        bool fused = p->partition.launch[p->partition.owner[i]].n > 1;
        bool stream = n->out[0].cols == s->model->hp.n_embd && !n->attr.head_dim;
        c.all++;
        c.all_fused += fused;
        c.stream += stream;
        c.stream_fused += stream && fused;
    }
    return c;
}

/* A line a launch, which shows what is in the arena while it runs. */
static void text_memory(tn_buf *b, const tn_plan *p, const tn_life *lives, int32_t n, bool all) {
    enum { COLUMNS = 64 };
    const tn_graph *g = &p->graph;
    tn_buf_printf(
        b, "\nmemory: %zu bytes of the arena (all but the results) in %d columns; # made, = read, - kept, . free\n",
        tn_lives_extent(p, lives, n), COLUMNS);
    folder f = {.layer = -1, .all = all, .out = b};
    tn_buf line = {0};
    for (int32_t i = 0; i < p->partition.n; i++) {
        const tn_launch *l = &p->partition.launch[i];
        line.n = 0;
        tn_buf_str(&line, "  ");
        tn_print_lives(&line, p, lives, n, i, COLUMNS);
        tn_buf_printf(&line, "  %s\n", g->nodes[l->nodes[0]].name);
        if (line.p) add_line(&f, g->nodes[l->nodes[0]].layer, line.p);
    }
    b->failed |= line.failed;
    tn_buf_free(&line);
    finish(&f);
}

static tn_status text(tn_buf *b, const tn_session *s, const tn_plan *p, const tn_explain_options *o, tn_error *err) {
    int32_t n_lives;
    tn_life *lives;
    tn_status status = tn_plan_lives(p, &lives, &n_lives, err);
    if (status != TN_OK) return status;
    norm_counts norms = count_norms(s, p);
    tn_buf_printf(b, "%s, %d layers, on %s\n", s->model->arch->name, s->model->hp.n_layer,
                  s->model->backend->caps(s->model->device)->description);
    tn_buf_printf(b, "%s: up to %d token%s a step\n", tn_phase_name(o->phase), p->graph.max_tokens,
                  p->graph.max_tokens == 1 ? "" : "s");
    tn_print_plain(b, p, o->verbose);
    text_rules(b, p);
    text_launches(b, p, o->verbose);
    text_memory(b, p, lives, n_lives, o->verbose);
    tn_buf_printf(b, "\nnorms fused: %d of %d\n", norms.all_fused, norms.all);
    tn_buf_printf(b, "of the residual stream: %d of %d\n", norms.stream_fused, norms.stream);
    tn_buf_printf(b, "activations: %zu bytes in one arena, %zu without reuse; %d values in the place of another\n",
                  p->arena_bytes, p->naive_bytes, p->in_place);
    tn_buf_printf(b, "weights read: %llu bytes of the file a token\n", (unsigned long long)p->read_bytes);
    tn_buf_printf(b, "plan hash: %016llx\n", (unsigned long long)p->hash);
    tn_free(lives);
    return TN_OK;
}

static tn_status layer_picture(tn_buf *b, const tn_session *s, const tn_plan *p, tn_error *err) {
    int32_t *alike, n = s->model->hp.n_layer;
    tn_status status = tn_alike_layers(p, n, &alike, err);
    if (status == TN_OK) tn_draw_layer(b, p, tn_typical_layer(alike, n), true);
    tn_free(alike);
    return status;
}

/* ---- json ---- */

static void append(tn_buf *b, json_t *list, json_t *item) {
    if (json_array_append_new(list, item)) b->failed = true;
}

static json_t *json_rules(tn_buf *b, const tn_plan *p) {
    json_t *rules = json_array();
    for (int32_t i = 0; i < p->partition.n_rules; i++) {
        const tn_rule_log *r = &p->partition.log[i];
        json_t *rejects = json_array();
        for (const tn_reject *e = r->rejects; e; e = e->next)
            append(b, rejects,
                   json_pack("{s:s, s:s, s:i}", "reason", e->reason, "example", e->example, "count", e->count));
        append(b, rules,
               json_pack("{s:s, s:s, s:b, s:i, s:o}", "name", r->name, "formula", r->formula, "on", r->on, "fired",
                         r->fired, "rejects", rejects));
    }
    return rules;
}

static json_t *json_launches(tn_buf *b, const tn_plan *p) {
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
            append(b, nodes,
                   json_pack("{s:s, s:s, s:i, s:s, s:I}", "name", n->name, "op", tn_ops[n->op].name, "layer",
                             n->layer, "text", line.p ? line.p : "", "offset",
                             (json_int_t)p->offset[launch->nodes[i] * TN_MAX_OUT]));
        }
        append(b, launches,
               json_pack("{s:s, s:s, s:s, s:o}", "kind", tn_kind_name(launch->kind), "kernel", p->kernel[l], "rules",
                         launch->rules ? launch->rules : "", "nodes", nodes));
    }
    b->failed |= line.failed;
    tn_buf_free(&line);
    return launches;
}

static json_t *json_memory(tn_buf *b, const tn_plan *p, const tn_life *lives, int32_t n) {
    json_t *memory = json_array();
    for (int32_t i = 0; i < n; i++) {
        const tn_life *v = &lives[i];
        append(b, memory,
               json_pack("{s:s, s:i, s:I, s:I, s:i, s:i}", "node", p->graph.nodes[v->node].name, "output", v->out,
                         "offset", (json_int_t)v->offset, "bytes", (json_int_t)v->bytes, "first_launch", v->first,
                         "last_launch", v->last));
    }
    return memory;
}

static tn_status json(tn_buf *b, const tn_session *s, const tn_plan *p, const tn_explain_options *o, tn_error *err) {
    int32_t n_lives;
    tn_life *lives;
    tn_status status = tn_plan_lives(p, &lives, &n_lives, err);
    if (status != TN_OK) return status;
    char hash[20];
    norm_counts norms = count_norms(s, p);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)p->hash);
    json_t *j =
        json_pack("{s:s, s:i, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:i, s:I, s:s, s:o, s:o, s:o}",
                  "architecture", s->model->arch->name, "layers", s->model->hp.n_layer, "backend",
                  s->model->backend->caps(s->model->device)->description, "phase", tn_phase_name(o->phase),
                  "launches", p->partition.n, "plain_nodes", p->n_plain, "norms", norms.all, "norms_fused",
                  norms.all_fused, "stream_norms", norms.stream, "stream_norms_fused", norms.stream_fused,
                  "arena_bytes", (json_int_t)p->arena_bytes, "arena_naive_bytes", (json_int_t)p->naive_bytes,
                  "in_place", p->in_place, "read_bytes", (json_int_t)p->read_bytes, "plan_hash", hash, "rules",
                  json_rules(b, p), "plan", json_launches(b, p), "memory", json_memory(b, p, lives, n_lives));
    char *t = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
    if (t)
        tn_buf_printf(b, "%s\n", t);
    else
        b->failed = true;
    free(t);
    json_decref(j);
    tn_free(lives);
    return TN_OK;
}

const char *tn_rule_name(int32_t i) {
    for (int32_t t = 0; t < tn_n_rule_tables && i >= 0; i -= tn_rule_tables[t++].n)
        if (i < tn_rule_tables[t].n) return tn_rule_tables[t].rules[i].name;
    return NULL;
}

tn_status tn_explain(const tn_session *s, const tn_explain_options *options, tn_sink out, tn_error *err) {
    static const tn_explain_options defaults = {0};
    const tn_explain_options *o = options ? options : &defaults;
    if (!tn_launch_count(s, o->phase) || (unsigned)o->format > TN_FORMAT_SVG)
        return tn_fail(err, TN_ERR_USAGE, "explain: no such phase or format");
    const tn_plan *p = &s->plan[o->phase];
    tn_buf b = {0};
    tn_status status = TN_OK;
    switch (o->format) {
    case TN_FORMAT_TEXT: status = text(&b, s, p, o, err); break;
    case TN_FORMAT_DOT: tn_explain_dot(&b, p); break;
    case TN_FORMAT_JSON: status = json(&b, s, p, o, err); break;
    case TN_FORMAT_HTML: status = tn_explain_html(&b, s, p, err); break;
    case TN_FORMAT_SVG: status = layer_picture(&b, s, p, err); break;
    }
    if (status == TN_OK && b.failed) status = tn_fail_memory(err);
    if (status == TN_OK) put(out, &b);
    tn_buf_free(&b);
    return status;
}
