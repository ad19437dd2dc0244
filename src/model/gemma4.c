/* Gemma 4: Gemma 3's blocks with heads of two sizes (local and global layers), values normed without a weight, layers that read
 * an earlier layer's cache, an embedding of the token for every layer (E2B, E4B), or a mixture of experts beside the dense
 * feed-forward (26B-A4B). */
#include "model/blocks.h"

#include <float.h>
#include <math.h>

#define ARCH "gemma4"

static tn_status read(tn_hparams *hp, const tn_gguf *g, tn_error *err) {
    tn_status status = tn_hp_common(hp, g, ARCH, TN_HP_BY_LAYER | TN_HP_EXPERTS, err);
    if (status == TN_OK) status = tn_hp_u32(g, ARCH, "attention.sliding_window", &hp->window, err);
    if (status != TN_OK) return status;
    hp->rope_local = (tn_rope_params){10000.0f, 1.0f, 0.0f, 1.0f, 32.0f, 1.0f, hp->n_ctx_train};
    hp->head_dim_local = hp->head_dim;
    status = tn_hp_u32_opt(g, ARCH, "attention.key_length_swa", &hp->head_dim_local, err);
    hp->n_rot_local = hp->head_dim_local;
    if (!status) status = tn_hp_u32_opt(g, ARCH, "rope.dimension_count_swa", &hp->n_rot_local, err);
    if (!status) status = tn_hp_f32_opt(g, ARCH, "rope.freq_base_swa", FLT_MIN, &hp->rope_local.base, err);
    if (!status) status = tn_hp_f32_opt(g, ARCH, "final_logit_softcapping", 0, &hp->softcap, err);
    if (!status) status = tn_hp_u32_opt(g, ARCH, "attention.shared_kv_layers", &hp->n_shared_kv, err);
    if (!status) status = tn_hp_u32_opt(g, ARCH, "embedding_length_per_layer_input", &hp->n_embd_layer, err);
    if (!status) status = tn_hp_u32_opt(g, ARCH, "expert_count", &hp->n_expert, err);
    if (!status && hp->n_expert > 0) status = tn_hp_experts(hp, g, ARCH, err);
    if (status != TN_OK) return status;
    if (hp->n_shared_kv >= hp->n_layer)
        return tn_fail(err, TN_ERR_INPUT, ARCH ".attention.shared_kv_layers is %d of %d layers", hp->n_shared_kv,
                       hp->n_layer);
    if (hp->n_embd_layer)
        status = tn_hp_check_product(hp->n_embd_layer, hp->n_layer, "elements of embeddings for layers", err);
    if (status != TN_OK) return status;
    return tn_hp_check_heads(hp->head_dim_local, hp->head_dim_local, hp->n_rot_local, err);
}

static int32_t per_layer(tn_build *b, const char *suffix, int32_t i, int32_t otherwise) {
    if (b->status == TN_OK) b->status = tn_hp_layer(b->file, ARCH, suffix, i, &otherwise, b->err);
    return otherwise;
}

static bool is_local(tn_build *b, int32_t i) {
    return per_layer(b, "attention.sliding_window_pattern", i, (i + 1) % 6 != 0) != 0;
}

/* What the layers' attentions share: angles of both kinds, and the last cache of each kind for layers without their own. */
typedef struct shared {
    tn_val angles[2], cache[2];
    bool has_cache[2];
    tn_val inputs; /* per-layer embeddings, [n_layer * n_embd_layer] a token */
} shared;

