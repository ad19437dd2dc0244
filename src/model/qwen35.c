/* Qwen 3.5 and 3.6: three layers of gated delta net (Yang et al. 2024) to each layer of gated full attention, dense or with a
 * mixture of experts and a shared expert. Blocks for predicting further tokens (MTP) may follow in the file: not run. */
#include "model/blocks.h"

#include <math.h>
#include <stdio.h>

static tn_status read(tn_hparams *hp, const tn_gguf *g, const char *arch, unsigned allowed, tn_error *err) {
    static const struct {
        const char *suffix;
        size_t at;
    } keys[] = {{"ssm.conv_kernel", offsetof(tn_hparams, conv_kernel)},
                {"ssm.state_size", offsetof(tn_hparams, delta_dim)},
                {"ssm.group_count", offsetof(tn_hparams, delta_k_heads)},
                {"ssm.time_step_rank", offsetof(tn_hparams, delta_v_heads)}};
    tn_status status = tn_hp_common(hp, g, arch, allowed, err);
    for (size_t i = 0; i < sizeof keys / sizeof *keys && status == TN_OK; i++)
        status = tn_hp_u32(g, arch, keys[i].suffix, (int32_t *)((char *)hp + keys[i].at), err);
    if (status != TN_OK) return status;
    int32_t mtp = 0, inner = -1;
    hp->period = 4;
    status = tn_hp_u32_opt(g, arch, "full_attention_interval", &hp->period, err);
    if (!status) status = tn_hp_u32_opt(g, arch, "nextn_predict_layers", &mtp, err);
    if (!status) status = tn_hp_u32_opt(g, arch, "ssm.inner_size", &inner, err);
    if (status != TN_OK) return status;
    if (hp->period < 1) return tn_fail(err, TN_ERR_INPUT, "%s.full_attention_interval is %d", arch, hp->period);
    if (mtp >= hp->n_layer)
        return tn_fail(err, TN_ERR_INPUT, "%s.nextn_predict_layers is %d of %d layers", arch, mtp, hp->n_layer);
    hp->n_layer -= mtp;
    status =
        tn_hp_check_product((int64_t)hp->delta_dim * hp->delta_dim, hp->delta_v_heads, "elements of a state", err);
    if (status != TN_OK) return status;
    if (hp->delta_dim > 1024 || hp->conv_kernel < 2 || hp->conv_kernel > 64 || hp->delta_v_heads > 4096 ||
        hp->delta_v_heads % hp->delta_k_heads || (inner != -1 && inner != hp->delta_dim * hp->delta_v_heads))
        return tn_fail(err, TN_ERR_INPUT, "%s.ssm: sizes that do not fit together", arch);
    return TN_OK;
}

static bool is_recurrent(tn_build *b, const char *arch, int32_t i) {
    int32_t v = (i + 1) % b->hp->period != 0;
    if (b->status == TN_OK) b->status = tn_hp_layer(b->file, arch, "attention.recurrent_layers", i, &v, b->err);
    return v != 0;
}

/* The file packs w_q and w_g head by head in one tensor, and their biases where there are any; a scale is for both. */
static tn_val packed_linear(tn_build *b, tn_val n, tn_part part, int32_t i, const char *name) {
    tn_val y = tn_g_matmul(b->g, n, tn_matrix_part(b, part, n.cols, "blk.%d.attn_q.weight", i, name), name);
    y = tn_apply_scale(b, y, "blk.%d.attn_q", i, name);
    if (!tn_has_tensor(b, "blk.%d.attn_q.bias", i)) return y;
    tn_val bias = tn_vector_part(b, part, "blk.%d.attn_q.bias", i, name);
    return tn_g_binary(b->g, TN_OP_ADD, y, bias, tn_name(b, name, "bias"));
}

