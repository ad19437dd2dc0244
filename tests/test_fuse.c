/* Fusion: what each rule takes and, by hand, what it must leave alone; which rules a list turns on; partitions; how many
 * launches a model comes to. That fused launches compute the same is test_rules.c. */
#include "base/mem.h"
#include "engine.h"
#include "failing.h"
#include "fuse/rule.h"
#include "verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { WIDTH = 64, HEADS = 4, KV = 2, DIM = 16 };

/* ---- graphs by hand, partitions by name ---- */

static tn_graph g;
static tn_rig_weights g_weights;
static tn_partition g_partition;
static const char *g_refuses; /* a backend that takes single nodes only, and why; NULL: all */
static int g_serial;

static void begin(bool one_token) {
    g = (tn_graph){.layer = -1, .max_tokens = 4, .max_outputs = 4, .one_token = one_token};
    g_refuses = NULL;
    g_serial = 0;
    tn_g_tokens(&g);
}

static tn_val weight(int32_t n_out, int32_t n_in) {
    tn_weight like = {.type = TN_TYPE_F32, .n_out = n_out, .n_in = n_in};
    return tn_rig_weight(&g_weights, &g, &like, TN_FILL_RANDOM, g_serial++);
}

/* A value that no rule takes in. */
static tn_val input(int32_t cols, const char *name) {
    tn_val e = tn_g_embed(&g, (tn_val){.cols = 1}, weight(10, cols), "e");
    return tn_g_unary(&g, TN_OP_SOFTMAX, e, name);
}

static tn_val matmul(tn_val x, int32_t n_out, const char *name) {
    return tn_g_matmul(&g, x, weight(n_out, x.cols), name);
}

static tn_val add(tn_val x, tn_val y, const char *name) {
    return tn_g_binary(&g, TN_OP_ADD, x, y, name);
}

static tn_val mul(tn_val x, tn_val y, const char *name) {
    return tn_g_binary(&g, TN_OP_MUL, x, y, name);
}

static tn_val norm(tn_val x, const char *name) {
    return tn_g_norm(&g, TN_OP_RMS_NORM, x, 0, 1e-5f, name);
}

/* A reader outside, of an op that no rule takes after anything. */
static tn_val reader(tn_val x, const char *name) {
    return tn_g_unary(&g, TN_OP_SOFTMAX, x, name);
}

static const char *find_kernel(const void *device, const tn_graph *graph, const int32_t *nodes, int32_t n) {
    (void)device, (void)graph, (void)nodes;
    return n > 1 ? g_refuses : NULL;
}

static void fuse(tn_val output, const char *rules) {
    tn_error err = {0};
    g.output = output.node;
    if (tn_graph_verify(&g, &err) != TN_OK) fail_msg("%s", err.text);
    if (tn_fuse(&g_partition, &g, rules, (tn_kernel_query){find_kernel, NULL}, &err) != TN_OK)
        fail_msg("%s", err.text);
}

static void end(void) {
    tn_partition_free(&g_partition);
    tn_graph_free(&g);
}

static int32_t id_of(const char *name) {
    for (int32_t i = 0; i < g.n; i++)
        if (!strcmp(g.nodes[i].name, name)) return i;
    fail_msg("no node %s", name);
    return -1;
}

/* "a b c": these nodes, and no others, are a launch. */
static void expect_launch(const char *names) {
    char copy[200], *save = NULL;
    int32_t launch = -1, n = 0;
    snprintf(copy, sizeof copy, "%s", names);
    for (char *name = strtok_r(copy, " ", &save); name; name = strtok_r(NULL, " ", &save), n++) {
        int32_t owner = g_partition.owner[id_of(name)];
        if (n && owner != launch) fail_msg("%s is not in the launch of (%s)", name, names);
        launch = owner;
    }
    if (g_partition.launch[launch].n != n)
        fail_msg("the launch of (%s) has %d nodes", names, g_partition.launch[launch].n);
}

