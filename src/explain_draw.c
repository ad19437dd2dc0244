/* Pictures of a plan. A layer as an SVG: each launch is a box with its nodes, in which what depends on what goes down;
 * thin lines stay inside a launch, thick ones go through memory. The whole plan for Graphviz. */
#include "base/mem.h"
#include "explain.h"

#include <string.h>

const char *tn_kind_colour(int kind) {
    static const char *const colours[] = {"#9ecae9", "#b5dfa5", "#7fb8e0", "#f2cf8d",
                                          "#f5b88a", "#f0a3a3", "#c9b3e6", "#a6dcd5"};
    int i = kind - TN_KIND_FIRST - 1;
    return i < 0 ? "#dddddd" : colours[i % (int)(sizeof colours / sizeof *colours)];
}

void tn_add_escaped(tn_buf *b, const char *text) {
    for (; *text; text++) {
        const char *as = *text == '&'   ? "&amp;"
                         : *text == '<' ? "&lt;"
                         : *text == '>' ? "&gt;"
                         : *text == '"' ? "&quot;"
                                        : NULL;
        if (as)
            tn_buf_str(b, as);
        else
            tn_buf_char(b, *text);
    }
}

/* ---- a layer ---- */

enum { CELL = 190, CHIP = 176, CHIP_H = 32, ROW = 46, PAD = 10, HEAD = 20, GAP = 20, MAX_INPUTS = 8 };
enum { MARGIN = 30, LANE = 7, MAX_LANES = 24 };

/* Where the things of a picture are. */
typedef struct layout {
    const tn_plan *p;
    int32_t layer;
    int32_t *x, *y;                 /* of each node: the middle of its chip's top; y < 0: not in the picture */
    int32_t input[MAX_INPUTS], n;   /* values from outside it: of the layer before, and states */
    int32_t lane[MAX_LANES], lanes; /* nodes whose value passes by a launch: each has its lane on the right */
    int32_t width, height;
} layout;

/* Rows of a launch: how far a node is from what enters it. Returns their number. */
static int32_t depths(const tn_plan *p, const tn_launch *l, int32_t *depth) {
    int32_t most = 0;
    for (int32_t i = 0; i < l->n; i++) {
        const tn_node *n = &p->graph.nodes[l->nodes[i]];
        depth[i] = 0;
        for (int k = 0; k < n->n_src; k++) {
            int32_t from = tn_index_in(l->nodes, i, n->src[k].node);
            if (from >= 0 && depth[from] + 1 > depth[i]) depth[i] = depth[from] + 1;
        }
        most = depth[i] > most ? depth[i] : most;
    }
    return most + 1;
}

static int32_t columns_of(const int32_t *depth, int32_t n, int32_t row) {
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++) count += depth[i] == row;
    return count;
}

static int32_t box_height(int32_t rows) {
    return HEAD + rows * ROW - (ROW - CHIP_H) + PAD;
}

static void place_launch(layout *v, const tn_launch *l) {
    int32_t depth[TN_LAUNCH_MAX], rows = depths(v->p, l, depth);
    for (int32_t row = 0; row < rows; row++) {
        int32_t columns = columns_of(depth, l->n, row), c = 0;
        for (int32_t i = 0; i < l->n; i++) {
            if (depth[i] != row) continue;
            v->x[l->nodes[i]] = v->width / 2 + (2 * c++ - columns + 1) * CELL / 2;
            v->y[l->nodes[i]] = v->height + HEAD + row * ROW;
        }
    }
    v->height += box_height(rows) + GAP;
}

static void find_inputs(layout *v) {
    const tn_graph *g = &v->p->graph;
    for (int32_t l = 0; l < v->p->partition.n; l++) {
        const tn_launch *launch = &v->p->partition.launch[l];
        if (!tn_launch_in_layer(v->p, l, v->layer)) continue;
        for (int32_t i = 0; i < launch->n; i++)
            for (int k = 0; k < g->nodes[launch->nodes[i]].n_src; k++) {
                int32_t from = g->nodes[launch->nodes[i]].src[k].node;
                bool leaf = tn_is_leaf(&g->nodes[from]);
                if (leaf ? g->nodes[from].op != TN_OP_STATE
                         : tn_launch_in_layer(v->p, v->p->partition.owner[from], v->layer))
                    continue;
                if (tn_index_in(v->input, v->n, from) < 0 && v->n < MAX_INPUTS) v->input[v->n++] = from;
            }
    }
}