/* sigmoid(w_g n) * attention(rope(norm(w_q n)), rope(norm(w_k n)), w_v n) */
static tn_val full_attention(tn_build *b, tn_val n, tn_val table, int32_t i) {
    const tn_hparams *hp = b->hp;
    tn_graph *g = b->g;
    int32_t d = hp->head_dim;
    tn_attention_spec heads = {.n_head = hp->n_head,
                               .n_kv = hp->n_kv,
                               .head_dim = d,
                               .n_rot = hp->n_rot,
                               .scale = 1.0f / sqrtf((float)d),
                               .neox = true,
                               .qk_norm = true};
    tn_val q = packed_linear(b, n, (tn_part){.block = d, .pitch = 2 * d, .n = hp->n_head}, i, "q");
    tn_val gate = packed_linear(b, n, (tn_part){.first = d, .block = d, .pitch = 2 * d, .n = hp->n_head}, i, "gate");
    tn_val k = tn_linear(b, n, hp->n_kv * d, "blk.%d.attn_k", i, "k");
    tn_val v = tn_linear(b, n, hp->n_kv * d, "blk.%d.attn_v", i, "v");
    gate = tn_g_unary(g, TN_OP_SIGMOID, gate, "gate_sigmoid");
    tn_val o = tn_g_binary(g, TN_OP_MUL, tn_attend(b, q, k, v, table, i, &heads), gate, "attention_gated");
    return tn_linear(b, o, hp->n_embd, "blk.%d.attn_output", i, "o");
}

/* w_out (norm(delta_net(q, k, v, g, beta)) * silu(z)), with q, k, v = silu(conv1d(w_qkv n)), q and k normed,
 * g = a * softplus(w_alpha n + dt), beta = sigmoid(w_beta n) */
static tn_val delta_net(tn_build *b, tn_val n, int32_t i) {
    const tn_hparams *hp = b->hp;
    tn_graph *g = b->g;
    int32_t d = hp->delta_dim, heads = hp->delta_v_heads, key = d * hp->delta_k_heads, value = d * heads;
    int32_t channels = 2 * key + value;
    tn_val qkv = tn_linear(b, n, channels, "blk.%d.attn_qkv", i, "qkv");
    tn_val z = tn_g_unary(g, TN_OP_SILU, tn_linear(b, n, value, "blk.%d.attn_gate", i, "z"), "z_silu");
    tn_val beta = tn_g_unary(g, TN_OP_SIGMOID, tn_linear(b, n, heads, "blk.%d.ssm_beta", i, "beta"), "beta_sigmoid");
    tn_val alpha = tn_linear(b, n, heads, "blk.%d.ssm_alpha", i, "alpha");
    alpha = tn_g_binary(g, TN_OP_ADD, alpha, tn_vector(b, heads, "blk.%d.ssm_dt.bias", i), "alpha_dt");
    alpha = tn_g_unary(g, TN_OP_SOFTPLUS, alpha, "alpha_softplus");
    tn_val decay = tn_g_binary(g, TN_OP_MUL, alpha, tn_vector(b, heads, "blk.%d.ssm_a", i), "decay");
    tn_val taps = tn_taps(b, channels, hp->conv_kernel, "blk.%d.ssm_conv1d.weight", i);
    tn_val window =
        tn_g_recurrent_state(g, g->n_states, tn_name(b, "conv_state", NULL), (hp->conv_kernel - 1) * channels);
    qkv = tn_g_unary(g, TN_OP_SILU, tn_g_conv1d(g, window, qkv, taps, "conv"), "conv_silu");
    tn_val q = tn_g_norm(g, TN_OP_L2_NORM, tn_g_slice(qkv, 0, key), d, hp->eps, "q_l2");
    tn_val k = tn_g_norm(g, TN_OP_L2_NORM, tn_g_slice(qkv, key, key), d, hp->eps, "k_l2");
    tn_val v = tn_g_slice(qkv, 2 * key, value);
    tn_val state = tn_g_recurrent_state(g, g->n_states, tn_name(b, "delta_state", NULL), heads * d * d);
    tn_attr attr = {.n_head = heads, .n_kv = hp->delta_k_heads, .head_dim = d, .v_dim = d};
    tn_val o = tn_g_gated_delta_net(g, (tn_val[]){state, q, k, v, decay, beta}, &attr, "delta_net");
    o = tn_g_binary(g, TN_OP_MUL, tn_rms_norm(b, o, d, "blk.%d.ssm_norm.weight", i, "delta_norm"), z, "delta_gated");
    return tn_linear(b, o, hp->n_embd, "blk.%d.ssm_out", i, "delta_out");
}

