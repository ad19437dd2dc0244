/* The plan's memory over time: each stored value has a place in the arena from the launch that makes it to the last that
 * reads it. As text, and as a picture. */
#include "base/mem.h"
#include "explain.h"

#include <string.h>

static tn_life life_of(const tn_plan *p, int32_t node, int32_t out) {
    const tn_shape *s = &p->graph.nodes[node].out[out];
    return (tn_life){.node = node,
                     .out = out,
                     .first = p->partition.owner[node],
                     .last = tn_plan_last_use(p, node, out),
                     .offset = p->offset[node * TN_MAX_OUT + out],
                     .bytes = tn_shape_row_bytes(s) * (size_t)tn_shape_max_rows(&p->graph, s)};
}

tn_status tn_plan_lives(const tn_plan *p, tn_life **lives, int32_t *n, tn_error *err) {
    tn_life *list = tn_alloc((size_t)p->graph.n * TN_MAX_OUT * sizeof *list);
    *lives = list;
    *n = 0;
    if (!list) return tn_fail_memory(err);
    for (int32_t l = 0; l < p->partition.n; l++)
        for (int32_t i = 0; i < p->partition.launch[l].n; i++) {
            int32_t node = p->partition.launch[l].nodes[i];
            for (int32_t o = 0; o < p->graph.nodes[node].n_out; o++)
                if (p->offset[node * TN_MAX_OUT + o] >= 0) list[(*n)++] = life_of(p, node, o);
        }
    return TN_OK;
}

size_t tn_lives_extent(const tn_plan *p, const tn_life *lives, int32_t n) {
    size_t extent = 1;
    for (int32_t i = 0; i < n; i++)
        if (lives[i].last < p->partition.n && (size_t)lives[i].offset + lives[i].bytes > extent)
            extent = (size_t)lives[i].offset + lives[i].bytes;
    return extent;
}

static bool reads(const tn_plan *p, int32_t launch, int32_t node, int32_t out) {
    const tn_launch *l = &p->partition.launch[launch];
    for (int32_t i = 0; i < l->n; i++) {
        const tn_node *n = &p->graph.nodes[l->nodes[i]];
        for (int k = 0; k < n->n_src; k++)
            if (n->src[k].node == node && n->src[k].out == out) return true;
    }
    return false;
}

void tn_print_lives(tn_buf *b, const tn_plan *p, const tn_life *lives, int32_t n, int32_t launch, int32_t columns) {
    static const char rank[] = ".-=#";
    int64_t arena = (int64_t)tn_lives_extent(p, lives, n);
    for (int32_t c = 0; c < columns; c++) {
        int best = 0;

        for (int32_t i = 0; i < n; i++) {
            const tn_life *v = &lives[i];
            if (launch < v->first || launch > v->last) continue;
            int64_t end = v->offset + (int64_t)v->bytes;
            if (v->offset * columns >= (c + 1) * arena || end * columns <= c * arena) continue;
            int is = launch == v->first ? 3 : reads(p, launch, v->node, v->out) ? 2 : 1;
            best = is > best ? is : best;
        }
        tn_buf_char(b, rank[best]);
    }
}

void tn_draw_lives(tn_buf *b, const tn_plan *p, const tn_life *lives, int32_t n) {
    enum { HEIGHT = 240, AXIS = 90, FOOT = 16 };
    double dx = p->partition.n > 240 ? 4 : 960.0 / p->partition.n;
    double dy = (double)HEIGHT / (double)tn_lives_extent(p, lives, n);
    double width = dx * (p->partition.n + 1);
    tn_buf_printf(b,
                  "<svg class=\"memory\" viewBox=\"-%d -10 %.0f %d\" width=\"%.0f\" height=\"%d\" role=\"img\" "
                  "font-family=\"ui-monospace, monospace\" font-size=\"10\">\n",
                  AXIS, width + AXIS, HEIGHT + FOOT + 10, width + AXIS, HEIGHT + FOOT + 10);
    for (int k = 0; k <= 4; k++) /* the arena's addresses on the left, the launches' numbers below */
        tn_buf_printf(b,
                      "<text x=\"-6\" y=\"%d\" text-anchor=\"end\">%zu B</text><text x=\"%.0f\" y=\"%d\" "
                      "text-anchor=\"middle\">%d</text>\n",
                      HEIGHT * k / 4 + 4, tn_lives_extent(p, lives, n) * (size_t)k / 4,
                      dx * (p->partition.n * k / 4 + 0.5), HEIGHT + FOOT - 3, p->partition.n * k / 4);
    tn_buf_printf(b, "<rect width=\"%.0f\" height=\"%d\" fill=\"#f4f4f2\"/>\n", width, HEIGHT);
    for (int32_t i = 0; i < n; i++) {
        const tn_life *v = &lives[i];
        const char *name = p->graph.nodes[v->node].name;
        tn_buf_printf(b,
                      "<rect x=\"%.1f\" y=\"%.2f\" width=\"%.1f\" height=\"%.2f\" fill=\"%s\" stroke=\"#555\" "
                      "stroke-width=\".4\"><title>",
                      dx * v->first, dy * (double)v->offset, dx * (v->last - v->first + 1), dy * (double)v->bytes,
                      tn_kind_colour(p->partition.launch[v->first].kind));
        tn_add_escaped(b, name);
        tn_buf_printf(b, ": %zu bytes at %lld, launches %d to %d</title></rect>\n", v->bytes, (long long)v->offset,
                      v->first, v->last);
    }
    tn_buf_str(b, "</svg>\n");
}
