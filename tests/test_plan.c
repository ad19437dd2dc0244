/* Plans: no two values that live at once share bytes, on random graphs and real models; a value takes another's place only
 * where no reader can be late; random graphs compute the same however they are planned; the hash; the null backend. */
#include "base/mem.h"
#include "engine.h"
#include "failing.h"
#include "verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { WIDTH = 64 };

static tn_rig_weights g_weights;
static tn_rig g_null, g_cpu;

/* ---- what a plan must be, told without the planner's own code ---- */

typedef struct life {
    int32_t node, out, first, last;
    int64_t begin, end;
} life;

static bool is_stored(const tn_plan *p, int32_t node, int32_t out) {
    const tn_graph *g = &p->graph;
    if (tn_is_leaf(&g->nodes[node]) || g->nodes[node].out[out].dtype == TN_DTYPE_STATE) return false;
    if (tn_is_result(g, node)) return true;
    for (int32_t i = 0; i < g->n; i++)
        for (int k = 0; k < g->nodes[i].n_src; k++)
            if (g->nodes[i].src[k].node == node && g->nodes[i].src[k].out == out &&
                p->partition.owner[i] != p->partition.owner[node])
                return true;
    return false;
}

static life life_of(const tn_plan *p, int32_t node, int32_t out) {
    const tn_graph *g = &p->graph;
    const tn_shape *s = &g->nodes[node].out[out];
    int32_t rows = s->rows == TN_ROWS_TOKENS    ? g->max_tokens
                   : s->rows == TN_ROWS_OUTPUTS ? g->max_outputs
                                                : s->n_rows;
    int64_t bytes = (int64_t)rows * (s->dtype == TN_Q8 ? s->cols / 32 * 40 : s->cols * 4);
    life l = {node, out, p->partition.owner[node], p->partition.owner[node], p->offset[node * TN_MAX_OUT + out], 0};
    l.end = l.begin + bytes;
    for (int32_t i = 0; i < g->n; i++)
        for (int k = 0; k < g->nodes[i].n_src; k++)
            if (g->nodes[i].src[k].node == node && g->nodes[i].src[k].out == out && p->partition.owner[i] > l.last)
                l.last = p->partition.owner[i];
    if (tn_is_result(g, node)) l.last = p->partition.n;
    return l;
}

/* Whether `to` is `from` or computed from it inside their launch. */
static bool leads_to(const tn_plan *p, int32_t from, int32_t to) {
    if (from == to) return true;
    const tn_node *n = &p->graph.nodes[to];
    for (int k = 0; k < n->n_src; k++)
        if (p->partition.owner[n->src[k].node] == p->partition.owner[to] && n->src[k].node >= from &&
            leads_to(p, from, n->src[k].node))
            return true;
    return false;
}

static bool is_core(tn_op op) {
    return tn_ops[op].class == TN_MATMUL || tn_ops[op].class == TN_STATE;
}

static bool has_core_before(const tn_plan *p, int32_t node) {
    const tn_launch *l = &p->partition.launch[p->partition.owner[node]];
    bool any = false;
    for (int32_t i = 0; i < l->n; i++) {
        if (!is_core(p->graph.nodes[l->nodes[i]].op)) continue;
        any = true;
        if (leads_to(p, l->nodes[i], node)) return true;
    }
    return !any;
}

/* v over u: the same place, element by element; each reader of u is an element op on the way to v, after any product. */
static bool in_place_is_safe(const tn_plan *p, const life *v, const life *u) {
    const tn_graph *g = &p->graph;
    if (u->begin != v->begin || u->end != v->end || u->last != v->first || u->first >= v->first) return false;
    if (tn_ops[g->nodes[v->node].op].class != TN_ELEMENT || g->nodes[u->node].out[u->out].dtype != TN_F32)
        return false;
    const tn_launch *l = &p->partition.launch[v->first];
    for (int32_t i = 0; i < l->n; i++) {
        const tn_node *n = &g->nodes[l->nodes[i]];
        for (int k = 0; k < n->n_src; k++) {
            if (n->src[k].node != u->node || n->src[k].out != u->out) continue;
            if (tn_ops[n->op].class != TN_ELEMENT || n->src[k].first ||
                n->src[k].cols != g->nodes[v->node].out[0].cols)
                return false;
            if (!leads_to(p, l->nodes[i], v->node) || !has_core_before(p, l->nodes[i])) return false;
        }
    }
    return true;
}

