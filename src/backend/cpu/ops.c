/* The ops as calls on a row: kernels of kernels/pieces.def with their parameters, and the few that read the step. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/kernels/matmul.h"
#include "backend/cpu/kernels/pieces.h"
#include "base/best.h"

#include <math.h>
#include <string.h>

char *tn_cpu_at(const tn_cpu_operand *o, const tn_cpu_frame *f, int32_t row, int32_t c) {
    switch (o->where) {
    case TN_CPU_ARENA: return o->base + (size_t)row * o->stride + (size_t)(o->first + c) * 4;
    case TN_CPU_BUFFER:
        return f->scratch + o->offset + (size_t)(row - f->row0) * o->stride + (size_t)(o->first + c) * 4;
    case TN_CPU_TILE:
        return f->scratch + o->offset + ((size_t)(row - f->row0) * (size_t)f->ld + (size_t)(c - f->col0)) * 4;
    case TN_CPU_FIXED: return o->base + (size_t)c * 4;
    }
    return NULL;
}

static void run_piece(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n) {
    tn_piece p = {.dst = tn_cpu_at(&op->dst, f, row, c0), .n = n, .first = c0, .n_row = op->cols};
    for (int k = 0; k < op->n_src; k++) p.src[k] = tn_cpu_at(&op->src[k], f, row, op->src[k].repeats ? 0 : c0);
    memcpy(p.i, op->i, sizeof p.i);
    memcpy(p.f, op->f, sizeof p.f);
    op->piece(&p);
}

/* An int8 row is planes: its pointer is the row's, whatever the column. A value may hold several such rows, i[0] columns
 * each. */
static void run_quantize(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n) {
    int32_t width = op->i[0];
    for (int32_t c = c0, step; c < c0 + n; c += step) {
        int32_t first = c % width;
        step = width - first < c0 + n - c ? width - first : c0 + n - c;
        char *dst = tn_cpu_at(&op->dst, f, row, 0) + tn_q8_row_bytes((size_t)width) * (size_t)(c / width);
        op->piece(&(tn_piece){
            .dst = dst, .src = {tn_cpu_at(&op->src[0], f, row, c)}, .n = step, .first = first, .n_row = width});
    }
}

/* The largest first, the lower index first among equals. */
static void run_top_k(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n) {
    (void)c0;
    const float *p = (const float *)tn_cpu_at(&op->src[0], f, row, 0);
    const float *scale = op->n_src > 1 ? (const float *)tn_cpu_at(&op->src[1], f, row, 0) : NULL;
    float *weights = (float *)tn_cpu_at(&op->dst, f, row, 0), sum = 0;
    int32_t *ids = (int32_t *)tn_cpu_at(&op->dst2, f, row, 0), count = op->i[1];
    for (int32_t k = 0; k < n; k++) {
        int32_t best = -1;
        for (int32_t e = 0; e < count; e++) {
            bool taken = false;
            for (int32_t j = 0; j < k; j++) taken |= ids[j] == e;
            if (!taken && (best < 0 || p[e] > p[best])) best = e;
        }
        ids[k] = best;
        weights[k] = p[best];
        sum += p[best];
    }
    for (int32_t k = 0; k < n; k++) {
        if (op->i[2]) weights[k] /= sum;
        if (scale) weights[k] *= scale[ids[k]];
    }
}

/* The largest, by lanes; then the first that equals it. What is not a number is never larger. */
void tn_cpu_top_of(tn_cpu_top *top, const float *x, int32_t first, int32_t n) {
    enum { LANES = 16 };
    float lane[LANES], max = -INFINITY;
    for (int j = 0; j < LANES; j++) lane[j] = -INFINITY;
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (int j = 0; j < LANES; j++) max = lane[j] > max ? lane[j] : max;
    for (; i < n; i++) max = x[i] > max ? x[i] : max;
    if (top->at >= 0 && !(max > top->max)) return;
    for (i = 0; i < n && x[i] != max; i++) continue;
    if (i < n) *top = (tn_cpu_top){max, first + i};
}