static const tn_rule_log *log_of(const char *rule) {
    for (int32_t i = 0; i < g_partition.n_rules; i++)
        if (!strcmp(g_partition.log[i].name, rule)) return &g_partition.log[i];
    fail_msg("no rule %s", rule);
    return NULL;
}

static void expect_fired(const char *rule, int32_t n) {
    if (log_of(rule)->fired != n) fail_msg("%s fired %d times, not %d", rule, log_of(rule)->fired, n);
}

static void expect_reject(const char *rule, const char *reason) {
    for (const tn_reject *r = log_of(rule)->rejects; r; r = r->next)
        if (strstr(r->reason, reason)) return;
    fail_msg("%s was not refused because '%s'", rule, reason);
}

/* ---- group ---- */

static void test_group(void **state) {
    (void)state;
    begin(true);
    tn_val x = input(WIDTH, "x"), other = input(WIDTH, "other");
    tn_val a = matmul(x, 32, "a"), b = matmul(other, 32, "b"), c = matmul(x, 48, "c");
    tn_val half = matmul(tn_g_slice(x, 0, 32), 32, "half"), d = matmul(x, 32, "d");
    reader(b, "rb"), reader(c, "rc"), reader(half, "rh"), reader(d, "rd");
    fuse(a, "group");
    expect_launch("a c d"); /* not b, which reads another value, nor half, which reads a part */
    expect_launch("b");
    expect_launch("half");
    expect_fired("group", 1);
    assert_int_equal(g_partition.launch[g_partition.owner[id_of("a")]].kind, TN_KIND_MATMULS);
    end();
}

/* Nine readers are two launches: a group has eight at most. */
static void test_group_of_nine(void **state) {
    (void)state;
    begin(true);
    tn_val x = input(WIDTH, "x"), last = x;
    for (int i = 0; i < 9; i++) last = matmul(x, 32, "m");
    fuse(last, "group");
    int32_t most = 0, launches = 0;
    for (int32_t l = 0; l < g_partition.n; l++) {
        const tn_launch *launch = &g_partition.launch[l];
        if (g.nodes[launch->nodes[0]].op != TN_OP_MATMUL) continue;
        launches++;
        most = launch->n > most ? launch->n : most;
    }
    assert_int_equal(launches, 2);
    assert_int_equal(most, 8);
    end();
}

/* A matmul that depends on another one's result must not join it. */
static void test_group_is_convex(void **state) {
    (void)state;
    begin(true);
    tn_val x = input(WIDTH, "x"), a = matmul(x, WIDTH, "a"), s = add(reader(a, "r"), x, "s");
    tn_val b = matmul(s, 32, "b");
    fuse(b, "group");
    expect_launch("a");
    expect_launch("b");
    expect_fired("group", 0);
    end();
}

/* ---- epilogue ---- */

static tn_val matmul_id(tn_val x, tn_val ids, const char *name) {
    tn_weight like = {.type = TN_TYPE_F32, .n_out = 3 * 32, .n_in = x.cols, .n_expert = 3};
    return tn_g_matmul_id(&g, x, tn_rig_weight(&g_weights, &g, &like, TN_FILL_RANDOM, g_serial++), ids, name);
}

/* The shared expert's matmuls stand beside the chosen ones', but not with the router, for which these wait. */
static void test_group_shared(void **state) {
    (void)state;
    for (int alike = 0; alike < 2; alike++) {
        begin(true);
        tn_val x = input(WIDTH, "x"), q = tn_g_quantize(&g, x, "q"), routed = alike ? q : x;
        tn_val top = tn_g_top_k(&g, matmul(routed, 3, "router"), NULL, 2, true, "top"), ids = tn_g_out(top, 1, 2);
        tn_val y1 = matmul_id(q, ids, "y1"), y2 = matmul_id(q, ids, "y2");
        tn_val s1 = matmul(q, 32, "s1"), s2 = matmul(q, 32, "s2");
        reader(matmul(x, 32, "other"), "a");
        reader(add(s1, s2, "shared"), "b");
        fuse(add(y1, y2, "z"), "group,group_shared");
        expect_launch(alike ? "router s1 s2" : "y1 y2 s1 s2");
        expect_launch(alike ? "other" : "router other");
        if (alike) expect_reject("group_shared", "a path leaves the region");
        end();
    }
}

