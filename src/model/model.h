/* Architectures: each reads its hyper-parameters, names its tensors and emits the plain graph, in one file that reads as the
 * paper. Nothing here knows of fusion, plans or devices. */
#ifndef TN_MODEL_H
#define TN_MODEL_H

#include "gguf/gguf.h"
#include "graph/graph.h"

/* Hyper-parameters, under the names of the GGUF specification. */
typedef struct tn_hparams {
    int32_t n_layer, n_embd, n_ff, n_vocab, n_ctx_train;
    int32_t n_head, n_kv, head_dim, v_dim;
    int32_t n_rot;
    float eps;
    tn_rope_params rope;
    float softcap;                         /* of the logits; 0: none */
    int32_t n_expert, n_used, n_ff_expert; /* mixture of experts; 0: dense */
    int32_t n_ff_shared;                   /* of the shared expert; 0: none */
    int32_t window, period;                /* sliding window; every period-th layer is of the other kind */
    int32_t head_dim_local, n_rot_local;   /* of layers with a window, where they differ */
    tn_rope_params rope_local;
    int32_t n_shared_kv;  /* layers at the end that read an earlier layer's cache */
    int32_t n_embd_layer; /* width of per-layer embeddings; 0: none */
    int32_t conv_kernel, delta_dim, delta_k_heads, delta_v_heads; /* gated delta net */
} tn_hparams;

typedef struct tn_arch tn_arch;

/* The tensors that a model's graphs use, in the order in which they first use them. */
typedef struct tn_weight_table {
    tn_arena arena;
    const tn_weight **p;
    int32_t n, cap;
} tn_weight_table;
void tn_weight_table_free(tn_weight_table *t);

/* A graph under construction. The first error is kept and building goes on with harmless values; see tn_model_build. */
typedef struct tn_build {
    tn_graph *g;
    const tn_gguf *file;
    const tn_hparams *hp;
    tn_weight_table *weights;
    tn_val tokens; /* input: ids */
    tn_status status;
    tn_error *err;
} tn_build;

struct tn_arch {
    const char *name; /* general.architecture */
    tn_status (*read)(tn_hparams *hp, const tn_gguf *g, tn_error *err);
    tn_val (*build)(tn_build *b); /* returns the logits */
};

/* NULL when tenon does not know the architecture. */
const tn_arch *tn_arch_find(tn_str name);
/* The known names, comma-separated, for messages. */
const char *tn_arch_names(void);

/* How a step looks for which a graph is built. */
typedef struct tn_phase_shape {
    int32_t max_tokens, max_outputs;
    bool one_token;   /* each sequence has exactly one token */
    bool all_outputs; /* logits of every token */
} tn_phase_shape;

/* Emits the plain graph; weights not met before are added to the table. *g is freed on failure. */
tn_status tn_model_build(tn_graph *g, const tn_arch *arch, const tn_hparams *hp, const tn_gguf *file,
                         tn_weight_table *weights, const tn_phase_shape *shape, tn_error *err);

/* ---- for architecture files ---- */

/* Keys "ARCH.suffix". A key of another type (integers may have any width, floats either), or with a value beyond reason, is
 * an error that names it. A required one must be there and positive. */
tn_status tn_hp_u32(const tn_gguf *g, const char *arch, const char *suffix, int32_t *out, tn_error *err);
/* Optional ones leave *out as it is where they are absent. Numbers from 0 on; floats from `least` on. */
tn_status tn_hp_u32_opt(const tn_gguf *g, const char *arch, const char *suffix, int32_t *out, tn_error *err);
tn_status tn_hp_f32_opt(const tn_gguf *g, const char *arch, const char *suffix, float least, float *out,
                        tn_error *err);
/* An optional one that may be one number or truth for all layers or an array with one for each. */
tn_status tn_hp_layer(const tn_gguf *g, const char *arch, const char *suffix, int32_t layer, int32_t *out,
                      tn_error *err);
