/* The rules of fusion: four short tables, run in this order, each to a fixpoint; the first match wins.
 *
 * A rule reads top to bottom like the code it replaces: slot <- op (sources).
 *   - the same slot twice is the same value; a slot that no line defines is an input;
 *   - the value of a slot may be used only inside the match, unless it is in .out or of the last line;
 *   - the order of operands of commutative ops does not matter;
 *   - a slot that no line reads stands beside the others: any reader of its first source, its value used outside;
 *   - OPT: the line may be absent; its slot is then its first source. MANY: all readers of the first source, 1 to 8;
 *   - a kind of fused launch (MATMULS, ROW, ...) stands for any of its values; its sources are what it reads.
 * What is emitted is a launch that holds the matched nodes: the pattern is the specification of the fused kernel. */
#include "fuse/rule.h"

#define IS(k)      (UINT64_C(1) << TN_OP_##k)
#define KIND(k)    (UINT64_C(1) << TN_KIND_##k)
#define ANY_MATMUL (IS(MATMUL) | IS(MATMUL_ID) | KIND(MATMULS))
#define ANY_NORM   (IS(RMS_NORM) | IS(L2_NORM) | KIND(ROW))
#define ANY_ROW    (IS(RMS_NORM) | IS(EMBED) | IS(EXPERT_SUM) | KIND(ROW))
#define ACTIVATION (IS(SILU) | IS(GELU) | IS(GELU_QUICK) | IS(SIGMOID) | IS(SOFTPLUS))
#define ELEMENT    (IS(ADD) | IS(MUL) | IS(SCALE) | IS(SOFTCAP) | ACTIVATION)
#define COUNT(a)   (int32_t)(sizeof(a) / sizeof *(a))

/* A cache may be written and read in one launch only where nobody else in the step reads what is written. */
static const char *one_token(const tn_graph *g, const tn_match *m) {
    (void)m;
    return g->one_token ? NULL : "more than one token a sequence: a token reads what others write";
}

/* A sum that the products themselves read is no op on their results. */
static const char *is_added(const tn_graph *g, const tn_match *m) {
    int32_t sum = m->slot['S' - 'A'].node;
    for (int32_t i = sum + 1; i < g->n; i++)
        for (int k = 0; k < g->nodes[i].n_src; k++)
            if (g->nodes[i].src[k].node == sum && g->nodes[i].op != TN_OP_ADD)
                return "the sum is not added to a result";
    return NULL;
}

/* clang-format off */

/* matmuls that read one activation become one launch with several outputs; each keeps its own block type */
static const tn_rule group[] = {
    {"group", "y_i = x w_i^T for all i",
     {{'Y', IS(MATMUL), "X", TN_MANY}}, TN_KIND_MATMULS},
    {"group_shared", "y_i = x w_i^T, z = x w_e^T, e being the chosen experts (beside the one that all tokens share)",
     {{'Y', IS(MATMUL) | KIND(MATMULS), "X"}, {'Z', IS(MATMUL_ID), "X"}}, TN_KIND_MATMULS},
    {"group_experts", "y_i = x w_ie^T for all i, e being the chosen experts",
     {{'Y', IS(MATMUL_ID), "XWE", TN_MANY}}, TN_KIND_MATMULS},
};

/* what happens to an output before it is stored is appended to the launch that makes it */
static const tn_rule epilogue[] = {
    {"matmul_add", "z = x w^T + b (bias, residual)",
     {{'Y', ANY_MATMUL, ""}, {'Z', IS(ADD), "YB"}}, TN_KIND_MATMULS},
    {"matmul_act", "z = act(x w^T), y * b, factor * y, softcap(y)",
     {{'Y', ANY_MATMUL, ""}, {'Z', ACTIVATION | IS(MUL) | IS(SCALE) | IS(SOFTCAP), "YB"}}, TN_KIND_MATMULS},
    {"matmul_quantize", "z = int8(y)",
     {{'Y', ANY_MATMUL, ""}, {'Z', IS(QUANTIZE), "Y"}}, TN_KIND_MATMULS, .out = "Y"},
    {"matmul_sum", "z = x w^T + sum of w_e y_e over the chosen experts e",
     {{'S', IS(EXPERT_SUM), "EW"}, {'Z', KIND(MATMULS), "S"}}, TN_KIND_MATMULS, .legal = is_added, .needs = "matmul_add"},
    {"matmul_argmax", "i = argmax(x w^T)",
     {{'Y', IS(MATMUL) | KIND(MATMULS), ""}, {'Z', IS(ARGMAX), "Y"}}, TN_KIND_CHOICE, .out = "Y"},
    {"attention_gate", "z = attention * b",
     {{'Y', IS(ATTENTION), ""}, {'Z', IS(MUL), "YB"}}, TN_KIND_ATTENTION_OUT},
    {"attention_quantize", "z = int8(attention)",
     {{'Y', IS(ATTENTION) | KIND(ATTENTION_OUT), ""}, {'Z', IS(QUANTIZE), "Y"}}, TN_KIND_ATTENTION_OUT, .out = "Y"},
    {"conv_act", "z = silu(conv1d(x))",
     {{'Y', IS(CONV1D), ""}, {'Z', IS(SILU), "Y"}}, TN_KIND_SCAN},
};