/* "matmuls: group, matmul_act x2" */
static void add_title(tn_buf *b, const tn_launch *l) {
    tn_buf_str(b, tn_kind_name(l->kind));
    const char *sign = ": ";
    for (const char *p = l->rules ? l->rules : "", *next; *p; p = next, sign = ", ") {
        size_t n = strcspn(p, ",");
        int times = 0;
        for (next = p; !strncmp(next, p, n) && strcspn(next, ",") == n; times++) next += n + (next[n] ? 2 : 0);
        tn_buf_printf(b, "%s%.*s", sign, (int)n, p);
        if (times > 1) tn_buf_printf(b, " x%d", times);
    }
}

/* Whether an edge passes by a launch, or by more than its neighbours' rows. */
static bool passes_by(const layout *v, int32_t from, int32_t to) {
    const int32_t *owner = v->p->partition.owner;
    return owner[from] != owner[to] && v->y[to] - v->y[from] > 3 * ROW + HEAD;
}

static void find_lanes(layout *v) {
    const tn_graph *g = &v->p->graph;
    for (int32_t i = 0; i < g->n; i++)
        for (int k = 0; k < g->nodes[i].n_src && v->y[i] >= 0; k++) {
            int32_t from = g->nodes[i].src[k].node;
            if (v->y[from] < 0 || !passes_by(v, from, i) || tn_index_in(v->lane, v->lanes, from) >= 0) continue;
            if (v->lanes < MAX_LANES) v->lane[v->lanes++] = from;
        }
}

/* The widest row of chips, or the longest title; -1 where there is no memory for one. */
static int32_t width_of(const layout *v) {
    int32_t width = v->n * CELL, depth[TN_LAUNCH_MAX];
    tn_buf title = {0};
    for (int32_t l = 0; l < v->p->partition.n; l++) {
        const tn_launch *launch = &v->p->partition.launch[l];
        if (!tn_launch_in_layer(v->p, l, v->layer)) continue;
        int32_t rows = depths(v->p, launch, depth);
        for (int32_t r = 0; r < rows; r++) {
            int32_t row = columns_of(depth, launch->n, r) * CELL;
            width = row > width ? row : width;
        }
        title.n = 0;
        add_title(&title, launch);
        if ((int32_t)title.n * 6 + 30 > width) width = (int32_t)title.n * 6 + 30;
    }
    if (title.failed) width = -1;
    tn_buf_free(&title);
    return width;
}

static bool make_layout(layout *v) {
    size_t n = (size_t)v->p->graph.n;
    v->x = tn_alloc_zero(n, sizeof *v->x);
    v->y = tn_alloc(n * sizeof *v->y);
    if (!v->x || !v->y) return false;
    for (size_t i = 0; i < n; i++) v->y[i] = -1;
    find_inputs(v);
    int32_t width = width_of(v);
    if (width < 0) return false;
    v->width = width + 2 * MARGIN;
    for (int32_t i = 0; i < v->n; i++) {
        v->x[v->input[i]] = v->width / 2 + (2 * i - v->n + 1) * CELL / 2;
        v->y[v->input[i]] = PAD;
    }
    v->height = v->n ? PAD + CHIP_H + GAP : PAD;
    for (int32_t l = 0; l < v->p->partition.n; l++)
        if (tn_launch_in_layer(v->p, l, v->layer)) place_launch(v, &v->p->partition.launch[l]);
    find_lanes(v);
    return true;
}

/* "Q4_K 4096 x 1024" for a node with a matrix, else what its op is called. */
static void describe(tn_buf *b, const tn_graph *g, const tn_node *n) {
    tn_buf_str(b, tn_ops[n->op].name);
    for (int k = 0; k < n->n_src; k++) {
        const tn_weight *w = tn_src_weight(g, n->src[k]);
        if (w && tn_ops[n->op].class == TN_MATMUL)
            tn_buf_printf(b, " %s %dx%d", tn_type_get(w->type)->name, w->n_in, w->n_out);
    }
}

