/* From a plan to a program: every launch becomes calls with their operands resolved. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/kernels/matmul.h"
#include "backend/cpu/kernels/pieces.h"
#include "backend/cpu/kernels/scan.h"
#include "base/mem.h"

#include <string.h>

_Static_assert((int)TN_PAGE == (int)TN_PAGE_TOKENS, "pages of the kernels and of the engine");

enum { ATTEND_BLOCK = 16, ALIGN = 64 };

/* The launch being compiled. */
typedef struct maker {
    tn_program *p;
    const tn_graph *g;
    const tn_launch *from;
    tn_cpu_launch *to;
    tn_form form;
    tn_cpu_operand local[TN_LAUNCH_MAX][TN_MAX_OUT]; /* where results are while the launch runs */
    size_t scratch;                                  /* bytes taken */
    bool failed;
} maker;

static const tn_node *node_at(const maker *m, int32_t i) {
    return &m->g->nodes[m->from->nodes[i]];
}

static int32_t index_in(const maker *m, int32_t node) {
    return tn_index_in(m->from->nodes, m->from->n, node);
}

static void *take(maker *m, size_t count, size_t size) {
    void *p = tn_arena_alloc(&m->p->arena, count * size);
    if (!p) m->failed = true;
    return p;
}

static size_t take_scratch(maker *m, size_t bytes) {
    size_t at = m->scratch;
    m->scratch += tn_align_up(bytes, ALIGN);
    return at;
}

static tn_cpu_operand stored(const maker *m, int32_t node, int32_t out, int32_t first) {
    const tn_shape *s = &m->g->nodes[node].out[out];
    return (tn_cpu_operand){.where = TN_CPU_ARENA,
                            .base = m->p->memory->arena + m->p->plan->offset[node * TN_MAX_OUT + out],
                            .stride = tn_shape_row_bytes(s),
                            .first = first};
}

static bool is_stored(const maker *m, int32_t i, int32_t out) {
    return m->p->plan->offset[m->from->nodes[i] * TN_MAX_OUT + out] >= 0;
}

static tn_cpu_operand buffer(maker *m, int32_t i, int32_t out, int32_t rows) {
    size_t stride = tn_shape_row_bytes(&node_at(m, i)->out[out]);
    return (tn_cpu_operand){
        .where = TN_CPU_BUFFER, .offset = take_scratch(m, stride * (size_t)rows), .stride = stride};
}

/* Every result of node i: in the arena where it is stored, else in a buffer of `rows` rows. */
static void place(maker *m, int32_t i, int32_t rows, bool always_buffer) {
    const tn_node *n = node_at(m, i);
    for (int32_t o = 0; o < n->n_out; o++) {
        if (n->out[o].dtype == TN_DTYPE_STATE) continue;
        bool arena = is_stored(m, i, o) && !always_buffer;
        m->local[i][o] = arena ? stored(m, m->from->nodes[i], o, 0) : buffer(m, i, o, rows);
    }
}

static tn_cpu_matrix *matrix_of(const maker *m, tn_src s) {
    return &m->p->device->weights[m->g->nodes[s.node].attr.index];
}

/* An operand of a node with `cols` columns; a shorter one is handed to the kernel whole, whatever the column. */
static tn_cpu_operand source(const maker *m, tn_src s, int32_t cols) {
    int32_t i = index_in(m, s.node);
    tn_cpu_operand o;
    if (m->g->nodes[s.node].op == TN_OP_WEIGHT) {
        char *data = (char *)(uintptr_t)matrix_of(m, s)->w.data;
        o = (tn_cpu_operand){.where = TN_CPU_FIXED, .base = data + (size_t)s.first * 4};
    } else if (i >= 0) {
        o = m->local[i][s.out];
        o.first += s.first;
    } else {
        o = stored(m, s.node, s.out, s.first);
    }
    o.repeats = s.cols < cols;
    return o;
}