static void check_memory(const tn_plan *p, size_t align) {
    static life all[4096];
    size_t n = 0, end = 0;
    for (int32_t i = 0; i < p->graph.n; i++)
        for (int32_t o = 0; o < p->graph.nodes[i].n_out; o++) {
            int64_t offset = p->offset[i * TN_MAX_OUT + o];
            assert_int_equal(offset >= 0, is_stored(p, i, o));
            if (offset < 0) continue;
            assert_true(n < COUNT(all) && offset % (int64_t)align == 0);
            all[n++] = life_of(p, i, o);
            assert_true(all[n - 1].end <= (int64_t)p->arena_bytes);
            end = (size_t)all[n - 1].end > end ? (size_t)all[n - 1].end : end;
        }
    assert_int_equal(p->arena_bytes, tn_align_up(end, align));
    assert_true(p->arena_bytes <= p->naive_bytes);
    for (size_t a = 0; a < n; a++)
        for (size_t b = 0; b < a; b++) {
            const life *u = all[a].first < all[b].first ? &all[a] : &all[b], *v = u == &all[a] ? &all[b] : &all[a];
            bool alive = u->last >= v->first, share = u->begin < v->end && v->begin < u->end;
            if (alive && share && !in_place_is_safe(p, v, u))
                fail_msg("%s and %s share bytes", p->graph.nodes[u->node].name, p->graph.nodes[v->node].name);
        }
    for (int32_t l = 0; l < p->partition.n; l++) assert_true(p->kernel[l] && p->kernel[l][0]);
}

/* ---- graphs by hand ---- */

static void begin(tn_graph *g, bool one_token) {
    *g = (tn_graph){.layer = -1, .one_token = one_token, .max_tokens = one_token ? TN_RIG_SEQS : 70};
    g->max_outputs = g->max_tokens;
    tn_g_tokens(g);
}

static tn_val weight(tn_graph *g, tn_type type, int32_t n_out, int32_t n_in, int32_t number) {
    tn_weight like = {.type = type, .n_out = n_out, .n_in = n_in};
    return tn_rig_weight(&g_weights, g, &like, TN_FILL_RANDOM, number);
}

static tn_val input(tn_graph *g, int32_t cols, int32_t number) {
    tn_val w = weight(g, TN_TYPE_F32, TN_RIG_VOCAB, cols, number);
    return tn_g_embed(g, (tn_val){.cols = 1}, w, "input");
}

static void plan(tn_plan *p, tn_graph *g, tn_val output, const tn_rig *rig, const char *fuse) {
    tn_error err = {0};
    tn_rig_options o = {fuse, false, TN_KV_F32};
    g->output = output.node;
    if (tn_rig_plan(rig, p, g, &o, &err) != TN_OK) fail_msg("%s", err.text);
    check_memory(p, 64);
}

/* ---- in place ---- */

/* x -> silu -> * 2 -> + x ... with "none": each takes the place of the one before. */
static void test_in_place(void **state) {
    (void)state;
    tn_graph g;
    tn_plan p;
    begin(&g, true);
    tn_val a = input(&g, WIDTH, 0), b = tn_g_unary(&g, TN_OP_SILU, a, "b"), c = tn_g_scale(&g, b, 2, "c");
    tn_val d = tn_g_binary(&g, TN_OP_ADD, c, c, "d");
    plan(&p, &g, d, &g_null, "none");
    assert_int_equal(p.in_place, 3);
    assert_int_equal(p.arena_bytes, TN_RIG_SEQS * WIDTH * 4);
    tn_plan_free(&p);
    tn_graph_free(&g);
}

typedef tn_val hazard(tn_graph *g, tn_val a);

static tn_val read_later(tn_graph *g, tn_val a) {
    return tn_g_binary(g, TN_OP_MUL, tn_g_norm(g, TN_OP_RMS_NORM, tn_g_unary(g, TN_OP_SILU, a, "v"), 0, 1, "n"), a,
                       "z");
}
static tn_val needs_rows(tn_graph *g, tn_val a) {
    return tn_g_norm(g, TN_OP_RMS_NORM, a, 0, 1e-5f, "v");
}
static tn_val other_width(tn_graph *g, tn_val a) {
    return tn_g_binary(g, TN_OP_ADD, input(g, 2 * WIDTH, 7), a, "v");
}
static tn_val slice_of(tn_graph *g, tn_val a) { /* column 0 of v needs column 32 of a */
    return tn_g_unary(g, TN_OP_SILU, tn_g_slice(a, 32, 32), "v");
}
static tn_val product(tn_graph *g, tn_val a) {
    return tn_g_matmul(g, a, weight(g, TN_TYPE_F32, WIDTH, WIDTH, 9), "v");
}

