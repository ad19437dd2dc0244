/* Building graphs: nodes with the shapes that follow from their sources. */
#include "graph/graph.h"

#include "base/mem.h"

const tn_op_info tn_ops[TN_OP_COUNT] = {
#define OP(NAME, name, min, max, class, commutes, bound, grain, formula)                                             \
    {#name, formula, min, max, TN_##class, commutes, grain, bound},
#include "graph/ops.def"
#undef OP
};

void tn_graph_free(tn_graph *g) {
    tn_arena_free(&g->arena);
    tn_free(g->nodes);
    *g = (tn_graph){0};
}

int32_t tn_graph_add(tn_graph *g, const tn_node *node) {
    if (g->n == g->cap) {
        int32_t cap = g->cap ? g->cap * 2 : 256;
        tn_node *nodes = tn_realloc(g->nodes, (size_t)cap * sizeof *nodes);
        if (!nodes) {
            g->failed = true;
            return -1;
        }
        g->nodes = nodes;
        g->cap = cap;
    }
    g->nodes[g->n] = *node;
    return g->n++;
}

/* What every builder ends with. After a failure values are node 0, so that builders need not check. */
static tn_val add(tn_graph *g, tn_node *node, const char *name) {
    node->layer = g->layer;
    node->n_out = node->n_out ? node->n_out : 1;
    if (name && g->layer >= 0 && !tn_is_leaf(node)) {
        node->name = tn_arena_printf(&g->arena, "l%d.%s", g->layer, name);
    } else {
        node->name = name ? tn_arena_printf(&g->arena, "%s", name) : NULL;
    }
    if (!node->name) g->failed = true;
    int32_t id = g->failed ? -1 : tn_graph_add(g, node);
    return (tn_val){.node = id < 0 ? 0 : id, .cols = node->out[0].cols};
}

static tn_shape f32_like(const tn_graph *g, tn_val x, int32_t cols) {
    tn_shape s = *tn_shape_of(g, x);
    s.dtype = TN_F32;
    s.cols = cols;
    return s;
}

tn_val tn_g_slice(tn_val x, int32_t first, int32_t cols) {
    x.first += first;
    x.cols = cols;
    return x;
}

tn_val tn_g_weight(tn_graph *g, int32_t index, const tn_weight *w) {
    for (int32_t i = 0; i < g->n; i++) /* a weight is one node however often it is used */
        if (g->nodes[i].op == TN_OP_WEIGHT && g->nodes[i].attr.index == index)
            return (tn_val){.node = i, .cols = w->n_in};
    tn_node n = {
        .op = TN_OP_WEIGHT, .out = {{TN_DTYPE_WEIGHT, TN_ROWS_FIXED, w->n_out, w->n_in}}, .attr.index = index};
    return add(g, &n, w->name);
}

tn_val tn_g_state(tn_graph *g, int32_t index, const char *name, const tn_attr *attr) {
    tn_node n = {.op = TN_OP_STATE,
                 .out = {{TN_DTYPE_STATE, TN_ROWS_FIXED, 1, attr->n_kv * (attr->head_dim + attr->v_dim)}},
                 .attr = *attr};
    n.attr.index = index;
    if (index >= g->n_states) g->n_states = index + 1;
    return add(g, &n, name);
}

tn_val tn_g_tokens(tn_graph *g) {
    tn_node n = {.op = TN_OP_INPUT, .out = {{TN_I32, TN_ROWS_TOKENS, 0, 1}}};
    return add(g, &n, "tokens");
}

tn_val tn_g_embed(tn_graph *g, tn_val ids, tn_val w, const char *name) {
    tn_node n = {.op = TN_OP_EMBED, .n_src = 2, .src = {ids, w}, .out = {{TN_F32, TN_ROWS_TOKENS, 0, w.cols}}};
    return add(g, &n, name);
}

tn_val tn_g_rope_table(tn_graph *g, const tn_val *factors, int32_t n_rot, tn_rope_params rope, const char *name) {
    tn_node n = {.op = TN_OP_ROPE_TABLE,
                 .n_src = factors ? 1 : 0,
                 .out = {{TN_F32, TN_ROWS_TOKENS, 0, n_rot}},
                 .attr = {.n_rot = n_rot, .rope = rope}};
    if (factors) n.src[0] = *factors;
    return add(g, &n, name);
}

tn_val tn_g_select_rows(tn_graph *g, tn_val x, const char *name) {
    tn_node n = {.op = TN_OP_SELECT_ROWS, .n_src = 1, .src = {x}, .out = {{TN_F32, TN_ROWS_OUTPUTS, 0, x.cols}}};
    return add(g, &n, name);
}

tn_val tn_g_norm(tn_graph *g, tn_op op, tn_val x, int32_t head_dim, float eps, const char *name) {
    tn_node n = {.op = op,
                 .n_src = 1,
                 .src = {x},
                 .out = {f32_like(g, x, x.cols)},
                 .attr = {.head_dim = head_dim == x.cols ? 0 : head_dim, .eps = eps}};
    return add(g, &n, name);
}

tn_val tn_g_unary(tn_graph *g, tn_op op, tn_val x, const char *name) {
    tn_node n = {.op = op, .n_src = 1, .src = {x}, .out = {f32_like(g, x, x.cols)}};
    return add(g, &n, name);
}

tn_val tn_g_scale(tn_graph *g, tn_val x, float factor, const char *name) {
    tn_node n = {.op = TN_OP_SCALE, .n_src = 1, .src = {x}, .out = {f32_like(g, x, x.cols)}, .attr.factor = factor};
    return add(g, &n, name);
}

tn_val tn_g_softcap(tn_graph *g, tn_val x, float cap, const char *name) {
    tn_node n = {.op = TN_OP_SOFTCAP, .n_src = 1, .src = {x}, .out = {f32_like(g, x, x.cols)}, .attr.softcap = cap};
    return add(g, &n, name);
}

tn_val tn_g_binary(tn_graph *g, tn_op op, tn_val x, tn_val y, const char *name) {
    tn_node n = {.op = op, .n_src = 2, .src = {x, y}, .out = {f32_like(g, x, x.cols)}};
    return add(g, &n, name);
}

tn_val tn_g_matmul(tn_graph *g, tn_val x, tn_val w, const char *name) {
    tn_node n = {.op = TN_OP_MATMUL, .n_src = 2, .src = {x, w}, .out = {f32_like(g, x, tn_shape_of(g, w)->n_rows)}};
    return add(g, &n, name);
}

tn_val tn_g_out(tn_val x, int32_t out, int32_t cols) {
    return (tn_val){.node = x.node, .out = out, .cols = cols};
}

tn_val tn_g_matmul_id(tn_graph *g, tn_val x, tn_val w, tn_val ids, const char *name) {
    const tn_weight *weight = tn_src_weight(g, w);
    int32_t rows = weight ? weight->n_out / weight->n_expert : 1;
    tn_node n = {.op = TN_OP_MATMUL_ID,
                 .n_src = 3,
                 .src = {x, w, ids},
                 .out = {f32_like(g, x, rows * ids.cols)},
                 .attr.n_used = ids.cols};
    return add(g, &n, name);
}

tn_val tn_g_top_k(tn_graph *g, tn_val probs, const tn_val *scale, int32_t n_used, bool norm, const char *name) {
    tn_node n = {.op = TN_OP_TOP_K,
                 .n_src = scale ? 2 : 1,
                 .n_out = 2,
                 .src = {probs},
                 .out = {f32_like(g, probs, n_used), f32_like(g, probs, n_used)},
                 .attr = {.n_used = n_used, .norm = norm}};
    n.out[1].dtype = TN_I32;
    if (scale) n.src[1] = *scale;
    return add(g, &n, name);
}

tn_val tn_g_argmax(tn_graph *g, tn_val x, const char *name) {
    tn_node n = {.op = TN_OP_ARGMAX, .n_src = 1, .src = {x}, .out = {f32_like(g, x, 1)}};
    n.out[0].dtype = TN_I32;
    return add(g, &n, name);
}

tn_val tn_g_best(tn_graph *g, tn_val x, int32_t k, const char *name) {
    tn_node n = {.op = TN_OP_BEST, .n_src = 1, .n_out = 2, .src = {x}, .out = {f32_like(g, x, k), f32_like(g, x, k)}};
    n.out[0].dtype = TN_I32;
    return add(g, &n, name);
}

tn_val tn_g_expert_sum(tn_graph *g, tn_val y, tn_val weights, const char *name) {
    tn_node n = {.op = TN_OP_EXPERT_SUM,
                 .n_src = 2,
                 .src = {y, weights},
                 .out = {f32_like(g, y, weights.cols ? y.cols / weights.cols : 1)},
                 .attr.n_used = weights.cols};
    return add(g, &n, name);
}

tn_val tn_g_recurrent_state(tn_graph *g, int32_t index, const char *name, int32_t size) {
    tn_node n = {.op = TN_OP_STATE,
                 .out = {{TN_DTYPE_STATE, TN_ROWS_FIXED, 1, size}},
                 .attr = {.index = index, .state_size = size}};
    if (index >= g->n_states) g->n_states = index + 1;
    return add(g, &n, name);
}

tn_val tn_g_conv1d(tn_graph *g, tn_val state, tn_val x, tn_val w, const char *name) {
    tn_node n = {.op = TN_OP_CONV1D,
                 .n_src = 3,
                 .n_out = 2,
                 .src = {state, x, w},
                 .out = {f32_like(g, x, x.cols), *tn_shape_of(g, state)},
                 .attr = {.index = g->nodes[state.node].attr.index, .kernel = w.cols}};
    return add(g, &n, name);
}

tn_val tn_g_gated_delta_net(tn_graph *g, const tn_val src[6], const tn_attr *attr, const char *name) {
    tn_node n = {.op = TN_OP_GATED_DELTA_NET,
                 .n_src = 6,
                 .n_out = 2,
                 .out = {f32_like(g, src[1], attr->n_head * attr->v_dim), *tn_shape_of(g, src[0])},
                 .attr = *attr};
    for (int i = 0; i < 6; i++) n.src[i] = src[i];
    n.attr.index = g->nodes[src[0].node].attr.index;
    return add(g, &n, name);
}

const void *tn_weight_row(const tn_weight *w, int32_t r) {
    size_t row = w->bytes / (size_t)w->n_out;
    size_t at = w->block ? (size_t)(r / w->block) * (size_t)w->pitch + (size_t)(r % w->block) : (size_t)r;
    return (const char *)w->data + at * row;
}

tn_val tn_g_quantize(tn_graph *g, tn_val x, const char *name) {
    tn_node n = {.op = TN_OP_QUANTIZE, .n_src = 1, .src = {x}, .out = {f32_like(g, x, x.cols)}};
    n.out[0].dtype = TN_Q8;
    return add(g, &n, name);
}

tn_val tn_g_rope(tn_graph *g, tn_val x, tn_val table, int32_t head_dim, int32_t n_rot, bool neox, const char *name) {
    tn_node n = {.op = TN_OP_ROPE,
                 .n_src = 2,
                 .src = {x, table},
                 .out = {f32_like(g, x, x.cols)},
                 .attr = {.head_dim = head_dim, .n_rot = n_rot, .neox = neox}};
    return add(g, &n, name);
}

tn_val tn_g_kv_write(tn_graph *g, tn_val cache, tn_val k, tn_val v, const char *name) {
    tn_node n = {.op = TN_OP_KV_WRITE,
                 .n_src = 3,
                 .src = {cache, k, v},
                 .out = {*tn_shape_of(g, cache)},
                 .attr = g->nodes[cache.node].attr};
    return add(g, &n, name);
}

tn_val tn_g_attention(tn_graph *g, tn_val q, tn_val cache, const tn_attr *attr, const char *name) {
    tn_node n = {.op = TN_OP_ATTENTION,
                 .n_src = 2,
                 .src = {q, cache},
                 .out = {f32_like(g, q, attr->n_head * attr->v_dim)},
                 .attr = *attr};
    n.attr.index = g->nodes[cache.node].attr.index;
    return add(g, &n, name);
}

const tn_weight *tn_src_weight(const tn_graph *g, tn_src s) {
    const tn_node *n = &g->nodes[s.node];
    return n->op == TN_OP_WEIGHT ? g->weights[n->attr.index] : NULL;
}

size_t tn_shape_row_bytes(const tn_shape *s) {
    return s->dtype == TN_Q8 ? tn_q8_row_bytes((size_t)s->cols) : (size_t)s->cols * 4;
}

int32_t tn_shape_max_rows(const tn_graph *g, const tn_shape *s) {
    switch (s->rows) {
    case TN_ROWS_FIXED: return s->n_rows;
    case TN_ROWS_TOKENS: return g->max_tokens;
    case TN_ROWS_OUTPUTS: return g->max_outputs;
    }
    return 0;
}