static void test_matmul_add(void **state) {
    (void)state;
    for (int swapped = 0; swapped < 2; swapped++) { /* operand order does not matter */
        begin(true);
        tn_val x = input(WIDTH, "x"), r = input(WIDTH, "r"), y = matmul(x, WIDTH, "y");
        tn_val z = swapped ? add(r, y, "z") : add(y, r, "z");
        fuse(z, "matmul_add");
        expect_launch("y z");
        assert_string_equal(g_partition.launch[g_partition.owner[id_of("y")]].rules, "matmul_add");
        end();
    }
}

/* A residual that is a product too: either may take the sum, but only one. */
static void test_matmul_add_of_two(void **state) {
    (void)state;
    begin(true);
    tn_val a = matmul(input(WIDTH, "x"), 32, "a"), b = matmul(input(WIDTH, "u"), 32, "b");
    fuse(add(a, b, "z"), "matmul_add");
    expect_fired("matmul_add", 1);
    assert_int_equal(g_partition.owner[id_of("a")] == g_partition.owner[id_of("z")],
                     g_partition.owner[id_of("b")] != g_partition.owner[id_of("z")]);
    end();
}

static void test_matmul_add_used_outside(void **state) {
    (void)state;
    begin(true);
    tn_val x = input(WIDTH, "x"), y = matmul(x, WIDTH, "y"), z = add(y, x, "z");
    reader(y, "outside");
    fuse(z, "all");
    expect_launch("y");
    expect_reject("matmul_add", "used outside");
    end();
    begin(true); /* the graph's result is read outside */
    x = input(WIDTH, "x"), y = matmul(x, WIDTH, "y"), add(y, x, "z");
    fuse(y, "all");
    expect_launch("y");
    expect_reject("matmul_add", "used outside");
    end();
}

/* y1 + f(y2), where y1 and y2 are of one launch: the sum would wait for what waits for it. */
static void test_epilogue_is_convex(void **state) {
    (void)state;
    begin(true);
    tn_val x = input(WIDTH, "x"), y1 = matmul(x, WIDTH, "y1"), y2 = matmul(x, WIDTH, "y2");
    fuse(add(y1, reader(y2, "f"), "z"), "group,matmul_add");
    expect_launch("y1 y2");
    expect_launch("z");
    expect_reject("matmul_add", "a path leaves the region");
    end();
}

static void test_matmul_act(void **state) {
    (void)state;
    begin(true);
    tn_val x = input(WIDTH, "x"), gate = matmul(x, 96, "gate"), up = matmul(x, 96, "up");
    tn_val a = mul(tn_g_unary(&g, TN_OP_SILU, gate, "silu"), up, "gated");
    tn_val q = tn_g_quantize(&g, a, "q8");
    fuse(matmul(q, 32, "down"), "group,matmul_act,matmul_quantize");
    expect_launch("gate up silu gated q8");
    assert_string_equal(g_partition.launch[g_partition.owner[id_of("q8")]].rules,
                        "group, matmul_act, matmul_act, matmul_quantize");
    end();
    begin(true); /* softmax needs whole rows: not an epilogue */
    tn_val s = tn_g_unary(&g, TN_OP_SOFTMAX, matmul(input(WIDTH, "x"), 32, "y"), "s");
    fuse(s, "all");
    expect_launch("y");
    end();
}

/* A sum of experts joins the matmuls that add it, not those that stand beside it, and not where it is read elsewhere too. */
static void test_matmul_sum(void **state) {
    (void)state;
    for (int outside = 0; outside < 2; outside++) {
        begin(true);
        tn_val y = matmul(input(WIDTH, "x"), 32, "y"), scaled = mul(y, weight(1, 32), "scaled");
        tn_val s = tn_g_expert_sum(&g, input(2 * 32, "each"), input(2, "w"), "s"), z = add(s, scaled, "z");
        tn_val row = tn_g_expert_sum(&g, input(2 * 32, "each2"), input(2, "w2"), "s2");
        reader(row, "alone");
        if (outside) reader(s, "outside");
        fuse(add(z, input(32, "h"), "out"), "matmul_act,matmul_sum");
        expect_launch(outside ? "y scaled z out" : "s y scaled z out");
        expect_launch("s2");
        if (outside) expect_reject("matmul_sum", "used outside");
        end();
    }
}