static void test_not_in_place(void **state) {
    (void)state;
    static hazard *const hazards[] = {read_later, needs_rows, other_width, slice_of, product};
    for (size_t i = 0; i < COUNT(hazards); i++) {
        tn_graph g;
        tn_plan p;
        begin(&g, true);
        tn_val a = tn_g_norm(&g, TN_OP_RMS_NORM, input(&g, WIDTH, 0), 0, 1, "a");
        plan(&p, &g, hazards[i](&g, a), &g_null, "none");
        for (int32_t k = 0; k < p.graph.n; k++) {
            const char *name = p.graph.nodes[k].name;
            if (strcmp(name, "v") || hazards[i] == other_width) continue;
            assert_int_not_equal(p.offset[k * TN_MAX_OUT], p.offset[a.node * TN_MAX_OUT]);
        }
        tn_plan_free(&p);
        tn_graph_free(&g);
    }
}

/* Two sums of one launch with one value: they are different workers' columns, so neither may take its place. */
static void test_not_in_place_across_parts(void **state) {
    (void)state;
    tn_graph g;
    tn_plan p;
    begin(&g, true);
    tn_val x = input(&g, WIDTH, 0), u = tn_g_norm(&g, TN_OP_RMS_NORM, input(&g, WIDTH, 1), 0, 1, "u");
    tn_val y1 = tn_g_matmul(&g, x, weight(&g, TN_TYPE_F32, WIDTH, WIDTH, 2), "y1");
    tn_val y2 = tn_g_matmul(&g, x, weight(&g, TN_TYPE_F32, WIDTH, WIDTH, 3), "y2");
    tn_val z1 = tn_g_binary(&g, TN_OP_ADD, y1, u, "z1"), z2 = tn_g_binary(&g, TN_OP_ADD, y2, u, "z2");
    plan(&p, &g, tn_g_unary(&g, TN_OP_SOFTMAX, tn_g_binary(&g, TN_OP_MUL, z1, z2, "m"), "s"), &g_null,
         "group,matmul_add");
    tn_plan_free(&p);
    plan(&p, &g, (tn_val){.node = z1.node}, &g_cpu, "group,matmul_add");
    tn_plan_free(&p);
    tn_graph_free(&g);
}

/* The residual sum of a product takes the residual's place: what keeps the arena small in real models. */
static void test_residual_in_place(void **state) {
    (void)state;
    tn_graph g;
    tn_plan p;
    begin(&g, true);
    tn_val h = tn_g_norm(&g, TN_OP_RMS_NORM, input(&g, WIDTH, 0), 0, 1, "h");
    tn_val y = tn_g_matmul(&g, tn_g_unary(&g, TN_OP_SOFTMAX, h, "x"), weight(&g, TN_TYPE_F32, WIDTH, WIDTH, 2), "y");
    tn_val z = tn_g_binary(&g, TN_OP_ADD, y, h, "z");
    plan(&p, &g, z, &g_null, "matmul_add");
    assert_int_equal(p.in_place, 1);
    assert_int_equal(p.offset[z.node * TN_MAX_OUT], p.offset[h.node * TN_MAX_OUT]);
    tn_plan_free(&p);
    tn_graph_free(&g);
}

/* ---- random graphs ---- */

static uint32_t g_seed;
static int32_t below(int32_t n) {
    g_seed = g_seed * 1664525u + 1013904223u;
    return (int32_t)((uint64_t)g_seed * (uint64_t)(uint32_t)n >> 32);
}

