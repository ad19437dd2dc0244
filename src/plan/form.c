/* Telling the form of a launch; see form.h. */
#include "plan/form.h"

/* Whether node i reads what the launch makes as it stands there: no slice of it and, unless the node is one that writes or reads
 * a state, nothing that repeats along its row. Then a tile or head of the result follows from the same tile or head. */
static bool reads_whole(const tn_graph *g, const int32_t *nodes, int32_t n, int32_t i) {
    const tn_node *node = &g->nodes[nodes[i]];
    for (int k = 0; k < node->n_src; k++) {
        tn_src s = node->src[k];
        if (tn_index_in(nodes, n, s.node) < 0 || tn_shape_of(g, s)->dtype == TN_DTYPE_STATE) continue;
        if (s.first || s.cols != tn_shape_of(g, s)->cols) return false;
        if (tn_ops[node->op].class != TN_STATE && s.cols != node->out[0].cols) return false;
    }
    return true;
}

/* Of a whole result of plain matmuls, one a launch. */
static const char *check_argmax(const tn_graph *g, const int32_t *nodes, int32_t n, const tn_form_limits *limits,
                                int32_t i) {
    tn_src s = g->nodes[nodes[i]].src[0];
    if (!limits->argmax_after) return "an argmax is a launch of its own here";
    for (int32_t j = 0; j < n; j++)
        if (g->nodes[nodes[j]].op == TN_OP_MATMUL_ID) return "an argmax of what several experts made";
    for (int32_t j = 0; j < n; j++)
        if (j != i && g->nodes[nodes[j]].op == TN_OP_ARGMAX) return "two argmaxes in one launch";
    return s.first || s.cols != tn_shape_of(g, s)->cols ? "an argmax of a slice" : NULL;
}

/* An op on tiles. */
static const char *check_after(const tn_graph *g, const int32_t *nodes, int32_t n, const tn_form *s, int32_t i) {
    const tn_node *node = &g->nodes[nodes[i]];
    tn_class class = tn_ops[node->op].class;
    if (class != TN_ELEMENT && class != TN_BLOCK) return "an op on the result needs whole rows";
    for (int k = 0; k < node->n_src; k++) {
        int32_t from = tn_index_in(nodes, n, node->src[k].node);
        if (from < 0) continue;
        if (s->role[from] == TN_BEFORE) return "an op on the result reads a row op of the same launch";
    }
    return reads_whole(g, nodes, n, i) ? NULL : "an op on the result reads a slice of it";
}

/* Whether an op that waits for no product is a sum of experts for the ops on the results: then it is made with them, column by
 * column. */
static bool is_sum_beside(const tn_graph *g, const int32_t *nodes, int32_t n, const tn_form *s, int32_t i) {
    bool read = false;
    if (g->nodes[nodes[i]].op != TN_OP_EXPERT_SUM || s->role[i] != TN_BEFORE) return false;
    for (int32_t j = i + 1; j < n; j++)
        for (int k = 0; k < g->nodes[nodes[j]].n_src; k++) {
            if (g->nodes[nodes[j]].src[k].node != nodes[i]) continue;
            if (s->role[j] != TN_AFTER) return false;
            read = true;
        }
    return read;
}

/* Before the products, one of them, or on their results; what is on the results follows from them, sums of experts apart. */
static void assign_roles(const tn_graph *g, const int32_t *nodes, int32_t n, tn_form *s) {
    for (int32_t i = 0; i < n; i++) {
        const tn_node *node = &g->nodes[nodes[i]];
        bool depends = false;
        for (int k = 0; k < node->n_src; k++) {
            int32_t from = tn_index_in(nodes, n, node->src[k].node);
            depends |= from >= 0 && s->role[from] != TN_BEFORE;
        }
        s->role[i] = tn_ops[node->op].class == TN_MATMUL ? TN_CORE : depends ? TN_AFTER : TN_BEFORE;
    }
    for (int32_t i = 0; i < n; i++)
        if (is_sum_beside(g, nodes, n, s, i)) s->role[i] = TN_AFTER;
}

