/* Attention's launches: a few rows each by blocks of its own that share the context, or tiles of many tokens. */
#include "backend/cuda/build.h"
#include "base/mem.h"

#include <string.h>

enum { MAX_GROUP = 16, MAX_SPLITS = 32 };

/* A tile of attend_tile: query heads of tokens, 16 a warp, and positions of the cache at work at once. */
typedef struct attend_tile {
    bool wide; /* heads wider than 128: their queries lie in shared memory too */
    int32_t rows, at_once;
    size_t bytes; /* of shared memory */
} attend_tile;

/* Shared memory: two stages of the cache, the queries as halves and what is left of them; in the end the result. */
static size_t attend_tile_bytes(const attend_tile *t, const tn_attr *a) {
    size_t rows = (size_t)t->rows, k_ld = (size_t)a->head_dim + 8, v_ld = (size_t)a->v_dim + 8;
    size_t work = 2 * (size_t)t->at_once * (k_ld + v_ld) * 2 + (t->wide ? 2 * rows * k_ld * 2 : 0);
    size_t out = rows * ((size_t)a->v_dim + 4) * 4;
    return work > out ? work : out;
}

/* The first tile, best first, that a block of the device has room for; no rows: none. Of heads 256 wide those with 200, 132 and 83 KiB:
 * for sm_90 and sm_100, for sm_80, for the others. */
static attend_tile choose_attend_tile(const tn_maker *m, const tn_attr *a) {
    static const attend_tile tiles[] = {
        {false, 128, 64, 0}, {true, 128, 32, 0}, {true, 64, 32, 0}, {true, 48, 16, 0}};
    bool wide = a->head_dim > 128 || a->v_dim > 128;
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
        attend_tile t = tiles[i];
        t.bytes = attend_tile_bytes(&t, a);
        if (t.wide == wide && t.bytes <= m->ask->device->shared_limit) return t;
    }
    return (attend_tile){0};
}

bool tn_attend_halves_fit(const tn_maker *m) {
    const tn_attr *a = &tn_node_at(m, tn_core_at(m))->attr;
    bool tile = m->max_rows > TN_CUDA_FEW;
    int32_t widest = tile ? 256 : 128;
    return (!m->ask->memory || m->ask->memory->kv_type == TN_KV_F16) && a->head_dim % 32 == 0 && a->v_dim % 64 == 0 &&
           a->head_dim <= widest && a->v_dim <= widest && a->n_head / a->n_kv <= 8 &&
           (!tile || choose_attend_tile(m, a).rows);
}

/* What all attention kernels are told. */
static void put_attention(tn_maker *m) {
    int32_t core = tn_core_at(m);
    const tn_node *n = tn_node_at(m, core);
    const tn_attr *a = &n->attr;
    tn_put_row_ops(m);
    int32_t q = tn_row_operand(m, n->src[0]);
    tn_put_after_ops(m, core);
    tn_buf_printf(m->head, "#define GROUP %d\n#define Q_CODE %d\n#define WINDOW %d\n", a->n_head / a->n_kv, q,
                  a->window);
    tn_buf_printf(m->head, "#define FACTOR %.9ef\n#define SOFTCAP %.9ef\n#define CORE_STORE %d\n", (double)a->factor,
                  (double)a->softcap, tn_store_of(m, core));
    m->to->grid[1] = (unsigned)a->n_kv;
}

static void make_attend_tile(tn_maker *m) {
    const tn_attr *a = &tn_node_at(m, tn_core_at(m))->attr;
    attend_tile tile = choose_attend_tile(m, a);
    int32_t tokens = tile.rows / (a->n_head / a->n_kv);
    for (int32_t i = 0; i < m->ask->n; i++) {
        if (m->form.role[i] == TN_BEFORE)
            tn_maker_fail(m, "too many tokens to make the heads where they are read: once, before");
        if (tn_node_at(m, i)->op == TN_OP_QUANTIZE) /* measured: 1.4 % of a prompt's time on Llama-3.2-3B */
            tn_maker_fail(m, "many tokens are quantized faster in a launch of their own");
    }
    put_attention(m);
    tn_buf_printf(m->head, "#define WIDE %d\n#define ROWS %d\n#define AT_ONCE %d\n#define SHARED_BYTES %zu\n",
                  tile.wide, tile.rows, tile.at_once, tile.bytes);
    m->to->shared_bytes = tile.bytes;
    m->to->grid[0] = (unsigned)((m->max_rows + tokens - 1) / tokens);
}

/* Shares of the context fill the device once, each with work for all warps. */
static void make_attend_rows(tn_maker *m) {
    const tn_attr *a = &tn_node_at(m, tn_core_at(m))->attr;
    bool mma = m->to->kernel->act == TN_CUDA_HALF;
    int32_t group = a->n_head / a->n_kv, rows = m->max_rows, splits = 1, units = mma ? TN_K_WARPS : 1;
    int32_t resident = mma && a->v_dim > 64 ? 1 : 2, out = group * a->v_dim;
    if (group > MAX_GROUP) tn_maker_fail(m, "more than 16 query heads share a kv head");
    if (out % 4) tn_maker_fail(m, "a head of odd size");
    if (rows <= TN_CUDA_FEW) splits = resident * m->ask->device->n_sm / (a->n_kv * rows);
    splits = splits < 1 ? 1 : splits > MAX_SPLITS ? MAX_SPLITS : splits;
    tn_place_slots(m, a->n_kv, 0);
    put_attention(m);
    int32_t red = mma ? TN_K_WARPS * out : 16 * a->v_dim < 4096 ? 16 * a->v_dim : 4096;
    if (red < out) red = out;
    if (red < 4 * TN_K_THREADS) red = 4 * TN_K_THREADS;
    tn_buf_printf(m->head, "#define MMA %d\n#define SPLITS %d\n#define MIN_UNITS %d\n#define WORK_AT %d\n", mma,
                  splits, units, m->slot_floats);
    m->to->shared_bytes = (size_t)(m->slot_floats + group * (a->head_dim + 64 + 3) + out + red + 16) * 4;
    if (splits > 1) {
        m->to->counters = (size_t)(rows * a->n_kv);
        m->to->partial_bytes = m->to->counters * (size_t)splits * tn_align_up((size_t)(out + 2 * group), 4) * 4;
    }
    m->to->grid[0] = (unsigned)rows;
    m->to->grid[2] = (unsigned)splits;
}

void tn_make_attend(tn_maker *m) {
    if (!strcmp(m->to->kernel->entry, "attend"))
        make_attend_rows(m);
    else
        make_attend_tile(m);
}
