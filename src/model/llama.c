/* Llama (Touvron et al. 2023; Grattafiori et al. 2024) and what shares its shape: a pre-norm decoder with grouped-query
 * attention, rotary positions and a SwiGLU feed-forward. SmolLM2, Llama 2 and 3, Mistral. With biases on q, k, v and rotated
 * halves it is Qwen 2, with norms of q and k's heads instead it is Qwen 3, with a mixture of experts Qwen 3 MoE. */
#include "model/blocks.h"

#include <math.h>

static tn_val feed_forward(tn_build *b, tn_val n, int32_t i) {
    const tn_hparams *hp = b->hp;
    if (!hp->n_expert) return tn_gated_ffn(b, n, TN_OP_SILU, hp->n_ff, "", i);
    tn_val router = tn_linear(b, n, hp->n_expert, "blk.%d.ffn_gate_inp", i, "router");
    tn_val probs = tn_g_unary(b->g, TN_OP_SOFTMAX, router, "router_probs");
    tn_moe_spec moe = {hp->n_expert, hp->n_used, hp->n_ff_expert, TN_OP_SILU, false};
    return tn_moe(b, n, probs, NULL, i, &moe);
}

/* h = x + w_o attention(norm(x)); y = h + ffn(norm(h)) */
static tn_val build(tn_build *b, bool neox, bool qk_norm) {
    const tn_hparams *hp = b->hp;
    tn_graph *g = b->g;
    tn_attention_spec heads = {.n_head = hp->n_head,
                               .n_kv = hp->n_kv,
                               .head_dim = hp->head_dim,
                               .n_rot = hp->n_rot,
                               .scale = 1.0f / sqrtf((float)hp->head_dim),
                               .neox = neox,
                               .qk_norm = qk_norm};
    tn_val embedding = tn_matrix(b, hp->n_vocab, hp->n_embd, "token_embd.weight", 0);
    tn_val x = tn_g_embed(g, b->tokens, embedding, "embed");
    tn_val table = tn_rope_angles(b, hp->n_rot, hp->rope, true, "rope_table");
    for (int32_t i = 0; i < hp->n_layer; i++) {
        g->layer = i;
        tn_val n = tn_rms_norm(b, x, hp->n_embd, "blk.%d.attn_norm.weight", i, "attn_norm");
        tn_val o = tn_linear(b, tn_self_attention(b, n, table, i, &heads), hp->n_embd, "blk.%d.attn_output", i, "o");
        tn_val h = tn_g_binary(g, TN_OP_ADD, o, x, "attn_residual");
        n = tn_rms_norm(b, h, hp->n_embd, "blk.%d.ffn_norm.weight", i, "ffn_norm");
        x = tn_g_binary(g, TN_OP_ADD, feed_forward(b, n, i), h, "ffn_residual");
    }
    return tn_head(b, x, embedding);
}

static tn_status read_llama(tn_hparams *hp, const tn_gguf *g, tn_error *err) {
    return tn_hp_common(hp, g, "llama", 0, err);
}
static tn_status read_qwen2(tn_hparams *hp, const tn_gguf *g, tn_error *err) {
    return tn_hp_common(hp, g, "qwen2", 0, err);
}
static tn_status read_qwen3(tn_hparams *hp, const tn_gguf *g, tn_error *err) {
    return tn_hp_common(hp, g, "qwen3", 0, err);
}

static tn_status read_qwen3moe(tn_hparams *hp, const tn_gguf *g, tn_error *err) {
    tn_status status = tn_hp_common(hp, g, "qwen3moe", TN_HP_EXPERTS, err);
    return status == TN_OK ? tn_hp_experts(hp, g, "qwen3moe", err) : status;
}

static tn_val build_llama(tn_build *b) {
    return build(b, false, false);
}
static tn_val build_qwen2(tn_build *b) {
    return build(b, true, false);
}
static tn_val build_qwen3(tn_build *b) {
    return build(b, true, true);
}

const tn_arch tn_arch_llama = {"llama", read_llama, build_llama};
const tn_arch tn_arch_qwen2 = {"qwen2", read_qwen2, build_qwen2};
const tn_arch tn_arch_qwen3 = {"qwen3", read_qwen3, build_qwen3};
const tn_arch tn_arch_qwen3moe = {"qwen3moe", read_qwen3moe, build_qwen3};
