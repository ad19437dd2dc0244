/* The graph: what a model computes in one step, as plain nodes that read like the paper.
 *
 * A node has sources and outputs; a value is (node, output). Node order is a topological order. Reshapes are attributes
 * (head_dim), slices are columns of a source: neither is a node, so neither can break a pattern. State is a value: what
 * reads a cache after a write takes the value the write returned, so that order is data flow and nothing else. */
#ifndef TN_GRAPH_H
#define TN_GRAPH_H

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"
#include "quant/quant.h"

typedef enum tn_op {
#define OP(NAME, ...) TN_OP_##NAME,
#include "graph/ops.def"
#undef OP
    TN_OP_COUNT
} tn_op;

typedef enum tn_class { TN_LEAF, TN_ELEMENT, TN_BLOCK, TN_ROW, TN_MATMUL, TN_STATE } tn_class;

typedef struct tn_op_info {
    const char *name, *formula;
    int min_src, max_src;
    tn_class class;
    bool commutes;
    int32_t grain; /* of the bound */
    double bound;
} tn_op_info;
extern const tn_op_info tn_ops[TN_OP_COUNT];

/* How many rows a value has: a number, or a symbol whose value a step brings. */
typedef enum tn_rows { TN_ROWS_FIXED, TN_ROWS_TOKENS, TN_ROWS_OUTPUTS } tn_rows;

typedef enum tn_dtype { TN_F32, TN_Q8, TN_I32, TN_DTYPE_WEIGHT, TN_DTYPE_STATE } tn_dtype;

typedef struct tn_shape {
    tn_dtype dtype;
    tn_rows rows;
    int32_t n_rows; /* where rows is TN_ROWS_FIXED */
    int32_t cols;
} tn_shape;

/* Columns [first, first + cols) of a node's output. */
typedef struct tn_src {
    int32_t node;
    int32_t out;
    int32_t first, cols;
} tn_src;

/* Rotary embedding (Su et al. 2021), with the frequency changes of Llama 3 (factors, a source) and YaRN (Peng et al.). */
typedef struct tn_rope_params {
    float base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow;
    int32_t n_ctx_orig;
} tn_rope_params;

/* Attributes; zero is "not given". attrs.def says which op reads which. */
typedef struct tn_attr {
    int32_t head_dim; /* rms_norm, l2_norm, rope, quantize: elements treated together; attention, kv_write: of q, k */
    int32_t v_dim;    /* attention, kv_write: head size of v */
    int32_t n_head, n_kv; /* gated_delta_net: v heads, k heads; v head h goes with k head h % n_kv */
    int32_t n_rot, neox;  /* rope: rotated elements of a head; pairs (i, i + n_rot/2) instead of (2i, 2i + 1) */
    int32_t window;       /* attention: positions seen, itself included; 0: all */
    int32_t index;        /* weight, state: which */
    int32_t n_used;       /* top_k, matmul_id, expert_sum: experts of a token */
    int32_t norm;         /* top_k: weights sum to one */
    int32_t kernel;       /* conv1d: taps */
    int32_t state_size;   /* state: floats a sequence, where it is not a cache of k and v */
    float eps, factor, softcap;
    tn_rope_params rope;
} tn_attr;

enum { TN_MAX_SRC = 6, TN_MAX_OUT = 2 };

typedef struct tn_node {
    tn_op op;
    int32_t n_src, n_out;
    tn_src src[TN_MAX_SRC];
    tn_shape out[TN_MAX_OUT];
    tn_attr attr;
    const char *name; /* unique, e.g. "l0.attn_norm" */
    int32_t layer;    /* -1: outside the layers */
} tn_node;

/* What a matrix is to the graph; the bytes are the model's and the device's affair. */
typedef struct tn_weight {
    const char *name; /* in the file */
    tn_type type;
    int32_t n_out, n_in;  /* rows, columns; a vector is one row */
    int32_t n_expert;     /* the rows are those of this many experts, one after the other; 1: no experts */
    const void *data;     /* as in the file */
    size_t bytes;         /* of these rows */
    bool elements;        /* read as f32 by element kernels, not multiplied by: stays as in the file */
    int32_t block, pitch; /* a view of part of a tensor: `block` rows of every `pitch`; 0: all rows */
} tn_weight;

/* Row r of a weight in the file. */
const void *tn_weight_row(const tn_weight *w, int32_t r);

typedef struct tn_graph {
    tn_arena arena;
    tn_node *nodes;
    int32_t n, cap;
    const tn_weight *const *weights; /* by attr.index, shared with the model */
    int32_t n_weights;
    int32_t n_states;
    int32_t output;     /* the node that is the result: logits */
    int32_t choice;     /* their argmax, a result too; 0: there is none */
    int32_t best;       /* the best of them, a result too; 0: there is none */
    int32_t max_tokens; /* the symbols' maxima in a step of this phase */
    int32_t max_outputs;
    bool one_token;   /* every sequence has exactly one token in a step (decode) */
    bool all_outputs; /* every token's logits are asked for: outputs = tokens */
    int32_t layer;    /* given to nodes as they are added */
    bool failed;      /* an allocation failed: checked once, at the end */
} tn_graph;

void tn_graph_free(tn_graph *g);