static tn_val attention(tn_build *b, tn_val n, int32_t i, shared *s) {
    const tn_hparams *hp = b->hp;
    tn_graph *g = b->g;
    bool local = is_local(b, i);
    int32_t d = local ? hp->head_dim_local : hp->head_dim, n_rot = local ? hp->n_rot_local : hp->n_rot;
    int32_t n_head = per_layer(b, "attention.head_count", i, hp->n_head);
    int32_t n_kv = per_layer(b, "attention.head_count_kv", i, hp->n_kv);
    bool own = i < hp->n_layer - hp->n_shared_kv || !s->has_cache[local];
    if (!own) n_kv = g->nodes[s->cache[local].node].attr.n_kv;
    if (b->status == TN_OK) b->status = tn_hp_check_sharing(n_head, n_kv, d, b->err);
    if (b->status != TN_OK) return n;
    tn_attr heads = {.n_head = n_head, .n_kv = n_kv, .head_dim = d, .v_dim = d};
    tn_val q = tn_linear(b, n, n_head * d, "blk.%d.attn_q", i, "q");
    q = tn_rms_norm(b, q, d, "blk.%d.attn_q_norm.weight", i, "q_norm");
    q = tn_g_rope(g, q, s->angles[local], d, n_rot, true, "q_rope");
    if (own) {
        tn_val k = tn_linear(b, n, heads.n_kv * d, "blk.%d.attn_k", i, "k"), v = k;
        if (tn_has_tensor(b, "blk.%d.attn_v.weight", i)) v = tn_linear(b, n, heads.n_kv * d, "blk.%d.attn_v", i, "v");
        k = tn_rms_norm(b, k, d, "blk.%d.attn_k_norm.weight", i, "k_norm");
        v = tn_g_norm(g, TN_OP_RMS_NORM, v, d, hp->eps, "v_norm");
        k = tn_g_rope(g, k, s->angles[local], d, n_rot, true, "k_rope");
        tn_val cache = tn_g_state(g, g->n_states, tn_name(b, "cache", NULL), &heads);
        s->cache[local] = tn_g_kv_write(g, cache, k, v, "kv_write");
        s->has_cache[local] = true;
    }
    heads.factor = 1.0f;
    heads.window = local ? hp->window : 0;
    return tn_g_attention(g, q, s->cache[local], &heads, "attention");
}

/* The experts' branch: the router reads the residual, normed and scaled by weights of its own. */
static tn_val experts(tn_build *b, tn_val h, int32_t i) {
    const tn_hparams *hp = b->hp;
    tn_graph *g = b->g;
    tn_val r = tn_g_norm(g, TN_OP_RMS_NORM, h, 0, hp->eps, "router_norm");
    r = tn_g_scale(g, r, 1.0f / sqrtf((float)hp->n_embd), "router_scaled");
    r = tn_g_binary(g, TN_OP_MUL, r, tn_vector(b, hp->n_embd, "blk.%d.ffn_gate_inp.scale", i), "router_in");
    tn_val probs = tn_g_unary(g, TN_OP_SOFTMAX, tn_linear(b, r, hp->n_expert, "blk.%d.ffn_gate_inp", i, "router"),
                              "router_probs");
    bool scaled = tn_has_tensor(b, "blk.%d.ffn_down_exps.scale", i);
    tn_val scale = scaled ? tn_vector(b, hp->n_expert, "blk.%d.ffn_down_exps.scale", i) : b->tokens;
    tn_moe_spec moe = {hp->n_expert, hp->n_used, hp->n_ff_expert, TN_OP_GELU,
                       tn_has_tensor(b, "blk.%d.ffn_gate_up_exps.weight", i)};
    tn_val n = tn_rms_norm(b, h, hp->n_embd, "blk.%d.pre_ffw_norm_2.weight", i, "ffn_norm_2");
    tn_val y = tn_moe(b, n, probs, scaled ? &scale : NULL, i, &moe);
    return tn_rms_norm(b, y, hp->n_embd, "blk.%d.post_ffw_norm_2.weight", i, "ffn_post_norm_2");
}

static tn_val feed_forward(tn_build *b, tn_val h, int32_t i) {
    const tn_hparams *hp = b->hp;
    tn_val n = tn_rms_norm(b, h, hp->n_embd, "blk.%d.ffn_norm.weight", i, "ffn_norm");
    tn_val y = tn_gated_ffn(b, n, TN_OP_GELU, per_layer(b, "feed_forward_length", i, hp->n_ff), "", i);
    if (tn_has_tensor(b, "blk.%d.ffn_gate_inp.weight", i)) {
        y = tn_rms_norm(b, y, hp->n_embd, "blk.%d.post_ffw_norm_1.weight", i, "ffn_post_norm_1");
        y = tn_g_binary(b->g, TN_OP_ADD, y, experts(b, h, i), "ffn_combined");
    }
    return tn_rms_norm(b, y, hp->n_embd, "blk.%d.post_ffw_norm.weight", i, "ffn_post_norm");
}

