/* Gemma 3 (Gemma Team 2025): norms before and after each block, a GELU gate, local layers with a sliding window and a rope
 * base of their own, every sixth layer global. */
#include "model/blocks.h"

#include <float.h>
#include <math.h>

static tn_status read(tn_hparams *hp, const tn_gguf *g, tn_error *err) {
    tn_status status = tn_hp_common(hp, g, "gemma3", 0, err);
    if (status != TN_OK) return status;
    hp->rope_local = (tn_rope_params){10000.0f, 1.0f, 0.0f, 1.0f, 32.0f, 1.0f, hp->n_ctx_train};
    hp->period = 6;
    status = tn_hp_f32_opt(g, "gemma3", "rope.freq_base_swa", FLT_MIN, &hp->rope_local.base, err);
    if (!status) status = tn_hp_f32_opt(g, "gemma3", "final_logit_softcapping", 0, &hp->softcap, err);
    if (!status) status = tn_hp_u32_opt(g, "gemma3", "attention.sliding_window_pattern", &hp->period, err);
    if (!status && hp->period < 1)
        status = tn_fail(err, TN_ERR_INPUT, "gemma3.attention.sliding_window_pattern is %d", hp->period);
    return status ? status : tn_hp_u32(g, "gemma3", "attention.sliding_window", &hp->window, err);
}

/* h = x + norm(w_o attention(norm(x))); y = h + norm(ffn(norm(h))) */
static tn_val build(tn_build *b) {
    const tn_hparams *hp = b->hp;
    tn_graph *g = b->g;
    tn_attention_spec heads = {.n_head = hp->n_head,
                               .n_kv = hp->n_kv,
                               .head_dim = hp->head_dim,
                               .n_rot = hp->n_rot,
                               .neox = true,
                               .qk_norm = true};
    /* the 27B model scales by the width of a head's share of the embedding */
    heads.scale = 1.0f / sqrtf((float)(hp->n_layer == 62 ? hp->n_embd / hp->n_head : hp->head_dim));
    tn_val embedding = tn_matrix(b, hp->n_vocab, hp->n_embd, "token_embd.weight", 0);
    tn_val x = tn_g_scale(g, tn_g_embed(g, b->tokens, embedding, "embed"), sqrtf((float)hp->n_embd), "embed_scaled");
    tn_val global = tn_rope_angles(b, hp->n_rot, hp->rope, true, "rope_table");
    tn_val local = tn_rope_angles(b, hp->n_rot, hp->rope_local, true, "rope_table_local");
    for (int32_t i = 0; i < hp->n_layer; i++) {
        g->layer = i;
        bool is_local = (i + 1) % hp->period != 0;
        heads.window = is_local ? hp->window : 0;
        tn_val n = tn_rms_norm(b, x, hp->n_embd, "blk.%d.attn_norm.weight", i, "attn_norm");
        tn_val o = tn_self_attention(b, n, is_local ? local : global, i, &heads);
        o = tn_linear(b, o, hp->n_embd, "blk.%d.attn_output", i, "o");
        o = tn_rms_norm(b, o, hp->n_embd, "blk.%d.post_attention_norm.weight", i, "attn_post_norm");
        tn_val h = tn_g_binary(g, TN_OP_ADD, o, x, "attn_residual");
        n = tn_rms_norm(b, h, hp->n_embd, "blk.%d.ffn_norm.weight", i, "ffn_norm");
        o = tn_gated_ffn(b, n, TN_OP_GELU, hp->n_ff, "", i);
        o = tn_rms_norm(b, o, hp->n_embd, "blk.%d.post_ffw_norm.weight", i, "ffn_post_norm");
        x = tn_g_binary(g, TN_OP_ADD, o, h, "ffn_residual");
    }
    return tn_head(b, x, embedding);
}

const tn_arch tn_arch_gemma3 = {"gemma3", read, build};