/* Values of one width, in rows of tokens; weights are few, so that graphs share them. */
static tn_val random_node(tn_graph *g, const tn_val *values, int32_t n) {
    static const tn_type types[] = {TN_TYPE_F32, TN_TYPE_Q8_0, TN_TYPE_Q4_0, TN_TYPE_F16};
    tn_val x = values[n - 1 - below(n < 5 ? n : 5)], y = values[below(n)];
    int32_t w = below(4);
    char name[16];
    snprintf(name, sizeof name, "v%d", g->n);
    switch (below(12)) {
    case 0: return tn_g_unary(g, TN_OP_SILU, x, name);
    case 1: return tn_g_unary(g, TN_OP_SIGMOID, x, name);
    case 2: return tn_g_scale(g, x, 0.5f, name);
    case 3: return tn_g_binary(g, TN_OP_MUL, tn_g_unary(g, TN_OP_SIGMOID, x, "gate"), y, name);
    case 4: return tn_g_norm(g, TN_OP_RMS_NORM, x, below(2) ? 16 : 0, 1e-5f, name);
    case 5: {
        tn_val m = tn_g_norm(g, TN_OP_RMS_NORM, x, 0, 1e-5f, name);
        return tn_g_binary(g, TN_OP_MUL, m, weight(g, TN_TYPE_F32, 1, WIDTH, 10 + w), name);
    }
    case 6:
    case 7: return tn_g_binary(g, TN_OP_ADD, x, y, name);
    case 8: {
        tn_val half = tn_g_slice(y, 32 * below(2), 32);
        return tn_g_binary(g, TN_OP_ADD, x, half, name);
    }
    default: return tn_g_matmul(g, x, weight(g, types[w], WIDTH, WIDTH, 20 + w), name);
    }
}

static void random_graph(tn_graph *g, uint32_t seed) {
    tn_val values[40];
    int32_t n = 0, size = 4 + (int32_t)(seed % 30);
    g_seed = seed * 2654435761u + 1;
    begin(g, seed % 3 != 0);
    values[n++] = input(g, WIDTH, 0);
    values[n++] = input(g, WIDTH, 1);
    while (n < size) {
        values[n] = random_node(g, values, n);
        n++;
    }
    tn_val last = values[n - 1]; /* every other value that nobody reads is read at the end, so that all matter */
    for (int32_t i = 0; i + 1 < n; i++) {
        bool used = false;
        for (int32_t k = 0; k < g->n; k++)
            for (int j = 0; j < g->nodes[k].n_src; j++) used |= g->nodes[k].src[j].node == values[i].node;
        if (!used) last = tn_g_binary(g, TN_OP_ADD, last, values[i], "sum");
    }
    g->output = last.node;
}

enum { N_RANDOM = 300 };

/* The first round collects the weights, which a device takes only once. */
static int open_devices(void **state) {
    (void)state;
    tn_error err;
    for (uint32_t seed = 0; seed < N_RANDOM; seed++) {
        tn_graph g;
        random_graph(&g, seed);
        tn_graph_free(&g);
    }
    if (tn_rig_open(&g_null, "null", 1, &err) || tn_rig_open(&g_cpu, "cpu", 3, &err)) return -1;
    return g_cpu.backend->put_weights(g_cpu.device, g_weights.p, g_weights.n, NULL, NULL, &err);
}

static int close_devices(void **state) {
    (void)state;
    tn_rig_close(&g_null);
    tn_rig_close(&g_cpu);
    tn_rig_weights_free(&g_weights);
    return 0;
}

static void test_random_memory(void **state) {
    (void)state;
    static const char *const fuse[] = {"all", "none"};
    int32_t in_place = 0, fused = 0;
    for (uint32_t seed = 0; seed < N_RANDOM; seed++)
        for (int k = 0; k < 4; k++) {
            tn_graph g;
            tn_plan p;
            random_graph(&g, seed);
            plan(&p, &g, (tn_val){.node = g.output}, k & 1 ? &g_cpu : &g_null, fuse[k / 2]);
            in_place += p.in_place;
            fused += p.partition.n < p.n_plain;
            tn_plan_free(&p);
            tn_graph_free(&g);
        }
    assert_true(in_place > N_RANDOM && fused > N_RANDOM); /* the graphs are worth looking at */
}

/* Whatever the rules do to a graph, it computes the same bits. */
static void test_random_results(void **state) {
    (void)state;
    for (uint32_t seed = 0; seed < N_RANDOM; seed++) {
        tn_graph g;
        tn_plan p;
        tn_error err = {0};
        tn_table result[2];
        random_graph(&g, seed);
        for (int k = 0; k < 2; k++) {
            plan(&p, &g, (tn_val){.node = g.output}, &g_cpu, k ? "all" : "none");
            if (tn_rig_run(&g_cpu, &p, TN_KV_F32, &result[k], &err) != TN_OK) fail_msg("%s", err.text);
            tn_plan_free(&p);
        }
        tn_check c = {0};
        tn_check_equal(&c, &result[1], &result[0], "random graph");
        if (c.failure[0]) fail_msg("seed %u: %s", seed, c.failure);
        tn_free(result[0].p);
        tn_free(result[1].p);
        tn_graph_free(&g);
    }
}

