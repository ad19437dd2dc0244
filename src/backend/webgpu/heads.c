/* The ops before attention on one head of the cache: norms, weights, rotation. A step of decoding waits for every trip to memory,
 * so all that they read from elsewhere is asked for at once, and each invocation keeps its four columns of every value in
 * registers; only what other invocations need goes through the workgroup's memory. */
#include "backend/webgpu/emit.h"

static int32_t columns(const tn_emit *e, const tn_node *n) {
    return tn_emit_columns(e, n->out[0].cols);
}

static int32_t norm_group(const tn_emit *e, const tn_node *n) {
    return n->attr.head_dim ? n->attr.head_dim : columns(e, n);
}

static bool whole_source(const tn_node *n, int k) {
    return n->src[k].first == 0 && n->src[k].cols == n->out[0].cols;
}

static bool suits(const tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    bool norm = n->op == TN_OP_RMS_NORM || n->op == TN_OP_L2_NORM, rope = n->op == TN_OP_ROPE;
    if (n->op == TN_OP_KV_WRITE) return true;
    if (!norm && !rope && !tn_emit_is_element(n->op)) return false;
    if (columns(e, n) > e->wg * 4) return false;
    for (int k = 0; k < n->n_src; k++) {
        int32_t from = tn_emit_index(e, n->src[k].node);
        if (from >= 0 && (!whole_source(n, k) || tn_emit_node(e, from)->op == TN_OP_ROPE)) return false;
    }
    int32_t lanes = norm_group(e, n) / 4;
    if (norm) return norm_group(e, n) % 4 == 0 && (lanes & (lanes - 1)) == 0 && lanes > 1 && lanes <= e->wg;
    return !rope || (n->attr.n_rot % 8 == 0 && n->attr.head_dim % 4 == 0);
}

bool tn_emit_heads_suit(const tn_emit *e) {
    bool all = e->vec == 4;
    for (int32_t i = 0; i < e->n && all; i++) all = e->form.role[i] != TN_BEFORE || suits(e, i);
    return all;
}

/* Whether an op that is none of these reads value i, or it is turned: invocations read each other's columns. */
static bool shared(const tn_emit *e, int32_t i) {
    bool any = tn_emit_node(e, i)->op == TN_OP_ROPE;
    for (int32_t j = i + 1; j < e->n && !any; j++)
        for (int k = 0; k < tn_emit_node(e, j)->n_src; k++)
            any |= tn_emit_node(e, j)->src[k].node == e->nodes[i] &&
                   (e->form.role[j] != TN_BEFORE || tn_emit_node(e, j)->op == TN_OP_KV_WRITE);
    return any;
}

static bool in_registers(const tn_emit *e, int32_t i) {
    return e->form.role[i] == TN_BEFORE && tn_emit_node(e, i)->op != TN_OP_KV_WRITE;
}

/* ---- loads ---- */

static void load(tn_emit *e, int32_t i, const char *name, const char *value) {
    tn_buf_printf(&e->body, "    var %s = V();\n    if (hc < %du) { %s = %s; }\n", name,
                  columns(e, tn_emit_node(e, i)), name, value);
}

static void load_angles(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    int32_t apart = n->attr.n_rot / 2;
    tn_text j = tn_textf("hc %% %du", n->attr.head_dim);
    tn_text at =
        n->attr.neox ? tn_textf("2u * (%s %% %du)", j.s, apart) : tn_textf("min(%s, %du)", j.s, 2 * apart - 4);
    load(e, i, tn_textf("t%d", i).s, tn_emit_load(e, n, 1, at.s, true).s);
    if (n->attr.neox) load(e, i, tn_textf("u%d", i).s, tn_emit_load(e, n, 1, tn_textf("%s + 4u", at.s).s, true).s);
}

void tn_emit_heads_loads(tn_emit *e) {
    tn_buf_str(&e->body, "    let hc = tid * 4u;\n");
    for (int32_t i = 0; i < e->n; i++) {
        const tn_node *n = tn_emit_node(e, i);
        if (e->form.role[i] == TN_BEFORE && n->op == TN_OP_KV_WRITE) tn_emit_kv_write_loads(e, i);
        if (!in_registers(e, i)) continue;
        for (int k = 0; k < n->n_src; k++)
            if (n->op == TN_OP_ROPE && k == 1)
                load_angles(e, i);
            else if (tn_emit_index(e, n->src[k].node) < 0)
                load(e, i, tn_textf("l%d_%d", i, k).s, tn_emit_load(e, n, k, "hc", true).s);
    }
}

/* ---- ops ---- */