/* A sum that products read is none that is added to their results. */
static void test_matmul_of_sum(void **state) {
    (void)state;
    begin(true);
    tn_val s = tn_g_expert_sum(&g, input(2 * 32, "each"), input(2, "w"), "s");
    tn_val y1 = matmul(s, 32, "y1"), y2 = matmul(s, 32, "y2");
    fuse(add(y1, y2, "z"), "group,matmul_sum");
    expect_launch("s");
    end();
}

/* The f32 value is stored too where it is read. */
static void test_quantize_keeps_f32(void **state) {
    (void)state;
    begin(true);
    tn_val y = matmul(input(WIDTH, "x"), 64, "y"), q = tn_g_quantize(&g, y, "q8");
    reader(y, "f32");
    fuse(matmul(q, 32, "z"), "matmul_quantize");
    expect_launch("y q8");
    assert_true(tn_value_stored(&g_partition, &g, id_of("y"), 0));
    assert_true(tn_value_stored(&g_partition, &g, id_of("q8"), 0));
    end();
    begin(true);
    y = matmul(input(WIDTH, "x"), 64, "y");
    fuse(matmul(tn_g_quantize(&g, y, "q8"), 32, "z"), "matmul_quantize");
    assert_false(tn_value_stored(&g_partition, &g, id_of("y"), 0));
    assert_true(tn_value_stored(&g_partition, &g, id_of("z"), 0)); /* the result */
    end();
}

/* ---- norm ---- */

static void test_norm(void **state) {
    (void)state;
    begin(true);
    tn_val h = input(WIDTH, "h"), m = mul(norm(h, "n"), weight(1, WIDTH), "m"), q = tn_g_quantize(&g, m, "q8");
    reader(m, "f32"); /* m may be read outside, n may not */
    fuse(matmul(q, 32, "y"), "norm");
    expect_launch("n m q8");
    end();
    begin(true);
    tn_val n = norm(input(WIDTH, "h"), "n");
    m = mul(n, weight(1, WIDTH), "m");
    reader(n, "outside");
    fuse(reader(m, "y"), "norm");
    expect_launch("n");
    expect_launch("m");
    expect_reject("norm", "used outside");
    end();
}

/* A norm without a weight that is read as f32 and as int8: the absent line's slot is its source's. */
static void test_norm_without_weight(void **state) {
    (void)state;
    begin(true);
    tn_val n = norm(input(WIDTH, "h"), "n"), q = tn_g_quantize(&g, n, "q8");
    reader(n, "f32");
    fuse(matmul(q, 32, "y"), "norm");
    expect_launch("n q8");
    end();
}

/* h is read again as the residual; a weight that depends on h makes a path out and back. */
static void test_norm_add(void **state) {
    (void)state;
    begin(true);
    tn_val r = input(WIDTH, "r"), b = input(WIDTH, "b"), h = add(r, b, "h");
    tn_val m = mul(norm(h, "n"), weight(1, WIDTH), "m");
    fuse(add(reader(m, "y"), h, "next"), "norm_add");
    expect_launch("h n m");
    end();
    begin(true);
    h = add(input(WIDTH, "r"), input(WIDTH, "b"), "h");
    m = mul(norm(h, "n"), reader(h, "of_h"), "m");
    fuse(reader(m, "y"), "norm_add");
    expect_launch("h n"); /* the part that is convex */
    expect_launch("m");
    expect_reject("norm_add", "a path leaves the region");
    end();
}

/* ---- join ---- */

/* q, k and v with what is between them and the attention; the names say which is which. */
typedef struct heads {
    tn_val q_norm, q, k_norm, k, cache, o;
} heads;

