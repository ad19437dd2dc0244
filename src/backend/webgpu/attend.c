/* Attention with what stands around it: one workgroup for a token and a head of the cache, for all query heads that share
 * it. Rotation, head norms and the cache write come before in the same workgroup, ops on the result after.
 * For few tokens the context is split: workgroups take tiles of it in turn and leave partial results, which a second dispatch
 * brings together (workgroups of one dispatch cannot rely on seeing each other's writes). While a token has few positions
 * behind it, its first workgroup does everything, and the second dispatch is left out. */
#include "backend/webgpu/emit.h"

enum {
    TILE = 128,
    HEADS = 4,        /* of the queries, at once */
    SPLIT_FROM = 256, /* position of a token whose context is split */
    GROUPS = 256,     /* workgroups that keep a large device busy */
    MAX_SPLITS = 32
};

static int32_t splits_of(const tn_emit *e, const tn_attr *a) {
    int32_t n = GROUPS / a->n_kv / e->form.max_rows,
            tiles = a->window ? (a->window + TILE - 2) / TILE + 1 : MAX_SPLITS;
    n = n > MAX_SPLITS ? MAX_SPLITS : n;
    n = n > tiles ? tiles : n;
    return e->kernel->core != TN_WEBGPU_SPLIT ? 1 : n < 2 ? 2 : n;
}

/* Where a split leaves what it found: the values, then the largest score and the sum of weights. */
static void declare_splits(tn_emit *e, const tn_attr *a) {
    int32_t n = splits_of(e, a), size = a->v_dim + 2;
    e->scratch_words = (uint64_t)e->form.max_rows * (uint64_t)a->n_head * (uint64_t)n * (uint64_t)size;
    tn_buf_printf(&e->head,
                  "fn split_at(row: u32, head: u32, split: u32) -> u32 { return ((row * %du + head) * %du + split) * "
                  "%du; }\n",
                  a->n_head, n, size);
}

/* The token, its head, what it sees, and how that is split. */
static void emit_places(tn_emit *e, const tn_attr *a) {
    int32_t n = splits_of(e, a);
    tn_buf *b = &e->body;
    int32_t x = e->stage ? 1 : n;
    tn_buf_printf(b,
                  "    let head = group.x / %du;\n    let split = group.x %% %du;\n    let row = group.y;\n"
                  "    if (row >= n_rows) { return; }\n    let position = step[%du + row];\n    let seen = ",
                  x, x, e->step.pos);
    if (a->window)
        tn_buf_printf(b, "select(0u, position - %du, position > %du);\n", a->window - 1, a->window - 1);
    else
        tn_buf_str(b, "0u;\n");
    tn_buf_printf(b,
                  "    let tiles = position / %du - seen / %du + 1u;\n"
                  "    let n_splits = select(min(tiles, %du), 1u, position < %du);\n"
                  "    let owner = (tiles - 1u) %% n_splits == split;\n",
                  TILE, TILE, n, SPLIT_FROM);
    if (n > 1)
        tn_buf_str(b,
                   e->stage ? "    if (n_splits == 1u) { return; }\n" : "    if (split >= n_splits) { return; }\n");
    e->x = (uint32_t)(a->n_kv * x);
}

static int32_t power_of_two(int32_t n) {
    int32_t p = 1;
    while (p < n) p *= 2;
    return p;
}

/* How elements of the cache are used: a unit of k with its part of the query, a unit of v with its weight e. */
typedef struct access {
    tn_text dot; /* d += q k */
    tn_text scale, add;
} access;

