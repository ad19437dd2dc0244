/* Attention with what stands around it: one workgroup for a token and a head of the cache, for all query heads that share
 * it. Rotation, head norms and the cache write come before in the same workgroup, ops on the result after. */
#include "backend/webgpu/emit.h"

enum { TILE = 128, HEADS = 4 };

static int32_t power_of_two(int32_t n) {
    int32_t p = 1;
    while (p < n) p *= 2;
    return p;
}

static void emit_core(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    const tn_attr *a = &n->attr;
    int32_t dims = tn_webgpu_kv_dims(e->kv_type), ku = a->head_dim / dims, vu = a->v_dim / dims;
    int32_t group = a->n_head / a->n_kv, heads = group < HEADS ? power_of_two(group) : HEADS;
    int32_t v_team = power_of_two(vu), query = group * a->head_dim;
    if (a->head_dim % 8 || a->v_dim % 8) e->why = "heads whose size is not a multiple of 8";
    if (v_team > TN_WEBGPU_GROUP) e->why = "heads of more elements than a workgroup can sum";
    if (e->form.max_rows > 65535) e->why = "more tokens than a dispatch has rows of workgroups";
    if (e->why) return;
    e->state = a->index;
    tn_emit_team(e, TN_WEBGPU_GROUP / heads);
    tn_buf_printf(&e->types,
                  "var<workgroup> query: array<vec4<f32>, %d>;\nvar<workgroup> score: array<f32, %d>;\n"
                  "var<workgroup> part: array<vec4<f32>, %d>;\nvar<workgroup> top: array<f32, %d>;\n"
                  "var<workgroup> weight: array<f32, %d>;\nvar<workgroup> shrink: array<f32, %d>;\n",
                  query / 4, heads * TILE, TN_WEBGPU_GROUP, heads, heads, heads);
    e->extra_bytes += query * 4 + heads * TILE * 4 + TN_WEBGPU_GROUP * 16 + heads * 12;
    double scale = (double)a->factor, cap = (double)a->softcap;
    tn_text first = tn_textf("h * %du + u * %du", a->head_dim / 4, dims / 4);
    tn_emit_piece(
        e, &e->body, "attend", "POS", NUM(e->step.pos), "PAGES_AT", NUM(e->step.pages_at), "SEEN",
        a->window ? tn_textf("select(0u, position - %du, position > %du)", a->window - 1, a->window - 1).s : "0u",
        "GROUP", NUM(group), "K_DIM", NUM(a->head_dim), "V_DIM", NUM(a->v_dim), "Q", tn_emit_load(e, n, 0, "c", false).s,
        "HEADS", NUM(heads), "VECS", NUM(dims / 4), "TILE", NUM(TILE), "N_KV", NUM(a->n_kv), "BLOCK",
        NUM((ku + vu) * TN_PAGE_TOKENS), "K_UNITS", NUM(ku), "V_UNITS", NUM(vu), "V_TEAM", NUM(v_team), "V_DIMS",
        NUM(dims), "TEAM", NUM(TN_WEBGPU_GROUP / heads), "DOT",
        dims == 4 ? tn_textf("d += dot(query[%s], bitcast<vec4<f32>>(k));", first.s).s
                  : tn_textf("d += dot(query[%s], halves4(k.xy)) + dot(query[%s + 1u], halves4(k.zw));", first.s, first.s).s,
        "SCORE",
        cap != 0 ? tn_textf("%.9e * tanh(clamp(d * %.9e, -12.0, 12.0))", cap, scale / cap).s
                 : tn_textf("d * %.9e", scale).s,
        "ADD",
        dims == 4 ? "sums[k][0] += e * bitcast<vec4<f32>>(v);"
                  : "sums[k][0] += e * halves4(v.xy); sums[k][1] += e * halves4(v.zw);",
        "STORE", tn_emit_store(e, i, "c", "y", false).s, NULL);
}

void tn_emit_attend(tn_emit *e) {
    int32_t core = 0;
    while (e->form.role[core] != TN_CORE) core++;
    e->value[core].loop = 150; /* of its own */
    tn_buf_str(&e->body, "    let head = group.x;\n    let row = group.y;\n    if (row >= n_rows) { return; }\n");
    for (int32_t i = core + 1; i < e->n; i++) e->value[i].loop = 200; /* until they are ordered: not the core's */
    tn_emit_row_ops(e, TN_BEFORE);
    if (e->why) return;
    tn_emit_give_buffers(e, TN_CORE);
    emit_core(e, core);
    if (!e->why) tn_emit_row_ops(e, TN_AFTER);
    e->x = (uint32_t)e->parts;
    e->rows_per_y = 1;
}
