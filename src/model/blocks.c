/* Blocks that several architectures share. */
#include "model/blocks.h"

#include <stdio.h>

tn_val tn_rms_norm(tn_build *b, tn_val x, int32_t n, const char *weight, int32_t layer, const char *name) {
    tn_val normed = tn_g_norm(b->g, TN_OP_RMS_NORM, x, n, b->hp->eps, name);
    return tn_g_binary(b->g, TN_OP_MUL, normed, tn_vector(b, n, weight, layer), tn_name(b, name, "w"));
}

tn_val tn_attend(tn_build *b, tn_val q, tn_val k, tn_val v, tn_val table, int32_t layer, const tn_attention_spec *a) {
    tn_graph *g = b->g;
    if (a->qk_norm) {
        q = tn_rms_norm(b, q, a->head_dim, "blk.%d.attn_q_norm.weight", layer, "q_norm");
        k = tn_rms_norm(b, k, a->head_dim, "blk.%d.attn_k_norm.weight", layer, "k_norm");
    }
    q = tn_g_rope(g, q, table, a->head_dim, a->n_rot, a->neox, "q_rope");
    k = tn_g_rope(g, k, table, a->head_dim, a->n_rot, a->neox, "k_rope");
    tn_attr heads = {.n_head = a->n_head, .n_kv = a->n_kv, .head_dim = a->head_dim, .v_dim = a->head_dim};
    tn_val cache = tn_g_state(g, g->n_states, tn_name(b, "cache", NULL), &heads);
    heads.factor = a->scale;
    heads.window = a->window;
    return tn_g_attention(g, q, tn_g_kv_write(g, cache, k, v, "kv_write"), &heads, "attention");
}

tn_val tn_self_attention(tn_build *b, tn_val n, tn_val table, int32_t layer, const tn_attention_spec *a) {
    tn_val q = tn_linear(b, n, a->n_head * a->head_dim, "blk.%d.attn_q", layer, "q");
    tn_val k = tn_linear(b, n, a->n_kv * a->head_dim, "blk.%d.attn_k", layer, "k");
    tn_val v = tn_linear(b, n, a->n_kv * a->head_dim, "blk.%d.attn_v", layer, "v");
    return tn_attend(b, q, k, v, table, layer, a);
}

tn_val tn_gated_ffn(tn_build *b, tn_val n, tn_op act, int32_t n_ff, const char *suffix, int32_t layer) {
    char gate[48], up[48], down[48];
    snprintf(gate, sizeof gate, "blk.%%d.ffn_gate%s", suffix);
    snprintf(up, sizeof up, "blk.%%d.ffn_up%s", suffix);
    snprintf(down, sizeof down, "blk.%%d.ffn_down%s", suffix);
    tn_val g = tn_linear_ffn(b, n, n_ff, gate, layer, gate + 11);
    tn_val u = tn_linear_ffn(b, n, n_ff, up, layer, up + 11);
    tn_val a = tn_g_unary(b->g, act, g, tn_name(b, gate + 11, "act"));
    a = tn_g_binary(b->g, TN_OP_MUL, a, u, tn_name(b, up + 11, "gated"));
    return tn_linear_ffn(b, a, b->hp->n_embd, down, layer, down + 11);
}

tn_val tn_moe(tn_build *b, tn_val n, tn_val probs, const tn_val *scale, int32_t layer, const tn_moe_spec *m) {
    tn_graph *g = b->g;
    tn_val weights = tn_g_top_k(g, probs, scale, m->n_used, true, "experts"), ids = tn_g_out(weights, 1, m->n_used);
    tn_val w_gate, w_up;
    if (m->packed) {
        tn_part part = {.block = m->n_ff, .pitch = 2 * m->n_ff, .n = m->n_expert, .experts = m->n_expert};
        w_gate = tn_matrix_part(b, part, n.cols, "blk.%d.ffn_gate_up_exps.weight", layer, "gate");
        part.first = m->n_ff;
        w_up = tn_matrix_part(b, part, n.cols, "blk.%d.ffn_gate_up_exps.weight", layer, "up");
    } else {
        w_gate = tn_experts(b, m->n_expert, m->n_ff, n.cols, "blk.%d.ffn_gate_exps.weight", layer);
        w_up = tn_experts(b, m->n_expert, m->n_ff, n.cols, "blk.%d.ffn_up_exps.weight", layer);
    }
    tn_val gate = tn_g_matmul_id(g, n, w_gate, ids, "gate_exps"), up = tn_g_matmul_id(g, n, w_up, ids, "up_exps");
    tn_val a = tn_g_binary(g, TN_OP_MUL, tn_g_unary(g, m->act, gate, "act_exps"), up, "gated_exps");
    tn_val w_down = tn_experts(b, m->n_expert, b->hp->n_embd, m->n_ff, "blk.%d.ffn_down_exps.weight", layer);
    return tn_g_expert_sum(g, tn_g_matmul_id(g, a, w_down, ids, "down_exps"), weights, "expert_sum");
}

tn_val tn_head(tn_build *b, tn_val x, tn_val embedding) {
    const tn_hparams *hp = b->hp;
    b->g->layer = -1;
    bool all = b->g->one_token || b->g->all_outputs;
    if (!all) x = tn_g_select_rows(b->g, x, "output_rows");
    x = tn_rms_norm(b, x, hp->n_embd, "output_norm.weight", 0, "output_norm");
    bool tied = !tn_has_tensor(b, "output.weight", 0);
    tn_val head = tied ? embedding : tn_matrix(b, hp->n_vocab, hp->n_embd, "output.weight", 0);
    tn_val logits = tn_g_matmul(b->g, x, head, "logits");
    return hp->softcap > 0 ? tn_g_softcap(b->g, logits, hp->softcap, "softcap") : logits;
}
