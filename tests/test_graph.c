/* The graph: what builders make, what verify refuses (one broken graph for each thing it can say), how it is printed. */
#include "graph/graph.h"

#include "base/mem.h"
#include "failing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { WIDTH = 64, HEADS = 4, KV = 2, DIM = 16, EXPERTS = 6, USED = 2, TAPS = 3 };

/* ---- a legal graph with every op ---- */

enum { W_EMBED, W_NORM, W_Q, W_KV, W_ROUTER, W_EXPERTS, W_TAPS, W_GATE, W_HALF, N_WEIGHTS };
static const tn_weight g_weights[N_WEIGHTS] = {
    {.name = "embed.weight", .type = TN_TYPE_Q8_0, .n_out = 100, .n_in = WIDTH, .n_expert = 1},
    {.name = "norm.weight", .type = TN_TYPE_F32, .n_out = 1, .n_in = WIDTH, .n_expert = 1, .elements = true},
    {.name = "q.weight", .type = TN_TYPE_F16, .n_out = WIDTH, .n_in = WIDTH, .n_expert = 1},
    {.name = "kv.weight", .type = TN_TYPE_Q4_0, .n_out = KV * DIM, .n_in = WIDTH, .n_expert = 1},
    {.name = "router.weight", .type = TN_TYPE_F32, .n_out = EXPERTS, .n_in = WIDTH, .n_expert = 1},
    {.name = "experts.weight", .type = TN_TYPE_Q8_0, .n_out = EXPERTS * 32, .n_in = WIDTH, .n_expert = EXPERTS},
    {.name = "taps.weight", .type = TN_TYPE_F32, .n_out = WIDTH, .n_in = TAPS, .n_expert = 1, .elements = true},
    {.name = "gate.weight", .type = TN_TYPE_F32, .n_out = HEADS, .n_in = WIDTH, .n_expert = 1},
    {.name = "half.weight", .type = TN_TYPE_F16, .n_out = 1, .n_in = WIDTH, .n_expert = 1},
};
static const tn_weight *g_table[N_WEIGHTS];

static tn_val weight(tn_graph *g, int32_t index) {
    return tn_g_weight(g, index, &g_weights[index]);
}

static void add_attention(tn_graph *g, tn_val x) {
    tn_rope_params rope = {10000, 1, 0, 1, 32, 1, 64};
    tn_attr heads = {.n_head = HEADS, .n_kv = KV, .head_dim = DIM, .v_dim = DIM};
    tn_val table = tn_g_rope_table(g, NULL, 8, rope, "table");
    tn_val q = tn_g_rope(g, tn_g_matmul(g, x, weight(g, W_Q), "q"), table, DIM, 8, true, "q_rope");
    tn_val k = tn_g_rope(g, tn_g_matmul(g, x, weight(g, W_KV), "k"), table, DIM, 8, true, "k_rope");
    tn_val cache = tn_g_kv_write(g, tn_g_state(g, 0, "cache", &heads), k, k, "kv_write");
    heads.factor = 0.25f;
    tn_g_attention(g, q, cache, &heads, "attention");
}

static void add_experts(tn_graph *g, tn_val x) {
    tn_val probs = tn_g_unary(g, TN_OP_SOFTMAX, tn_g_matmul(g, x, weight(g, W_ROUTER), "router"), "probs");
    tn_val top = tn_g_top_k(g, probs, NULL, USED, true, "top");
    tn_val y = tn_g_matmul_id(g, x, weight(g, W_EXPERTS), tn_g_out(top, 1, USED), "experts");
    tn_g_expert_sum(g, y, top, "sum");
}

static void add_recurrence(tn_graph *g, tn_val x) {
    tn_val c =
        tn_g_conv1d(g, tn_g_recurrent_state(g, 1, "conv_state", (TAPS - 1) * WIDTH), x, weight(g, W_TAPS), "conv");
    tn_val k = tn_g_slice(c, 0, KV * DIM), gate = tn_g_matmul(g, x, weight(g, W_GATE), "gate");
    tn_val state = tn_g_recurrent_state(g, 2, "delta_state", HEADS * DIM * DIM);
    tn_attr attr = {.n_head = HEADS, .n_kv = KV, .head_dim = DIM, .v_dim = DIM};
    tn_g_gated_delta_net(g, (tn_val[]){state, k, k, c, gate, gate}, &attr, "delta");
}

