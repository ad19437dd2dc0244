/* From nodes to a launch: the tables at the head of a kernel's source, its arguments, its grid. The same function answers
 * find_kernel (does a kernel for these nodes exist?), so that the two cannot disagree. Attention has a file of its own. */
#include "backend/cuda/build.h"
#include "backend/cuda/pack.h"
#include "base/mem.h"

#include <string.h>

enum { ROWS_BEFORE = 2 };   /* so many norms are done again by every block rather than once, before */
enum { MATVEC_BLOCKS = 3 }; /* of a multiprocessor at most, at once */
enum { MAX_TILE_PRODUCTS = 2, MAX_GRID = 65535 /* blocks in y, in z */ };
enum { ARGMAX_COLUMNS = 4096, BEST_COLUMNS = 4096, BEST_SHARES = 64 }; /* of a block; blocks of a row */
enum { CONV_CHUNK = 16, DELTA_CHUNK = 16 };                            /* tokens of a run worked on at once */
enum {
    EXPERTS_ROWS = 64,
    EXPERTS_TOKENS = 32,
    STAGE_EXPERTS = (64 + 32) * 144 + 4 * (64 * 16 + 32 * 8)
}; /* of experts.cu */

#define KERNEL(entry, core, act, rows, name) extern const char tn_cuda_source_##entry[];
#include "backend/cuda/kernels.def"
#undef KERNEL