static void run_argmax(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n) {
    (void)c0, (void)n;
    tn_cpu_top top = {.at = -1};
    tn_cpu_top_of(&top, (const float *)tn_cpu_at(&op->src[0], f, row, 0), 0, op->i[1]);
    *(int32_t *)tn_cpu_at(&op->dst, f, row, 0) = top.at < 0 ? 0 : top.at;
}

static void run_best(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n) {
    (void)c0;
    const float *x = (const float *)tn_cpu_at(&op->src[0], f, row, 0);
    int32_t *ids = (int32_t *)tn_cpu_at(&op->dst, f, row, 0);
    float *best = (float *)tn_cpu_at(&op->dst2, f, row, 0);
    tn_select_best(x, op->i[1], ids, n);
    for (int32_t k = 0; k < n; k++) best[k] = isnan(x[ids[k]]) ? -INFINITY : x[ids[k]];
}

static void run_expert_sum(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n) {
    const float *y = (const float *)tn_cpu_at(&op->src[0], f, row, 0);
    const float *w = (const float *)tn_cpu_at(&op->src[1], f, row, 0);
    float *dst = (float *)tn_cpu_at(&op->dst, f, row, c0);
    for (int32_t k = 0; k < op->i[1]; k++, y += op->cols)
        for (int32_t j = 0; j < n; j++) dst[j] = k ? fmaf(w[k], y[c0 + j], dst[j]) : w[k] * y[c0 + j];
}

static void run_embed(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n) {
    (void)c0, (void)n;
    op->weight_row(op->weight, f->step->ids[row], (float *)tn_cpu_at(&op->dst, f, row, 0));
}

static void run_rope_table(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n) {
    tn_piece p = {.dst = tn_cpu_at(&op->dst, f, row, c0), .n = n, .first = c0, .n_row = op->cols};
    if (op->n_src) p.src[0] = tn_cpu_at(&op->src[0], f, row, 0);
    memcpy(p.i, op->i, sizeof p.i);
    memcpy(p.f, op->f, sizeof p.f);
    p.i[1] = f->step->pos[row];
    op->piece(&p);
}

static void run_select_rows(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n) {
    const char *from = tn_cpu_at(&op->src[0], f, f->step->outputs[row], c0);
    memcpy(tn_cpu_at(&op->dst, f, row, c0), from, (size_t)n * 4);
}

/* Columns are of k; [c0, c0 + n) are whole heads. */
static void run_kv_write(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n) {
    const tn_cpu_kv *kv = op->kv;
    int32_t pos = f->step->pos[row];
    int32_t page = f->step->pages[f->step->seq[row] * f->step->max_pages + pos / TN_PAGE];
    const float *k = (const float *)tn_cpu_at(&op->src[0], f, row, 0);
    const float *v = (const float *)tn_cpu_at(&op->src[1], f, row, 0);
    for (int32_t h = c0 / kv->k_dim; h < (c0 + n) / kv->k_dim; h++)
        op->kv_write(kv, page, pos % TN_PAGE, h, k + h * kv->k_dim, v + h * kv->v_dim);
}

/* The piece of each op that is one. */
static const struct {
    tn_op op;
    tn_piece_op piece;
} pieces[] = {
    {TN_OP_RMS_NORM, TN_PIECE_rms_norm},
    {TN_OP_L2_NORM, TN_PIECE_l2_norm},
    {TN_OP_ADD, TN_PIECE_add},
    {TN_OP_MUL, TN_PIECE_mul},
    {TN_OP_SILU, TN_PIECE_silu},
    {TN_OP_GELU, TN_PIECE_gelu},
    {TN_OP_SIGMOID, TN_PIECE_sigmoid},
    {TN_OP_GELU_QUICK, TN_PIECE_gelu_quick},
    {TN_OP_SOFTPLUS, TN_PIECE_softplus},
    {TN_OP_SCALE, TN_PIECE_scale},
    {TN_OP_SOFTCAP, TN_PIECE_softcap},
    {TN_OP_SOFTMAX, TN_PIECE_softmax},
    {TN_OP_QUANTIZE, TN_PIECE_quantize},
    {TN_OP_ROPE, TN_PIECE_rope},
    {TN_OP_ROPE_TABLE, TN_PIECE_rope_table},
};