static void make_op(maker *m, tn_cpu_op *op, int32_t i) {
    const tn_node *n = node_at(m, i);
    tn_cpu_op_init(op, m->p->device, m->p->memory, m->g, n);
    op->dst = m->local[i][0];
    op->dst2 = m->local[i][1];
    int first = n->op == TN_OP_KV_WRITE ? 1 : 0; /* the state is not an operand in the arena */
    for (int k = first; k < n->n_src && n->op != TN_OP_EMBED; k++)
        op->src[op->n_src++] = source(m, n->src[k], op->cols);
    op->flat = op->dst.where == TN_CPU_TILE;
    for (int k = 0; k < op->n_src; k++) op->flat &= op->src[k].where == TN_CPU_TILE;
}

static void run_copy(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n) {
    memcpy(tn_cpu_at(&op->dst, f, row, c0), tn_cpu_at(&op->src[0], f, row, c0), (size_t)n * 4);
}

/* Whole rows of any type. */
static void run_copy_row(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n) {
    (void)c0, (void)n;
    memcpy(tn_cpu_at(&op->dst, f, row, 0), tn_cpu_at(&op->src[0], f, row, 0), op->dst.stride);
}

static tn_cpu_op copy_op(const maker *m, int32_t i, tn_cpu_op_fn *run) {
    return (tn_cpu_op){.run = run,
                       .dst = stored(m, m->from->nodes[i], 0, 0),
                       .src = {m->local[i][0]},
                       .n_src = 1,
                       .cols = node_at(m, i)->out[0].cols};
}

/* ---- rows ---- */

static void make_rows(maker *m) {
    tn_cpu_launch *l = m->to;
    const tn_node *first = node_at(m, 0);
    tn_src s = first->op == TN_OP_KV_WRITE ? first->src[1] : (tn_src){0};
    l->rows = first->op == TN_OP_KV_WRITE ? tn_shape_of(m->g, s)->rows : first->out[0].rows;
    l->before = take(m, (size_t)m->from->n, sizeof *l->before);
    for (int32_t i = 0; i < m->from->n && !m->failed; i++) {
        place(m, i, 1, false);
        make_op(m, &l->before[l->n_before++], i);
    }
}

/* ---- matmuls ---- */

/* Columns of a unit of an expert's work: wide enough that a call is cheap, narrow enough that all threads have some. */
static int32_t tile_columns(const maker *m, int32_t cols) {
    return cols / 64 >= 4 * tn_pool_size(m->p->device->pool) ? 64 : 32;
}

static void make_before(maker *m) {
    tn_cpu_launch *l = m->to;
    l->before = take(m, (size_t)m->from->n, sizeof *l->before);
    l->copy = take(m, (size_t)m->from->n, sizeof *l->copy);
    for (int32_t i = 0; i < m->from->n && !m->failed; i++) {
        if (m->form.role[i] != TN_BEFORE) continue;
        place(m, i, tn_shape_max_rows(m->g, &node_at(m, i)->out[0]), true);
        make_op(m, &l->before[l->n_before++], i);
        if (is_stored(m, i, 0)) l->copy[l->n_copies++] = copy_op(m, i, run_copy_row);
    }
}

/* A result goes straight to its place unless the kernel's 16 rows would write past the row's end, or its rows are those of
 * scattered tokens (experts). */
static bool direct(const maker *m, const tn_cpu_part *part, int32_t i) {
    bool product = tn_ops[node_at(m, i)->op].class == TN_MATMUL;
    if (!is_stored(m, i, 0) || (product && part->n_expert)) return false;
    return !product || node_at(m, i)->out[0].cols % TN_TILE_ROWS == 0;
}