static const tn_cuda_kernel kernels[] = {
#define KERNEL(entry, core, act, rows, name)                                                                         \
    {#entry, TN_CUDA_##core, TN_CUDA_##act, rows, name, tn_cuda_source_##entry},
#include "backend/cuda/kernels.def"
#undef KERNEL
};

static const char *const op_names[TN_OP_COUNT] = {
#define OP(NAME, ...) #NAME,
#include "graph/ops.def"
#undef OP
};

static int32_t index_in(const tn_maker *m, int32_t node) {
    return tn_index_in(m->ask->nodes, m->ask->n, node);
}

int32_t tn_core_at(const tn_maker *m) {
    int32_t core = 0;
    while (m->form.role[core] != TN_CORE) core++;
    return core;
}

int32_t tn_maker_fail(tn_maker *m, const char *why) {
    if (!m->why) m->why = why;
    return 0;
}

/* ---- operands ---- */

static int32_t add_value(tn_maker *m, uint64_t address, size_t stride) {
    if (m->n_values == TN_K_MAX_VALUES) return tn_maker_fail(m, "too many operands for one launch");
    m->to->args.v[m->n_values] = (tn_k_value){address, (long long)stride};
    return m->n_values++;
}

static uint64_t arena_at(const tn_maker *m, tn_src s) {
    if (!m->ask->plan || !m->ask->memory) return 0;
    if (m->g->choice && s.node == m->g->choice) return m->ask->memory->chosen;
    return m->ask->memory->arena + (uint64_t)tn_plan_offset(m->ask->plan, s);
}

static int32_t stored_value(tn_maker *m, tn_src s) {
    return add_value(m, arena_at(m, s) + (uint64_t)s.first * 4, tn_shape_row_bytes(tn_shape_of(m->g, s)));
}

/* v[] where an output of node i of the launch is stored; -1: nowhere. Without a plan every value counts as stored. */
static int32_t store_output(tn_maker *m, int32_t i, int32_t out) {
    int32_t node = m->ask->nodes[i];
    if (tn_node_at(m, i)->out[out].dtype == TN_DTYPE_STATE) return -1;
    if (m->ask->plan && m->ask->plan->offset[node * TN_MAX_OUT + out] < 0) return -1;
    return stored_value(m, (tn_src){.node = node, .out = out});
}
int32_t tn_store_of(tn_maker *m, int32_t i) {
    return store_output(m, i, 0);
}

static tn_k_weight weight_at(const tn_maker *m, int32_t node) {
    const tn_k_weight *all = m->ask->device->weights;
    return all ? all[m->g->nodes[node].attr.index] : (tn_k_weight){0};
}

/* The code of an operand from outside the launch. */
static int32_t outside(tn_maker *m, tn_src s) {
    if (m->g->nodes[s.node].op == TN_OP_WEIGHT)
        return -1 - add_value(m, weight_at(m, s.node).low + (uint64_t)s.first * 4, 0);
    return -1 - stored_value(m, s);
}

int32_t tn_row_operand(tn_maker *m, tn_src s) {
    int32_t i = index_in(m, s.node);
    if (i < 0) return outside(m, s);
    if (m->slot[i] < 0) return tn_maker_fail(m, "a row op reads what is not a row of the launch");
    if (s.first && m->slot_parts > 1) return tn_maker_fail(m, "a slice of a value that is computed head by head");
    return m->slot[i] + s.first;
}

static int32_t add_weight(tn_maker *m, tn_src s) {
    if (m->n_weights == TN_K_MAX_WEIGHTS) return tn_maker_fail(m, "too many products for one launch");
    m->to->args.w[m->n_weights] = weight_at(m, s.node);
    return m->n_weights++;
}

static int traits_of(tn_maker *m, tn_src s) {
    const tn_weight *w = tn_src_weight(m->g, s);
    int traits = tn_cuda_traits(w->type);
    if (traits < 0) return tn_maker_fail(m, "no kernel for the block type of the weight");
    if (w->elements) return tn_maker_fail(m, "a weight for element ops is not packed");
    return traits;
}

/* ---- row ops ---- */

/* The last node that reads node i of the launch: nodes of the core and behind it hold it to the end; -1: none does. */
static int32_t last_use(const tn_maker *m, int32_t i) {
    int32_t last = -1;
    for (int32_t j = i + 1; j < m->ask->n; j++)
        for (int k = 0; k < tn_node_at(m, j)->n_src; k++)
            if (tn_node_at(m, j)->src[k].node == m->ask->nodes[i])
                last = m->form.role[j] == TN_BEFORE ? j : m->ask->n;
    return last;
}

void tn_place_slots(tn_maker *m, int32_t before, int32_t after) {
    int32_t size[TN_LAUNCH_MAX], last[TN_LAUNCH_MAX];
    m->slot_parts = before;
    m->slot_after = after > 0;
    for (int32_t i = 0; i < m->ask->n; i++) {
        const tn_node *n = tn_node_at(m, i);
        int32_t parts = m->form.role[i] == TN_BEFORE ? before : after;
        m->slot[i] = -1;
        last[i] = last_use(m, i);
        if (!parts || last[i] < 0 || n->out[0].dtype != TN_F32) continue;
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
static void row_numbers(tn_maker *m, const tn_node *n, int32_t i[3], double f[6]) {
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
    case TN_OP_EMBED: i[0] = traits_of(m, n->src[1]), i[1] = m->n_weights; break;
    case TN_OP_QUANTIZE: i[0] = a->head_dim; break;
    case TN_OP_TOP_K: i[0] = n->src[0].cols, i[1] = a->norm; break;
    case TN_OP_EXPERT_SUM: i[0] = a->n_used; break;
    case TN_OP_ROPE_TABLE:
        i[0] = a->n_rot, i[1] = a->rope.n_ctx_orig, i[2] = n->n_src > 0;
        f[0] = (double)a->rope.base, f[1] = (double)a->rope.freq_scale, f[2] = (double)a->rope.ext_factor;
        f[3] = (double)a->rope.attn_factor, f[4] = (double)a->rope.beta_fast, f[5] = (double)a->rope.beta_slow;
        break;
    default: break;
    }
}

/* Whether a row op can keep a row in registers: all it reads are rows of the same columns, read by fours, or one number. */
static bool fits_registers(const tn_maker *m, const tn_node *n, int32_t cols) {
    bool norm = n->op == TN_OP_RMS_NORM || n->op == TN_OP_QUANTIZE, sum = n->op == TN_OP_EXPERT_SUM;
    if (tn_ops[n->op].class != TN_ELEMENT && !norm && !sum) return false;
    if (n->out[0].cols != cols || (norm && n->attr.head_dim)) return false;
    for (int k = 0; k < n->n_src; k++) {
        bool inside = index_in(m, n->src[k].node) >= 0, one = k == 1 && n->src[k].cols == 1;
        if (sum ? inside || n->src[0].first % 4 : n->src[k].cols != cols && !one) return false;
        if (inside ? n->src[k].first != 0 || n->src[k].cols != cols : n->src[k].first % 4 && !one && !sum)
            return false;
        if (!inside && !one && !(sum && k == 1) && tn_shape_of(m->g, n->src[k])->cols % 4) return false;
    }
    return true;
}

/* Whether the launch's row ops, on whole rows, keep them in registers. Without a norm there is nothing to gain. */
static bool in_registers(const tn_maker *m) {
    int32_t cols = tn_node_at(m, 0)->out[0].cols;
    bool norm = false;
    if (m->slot_parts > 1 || m->slot_after || cols % 4 || cols > 32 * TN_K_THREADS) return false;
    for (int32_t i = 0; i < m->ask->n; i++) {
        if (m->form.role[i] != TN_BEFORE) continue;
        if (!fits_registers(m, tn_node_at(m, i), cols)) return false;
        norm |= tn_node_at(m, i)->op == TN_OP_RMS_NORM;
    }
    return norm;
}

/* Whether a row op reads what one before it wrote, or writes where one before it was at work. */
static bool must_wait(const tn_maker *m, int32_t i) {
    const tn_node *n = tn_node_at(m, i);
    for (int k = 0; k < n->n_src; k++)
        if (index_in(m, n->src[k].node) >= 0) return true;
    for (int32_t j = 0; j < i; j++)
        if (m->slot[i] >= 0 && m->slot[j] >= 0 && m->slot[j] >= m->slot[i]) return true;
    return false;
}

static void put_row_op(tn_maker *m, int32_t i) {
    const tn_node *n = tn_node_at(m, i);
    int32_t number[3] = {0}, a = -1, b = 0, period = 0, cols = n->out[0].cols;
    double f[6] = {0};
    row_numbers(m, n, number, f);
    if (n->op == TN_OP_KV_WRITE) {
        cols = n->src[1].cols;
        a = tn_row_operand(m, n->src[1]);
        b = tn_row_operand(m, n->src[2]);
    } else if (n->op == TN_OP_EMBED) {
        add_weight(m, n->src[1]);
    } else if (n->n_src) {
        a = tn_row_operand(m, n->src[0]);
        if (n->n_src > 1) b = tn_row_operand(m, n->src[1]);
        if (n->n_src > 1 && n->src[1].cols < cols) period = n->src[1].cols;
    }
    if (n->op == TN_OP_TOP_K) number[2] = store_output(m, i, 1);
    int32_t dst = n->op == TN_OP_QUANTIZE && last_use(m, i) >= 0 ? 0 : m->slot[i];
    tn_buf_printf(m->head, "{%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%.17g,%.17g,%.17g,%.17g,%.17g,%.17g},", (int)n->op,
                  must_wait(m, i), cols, a, b, period, dst, tn_store_of(m, i), number[0], number[1], number[2], f[0],
                  f[1], f[2], f[3], f[4], f[5]);
    m->n_row_ops++;
}

void tn_put_row_ops(tn_maker *m) {
    tn_buf_str(m->head, "#define ROW_OPS ");
    for (int32_t i = 0; i < m->ask->n; i++)
        if (m->form.role[i] == TN_BEFORE) put_row_op(m, i);
    int32_t before = m->n_row_ops;
    for (int32_t i = 0; i < m->ask->n; i++) /* those on a head's result work like row ops */
        if (m->form.role[i] == TN_AFTER && m->slot_after) put_row_op(m, i);
    tn_buf_printf(m->head, "\n#define N_ROW_OPS %d\n#define N_BEFORE %d\n#define IN_REGISTERS %d\n", m->n_row_ops,
                  before, in_registers(m));
}

/* ---- ops on results ---- */

/* `local`: value number of each node of the launch, -1: not one of the part's. */
static void put_after_op(tn_maker *m, int32_t i, const int32_t *local) {
    const tn_node *n = tn_node_at(m, i);
    int32_t code[2] = {-1, -1}, period = 0, store = tn_store_of(m, i);
    for (int k = 0; k < n->n_src && k < 2; k++) {
        int32_t from = index_in(m, n->src[k].node);
        code[k] = from >= 0 ? local[from] : outside(m, n->src[k]);
        if (from >= 0 && local[from] < 0) tn_maker_fail(m, "an op on the results of two parts");
    }
    if (n->n_src > 1 && n->src[1].cols < n->out[0].cols) period = n->src[1].cols;
    if (n->op == TN_OP_EXPERT_SUM) period = n->attr.n_used;
    if (n->op == TN_OP_QUANTIZE && store < 0) tn_maker_fail(m, "an int8 result that nobody reads");
    double f = n->op == TN_OP_SCALE ? (double)n->attr.factor : (double)n->attr.softcap;
    tn_buf_printf(m->head, "{%d,%d,%d,%d,%d,%d,%.17g,%d},", (int)n->op, code[0], code[1], period, n->out[0].cols,
                  store, f, n->op == TN_OP_QUANTIZE ? n->attr.head_dim : 0);
}

void tn_put_after_ops(tn_maker *m, int32_t core) {
    int32_t local[TN_LAUNCH_MAX], n_after = 0;
    tn_buf_str(m->head, "#define AFTER_OPS ");
    for (int32_t i = 0; i < m->ask->n; i++) local[i] = i == core ? 0 : -1;
    for (int32_t i = core + 1; i < m->ask->n; i++) {
        put_after_op(m, i, local);
        local[i] = ++n_after;
    }
    tn_buf_printf(m->head, "\n#define N_AFTER_OPS %d\n", n_after);
}

/* ---- rows ---- */

/* Parts of the columns for different blocks: only where no op needs more of a row than its own columns. */
static int32_t column_parts(const tn_maker *m) {
    int32_t cols = tn_node_at(m, 0)->out[0].cols, parts = cols / 512;
    for (int32_t i = 0; i < m->ask->n; i++) {
        const tn_node *n = tn_node_at(m, i);
        tn_class class = tn_ops[n->op].class;
        if ((class != TN_ELEMENT && class != TN_BLOCK && n->op != TN_OP_EXPERT_SUM) || n->out[0].cols != cols)
            return 1;
    }
    return parts > 1 && cols % (parts * 32) == 0 ? parts : 1;
}

static void make_rows(tn_maker *m) {
    int32_t parts = column_parts(m);
    tn_place_slots(m, parts, 0);
    tn_put_row_ops(m);
    m->to->shared_bytes = (size_t)m->slot_floats * 4;
    m->to->grid[0] = (unsigned)m->max_rows;
    m->to->grid[1] = (unsigned)parts;
}

/* ---- matmuls ---- */

typedef struct part_shape {
    int32_t cols, products, afters, tiles;
    int32_t experts; /* that a token chose, whose products stand side by side; 0: products of plain matrices */
    bool quantizes;
} part_shape;

/* A product of chosen experts, which are the same for all that are; NULL: there is none. */
static const tn_node *of_experts(const tn_maker *m) {
    for (int32_t i = 0; i < m->ask->n; i++)
        if (tn_node_at(m, i)->op == TN_OP_MATMUL_ID) return tn_node_at(m, i);
    return NULL;
}

/* The activation that all products read. */
static const tn_src *activation(tn_maker *m) {
    const tn_src *x = NULL;
    for (int32_t i = 0; i < m->ask->n; i++) {
        if (m->form.role[i] != TN_CORE) continue;
        if (x && !tn_src_same(*x, tn_node_at(m, i)->src[0])) tn_maker_fail(m, "products of different activations");
        x = &tn_node_at(m, i)->src[0];
    }
    return x;
}

static part_shape measure_part(const tn_maker *m, int32_t number) {
    part_shape p = {0};
    for (int32_t i = 0; i < m->ask->n; i++) {
        if (m->form.role[i] == TN_BEFORE || m->form.part[i] != number) continue;
        p.cols = tn_node_at(m, i)->out[0].cols;
        p.products += m->form.role[i] == TN_CORE;
        if (tn_node_at(m, i)->op == TN_OP_MATMUL_ID) p.experts = tn_node_at(m, i)->attr.n_used;
        p.afters += m->form.role[i] == TN_AFTER;
        p.quantizes |= tn_node_at(m, i)->op == TN_OP_QUANTIZE;
    }
    return p;
}

/* Lanes that share rows of n_in columns: no more than a row has blocks for. */
static int32_t lanes_of_row(int32_t n_in) {
    return n_in > 16 * 32 ? 32 : n_in > 8 * 32 ? 16 : 8;
}

/* Columns that the busiest multiprocessor has with tiles of so many; all, where there are more tiles than it holds blocks at once. */
static int32_t most_columns(const tn_maker *m, int32_t cols, int32_t tile) {
    int32_t sms = m->ask->device->n_sm, tiles = (cols + tile - 1) / tile;
    return tiles > MATVEC_BLOCKS * sms ? cols : (tiles + sms - 1) / sms * tile;
}

/* Rows of the weight a lane takes: as many as keep the loads in flight in registers, fewer (but `least`) where the blocks would
 * not fill the device, for one token also where they would fill it more evenly. A block has 32 columns at most, and just that
 * where results are quantized: then they are one block of 32. */
static int32_t rows_of_lane(tn_maker *m, const part_shape *part, int32_t lanes, int32_t least) {
    int32_t bits = 4, rows = lanes / 8, all = 0, cols = 0, groups = TN_K_THREADS / lanes;
    bool quantizes = false;
    for (int32_t i = 0; i < m->ask->n; i++)
        if (m->form.role[i] == TN_CORE) {
            int traits = traits_of(m, tn_node_at(m, i)->src[1]);
            if (TN_K_LOW(traits) > bits) bits = TN_K_LOW(traits);
        }
    for (int32_t p = 0; p < m->form.n_parts; p++) {
        quantizes |= part[p].quantizes;
        all += part[p].cols * part[p].products;
        cols += part[p].cols;
    }
    if (quantizes) return rows;
    while (rows > least && (rows * bits > 16 || all / (groups * rows) < m->ask->device->n_sm)) rows /= 2;
    for (int32_t fewer = rows / 2; least == 1 && fewer > 0; fewer /= 2)
        if (most_columns(m, cols, groups * fewer) < most_columns(m, cols, groups * rows)) rows = fewer;
    return rows;
}

/* Cuts parts into tiles of `tile` columns of each product, or, where they `share` a tile, of so many together; of one token's
 * experts they stand one after the other. Returns how many there are. */
static int32_t cut_parts(const tn_maker *m, part_shape *part, int32_t tile, bool share) {
    bool one_token = !strcmp(m->to->kernel->entry, "matvec"); /* blocks are those of one, where experts are chosen */
    int32_t all = 0;
    for (int32_t p = 0; p < m->form.n_parts; p++) {
        int32_t each = share ? tile / part[p].products : tile, chosen = part[p].experts ? part[p].experts : 1;
        part[p].tiles = (part[p].cols / chosen + each - 1) / each * (one_token ? chosen : 1);
        all += part[p].tiles;
    }
    return all;
}

/* The tables of products, ops on results and parts, whose `tiles` in all are shared out to at most `cap` blocks. */
static void put_parts(tn_maker *m, const part_shape *part, int32_t tiles, int32_t cap) {
    int32_t local[TN_LAUNCH_MAX], block = 0, product = 0, after = 0;
    tn_buf_printf(m->head, "#define FIRST_WEIGHT %d\n#define PRODUCTS ", m->n_weights);
    for (int32_t p = 0; p < m->form.n_parts; p++)
        for (int32_t i = 0; i < m->ask->n; i++) {
            if (m->form.role[i] != TN_CORE || m->form.part[i] != p) continue;
            int traits = traits_of(m, tn_node_at(m, i)->src[1]);
            add_weight(m, tn_node_at(m, i)->src[1]);
            const tn_weight *w = tn_src_weight(m->g, tn_node_at(m, i)->src[1]);
            size_t expert = w->n_expert > 1 ? tn_cuda_matrix_bytes(w) : 0;
            tn_buf_printf(m->head, "{%d,%d,%zu},", traits, tn_store_of(m, i), expert);
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
        int32_t blocks = tiles <= cap ? part[p].tiles : (int32_t)((int64_t)part[p].tiles * cap / tiles);
        if (blocks == 0) blocks = 1;
        tn_buf_printf(m->head, "{%d,%d,%d,%d,%d,%d,%d,%d},", part[p].cols, block, blocks, product, part[p].products,
                      after, part[p].afters, part[p].experts);
        block += blocks;
        product += part[p].products;
        after += part[p].afters;
    }
    tn_buf_printf(m->head, "\n#define N_PARTS %d\n", m->form.n_parts);
    m->to->grid[0] = (unsigned)block;
}

/* What the products read. */
typedef struct activations {
    bool int8;
    int32_t n_in, rows; /* columns; rows of a token: 1, or one for each chosen expert */
} activations;

/* Where they come from. */
static activations put_activation(tn_maker *m, const tn_src *x) {
    activations a = {tn_shape_of(m->g, *x)->dtype == TN_Q8, x->cols, 1};
    int32_t inside = index_in(m, x->node);
    const tn_node *n = of_experts(m);
    if (n) a.n_in = tn_src_weight(m->g, n->src[1])->n_in, a.rows = x->cols / a.n_in;
    for (int32_t i = 0; i < m->ask->n; i++)
        if (m->form.role[i] == TN_CORE && tn_src_weight(m->g, tn_node_at(m, i)->src[1])->n_in != a.n_in)
            tn_maker_fail(m, "products of the whole row and of a row for each expert");
    if (inside >= 0 && a.rows > 1 && a.int8)
        tn_maker_fail(m, "rows for each expert are quantized in a launch before");
    tn_buf_printf(m->head, "#define N_IN %d\n#define X_INT8 %d\n#define X_CODE %d\n#define X_ROWS %d\n", a.n_in,
                  a.int8, inside >= 0 && a.int8 ? 0 : tn_row_operand(m, *x), a.rows);
    tn_buf_printf(m->head, "#define EXPERTS %d\n#define CHOSEN %d\n", n ? n->attr.n_used : 0,
                  n ? stored_value(m, n->src[2]) : -1);
    return a;
}

/* Blocks that a multiprocessor holds at once, and loads of 16 bytes that a lane has in flight then. */
typedef struct matvec_pace {
    int32_t blocks, loads;
} matvec_pace;

/* Two blocks with many loads, as registers allow; where that leaves a few tiles for a second round, three with fewer. Of several
 * parts behind row ops none is asked for early, and few were faster. */
static matvec_pace pace_of(const tn_maker *m, bool int8, bool mma, int32_t tokens, int32_t rows, int32_t tiles) {
    int32_t round = 2 * m->ask->device->n_sm;
    if (!int8) return (matvec_pace){tokens <= 2 ? 2 : 1, 12};
    if (mma) return (matvec_pace){2, rows == 4 ? 4 : 12};
    if (tiles > round && tiles <= MATVEC_BLOCKS * m->ask->device->n_sm) return (matvec_pace){MATVEC_BLOCKS, 6};
    return (matvec_pace){2, m->form.n_parts > 1 && m->n_row_ops > 0 ? 6 : 12};
}

/* Tokens go through the tensor cores two by two. */
static void make_matvec(tn_maker *m, part_shape *part, int32_t max_products) {
    const tn_src *x = activation(m);
    tn_place_slots(m, 1, 0);
    tn_put_row_ops(m);
    activations a = put_activation(m, x);
    size_t blocks = ((size_t)a.n_in + 31) / 32, row = a.int8 ? tn_align_up(blocks * 40, 16) : blocks * 144;
    int32_t tokens = of_experts(m) ? 1 : m->max_rows;
    bool mma = a.int8 && tokens > 1;
    int32_t step = mma ? 2 : 1, lanes = mma ? 32 : lanes_of_row(a.n_in), rows = rows_of_lane(m, part, lanes, step);
    tokens = (tokens + step - 1) / step * step;
    size_t slots = (size_t)m->slot_floats * 4, limit = m->ask->device->shared_limit / (mma ? 1 : 2);
    int32_t tile = TN_K_THREADS / lanes * rows, tiles = cut_parts(m, part, tile, false);
    size_t sums = (size_t)(tile * max_products + (mma ? TN_K_THREADS * rows : 0)) * 4;
    size_t token = row * (size_t)a.rows + sums;
    while (tokens > step && slots + (size_t)tokens * token > limit) tokens -= step;
    matvec_pace pace = pace_of(m, a.int8, mma, tokens, rows, tiles);
    put_parts(m, part, tiles, pace.blocks * m->ask->device->n_sm);
    tn_buf_printf(m->head, "#define TOKENS %d\n#define ROWS %d\n#define LANES %d\n#define MMA %d\n#define X_AT %d\n",
                  tokens, rows, lanes, mma, m->slot_floats);
    tn_buf_printf(m->head, "#define X_ROW %d\n#define MIN_BLOCKS %d\n#define LOADS %d\n", (int)row, pace.blocks,
                  pace.loads);
    m->to->shared_bytes = slots + (size_t)tokens * token;
    m->to->grid[2] = (unsigned)((m->max_rows + tokens - 1) / tokens);
}

/* Rows and tokens of a block of matmul.cu, its shared memory. */
typedef struct matmul_tile {
    int32_t rows, tokens;
    size_t bytes;
} matmul_tile;

static matmul_tile tile_of(const tn_maker *m, bool int8, int32_t rows, int32_t tokens) {
    size_t r = (size_t)rows, t = (size_t)tokens, stages = 32 * (r + t + 8) * 4, out = t * (r + 4) * 4;
    size_t numbers = 2;
    for (int32_t i = 0; i < m->ask->n; i++)
        if (m->form.role[i] == TN_CORE &&
            TN_K_SCALE(tn_cuda_traits(tn_src_weight(m->g, tn_node_at(m, i)->src[1])->type)) == TN_K_K16M)
            numbers = 4;
    if (int8) stages = 2 * ((r + t) * 144 + (r + t + 8) * 16 * numbers);
    return (matmul_tile){rows, tokens, stages > out ? stages : out};
}

/* The tile with which the busiest multiprocessor has least to do; what a block brings in counts as 20 multiplications an
 * element, shared by the other side of the tile. */
static matmul_tile choose_tile(const tn_maker *m, const part_shape *part, bool int8) {
    matmul_tile best = tile_of(m, int8, 64, 64);
    double least = 0;
    for (int32_t rows = 64; int8 && rows <= 128; rows *= 2)
        for (int32_t tokens = 64; tokens <= 128; tokens *= 2) {
            matmul_tile tile = tile_of(m, int8, rows, tokens);
            int64_t blocks = 0;
            for (int32_t p = 0; p < m->form.n_parts; p++)
                blocks += (part[p].cols * part[p].products + rows - 1) / rows;
            blocks *= (m->max_rows + tokens - 1) / tokens;
            int64_t rounds = (blocks + m->ask->device->n_sm - 1) / m->ask->device->n_sm;
            double cost = (double)rounds * (rows * tokens + 10.0 * (rows + tokens));
            if (tile.bytes > m->ask->device->shared_limit || (least > 0 && cost >= least)) continue;
            best = tile;
            least = cost;
        }
    return best;
}

static void make_matmul(tn_maker *m, part_shape *part, int32_t max_products) {
    const tn_src *x = activation(m);
    if (max_products > MAX_TILE_PRODUCTS) tn_maker_fail(m, "too many products on one tile of many tokens");
    for (int32_t i = 0; i < m->ask->n; i++)
        if (m->form.role[i] == TN_BEFORE) tn_maker_fail(m, "a norm before products on tiles runs once, before");
    tn_place_slots(m, 1, 0);
    matmul_tile tile = choose_tile(m, part, put_activation(m, x).int8);
    put_parts(m, part, cut_parts(m, part, tile.rows, true), INT32_MAX);
    tn_buf_printf(m->head, "#define TILE_ROWS %d\n#define TILE_TOKENS %d\n", tile.rows, tile.tokens);
    m->to->shared_bytes = tile.bytes;
    m->to->grid[1] = m->to->grid[0];
    m->to->grid[0] = (unsigned)((m->max_rows + tile.tokens - 1) / tile.tokens);
}

/* Blocks for every expert, whoever chose it. */
static void make_experts(tn_maker *m, part_shape *part, int32_t max_products) {
    const tn_src *x = activation(m);
    for (int32_t p = 0; p < m->form.n_parts; p++)
        if (!part[p].experts) tn_maker_fail(m, "plain products beside those of experts for many tokens");
    tn_place_slots(m, 1, 0);
    put_activation(m, x);
    put_parts(m, part, cut_parts(m, part, EXPERTS_ROWS, false), INT32_MAX);
    int32_t rows = (int32_t)tn_align_up((size_t)m->max_rows, 4);
    tn_buf_printf(m->head, "#define MAX_ROWS %d\n", rows);
    m->to->shared_bytes =
        STAGE_EXPERTS + (size_t)rows * 4 + (size_t)max_products * EXPERTS_TOKENS * (EXPERTS_ROWS + 1) * 4;
    m->to->grid[1] = (unsigned)tn_src_weight(m->g, tn_node_at(m, tn_core_at(m))->src[1])->n_expert;
}

static void make_matmuls(tn_maker *m) {
    part_shape part[TN_LAUNCH_MAX];
    int32_t max_products = 0;
    for (int32_t p = 0; p < m->form.n_parts; p++) {
        part[p] = measure_part(m, p);
        if (part[p].products > max_products) max_products = part[p].products;
    }
    if (!strcmp(m->to->kernel->entry, "matvec"))
        make_matvec(m, part, max_products);
    else if (!strcmp(m->to->kernel->entry, "experts"))
        make_experts(m, part, max_products);
    else
        make_matmul(m, part, max_products);
}

/* ---- argmax ---- */

static void make_argmax(tn_maker *m) {
    const tn_node *n = tn_node_at(m, 0);
    int32_t cols = n->src[0].cols, shares = (cols + ARGMAX_COLUMNS - 1) / ARGMAX_COLUMNS;
    if (m->ask->n > 1) tn_maker_fail(m, "an argmax is a launch of its own");
    tn_buf_printf(m->head,
                  "#define COLS %d\n#define EACH %d\n#define SHARES %d\n#define INPUT %d\n#define OUTPUT %d\n", cols,
                  ARGMAX_COLUMNS, shares, -1 - outside(m, n->src[0]), tn_store_of(m, 0));
    m->to->partial_bytes = (size_t)m->max_rows * (size_t)shares * 8;
    m->to->counters = (size_t)m->max_rows;
    m->to->grid[0] = (unsigned)shares;
    m->to->grid[1] = (unsigned)m->max_rows;
}

/* ---- best ---- */

static void make_best(tn_maker *m) {
    const tn_node *n = tn_node_at(m, 0);
    int32_t cols = n->src[0].cols, each = (cols + BEST_SHARES - 1) / BEST_SHARES;
    each = each > BEST_COLUMNS ? (int32_t)tn_align_up((size_t)each, TN_K_THREADS) : BEST_COLUMNS;
    int32_t shares = (cols + each - 1) / each, best = n->out[0].cols;
    if (m->ask->n > 1) tn_maker_fail(m, "the best of a row are a launch of their own");
    if (best > TN_K_THREADS) tn_maker_fail(m, "more of the best than a block has threads");
    tn_buf_printf(m->head, "#define COLS %d\n#define EACH %d\n#define SHARES %d\n#define BEST %d\n", cols, each,
                  shares, best);
    tn_buf_printf(m->head, "#define INPUT %d\n#define IDS %d\n#define NUMBERS %d\n", -1 - outside(m, n->src[0]),
                  tn_store_of(m, 0), store_output(m, 0, 1));
    m->to->partial_bytes = (size_t)m->max_rows * (size_t)shares * (size_t)best * 8;
    m->to->counters = (size_t)m->max_rows;
    m->to->grid[0] = (unsigned)shares;
    m->to->grid[1] = (unsigned)m->max_rows;
}

/* ---- scan ---- */

static void make_conv1d(tn_maker *m, int32_t core) {
    const tn_node *n = tn_node_at(m, core);
    int32_t cols = n->out[0].cols, chunk = m->g->one_token ? 1 : CONV_CHUNK;
    if (!m->g->one_token && n->attr.kernel - 1 > CONV_CHUNK) tn_maker_fail(m, "a convolution longer than a chunk");
    tn_put_after_ops(m, core);
    tn_buf_printf(m->head,
                  "#define COLS %d\n#define TAPS %d\n#define INPUT %d\n#define WEIGHTS %d\n#define CHUNK %d\n", cols,
                  n->attr.kernel, -1 - outside(m, n->src[1]), -1 - outside(m, n->src[2]), chunk);
    m->to->grid[0] = (unsigned)((cols + TN_K_THREADS - 1) / TN_K_THREADS);
    m->to->grid[1] = (unsigned)(m->g->one_token ? 1 : (m->max_rows + chunk - 1) / chunk);
}

/* A block takes a whole head where ops follow on it, else columns that many blocks share. */
static void make_delta_net(tn_maker *m, int32_t core) {
    const tn_node *n = tn_node_at(m, core);
    const tn_attr *a = &n->attr;
    bool one = m->g->one_token;
    int32_t columns = (one && a->v_dim <= TN_K_THREADS) || a->v_dim % 32 ? a->v_dim : 32,
            chunk = one ? 1 : DELTA_CHUNK;
    if (m->ask->n > 1 && !one)
        tn_maker_fail(m, "many tokens: what surrounds the recurrence runs once, before and after");
    if (m->ask->n > 1 && columns < a->v_dim) tn_maker_fail(m, "a head of too many columns for ops on it");
    if (columns > TN_K_THREADS || a->head_dim % 4) tn_maker_fail(m, "no kernel for heads of this size");
    for (int32_t i = 0; i < core; i++)
        if (tn_node_at(m, i)->out[0].cols != a->n_kv * a->head_dim)
            tn_maker_fail(m, "an op on v before the recurrence");
    tn_place_slots(m, a->n_kv, a->n_head);
    tn_put_row_ops(m);
    static const char *const codes[] = {"Q_CODE", "K_CODE", "V_CODE", "G_CODE", "B_CODE"};
    for (int k = 0; k < 5; k++) tn_buf_printf(m->head, "#define %s %d\n", codes[k], tn_row_operand(m, n->src[k + 1]));
    int32_t stage = (int32_t)tn_align_up((size_t)(2 * a->head_dim + columns + 2), 4);
    tn_buf_printf(m->head, "#define HEADS %d\n#define K_HEADS %d\n#define K_DIM %d\n#define V_DIM %d\n", a->n_head,
                  a->n_kv, a->head_dim, a->v_dim);
    tn_buf_printf(m->head, "#define COLUMNS %d\n#define CHUNK %d\n#define CORE_DST %d\n#define WORK_AT %d\n", columns,
                  chunk, m->slot[core], m->slot_floats);
    tn_buf_printf(m->head, "#define STAGE %d\n", stage);
    m->to->shared_bytes = (size_t)(m->slot_floats + chunk * stage) * 4;
    m->to->grid[0] = (unsigned)(a->v_dim / columns);
    m->to->grid[1] = (unsigned)a->n_head;
}

static void make_scan(tn_maker *m) {
    int32_t core = tn_core_at(m);
    const tn_node *n = tn_node_at(m, core);
    const tn_memory *memory = m->ask->memory;
    if (memory) m->to->args.cache = memory->states[n->attr.index];
    m->to->grid[2] = (unsigned)(m->g->one_token ? m->max_rows : memory ? memory->n_seq : 1);
    tn_buf_printf(m->head, "#define CORE OP_%s\n#define ONE_TOKEN %d\n#define CORE_STORE %d\n", op_names[n->op],
                  m->g->one_token, tn_store_of(m, core));
    if (n->op == TN_OP_CONV1D)
        make_conv1d(m, core);
    else
        make_delta_net(m, core);
}

/* ---- any ---- */

static bool has_row_op(tn_op op) {
    switch (op) {
    case TN_OP_ATTENTION:
    case TN_OP_CONV1D:
    case TN_OP_GATED_DELTA_NET: return false;
    default: return tn_ops[op].class != TN_LEAF && tn_ops[op].class != TN_MATMUL;
    }
}

static void put_cache(tn_maker *m, const tn_attr *a) {
    const tn_memory *memory = m->ask->memory;
    if (memory) m->to->args.cache = memory->states[a->index];
    tn_buf_printf(m->head, "#define KV_TYPE %d\n#define KV_HEADS %d\n#define KV_K_DIM %d\n#define KV_V_DIM %d\n",
                  memory ? (int)memory->kv_type : (int)TN_KV_F16, a->n_kv, a->head_dim, a->v_dim);
}

/* Numbers of the ops, the step's count that the rows are, the cache. */
static void put_common(tn_maker *m) {
    int count = 0;
    m->max_rows = m->g->max_tokens;
    for (int op = 0; op < TN_OP_COUNT; op++) tn_buf_printf(m->head, "#define OP_%s %d\n", op_names[op], op);
    for (int32_t i = 0; i < m->ask->n; i++) {
        const tn_node *n = tn_node_at(m, i);
        if (n->out[0].rows == TN_ROWS_OUTPUTS) count = 1, m->max_rows = m->g->max_outputs;
    }
    for (int32_t i = 0; i < m->ask->n; i++)
        if (tn_node_at(m, i)->op == TN_OP_KV_WRITE || tn_node_at(m, i)->op == TN_OP_ATTENTION) {
            put_cache(m, &tn_node_at(m, i)->attr);
            break;
        }
    tn_buf_printf(m->head, "#define COUNT %d\n", count);
}

static tn_cuda_core core_of(tn_op op) {
    switch (op) {
    case TN_OP_MATMUL: return TN_CUDA_MATMUL;
    case TN_OP_MATMUL_ID: return TN_CUDA_MATMUL_ID;
    case TN_OP_ATTENTION: return TN_CUDA_ATTENTION;
    case TN_OP_CONV1D:
    case TN_OP_GATED_DELTA_NET: return TN_CUDA_SCAN;
    case TN_OP_ARGMAX: return TN_CUDA_ARGMAX;
    case TN_OP_BEST: return TN_CUDA_BEST;
    default: return TN_CUDA_ROWS;
    }
}

/* The best kernel for the launch, from this row of the table on; NULL: there is none. */
static const tn_cuda_kernel *choose(const tn_maker *m, const tn_cuda_kernel *from) {
    tn_cuda_act act = TN_CUDA_F32;
    tn_cuda_core core = TN_CUDA_ROWS;
    for (int32_t i = 0; i < m->ask->n; i++) {
        const tn_node *n = tn_node_at(m, i);
        if (m->form.role[i] != TN_CORE && n->op != TN_OP_ARGMAX && n->op != TN_OP_BEST) continue;
        if (core != TN_CUDA_MATMUL_ID) core = core_of(n->op); /* experts may have plain matmuls beside them */
        if (tn_ops[n->op].class == TN_MATMUL && tn_shape_of(m->g, n->src[0])->dtype == TN_Q8) act = TN_CUDA_INT8;
    }
    if (core == TN_CUDA_ATTENTION && tn_attend_halves_fit(m)) act = TN_CUDA_HALF;
    for (const tn_cuda_kernel *k = from; k < kernels + sizeof kernels / sizeof *kernels; k++)
        if (k->core == core && (k->act == TN_CUDA_ANY || k->act == act) &&
            (!k->max_rows || m->max_rows <= k->max_rows))
            return k;
    return NULL;
}

static void make_rows_or_choice(tn_maker *m) {
    switch (m->to->kernel->core) {
    case TN_CUDA_ARGMAX: make_argmax(m); break;
    case TN_CUDA_BEST: make_best(m); break;
    default: make_rows(m);
    }
}

static void make_launch(tn_maker *m) {
    switch (m->form.kind) {
    case TN_FORM_ROWS: make_rows_or_choice(m); break;
    case TN_FORM_MATMULS: make_matmuls(m); break;
    case TN_FORM_ATTEND: tn_make_attend(m); break;
    case TN_FORM_SCAN: make_scan(m); break;
    }
}

const char *tn_cuda_build(tn_cuda_launch *launch, const tn_cuda_ask *ask, tn_buf *head) {
    static const tn_form_limits limits = {
        .has_row_op = has_row_op, .max_rows_before = ROWS_BEFORE, .sum_after = true, .max_rows_beside = TN_CUDA_FEW};
    tn_maker m = {.ask = ask, .g = ask->graph, .to = launch, .head = head};
    *launch = (tn_cuda_launch){.grid = {1, 1, 1}};
    const char *why = tn_form_of(&m.form, m.g, ask->nodes, ask->n, &limits);
    if (why) return why;
    put_common(&m);
    const tn_maker common = m;
    const tn_cuda_launch empty = *launch;
    const size_t begin = head->n;
    const tn_cuda_kernel *k = choose(&m, kernels);
    if (!k) return "no kernel of this form";
    for (bool full = true; full && k; k = choose(&m, k + 1)) { /* the best that fits into shared memory */
        m = common, *launch = empty, launch->kernel = k, head->n = begin;
        make_launch(&m);
        full = !m.why && launch->shared_bytes > ask->device->shared_limit;
        if (full) m.why = "the rows do not fit into shared memory";
    }
    if (launch->grid[1] > MAX_GRID || launch->grid[2] > MAX_GRID) tn_maker_fail(&m, "too many rows for one launch");
    return m.why;
}

/* "matvec_q8__dp4a: rms_norm, mul, quantize, matmul Q4_K, matmul Q6_K" */
static void describe(const tn_cuda_launch *l, const tn_cuda_ask *a, tn_buf *name) {
    tn_buf_str(name, l->kernel->name);
    for (int32_t i = 0; i < a->n; i++) {
        const tn_node *n = &a->graph->nodes[a->nodes[i]];
        tn_buf_printf(name, "%s%s", i ? ", " : ": ", tn_ops[n->op].name);
        if (tn_ops[n->op].class == TN_MATMUL) {
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