static int find_piece(tn_op op) {
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        if (pieces[i].op == op) return (int)pieces[i].piece;
    return -1;
}

bool tn_cpu_has_op(tn_op op) {
    return find_piece(op) >= 0 || op == TN_OP_EMBED || op == TN_OP_SELECT_ROWS || op == TN_OP_KV_WRITE ||
           op == TN_OP_TOP_K || op == TN_OP_ARGMAX || op == TN_OP_BEST || op == TN_OP_EXPERT_SUM;
}

/* Parameters in the places that the table in kernels.h gives them. */
static void set_parameters(tn_cpu_op *op, const tn_node *node) {
    const tn_attr *a = &node->attr;
    switch (node->op) {
    case TN_OP_RMS_NORM:
    case TN_OP_L2_NORM:
        op->i[0] = a->head_dim ? a->head_dim : op->cols;
        op->f[0] = a->eps;
        break;
    case TN_OP_ADD:
    case TN_OP_MUL: op->i[0] = node->src[1].cols == op->cols ? 0 : node->src[1].cols; break;
    case TN_OP_QUANTIZE: op->i[0] = a->head_dim ? a->head_dim : op->cols; break;
    case TN_OP_TOP_K:
        op->i[1] = node->src[0].cols;
        op->i[2] = a->norm;
        break;
    case TN_OP_ARGMAX:
    case TN_OP_BEST: op->i[1] = node->src[0].cols; break;
    case TN_OP_EXPERT_SUM: op->i[1] = a->n_used; break;
    case TN_OP_SCALE: op->f[0] = a->factor; break;
    case TN_OP_SOFTCAP: op->f[0] = a->softcap; break;
    case TN_OP_ROPE:
        op->i[0] = a->head_dim;
        op->i[1] = a->n_rot;
        op->i[2] = a->neox;
        break;
    case TN_OP_ROPE_TABLE:
        op->i[0] = a->n_rot;
        op->i[2] = a->rope.n_ctx_orig;
        memcpy(op->f,
               (float[]){a->rope.base, a->rope.freq_scale, a->rope.ext_factor, a->rope.attn_factor, a->rope.beta_fast,
                         a->rope.beta_slow},
               sizeof op->f);
        break;
    default: break;
    }
}

void tn_cpu_op_init(tn_cpu_op *op, const tn_device *device, const tn_memory *memory, const tn_graph *g,
                    const tn_node *node) {
    op->cols = node->out[0].cols;
    op->run = run_piece;
    int piece = find_piece(node->op);
    if (piece >= 0) op->piece = tn_piece_find((tn_piece_op)piece, device->isa);
    if (node->op == TN_OP_QUANTIZE) op->run = run_quantize;
    if (node->op == TN_OP_ROPE_TABLE) op->run = run_rope_table;
    if (node->op == TN_OP_SELECT_ROWS) op->run = run_select_rows;
    if (node->op == TN_OP_TOP_K) op->run = run_top_k;
    if (node->op == TN_OP_ARGMAX) op->run = run_argmax;
    if (node->op == TN_OP_BEST) op->run = run_best;
    if (node->op == TN_OP_EXPERT_SUM) op->run = run_expert_sum;
    if (node->op == TN_OP_EMBED) {
        const tn_weight *w = tn_src_weight(g, node->src[1]);
        op->run = run_embed;
        op->weight = &device->weights[g->nodes[node->src[1].node].attr.index].w;
        op->weight_row = tn_weight_row_find(tn_cpu_layout_for(device, w));
    }
    if (node->op == TN_OP_KV_WRITE) {
        op->run = run_kv_write;
        op->cols = node->src[1].cols;
        op->kv = &memory->states[node->attr.index].kv;
        op->kv_write = tn_kv_write_find(memory->kv_type, device->isa);
    }
    set_parameters(op, node);
}