/* Of experts whose results are there, added to the results of plain matmuls. */
static const char *check_sum(const tn_graph *g, const int32_t *nodes, int32_t n, const tn_form_limits *limits,
                             const tn_form *s, int32_t i) {
    if (!limits->max_rows_sum) return "a sum of experts is a launch of its own here";
    if (s->max_rows > limits->max_rows_sum) return "sums of experts for many rows: faster once, before";
    for (int32_t j = 0; j < n; j++)
        if (g->nodes[nodes[j]].op == TN_OP_MATMUL_ID) return "a sum of experts in a launch of experts";
    for (int k = 0; k < g->nodes[nodes[i]].n_src; k++)
        if (tn_index_in(nodes, n, g->nodes[nodes[i]].src[k].node) >= 0)
            return "a sum of experts reads what the same launch makes";
    return NULL;
}

/* Nodes that read each other's tiles get one part number. */
static void join_parts(const tn_graph *g, const int32_t *nodes, int32_t n, tn_form *s, int32_t i) {
    s->part[i] = s->n_parts++;
    for (int k = 0; k < g->nodes[nodes[i]].n_src; k++) {
        int32_t from = tn_index_in(nodes, n, g->nodes[nodes[i]].src[k].node);
        if (from < 0 || s->role[from] == TN_BEFORE || s->part[from] == s->part[i]) continue;
        int32_t gone = s->part[from];
        for (int32_t j = 0; j <= i; j++) {
            if (s->role[j] == TN_BEFORE) continue;
            if (s->part[j] == gone) s->part[j] = s->part[i];
        }
    }
}

/* Part numbers 0, 1, ... in order of first appearance. */
static void number_parts(tn_form *s, int32_t n) {
    int32_t next = 0;
    for (int32_t i = 0; i < n; i++) {
        if (s->role[i] == TN_BEFORE || s->part[i] < 0) continue;
        int32_t old = s->part[i];
        for (int32_t j = i; j < n; j++)
            if (s->role[j] != TN_BEFORE && s->part[j] == old) s->part[j] = -1 - next;
        next++;
    }
    for (int32_t i = 0; i < n; i++)
        if (s->role[i] != TN_BEFORE) s->part[i] = -1 - s->part[i];
    s->n_parts = next;
}

/* Columns that a node of a part works on. */
static int32_t width_of(const tn_node *node) {
    return node->op == TN_OP_ARGMAX ? node->src[0].cols : node->out[0].cols;
}

/* A row op before the products. */
static const char *check_before(const tn_node *node, const tn_form_limits *limits) {
    if (node->n_out > 1) return "an op of several results before the matmul";
    if (!limits->has_row_op(node->op)) return "no row kernel for an op before the matmul";
    return tn_ops[node->op].class == TN_STATE ? "a state written before the matmul" : NULL;
}

/* Products none of which waits for another one; experts are the same for all. */
static const char *check_core(const tn_graph *g, const int32_t *nodes, int32_t n, const tn_form *s, int32_t i) {
    const tn_node *node = &g->nodes[nodes[i]];
    for (int32_t j = 0; j < i; j++) {
        const tn_node *other = &g->nodes[nodes[j]];
        if (node->op == TN_OP_MATMUL_ID && other->op == node->op && !tn_src_same(node->src[2], other->src[2]))
            return "matmuls of differently chosen experts";
    }
    for (int k = 0; k < node->n_src; k++) {
        int32_t from = tn_index_in(nodes, n, node->src[k].node);
        if (from >= 0 && s->role[from] != TN_BEFORE) return "a matmul reads another one's result";
    }
    return NULL;
}

/* What speaks against node i in the role that it has. */
static const char *check_node(const tn_graph *g, const int32_t *nodes, int32_t n, const tn_form_limits *limits,
                              const tn_form *s, int32_t i) {
    const tn_node *node = &g->nodes[nodes[i]];
    if (s->role[i] == TN_BEFORE) return check_before(node, limits);
    if (s->role[i] == TN_CORE) return check_core(g, nodes, n, s, i);
    if (node->op == TN_OP_ARGMAX) return check_argmax(g, nodes, n, limits, i);
    return node->op == TN_OP_EXPERT_SUM ? check_sum(g, nodes, n, limits, s, i) : check_after(g, nodes, n, s, i);
}

