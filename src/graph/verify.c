/* Is this graph legal? A list of checks, run before and after every pass. Each check looks at one node and returns what is
 * wrong with it, or NULL. */
#include "graph/graph.h"

typedef const char *check_fn(const tn_graph *g, const tn_node *n, int32_t id);

static bool is_f32(const tn_graph *g, tn_src s) {
    return tn_shape_of(g, s)->dtype == TN_F32;
}

static const char *check_op(const tn_graph *g, const tn_node *n, int32_t id) {
    (void)g, (void)id;
    if (n->op < 0 || n->op >= TN_OP_COUNT) return "unknown op";
    if (!n->name || !n->name[0]) return "no name";
    const tn_op_info *op = &tn_ops[n->op];
    if (n->n_src < op->min_src || n->n_src > op->max_src) return "wrong number of sources";
    bool two = n->op == TN_OP_TOP_K || n->op == TN_OP_BEST || n->op == TN_OP_CONV1D || n->op == TN_OP_GATED_DELTA_NET;
    if (n->n_out != 1 + two) return "wrong number of outputs";
    return NULL;
}

static const char *check_sources(const tn_graph *g, const tn_node *n, int32_t id) {
    for (int i = 0; i < n->n_src; i++) {
        tn_src s = n->src[i];
        if (s.node < 0 || s.node >= id) return "a source does not stand before its use";
        if (s.out < 0 || s.out >= g->nodes[s.node].n_out) return "a source names an output that is not there";
        if (s.first < 0 || s.cols < 1 || s.first + s.cols > tn_shape_of(g, s)->cols) return "a slice out of range";
    }
    return NULL;
}

static const char *check_shape(const tn_graph *g, const tn_node *n, int32_t id) {
    (void)id;
    for (int i = 0; i < n->n_out; i++) {
        const tn_shape *s = &n->out[i];
        if (s->cols < 1 || (s->rows == TN_ROWS_FIXED && s->n_rows < 1)) return "an empty shape";
        if (s->dtype == TN_Q8 && (s->cols % 32 || n->attr.head_dim % 32))
            return "an int8 row is not whole blocks of 32";
    }
    bool element = tn_ops[n->op].class == TN_ELEMENT || tn_ops[n->op].class == TN_BLOCK;
    if (element && n->out[0].cols != n->src[0].cols) return "an element op changes the row length";
    if (element && !is_f32(g, n->src[0])) return "an element op reads what is not f32";
    return NULL;
}

static const char *check_rows(const tn_graph *g, const tn_node *n, int32_t id) {
    (void)id;
    if (n->op == TN_OP_SELECT_ROWS) return NULL;
    for (int i = 0; i < n->n_src; i++) {
        const tn_shape *s = tn_shape_of(g, n->src[i]);
        if (s->rows == TN_ROWS_FIXED) continue; /* weights, states */
        if (s->rows != n->out[0].rows && n->out[0].dtype != TN_DTYPE_STATE)
            return "rows of a source and of the result differ";
    }
    return NULL;
}

static const char *check_binary(const tn_graph *g, const tn_node *n, int32_t id) {
    (void)id;
    if (n->op != TN_OP_ADD && n->op != TN_OP_MUL) return NULL;
    tn_src y = n->src[1];
    if (n->src[0].cols % y.cols) return "the second operand does not repeat evenly";
    const tn_weight *w = tn_src_weight(g, y);
    if (w && w->type != TN_TYPE_F32) return "an element operand from a weight must be f32";
    if (!w && !is_f32(g, y)) return "an element op reads what is not f32";
    return NULL;
}

static const char *check_heads(const tn_graph *g, const tn_node *n, int32_t id) {
    (void)g, (void)id;
    int32_t d = n->attr.head_dim;
    if ((n->op == TN_OP_RMS_NORM || n->op == TN_OP_L2_NORM || n->op == TN_OP_ROPE) && d && n->src[0].cols % d)
        return "rows are not whole heads";
    if (n->op != TN_OP_ROPE) return NULL;
    if (d < 1 || n->attr.n_rot < 2 || n->attr.n_rot % 2 || n->attr.n_rot > d) return "rope of an impossible width";
    return n->src[1].cols != n->attr.n_rot ? "the rope table has another width" : NULL;
}

