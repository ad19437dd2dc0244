/* Llama (Touvron et al. 2023; Grattafiori et al. 2024) and what shares its shape: a pre-norm decoder with grouped-query
 * attention, rotary positions and a SwiGLU feed-forward. SmolLM2, Llama 2 and 3, Mistral. */
#include "model/model.h"

#include <math.h>

static tn_status read(tn_hparams *hp, const tn_gguf *g, tn_error *err) {
    return tn_hp_common(hp, g, "llama", err);
}

static tn_val rms_norm(tn_build *b, tn_val x, const char *weight, int32_t i, const char *name) {
    tn_val n = tn_g_norm(b->g, TN_OP_RMS_NORM, x, 0, b->hp->eps, name);
    return tn_g_binary(b->g, TN_OP_MUL, n, tn_vector(b, b->hp->n_embd, weight, i), tn_name(b, name, "w"));
}

/* h = x + w_o attention(rope(w_q n), rope(w_k n), w_v n) with n = norm(x) */
static tn_val attention(tn_build *b, tn_val x, tn_val table, int32_t i) {
    const tn_hparams *hp = b->hp;
    tn_graph *g = b->g;
    tn_attr heads = {.n_head = hp->n_head, .n_kv = hp->n_kv, .head_dim = hp->head_dim, .v_dim = hp->v_dim};
    tn_val n = rms_norm(b, x, "blk.%d.attn_norm.weight", i, "attn_norm");
    tn_val q = tn_linear(b, n, hp->n_head * hp->head_dim, "blk.%d.attn_q", i, "q");
    tn_val k = tn_linear(b, n, hp->n_kv * hp->head_dim, "blk.%d.attn_k", i, "k");
    tn_val v = tn_linear(b, n, hp->n_kv * hp->v_dim, "blk.%d.attn_v", i, "v");
    q = tn_g_rope(g, q, table, hp->head_dim, hp->n_rot, false, "q_rope");
    k = tn_g_rope(g, k, table, hp->head_dim, hp->n_rot, false, "k_rope");
    tn_val cache = tn_g_kv_write(g, tn_g_state(g, i, tn_name(b, "cache", NULL), &heads), k, v, "kv_write");
    heads.factor = 1.0f / sqrtf((float)hp->head_dim);
    tn_val o = tn_g_attention(g, q, cache, &heads, "attention");
    return tn_g_binary(g, TN_OP_ADD, tn_linear(b, o, hp->n_embd, "blk.%d.attn_output", i, "o"), x, "attn_residual");
}

/* y = h + w_down (silu(w_gate n) * w_up n) with n = norm(h) */
static tn_val feed_forward(tn_build *b, tn_val h, int32_t i) {
    tn_graph *g = b->g;
    tn_val n = rms_norm(b, h, "blk.%d.ffn_norm.weight", i, "ffn_norm");
    tn_val gate = tn_linear(b, n, b->hp->n_ff, "blk.%d.ffn_gate", i, "gate");
    tn_val up = tn_linear(b, n, b->hp->n_ff, "blk.%d.ffn_up", i, "up");
    tn_val a = tn_g_binary(g, TN_OP_MUL, tn_g_unary(g, TN_OP_SILU, gate, "silu"), up, "gated");
    return tn_g_binary(g, TN_OP_ADD, tn_linear(b, a, b->hp->n_embd, "blk.%d.ffn_down", i, "down"), h, "ffn_residual");
}

static tn_val build(tn_build *b) {
    const tn_hparams *hp = b->hp;
    tn_val embedding = tn_matrix(b, hp->n_vocab, hp->n_embd, "token_embd.weight", 0);
    tn_val x = tn_g_embed(b->g, b->tokens, embedding, "embed");
    tn_val table = tn_rope_angles(b, hp->n_rot, hp->rope);
    for (int32_t i = 0; i < hp->n_layer; i++) {
        b->g->layer = i;
        x = attention(b, x, table, i);
        x = feed_forward(b, x, i);
    }
    b->g->layer = -1;
    x = tn_output_rows(b, x);
    x = rms_norm(b, x, "output_norm.weight", 0, "output_norm");
    bool tied = !tn_has_tensor(b, "output.weight", 0);
    tn_val head = tied ? embedding : tn_matrix(b, hp->n_vocab, hp->n_embd, "output.weight", 0);
    return tn_g_matmul(b->g, x, head, "logits");
}

const tn_arch tn_arch_llama = {"llama", read, build};