/* ---- building: each returns the new value; shapes are worked out from the sources ---- */
typedef tn_src tn_val;

tn_val tn_g_weight(tn_graph *g, int32_t index, const tn_weight *w);
tn_val tn_g_state(tn_graph *g, int32_t index, const char *name, const tn_attr *attr);
tn_val tn_g_tokens(tn_graph *g);
tn_val tn_g_embed(tn_graph *g, tn_val ids, tn_val w, const char *name);
tn_val tn_g_rope_table(tn_graph *g, const tn_val *factors, int32_t n_rot, tn_rope_params rope, const char *name);
tn_val tn_g_select_rows(tn_graph *g, tn_val x, const char *name);
tn_val tn_g_norm(tn_graph *g, tn_op op, tn_val x, int32_t head_dim, float eps, const char *name);
tn_val tn_g_unary(tn_graph *g, tn_op op, tn_val x, const char *name);
tn_val tn_g_scale(tn_graph *g, tn_val x, float factor, const char *name);
tn_val tn_g_softcap(tn_graph *g, tn_val x, float cap, const char *name);
tn_val tn_g_binary(tn_graph *g, tn_op op, tn_val x, tn_val y, const char *name);
tn_val tn_g_matmul(tn_graph *g, tn_val x, tn_val w, const char *name);
/* x: a row for all experts, or one for each chosen expert; ids: output 1 of top_k. */
tn_val tn_g_matmul_id(tn_graph *g, tn_val x, tn_val w, tn_val ids, const char *name);
/* scale (may be NULL): a factor for each expert. The result is the weights; tn_g_out(result, 1, n_used) the indices. */
tn_val tn_g_top_k(tn_graph *g, tn_val probs, const tn_val *scale, int32_t n_used, bool norm, const char *name);
tn_val tn_g_argmax(tn_graph *g, tn_val x, const char *name);
/* The result is the indices of the k best; tn_g_out(result, 1, k) what stands there. */
tn_val tn_g_best(tn_graph *g, tn_val x, int32_t k, const char *name);
tn_val tn_g_expert_sum(tn_graph *g, tn_val y, tn_val weights, const char *name);
/* A state of `size` floats a sequence. */
tn_val tn_g_recurrent_state(tn_graph *g, int32_t index, const char *name, int32_t size);
tn_val tn_g_conv1d(tn_graph *g, tn_val state, tn_val x, tn_val w, const char *name);
/* src: state, q, k, v, g, beta. attr: n_head, n_kv, head_dim (of q, k), v_dim. */
tn_val tn_g_gated_delta_net(tn_graph *g, const tn_val src[6], const tn_attr *attr, const char *name);
/* Another output of a value's node. */
tn_val tn_g_out(tn_val x, int32_t out, int32_t cols);
tn_val tn_g_quantize(tn_graph *g, tn_val x, const char *name);
tn_val tn_g_rope(tn_graph *g, tn_val x, tn_val table, int32_t head_dim, int32_t n_rot, bool neox, const char *name);
tn_val tn_g_kv_write(tn_graph *g, tn_val cache, tn_val k, tn_val v, const char *name);
tn_val tn_g_attention(tn_graph *g, tn_val q, tn_val cache, const tn_attr *attr, const char *name);
/* Columns [first, first + cols) of a value. */
tn_val tn_g_slice(tn_val x, int32_t first, int32_t cols);

/* Appends a node as it is (its sources must stand before it); returns its index, -1 when out of memory. */
int32_t tn_graph_add(tn_graph *g, const tn_node *node);

/* ---- reading ---- */
static inline const tn_shape *tn_shape_of(const tn_graph *g, tn_src v) {
    return &g->nodes[v.node].out[v.out];
}
static inline bool tn_src_same(tn_src a, tn_src b) {
    return a.node == b.node && a.out == b.out && a.first == b.first && a.cols == b.cols;
}
/* Whether a node is read after the step. */
static inline bool tn_is_result(const tn_graph *g, int32_t node) {
    return node == g->output || (node > 0 && (node == g->choice || node == g->best));
}
static inline bool tn_is_leaf(const tn_node *n) {
    return tn_ops[n->op].class == TN_LEAF;
}
/* The weight that source s of a node is; NULL when it is none. */
const tn_weight *tn_src_weight(const tn_graph *g, tn_src s);
/* Bytes of one row of a value in memory (f32 or int8 blocks). */
size_t tn_shape_row_bytes(const tn_shape *s);
/* Rows of a value at the phase's maximum. */
int32_t tn_shape_max_rows(const tn_graph *g, const tn_shape *s);

/* Checks that the graph is legal: the list of checks is in verify.c. TN_ERR_INTERNAL names the first one broken. */
tn_status tn_graph_verify(const tn_graph *g, tn_error *err);

/* One line: `l0.attn_norm = rms_norm(l0.x) eps=1e-05 : f32[tokens, 576]`. */
void tn_print_node(tn_buf *b, const tn_graph *g, const tn_node *node);
/* Only the right-hand side's attributes and shape. */
void tn_print_shape(tn_buf *b, const tn_shape *s);
void tn_print_attrs(tn_buf *b, const tn_node *node);
void tn_print_graph(tn_buf *b, const tn_graph *g);

#endif