/* ---- real models ---- */

static tn_model *open_model(const char *name, const char *backend) {
    char path[400];
    tn_error err = {0};
    tn_model *m;
    snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, name);
    if (tn_model_open(&m, path, &(tn_model_options){.backend = backend, .threads = 1}, &err) != TN_OK)
        fail_msg("%s", err.text);
    return m;
}

static void test_model_memory(void **state) {
    (void)state;
    static const char *const models[] = {"llama-a.F32", "llama-ropefreqs.F32", "llama-q.Q4_K-pure"};
    static const char *const fuse[] = {"all", "none", "-group", "-norm,-attend", "matmul_add"};
    for (size_t i = 0; i < COUNT(models) * COUNT(fuse) * 4; i++) {
        tn_error err = {0};
        tn_session *s;
        tn_model *m = open_model(models[i % COUNT(models)], i & 1 ? "cpu" : "null");
        tn_session_options options = {
            .n_ctx = 64, .n_seq = 3, .fuse = fuse[i / 4 % COUNT(fuse)], .all_logits = i & 2};
        assert_int_equal(tn_session_open(&s, m, &options, &err), TN_OK);
        for (int phase = 0; phase < (s->few ? TN_N_PHASES : TN_PHASE_FEW); phase++) {
            const tn_plan *p = &s->plan[phase];
            check_memory(p, 64);
            assert_true(p->arena_bytes * 2 < p->naive_bytes); /* reuse is worth it */
        }
        tn_session_close(&s);
        tn_model_close(&m);
    }
}

/* Weight bytes of a token: every matrix once, of the embedding one row (and all of it where it is the output too). */
static void test_bytes_read(void **state) {
    (void)state;
    static const char *const models[] = {"llama-a.F32", "llama-ropefreqs.F32", "llama-q.Q8_0-pure"};
    int tied = 0;
    for (size_t i = 0; i < COUNT(models); i++) {
        tn_model *m = open_model(models[i], "null");
        tn_error err = {0};
        tn_session *s;
        tn_session_info info;
        const tn_gguf_tensor *e = tn_gguf_tensor_find(m->file, "token_embd.weight");
        bool output = tn_gguf_tensor_find(m->file, "output.weight");
        uint64_t expected = m->tensor_bytes + e->bytes / (uint64_t)e->ne[1] - (output ? e->bytes : 0);
        tied += !output;
        assert_int_equal(tn_session_open(&s, m, &(tn_session_options){.n_ctx = 8}, &err), TN_OK);
        tn_session_get_info(s, &info);
        assert_int_equal(info.decode_bytes, expected);
        tn_session_close(&s);
        tn_model_close(&m);
    }
    assert_in_range(tied, 1, 2); /* both kinds are among them */
}

static void test_null_backend(void **state) {
    (void)state;
    tn_model *m = open_model("llama-q.Q4_0-pure", "null");
    tn_error err = {0};
    tn_session *s;
    int32_t ids[40] = {1, 2, 3};
    assert_int_equal(tn_session_open(&s, m, &(tn_session_options){.n_ctx = 64, .n_ubatch = 16}, &err), TN_OK);
    assert_int_equal(tn_step(s, &(tn_batch){.ids = ids, .n_tokens = 40}, &err), TN_OK);
    assert_int_equal(tn_step(s, &(tn_batch){.ids = ids, .n_tokens = 1}, &err), TN_OK);
    assert_int_equal(tn_sequence_length(s, 0), 41);
    assert_int_equal(tn_logits_rows(s), 1);
    for (int32_t i = 0; i < m->hp.n_vocab; i++) assert_true(tn_logits(s, 0)[i] == 0);
    tn_session_close(&s);
    tn_model_close(&m);
}

/* ---- the hash ---- */

/* One thing different in each. */
typedef struct variant {
    tn_type type;
    int32_t n_out;
    float factor;
    bool one_token, act_f32;
    const char *fuse;
    tn_rope_params rope;
} variant;