/* expert_count, expert_used_count, expert_feed_forward_length. */
tn_status tn_hp_experts(tn_hparams *hp, const tn_gguf *g, const char *arch, tn_error *err);
/* Whether a * b, a number of elements called `what`, is one that a model may have. */
tn_status tn_hp_check_product(int64_t a, int64_t b, const char *what, tn_error *err);
/* Whether this many heads can share kv heads and make up a row. */
tn_status tn_hp_check_sharing(int32_t n_head, int32_t n_kv, int32_t head_dim, tn_error *err);
/* Whether heads of these sizes can be run. */
tn_status tn_hp_check_heads(int32_t head_dim, int32_t v_dim, int32_t n_rot, tn_error *err);
/* What an architecture allows: numbers of heads and widths that differ from layer to layer (tn_hp_layer has them), experts. */
enum { TN_HP_BY_LAYER = 1, TN_HP_EXPERTS = 2 };
/* What every decoder has: layers, widths, heads, vocabulary, context, eps, rope with its scaling (linear, yarn). A file
 * that asks for what the architecture does not allow is refused. n_ff may be 0: of layers that are all experts. */
tn_status tn_hp_common(tn_hparams *hp, const tn_gguf *g, const char *arch, unsigned allowed, tn_error *err);

/* The matrix [n_out, n_in] or vector [n] of this name (printf format with one layer number); an absent one, or one of
 * another shape, is an error that names it. */
tn_val tn_matrix(tn_build *b, int32_t n_out, int32_t n_in, const char *format, int32_t layer);
tn_val tn_vector(tn_build *b, int32_t n, const char *format, int32_t layer);
/* An f32 matrix that is not multiplied by: the taps of a convolution. */
tn_val tn_taps(tn_build *b, int32_t n_out, int32_t n_in, const char *format, int32_t layer);
/* The matrices of experts: [n_expert, n_out, n_in]. */
tn_val tn_experts(tn_build *b, int32_t n_expert, int32_t n_out, int32_t n_in, const char *format, int32_t layer);
/* Rows of a tensor in which several matrices were packed: `n` times `block` rows of every `pitch`, from row `first` of each;
 * `what` tells them apart. With experts, n is their number and pitch the rows of one. */
typedef struct tn_part {
    int32_t first, block, pitch, n, experts;
} tn_part;
tn_val tn_matrix_part(tn_build *b, tn_part part, int32_t n_in, const char *format, int32_t layer, const char *what);
/* The same of a vector's elements. */
tn_val tn_vector_part(tn_build *b, tn_part part, const char *format, int32_t layer, const char *what);
/* scale * x w^T + bias, scale and bias where the file has them: the tensors PREFIX.weight, .scale (one number), .bias. */
tn_val tn_linear(tn_build *b, tn_val x, int32_t n_out, const char *prefix, int32_t layer, const char *name);
/* scale * (x w^T + bias): the order that feed-forward blocks have. */
tn_val tn_linear_ffn(tn_build *b, tn_val x, int32_t n_out, const char *prefix, int32_t layer, const char *name);
/* y times PREFIX.scale, a factor for a whole matrix, where the file has one. */
tn_val tn_apply_scale(tn_build *b, tn_val y, const char *prefix, int32_t layer, const char *name);
/* The cos and sin of this step's positions, with the file's rope_freqs.weight where it has one and `factors` is set. */
tn_val tn_rope_angles(tn_build *b, int32_t n_rot, tn_rope_params rope, bool factors, const char *name);
/* A vector that is multiplied by: a matrix of one row. */
tn_val tn_row_matrix(tn_build *b, int32_t n, const char *format, int32_t layer);
/* "name.part" (or "l3.name" where part is NULL and in a layer), kept as long as the graph. */
const char *tn_name(tn_build *b, const char *name, const char *part);
bool tn_has_tensor(const tn_build *b, const char *format, int32_t layer);

#endif