static heads build_heads(bool norms, bool one_table) {
    heads h;
    tn_rope_params rope = {10000, 1, 0, 1, 32, 1, 64};
    tn_attr a = {.n_head = HEADS, .n_kv = KV, .head_dim = DIM, .v_dim = DIM};
    tn_val table = tn_g_rope_table(&g, NULL, DIM, rope, "t"), other = table;
    if (!one_table) other = tn_g_rope_table(&g, NULL, DIM, rope, "t2");
    h.q_norm = input(HEADS * DIM, "qx");
    h.k_norm = input(KV * DIM, "kx");
    if (norms) h.q_norm = tn_g_norm(&g, TN_OP_RMS_NORM, h.q_norm, DIM, 1e-6f, "qn");
    if (norms) h.k_norm = tn_g_norm(&g, TN_OP_RMS_NORM, h.k_norm, DIM, 1e-6f, "kn");
    h.q = tn_g_rope(&g, h.q_norm, table, DIM, DIM, false, "q");
    h.k = tn_g_rope(&g, h.k_norm, other, DIM, DIM, false, "k");
    h.cache = tn_g_kv_write(&g, tn_g_state(&g, 0, "c", &a), h.k, input(KV * DIM, "vx"), "w");
    a.factor = 0.25f;
    h.o = tn_g_attention(&g, h.q, h.cache, &a, "o");
    return h;
}

static void test_attend(void **state) {
    (void)state;
    begin(true);
    fuse(build_heads(true, true).o, "attend");
    expect_launch("qn q kn k w o");
    end();
    begin(true);
    fuse(build_heads(false, true).o, "attend");
    expect_launch("q k w o");
    end();
}

/* The same slot twice is the same value: q and k turned by different tables are no match. */
static void test_attend_wrong_operand(void **state) {
    (void)state;
    begin(true);
    fuse(build_heads(true, false).o, "attend");
    expect_launch("o");
    expect_launch("w");
    expect_fired("attend", 0);
    end();
}

static void test_attend_prefill(void **state) {
    (void)state;
    begin(false);
    fuse(build_heads(true, true).o, "attend,rope_kv");
    expect_launch("o");
    expect_launch("kn k w"); /* writing needs no more than the token */
    expect_reject("attend", "more than one token a sequence");
    end();
}

/* Another attention reads the cache that is written: it may, w is in .out. k may not be read outside. */
static void test_attend_shared(void **state) {
    (void)state;
    begin(true);
    heads h = build_heads(false, true);
    tn_attr a = {.n_head = HEADS, .n_kv = KV, .head_dim = DIM, .v_dim = DIM, .factor = 1};
    tn_val second = tn_g_attention(&g, input(HEADS * DIM, "q2"), h.cache, &a, "o2");
    fuse(add(h.o, second, "sum"), "attend");
    expect_launch("q k w o");
    expect_launch("o2");
    end();
    begin(true);
    h = build_heads(false, true);
    reader(h.k, "outside");
    fuse(h.o, "attend");
    expect_launch("o");
    expect_reject("attend", "used outside");
    end();
}

static void test_norm_matmuls(void **state) {
    (void)state;
    begin(true);
    tn_val h = input(WIDTH, "h"), m = mul(norm(h, "n"), weight(1, WIDTH), "m");
    tn_val a = matmul(m, 32, "a"), b = matmul(m, 32, "b");
    reader(b, "rb");
    fuse(add(a, b, "z"), "group,norm_matmuls"); /* turns on norm, which it needs */
    assert_true(log_of("norm")->on);
    assert_false(log_of("norm_add")->on);
    expect_launch("n m a b");
    end();
    begin(true); /* a norm that two launches read is done once, by itself */
    m = mul(norm(input(WIDTH, "h"), "n"), weight(1, WIDTH), "m");
    a = matmul(m, 32, "a");
    fuse(add(a, matmul(m, 32, "b"), "z"), "norm_matmuls");
    expect_fired("norm_matmuls", 1); /* m may be stored: it is in .out */
    end();
}