/* Parts work on columns of one count, and have products of one kind. */
static const char *check_parts(const tn_graph *g, const int32_t *nodes, int32_t n, const tn_form_limits *limits,
                               const tn_form *s) {
    bool beside = false;
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j < i; j++) {
            const tn_node *a = &g->nodes[nodes[i]], *b = &g->nodes[nodes[j]];
            if (s->role[i] == TN_BEFORE || s->role[j] == TN_BEFORE) continue;
            bool differ = s->role[i] == TN_CORE && s->role[j] == TN_CORE && a->op != b->op;
            beside |= differ;
            if (s->part[i] != s->part[j]) continue;
            if (width_of(a) != width_of(b)) return "results of different widths meet";
            if (differ) return "results of experts and of plain matmuls meet";
        }
    if (!beside || s->max_rows <= limits->max_rows_beside) return NULL;
    return limits->max_rows_beside ? "too many rows for plain matmuls beside those of experts"
                                   : "experts and plain matmuls do not share a launch";
}

static const char *classify_matmuls(const tn_graph *g, const int32_t *nodes, int32_t n, const tn_form_limits *limits,
                                    tn_form *s) {
    s->kind = TN_FORM_MATMULS;
    assign_roles(g, nodes, n, s);
    bool before = false;
    for (int32_t i = 0; i < n; i++) {
        const char *why = check_node(g, nodes, n, limits, s, i);
        if (why) return why;
        before |= s->role[i] == TN_BEFORE;
    }
    if (before && s->max_rows > limits->max_rows_before)
        return "too many rows for every worker to do the norm by itself: it runs once, before";
    for (int32_t i = 0; i < n; i++)
        if (s->role[i] != TN_BEFORE) join_parts(g, nodes, n, s, i);
    number_parts(s, n);
    return check_parts(g, nodes, n, limits, s);
}

static bool is_scan(tn_op op) {
    return op == TN_OP_CONV1D || op == TN_OP_GATED_DELTA_NET;
}

/* An op that may run on one head's columns alone: heads are never cut. A norm of the whole row is one of a single head. */
static bool by_head(const tn_node *node, int32_t head_dim) {
    if (tn_ops[node->op].class == TN_ELEMENT) return true;
    return (node->op == TN_OP_ROPE || node->op == TN_OP_RMS_NORM || node->op == TN_OP_L2_NORM) &&
           (node->attr.head_dim ? node->attr.head_dim : node->out[0].cols) == head_dim;
}

static const char *classify_attend(const tn_graph *g, const int32_t *nodes, int32_t n, tn_form *s) {
    s->kind = TN_FORM_ATTEND;
    int32_t core = -1;
    for (int32_t i = 0; i < n; i++)
        if (g->nodes[nodes[i]].op == TN_OP_ATTENTION) {
            if (core >= 0) return "two attentions in one launch";
            core = i;
        }
    const tn_attr *a = &g->nodes[nodes[core]].attr;
    for (int32_t i = 0; i < n; i++) {
        const tn_node *node = &g->nodes[nodes[i]];
        s->role[i] = i < core ? TN_BEFORE : i == core ? TN_CORE : TN_AFTER;
        if (i <= core && !reads_whole(g, nodes, n, i)) return "the attention reads a slice of what is before it";
        if (i < core) {
            if (node->op == TN_OP_KV_WRITE && !g->one_token)
                return "a token would read what others write in the same launch";
            if (node->op == TN_OP_KV_WRITE) continue;
            int32_t cols = node->out[0].cols;
            if (!by_head(node, a->head_dim) || (cols != a->n_head * a->head_dim && cols != a->n_kv * a->head_dim))
                return "an op before the attention does not work head by head";
        } else if (i > core) {
            const char *why = check_after(g, nodes, n, s, i);
            if (why) return why;
            if (tn_ops[node->op].class == TN_BLOCK && a->n_head / a->n_kv * a->v_dim % 32)
                return "the heads of a kv head are not whole blocks of 32 columns";
        }
    }
    return NULL;
}