static void build(tn_graph *g) {
    *g = (tn_graph){.weights = g_table, .n_weights = N_WEIGHTS, .max_tokens = 8, .max_outputs = 2, .layer = -1};
    for (int i = 0; i < N_WEIGHTS; i++) g_table[i] = &g_weights[i];
    tn_val w = weight(g, W_EMBED), x = tn_g_embed(g, tn_g_tokens(g), w, "embed");
    tn_val n = tn_g_norm(g, TN_OP_RMS_NORM, x, DIM, 1e-5f, "norm");
    weight(g, W_HALF);
    tn_val m = tn_g_binary(g, TN_OP_MUL, n, weight(g, W_NORM), "mul");
    add_attention(g, m);
    add_experts(g, m);
    add_recurrence(g, m);
    tn_val q8 = tn_g_quantize(g, tn_g_scale(g, m, 0.5f, "scale"), "q8");
    tn_val a = tn_g_binary(g, TN_OP_ADD, tn_g_matmul(g, q8, weight(g, W_Q), "dense"), tn_g_slice(m, 32, 32), "add");
    tn_val s = tn_g_select_rows(g, a, "rows");
    tn_val logits = tn_g_matmul(g, s, weight(g, W_EMBED), "logits");
    g->output = logits.node;
    g->choice = tn_g_argmax(g, logits, "chosen").node;
    g->best = tn_g_best(g, logits, 2, "best").node;
    assert_false(g->failed);
}

static tn_node *find(const tn_graph *g, const char *name) {
    for (int32_t i = 0; i < g->n; i++)
        if (!strcmp(g->nodes[i].name, name)) return &g->nodes[i];
    fail_msg("no node %s", name);
    return NULL;
}

static int32_t id_of(const tn_graph *g, const char *name) {
    return (int32_t)(find(g, name) - g->nodes);
}

static void test_legal(void **state) {
    (void)state;
    tn_graph g;
    tn_error err = {0};
    build(&g);
    if (tn_graph_verify(&g, &err) != TN_OK) fail_msg("%s", err.text);
    bool seen[TN_OP_COUNT] = {0};
    for (int32_t i = 0; i < g.n; i++) seen[g.nodes[i].op] = true;
    static const tn_op same[] = {
        TN_OP_L2_NORM,    TN_OP_SOFTCAP, TN_OP_SILU,    TN_OP_GELU,
        TN_OP_GELU_QUICK, TN_OP_SIGMOID, TN_OP_SOFTPLUS}; /* checked as others of their class are */
    for (size_t i = 0; i < COUNT(same); i++) seen[same[i]] = true;
    for (int op = 0; op < TN_OP_COUNT; op++)
        if (!seen[op]) fail_msg("the graph of this test has no %s", tn_ops[op].name);
    tn_graph_free(&g);
}

/* ---- broken graphs: BREAK(what verify says, what is done to the legal graph) ---- */

