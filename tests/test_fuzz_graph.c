/* The differential fuzzer: random legal graphs, planned with all rules, none, and random ones, give the same bits on every
 * instruction set of this machine, and nearly those of the reference. A baseline without fusion and without reuse of memory
 * stands for what is right. `test_fuzz_graph --seed N --count N` runs others than the few hundred of the suite. */
#include "base/mem.h"
#include "block_data.h"
#include "verify.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

/* ---- random numbers ---- */

typedef struct rng {
    uint64_t state;
} rng;

static uint32_t next(rng *r) { /* SplitMix64 (Steele et al. 2014) */
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(z >> 32);
}
static int32_t below(rng *r, int32_t n) {
    return (int32_t)(next(r) % (uint32_t)n);
}
static bool chance(rng *r, int32_t one_in) {
    return below(r, one_in) == 0;
}

/* ---- a graph in the making ---- */

enum { MAX_POOL = 200, MAX_STATES = 4, FINAL = 48 };

typedef struct maker {
    tn_graph *g;
    tn_rig_weights *weights;
    rng r;
    tn_val pool[MAX_POOL]; /* f32 values with a row for each token */
    int n, serial;
    tn_val tokens;
    char names[MAX_POOL * 4][12];
} maker;

static const int32_t widths[] = {32, 64, 96, 128, 256, 40, 48, 24};

static const char *name(maker *m) {
    char *s = m->names[m->serial % COUNT(m->names)];
    snprintf(s, sizeof m->names[0], "v%d", m->serial++);
    return s;
}

static tn_val push(maker *m, tn_val v) {
    if (m->n < MAX_POOL) m->pool[m->n++] = v;
    return v;
}

/* Any value, the latest ones more often; now and then only some of its columns. */
static tn_val pick(maker *m) {
    int32_t i = chance(&m->r, 2) && m->n > 3 ? m->n - 1 - below(&m->r, 3) : below(&m->r, m->n);
    tn_val v = m->pool[i];
    int32_t cols = widths[below(&m->r, COUNT(widths))];
    if (chance(&m->r, 8) && cols < v.cols) v = tn_g_slice(v, below(&m->r, v.cols - cols + 1), cols);
    return v;
}

static tn_type pick_type(maker *m, int32_t n_in) {
    for (;;) {
        tn_type t = tn_all_types[below(&m->r, TN_N_TYPES)];
        if (n_in % tn_type_get(t)->block == 0) return t;
    }
}

/* A vector that is multiplied with or added. */
static tn_val vector(maker *m, int32_t n, tn_fill fill) {
    tn_weight w = {.type = TN_TYPE_F32, .n_out = 1, .n_in = n, .elements = true};
    return tn_rig_weight(m->weights, m->g, &w, fill, below(&m->r, 3));
}

static tn_val matmul(maker *m, tn_val x, int32_t n_out) {
    tn_weight w = {.type = pick_type(m, x.cols), .n_out = n_out, .n_in = x.cols};
    tn_val weight = tn_rig_weight(m->weights, m->g, &w, TN_FILL_SMALL, m->serial);
    return push(m, tn_g_matmul(m->g, x, weight, name(m)));
}

/* A value of this width: one that is there, or made for it. */
static tn_val of_width(maker *m, int32_t cols) {
    int32_t start = below(&m->r, m->n);
    for (int32_t i = 0; i < m->n && !chance(&m->r, 4); i++) {
        tn_val v = m->pool[(start + i) % m->n];
        if (v.cols == cols) return v;
        if (v.cols > cols && chance(&m->r, 6)) return tn_g_slice(v, below(&m->r, v.cols - cols + 1), cols);
    }
    return matmul(m, pick(m), cols);
}

/* ---- steps: each adds some nodes ---- */

static const tn_op unary_ops[] = {TN_OP_SILU, TN_OP_GELU, TN_OP_GELU_QUICK, TN_OP_SIGMOID, TN_OP_SOFTPLUS};

static tn_val unary(maker *m, tn_val x) {
    int32_t k = below(&m->r, COUNT(unary_ops) + 2);
    if (k == COUNT(unary_ops)) return push(m, tn_g_scale(m->g, x, 0.25f + (float)below(&m->r, 100) / 80, name(m)));
    if (k > COUNT(unary_ops)) return push(m, tn_g_softcap(m->g, x, 3, name(m)));
    return push(m, tn_g_unary(m->g, unary_ops[k], x, name(m)));
}