/* a norm with what surrounds it; the f32 row and the int8 one are both stored only if both are read */
static const tn_rule norm[] = {
    {"norm_add", "h = r + b; m = norm(h) * w; q = int8(m)",
     {{'H', IS(ADD), "RB"}, {'N', IS(RMS_NORM), "H"}, {'M', IS(MUL), "NW", TN_OPT}, {'Q', IS(QUANTIZE), "M", TN_OPT}},
     TN_KIND_ROW, .out = "HM"},
    {"norm", "m = norm(h) * w; q = int8(m)",
     {{'N', IS(RMS_NORM), "H"}, {'M', IS(MUL), "NW", TN_OPT}, {'Q', IS(QUANTIZE), "M", TN_OPT}},
     TN_KIND_ROW, .out = "M"},
    {"row_append", "z = m + b, m * b, factor * m, int8(m) (post-norms, gated norms, sums of experts)",
     {{'M', ANY_ROW, ""}, {'Z', ELEMENT | IS(QUANTIZE), "MB"}}, TN_KIND_ROW, .out = "M"},
    {"row_chain", "a row's norm after a row's norm",
     {{'M', ANY_ROW, ""}, {'Z', KIND(ROW), "M"}}, TN_KIND_ROW, .out = "M", .needs = "norm"},
    {"route", "weights, ids = top_k(softmax(x))",
     {{'P', IS(SOFTMAX), "X"}, {'K', IS(TOP_K), "P"}}, TN_KIND_ROUTE},
};

/* heads with their rotation, the cache write and the attention; a recurrence with its norms; a norm with the matmuls that
 * read it */
static const tn_rule join[] = {
    {"attend", "o = attention(rope(norm(q)), cache with rope(norm(k)), norm(v))",
     {{'P', ANY_NORM, "Q", TN_OPT}, {'R', IS(ROPE), "PT"},
      {'L', ANY_NORM, "K", TN_OPT}, {'S', IS(ROPE), "LT"}, {'U', ANY_NORM, "V", TN_OPT}, {'C', IS(KV_WRITE), "DSU"},
      {'Y', IS(ATTENTION) | KIND(ATTENTION_OUT), "RC"}},
     TN_KIND_ATTEND, .out = "C", .legal = one_token},
    {"attend_query", "o = attention(rope(norm(q)), cache)",
     {{'P', ANY_NORM, "Q", TN_OPT}, {'R', IS(ROPE), "PT"}, {'Y', IS(ATTENTION) | KIND(ATTENTION_OUT), "RC"}},
     TN_KIND_ATTEND},
    {"rope_kv", "cache with rope(norm(k)), norm(v)",
     {{'L', ANY_NORM, "K", TN_OPT}, {'S', IS(ROPE), "LT"}, {'U', ANY_NORM, "V", TN_OPT}, {'C', IS(KV_WRITE), "DSU"}},
     TN_KIND_ROPED},
    {"delta_net", "o = gated_delta_net(norm(q), norm(k), v, g, beta)",
     {{'A', IS(L2_NORM), "Q", TN_OPT}, {'B', IS(L2_NORM), "K", TN_OPT}, {'Y', IS(GATED_DELTA_NET), "SABVGE"}},
     TN_KIND_SCAN},
    {"scan_norm", "z = norm(gated_delta_net(...)) * gate",
     {{'Y', IS(GATED_DELTA_NET) | KIND(SCAN), ""}, {'Z', KIND(ROW), "Y"}}, TN_KIND_SCAN, .needs = "norm"},
    {"norm_matmuls", "y_i = norm(h) w_i^T ...",
     {{'M', KIND(ROW), ""}, {'Y', ANY_MATMUL | KIND(CHOICE), "M"}}, TN_KIND_NORM_MATMULS, .out = "M", .needs = "norm"},
};

/* clang-format on */

const tn_rule_table tn_rule_tables[] = {
    {"group", group, COUNT(group)},
    {"epilogue", epilogue, COUNT(epilogue)},
    {"norm", norm, COUNT(norm)},
    {"join", join, COUNT(join)},
};
const int32_t tn_n_rule_tables = COUNT(tn_rule_tables);