/* ---- the backend's say ---- */

static void test_kernel_refused(void **state) {
    (void)state;
    begin(true);
    g_refuses = "it has no kernel";
    tn_val x = input(WIDTH, "x");
    fuse(add(matmul(x, WIDTH, "y"), x, "z"), "all");
    expect_reject("matmul_add", "it has no kernel");
    for (int32_t l = 0; l < g_partition.n; l++) assert_int_equal(g_partition.launch[l].n, 1);
    end();
}

/* ---- which rules are on ---- */

static void test_rule_lists(void **state) {
    (void)state;
    static const struct {
        const char *spec, *on, *off;
    } cases[] = {
        {"group,norm", "group norm", "matmul_add attend norm_add"},
        {"norm_matmuls", "norm_matmuls norm", "group matmul_add"},
        {"-group,-attend", "norm matmul_add rope_kv", "group attend"},
        {"-norm", "norm_matmuls group", "norm"},
        {"none", "", "group norm attend norm_matmuls"},
        {"all", "group norm attend", ""},
        {"", "group norm attend", ""},
        {NULL, "group norm attend", ""},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        begin(true);
        fuse(input(WIDTH, "x"), cases[i].spec);
        for (int32_t k = 0; k < g_partition.n_rules; k++) {
            char name[80], list[2][200];
            snprintf(name, sizeof name, " %s ", g_partition.log[k].name);
            snprintf(list[0], sizeof list[0], " %s ", cases[i].off);
            snprintf(list[1], sizeof list[1], " %s ", cases[i].on);
            for (int on = 0; on < 2; on++)
                if (strstr(list[on], name)) assert_int_equal(g_partition.log[k].on, on);
        }
        end();
    }
}

static void test_bad_rule_lists(void **state) {
    (void)state;
    static const char *const bad[] = {"grup",        "group,grup", "-grup",     "group,-norm",
                                      "-group,norm", ",",          "all,group", "-"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        tn_error err = {0};
        begin(true);
        g.output = input(WIDTH, "x").node;
        tn_partition p;
        assert_int_equal(tn_fuse(&p, &g, bad[i], (tn_kernel_query){find_kernel, NULL}, &err), TN_ERR_USAGE);
        if (strstr(bad[i], "grup")) /* the error lists them all */
            for (int32_t t = 0; t < tn_n_rule_tables; t++)
                for (int32_t r = 0; r < tn_rule_tables[t].n; r++)
                    assert_non_null(strstr(err.text, tn_rule_tables[t].rules[r].name));
        tn_graph_free(&g);
    }
}

/* ---- partitions ---- */

static void build_layer(void) {
    begin(true);
    tn_val x = input(WIDTH, "x"), m = mul(norm(x, "n"), weight(1, WIDTH), "m");
    tn_val gate = matmul(m, 96, "gate"), up = matmul(m, 96, "up");
    tn_val a = mul(tn_g_unary(&g, TN_OP_SILU, gate, "silu"), up, "gated");
    fuse(add(matmul(a, WIDTH, "down"), x, "z"), "all");
}

static void test_none(void **state) {
    (void)state;
    build_layer();
    int32_t nodes = 0;
    tn_partition_free(&g_partition);
    fuse((tn_val){.node = g.output}, "none");
    for (int32_t i = 0; i < g.n; i++) nodes += !tn_is_leaf(&g.nodes[i]);
    assert_int_equal(g_partition.n, nodes);
    for (int32_t l = 0; l < nodes; l++) {
        const tn_launch *launch = &g_partition.launch[l];
        assert_int_equal(launch->n, 1);
        assert_int_equal(launch->kind, g.nodes[launch->nodes[0]].op);
        assert_null(launch->rules);
        if (l) assert_true(launch->nodes[0] > g_partition.launch[l - 1].nodes[0]);
    }
    end();
}

static void expect_illegal(const char *why) {
    tn_error err = {0};
    assert_int_equal(tn_partition_verify(&g_partition, &g, &err), TN_ERR_INTERNAL);
    if (!strstr(err.text, why)) fail_msg("'%s' was expected, not '%s'", why, err.text);
    end();
}