static void step_unary(maker *m) {
    unary(m, pick(m));
}

/* The second operand: as wide, shorter and repeated, a vector of the file; or the value itself. */
static tn_val binary(maker *m, tn_op op, tn_val x) {
    int32_t cols = x.cols, k = below(&m->r, 8);
    if (k == 0) return push(m, tn_g_binary(m->g, op, x, x, name(m)));
    while (k < 3 && cols > 1 && (cols % 2 == 0 || cols % 3 == 0)) {
        cols /= cols % 2 ? 3 : 2;
        if (chance(&m->r, 3)) break;
    }
    tn_val y = chance(&m->r, 3) ? vector(m, cols, TN_FILL_RANDOM) : of_width(m, cols);
    bool swap = tn_shape_of(m->g, y)->dtype == TN_F32 && y.cols == x.cols && chance(&m->r, 2);
    return push(m, swap ? tn_g_binary(m->g, op, y, x, name(m)) : tn_g_binary(m->g, op, x, y, name(m)));
}

static void step_binary(maker *m) {
    tn_op op = chance(&m->r, 3) ? TN_OP_MUL : TN_OP_ADD;
    tn_val y = binary(m, op, pick(m));
    if (op == TN_OP_MUL && chance(&m->r, 2)) push(m, tn_g_softcap(m->g, y, 4, name(m)));
}

static tn_val norm(maker *m, tn_val x, int32_t head) {
    tn_op op = chance(&m->r, 5) ? TN_OP_L2_NORM : TN_OP_RMS_NORM;
    tn_val y = push(m, tn_g_norm(m->g, op, x, head, 1e-5f, name(m)));
    if (chance(&m->r, 4)) return y;
    return push(m, tn_g_binary(m->g, TN_OP_MUL, y, vector(m, head ? head : x.cols, TN_FILL_POSITIVE), name(m)));
}

static void step_norm(maker *m) {
    static const int32_t heads[] = {0, 0, 0, 8, 16, 32};
    tn_val x = pick(m);
    int32_t head = heads[below(&m->r, COUNT(heads))];
    if (chance(&m->r, 3)) x = binary(m, TN_OP_ADD, x);
    norm(m, x, head && x.cols % head == 0 ? head : 0);
}

static void step_matmuls(maker *m) {
    tn_val x = pick(m);
    for (int32_t n = 1 + below(&m->r, 3); n > 0; n--) {
        tn_val y = matmul(m, x, chance(&m->r, 8) ? 1 : widths[below(&m->r, COUNT(widths))]);
        if (chance(&m->r, 3)) y = binary(m, TN_OP_ADD, y);
        if (chance(&m->r, 3)) unary(m, y);
    }
}

/* x + down(act(gate n) * up n), n = norm(x) */
static void step_ffn(maker *m) {
    tn_val x = pick(m), n = norm(m, x, 0);
    int32_t n_ff = widths[below(&m->r, COUNT(widths))];
    tn_val gate = matmul(m, n, n_ff), up = matmul(m, n, n_ff);
    tn_val a = push(m, tn_g_binary(m->g, TN_OP_MUL, unary(m, gate), up, name(m)));
    tn_val y = matmul(m, a, x.cols);
    if (chance(&m->r, 3)) y = norm(m, y, 0);
    push(m, tn_g_binary(m->g, TN_OP_ADD, y, x, name(m)));
}

static tn_val rope(maker *m, tn_val x, int32_t head, int32_t n_rot, tn_val table, bool neox) {
    return push(m, tn_g_rope(m->g, x, table, head, n_rot, neox, name(m)));
}

static tn_val rope_table(maker *m, int32_t n_rot) {
    tn_rope_params p = {10000.0f, 1.0f, chance(&m->r, 4) ? 1.0f : 0.0f, 1.0f, 32.0f, 1.0f, 64};
    if (!chance(&m->r, 3)) return tn_g_rope_table(m->g, NULL, n_rot, p, name(m));
    tn_val f = vector(m, n_rot / 2, TN_FILL_POSITIVE);
    return tn_g_rope_table(m->g, &f, n_rot, p, name(m));
}

static void step_rope(maker *m) {
    tn_val x = pick(m);
    int32_t head = x.cols % 16 ? 8 : 16;
    if (x.cols % head) return;
    rope(m, x, head, head, rope_table(m, head), chance(&m->r, 2));
}

