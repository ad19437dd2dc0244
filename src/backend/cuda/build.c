/* From nodes to a launch: the tables at the head of a kernel's source, its arguments, its grid. The same function answers
 * find_kernel (does a kernel for these nodes exist?), so that the two cannot disagree. Matmuls and attention have files of their own. */
#include "backend/cuda/build.h"
#include "backend/cuda/pack.h"
#include "base/mem.h"

#include <string.h>

enum { ROWS_BEFORE = 2 };  /* so many norms are done again by every block rather than once, before */
enum { MAX_GRID = 65535 }; /* blocks in y, in z */
enum { ARGMAX_COLUMNS = 4096, BEST_COLUMNS = 4096, BEST_SHARES = 64 }; /* of a block; blocks of a row */
enum { CONV_CHUNK = 16, DELTA_CHUNK = 16 };                            /* tokens of a run worked on at once */

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

int32_t tn_index_of(const tn_maker *m, int32_t node) {
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

int32_t tn_stored_value(tn_maker *m, tn_src s) {
    return add_value(m, arena_at(m, s) + (uint64_t)s.first * 4, tn_shape_row_bytes(tn_shape_of(m->g, s)));
}

/* v[] where an output of node i of the launch is stored; -1: nowhere. Without a plan every value counts as stored. */
static int32_t store_output(tn_maker *m, int32_t i, int32_t out) {
    int32_t node = m->ask->nodes[i];
    if (tn_node_at(m, i)->out[out].dtype == TN_DTYPE_STATE) return -1;
    if (m->ask->plan && m->ask->plan->offset[node * TN_MAX_OUT + out] < 0) return -1;
    return tn_stored_value(m, (tn_src){.node = node, .out = out});
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
    return -1 - tn_stored_value(m, s);
}

int32_t tn_row_operand(tn_maker *m, tn_src s) {
    int32_t i = tn_index_of(m, s.node);
    if (i < 0) return outside(m, s);
    if (m->slot[i] < 0) return tn_maker_fail(m, "a row op reads what is not a row of the launch");
    if (s.first && m->slot_parts > 1) return tn_maker_fail(m, "a slice of a value that is computed head by head");
    return m->slot[i] + s.first;
}

int32_t tn_add_weight(tn_maker *m, tn_src s) {
    if (m->n_weights == TN_K_MAX_WEIGHTS) return tn_maker_fail(m, "too many products for one launch");
    m->to->args.w[m->n_weights] = weight_at(m, s.node);
    return m->n_weights++;
}

int tn_traits_of(tn_maker *m, tn_src s) {
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
    case TN_OP_EMBED: i[0] = tn_traits_of(m, n->src[1]), i[1] = m->n_weights; break;
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
        bool inside = tn_index_of(m, n->src[k].node) >= 0, one = k == 1 && n->src[k].cols == 1;
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
        if (tn_index_of(m, n->src[k].node) >= 0) return true;
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
        tn_add_weight(m, n->src[1]);
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

void tn_put_after_op(tn_maker *m, int32_t i, const int32_t *local) {
    const tn_node *n = tn_node_at(m, i);
    int32_t code[2] = {-1, -1}, period = 0, store = tn_store_of(m, i);
    for (int k = 0; k < n->n_src && k < 2; k++) {
        int32_t from = tn_index_of(m, n->src[k].node);
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
        tn_put_after_op(m, i, local);
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
    case TN_FORM_MATMULS: tn_make_matmuls(m); break;
    case TN_FORM_ATTEND: tn_make_attend(m); break;
    case TN_FORM_SCAN: make_scan(m); break;
    }
}

const char *tn_cuda_build(tn_cuda_launch *launch, const tn_cuda_ask *ask, tn_buf *head) {
    static const tn_form_limits limits = {.has_row_op = has_row_op,
                                          .max_rows_before = ROWS_BEFORE,
                                          .max_rows_sum = TN_CUDA_FEW,
                                          .max_rows_beside = TN_CUDA_FEW};
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