/* (norm(w_proj x / sqrt(n_embd)) + token's embedding for every layer * sqrt(n_embd_layer)) / sqrt(2) */
static tn_val layer_inputs(tn_build *b, tn_val x) {
    const tn_hparams *hp = b->hp;
    tn_graph *g = b->g;
    int32_t n = hp->n_embd_layer * hp->n_layer;
    tn_val table = tn_matrix(b, hp->n_vocab, n, "per_layer_token_embd.weight", 0);
    tn_val e = tn_g_embed(g, b->tokens, table, "layer_embed");
    e = tn_g_scale(g, e, sqrtf((float)hp->n_embd_layer), "layer_embed_scaled");
    tn_val p = tn_linear(b, x, n, "per_layer_model_proj", 0, "layer_proj");
    p = tn_g_scale(g, p, 1.0f / sqrtf((float)hp->n_embd), "layer_proj_scaled");
    p = tn_rms_norm(b, p, hp->n_embd_layer, "per_layer_proj_norm.weight", 0, "layer_proj_norm");
    return tn_g_scale(g, tn_g_binary(g, TN_OP_ADD, p, e, "layer_inputs_sum"), 1.0f / sqrtf(2.0f), "layer_inputs");
}

/* x + norm(w_proj (gelu(w_gate x) * this layer's input)) */
static tn_val add_layer_input(tn_build *b, tn_val x, tn_val inputs, int32_t i) {
    const tn_hparams *hp = b->hp;
    tn_graph *g = b->g;
    tn_val a =
        tn_g_unary(g, TN_OP_GELU, tn_linear(b, x, hp->n_embd_layer, "blk.%d.inp_gate", i, "layer_gate"), "layer_act");
    a = tn_g_binary(g, TN_OP_MUL, a, tn_g_slice(inputs, i * hp->n_embd_layer, hp->n_embd_layer), "layer_gated");
    tn_val y = tn_linear(b, a, hp->n_embd, "blk.%d.proj", i, "layer_out");
    y = tn_rms_norm(b, y, hp->n_embd, "blk.%d.post_norm.weight", i, "layer_post_norm");
    return tn_g_binary(g, TN_OP_ADD, y, x, "layer_residual");
}

static tn_val build(tn_build *b) {
    const tn_hparams *hp = b->hp;
    tn_graph *g = b->g;
    shared s = {0};
    tn_val embedding = tn_matrix(b, hp->n_vocab, hp->n_embd, "token_embd.weight", 0);
    tn_val x = tn_g_scale(g, tn_g_embed(g, b->tokens, embedding, "embed"), sqrtf((float)hp->n_embd), "embed_scaled");
    s.angles[0] = tn_rope_angles(b, hp->n_rot, hp->rope, true, "rope_table");
    s.angles[1] = tn_rope_angles(b, hp->n_rot_local, hp->rope_local, false, "rope_table_local");
    if (hp->n_embd_layer) s.inputs = layer_inputs(b, x);
    for (int32_t i = 0; i < hp->n_layer; i++) {
        g->layer = i;
        tn_val n = tn_rms_norm(b, x, hp->n_embd, "blk.%d.attn_norm.weight", i, "attn_norm");
        tn_val o = tn_linear(b, attention(b, n, i, &s), hp->n_embd, "blk.%d.attn_output", i, "o");
        o = tn_rms_norm(b, o, hp->n_embd, "blk.%d.post_attention_norm.weight", i, "attn_post_norm");
        tn_val h = tn_g_binary(g, TN_OP_ADD, o, x, "attn_residual");
        x = tn_g_binary(g, TN_OP_ADD, feed_forward(b, h, i), h, "ffn_residual");
        if (hp->n_embd_layer) x = add_layer_input(b, x, s.inputs, i);
        if (tn_has_tensor(b, "blk.%d.layer_output_scale.weight", i))
            x = tn_g_binary(g, TN_OP_MUL, x, tn_vector(b, 1, "blk.%d.layer_output_scale.weight", i), "layer_scaled");
    }
    return tn_head(b, x, embedding);
}

const tn_arch tn_arch_gemma4 = {ARCH, read, build};