/* Heads of q, k or v: perhaps normed, perhaps rotated. */
static tn_val heads_of(maker *m, int32_t n, int32_t head, int32_t n_rot, const tn_val *table, bool neox) {
    tn_val v = of_width(m, n * head);
    if (chance(&m->r, 2)) v = norm(m, v, head);
    return table && !chance(&m->r, 5) ? rope(m, v, head, n_rot, *table, neox) : v;
}

static void step_attention(maker *m) {
    static const int32_t windows[] = {0, 0, 3, 70};
    if (m->g->n_states >= MAX_STATES) return;
    int32_t d = 8 << below(&m->r, 3), n_kv = 1 + below(&m->r, 2), n_head = n_kv * (1 + below(&m->r, 3));
    int32_t n_rot = chance(&m->r, 2) ? d : d / 2;
    tn_attr a = {.n_head = n_head, .n_kv = n_kv, .head_dim = d, .v_dim = chance(&m->r, 5) ? 24 : d};
    tn_val table = rope_table(m, n_rot);
    bool neox = chance(&m->r, 2);
    tn_val k = heads_of(m, n_kv, d, n_rot, &table, neox), v = heads_of(m, n_kv, a.v_dim, 0, NULL, false);
    tn_val cache = tn_g_kv_write(m->g, tn_g_state(m->g, m->g->n_states, name(m), &a), k, v, name(m));
    for (int32_t readers = 1 + chance(&m->r, 4); readers > 0; readers--) { /* layers may share a cache */
        tn_val q = heads_of(m, n_head, d, n_rot, &table, neox);
        a.factor = 0.3f;
        a.window = windows[below(&m->r, COUNT(windows))];
        a.softcap = chance(&m->r, 4) ? 5.0f : 0.0f;
        tn_val o = push(m, tn_g_attention(m->g, q, cache, &a, name(m)));
        if (chance(&m->r, 3)) o = push(m, tn_g_binary(m->g, TN_OP_MUL, o, unary(m, of_width(m, o.cols)), name(m)));
        if (chance(&m->r, 2)) matmul(m, o, 64);
    }
}

static tn_val experts_weight(maker *m, int32_t n_expert, int32_t rows, int32_t n_in) {
    tn_weight w = {.type = pick_type(m, n_in), .n_out = n_expert * rows, .n_in = n_in, .n_expert = n_expert};
    return tn_rig_weight(m->weights, m->g, &w, TN_FILL_SMALL, m->serial);
}

static void step_experts(maker *m) {
    tn_graph *g = m->g;
    tn_val x = pick(m);
    if (chance(&m->r, 2)) x = norm(m, x, 0);
    int32_t n = 3 + below(&m->r, 5), used = 1 + below(&m->r, 3), n_ff = 32 << below(&m->r, 2);
    tn_val probs = push(m, tn_g_unary(g, TN_OP_SOFTMAX, matmul(m, x, n), name(m)));
    tn_val scale = vector(m, n, TN_FILL_POSITIVE);
    tn_val weights = tn_g_top_k(g, probs, chance(&m->r, 3) ? &scale : NULL, used, chance(&m->r, 2), name(m));
    tn_val ids = tn_g_out(weights, 1, used);
    tn_val a = tn_g_matmul_id(g, x, experts_weight(m, n, n_ff, x.cols), ids, name(m));
    if (chance(&m->r, 2)) a = tn_g_unary(g, unary_ops[below(&m->r, 3)], a, name(m));
    if (chance(&m->r, 2)) {
        tn_val up = tn_g_matmul_id(g, x, experts_weight(m, n, n_ff, x.cols), ids, name(m));
        a = tn_g_binary(g, TN_OP_MUL, a, up, name(m));
    }
    int32_t out = widths[below(&m->r, COUNT(widths))];
    tn_val y = tn_g_matmul_id(g, a, experts_weight(m, n, out, n_ff), ids, name(m));
    push(m, tn_g_expert_sum(g, y, weights, name(m)));
    if (chance(&m->r, 3)) push(m, weights);
}

static tn_val conv(maker *m, tn_val x) {
    int32_t taps = 2 + below(&m->r, 3);
    tn_weight w = {.type = TN_TYPE_F32, .n_out = x.cols, .n_in = taps, .elements = true};
    tn_val weight = tn_rig_weight(m->weights, m->g, &w, TN_FILL_RANDOM, m->serial);
    tn_val state = tn_g_recurrent_state(m->g, m->g->n_states, name(m), (taps - 1) * x.cols);
    tn_val y = push(m, tn_g_conv1d(m->g, state, x, weight, name(m)));
    return chance(&m->r, 4) ? y : push(m, tn_g_unary(m->g, TN_OP_SILU, y, name(m)));
}