/* sum of the chosen experts + sigmoid(w_s n) * shared expert */
static tn_val experts(tn_build *b, tn_val n, int32_t i) {
    const tn_hparams *hp = b->hp;
    tn_graph *g = b->g;
    tn_val probs = tn_g_unary(g, TN_OP_SOFTMAX, tn_linear(b, n, hp->n_expert, "blk.%d.ffn_gate_inp", i, "router"),
                              "router_probs");
    tn_moe_spec moe = {hp->n_expert, hp->n_used, hp->n_ff_expert, TN_OP_SILU, false};
    tn_val y = tn_moe(b, n, probs, NULL, i, &moe);
    if (!hp->n_ff_shared) return y;
    tn_val gate =
        tn_g_matmul(g, n, tn_row_matrix(b, hp->n_embd, "blk.%d.ffn_gate_inp_shexp.weight", i), "shared_gate");
    gate = tn_g_unary(g, TN_OP_SIGMOID, gate, "shared_gate_sigmoid");
    tn_val s = tn_gated_ffn(b, n, TN_OP_SILU, hp->n_ff_shared, "_shexp", i);
    return tn_g_binary(g, TN_OP_ADD, y, tn_g_binary(g, TN_OP_MUL, s, gate, "shared_gated"), "experts_sum");
}

static tn_val build(tn_build *b, const char *arch) {
    const tn_hparams *hp = b->hp;
    tn_graph *g = b->g;
    tn_val embedding = tn_matrix(b, hp->n_vocab, hp->n_embd, "token_embd.weight", 0);
    tn_val x = tn_g_embed(g, b->tokens, embedding, "embed");
    tn_val table = tn_rope_angles(b, hp->n_rot, hp->rope, true, "rope_table");
    for (int32_t i = 0; i < hp->n_layer; i++) {
        g->layer = i;
        tn_val n = tn_rms_norm(b, x, hp->n_embd, "blk.%d.attn_norm.weight", i, "attn_norm");
        tn_val o = is_recurrent(b, arch, i) ? delta_net(b, n, i) : full_attention(b, n, table, i);
        tn_val h = tn_g_binary(g, TN_OP_ADD, o, x, "attn_residual");
        n = tn_rms_norm(b, h, hp->n_embd, "blk.%d.post_attention_norm.weight", i, "ffn_norm");
        o = hp->n_expert ? experts(b, n, i) : tn_gated_ffn(b, n, TN_OP_SILU, hp->n_ff, "", i);
        x = tn_g_binary(g, TN_OP_ADD, o, h, "ffn_residual");
    }
    return tn_head(b, x, embedding);
}

static tn_status read_qwen35(tn_hparams *hp, const tn_gguf *g, tn_error *err) {
    return read(hp, g, "qwen35", 0, err);
}
static tn_val build_qwen35(tn_build *b) {
    return build(b, "qwen35");
}

static tn_status read_qwen35moe(tn_hparams *hp, const tn_gguf *g, tn_error *err) {
    tn_status status = read(hp, g, "qwen35moe", TN_HP_EXPERTS, err);
    if (status == TN_OK) status = tn_hp_experts(hp, g, "qwen35moe", err);
    if (status != TN_OK) return status;
    return tn_hp_u32_opt(g, "qwen35moe", "expert_shared_feed_forward_length", &hp->n_ff_shared, err);
}
static tn_val build_qwen35moe(tn_build *b) {
    return build(b, "qwen35moe");
}

const tn_arch tn_arch_qwen35 = {"qwen35", read_qwen35, build_qwen35};
const tn_arch tn_arch_qwen35moe = {"qwen35moe", read_qwen35moe, build_qwen35moe};