#define NODE(name)   find(g, #name)
#define SRC(name, i) NODE(name)->src[i]
#define BREAKS                                                                                                       \
    BREAK("unknown op", NODE(norm)->op = TN_OP_COUNT)                                                                \
    BREAK("no name", NODE(norm)->name = "")                                                                          \
    BREAK("no name", NODE(norm)->name = NULL)                                                                        \
    BREAK("wrong number of sources", NODE(norm)->n_src = 2)                                                          \
    BREAK("wrong number of sources", NODE(mul)->n_src = 1)                                                           \
    BREAK("wrong number of outputs", NODE(norm)->n_out = 0)                                                          \
    BREAK("wrong number of outputs", NODE(norm)->n_out = TN_MAX_OUT + 1)                                             \
    BREAK("a source does not stand before its use", SRC(norm, 0).node = id_of(g, "mul"))                             \
    BREAK("a source does not stand before its use", SRC(norm, 0).node = id_of(g, "norm"))                            \
    BREAK("a source does not stand before its use", SRC(norm, 0).node = -1)                                          \
    BREAK("an output that is not there", SRC(mul, 0).out = 1)                                                        \
    BREAK("a slice out of range", SRC(norm, 0).first = 1)                                                            \
    BREAK("a slice out of range", SRC(norm, 0).first = -1)                                                           \
    BREAK("a slice out of range", SRC(norm, 0).cols = 0)                                                             \
    BREAK("an empty shape", NODE(norm)->out[0].cols = 0)                                                             \
    BREAK("an empty shape", find(g, "q.weight")->out[0].n_rows = 0)                                                  \
    BREAK("not whole blocks of 32", NODE(q8)->out[0].cols = 48)                                                      \
    BREAK("not whole blocks of 32", NODE(q8)->attr.head_dim = 16)                                                    \
    BREAK("changes the row length", NODE(mul)->out[0].cols = 32)                                                     \
    BREAK("an element op reads what is not f32", SRC(add, 0) = ((tn_src){.node = id_of(g, "q8"), .cols = WIDTH}))    \
    BREAK("an element op reads what is not f32", SRC(add, 1) = ((tn_src){.node = id_of(g, "q8"), .cols = WIDTH}))    \
    BREAK("rows of a source and of the result differ", NODE(norm)->out[0].rows = TN_ROWS_OUTPUTS)                    \
    BREAK("rows of a source and of the result differ", SRC(logits, 0) = SRC(rows, 0))                                \
    BREAK("does not repeat evenly", SRC(add, 1).cols = 24)                                                           \
    BREAK("from a weight must be f32", SRC(mul, 1).node = id_of(g, "half.weight"))                                   \
    BREAK("rows are not whole heads", NODE(norm)->attr.head_dim = 24)                                                \
    BREAK("rows are not whole heads", NODE(q_rope)->attr.head_dim = 24)                                              \
    BREAK("rope of an impossible width", NODE(q_rope)->attr.head_dim = 0)                                            \
    BREAK("rope of an impossible width", NODE(q_rope)->attr.n_rot = 7)                                               \
    BREAK("rope of an impossible width", NODE(q_rope)->attr.n_rot = 18)                                              \
    BREAK("the rope table has another width", NODE(q_rope)->attr.n_rot = 10)                                         \
    BREAK("the second operand is not a weight", SRC(q, 1) = ((tn_src){.node = id_of(g, "norm"), .cols = WIDTH}))     \
    BREAK("the weight has another shape", SRC(q, 0).cols = 32)                                                       \
    BREAK("the weight has another shape", NODE(q)->out[0].cols = 32)                                                 \
    BREAK("a weight cannot be sliced", SRC(q, 1).cols = 32)                                                          \
    BREAK("neither f32 nor int8", find(g, "mul")->out[0].dtype = TN_I32)                                             \
    BREAK("an int8 row cannot be sliced", (SRC(q8, 0) = (tn_src){.node = id_of(g, "logits"), .cols = 96},            \
                                           NODE(q8)->out[0].cols = 96, SRC(dense, 0).cols = WIDTH, move_up(g)))      \
    BREAK("chooses more experts than there are", NODE(top)->attr.n_used = EXPERTS + 1)                               \
    BREAK("chooses more experts than there are", NODE(top)->attr.n_used = 0)                                         \
    BREAK("not a scale for each expert",                                                                             \
          (NODE(top)->n_src = 2, SRC(top, 1) = (tn_src){.node = id_of(g, "router"), .cols = 2}))                     \
    BREAK("not a result of each chosen expert", SRC(sum, 1).cols = 1)                                                \
    BREAK("not a result of each chosen expert", NODE(sum)->out[0].cols = 16)                                         \
    BREAK("not a weight of experts", SRC(experts, 1) = SRC(experts, 0))                                              \
    BREAK("not the experts chosen", SRC(experts, 2).out = 0)                                                         \
    BREAK("not the experts chosen", SRC(experts, 2).cols = 1)                                                        \
    BREAK("the weight has another shape", SRC(experts, 0).cols = 32)                                                 \
    BREAK("the result has another width", NODE(experts)->out[0].cols = 32)                                           \
    BREAK("reads what is not a state", SRC(conv, 0) = SRC(conv, 1))                                                  \
    BREAK("not a tap for each column", NODE(conv)->attr.kernel = 4)                                                  \
    BREAK("the state has another size", NODE(conv_state)->out[0].cols = 500)                                         \
    BREAK("or the state has another size", NODE(delta_state)->out[0].cols = 5000)                                    \
    BREAK("heads do not share key heads evenly", NODE(delta)->attr.n_kv = 3)                                         \
    BREAK("q or k has another width", SRC(delta, 2).cols = DIM)                                                      \
    BREAK("v has another width", SRC(delta, 3).cols = DIM)                                                           \
    BREAK("not a gate for each head", SRC(delta, 5).cols = 1)                                                        \
    BREAK("writes what is not a state", SRC(kv_write, 0) = SRC(kv_write, 1))                                         \
    BREAK("k has another width than the cache", SRC(kv_write, 1).cols = DIM)                                         \
    BREAK("v has another width than the cache", SRC(kv_write, 2).cols = DIM)                                         \
    BREAK("uses a state that was already replaced", write_twice(g))                                                  \
    BREAK("uses a state that was already replaced", SRC(attention, 1) = SRC(kv_write, 0))                            \
    BREAK("wrong number of outputs", NODE(top)->n_out = 1)                                                           \
    BREAK("wrong number of outputs", NODE(conv)->n_out = 1)                                                          \
    BREAK("the table is not a weight", SRC(embed, 1) = SRC(embed, 0))                                                \
    BREAK("reads what is not a state", SRC(attention, 1) = SRC(attention, 0))                                        \
    BREAK("heads do not share kv heads evenly", NODE(attention)->attr.n_kv = 3)                                      \
    BREAK("q has another width than the heads", SRC(attention, 0).cols = DIM)                                        \
    BREAK("the cache has other heads", NODE(attention)->attr.v_dim = 8)                                              \
    BREAK("the choice is no argmax", g->choice = g->n)                                                               \
    BREAK("the choice is no argmax", g->choice = g->output)                                                          \
    BREAK("not one index", NODE(chosen)->out[0].cols = 2)                                                            \
    BREAK("the best are not chosen", g->best = g->n)                                                                 \
    BREAK("the best are not chosen", g->best = g->choice)                                                            \
    BREAK("wrong number of outputs", NODE(best)->n_out = 1)                                                          \
    BREAK("chooses more than there are", NODE(best)->out[0].cols = SRC(best, 0).cols + 1)                            \
    BREAK("not indices and what stands there", NODE(best)->out[1].cols = 1)                                          \
    BREAK("not indices and what stands there", NODE(best)->out[0].dtype = TN_F32)                                    \
    BREAK("reads what is a result only", (SRC(best, 0).node = g->choice, SRC(best, 0).cols = 1))                     \
    BREAK("chooses from what is not f32", NODE(logits)->out[0].dtype = TN_I32)                                       \
    BREAK("no output", g->output = -1) BREAK("no output", g->output = g->n)