static void step_conv(maker *m) {
    if (m->g->n_states < MAX_STATES) conv(m, pick(m));
}

static tn_val l2(maker *m, tn_val x, int32_t d) {
    return push(m, tn_g_norm(m->g, TN_OP_L2_NORM, x, d, 1e-6f, name(m)));
}

static void step_delta(maker *m) {
    tn_graph *g = m->g;
    if (g->n_states + 2 > MAX_STATES) return;
    int32_t d = 8 << below(&m->r, 3), k_heads = 1 + below(&m->r, 2), heads = k_heads * (1 + below(&m->r, 2));
    int32_t key = k_heads * d, value = heads * d;
    tn_val qkv = conv(m, of_width(m, 2 * key + value));
    tn_val q = l2(m, tn_g_slice(qkv, 0, key), d), k = l2(m, tn_g_slice(qkv, key, key), d);
    tn_val decay = push(m, tn_g_unary(g, TN_OP_SOFTPLUS, of_width(m, heads), name(m)));
    decay = push(m, tn_g_binary(g, TN_OP_MUL, decay, vector(m, heads, TN_FILL_NEGATIVE), name(m)));
    tn_val beta = push(m, tn_g_unary(g, TN_OP_SIGMOID, of_width(m, heads), name(m)));
    tn_val state = tn_g_recurrent_state(g, g->n_states, name(m), heads * d * d);
    tn_attr a = {.n_head = heads, .n_kv = k_heads, .head_dim = d, .v_dim = d};
    tn_val src[6] = {state, q, k, tn_g_slice(qkv, 2 * key, value), decay, beta};
    tn_val o = push(m, tn_g_gated_delta_net(g, src, &a, name(m)));
    if (chance(&m->r, 4)) return;
    o = norm(m, o, d);
    tn_val z = push(m, tn_g_unary(g, TN_OP_SILU, of_width(m, value), name(m)));
    matmul(m, push(m, tn_g_binary(g, TN_OP_MUL, o, z, name(m))), 64);
}

static const struct {
    void (*add)(maker *m);
    int32_t share;
} steps[] = {{step_unary, 3}, {step_binary, 5},    {step_norm, 4},    {step_matmuls, 6}, {step_ffn, 3},
             {step_rope, 1},  {step_attention, 4}, {step_experts, 2}, {step_conv, 1},    {step_delta, 2}};

static void random_step(maker *m) {
    int32_t sum = 0;
    for (int i = 0; i < COUNT(steps); i++) sum += steps[i].share;
    int32_t at = below(&m->r, sum);
    for (int i = 0; i < COUNT(steps); at -= steps[i++].share)
        if (at < steps[i].share) {
            steps[i].add(m);
            return;
        }
}

static bool is_read(const tn_graph *g, tn_val v) {
    for (int32_t i = v.node + 1; i < g->n; i++)
        for (int k = 0; k < g->nodes[i].n_src; k++)
            if (g->nodes[i].src[k].node == v.node && g->nodes[i].src[k].out == v.out) return true;
    return false;
}

/* The largest of the result, one or some, beside it or in its place. */
static void choose(maker *m) {
    tn_graph *g = m->g;
    tn_val result = {.node = g->output, .cols = g->nodes[g->output].out[0].cols};
    if (chance(&m->r, 3)) *(chance(&m->r, 2) ? &g->output : &g->choice) = tn_g_argmax(g, result, name(m)).node;
    int32_t k = below(&m->r, result.cols < TN_N_BEST ? result.cols : TN_N_BEST) + 1;
    if (chance(&m->r, 3)) *(chance(&m->r, 2) ? &g->output : &g->best) = tn_g_best(g, result, k, name(m)).node;
}

