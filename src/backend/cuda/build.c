/* From nodes to a launch: the tables at the head of a kernel's source, its arguments, its grid. The same function answers
 * find_kernel (does a kernel for these nodes exist?), so that the two cannot disagree. */
#include "backend/cuda/cuda.h"
#include "backend/cuda/pack.h"
#include "base/mem.h"

#include <string.h>

enum {
    MATVEC_ROWS = 8,
    MAX_ATTEND_GROUP = 16,
    MATMUL_TILE = 64,
    MAX_TILE_PRODUCTS = 4,
    MAX_SPLITS = 32,
    MIN_PAGES = 2
};
enum { MATVEC_LOADS = 12 }; /* of 16 bytes, in flight in a lane */
enum { STAGE_Q8 = 64 * 144 * 2 + 64 * 4 * (8 + 8 + 4 + 4), STAGE_F32 = 2 * 32 * 68 * 4 }; /* of matmul.cu */

#define KERNEL(entry, form, act, rows, name) extern const char tn_cuda_source_##entry[];
#include "backend/cuda/kernels.def"
#undef KERNEL

static const tn_cuda_kernel kernels[] = {
#define KERNEL(entry, form, act, rows, name)                                                                         \
    {#entry, TN_FORM_##form, TN_CUDA_##act, rows, name, tn_cuda_source_##entry},
#include "backend/cuda/kernels.def"
#undef KERNEL
};

static const char *const op_names[TN_OP_COUNT] = {
#define OP(NAME, name, min, max, class, commutes, formula) #NAME,
#include "graph/ops.def"
#undef OP
};

/* The launch being built. */
typedef struct maker {
    const tn_cuda_ask *ask;
    const tn_graph *g;
    tn_cuda_launch *to;
    tn_buf *head;
    tn_form form;
    int32_t slot[TN_LAUNCH_MAX]; /* offset of a node's row in shared memory, floats; -1: not there */
    int32_t slot_floats;         /* of all slots */
    int32_t slot_parts;          /* a slot holds one of so many parts of a row */
    int32_t n_values, n_weights, n_row_ops;
    int32_t max_rows;
    const char *why; /* the first thing that is wrong */
} maker;

static const tn_node *node_at(const maker *m, int32_t i) {
    return &m->g->nodes[m->ask->nodes[i]];
}

static int32_t index_in(const maker *m, int32_t node) {
    return tn_index_in(m->ask->nodes, m->ask->n, node);
}

static int fail(maker *m, const char *why) {
    if (!m->why) m->why = why;
    return 0;
}

/* ---- operands ---- */

static int32_t add_value(maker *m, uint64_t address, size_t stride) {
    if (m->n_values == TN_K_MAX_VALUES) return fail(m, "too many operands for one launch");
    m->to->args.v[m->n_values] = (tn_k_value){address, (long long)stride};
    return m->n_values++;
}

static uint64_t arena_at(const maker *m, tn_src s) {
    if (!m->ask->plan || !m->ask->memory) return 0;
    return m->ask->memory->arena + (uint64_t)tn_plan_offset(m->ask->plan, s);
}

static int32_t stored_value(maker *m, tn_src s) {
    return add_value(m, arena_at(m, s) + (uint64_t)s.first * 4, tn_shape_row_bytes(tn_shape_of(m->g, s)));
}

/* v[] where node i of the launch is stored; -1: nowhere. Without a plan every value counts as stored. */
static int32_t store_of(maker *m, int32_t i) {
    int32_t node = m->ask->nodes[i];
    if (node_at(m, i)->out[0].dtype == TN_DTYPE_STATE) return -1;
    if (m->ask->plan && m->ask->plan->offset[node * TN_MAX_OUT] < 0) return -1;
    return stored_value(m, (tn_src){.node = node});
}

static tn_k_weight weight_at(const maker *m, int32_t node) {
    const tn_k_weight *all = m->ask->device->weights;
    return all ? all[m->g->nodes[node].attr.index] : (tn_k_weight){0};
}

/* The code of an operand from outside the launch. */
static int32_t outside(maker *m, tn_src s) {
    if (m->g->nodes[s.node].op == TN_OP_WEIGHT)
        return -1 - add_value(m, weight_at(m, s.node).low + (uint64_t)s.first * 4, 0);
    return -1 - stored_value(m, s);
}

/* The code of an operand of a row op. */
static int32_t row_operand(maker *m, tn_src s) {
    int32_t i = index_in(m, s.node);
    if (i < 0) return outside(m, s);
    if (m->slot[i] < 0) return fail(m, "a row op reads what is not a row of the launch");
    if (s.first && m->slot_parts > 1) return fail(m, "a slice of a value that is computed head by head");
    return m->slot[i] + s.first;
}

static int32_t add_weight(maker *m, tn_src s) {
    if (m->n_weights == TN_K_MAX_WEIGHTS) return fail(m, "too many products for one launch");
    m->to->args.w[m->n_weights] = weight_at(m, s.node);
    return m->n_weights++;
}

static int traits_of(maker *m, tn_src s) {
    const tn_weight *w = tn_src_weight(m->g, s);
    int traits = tn_cuda_traits(w->type);
    if (traits < 0) return fail(m, "no kernel for the block type of the weight");
    if (w->elements) return fail(m, "a weight for element ops is not packed");
    if (w->n_expert > 1) return fail(m, "no kernel for experts yet");
    return traits;
}

/* ---- row ops ---- */

/* The last node that reads node i of the launch: nodes of the core and behind it hold it to the end; -1: none does. */
static int32_t last_use(const maker *m, int32_t i) {
    int32_t last = -1;
    for (int32_t j = i + 1; j < m->ask->n; j++)
        for (int k = 0; k < node_at(m, j)->n_src; k++)
            if (node_at(m, j)->src[k].node == m->ask->nodes[i]) last = m->form.role[j] == TN_BEFORE ? j : m->ask->n;
    return last;
}

/* Places in shared memory for rows that are read inside the launch: the lowest that is free while they live. */
static void place_slots(maker *m, int32_t parts) {
    int32_t size[TN_LAUNCH_MAX], last[TN_LAUNCH_MAX];
    m->slot_parts = parts;
    for (int32_t i = 0; i < m->ask->n; i++) {
        const tn_node *n = node_at(m, i);
        m->slot[i] = -1;
        last[i] = last_use(m, i);
        if (m->form.role[i] != TN_BEFORE || last[i] < 0 || n->out[0].dtype != TN_F32) continue;
        size[i] = (int32_t)tn_align_up((size_t)(n->out[0].cols / parts), 4);
        int32_t at = 0;
        for (bool moved = true; moved;) {
            moved = false;
            for (int32_t j = 0; j < i; j++) {
                if (m->slot[j] < 0 || last[j] < i) continue;
                if (at < m->slot[j] + size[j] && m->slot[j] < at + size[i]) {
                    at = m->slot[j] + size[j];
                    moved = true;
                }
            }
        }
        m->slot[i] = at;
        if (at + size[i] > m->slot_floats) m->slot_floats = at + size[i];
    }
}

/* Numbers of an op in the places that rowops.cu gives them. */
static void row_numbers(maker *m, const tn_node *n, int32_t i[3], double f[6]) {
    const tn_attr *a = &n->attr;
    switch (n->op) {
    case TN_OP_RMS_NORM:
    case TN_OP_L2_NORM:
        i[0] = a->head_dim ? a->head_dim : n->out[0].cols;
        f[0] = (double)a->eps;
        break;
    case TN_OP_SCALE: f[0] = (double)a->factor; break;
    case TN_OP_SOFTCAP: f[0] = (double)a->softcap; break;
    case TN_OP_ROPE: i[0] = a->head_dim, i[1] = a->n_rot, i[2] = a->neox; break;
    case TN_OP_EMBED: i[0] = traits_of(m, n->src[1]); break;
    case TN_OP_ROPE_TABLE:
        i[0] = a->n_rot, i[1] = a->rope.n_ctx_orig, i[2] = n->n_src > 0;
        f[0] = (double)a->rope.base, f[1] = (double)a->rope.freq_scale, f[2] = (double)a->rope.ext_factor;
        f[3] = (double)a->rope.attn_factor, f[4] = (double)a->rope.beta_fast, f[5] = (double)a->rope.beta_slow;
        break;
    default: break;
    }
}

/* A norm or a product with a vector that only the next op reads need not leave the registers. */
static void number_chain(const maker *m, int32_t i, int32_t number[3]) {
    const tn_node *n = node_at(m, i);
    int32_t readers = 0;
    for (int32_t j = i + 1; j < m->ask->n; j++)
        for (int k = 0; k < node_at(m, j)->n_src; k++) readers += node_at(m, j)->src[k].node == m->ask->nodes[i];
    bool next = readers == 1 && last_use(m, i) == i + 1 && m->form.role[i + 1] == TN_BEFORE;
    bool stored = !m->ask->plan || m->ask->plan->offset[m->ask->nodes[i] * TN_MAX_OUT] >= 0;
    bool fours = n->out[0].cols % 4 == 0 && n->src[0].first % 4 == 0;
    if (n->op == TN_OP_RMS_NORM && !n->attr.head_dim && fours)
        number[1] = next && !stored && node_at(m, i + 1)->src[0].node == m->ask->nodes[i];
    if (n->op == TN_OP_MUL) number[1] = next && node_at(m, i + 1)->op == TN_OP_QUANTIZE;
}

/* Whether a row op reads what one before it wrote, or writes where one before it was at work. */
static bool must_wait(const maker *m, int32_t i) {
    const tn_node *n = node_at(m, i);
    for (int k = 0; k < n->n_src; k++)
        if (index_in(m, n->src[k].node) >= 0) return true;
    for (int32_t j = 0; j < i; j++)
        if (m->slot[i] >= 0 && m->slot[j] >= 0 && m->slot[j] >= m->slot[i]) return true;
    return false;
}

static void put_row_op(maker *m, int32_t i) {
    const tn_node *n = node_at(m, i);
    int32_t number[3] = {0}, a = -1, b = 0, period = 0, cols = n->out[0].cols;
    double f[6] = {0};
    row_numbers(m, n, number, f);
    if (n->op == TN_OP_KV_WRITE) {
        cols = n->src[1].cols;
        a = row_operand(m, n->src[1]);
        b = row_operand(m, n->src[2]);
    } else if (n->op == TN_OP_EMBED) {
        add_weight(m, n->src[1]);
    } else if (n->n_src) {
        a = row_operand(m, n->src[0]);
        if (n->n_src > 1) b = row_operand(m, n->src[1]);
        if (n->n_src > 1 && n->src[1].cols < cols) period = n->src[1].cols;
    }
    number_chain(m, i, number);
    int32_t dst = n->op == TN_OP_QUANTIZE && last_use(m, i) >= 0 ? 0 : m->slot[i];
    tn_buf_printf(m->head, "{%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%.17g,%.17g,%.17g,%.17g,%.17g,%.17g},", (int)n->op,
                  must_wait(m, i), cols, a, b, period, dst, store_of(m, i), number[0], number[1], number[2], f[0],
                  f[1], f[2], f[3], f[4], f[5]);
    m->n_row_ops++;
}

static void put_row_ops(maker *m) {
    tn_buf_str(m->head, "#define ROW_OPS ");
    for (int32_t i = 0; i < m->ask->n; i++)
        if (node_at(m, i)->op == TN_OP_QUANTIZE && node_at(m, i)->attr.head_dim)
            fail(m, "no kernel for rows of int8 rows");
    for (int32_t i = 0; i < m->ask->n; i++)
        if (m->form.role[i] == TN_BEFORE) put_row_op(m, i);
    tn_buf_printf(m->head, "\n#define N_ROW_OPS %d\n", m->n_row_ops);
}

/* ---- ops on results ---- */

/* `local`: value number of each node of the launch, -1: not one of the part's. */
static void put_after_op(maker *m, int32_t i, const int32_t *local) {
    const tn_node *n = node_at(m, i);
    int32_t code[2] = {-1, -1}, period = 0, store = store_of(m, i);
    for (int k = 0; k < n->n_src && k < 2; k++) {
        int32_t from = index_in(m, n->src[k].node);
        code[k] = from >= 0 ? local[from] : outside(m, n->src[k]);
        if (from >= 0 && local[from] < 0) fail(m, "an op on the results of two parts");
    }
    if (n->n_src > 1 && n->src[1].cols < n->out[0].cols) period = n->src[1].cols;
    if (n->op == TN_OP_QUANTIZE && store < 0) fail(m, "an int8 result that nobody reads");
    double f = n->op == TN_OP_SCALE ? (double)n->attr.factor : (double)n->attr.softcap;
    tn_buf_printf(m->head, "{%d,%d,%d,%d,%d,%d,%.17g},", (int)n->op, code[0], code[1], period, n->out[0].cols, store,
                  f);
}

/* ---- rows ---- */

/* Parts of the columns for different blocks: only where every op works element by element. */
static int32_t column_parts(const maker *m) {
    int32_t cols = node_at(m, 0)->out[0].cols, parts = cols / 512;
    for (int32_t i = 0; i < m->ask->n; i++) {
        const tn_node *n = node_at(m, i);
        tn_class class = tn_ops[n->op].class;
        if ((class != TN_ELEMENT && class != TN_BLOCK) || n->out[0].cols != cols) return 1;
    }
    return parts > 1 && cols % (parts * 32) == 0 ? parts : 1;
}

static void make_rows(maker *m) {
    int32_t parts = column_parts(m);
    place_slots(m, parts);
    put_row_ops(m);
    m->to->shared_bytes = (size_t)m->slot_floats * 4;
    m->to->grid[0] = (unsigned)m->max_rows;
    m->to->grid[1] = (unsigned)parts;
}

/* ---- matmuls ---- */

typedef struct part_shape {
    int32_t cols, products, afters, tiles;
    bool quantizes;
} part_shape;

/* The activation that all products read. */
static const tn_src *activation(maker *m) {
    const tn_src *x = NULL;
    for (int32_t i = 0; i < m->ask->n; i++) {
        if (m->form.role[i] != TN_CORE) continue;
        if (x && !tn_src_same(*x, node_at(m, i)->src[0])) fail(m, "products of different activations");
        x = &node_at(m, i)->src[0];
    }
    return x;
}

static part_shape measure_part(const maker *m, int32_t number) {
    part_shape p = {0};
    for (int32_t i = 0; i < m->ask->n; i++) {
        if (m->form.role[i] == TN_BEFORE || m->form.part[i] != number) continue;
        p.cols = node_at(m, i)->out[0].cols;
        p.products += m->form.role[i] == TN_CORE;
        p.afters += m->form.role[i] == TN_AFTER;
        p.quantizes |= node_at(m, i)->op == TN_OP_QUANTIZE;
    }
    return p;
}

/* Rows of the weight a warp takes: as many as keep the loads in flight in registers, fewer where the blocks would not fill
 * the device; four where results are quantized, since a block's 32 columns are one block of 32 then. */
static int32_t rows_of_warp(maker *m, const part_shape *part) {
    int32_t bits = 4, rows = 4, all = 0;
    bool quantizes = false;
    for (int32_t i = 0; i < m->ask->n; i++)
        if (m->form.role[i] == TN_CORE) {
            int traits = traits_of(m, node_at(m, i)->src[1]);
            if (TN_K_LOW(traits) > bits) bits = TN_K_LOW(traits);
        }
    for (int32_t p = 0; p < m->form.n_parts; p++) {
        quantizes |= part[p].quantizes;
        all += part[p].cols * part[p].products;
    }
    if (quantizes) return rows;
    while (rows > 1 && (rows * bits > 16 || all / (8 * rows) < m->ask->device->n_sm)) rows /= 2;
    return rows;
}

/* The tables of products, ops on results and parts; `tile` columns a block, at most `cap` blocks a part. */
static void put_parts(maker *m, part_shape *part, int32_t tile, int32_t cap) {
    int32_t local[TN_LAUNCH_MAX], block = 0, product = 0, after = 0;
    tn_buf_printf(m->head, "#define FIRST_WEIGHT %d\n#define PRODUCTS ", m->n_weights);
    for (int32_t p = 0; p < m->form.n_parts; p++)
        for (int32_t i = 0; i < m->ask->n; i++) {
            if (m->form.role[i] != TN_CORE || m->form.part[i] != p) continue;
            int traits = traits_of(m, node_at(m, i)->src[1]);
            add_weight(m, node_at(m, i)->src[1]);
            tn_buf_printf(m->head, "{%d,%d},", traits, store_of(m, i));
        }
    tn_buf_str(m->head, "\n#define AFTER_OPS ");
    for (int32_t p = 0; p < m->form.n_parts; p++) {
        int32_t next = 0;
        for (int32_t i = 0; i < m->ask->n; i++) local[i] = -1;
        for (int32_t i = 0; i < m->ask->n; i++)
            if (m->form.role[i] == TN_CORE && m->form.part[i] == p) local[i] = next++;
        for (int32_t i = 0; i < m->ask->n; i++) {
            if (m->form.role[i] != TN_AFTER || m->form.part[i] != p) continue;
            put_after_op(m, i, local);
            local[i] = next++;
            after++;
        }
    }
    tn_buf_printf(m->head, "\n#define N_AFTER_OPS %d\n#define PARTS ", after);
    after = 0;
    for (int32_t p = 0; p < m->form.n_parts; p++) {
        part[p].tiles = (part[p].cols + tile - 1) / tile;
        int32_t blocks = part[p].tiles < cap ? part[p].tiles : cap;
        tn_buf_printf(m->head, "{%d,%d,%d,%d,%d,%d,%d},", part[p].cols, block, blocks, product, part[p].products,
                      after, part[p].afters);
        block += blocks;
        product += part[p].products;
        after += part[p].afters;
    }
    tn_buf_printf(m->head, "\n#define N_PARTS %d\n", m->form.n_parts);
    m->to->grid[0] = (unsigned)block;
}

/* Where the activations come from; returns whether they are int8. */
static bool put_activation(maker *m, const tn_src *x) {
    bool int8 = tn_shape_of(m->g, *x)->dtype == TN_Q8;
    bool inside = index_in(m, x->node) >= 0;
    tn_buf_printf(m->head, "#define N_IN %d\n#define X_INT8 %d\n#define X_CODE %d\n", x->cols, int8,
                  inside && int8 ? 0 : row_operand(m, *x));
    return int8;
}

static void make_matvec(maker *m, part_shape *part, int32_t max_products) {
    const tn_src *x = activation(m);
    place_slots(m, 1);
    put_row_ops(m);
    bool int8 = put_activation(m, x);
    size_t blocks = ((size_t)x->cols + 31) / 32, stride = int8 ? tn_align_up(blocks * 40, 16) : blocks * 144;
    int32_t rows = rows_of_warp(m, part), tokens = m->max_rows;
    size_t slots = (size_t)m->slot_floats * 4, shared = 0;
    for (;; tokens = (tokens + 1) / 2) {
        shared = slots + (size_t)tokens * (stride + (size_t)max_products * 8 * (size_t)rows * 4);
        if (shared <= m->ask->device->shared_limit / 2 || tokens == 1) break;
    }
    put_parts(m, part, 8 * rows, 4 * m->ask->device->n_sm);
    tn_buf_printf(m->head, "#define TOKENS %d\n#define ROWS %d\n#define X_AT %d\n#define X_STRIDE %d\n", tokens, rows,
                  m->slot_floats, (int)stride);
    tn_buf_printf(m->head, "#define MIN_BLOCKS %d\n#define LOADS %d\n", tokens > 2 ? 1 : 2, MATVEC_LOADS);
    m->to->shared_bytes = shared;
    m->to->grid[2] = (unsigned)((m->max_rows + tokens - 1) / tokens);
}

static void make_matmul(maker *m, part_shape *part, int32_t max_products) {
    const tn_src *x = activation(m);
    if (max_products > MAX_TILE_PRODUCTS) fail(m, "too many products on one tile of many tokens");
    place_slots(m, 1);
    bool int8 = put_activation(m, x);
    put_parts(m, part, MATMUL_TILE, INT32_MAX);
    m->to->shared_bytes = (int8 ? STAGE_Q8 : STAGE_F32) + (size_t)max_products * MATMUL_TILE * (MATMUL_TILE + 1) * 4;
    m->to->grid[1] = (unsigned)((m->max_rows + MATMUL_TILE - 1) / MATMUL_TILE);
}

static void make_matmuls(maker *m) {
    part_shape part[TN_LAUNCH_MAX];
    int32_t max_products = 0;
    for (int32_t p = 0; p < m->form.n_parts; p++) {
        part[p] = measure_part(m, p);
        if (part[p].products > max_products) max_products = part[p].products;
    }
    if (!strcmp(m->to->kernel->entry, "matvec"))
        make_matvec(m, part, max_products);
    else
        make_matmul(m, part, max_products);
}

/* ---- attend ---- */

static void put_cache(maker *m, const tn_attr *a) {
    const tn_memory *memory = m->ask->memory;
    if (memory) m->to->args.cache = memory->states[a->index];
    tn_buf_printf(m->head, "#define KV_TYPE %d\n#define KV_HEADS %d\n#define KV_K_DIM %d\n#define KV_V_DIM %d\n",
                  memory ? (int)memory->kv_type : (int)TN_KV_F16, a->n_kv, a->head_dim, a->v_dim);
}

static void make_attend(maker *m) {
    int32_t core = 0, local[TN_LAUNCH_MAX], n_after = 0;
    while (m->form.role[core] != TN_CORE) core++;
    const tn_node *n = node_at(m, core);
    const tn_attr *a = &n->attr;
    int32_t group = a->n_head / a->n_kv, rows = m->max_rows, splits = 1;
    if (group > MAX_ATTEND_GROUP) fail(m, "more than 16 query heads share a kv head");
    if (rows <= MATVEC_ROWS) splits = 2 * m->ask->device->n_sm / (a->n_kv * rows);
    splits = splits < 1 ? 1 : splits > MAX_SPLITS ? MAX_SPLITS : splits;
    place_slots(m, a->n_kv);
    put_row_ops(m);
    int32_t q = row_operand(m, n->src[0]);
    tn_buf_str(m->head, "#define AFTER_OPS ");
    for (int32_t i = 0; i < m->ask->n; i++) local[i] = i == core ? 0 : -1;
    for (int32_t i = core + 1; i < m->ask->n; i++) {
        put_after_op(m, i, local);
        local[i] = ++n_after;
    }
    int32_t out = group * a->v_dim, red = 16 * a->v_dim < 4096 ? 16 * a->v_dim : 4096;
    tn_buf_printf(m->head, "\n#define N_AFTER_OPS %d\n#define GROUP %d\n#define Q_CODE %d\n#define WINDOW %d\n",
                  n_after, group, q, a->window);
    tn_buf_printf(m->head, "#define FACTOR %.9ef\n#define SOFTCAP %.9ef\n#define SPLITS %d\n#define MIN_PAGES %d\n",
                  (double)a->factor, (double)a->softcap, splits, MIN_PAGES);
    tn_buf_printf(m->head, "#define WORK_AT %d\n#define CORE_STORE %d\n", m->slot_floats, store_of(m, core));
    size_t work = (size_t)(group * (a->head_dim + 64 + 3) + out + red + 16);
    m->to->shared_bytes = ((size_t)m->slot_floats + work) * 4;
    if (splits > 1) {
        m->to->counters = (size_t)(rows * a->n_kv);
        m->to->partial_bytes = m->to->counters * (size_t)splits * (size_t)(out + 2 * group) * 4;
    }
    m->to->grid[0] = (unsigned)rows;
    m->to->grid[1] = (unsigned)a->n_kv;
    m->to->grid[2] = (unsigned)splits;
}

/* ---- any ---- */

static bool has_row_op(tn_op op) {
    switch (op) {
    case TN_OP_TOP_K:
    case TN_OP_EXPERT_SUM:
    case TN_OP_ATTENTION:
    case TN_OP_CONV1D:
    case TN_OP_GATED_DELTA_NET: return false;
    default: return tn_ops[op].class != TN_LEAF && tn_ops[op].class != TN_MATMUL;
    }
}

/* Numbers of the ops, the step's count that the rows are, the cache. */
static void put_common(maker *m) {
    int count = 0;
    m->max_rows = m->g->max_tokens;
    for (int op = 0; op < TN_OP_COUNT; op++) tn_buf_printf(m->head, "#define OP_%s %d\n", op_names[op], op);
    for (int32_t i = 0; i < m->ask->n; i++) {
        const tn_node *n = node_at(m, i);
        if (n->out[0].rows == TN_ROWS_OUTPUTS) count = 1, m->max_rows = m->g->max_outputs;
    }
    for (int32_t i = 0; i < m->ask->n; i++)
        if (tn_ops[node_at(m, i)->op].class == TN_STATE) {
            put_cache(m, &node_at(m, i)->attr);
            break;
        }
    tn_buf_printf(m->head, "#define COUNT %d\n", count);
}

static const tn_cuda_kernel *choose(const maker *m) {
    tn_cuda_act act = TN_CUDA_F32;
    for (int32_t i = 0; i < m->ask->n; i++)
        if (node_at(m, i)->op == TN_OP_MATMUL && tn_shape_of(m->g, node_at(m, i)->src[0])->dtype == TN_Q8)
            act = TN_CUDA_INT8;
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        const tn_cuda_kernel *k = &kernels[i];
        if (k->form == m->form.kind && (k->act == TN_CUDA_ANY || k->act == act) &&
            (!k->max_rows || m->max_rows <= k->max_rows))
            return k;
    }
    return NULL;
}