/* The int8 node reads wider rows of an earlier node. */
static void move_up(tn_graph *g) {
    find(g, "scale")->out[0].cols = 96;
    find(g, "scale")->src[0] = (tn_src){.node = id_of(g, "embed"), .cols = 96};
    find(g, "embed")->out[0].cols = 96;
    find(g, "norm")->src[0].cols = WIDTH;
    find(g, "q8")->src[0] = (tn_src){.node = id_of(g, "scale"), .cols = 96};
}

static void write_twice(tn_graph *g) {
    tn_node again = *find(g, "kv_write");
    again.name = "again";
    tn_graph_add(g, &again);
}

#define BREAK(message, change) {message, #change},
static const struct { const char *message, *change; } g_breaks[] = {BREAKS};
#undef BREAK

static void break_graph(tn_graph *g, size_t which) {
    size_t i = 0;
#define BREAK(message, change)                                                                                       \
    if (i++ == which) (void)(change);
    BREAKS
#undef BREAK
}

static void test_broken(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(g_breaks); i++) {
        tn_graph g;
        tn_error err = {0};
        build(&g);
        break_graph(&g, i);
        if (tn_graph_verify(&g, &err) != TN_ERR_INTERNAL || !strstr(err.text, g_breaks[i].message))
            fail_msg("%s: '%s' was expected, not '%s'", g_breaks[i].change, g_breaks[i].message, err.text);
        tn_graph_free(&g);
    }
}

/* ---- building ---- */

