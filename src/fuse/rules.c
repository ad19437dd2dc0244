/* The rules of fusion: four short tables, run in this order, each to a fixpoint; the first match wins.
 *
 * A rule reads top to bottom like the code it replaces: slot <- op (sources).
 *   - the same slot twice is the same value; a slot that no line defines is an input;
 *   - the value of a slot may be used only inside the match, unless it is in .out or of the last line;
 *   - the order of operands of commutative ops does not matter;
 *   - OPT: the line may be absent; its slot is then its first source. MANY: all readers of the first source, 1 to 8;
 *   - a kind of fused launch (MATMULS, NORM, ...) stands for any of its values; its sources are what it reads.
 * What is emitted is a launch that holds the matched nodes: the pattern is the specification of the fused kernel. */
#include "fuse/rule.h"

#define IS(k)      (UINT64_C(1) << TN_OP_##k)
#define KIND(k)    (UINT64_C(1) << TN_KIND_##k)
#define ANY_MATMUL (IS(MATMUL) | KIND(MATMULS))
#define ACTIVATION (IS(SILU) | IS(GELU) | IS(GELU_QUICK) | IS(SIGMOID) | IS(SOFTPLUS))
#define ANY_NORM   (IS(RMS_NORM) | KIND(NORM))
#define COUNT(a)   (int32_t)(sizeof(a) / sizeof *(a))

/* A cache may be written and read in one launch only where nobody else in the step reads what is written. */
static const char *one_token(const tn_graph *g, const tn_match *m) {
    (void)m;
    return g->one_token ? NULL : "more than one token a sequence: a token reads what others write";
}

/* matmuls that read one activation become one launch with several outputs; each keeps its own block type */
static const tn_rule group[] = {
    {"group", "y_i = x w_i^T for all i", {{'Y', IS(MATMUL), "X", TN_MANY}}, TN_KIND_MATMULS},
};

/* what happens to an output before it is stored is appended to the launch that makes it */
static const tn_rule epilogue[] = {
    {"matmul_add", "z = x w^T + b (bias, residual)", {{'Y', ANY_MATMUL, ""}, {'Z', IS(ADD), "YB"}}, TN_KIND_MATMULS},
    {"matmul_act",
     "z = act(x w^T), z = y * b, z = c * y, z = softcap(y)",
     {{'Y', ANY_MATMUL, ""}, {'Z', ACTIVATION | IS(MUL) | IS(SCALE) | IS(SOFTCAP), "YB"}},
     TN_KIND_MATMULS},
    {"matmul_quantize",
     "z = int8(y)",
     {{'Y', KIND(MATMULS) | IS(MATMUL), ""}, {'Z', IS(QUANTIZE), "Y"}},
     TN_KIND_MATMULS,
     .out = "Y"},
    {"attention_quantize",
     "z = int8(attention)",
     {{'Y', IS(ATTENTION), ""}, {'Z', IS(QUANTIZE), "Y"}},
     TN_KIND_ATTENTION_OUT,
     .out = "Y"},
};

/* a norm with what surrounds it; the f32 row and the int8 one are both stored only if both are read */
static const tn_rule norm[] = {
    {"norm_add",
     "h = r + b; m = norm(h) * w; q = int8(m)",
     {{'H', IS(ADD), "RB"}, {'N', IS(RMS_NORM), "H"}, {'M', IS(MUL), "NW", TN_OPT}, {'Q', IS(QUANTIZE), "M", TN_OPT}},
     TN_KIND_NORM,
     .out = "HM"},
    {"norm",
     "m = norm(h) * w; q = int8(m)",
     {{'N', IS(RMS_NORM), "H"}, {'M', IS(MUL), "NW", TN_OPT}, {'Q', IS(QUANTIZE), "M", TN_OPT}},
     TN_KIND_NORM,
     .out = "M"},
};

/* a norm with the matmuls that read it; heads with their rotation, the cache write and the attention */
static const tn_rule join[] = {
    {"attend",
     "o = attention(rope(norm(q)), cache with rope(norm(k)) and v)",
     {{'P', ANY_NORM, "Q", TN_OPT},
      {'R', IS(ROPE), "PT"},
      {'L', ANY_NORM, "K", TN_OPT},
      {'S', IS(ROPE), "LT"},
      {'C', IS(KV_WRITE), "DSV"},
      {'Y', IS(ATTENTION) | KIND(ATTENTION_OUT), "RC"}},
     TN_KIND_ATTEND,
     .out = "C",
     .legal = one_token},
    {"rope_kv",
     "cache with rope(norm(k)) and v",
     {{'L', ANY_NORM, "K", TN_OPT}, {'S', IS(ROPE), "LT"}, {'C', IS(KV_WRITE), "DSV"}},
     TN_KIND_ROPED},
    {"norm_rope", "rope(norm(q))", {{'P', ANY_NORM, "Q"}, {'R', IS(ROPE), "PT"}}, TN_KIND_ROPED},
    {"norm_matmuls",
     "y_i = norm(h) w_i^T ...",
     {{'M', KIND(NORM), ""}, {'Y', ANY_MATMUL, "M"}},
     TN_KIND_NORM_MATMULS,
     .out = "M",
     .needs = "norm"},
};

const tn_rule_table tn_rule_tables[] = {
    {"group", group, COUNT(group)},
    {"epilogue", epilogue, COUNT(epilogue)},
    {"norm", norm, COUNT(norm)},
    {"join", join, COUNT(join)},
};
const int32_t tn_n_rule_tables = COUNT(tn_rule_tables);
