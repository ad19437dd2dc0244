/* An explanation as one page that needs nothing from elsewhere: facts, the plain graph, the rules and their reasons, the layers (equal
 * ones once) with their launches in colour, and the memory over time. */
#include "base/mem.h"
#include "explain.h"

#include <stdarg.h>
#include <stdio.h>

static const char style[] =
    "body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#222}"
    "h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}code,td.c,pre{font-family:ui-monospace,monospace;font-"
    "size:12px}"
    "table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:2px 12px 2px "
    "0;border-bottom:1px solid #e5e5e2}"
    "td.n{text-align:right}tr.off td{color:#888}ul{margin:0;padding-left:1.2em}.scroll{overflow-x:auto}"
    "details{margin:.5em 0}summary{cursor:pointer;font-weight:600}.s{display:inline-block;width:.9em;height:.9em;"
    "border:1px solid #666;border-radius:3px;margin:0 .4em 0 1em;vertical-align:-1px}";

__attribute__((format(printf, 3, 4))) static void fact(tn_buf *b, const char *what, const char *format, ...) {
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    tn_buf_printf(b, "<tr><th>%s</th><td>", what);
    tn_add_escaped(b, text);
    tn_buf_str(b, "</td></tr>\n");
}

static void facts(tn_buf *b, const tn_session *s, const tn_plan *p) {
    const tn_model *m = s->model;
    tn_buf_str(b, "<table>\n");
    fact(b, "model", "%s%s%s, %d layers", m->name && *m->name ? m->name : "", m->name && *m->name ? ": " : "",
         m->arch->name, m->hp.n_layer);
    fact(b, "device", "%s", m->backend->caps(m->device)->description);
    fact(b, "phase", "%s, up to %d token%s a step", p->graph.one_token ? "decode" : "prefill", p->graph.max_tokens,
         p->graph.max_tokens == 1 ? "" : "s");
    fact(b, "launches", "%d, in place of %d nodes run one by one", p->partition.n, p->n_plain);
    fact(b, "weights", "%llu bytes of the file read for a token", (unsigned long long)p->read_bytes);
    fact(b, "activations", "%zu bytes in one arena; %zu were there no reuse; %d values take another's place",
         p->arena_bytes, p->naive_bytes, p->in_place);
    fact(b, "plan hash", "%016llx", (unsigned long long)p->hash);
    tn_buf_str(b, "</table>\n");
}

/* ---- rules ---- */

static void reasons(tn_buf *b, const tn_rule_log *r) {
    if (!r->on) {
        tn_buf_str(b, "switched off");
    } else if (!r->rejects) {
        tn_buf_str(b, r->fired ? "wherever its pattern occurs" : "its pattern does not occur");
    } else {
        tn_buf_str(b, "<ul>");
        for (const tn_reject *e = r->rejects; e; e = e->next) {
            tn_buf_printf(b, "<li>not %d times: ", e->count);
            tn_add_escaped(b, e->reason);
            tn_buf_str(b, " (<code>");
            tn_add_escaped(b, e->example);
            tn_buf_str(b, "</code>)</li>");
        }
        tn_buf_str(b, "</ul>");
    }
}

static void rules(tn_buf *b, const tn_plan *p) {
    tn_buf_str(
        b, "<h2>Rules</h2>\n<table>\n<tr><th>rule</th><th>fired</th><th>what it fuses</th><th>reasons</th></tr>\n");
    for (int32_t i = 0; i < p->partition.n_rules; i++) {
        const tn_rule_log *r = &p->partition.log[i];
        tn_buf_printf(b, "<tr%s><td class=c>%s</td><td class=n>%d</td><td class=c>", r->fired ? "" : " class=off",
                      r->name, r->fired);
        tn_add_escaped(b, r->formula);
        tn_buf_str(b, "</td><td>");
        reasons(b, r);
        tn_buf_str(b, "</td></tr>\n");
    }
    tn_buf_str(b, "</table>\n");
}

/* ---- layers ---- */

static void launch_nodes(tn_buf *b, const tn_plan *p, const tn_launch *l) {
    tn_buf line = {0};
    tn_buf_str(b, "<pre>");
    for (int32_t i = 0; i < l->n; i++) {
        line.n = 0;
        tn_print_node(&line, &p->graph, &p->graph.nodes[l->nodes[i]]);
        tn_add_escaped(b, line.p ? line.p : "");
        tn_buf_char(b, '\n');
    }
    tn_buf_str(b, "</pre>");
    b->failed |= line.failed;
    tn_buf_free(&line);
}

static void launch_row(tn_buf *b, const tn_plan *p, int32_t l) {
    const tn_launch *launch = &p->partition.launch[l];
    tn_buf_printf(b, "<tr><td class=n>%d</td><td style=\"background:%s\">%s</td><td class=c>", l,
                  tn_kind_colour(launch->kind), tn_kind_name(launch->kind));
    launch_nodes(b, p, launch);
    tn_buf_printf(b, "</td><td>%s</td><td class=c>", launch->rules ? launch->rules : "");
    tn_add_escaped(b, p->kernel[l]);
    tn_buf_str(b, "</td></tr>\n");
}