static tn_text source(const tn_emit *e, int32_t i, int k) {
    int32_t from = tn_emit_index(e, tn_emit_node(e, i)->src[k].node);
    return from >= 0 ? tn_textf("v%d", from) : tn_textf("l%d_%d", i, k);
}

static void emit_norm(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    int32_t group = norm_group(e, n);
    tn_text x = source(e, i, 0);
    tn_emit_team(e, group / 4);
    tn_buf_printf(&e->body, "    let s%d = sum_%d(square(%s));\n    let v%d = %s * %s;\n", i, group / 4, x.s, i, x.s,
                  tn_emit_norm_factor(n, tn_textf("s%d", i).s, group).s);
}

/* Before: neighbours' columns. After: the turn. */
static void emit_turn(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    int32_t apart = n->attr.n_rot / 2, head = n->attr.head_dim, at = e->value[i].buffer;
    tn_text x = source(e, i, 0), turned;
    tn_buf *b = &e->body;
    if (n->attr.neox) {
        tn_buf_printf(b, "    let second%d = hc %% %du >= %du;\n", i, head, apart);
        tn_buf_printf(b,
                      "    var o%d = V();\n    if (hc < %du && hc %% %du < %du) { o%d = wgv(%du + select(hc + %du, "
                      "hc - %du, second%d)); }\n",
                      i, columns(e, n), head, 2 * apart, i, at, apart, apart, i);
        tn_buf_printf(b, "    o%d *= vec4<f32>(t%d.yw, u%d.yw);\n", i, i, i);
        turned = tn_textf("%s * vec4<f32>(t%d.xz, u%d.xz) + select(-o%d, o%d, second%d)", x.s, i, i, i, i, i);
    } else {
        turned = tn_textf("%s * t%d.xxzz + %s.yxwz * t%d.yyww * vec4<f32>(-1.0, 1.0, -1.0, 1.0)", x.s, i, x.s, i);
    }
    if (2 * apart < head)
        tn_buf_printf(b, "    let v%d = select(%s, %s, hc %% %du < %du);\n", i, x.s, turned.s, head, 2 * apart);
    else
        tn_buf_printf(b, "    let v%d = %s;\n", i, turned.s);
}

static void store(tn_emit *e, int32_t i) {
    tn_text put = tn_emit_store(e, i, "hc", tn_textf("v%d", i).s, true);
    if (put.s[0]) tn_buf_printf(&e->body, "    if (hc < %du) { %s }\n", columns(e, tn_emit_node(e, i)), put.s);
}

static void give_buffer(tn_emit *e, int32_t i) {
    if (!shared(e, i)) return;
    e->value[i].size = columns(e, tn_emit_node(e, i));
    e->value[i].buffer = e->shared;
    e->shared += e->value[i].size;
}

/* All but the rotations, which read what others hold; then these; then the cache is written. */
void tn_emit_heads(tn_emit *e) {
    bool ropes = false;
    for (int32_t i = 0; i < e->n && !e->why; i++) {
        const tn_node *n = tn_emit_node(e, i);
        if (!in_registers(e, i)) continue;
        give_buffer(e, i);
        ropes |= n->op == TN_OP_ROPE;
        if (n->op == TN_OP_ROPE) {
            if (n->attr.neox)
                tn_buf_printf(&e->body, "    if (hc < %du) { wgst(%du + hc, %s); }\n", columns(e, n),
                              e->value[i].buffer, source(e, i, 0).s);
            continue;
        }
        if (tn_emit_is_element(n->op))
            tn_buf_printf(&e->body, "    let v%d = %s;\n", i,
                          tn_emit_element(n, false, source(e, i, 0).s, source(e, i, n->n_src > 1).s).s);
        else
            emit_norm(e, i);
        store(e, i);
    }
    if (ropes) tn_buf_str(&e->body, "    workgroupBarrier();\n");
    for (int32_t i = 0; i < e->n; i++)
        if (in_registers(e, i) && tn_emit_node(e, i)->op == TN_OP_ROPE) emit_turn(e, i);
    if (ropes) tn_buf_str(&e->body, "    workgroupBarrier();\n");
    for (int32_t i = 0; i < e->n; i++)
        if (in_registers(e, i) && tn_emit_node(e, i)->op == TN_OP_ROPE) store(e, i);
    tn_buf_str(&e->body, "    workgroupBarrier();\n");
    for (int32_t i = 0; i < e->n && !e->why; i++)
        if (e->form.role[i] == TN_BEFORE && tn_emit_node(e, i)->op == TN_OP_KV_WRITE) tn_emit_kv_write(e, i);
}