/* All that nobody reads comes together in the result, but for a few dead ends. */
static void finish(maker *m) {
    tn_val sum = {0};
    bool some = false;
    int n = m->n;
    for (int i = 0; i < n; i++) {
        tn_val v = m->pool[i];
        if (is_read(m->g, v) || (chance(&m->r, 10) && some)) continue;
        if (v.cols != FINAL) v = matmul(m, v, FINAL);
        sum = some ? tn_g_binary(m->g, TN_OP_ADD, sum, v, name(m)) : v;
        some = true;
    }
    if (!m->g->one_token && chance(&m->r, 2)) {
        sum = tn_g_select_rows(m->g, sum, name(m));
        sum = tn_g_norm(m->g, TN_OP_RMS_NORM, sum, 0, 1e-5f, name(m));
    }
    if (chance(&m->r, 2)) {
        tn_weight w = {.type = pick_type(m, sum.cols), .n_out = 40, .n_in = sum.cols};
        tn_val weight = tn_rig_weight(m->weights, m->g, &w, TN_FILL_SMALL, m->serial);
        sum = tn_g_matmul(m->g, sum, weight, name(m));
    }
    if (tn_src_weight(m->g, sum) || tn_ops[m->g->nodes[sum.node].op].class == TN_LEAF || sum.out)
        sum.node = m->pool[0].node;
    m->g->output = sum.node;
    if (chance(&m->r, 4))
        tn_g_scale(m->g, (tn_val){.node = sum.node, .cols = m->g->nodes[sum.node].out[0].cols}, 2, name(m));
    choose(m);
}

/* How a case is run, apart from its graph. */
typedef struct setting {
    int32_t max_tokens;
    bool one_token, act_f32;
    tn_kv_type kv;
    int threads;
} setting;

static setting random_setting(uint64_t seed) {
    rng r = {seed * 77};
    setting s = {.one_token = chance(&r, 2), .act_f32 = chance(&r, 3), .kv = chance(&r, 2) ? TN_KV_F16 : TN_KV_F32};
    s.max_tokens = s.one_token ? TN_RIG_SEQS : chance(&r, 3) ? 70 : 8;
    s.threads = 1 + chance(&r, 2);
    if (chance(&r, 3)) s.kv = TN_KV_Q8_0;
    return s;
}

/* An int8 cache is one of whole blocks. */
static tn_kv_type cache_type(const tn_graph *g, tn_kv_type wish) {
    for (int32_t i = 0; i < g->n && wish == TN_KV_Q8_0; i++) {
        const tn_attr *a = &g->nodes[i].attr;
        if (g->nodes[i].op == TN_OP_KV_WRITE && (a->head_dim % 32 || a->v_dim % 32)) wish = TN_KV_F16;
    }
    return wish;
}

static void make_graph(tn_graph *g, tn_rig_weights *weights, uint64_t seed, const setting *s) {
    maker *m = calloc(1, sizeof *m);
    *g =
        (tn_graph){.max_tokens = s->max_tokens, .max_outputs = s->max_tokens, .one_token = s->one_token, .layer = -1};
    m->g = g;
    m->weights = weights;
    m->r.state = seed;
    m->tokens = tn_g_tokens(g);
    for (int k = 0; k < 2; k++) {
        tn_weight w = {.type = k ? TN_TYPE_Q8_0 : TN_TYPE_F32, .n_out = TN_RIG_VOCAB, .n_in = k ? 256 : 64};
        push(m, tn_g_embed(g, m->tokens, tn_rig_weight(weights, g, &w, TN_FILL_RANDOM, 100 + k), name(m)));
    }
    for (int32_t n = 2 + below(&m->r, 9); n > 0; n--) random_step(m);
    finish(m);
    free(m);
}

/* ---- checks ---- */

static char g_why[500]; /* what is wrong with the case in hand */

static bool wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
static bool wrong(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(g_why, sizeof g_why, format, args);
    va_end(args);
    return false;
}

typedef struct life {
    int32_t node, out, first, last;
    int64_t at, end;
} life;

/* Where a value is, and from which launch to which one it is needed; false: it needs no place. */
static bool life_of(const tn_plan *p, int32_t node, int32_t out, life *l) {
    const tn_graph *g = &p->graph;
    const tn_shape *s = &g->nodes[node].out[out];
    if (tn_is_leaf(&g->nodes[node]) || s->dtype == TN_DTYPE_STATE) return false;
    *l = (life){node, out, p->partition.owner[node], p->partition.owner[node], p->offset[node * TN_MAX_OUT + out], 0};
    bool outside = tn_is_result(g, node);
    for (int32_t i = 0; i < g->n; i++)
        for (int k = 0; k < g->nodes[i].n_src; k++) {
            if (g->nodes[i].src[k].node != node || g->nodes[i].src[k].out != out) continue;
            int32_t reader = p->partition.owner[i];
            outside |= reader != l->first;
            l->last = reader > l->last ? reader : l->last;
        }
    if (tn_is_result(g, node)) l->last = p->partition.n;
    l->end = l->at + (int64_t)(tn_shape_row_bytes(s) * (size_t)tn_shape_max_rows(g, s));
    return outside;
}