static access access_of(tn_kv_type type, int32_t k_dim, int32_t ku, int32_t vu) {
    access a = {.scale = {""}};
    tn_text q = tn_textf("h * %du + u * %du", k_dim / 4, tn_webgpu_kv_dims(type) / 4);
    int32_t scales = (ku + vu) * TN_PAGE_TOKENS * 4;
    switch (type) {
    case TN_KV_F32:
        a.dot = tn_textf("d += dot(query[%s], bitcast<vec4<f32>>(k));", q.s);
        a.add = tn_textf("sums[k][0] += e * bitcast<vec4<f32>>(v);");
        break;
    case TN_KV_F16:
        a.dot = tn_textf("d += dot(query[%s], halves4(k.xy)) + dot(query[%s + 1u], halves4(k.zw));", q.s, q.s);
        a.add = tn_textf("sums[k][0] += e * halves4(v.xy); sums[k][1] += e * halves4(v.zw);");
        break;
    case TN_KV_Q8_0:
        a.dot =
            tn_textf("let at = base * 4u + %du + (u >> 1u) * 64u + p %% 64u; let q = %s; "
                     "d += bitcast<f32>(kv[at >> 2u][at & 3u]) * (dot(query[q], unpack(k.x)) + dot(query[q + 1u], "
                     "unpack(k.y)) + dot(query[q + 2u], unpack(k.z)) + dot(query[q + 3u], unpack(k.w)));",
                     scales, q.s);
        a.scale = tn_textf("let at = base * 4u + %du + p %% 64u * %du + (unit >> 1u); "
                           "let scale = bitcast<f32>(kv[at >> 2u][at & 3u]);",
                           scales + ku / 2 * TN_PAGE_TOKENS, vu / 2);
        a.add = tn_textf("sums[k][0] += e * scale * unpack(v.x); sums[k][1] += e * scale * unpack(v.y); sums[k][2] "
                         "+= e * scale * unpack(v.z); sums[k][3] += e * scale * unpack(v.w);");
        break;
    }
    return a;
}

/* The loops' bodies: loads first, then what is done with them. */
static void unrolled(tn_buf *dots, tn_buf *values, const access *how, int32_t unroll, int32_t ku, int32_t vu,
                     int32_t v_team, int32_t heads) {
    for (int32_t k = 0; k < unroll; k++)
        tn_buf_printf(dots, "let k%d = kv[base + (u0 + %du) * 64u + p %% 64u];\n", k, k);
    for (int32_t k = 0; k < unroll; k++)
        tn_buf_printf(dots, "{ let u = u0 + %du; let k = k%d; %s }\n", k, k, how->dot.s);
    for (int32_t k = 0; k < 4; k++)
        tn_buf_printf(values,
                      "let p%d = min(p0 + %du * (WG / %du), last - 1u);\n"
                      "let b%d = select(base_a, base_b, (p%d & 64u) != 0u);\n"
                      "let v%d = kv[b%d + %du + p%d %% 64u * %du + unit];\n",
                      k + 1, k, v_team, k, k + 1, k, k, ku * TN_PAGE_TOKENS, k + 1, vu);
    for (int32_t k = 0; k < 4; k++)
        tn_buf_printf(values,
                      "if (p0 + %du * (WG / %du) < last) {\n    let p = p%d; let base = b%d; let v = v%d; %s\n"
                      "    for (var k = 0u; k < %du; k++) { let e = score[k * %du + p - first]; %s }\n}\n",
                      k, v_team, k + 1, k, k, how->scale.s, heads, TILE, how->add.s);
}

/* The final result, or a split's part of it. */
static tn_text store_of(tn_emit *e, int32_t i, const tn_attr *a) {
    tn_text store = tn_emit_store(e, i, "c", "y", false);
    if (e->kernel->core != TN_WEBGPU_SPLIT) return store;
    return tn_textf(
        "if (n_splits == 1u) { %s } else {\n    let at = split_at(row, head * %du + h, split);\n"
        "    scratch[at + c %% %du] = y;\n    if (c %% %du == 0u) {\n        scratch[at + %du] = top[k];\n"
        "        scratch[at + %du] = weight[k];\n    }\n}",
        store.s, a->n_head / a->n_kv, a->v_dim, a->v_dim, a->v_dim, a->v_dim + 1);
}