static void make_product(maker *m, tn_cpu_part *part, int32_t i) {
    const tn_node *n = node_at(m, i);
    const tn_weight *w = tn_src_weight(m->g, n->src[1]);
    tn_dtype x = tn_shape_of(m->g, n->src[0])->dtype;
    tn_cpu_product *product = &part->product[part->n_products++];
    *product = (tn_cpu_product){.run = tn_cpu_matmul_for(m->p->device, w, x)->run,
                                .weight = matrix_of(m, n->src[1]),
                                .x = source(m, n->src[0], n->src[0].cols),
                                .dst = m->local[i][0]};
    if (n->op != TN_OP_MATMUL_ID) {
        part->unit_bytes += (int64_t)(tn_type_row_bytes(w->type, (size_t)w->n_in) * TN_CPU_UNIT);
        return;
    }
    product->row = tn_shape_row_bytes(&(tn_shape){.dtype = x, .cols = w->n_in});
    product->slot = n->src[0].cols > w->n_in ? product->row : 0;
    part->ids = source(m, n->src[2], n->src[2].cols);

    product->gather = take_scratch(m, product->row * TN_CPU_TOKEN_CHUNK);
}

/* Every thread keeps the best of its columns, for each row. Logits that come straight from the product need not be stored then. */
static void make_argmax(maker *m, tn_cpu_part *part, int32_t i) {
    const tn_node *n = node_at(m, i);
    if (!is_stored(m, i, 0)) return; /* nobody reads it */
    part->argmax = true;
    part->scores = source(m, n->src[0], n->src[0].cols);
    part->chosen = stored(m, m->from->nodes[i], 0, 0);
    if (n->src[0].node == m->g->output && part->n_products == 1 && !part->n_ops)
        part->aside = (tn_cpu_operand){.where = TN_CPU_TILE, .offset = take_scratch(m, (size_t)TN_CPU_TILE_SIZE * 4)};
    size_t bytes = tn_cpu_tops_bytes(m->form.max_rows) * (size_t)tn_pool_size(m->p->device->pool);
    if (bytes > m->p->parts_bytes) m->p->parts_bytes = bytes;
}

/* The width of a part, and whether it is one of experts: as its first product says. */
static void shape_part(maker *m, tn_cpu_part *part, int32_t number) {
    for (int32_t i = m->from->n - 1; i >= 0; i--) {
        const tn_node *n = node_at(m, i);
        if (m->form.role[i] == TN_BEFORE || m->form.part[i] != number || n->op == TN_OP_ARGMAX) continue;
        m->to->rows = n->out[0].rows;
        part->cols = n->out[0].cols;
        if (n->op == TN_OP_MATMUL_ID) {
            part->n_used = n->attr.n_used;
            part->n_expert = tn_src_weight(m->g, n->src[1])->n_expert;
        }
    }
    if (part->n_used) { /* a count and a start for each expert, and every pair */
        size_t pairs = (size_t)m->form.max_rows * (size_t)part->n_used;
        part->cols /= part->n_used;
        part->lists = take_scratch(m, (2 * (size_t)part->n_expert + pairs) * sizeof(int32_t));
    }
    part->tile = tile_columns(m, part->cols);
}

static void make_part(maker *m, tn_cpu_part *part, int32_t number) {
    size_t n = (size_t)m->from->n;
    part->product = take(m, n, sizeof *part->product);
    part->op = take(m, 2 * n, sizeof *part->op);
    shape_part(m, part, number);
    for (int32_t i = 0; i < m->from->n && !m->failed; i++) {
        if (m->form.role[i] == TN_BEFORE || m->form.part[i] != number) continue;
        const tn_node *node = node_at(m, i);
        if (node->op == TN_OP_ARGMAX) {
            make_argmax(m, part, i);
            continue;
        }
        m->local[i][0] = stored(m, m->from->nodes[i], 0, 0);
        if (!direct(m, part, i))
            m->local[i][0] =
                (tn_cpu_operand){.where = TN_CPU_TILE, .offset = take_scratch(m, (size_t)TN_CPU_TILE_SIZE * 4)};
        if (tn_ops[node->op].class == TN_MATMUL)
            make_product(m, part, i);
        else
            make_op(m, &part->op[part->n_ops++], i);
        if (is_stored(m, i, 0) && !direct(m, part, i)) part->op[part->n_ops++] = copy_op(m, i, run_copy);
    }
    part->bytes = (part->cols + TN_CPU_UNIT - 1) / TN_CPU_UNIT * part->unit_bytes;
    m->to->bytes += part->bytes;
}