/* No two values that are needed at the same time share a byte, but where one takes the other's place. */
static bool check_plan(const tn_plan *p, size_t align) {
    const tn_graph *g = &p->graph;
    for (int32_t i = 0; i < g->n * TN_MAX_OUT; i++) {
        life a, b;
        if (i % TN_MAX_OUT >= g->nodes[i / TN_MAX_OUT].n_out || !life_of(p, i / TN_MAX_OUT, i % TN_MAX_OUT, &a))
            continue;
        const char *what = g->nodes[a.node].name;
        if (a.at < 0 || (size_t)a.at % align || (size_t)a.end > p->arena_bytes) return wrong("%s has no place", what);
        for (int32_t j = 0; j < i; j++) {
            if (j % TN_MAX_OUT >= g->nodes[j / TN_MAX_OUT].n_out || !life_of(p, j / TN_MAX_OUT, j % TN_MAX_OUT, &b))
                continue;
            if (a.at >= b.end || b.at >= a.end || a.first > b.last || b.first > a.last) continue;
            const life *old = a.first < b.first ? &a : &b, *new = old == &a ? &b : &a;
            bool takes =
                old->last == new->first && old->first < new->first && old->at == new->at && old->end == new->end;
            if (!takes || tn_ops[g->nodes[new->node].op].class != TN_ELEMENT)
                return wrong("%s and %s share memory while both are needed", g->nodes[a.node].name,
                             g->nodes[b.node].name);
        }
    }
    return true;
}

/* Every value in a place of its own. */
static void spread(tn_plan *p) {
    size_t at = 0;
    for (int32_t i = 0; i < p->graph.n * TN_MAX_OUT; i++) {
        if (p->offset[i] < 0) continue;
        const tn_shape *s = &p->graph.nodes[i / TN_MAX_OUT].out[i % TN_MAX_OUT];
        p->offset[i] = (int64_t)at;
        at = tn_align_up(at + tn_shape_row_bytes(s) * (size_t)tn_shape_max_rows(&p->graph, s), 64);
    }
    p->arena_bytes = at;
}

/* What the graphs had in them: nodes of each op, and how often each rule fired. */
enum { MAX_RULES = 64 };
static int64_t g_ops[TN_OP_COUNT], g_fired[MAX_RULES];

static void count(const tn_plan *p) {
    for (int32_t i = 0; i < p->graph.n; i++) g_ops[p->graph.nodes[i].op]++;
    for (int32_t i = 0; i < p->partition.n_rules && i < MAX_RULES; i++) g_fired[i] += p->partition.log[i].fired;
}

static bool run(const tn_rig *rig, const tn_graph *g, const setting *s, const char *fuse, bool alone, tn_table *out) {
    tn_error err = {0};
    tn_plan plan = {0};
    tn_rig_options o = {.fuse = fuse, .act_f32 = s->act_f32, .kv = s->kv};
    tn_status status = tn_rig_plan(rig, &plan, g, &o, &err);
    bool ok = status == TN_OK && check_plan(&plan, rig->backend->caps(rig->device)->align);
    if (ok) count(&plan);
    if (ok && alone) spread(&plan);
    if (ok) status = tn_rig_run(rig, &plan, s->kv, out, &err);
    tn_plan_free(&plan);
    if (status != TN_OK) return wrong("%s", err.text);
    return ok;
}

static bool same_bits(const tn_table *a, const tn_table *b) {
    if (a->rows != b->rows || a->cols != b->cols) return wrong("another number of rows");
    for (int32_t i = 0; i < a->rows * a->cols; i++)
        if (memcmp(&a->p[i], &b->p[i], sizeof(float)) && !(isnan(a->p[i]) && isnan(b->p[i])))
            return wrong("row %d, column %d is %.9g; it should be %.9g", i / a->cols, i % a->cols, (double)a->p[i],
                         (double)b->p[i]);
    return true;
}

static double nmse(const tn_table *a, const tn_table *b) {
    double error = 0, sum = 0;
    for (int32_t i = 0; i < a->rows * a->cols; i++) {
        error += ((double)a->p[i] - (double)b->p[i]) * ((double)a->p[i] - (double)b->p[i]);
        sum += (double)b->p[i] * (double)b->p[i];
    }
    return sum > 0 ? error / sum : error;
}

