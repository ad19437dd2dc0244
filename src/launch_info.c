/* What a launch is, and the least that it must move: for profiling. */
#include "engine.h"

const char *tn_phase_name(tn_phase phase) {
    static const char *const names[] = {"decode", "prefill", "few"};
    return (unsigned)phase < TN_N_PHASES ? names[phase] : "?";
}

int32_t tn_launch_count(const tn_session *s, tn_phase phase) {
    return (unsigned)phase < TN_N_PHASES ? s->plan[phase].partition.n : 0;
}

bool tn_launch_get_info(const tn_session *s, tn_phase phase, int32_t launch, tn_launch_info *info) {
    if (launch < 0 || launch >= tn_launch_count(s, phase)) return false;
    const tn_plan *p = &s->plan[phase];
    const tn_launch *l = &p->partition.launch[launch];
    *info = (tn_launch_info){.kind = tn_kind_name(l->kind),
                             .kernel = p->kernel[launch],
                             .rules = l->rules,
                             .layer = -1,
                             .n_nodes = l->n,
                             .nodes = l->nodes};
    for (int32_t i = 0; i < l->n; i++) /* the embedding may share a launch with the first layer */
        if (p->graph.nodes[l->nodes[i]].layer > info->layer) info->layer = p->graph.nodes[l->nodes[i]].layer;
    return true;
}

bool tn_node_get_info(const tn_session *s, tn_phase phase, int32_t node, tn_node_info *info) {
    if ((unsigned)phase >= TN_N_PHASES || node < 0 || node >= s->plan[phase].graph.n) return false;
    const tn_node *n = &s->plan[phase].graph.nodes[node];
    *info = (tn_node_info){.name = n->name, .op = tn_ops[n->op].name, .layer = n->layer};
    return true;
}

/* ---- bytes ---- */

/* A step: so many tokens of one sequence that holds so many already. */
typedef struct step_size {
    uint64_t tokens, past, outputs;
    tn_kv_type kv;
} step_size;

static uint64_t rows_of(const tn_shape *shape, const step_size *s) {
    return shape->rows == TN_ROWS_TOKENS    ? s->tokens
           : shape->rows == TN_ROWS_OUTPUTS ? s->outputs
                                            : (uint64_t)shape->n_rows;
}

/* Of the state that a node reads (attention), or writes (kv_write), or both (recurrences). */
static uint64_t state_bytes(const tn_graph *g, const tn_node *n, const step_size *s) {
    static const double element[] = {2, 34.0 / 32, 4}; /* tn_kv_type */
    const tn_attr *a = &n->attr;
    if (n->op == TN_OP_KV_WRITE || n->op == TN_OP_ATTENTION) {
        uint64_t row = (uint64_t)((double)((a->head_dim + a->v_dim) * a->n_kv) * element[s->kv]);
        if (n->op == TN_OP_KV_WRITE) return row * s->tokens;
        uint64_t seen = s->past + s->tokens, window = (uint64_t)a->window + s->tokens - 1;
        return row * (a->window && window < seen ? window : seen);
    }
    for (int k = 0; k < n->n_src; k++) {
        const tn_node *from = &g->nodes[n->src[k].node];
        if (from->op == TN_OP_STATE) return 2 * sizeof(float) * (uint64_t)from->attr.state_size;
    }
    return 0;
}

/* Whether source k of node i of the launch was met before in it. */
static bool met(const tn_graph *g, const tn_launch *l, int32_t i, int k) {
    const tn_src *v = &g->nodes[l->nodes[i]].src[k];
    for (int32_t j = 0; j <= i; j++)
        for (int m = 0; m < (j == i ? k : g->nodes[l->nodes[j]].n_src); m++)
            if (tn_src_same(g->nodes[l->nodes[j]].src[m], *v)) return true;
    return false;
}

static uint64_t read_bytes(const tn_graph *g, const tn_launch *l, int32_t i, const step_size *s) {
    const tn_node *n = &g->nodes[l->nodes[i]];
    uint64_t bytes = 0;
    for (int k = 0; k < n->n_src; k++) {
        const tn_node *from = &g->nodes[n->src[k].node];
        const tn_weight *w = tn_src_weight(g, n->src[k]);
        if (met(g, l, i, k) || tn_index_in(l->nodes, l->n, n->src[k].node) >= 0) continue;
        if (w) {
            bytes += tn_weight_read_bytes(n, w, s->tokens);
        } else if (from->out[n->src[k].out].dtype != TN_DTYPE_STATE) {
            tn_shape columns = from->out[n->src[k].out];
            columns.cols = n->src[k].cols;
            const tn_shape *rows = n->op == TN_OP_SELECT_ROWS ? &n->out[0] : &columns;
            bytes += tn_shape_row_bytes(&columns) * rows_of(rows, s);
        }
    }
    return bytes;
}

uint64_t tn_launch_bytes(const tn_session *session, tn_phase phase, int32_t launch, int32_t n_tokens,
                         int32_t n_past) {
    if (launch < 0 || launch >= tn_launch_count(session, phase)) return 0;
    const tn_plan *p = &session->plan[phase];
    const tn_launch *l = &p->partition.launch[launch];
    const tn_graph *g = &p->graph;
    step_size s = {(uint64_t)n_tokens, (uint64_t)n_past, session->options.all_logits ? (uint64_t)n_tokens : 1,
                   session->options.kv_type};
    uint64_t bytes = 0;
    for (int32_t i = 0; i < l->n; i++) {
        const tn_node *n = &g->nodes[l->nodes[i]];
        bytes += read_bytes(g, l, i, &s);
        if (tn_ops[n->op].class == TN_STATE) bytes += state_bytes(g, n, &s);
        for (int32_t o = 0; o < n->n_out; o++)
            if (p->offset[l->nodes[i] * TN_MAX_OUT + o] >= 0)
                bytes += tn_shape_row_bytes(&n->out[o]) * rows_of(&n->out[o], &s);
    }
    return bytes;
}

tn_status tn_peak_bandwidth(tn_model *m, double *bytes_per_second, tn_error *err) {
    *bytes_per_second = 0;
    return m->device && m->backend->peak ? m->backend->peak(m->device, bytes_per_second, err) : TN_OK;
}