static const char *check_matmul(const tn_graph *g, const tn_node *n, int32_t id) {
    (void)id;
    if (n->op != TN_OP_MATMUL) return NULL;
    const tn_weight *w = tn_src_weight(g, n->src[1]);
    if (!w) return "the second operand is not a weight";
    if (w->n_in != n->src[0].cols || w->n_out != n->out[0].cols) return "the weight has another shape";
    if (n->src[1].first || n->src[1].cols != w->n_in) return "a weight cannot be sliced";
    tn_dtype x = tn_shape_of(g, n->src[0])->dtype;
    if (x != TN_F32 && x != TN_Q8) return "an activation is neither f32 nor int8";
    if (x == TN_Q8 && n->src[0].cols != tn_shape_of(g, n->src[0])->cols) return "an int8 row cannot be sliced";
    return NULL;
}

static const char *check_choice(const tn_graph *g, const tn_node *n, int32_t id) {
    (void)id;
    for (int k = 0; k < n->n_src; k++)
        if (n->src[k].node > 0 && (n->src[k].node == g->choice || n->src[k].node == g->best))
            return "reads what is a result only";
    if (n->op != TN_OP_ARGMAX && n->op != TN_OP_BEST) return NULL;
    if (!is_f32(g, n->src[0])) return "chooses from what is not f32";
    if (n->op == TN_OP_BEST && n->out[0].cols > n->src[0].cols) return "chooses more than there are";
    if (n->op == TN_OP_BEST)
        return n->out[0].dtype != TN_I32 || n->out[1].dtype != TN_F32 || n->out[1].cols != n->out[0].cols
                   ? "the result is not indices and what stands there"
                   : NULL;
    return n->out[0].cols != 1 || n->out[0].dtype != TN_I32 ? "the result is not one index" : NULL;
}

static const char *check_experts(const tn_graph *g, const tn_node *n, int32_t id) {
    (void)id;
    int32_t k = n->attr.n_used;
    if (n->op == TN_OP_TOP_K) {
        if (k < 1 || k > n->src[0].cols) return "chooses more experts than there are";
        if (n->n_src > 1 && n->src[1].cols != n->src[0].cols) return "not a scale for each expert";
    }
    if (n->op == TN_OP_EXPERT_SUM && (k < 1 || n->src[1].cols != k || n->src[0].cols != k * n->out[0].cols))
        return "not a result of each chosen expert";
    if (n->op != TN_OP_MATMUL_ID) return NULL;
    const tn_weight *w = tn_src_weight(g, n->src[1]);
    if (!w || w->n_expert < 1 || w->n_out % w->n_expert) return "the second operand is not a weight of experts";
    if (tn_shape_of(g, n->src[2])->dtype != TN_I32 || n->src[2].cols != k)
        return "the third operand is not the experts chosen";
    if (n->src[0].cols != w->n_in && n->src[0].cols != k * w->n_in) return "the weight has another shape";
    return n->out[0].cols != k * (w->n_out / w->n_expert) ? "the result has another width" : NULL;
}

static const char *check_recurrent(const tn_graph *g, const tn_node *n, int32_t id) {
    (void)id;
    const tn_attr *a = &n->attr;
    if (n->op != TN_OP_CONV1D && n->op != TN_OP_GATED_DELTA_NET) return NULL;
    const tn_shape *state = tn_shape_of(g, n->src[0]);
    if (state->dtype != TN_DTYPE_STATE) return "reads what is not a state";
    if (n->op == TN_OP_CONV1D) {
        const tn_weight *w = tn_src_weight(g, n->src[2]);
        if (!w || w->type != TN_TYPE_F32 || w->n_out != n->src[1].cols || w->n_in != a->kernel)
            return "not a tap for each column";
        return state->cols != (a->kernel - 1) * n->src[1].cols ? "the state has another size" : NULL;
    }
    if (a->n_kv < 1 || a->n_head % a->n_kv || state->cols != a->n_head * a->head_dim * a->v_dim)
        return "heads do not share key heads evenly, or the state has another size";
    if (n->src[1].cols != a->n_kv * a->head_dim || n->src[2].cols != n->src[1].cols)
        return "q or k has another width";
    if (n->src[3].cols != a->n_head * a->v_dim) return "v has another width";
    return n->src[4].cols != a->n_head || n->src[5].cols != a->n_head ? "not a gate for each head" : NULL;
}

