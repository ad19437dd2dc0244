/* Forms of launches of matmuls: which nodes stand together, as a backend's limits have it, and why others do not. */
#include "plan/form.h"
#include "verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 64, N_USED = 2 };

static tn_graph g;
static tn_rig_weights g_weights;
static int g_serial;

static tn_val weight(int32_t n_out, int32_t n_in, int32_t n_expert) {
    tn_weight like = {.type = TN_TYPE_F32, .n_out = n_out * n_expert, .n_in = n_in, .n_expert = n_expert};
    return tn_rig_weight(&g_weights, &g, &like, TN_FILL_RANDOM, g_serial++);
}

static tn_val matmul(tn_val x, int32_t n_out, const char *name) {
    return tn_g_matmul(&g, x, weight(n_out, x.cols, 1), name);
}

static tn_val experts(tn_val x, tn_val ids, const char *name) {
    return tn_g_matmul_id(&g, x, weight(WIDTH, x.cols, 4), ids, name);
}

/* One graph has all that the cases are of. */
static void build(int32_t rows) {
    g = (tn_graph){.layer = -1, .max_tokens = rows, .max_outputs = rows};
    tn_val x = tn_g_embed(&g, tn_g_tokens(&g), weight(10, WIDTH, 1), "x"),
           n = tn_g_norm(&g, TN_OP_RMS_NORM, x, 0, 1e-5f, "norm");
    tn_val scores = tn_g_unary(&g, TN_OP_SOFTMAX, matmul(x, 4, "scores"), "probs");
    tn_val k = tn_g_top_k(&g, scores, NULL, N_USED, true, "chosen"), chosen = tn_g_out(k, 1, N_USED);
    tn_val e = experts(x, chosen, "e");
    tn_val sum = tn_g_expert_sum(&g, e, k, "sum"), y = matmul(x, WIDTH, "y");
    tn_g_binary(&g, TN_OP_ADD, y, sum, "y_sum");
    tn_val wide = matmul(x, N_USED * WIDTH, "wide");
    tn_val own = tn_g_expert_sum(&g, wide, k, "own");
    tn_g_binary(&g, TN_OP_ADD, matmul(x, WIDTH, "z"), own, "z_own");
    tn_g_binary(&g, TN_OP_ADD, e, wide, "e_wide");
    matmul(n, WIDTH, "of_norm");
    matmul(y, WIDTH, "of_y");
    matmul(sum, WIDTH, "of_sum");
    tn_g_unary(&g, TN_OP_SOFTMAX, y, "soft");
}

static bool any_row_op(tn_op op) {
    (void)op;
    return true;
}

/* The launch of these nodes; NULL: it has the form of matmuls. */
static const char *form_of(tn_form *f, const char *names, const tn_form_limits *limits) {
    char copy[100], *save = NULL;
    int32_t nodes[8], n = 0;
    snprintf(copy, sizeof copy, "%s", names);
    for (char *name = strtok_r(copy, " ", &save); name; name = strtok_r(NULL, " ", &save)) {
        int32_t i = 0;
        while (i < g.n && strcmp(g.nodes[i].name, name) != 0) i++;
        assert_true(i < g.n && (n == 0 || nodes[n - 1] < i));
        nodes[n++] = i;
    }
    return tn_form_of(f, &g, nodes, n, limits);
}

typedef struct form_case {
    int32_t rows;
    const char *nodes, *why;     /* in graph order; why not, NULL: they are a launch */
    int32_t before, sum, beside; /* rows up to which the backend can */
    const char *roles;           /* of the nodes: before, core, after */
    const char *parts;           /* that they are of; '-': of none */
} form_case;

static void test_matmuls(void **state) {
    (void)state;
    static const form_case cases[] = {
        {4, "norm of_norm", NULL, 4, 0, 0, "bc", "-0"},
        {5, "norm of_norm", "too many rows for every worker to do the norm", 4, 0, 0, NULL, NULL},
        {4, "sum y y_sum", NULL, 0, 4, 0, "aca", "000"},
        {5, "sum y y_sum", "sums of experts for many rows", 0, 4, 0, NULL, NULL},
        {1, "sum y y_sum", "a sum of experts is a launch of its own here", 8, 0, 0, NULL, NULL},
        {1, "e sum y y_sum", "a sum of experts in a launch of experts", 0, 8, 8, NULL, NULL},
        {1, "wide own z z_own", "a sum of experts reads what the same launch makes", 0, 8, 0, NULL, NULL},
        {1, "sum of_sum", NULL, 8, 0, 0, "bc", "-0"},
        {4, "e y", NULL, 0, 0, 4, "cc", "01"},
        {5, "e y", "too many rows for plain matmuls beside those of experts", 0, 0, 4, NULL, NULL},
        {1, "e y", "experts and plain matmuls do not share a launch", 0, 0, 0, NULL, NULL},
        {1, "e wide e_wide", "results of experts and of plain matmuls meet", 0, 0, 8, NULL, NULL},
        {1, "y of_y", "a matmul reads another one's result", 8, 8, 8, NULL, NULL},
        {1, "y soft", "an op on the result needs whole rows", 8, 8, 8, NULL, NULL},
        {1, "chosen e", "an op of several results before the matmul", 8, 8, 8, NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const form_case *c = &cases[i];
        tn_form_limits limits = {.has_row_op = any_row_op,
                                 .max_rows_before = c->before,
                                 .max_rows_sum = c->sum,
                                 .max_rows_beside = c->beside};
        tn_form f;
        build(c->rows);
        const char *why = form_of(&f, c->nodes, &limits);
        if (!c->why != !why || (why && !strstr(why, c->why)))
            fail_msg("%s, %d rows: %s", c->nodes, c->rows, why ? why : "it is a launch");
        for (size_t k = 0; !why && c->roles[k]; k++) {
            assert_int_equal(f.role[k], c->roles[k] == 'b' ? TN_BEFORE : c->roles[k] == 'c' ? TN_CORE : TN_AFTER);
            if (c->parts[k] != '-') assert_int_equal(f.part[k], c->parts[k] - '0');
        }
        tn_graph_free(&g);
        tn_rig_weights_free(&g_weights);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmuls),
    };
    return cmocka_run_group_tests_name("form", tests, NULL, NULL);
}