static void draw_chip(tn_buf *b, const layout *v, int32_t node, bool input) {
    const tn_graph *g = &v->p->graph;
    const tn_node *n = &g->nodes[node];
    tn_buf line = {0};
    tn_print_node(&line, g, n);
    tn_buf_printf(b, "<g><title>");
    tn_add_escaped(b, line.p ? line.p : "");
    tn_buf_printf(
        b,
        "\n%s</title><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"4\" fill=\"%s\" stroke=\"#666\" "
        "stroke-width=\".6\"/>",
        tn_ops[n->op].formula, v->x[node] - CHIP / 2, v->y[node], CHIP, CHIP_H, input ? "none" : "#ffffff");
    tn_buf_printf(b, "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">", v->x[node], v->y[node] + 13);
    tn_add_escaped(b, n->name);
    tn_buf_printf(b, "</text><text x=\"%d\" y=\"%d\">", v->x[node], v->y[node] + 26);
    describe(b, g, n);
    tn_buf_str(b, "</text></g>\n");
    b->failed |= line.failed;
    tn_buf_free(&line);
}

static int32_t top_of(const layout *v, const tn_launch *l) {
    int32_t top = v->y[l->nodes[0]];
    for (int32_t i = 0; i < l->n; i++) top = v->y[l->nodes[i]] < top ? v->y[l->nodes[i]] : top;
    return top;
}

/* Around what it passes by: down to below its row, to its lane, down, and back above the row, or the box, that it leads to. */
static void draw_detour(tn_buf *b, const layout *v, int32_t from, int32_t to) {
    int32_t lane = tn_index_in(v->lane, v->lanes, from), x = v->width - MARGIN + LANE * (1 + (lane < 0 ? 0 : lane));
    int32_t shift = lane < 0 ? 0 : lane % 3 * 2, owner = v->p->partition.owner[from];
    const tn_launch *l = owner < 0 ? NULL : &v->p->partition.launch[owner],
                    *k = &v->p->partition.launch[v->p->partition.owner[to]];
    bool first = v->y[to] == top_of(v, k);
    int32_t y0 = v->y[from] + CHIP_H, y1 = v->y[to];
    tn_buf_printf(b, "M%d %dV%dH%dV%dH%dV%d\"/>\n", v->x[from], y0, y0 + (l ? 5 : 9) + shift, x,
                  first ? y1 - HEAD - 5 - shift : y1 - 4 - shift, v->x[to], y1);
}

static void draw_edges(tn_buf *b, const layout *v, int32_t node) {
    const tn_graph *g = &v->p->graph;
    const int32_t *owner = v->p->partition.owner;
    for (int k = 0; k < g->nodes[node].n_src; k++) {
        int32_t from = g->nodes[node].src[k].node;
        if (v->y[from] < 0) continue;
        bool inside = owner[from] == owner[node];
        int32_t x0 = v->x[from], y0 = v->y[from] + CHIP_H, x1 = v->x[node], y1 = v->y[node];
        tn_buf_printf(b, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"%s\" d=\"", inside ? "#888" : "#222",
                      inside ? "1" : "2.2");
        if (passes_by(v, from, node))
            draw_detour(b, v, from, node);
        else
            tn_buf_printf(b, "M%d %dC%d %d %d %d %d %d\"/>\n", x0, y0, x0, (y0 + y1) / 2 + 4, x1, (y0 + y1) / 2 - 4,
                          x1, y1);
    }
}

static void draw_box(tn_buf *b, const layout *v, int32_t launch) {
    const tn_launch *l = &v->p->partition.launch[launch];
    int32_t depth[TN_LAUNCH_MAX], rows = depths(v->p, l, depth);
    tn_buf_str(b, "<g><title>");
    tn_add_escaped(b, v->p->kernel[launch]);
    tn_buf_printf(b,
                  "</title><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"8\" fill=\"%s\" "
                  "stroke=\"#444\"/></g>\n",
                  MARGIN, top_of(v, l) - HEAD, v->width - 2 * MARGIN, box_height(rows), tn_kind_colour(l->kind));
}

static void draw_title(tn_buf *b, const layout *v, const tn_launch *l) {
    tn_buf_printf(b, "<text x=\"40\" y=\"%d\" style=\"text-anchor:start\">", top_of(v, l) - 6);
    add_title(b, l);
    tn_buf_str(b, "</text>\n");
}

void tn_draw_layer(tn_buf *b, const tn_plan *p, int32_t layer, bool alone) {
    layout v = {.p = p, .layer = layer};
    if (!make_layout(&v)) b->failed = true;
    if (!b->failed) {
        int32_t width = v.width + LANE * v.lanes;
        tn_buf_printf(b,
                      "<svg class=\"layer\"%s viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
                      "font-family=\"ui-monospace, monospace\" font-size=\"10\" text-anchor=\"middle\">\n",
                      alone ? " xmlns=\"http://www.w3.org/2000/svg\"" : "", width, v.height, width, v.height);
        if (alone) tn_buf_str(b, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n");
        for (int pass = 0; pass < 3; pass++) /* boxes below lines below nodes */
            for (int32_t l = 0; l < p->partition.n; l++) {
                if (!tn_launch_in_layer(p, l, layer)) continue;
                if (pass == 0) draw_box(b, &v, l);
                if (pass == 2) draw_title(b, &v, &p->partition.launch[l]);
                for (int32_t i = 0; i < p->partition.launch[l].n; i++) {
                    if (pass == 1) draw_edges(b, &v, p->partition.launch[l].nodes[i]);
                    if (pass == 2) draw_chip(b, &v, p->partition.launch[l].nodes[i], false);
                }
            }
        for (int32_t i = 0; i < v.n; i++) draw_chip(b, &v, v.input[i], true);
        tn_buf_str(b, "</svg>\n");
    }
    tn_free(v.x);
    tn_free(v.y);
}

/* ---- dot ---- */

static void dot_launch(tn_buf *b, const tn_plan *p, int32_t l) {
    const tn_launch *launch = &p->partition.launch[l];
    tn_buf_printf(b, "  subgraph cluster_%d { label=\"%d %s\"; tooltip=\"", l, l, tn_kind_name(launch->kind));
    tn_add_escaped(b, p->kernel[l]);
    tn_buf_printf(b, "\"; style=\"filled,rounded\"; fillcolor=\"%s\"; color=\"#444444\";\n",
                  tn_kind_colour(launch->kind));
    for (int32_t i = 0; i < launch->n; i++) {
        const tn_node *n = &p->graph.nodes[launch->nodes[i]];
        tn_buf_printf(b, "    n%d [label=\"", launch->nodes[i]);
        tn_add_escaped(b, n->name);
        tn_buf_str(b, "\\n");
        describe(b, &p->graph, n);
        tn_buf_str(b, "\"];\n");
    }
    tn_buf_str(b, "  }\n");
}

void tn_explain_dot(tn_buf *b, const tn_plan *p) {
    const tn_graph *g = &p->graph;
    tn_buf_printf(b, "digraph plan {\n  label=\"plan %016llx: %d launches; bold: through memory\";\n",
                  (unsigned long long)p->hash, p->partition.n);
    tn_buf_str(b, "  node [shape=box, style=filled, fillcolor=white, fontname=\"monospace\", fontsize=10];\n"
                  "  fontname=\"monospace\"; fontsize=10;\n");
    for (int32_t l = 0; l < p->partition.n; l++) dot_launch(b, p, l);
    for (int32_t i = 0; i < g->n; i++)
        for (int k = 0; k < g->nodes[i].n_src; k++) {
            int32_t from = g->nodes[i].src[k].node;
            if (tn_is_leaf(&g->nodes[from])) continue;
            bool inside = p->partition.owner[from] == p->partition.owner[i];
            tn_buf_printf(b, "  n%d -> n%d [%s];\n", from, i, inside ? "color=\"#888888\"" : "penwidth=2.2");
        }
    tn_buf_str(b, "}\n");
}