static bool writes_state(const tn_node *n) {
    return !tn_is_leaf(n) && n->out[n->n_out - 1].dtype == TN_DTYPE_STATE;
}

/* A state value is consumed by one write: after it nothing may read or write the old one. */
static const char *check_replaced(const tn_graph *g, const tn_node *n, int32_t id) {
    if (!writes_state(n) && n->op != TN_OP_ATTENTION) return NULL;
    tn_src state = n->src[n->op == TN_OP_ATTENTION ? 1 : 0];
    for (int32_t i = 0; i < id; i++)
        if (writes_state(&g->nodes[i]) && tn_src_same(g->nodes[i].src[0], state))
            return "uses a state that was already replaced";
    return NULL;
}

/* Rows are looked up in a weight. */
static const char *check_embed(const tn_graph *g, const tn_node *n, int32_t id) {
    (void)id;
    if (n->op != TN_OP_EMBED) return NULL;
    if (!tn_src_weight(g, n->src[1])) return "the table is not a weight";
    return tn_shape_of(g, n->src[0])->dtype != TN_I32 ? "the first operand is not token ids" : NULL;
}

static const char *check_state(const tn_graph *g, const tn_node *n, int32_t id) {
    (void)id;
    if (n->op == TN_OP_KV_WRITE) {
        if (tn_shape_of(g, n->src[0])->dtype != TN_DTYPE_STATE) return "writes what is not a state";
        if (n->src[1].cols != n->attr.n_kv * n->attr.head_dim) return "k has another width than the cache";
        if (n->src[2].cols != n->attr.n_kv * n->attr.v_dim) return "v has another width than the cache";
    }
    if (n->op == TN_OP_ATTENTION) {
        const tn_node *cache = &g->nodes[n->src[1].node];
        if (cache->out[0].dtype != TN_DTYPE_STATE) return "reads what is not a state";
        if (n->attr.n_kv < 1 || n->attr.n_head % n->attr.n_kv) return "heads do not share kv heads evenly";
        if (n->src[0].cols != n->attr.n_head * n->attr.head_dim) return "q has another width than the heads";
        if (cache->attr.head_dim != n->attr.head_dim || cache->attr.v_dim != n->attr.v_dim ||
            cache->attr.n_kv != n->attr.n_kv)
            return "the cache has other heads";
    }
    return NULL;
}

static check_fn *const checks[] = {check_op,       check_sources, check_shape,   check_rows,      check_binary,
                                   check_heads,    check_matmul,  check_experts, check_recurrent, check_state,
                                   check_replaced, check_embed,   check_choice};

tn_status tn_graph_verify(const tn_graph *g, tn_error *err) {
    if (g->failed) return tn_fail_memory(err);
    if (g->choice < 0 || g->choice >= g->n || (g->choice && g->nodes[g->choice].op != TN_OP_ARGMAX))
        return tn_fail(err, TN_ERR_INTERNAL, "graph: the choice is no argmax");
    if (g->best < 0 || g->best >= g->n || (g->best && g->nodes[g->best].op != TN_OP_BEST))
        return tn_fail(err, TN_ERR_INTERNAL, "graph: the best are not chosen");
    for (int32_t i = 0; i < g->n; i++) {
        for (size_t k = 0; k < sizeof checks / sizeof *checks; k++) {
            const char *wrong = checks[k](g, &g->nodes[i], i);
            const char *name = g->nodes[i].name ? g->nodes[i].name : "?";
            if (wrong) return tn_fail(err, TN_ERR_INTERNAL, "graph: node %d (%s): %s", i, name, wrong);
        }
    }
    if (g->output < 0 || g->output >= g->n) return tn_fail(err, TN_ERR_INTERNAL, "graph: no output");
    return TN_OK;
}