static void test_partition_verify(void **state) {
    (void)state;
    tn_error err;
    build_layer();
    assert_int_equal(tn_partition_verify(&g_partition, &g, &err), TN_OK);
    tn_launch *last = &g_partition.launch[g_partition.n - 1];
    last->n = 0;
    expect_illegal("is empty");
    build_layer();
    last = &g_partition.launch[g_partition.n - 1];
    assert_true(last->n > 1);
    last->nodes[0] = last->nodes[1];
    expect_illegal("out of order");
    build_layer();
    g_partition.owner[id_of("z")] = 0;
    expect_illegal("not its own");
    build_layer();
    tn_launch first = g_partition.launch[0]; /* the first and the last change places */
    int32_t n = g_partition.n - 1;
    g_partition.launch[0] = g_partition.launch[n];
    g_partition.launch[n] = first;
    for (int32_t i = 0; i < g.n; i++) {
        int32_t owner = g_partition.owner[i];
        g_partition.owner[i] = owner == 0 ? n : owner == n ? 0 : owner;
    }
    expect_illegal("runs before what it reads");
    build_layer();
    g_partition.launch[g_partition.n - 1].n--;
    expect_illegal("in no launch");
}

static void test_out_of_memory(void **state) {
    (void)state;
    for (tn_failing f = {0}; !f.done;) {
        tn_error err = {0};
        tn_partition p;
        build_layer();
        tn_failing_start(&f);
        tn_status status = tn_fuse(&p, &g, "all", (tn_kernel_query){find_kernel, NULL}, &err);
        assert_int_equal(status, tn_failing_stop(&f) ? TN_ERR_RESOURCES : TN_OK);
        if (status == TN_OK) tn_partition_free(&p);
        end();
        assert_true(f.n < 1000);
    }
}

/* ---- lowering ---- */

static void test_lower(void **state) {
    (void)state;
    tn_error err = {0};
    tn_graph low;
    begin(true);
    tn_val x = input(WIDTH, "x"), odd = input(40, "odd");
    tn_weight q8 = {.type = TN_TYPE_Q8_0, .n_out = 32, .n_in = WIDTH},
              part = {.type = TN_TYPE_Q8_0, .n_out = 32, .n_in = 32};
    tn_val a = tn_g_matmul(&g, x, tn_rig_weight(&g_weights, &g, &q8, TN_FILL_RANDOM, 100), "a");
    tn_val b = tn_g_matmul(&g, x, tn_rig_weight(&g_weights, &g, &q8, TN_FILL_RANDOM, 101), "b");
    tn_g_matmul(&g, x, weight(32, WIDTH), "f32");
    tn_g_matmul(&g, odd, weight(32, 40), "rows_of_40");
    tn_g_matmul(&g, tn_g_slice(x, 32, 32), tn_rig_weight(&g_weights, &g, &part, TN_FILL_RANDOM, 102), "slice");
    g.output = add(a, b, "z").node;
    assert_int_equal(tn_lower_quantize(&low, &g, UINT64_C(1) << TN_TYPE_Q8_0, &err), TN_OK);
    assert_int_equal(tn_graph_verify(&low, &err), TN_OK);
    int32_t quantized = 0;
    for (int32_t i = 0; i < low.n; i++) {
        const tn_node *n = &low.nodes[i];
        quantized += n->op == TN_OP_QUANTIZE;
        bool int8 = n->n_src && tn_shape_of(&low, n->src[0])->dtype == TN_Q8;
        bool wanted = !strcmp(n->name, "a") || !strcmp(n->name, "b") || !strcmp(n->name, "slice");
        if (n->op == TN_OP_MATMUL) assert_int_equal(int8, wanted);
    }
    assert_int_equal(quantized, 2); /* x for a and b, and its slice */
    assert_string_equal(low.nodes[low.output].name, "z");
    tn_graph_free(&low);
    assert_int_equal(tn_lower_quantize(&low, &g, 0, &err), TN_OK); /* f32 activations: as it was */
    assert_int_equal(low.n, g.n);
    tn_graph_free(&low);
    tn_graph_free(&g);
}