/* Along a sequence: the core is done token after token, so ops around it may need no more than its channel or head. */
static const char *classify_scan(const tn_graph *g, const int32_t *nodes, int32_t n, tn_form *s) {
    s->kind = TN_FORM_SCAN;
    int32_t core = -1;
    for (int32_t i = 0; i < n; i++)
        if (is_scan(g->nodes[nodes[i]].op)) {
            if (core >= 0) return "two recurrences in one launch";
            core = i;
        }
    const tn_node *c = &g->nodes[nodes[core]];
    bool heads = c->op == TN_OP_GATED_DELTA_NET;
    if (heads && c->attr.head_dim != c->attr.v_dim && n > 1) return "k and v heads of different sizes";
    for (int32_t i = 0; i < n; i++) {
        const tn_node *node = &g->nodes[nodes[i]];
        s->role[i] = i < core ? TN_BEFORE : i == core ? TN_CORE : TN_AFTER;
        if (!reads_whole(g, nodes, n, i)) return "a slice of a result inside the launch";
        if (i == core) continue;
        if (i < core && !heads) return "an op before the convolution";
        int32_t cols = node->out[0].cols;
        if (i > core && cols != c->out[0].cols) return "a result of another width than the recurrence's";
        if (i < core && cols != c->attr.n_kv * c->attr.head_dim && cols != c->attr.n_head * c->attr.v_dim)
            return "an op before the recurrence does not work head by head";
        if (tn_ops[node->op].class == TN_BLOCK && (heads ? c->attr.v_dim % 32 : c->out[0].cols % 32))
            return "a head is not whole blocks of 32 columns";
        if (heads ? !by_head(node, c->attr.v_dim) && tn_ops[node->op].class != TN_BLOCK
                  : tn_ops[node->op].class != TN_ELEMENT && tn_ops[node->op].class != TN_BLOCK)
            return "an op around the recurrence needs more than its head";
    }
    return NULL;
}

/* The rows a row op goes through: of its result or, where that is a state, of what it writes. */
static tn_rows rows_of(const tn_graph *g, int32_t id) {
    const tn_node *n = &g->nodes[id];
    return n->op == TN_OP_KV_WRITE ? tn_shape_of(g, n->src[1])->rows : n->out[0].rows;
}

static const char *classify_rows(const tn_graph *g, const int32_t *nodes, int32_t n, const tn_form_limits *limits,
                                 tn_form *s) {
    s->kind = TN_FORM_ROWS;
    for (int32_t i = 0; i < n; i++) {
        const tn_node *node = &g->nodes[nodes[i]];
        s->role[i] = TN_BEFORE;
        if (!limits->has_row_op(node->op)) return "no row kernel for the op";
        if (node->op == TN_OP_SELECT_ROWS && n > 1) return "rows are selected in a launch of their own";
        if (node->out[0].dtype != TN_DTYPE_STATE && rows_of(g, nodes[0]) != node->out[0].rows)
            return "ops on the tokens and ops on the output rows";
    }
    return NULL;
}

const char *tn_form_of(tn_form *form, const tn_graph *g, const int32_t *nodes, int32_t n,
                       const tn_form_limits *limits) {
    *form = (tn_form){0};
    if (n > TN_LAUNCH_MAX) return "too many nodes for one launch";
    bool matmul = false, attention = false, scan = false;
    for (int32_t i = 0; i < n; i++) {
        const tn_node *node = &g->nodes[nodes[i]];
        matmul |= tn_ops[node->op].class == TN_MATMUL;
        attention |= node->op == TN_OP_ATTENTION;
        scan |= is_scan(node->op);
        int32_t rows = tn_shape_max_rows(g, &node->out[0]);
        if (rows > form->max_rows) form->max_rows = rows;
    }
    if (matmul + attention + scan > 1) return "a matmul, an attention, a recurrence do not share a launch";
    return matmul      ? classify_matmuls(g, nodes, n, limits, form)
           : attention ? classify_attend(g, nodes, n, form)
           : scan      ? classify_scan(g, nodes, n, form)
                       : classify_rows(g, nodes, n, limits, form);
}