/* A list of rules, each in or out by chance; as a list of those to use or to leave out. */
static void random_rules(rng *r, char *out, size_t n) {
    bool minus = chance(r, 2);
    size_t at = 0;
    out[0] = 0;
    for (int32_t t = 0; t < tn_n_rule_tables; t++)
        for (int32_t i = 0; i < tn_rule_tables[t].n; i++)
            if (chance(r, 2))
                at += (size_t)snprintf(out + at, n - at, "%s%s%s", at ? "," : "", minus ? "-" : "",
                                       tn_rule_tables[t].rules[i].name);
    if (!at) snprintf(out, n, "none");
}

static const char *const isas[] = {"cpu:ref", "cpu:neon", "cpu:avx2", "cpu:avx512"};
enum { N_ISAS = sizeof isas / sizeof *isas };

typedef struct devices {
    tn_rig rig[N_ISAS]; /* device NULL: not on this machine */
} devices;

static void open_devices(devices *d, const tn_rig_weights *w, int threads) {
    for (int i = 0; i < N_ISAS; i++) {
        tn_error err = {0};
        if (tn_rig_open(&d->rig[i], isas[i], threads, &err) != TN_OK) continue;
        if (d->rig[i].backend->put_weights(d->rig[i].device, w->p, w->n, NULL, NULL, &err) != TN_OK)
            fail_msg("%s", err.text);
    }
}

static void close_devices(devices *d) {
    for (int i = 0; i < N_ISAS; i++) tn_rig_close(&d->rig[i]);
}

/* How far instruction sets may be apart: an int8 activation may fall to either side, and then so does all after it. */
static double bound(const setting *s) {
    return s->act_f32 ? 1e-4 : 0.2;
}

/* Experts, choices and sums of what cancels turn a small difference into a large one. */
static bool is_tame(const tn_graph *g) {
    for (int32_t i = 0; i < g->n; i++)
        if (g->nodes[i].op == TN_OP_TOP_K || g->nodes[i].op == TN_OP_ARGMAX || g->nodes[i].op == TN_OP_BEST)
            return false;
    return true;
}

/* One graph with one list of rules: everything that must hold. */
static bool check_rules(const devices *d, const tn_graph *g, const setting *s, const char *fuse) {
    tn_table want[N_ISAS] = {0}, got = {0};
    bool ok = true;
    for (int i = 0; i < N_ISAS && ok; i++) {
        if (!d->rig[i].device) continue;
        ok = run(&d->rig[i], g, s, "none", true, &want[i]) && run(&d->rig[i], g, s, fuse, false, &got) &&
             same_bits(&got, &want[i]);
        double e = ok ? nmse(&want[i], &want[0]) : 0;
        if (ok && e > bound(s) && is_tame(g)) ok = wrong("NMSE %g to the reference", e);
        tn_free(got.p);
        got = (tn_table){0};
        if (!ok) {
            size_t n = strlen(g_why);
            snprintf(g_why + n, sizeof g_why - n, " (%s, --fuse %.300s)", isas[i], fuse);
        }
    }
    for (int i = 0; i < N_ISAS; i++) tn_free(want[i].p);
    return ok;
}

/* ---- a failure, as small as it gets ---- */

/* The graph that ends with node `last`, without what does not lead there. */
static void cut(tn_graph *to, const tn_graph *g, int32_t last) {
    int32_t *map = malloc((size_t)g->n * sizeof *map);
    bool *keep = calloc((size_t)g->n, sizeof *keep);
    *to = *g;
    to->arena = (tn_arena){0};
    to->nodes = NULL;
    to->choice = to->best = 0;
    to->n = to->cap = 0;
    keep[last] = true;
    for (int32_t i = last; i >= 0; i--)
        for (int k = 0; keep[i] && k < g->nodes[i].n_src; k++) keep[g->nodes[i].src[k].node] = true;
    for (int32_t i = 0; i <= last; i++) {
        if (!keep[i]) continue;
        tn_node n = g->nodes[i];
        for (int k = 0; k < n.n_src; k++) n.src[k].node = map[n.src[k].node];
        map[i] = tn_graph_add(to, &n);
    }
    to->output = map[last];
    free(map);
    free(keep);
}