static void make_matmuls(maker *m) {
    make_before(m);
    m->to->part = take(m, (size_t)m->form.n_parts, sizeof *m->to->part);
    for (int32_t i = 0; i < m->form.n_parts && !m->failed; i++) make_part(m, &m->to->part[m->to->n_parts++], i);
}

/* ---- attend ---- */

static void make_attention(maker *m, int32_t i) {
    const tn_node *n = node_at(m, i);
    tn_cpu_launch *l = m->to;
    const tn_attr *a = &n->attr;
    tn_memory *memory = m->p->memory;
    l->attend.run = tn_attention_find(memory->kv_type, m->p->device->isa);
    l->attend.a = (tn_cpu_attention){.kv = memory->states[a->index].kv,
                                     .n_head = a->n_head,
                                     .window = a->window,
                                     .scale = a->factor,
                                     .softcap = a->softcap};
    l->attend.cache_bytes = memory->states[a->index].bytes;
    l->attend.q = source(m, n->src[0], n->src[0].cols);
    l->attend.out = m->local[i][0];
    l->attend.scratch = take_scratch(m, tn_attention_scratch(a->n_head, a->n_kv, a->head_dim, a->v_dim));
}

/* Segments are done apart only where each sequence has one token, and where what comes before them writes nothing but the thread's
 * own buffers and the cache. A sequence may touch two segments more than its pages fill. */
static void make_room_for_segments(maker *m) {
    tn_cpu_launch *l = m->to;
    const tn_cpu_attention *a = &l->attend.a;
    bool apart = m->g->one_token;
    for (int32_t k = 0; k < l->n_before; k++) apart &= l->before[k].kv || l->before[k].dst.where != TN_CPU_ARENA;
    if (!apart) return;
    size_t pages = l->attend.cache_bytes / a->kv.page_bytes;
    l->attend.slots = (int32_t)(pages / TN_SEGMENT) + 2 * m->g->max_tokens;
    l->attend.part_stride = (size_t)a->n_head * (size_t)(a->kv.v_dim + 2);
    size_t bytes = (size_t)l->attend.slots * l->attend.part_stride * sizeof(float);
    if (bytes > m->p->parts_bytes) m->p->parts_bytes = bytes;
}

static void make_attend(maker *m) {
    tn_cpu_launch *l = m->to;
    l->rows = TN_ROWS_TOKENS;
    l->attend.block = m->g->one_token ? 1 : ATTEND_BLOCK;
    l->before = take(m, (size_t)m->from->n, sizeof *l->before);
    l->after = take(m, (size_t)m->from->n, sizeof *l->after);
    for (int32_t i = 0; i < m->from->n && !m->failed; i++) {
        place(m, i, l->attend.block, false);
        if (m->form.role[i] == TN_CORE)
            make_attention(m, i);
        else if (m->form.role[i] == TN_BEFORE)
            make_op(m, &l->before[l->n_before++], i);
        else
            make_op(m, &l->after[l->n_after++], i);
    }
    if (!m->failed) make_room_for_segments(m);
}

/* ---- scan ---- */

static void make_core(maker *m, int32_t i) {
    const tn_node *n = node_at(m, i);
    tn_cpu_launch *l = m->to;
    l->scan.node = n;
    l->scan.state = &m->p->memory->states[n->attr.index];
    l->scan.out = m->local[i][0];
    if (n->op == TN_OP_CONV1D) {
        l->scan.conv1d = tn_conv1d_find(m->p->device->isa);
        l->scan.taps = matrix_of(m, n->src[2])->w.data;
        l->scan.src[0] = source(m, n->src[1], n->src[1].cols);
        return;
    }
    l->scan.delta = tn_delta_find(m->p->device->isa);
    for (int k = 0; k < 5; k++) l->scan.src[k] = source(m, n->src[k + 1], n->src[k + 1].cols);
    l->scan.scratch = take_scratch(m, (size_t)n->attr.v_dim * sizeof(float));
}

