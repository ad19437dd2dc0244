/* Blocks that several architectures share. */
#ifndef TN_MODEL_BLOCKS_H
#define TN_MODEL_BLOCKS_H

#include "model/model.h"

/* rms_norm(x) * w, w being the tensor of this name with n elements: over the whole row, or head by head when n divides it. */
tn_val tn_rms_norm(tn_build *b, tn_val x, int32_t n, const char *weight, int32_t layer, const char *name);

/* Causal self-attention with grouped heads. */
typedef struct tn_attention_spec {
    int32_t n_head, n_kv, head_dim, n_rot;
    int32_t window; /* 0: all positions */
    float scale;
    bool neox;    /* pairs (i, i + n_rot/2) */
    bool qk_norm; /* q and k are normed head by head */
} tn_attention_spec;

/* attention(rope(norm(w_q n)), rope(norm(w_k n)), w_v n), before the output projection; n is the normed input. */
tn_val tn_self_attention(tn_build *b, tn_val n, tn_val table, int32_t layer, const tn_attention_spec *a);
/* The same from q, k and v. */
tn_val tn_attend(tn_build *b, tn_val q, tn_val k, tn_val v, tn_val table, int32_t layer, const tn_attention_spec *a);

/* w_down (act(w_gate n) * w_up n): tensors ffn_gate, ffn_up, ffn_down with a suffix ("", "_shexp"). */
tn_val tn_gated_ffn(tn_build *b, tn_val n, tn_op act, int32_t n_ff, const char *suffix, int32_t layer);

/* A mixture of experts: sum over the chosen ones of weight * w_down,e (act(w_gate,e n) * w_up,e n). */
typedef struct tn_moe_spec {
    int32_t n_expert, n_used, n_ff;
    tn_op act;
    bool packed; /* gate and up of an expert are one tensor, ffn_gate_up_exps */
} tn_moe_spec;
/* probs: the router's probabilities of each expert; scale (may be NULL): a factor for each expert. */
tn_val tn_moe(tn_build *b, tn_val n, tn_val probs, const tn_val *scale, int32_t layer, const tn_moe_spec *m);

/* The end of every decoder: the rows asked for, the last norm, the head (the embedding table where the file has no other). */
tn_val tn_head(tn_build *b, tn_val x, tn_val embedding);

#endif