const char *tn_cuda_build(tn_cuda_launch *launch, const tn_cuda_ask *ask, tn_buf *head) {
    static const tn_form_limits limits = {has_row_op, MATVEC_ROWS};
    maker m = {.ask = ask, .g = ask->graph, .to = launch, .head = head};
    *launch = (tn_cuda_launch){.grid = {1, 1, 1}};
    const char *why = tn_form_of(&m.form, m.g, ask->nodes, ask->n, &limits);
    if (why) return why;
    put_common(&m);
    for (int32_t i = 0; i < ask->n; i++)
        if (node_at(&m, i)->op == TN_OP_MATMUL_ID) return "no kernel for experts yet";
    launch->kernel = choose(&m);
    if (!launch->kernel) return "no kernel of this form";
    switch (m.form.kind) {
    case TN_FORM_ROWS: make_rows(&m); break;
    case TN_FORM_MATMULS: make_matmuls(&m); break;
    case TN_FORM_ATTEND: make_attend(&m); break;
    case TN_FORM_SCAN: break; /* there is no such kernel */
    }
    if (!m.why && launch->shared_bytes > ask->device->shared_limit) m.why = "the rows do not fit into shared memory";
    return m.why;
}

/* "matvec_q8__dp4a: rms_norm, mul, quantize, matmul Q4_K, matmul Q6_K" */
static void describe(const tn_cuda_launch *l, const tn_cuda_ask *a, tn_buf *name) {
    tn_buf_str(name, l->kernel->name);
    for (int32_t i = 0; i < a->n; i++) {
        const tn_node *n = &a->graph->nodes[a->nodes[i]];
        tn_buf_printf(name, "%s%s", i ? ", " : ": ", tn_ops[n->op].name);
        if (n->op == TN_OP_MATMUL) {
            const tn_weight *w = tn_src_weight(a->graph, n->src[1]);
            tn_buf_printf(name, " %s", tn_type_get(w->type)->name);
        }
    }
}

const char *tn_cuda_find_kernel(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n,
                                tn_buf *name) {
    tn_cuda_ask ask = {device, g, nodes, n, NULL, NULL};
    tn_cuda_launch launch;
    tn_buf head = {0};
    const char *why = tn_cuda_build(&launch, &ask, &head);
    tn_buf_free(&head);
    if (!why && name) describe(&launch, &ask, name);
    return why;
}
