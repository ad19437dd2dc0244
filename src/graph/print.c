/* Graphs as text. */
#include "graph/graph.h"

static void print_src(tn_buf *b, const tn_graph *g, tn_src s) {
    const tn_node *n = &g->nodes[s.node];
    tn_buf_str(b, n->name);
    if (n->n_out > 1) tn_buf_printf(b, ".%d", s.out);
    if (s.first || s.cols != n->out[s.out].cols) tn_buf_printf(b, "[%d:%d]", s.first, s.first + s.cols);
}

void tn_print_shape(tn_buf *b, const tn_shape *s) {
    static const char *const dtypes[] = {"f32", "q8", "i32", "weight", "state"};
    static const char *const rows[] = {NULL, "tokens", "outputs"};
    if (s->rows == TN_ROWS_FIXED) {
        tn_buf_printf(b, "%s[%d, %d]", dtypes[s->dtype], s->n_rows, s->cols);
    } else {
        tn_buf_printf(b, "%s[%s, %d]", dtypes[s->dtype], rows[s->rows], s->cols);
    }
}

void tn_print_attrs(tn_buf *b, const tn_node *node) {
    const tn_attr *a = &node->attr;
#define ATTR(name, field, is_float)                                                                                  \
    if (a->field != 0) {                                                                                             \
        if (is_float)                                                                                                \
            tn_buf_printf(b, " " #name "=%g", (double)a->field);                                                     \
        else                                                                                                         \
            tn_buf_printf(b, " " #name "=%d", (int)a->field);                                                        \
    }
#include "graph/attrs.def"
#undef ATTR
}

void tn_print_node(tn_buf *b, const tn_graph *g, const tn_node *n) {
    tn_buf_printf(b, "%s = %s(", n->name, tn_ops[n->op].name);
    for (int i = 0; i < n->n_src; i++) {
        if (i) tn_buf_str(b, ", ");
        print_src(b, g, n->src[i]);
    }
    tn_buf_char(b, ')');
    tn_print_attrs(b, n);
    tn_buf_str(b, " : ");
    for (int i = 0; i < n->n_out; i++) {
        if (i) tn_buf_str(b, ", ");
        tn_print_shape(b, &n->out[i]);
    }
    if (n->op == TN_OP_WEIGHT) tn_buf_printf(b, " %s", tn_type_get(g->weights[n->attr.index]->type)->name);
}

void tn_print_graph(tn_buf *b, const tn_graph *g) {
    for (int32_t i = 0; i < g->n; i++) {
        tn_print_node(b, g, &g->nodes[i]);
        tn_buf_char(b, '\n');
    }
}