static uint64_t hash_of(const variant *v) {
    tn_graph g;
    tn_plan p;
    tn_error err = {0};
    begin(&g, v->one_token);
    tn_val x = input(&g, WIDTH, 0);
    tn_val y = tn_g_matmul(&g, x, weight(&g, v->type, v->n_out, WIDTH, 30), "y");
    tn_val t = tn_g_rope_table(&g, NULL, 16, v->rope, "t");
    tn_val r = tn_g_rope(&g, tn_g_scale(&g, y, v->factor, "s"), t, 16, 16, false, "r");
    g.output = r.node;
    tn_rig_options o = {v->fuse, v->act_f32, TN_KV_F32};
    assert_int_equal(tn_rig_plan(&g_null, &p, &g, &o, &err), TN_OK);
    uint64_t hash = p.hash;
    tn_plan_free(&p);
    tn_graph_free(&g);
    return hash;
}

static void test_hash(void **state) {
    (void)state;
    static const tn_rope_params rope = {10000, 1, 0, 1, 32, 1, 64};
    variant v[16];
    for (size_t i = 0; i < COUNT(v); i++) v[i] = (variant){TN_TYPE_Q8_0, 64, 0.25f, true, false, "all", rope};
    size_t n = 1; /* v[0] stays as it is */
    v[n++].type = TN_TYPE_Q4_0;
    v[n++].n_out = 32;
    v[n++].factor = 0.25000003f;
    v[n++].one_token = false;
    v[n++].act_f32 = true;
    v[n++].fuse = "none";
    v[n++].rope.base = 10001;
    v[n++].rope.freq_scale = 0.5f;
    v[n++].rope.ext_factor = 1;
    v[n++].rope.beta_fast = 33;
    v[n++].rope.beta_slow = 2;
    v[n++].rope.n_ctx_orig = 65;
    assert_true(n <= COUNT(v));
    for (size_t a = 0; a < n; a++) {
        assert_true(hash_of(&v[a]) == hash_of(&v[a]));
        for (size_t b = 0; b < a; b++)
            if (hash_of(&v[a]) == hash_of(&v[b])) fail_msg("variants %zu and %zu have one hash", a, b);
    }
}

/* ---- failures ---- */

static const char *no_softmax(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n, tn_buf *name) {
    (void)device;
    for (int32_t i = 0; i < n; i++)
        if (g->nodes[nodes[i]].op == TN_OP_SOFTMAX) return "softmax is not here";
    if (name) tn_buf_str(name, "some kernel");
    return NULL;
}

static void test_no_kernel(void **state) {
    (void)state;
    tn_graph g;
    tn_plan p;
    tn_error err = {0};
    tn_plan_target target = {NULL, no_softmax, 0, 64};
    begin(&g, true);
    g.output = tn_g_unary(&g, TN_OP_SOFTMAX, input(&g, WIDTH, 0), "the_softmax").node;
    assert_int_equal(tn_plan_make(&p, &g, false, "all", &target, &err), TN_ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, "the_softmax"));
    assert_non_null(strstr(err.text, "softmax is not here"));
    assert_int_equal(p.graph.n, 0);
}

/* An illegal graph is refused before anything is done with it, and freed. */
static void test_illegal_graph(void **state) {
    (void)state;
    tn_graph g;
    tn_plan p;
    tn_error err = {0};
    tn_plan_target target = {NULL, no_softmax, 0, 64};
    begin(&g, true);
    g.output = tn_g_scale(&g, input(&g, WIDTH, 0), 1, "s").node;
    g.nodes[g.output].src[0].cols = 3;
    assert_int_equal(tn_plan_make(&p, &g, false, "all", &target, &err), TN_ERR_INTERNAL);
    assert_null(g.nodes);
}

static void test_out_of_memory(void **state) {
    (void)state;
    for (tn_failing f = {0}; !f.done;) {
        tn_graph g;
        tn_plan p;
        tn_error err = {0};
        tn_plan_target target = tn_engine_target(g_cpu.backend, g_cpu.device);
        random_graph(&g, 29); /* the largest */
        tn_failing_start(&f);
        tn_status status = tn_plan_make(&p, &g, false, "all", &target, &err);
        assert_int_equal(status, tn_failing_stop(&f) ? TN_ERR_RESOURCES : TN_OK);
        if (status == TN_OK) check_memory(&p, 64);
        tn_plan_free(&p);
        assert_true(f.n < 1000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_not_in_place),
        cmocka_unit_test(test_not_in_place_across_parts),
        cmocka_unit_test(test_residual_in_place),
        cmocka_unit_test(test_random_memory),
        cmocka_unit_test(test_random_results),
        cmocka_unit_test(test_model_memory),
        cmocka_unit_test(test_bytes_read),
        cmocka_unit_test(test_null_backend),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_no_kernel),
        cmocka_unit_test(test_illegal_graph),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