static void launch_table_begin(tn_buf *b) {
    tn_buf_str(
        b,
        "<div "
        "class=scroll><table>\n<tr><th>launch</th><th>kind</th><th>nodes</th><th>rules</th><th>kernel</th></tr>\n");
}

/* Layers [first, last], which are alike. */
static void layer_group(tn_buf *b, const tn_plan *p, int32_t first, int32_t last, bool open) {
    tn_buf_printf(b, "<details%s><summary>", open ? " open" : "");
    if (first == last)
        tn_buf_printf(b, "layer %d", first);
    else
        tn_buf_printf(b, "layers %d to %d, alike", first, last);
    tn_buf_str(b, "</summary>\n<div class=scroll>");
    tn_draw_layer(b, p, first, false);
    tn_buf_str(b, "</div><details><summary>nodes and kernels</summary>\n");
    launch_table_begin(b);
    for (int32_t l = 0; l < p->partition.n; l++)
        if (tn_launch_in_layer(p, l, first)) launch_row(b, p, l);
    tn_buf_str(b, "</table></div></details></details>\n");
}

static void legend(tn_buf *b) {
    tn_buf_str(b, "<p>Thin lines stay inside a launch; thick ones go through memory.");
    for (int k = TN_KIND_FIRST + 1; k < TN_KIND_LIMIT; k++)
        tn_buf_printf(b, "<span class=s style=\"background:%s\"></span>%s", tn_kind_colour(k), tn_kind_name(k));
    tn_buf_printf(b, "<span class=s style=\"background:%s\"></span>one node</p>\n", tn_kind_colour(0));
}

static bool outside_layers(const tn_plan *p, int32_t l) {
    const tn_launch *launch = &p->partition.launch[l];
    for (int32_t i = 0; i < launch->n; i++)
        if (p->graph.nodes[launch->nodes[i]].layer >= 0) return false;
    return true;
}

static tn_status layers(tn_buf *b, const tn_plan *p, int32_t n_layer, tn_error *err) {
    int32_t *alike;
    tn_status status = tn_alike_layers(p, n_layer, &alike, err);
    tn_buf_str(b, "<h2>After: layers and launches</h2>\n");
    legend(b);
    int32_t typical = alike && status == TN_OK ? tn_typical_layer(alike, n_layer) : 0;
    for (int32_t first = 0, last; first < n_layer && status == TN_OK; first = last + 1) {
        last = first;
        while (last + 1 < n_layer && alike[last + 1] == first) last++;
        layer_group(b, p, first, last, first == typical);
    }
    tn_buf_str(b, "<details><summary>before and after the layers</summary>\n");
    launch_table_begin(b);
    for (int32_t l = 0; l < p->partition.n; l++)
        if (outside_layers(p, l)) launch_row(b, p, l);
    tn_buf_str(b, "</table></div></details>\n");
    tn_free(alike);
    return status;
}

/* ---- the page ---- */

static void plain_graph(tn_buf *b, const tn_plan *p) {
    tn_buf text = {0};
    tn_print_plain(&text, p, false);
    tn_buf_printf(b, "<h2>Before</h2>\n<details><summary>the plain graph: %d nodes</summary><pre>", p->n_plain);
    tn_add_escaped(b, text.p ? text.p : "");
    tn_buf_str(b, "</pre></details>\n");
    b->failed |= text.failed;
    tn_buf_free(&text);
}

static tn_status memory(tn_buf *b, const tn_plan *p, tn_error *err) {
    tn_life *lives;
    int32_t n;
    tn_status status = tn_plan_lives(p, &lives, &n, err);
    tn_buf_printf(b,
                  "<h2>Memory</h2>\n<p>The stored values: launches from left to right, the arena (%zu bytes of it; "
                  "the results are larger than all else and not shown whole) from top to bottom, in the "
                  "colour of the launch that makes it. Point at one for its name.</p>\n<div class=scroll>",
                  status == TN_OK ? tn_lives_extent(p, lives, n) : 0);
    if (status == TN_OK) tn_draw_lives(b, p, lives, n);
    tn_buf_str(b, "</div>\n");
    tn_free(lives);
    return status;
}

tn_status tn_explain_html(tn_buf *b, const tn_session *s, const tn_plan *p, tn_error *err) {
    const tn_model *m = s->model;
    const char *title = m->name && *m->name ? m->name : m->arch->name;
    tn_buf_str(b, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    tn_add_escaped(b, title);
    tn_buf_printf(b, "</title><style>%s</style></head><body>\n<h1>", style);
    tn_add_escaped(b, title);
    tn_buf_str(b, "</h1>\n");
    facts(b, s, p);
    plain_graph(b, p);
    rules(b, p);
    tn_status status = layers(b, p, m->hp.n_layer, err);
    if (status == TN_OK) status = memory(b, p, err);
    tn_buf_str(b, "</body></html>\n");
    return status;
}