static void test_weights_are_one_node(void **state) {
    (void)state;
    tn_graph g;
    build(&g);
    int32_t n = g.n;
    assert_int_equal(weight(&g, W_Q).node, id_of(&g, "q.weight"));
    assert_int_equal(g.n, n);
    tn_graph_free(&g);
}

static void test_names_have_layers(void **state) {
    (void)state;
    tn_graph g;
    build(&g);
    g.layer = 3;
    tn_val x = {.node = id_of(&g, "embed"), .cols = WIDTH};
    assert_string_equal(g.nodes[tn_g_scale(&g, x, 2, "twice").node].name, "l3.twice");
    tn_graph_free(&g);
}

/* Wherever memory runs out, the graph says so and nothing is touched that is not there. */
static void test_out_of_memory(void **state) {
    (void)state;
    for (tn_failing f = {0}; !f.done;) {
        tn_graph g = {.layer = 0};
        tn_error err = {0};
        tn_failing_start(&f);
        tn_val x = tn_g_tokens(&g);
        for (int i = 0; i < 600 && g.n; i++) /* the array of nodes grows twice */
            x = tn_g_unary(&g, TN_OP_SILU, x, "a_name_that_fills_blocks_of_the_arena_before_the_graph_ends");
        bool failed = tn_failing_stop(&f);
        assert_int_equal(g.failed, failed);
        if (failed) assert_int_equal(tn_graph_verify(&g, &err), TN_ERR_RESOURCES);
        tn_graph_free(&g);
        assert_true(f.n < 100);
    }
}

/* ---- printing ---- */

static void expect_line(const tn_graph *g, const char *name, const char *line) {
    tn_buf b = {0};
    tn_print_node(&b, g, find(g, name));
    assert_string_equal(b.p, line);
    tn_buf_free(&b);
}

static void test_print(void **state) {
    (void)state;
    tn_graph g;
    build(&g);
    expect_line(&g, "norm", "norm = rms_norm(embed) head_dim=16 eps=1e-05 : f32[tokens, 64]");
    expect_line(&g, "add", "add = add(dense, mul[32:64]) : f32[tokens, 64]");
    expect_line(&g, "q8", "q8 = quantize(scale) : q8[tokens, 64]");
    expect_line(&g, "scale", "scale = scale(mul) factor=0.5 : f32[tokens, 64]");
    expect_line(&g, "kv.weight", "kv.weight = weight() : weight[32, 64] Q4_0");
    expect_line(&g, "q_rope", "q_rope = rope(q, table) head_dim=16 n_rot=8 neox=1 : f32[tokens, 64]");
    expect_line(&g, "kv_write",
                "kv_write = kv_write(cache, k_rope, k_rope) head_dim=16 v_dim=16 n_head=4 n_kv=2 : state[1, 64]");
    expect_line(&g, "experts", "experts = matmul_id(mul, experts.weight, top.1) n_used=2 : f32[tokens, 64]");
    expect_line(&g, "top", "top = top_k(probs) n_used=2 norm=1 : f32[tokens, 2], i32[tokens, 2]");
    expect_line(&g, "rows", "rows = select_rows(add) : f32[outputs, 64]");
    tn_buf b = {0};
    tn_print_graph(&b, &g);
    int32_t lines = 0;
    for (size_t i = 0; i < b.n; i++) lines += b.p[i] == '\n';
    assert_int_equal(lines, g.n);
    assert_non_null(strstr(b.p, "\ntokens = input() : i32[tokens, 1]\n"));
    tn_buf_free(&b);
    tn_graph_free(&g);
}

/* Every op has its name, its formula, and no fewer sources at most than at least. */
static void test_ops_table(void **state) {
    (void)state;
    for (int i = 0; i < TN_OP_COUNT; i++) {
        assert_true(tn_ops[i].name[0] && tn_ops[i].formula[0]);
        assert_true(tn_ops[i].min_src <= tn_ops[i].max_src && tn_ops[i].max_src <= TN_MAX_SRC);
        for (int k = 0; k < i; k++) assert_string_not_equal(tn_ops[i].name, tn_ops[k].name);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_legal),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_weights_are_one_node),
        cmocka_unit_test(test_names_have_layers),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_print),
        cmocka_unit_test(test_ops_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