static void make_scan(maker *m) {
    tn_cpu_launch *l = m->to;
    l->rows = TN_ROWS_TOKENS;
    l->before = take(m, (size_t)m->from->n, sizeof *l->before);
    l->after = take(m, (size_t)m->from->n, sizeof *l->after);
    for (int32_t i = 0; i < m->from->n && !m->failed; i++) {
        place(m, i, 1, false);
        if (m->form.role[i] == TN_CORE)
            make_core(m, i);
        else if (m->form.role[i] == TN_BEFORE)
            make_op(m, &l->before[l->n_before++], i);
        else
            make_op(m, &l->after[l->n_after++], i);
    }
}

/* ---- programs ---- */

static bool make_launch(tn_program *p, int32_t i) {
    maker m = {.p = p, .g = &p->plan->graph, .from = &p->plan->partition.launch[i], .to = &p->launch[i]};
    if (tn_cpu_classify(p->device, m.g, m.from->nodes, m.from->n, &m.form)) return false; /* the plan asked before */
    m.to->form = m.form.kind;
    switch (m.form.kind) {
    case TN_FORM_ROWS: make_rows(&m); break;
    case TN_FORM_MATMULS: make_matmuls(&m); break;
    case TN_FORM_ATTEND: make_attend(&m); break;
    case TN_FORM_SCAN: make_scan(&m); break;
    }
    if (m.scratch > p->scratch_bytes) p->scratch_bytes = m.scratch;
    return !m.failed;
}

tn_status tn_cpu_compile(tn_device *device, const tn_plan *plan, tn_memory *memory, tn_program **program,
                         tn_error *err) {
    *program = NULL;
    if (plan->arena_bytes > memory->arena_bytes) return tn_fail(err, TN_ERR_INTERNAL, "cpu: the arena is too small");
    tn_program *p = tn_alloc_zero(1, sizeof *p);
    if (!p) return tn_fail_memory(err);
    *p = (tn_program){.device = device, .memory = memory, .plan = plan, .n = plan->partition.n};
    p->launch = tn_arena_alloc(&p->arena, (size_t)p->n * sizeof *p->launch);
    p->ids = tn_arena_alloc(&p->arena, (size_t)plan->graph.max_tokens * sizeof *p->ids);
    p->kept = tn_arena_alloc(&p->arena, (size_t)plan->graph.max_tokens * sizeof *p->kept);
    bool ok = p->launch && p->ids && p->kept;
    for (int32_t i = 0; ok && i < p->n; i++) ok = make_launch(p, i);
    p->scratch_bytes = tn_align_up(p->scratch_bytes + ALIGN, 4096);
    if (ok) p->scratch = tn_alloc_pages(p->scratch_bytes * (size_t)tn_pool_size(device->pool));
    if (ok && p->parts_bytes) ok = (p->parts = tn_alloc_pages(p->parts_bytes)) != NULL;
    if (!ok || !p->scratch) {
        tn_cpu_free_program(device, &p);
        return tn_fail_memory(err);
    }
    p->logits = (const float *)(memory->arena + plan->offset[plan->graph.output * TN_MAX_OUT]);
    if (plan->graph.choice)
        p->chosen = (const int32_t *)(memory->arena + plan->offset[plan->graph.choice * TN_MAX_OUT]);
    int32_t best = plan->graph.best;
    if (best)
        p->best = (tn_candidates){(const int32_t *)(memory->arena + plan->offset[best * TN_MAX_OUT]),
                                  (const float *)(memory->arena + plan->offset[best * TN_MAX_OUT + 1]),
                                  plan->graph.nodes[best].out[0].cols};
    *program = p;
    return TN_OK;
}

void tn_cpu_free_program(tn_device *device, tn_program **program) {
    tn_program *p = *program;
    if (!p) return;
    tn_free_pages(p->parts, p->parts_bytes);
    if (p->scratch) tn_free_pages(p->scratch, p->scratch_bytes * (size_t)tn_pool_size(device->pool));
    tn_arena_free(&p->arena);
    tn_free(p);
    *program = NULL;
}