static void emit_core(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    const tn_attr *a = &n->attr;
    int32_t dims = tn_webgpu_kv_dims(e->kv_type), ku = a->head_dim / dims, vu = a->v_dim / dims;
    int32_t group = a->n_head / a->n_kv, heads = group < HEADS ? power_of_two(group) : HEADS;
    int32_t v_team = power_of_two(vu), query = group * a->head_dim;
    int32_t whole = e->kv_type == TN_KV_Q8_0 ? 32 : 8;
    if (a->head_dim % whole || a->v_dim % whole) e->why = "heads that are not whole blocks of the cache";
    if (v_team > e->wg) e->why = "heads of more elements than a workgroup can sum";
    if (e->form.max_rows > 65535) e->why = "more tokens than a dispatch has rows of workgroups";
    if (e->why) return;
    e->state = a->index;
    tn_emit_team(e, e->wg / heads);
    tn_buf_printf(&e->types,
                  "var<workgroup> query: array<vec4<f32>, %d>;\nvar<workgroup> score: array<f32, %d>;\n"
                  "var<workgroup> part: array<vec4<f32>, %d>;\nvar<workgroup> top: array<f32, %d>;\n"
                  "var<workgroup> weight: array<f32, %d>;\nvar<workgroup> shrink: array<f32, %d>;\n",
                  query / 4, heads * TILE, e->wg, heads, heads, heads);
    e->extra_bytes += query * 4 + heads * TILE * 4 + e->wg * 16 + heads * 12;
    double scale = (double)a->factor, cap = (double)a->softcap;
    access how = access_of(e->kv_type, a->head_dim, ku, vu);
    tn_buf dots = {0}, values = {0};
    int32_t unroll = ku % 8 == 0 ? 8 : ku % 4 == 0 ? 4 : ku % 2 == 0 ? 2 : 1;
    unrolled(&dots, &values, &how, unroll, ku, vu, v_team, heads);
    tn_emit_piece(e, &e->body, "attend", "PAGES_AT", NUM(e->step.pages_at), "GROUP", NUM(group), "K_DIM",
                  NUM(a->head_dim), "V_DIM", NUM(a->v_dim), "Q", tn_emit_load(e, n, 0, "c", false).s, "HEADS",
                  NUM(heads), "VECS", NUM(dims / 4), "TILE", NUM(TILE), "N_KV", NUM(a->n_kv), "SIZE",
                  NUM(tn_webgpu_kv_size(e->kv_type, a->head_dim, a->v_dim)), "K_UNITS", NUM(ku), "V_UNITS", NUM(vu),
                  "V_TEAM", NUM(v_team), "V_DIMS", NUM(dims), "TEAM", NUM(e->wg / heads), "UNROLL", NUM(unroll),
                  "DOTS", dots.p ? dots.p : "", "SCORE",
                  cap != 0 ? tn_textf("%.9e * tanh(clamp(d * %.9e, -12.0, 12.0))", cap, scale / cap).s
                           : tn_textf("d * %.9e", scale).s,
                  "VALUES", values.p ? values.p : "", "STORE", store_of(e, i, a).s, NULL);
    e->body.failed |= dots.failed || values.failed;
    tn_buf_free(&dots);
    tn_buf_free(&values);
}

static void emit_merge(tn_emit *e, int32_t i) {
    const tn_attr *a = &tn_emit_node(e, i)->attr;
    tn_emit_piece(e, &e->body, "attend_merge", "GROUP", NUM(a->n_head / a->n_kv), "V_DIM", NUM(a->v_dim), "SIZE",
                  NUM(a->v_dim + 2), "STORE", tn_emit_store(e, i, "c", "y", false).s, NULL);
    e->from_pos = SPLIT_FROM;
}

void tn_emit_attend(tn_emit *e) {
    int32_t core = 0;
    while (e->form.role[core] != TN_CORE) core++;
    const tn_attr *a = &tn_emit_node(e, core)->attr;
    bool split = e->kernel->core == TN_WEBGPU_SPLIT;
    e->value[core].loop = 150;                                        /* of its own */
    for (int32_t i = core + 1; i < e->n; i++) e->value[i].loop = 200; /* until they are ordered: not the core's */
    e->rows_per_y = 1;
    emit_places(e, a);
    if (split) declare_splits(e, a);
    if (e->stage == 0) tn_emit_row_ops(e, TN_BEFORE);
    if (e->why) return;
    tn_emit_give_buffers(e, TN_CORE);
    if (e->stage == 0)
        emit_core(e, core);
    else
        emit_merge(e, core);
    if (e->why) return;
    if (split && e->stage == 0) tn_buf_str(&e->body, "    if (n_splits == 1u) {\n");
    tn_emit_row_ops(e, TN_AFTER);
    if (split && e->stage == 0) tn_buf_str(&e->body, "    }\n");
}