/* ---- models ---- */

/* A dense llama layer is five launches: {norm, q, k, v} {ropes, cache write, attention} {out, residual}
 * {norm, gate, up, act} {down, residual}; in a step of many tokens the cache write is one more, as are the norms where
 * every worker would have to do them. */
static void test_launches_of_a_layer(void **state) {
    (void)state;
    static const char *const models[] = {"llama-a.F32", "llama-q.Q4_K-pure"};
    static const char *const backends[] = {"null", "cpu"};
    for (size_t i = 0; i < COUNT(models) * COUNT(backends); i++) {
        char path[400];
        tn_error err = {0};
        tn_model *m;
        tn_session *s;
        tn_session_info all, none;
        tn_model_options options = {.backend = backends[i % 2], .threads = 1};
        snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, models[i / 2]);
        if (tn_model_open(&m, path, &options, &err) != TN_OK) fail_msg("%s", err.text);
        int32_t layers = m->hp.n_layer;
        assert_int_equal(tn_session_open(&s, m, &(tn_session_options){.n_ctx = 64}, &err), TN_OK);
        tn_session_get_info(s, &all);
        const tn_plan *decode = &s->plan[TN_PHASE_DECODE];
        for (int32_t k = 0; k < decode->partition.n_rules; k++) {
            const tn_rule_log *log = &decode->partition.log[k];
            if (!strcmp(log->name, "group")) assert_int_equal(log->fired, 2 * layers);
            if (!strcmp(log->name, "attend")) assert_int_equal(log->fired, layers);
            if (!strcmp(log->name, "matmul_add")) assert_int_equal(log->fired, 2 * layers);
            if (!strcmp(log->name, "norm_matmuls")) assert_int_equal(log->fired, 2 * layers + 1);
        }
        tn_session_close(&s);
        assert_int_equal(all.launches_decode,
                         5 * layers + 3); /* rope table, {norm, logits, argmax}, best; the embedding joins a norm */
        assert_int_equal(tn_session_open(&s, m, &(tn_session_options){.n_ctx = 64, .fuse = "none"}, &err), TN_OK);
        tn_session_get_info(s, &none);
        assert_int_equal(none.launches_decode, s->plan[TN_PHASE_DECODE].n_plain);
        assert_int_equal(none.launches_decode, (i / 2 ? 23 : 19) * layers + (i / 2 ? 8 : 7));
        tn_session_close(&s);
        tn_model_close(&m);
    }
}

static int free_weights(void **state) {
    (void)state;
    tn_rig_weights_free(&g_weights);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group),
        cmocka_unit_test(test_group_of_nine),
        cmocka_unit_test(test_group_is_convex),
        cmocka_unit_test(test_group_shared),
        cmocka_unit_test(test_matmul_add),
        cmocka_unit_test(test_matmul_add_of_two),
        cmocka_unit_test(test_matmul_add_used_outside),
        cmocka_unit_test(test_epilogue_is_convex),
        cmocka_unit_test(test_matmul_act),
        cmocka_unit_test(test_matmul_sum),
        cmocka_unit_test(test_matmul_of_sum),
        cmocka_unit_test(test_quantize_keeps_f32),
        cmocka_unit_test(test_norm),
        cmocka_unit_test(test_norm_without_weight),
        cmocka_unit_test(test_norm_add),
        cmocka_unit_test(test_attend),
        cmocka_unit_test(test_attend_wrong_operand),
        cmocka_unit_test(test_attend_prefill),
        cmocka_unit_test(test_attend_shared),
        cmocka_unit_test(test_norm_matmuls),
        cmocka_unit_test(test_kernel_refused),
        cmocka_unit_test(test_rule_lists),
        cmocka_unit_test(test_bad_rule_lists),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_partition_verify),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_lower),
        cmocka_unit_test(test_launches_of_a_layer),
    };
    return cmocka_run_group_tests(tests, NULL, free_weights);
}
