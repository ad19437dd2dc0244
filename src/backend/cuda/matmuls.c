/* Launches of matmuls: how the products are cut into parts and tiles, and these shared out to blocks; for few tokens (matvec),
 * for many on tiles (matmul), and for many with the experts that they chose (experts). */
#include "backend/cuda/build.h"
#include "backend/cuda/pack.h"
#include "base/mem.h"

#include <string.h>

enum { MATVEC_BLOCKS = 3 }; /* of a multiprocessor at most, at once */
enum { MAX_TILE_PRODUCTS = 2 };
enum {
    EXPERTS_ROWS = 64,
    EXPERTS_TOKENS = 32,
    STAGE_EXPERTS = (EXPERTS_ROWS + EXPERTS_TOKENS) * 144 + 4 * (EXPERTS_ROWS * 16 + EXPERTS_TOKENS * 8)
}; /* of experts.cu */

/* ---- parts ---- */

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

/* The tables of products, ops on results and parts, whose `tiles` in all are shared out to at most `cap` blocks, or
 * one a part. */
static void put_parts(tn_maker *m, const part_shape *part, int32_t tiles, int32_t cap) {
    int32_t local[TN_LAUNCH_MAX], block = 0, product = 0, after = 0;
    int32_t spare = cap > m->form.n_parts ? cap - m->form.n_parts : 0;
    tn_buf_printf(m->head, "#define FIRST_WEIGHT %d\n#define PRODUCTS ", m->n_weights);
    for (int32_t p = 0; p < m->form.n_parts; p++)
        for (int32_t i = 0; i < m->ask->n; i++) {
            if (m->form.role[i] != TN_CORE || m->form.part[i] != p) continue;
            int traits = tn_traits_of(m, tn_node_at(m, i)->src[1]);
            tn_add_weight(m, tn_node_at(m, i)->src[1]);
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
            tn_put_after_op(m, i, local);
            local[i] = next++;
            after++;
        }
    }
    tn_buf_printf(m->head, "\n#define N_AFTER_OPS %d\n#define PARTS ", after);
    after = 0;
    for (int32_t p = 0; p < m->form.n_parts; p++) {
        int64_t more = part[p].tiles - 1; /* than one, which each part has */
        if (more > 0 && tiles > cap) more = more * spare / (tiles - m->form.n_parts);
        int32_t blocks = 1 + (int32_t)more;
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
    int32_t inside = tn_index_of(m, x->node);
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
                  n ? tn_stored_value(m, n->src[2]) : -1);
    return a;
}

/* ---- few tokens ---- */

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
 * not fill the device or, if they are to be `even`, would not fill it as evenly. A block has 32 columns at most, and just that
 * where results are quantized: then they are one block of 32. */
static int32_t rows_of_lane(tn_maker *m, const part_shape *part, int32_t lanes, int32_t least, bool even) {
    int32_t bits = 4, rows = lanes / 8, all = 0, cols = 0, groups = TN_K_THREADS / lanes;
    bool quantizes = false;
    for (int32_t i = 0; i < m->ask->n; i++)
        if (m->form.role[i] == TN_CORE) {
            int traits = tn_traits_of(m, tn_node_at(m, i)->src[1]);
            if (TN_K_LOW(traits) > bits) bits = TN_K_LOW(traits);
        }
    for (int32_t p = 0; p < m->form.n_parts; p++) {
        quantizes |= part[p].quantizes;
        all += part[p].cols * part[p].products;
        cols += part[p].cols;
    }
    if (quantizes) return rows;
    while (rows > least && (rows * bits > 16 || all / (groups * rows) < m->ask->device->n_sm)) rows /= 2;
    for (int32_t fewer = rows / 2; even && fewer > 0; fewer /= 2)
        if (most_columns(m, cols, groups * fewer) < most_columns(m, cols, groups * rows)) rows = fewer;
    return rows;
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
    for (int32_t i = 0; i < m->ask->n; i++) /* measured: 1.1 % of a token's time on Llama-3.2-3B */
        if (tn_node_at(m, i)->op == TN_OP_EMBED)
            tn_maker_fail(m, "a row is looked up once, before, not by every block");
    tn_place_slots(m, 1, 0);
    tn_put_row_ops(m);
    activations a = put_activation(m, x);
    size_t blocks = ((size_t)a.n_in + 31) / 32, row = a.int8 ? tn_align_up(blocks * 40, 16) : blocks * 144;
    int32_t tokens = of_experts(m) ? 1 : m->max_rows;
    bool mma = a.int8 && tokens > 1;
    int32_t step = mma ? 2 : 1, lanes = mma ? 32 : lanes_of_row(a.n_in),
            rows = rows_of_lane(m, part, lanes, step, a.int8 && !mma);
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

/* ---- many tokens ---- */

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

void tn_make_matmuls(tn_maker *m) {
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
    tn_buf_printf(m->head, "#define SHARED_BYTES %zu\n", m->to->shared_bytes);
}