/* The launches of more than one node, and where values lie. */
static void print_launches(tn_buf *b, const tn_rig *rig, const tn_graph *g, const setting *s, const char *fuse) {
    tn_plan p = {0};
    tn_rig_options o = {.fuse = fuse, .act_f32 = s->act_f32, .kv = s->kv};
    if (tn_rig_plan(rig, &p, g, &o, NULL) != TN_OK) return;
    for (int32_t l = 0; l < p.partition.n; l++) {
        tn_buf_printf(b, "launch %d:", l);
        for (int32_t i = 0; i < p.partition.launch[l].n; i++) {
            int32_t id = p.partition.launch[l].nodes[i];
            tn_buf_printf(b, " %s@%lld", p.graph.nodes[id].name, (long long)p.offset[id * TN_MAX_OUT]);
        }
        tn_buf_printf(b, " (%s)\n", p.partition.launch[l].rules ? p.partition.launch[l].rules : "");
    }
    tn_plan_free(&p);
}

static void report(const devices *d, const tn_graph *g, const setting *s, const char *fuse, uint64_t seed) {
    tn_graph small = {0};
    for (int32_t i = 0; i < g->n; i++) {
        const tn_node *n = &g->nodes[i];
        if (tn_is_leaf(n) || n->out[0].dtype != TN_F32 || n->op == TN_OP_ROPE_TABLE) continue;
        cut(&small, g, i);
        if (!check_rules(d, &small, s, fuse)) break;
        tn_graph_free(&small);
    }
    if (!small.n && check_rules(d, g, s, fuse)) snprintf(g_why, sizeof g_why, "not seen again");
    tn_buf b = {0};
    tn_print_graph(&b, small.n ? &small : g);
    print_launches(&b, &d->rig[0], small.n ? &small : g, s, fuse);
    fprintf(stderr, "seed %llu: %s\n%s, at most %d tokens, %d threads, %s activations, cache type %d\n%s",
            (unsigned long long)seed, g_why, s->one_token ? "decode" : "prefill", s->max_tokens, s->threads,
            s->act_f32 ? "f32" : "int8", (int)s->kv, b.p ? b.p : "");
    tn_buf_free(&b);
    tn_graph_free(&small);
}

static bool check_seed(uint64_t seed) {
    setting s = random_setting(seed);
    tn_rig_weights weights = {0};
    devices d = {0};
    tn_graph g;
    tn_error err = {0};
    char rules[2][600];
    rng r = {~seed};
    make_graph(&g, &weights, seed, &s);
    if (g.failed || tn_graph_verify(&g, &err) != TN_OK) fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
    s.kv = cache_type(&g, s.kv);
    open_devices(&d, &weights, s.threads);
    bool ok = true;
    for (int k = 0; k < 4 && ok; k++) {
        if (k > 1) random_rules(&r, rules[k - 2], sizeof rules[0]);
        const char *fuse = k == 0 ? "all" : k == 1 ? "none" : rules[k - 2];
        ok = check_rules(&d, &g, &s, fuse);
        if (!ok) report(&d, &g, &s, fuse, seed);
    }
    close_devices(&d);
    tn_graph_free(&g);
    tn_rig_weights_free(&weights);
    return ok;
}

static uint64_t g_seed = 1, g_count = 250;

/* Seeds that found something: slices of results inside a launch. */
static void test_found(void **state) {
    static const uint64_t seeds[] = {2593, 2860};
    (void)state;
    for (int i = 0; i < COUNT(seeds); i++) assert_true(check_seed(seeds[i]));
}

static void test_graphs(void **state) {
    (void)state;
    int failed = 0;
    for (uint64_t i = 0; i < g_count && failed < 5; i++) failed += !check_seed(g_seed + i);
    assert_int_equal(failed, 0);
}

/* No op and no rule was left out. */
static void test_all_seen(void **state) {
    (void)state;
    int32_t rule = 0, missing = 0;
    for (int op = 0; op < TN_OP_COUNT; op++) {
        print_message("%-20s %10lld nodes\n", tn_ops[op].name, (long long)g_ops[op]);
        missing += g_ops[op] == 0;
    }
    for (int32_t t = 0; t < tn_n_rule_tables; t++)
        for (int32_t i = 0; i < tn_rule_tables[t].n; i++, rule++) {
            print_message("%-20s %10lld times\n", tn_rule_tables[t].rules[i].name, (long long)g_fired[rule]);
            missing += g_fired[rule] == 0;
        }
    assert_in_range(rule, 1, MAX_RULES);
    if (g_count >= 250) assert_int_equal(missing, 0);
}

int main(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seed")) g_seed = strtoull(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--count")) g_count = strtoull(argv[i + 1], NULL, 10);
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_found), cmocka_unit_test(test_graphs),
                                       cmocka_unit_test(test_all_seen)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
