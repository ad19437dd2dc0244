/* Attention with what stands around it: one workgroup for a token and a head of the cache, for all query heads that share
 * it. Rotation, head norms and the cache write come before in the same workgroup, ops on the result after. The positions are
 * taken tile by tile; a tile's keys and values are asked for while the one before is worked on, the first one's before all
 * else. What is written to the cache here is kept at hand and never read back, for which the workgroup would have to wait.
 * For few tokens the context is split: workgroups take tiles of it in turn and leave partial results, which a second dispatch
 * brings together (workgroups of one dispatch cannot rely on seeing each other's writes). While a token has few positions
 * behind it, its first workgroup does everything, and the second dispatch is left out. */
#include "backend/webgpu/emit.h"

enum {
    HEADS = 4,        /* of the queries, at once */
    HELD = 4,         /* units of k, and of v, that an invocation holds */
    SPLIT_FROM = 256, /* position of a token whose context is split */
    GROUPS = 256,     /* workgroups that keep a large device busy */
    MAX_SPLITS = 32
};

static int32_t power_of_two(int32_t n) {
    int32_t p = 1;
    while (p < n) p *= 2;
    return p;
}

/* How a head lies on the workgroup. */
typedef struct cut {
    int32_t ku, vu, vecs;     /* units of a head's k and v; vec4 of a unit */
    int32_t tile, parts, k_n; /* positions at once; neighbours that share one; units of k of each of them */
    int32_t team, teams, v_n; /* units of v, a power of two; positions at the same time; one after the other */
    int32_t group, heads;     /* query heads of this cache head; so many of them at once */
    int32_t results;          /* vec4 of each invocation that are brought together at once */
} cut;

static const char *text_of(const tn_buf *b) {
    return b->p ? b->p : "";
}

static cut cut_of(const tn_emit *e, const tn_attr *a) {
    int32_t dims = tn_webgpu_kv_dims(e->kv_type);
    cut c = {.ku = a->head_dim / dims, .vu = a->v_dim / dims, .vecs = dims / 4, .group = a->n_head / a->n_kv};
    int32_t held =
        e->kernel->core == TN_WEBGPU_SPLIT ? 2 * HELD : HELD; /* few workgroups have the device for themselves */
    c.tile = e->wg;
    while (c.tile > 32 && (c.ku * c.tile > held * e->wg || c.vu * c.tile > held * e->wg)) c.tile /= 2;
    c.parts = e->wg / c.tile;
    c.k_n = (c.ku + c.parts - 1) / c.parts;
    c.team = power_of_two(c.vu);
    c.teams = c.team < e->wg ? e->wg / c.team : 1;
    if (c.teams > c.tile) c.teams = c.tile; /* narrow values: the other invocations rest */
    c.v_n = (c.tile + c.teams - 1) / c.teams;
    int32_t turns = (c.group + HEADS - 1) / HEADS;
    c.heads = (c.group + turns - 1) / turns;
    bool room = e->d->subgroup && e->d->limits.maxComputeWorkgroupStorageSize >= 32768;
    c.results = !room ? 1 : c.heads * c.vecs < 4 ? c.heads * c.vecs : 4;
    return c;
}

static int32_t splits_of(const tn_emit *e, const tn_attr *a, const cut *c) {
    int32_t n = GROUPS / a->n_kv / e->form.max_rows,
            tiles = a->window ? (a->window + c->tile - 2) / c->tile + 1 : MAX_SPLITS;
    n = n > MAX_SPLITS ? MAX_SPLITS : n;
    n = n > tiles ? tiles : n;
    return e->kernel->core != TN_WEBGPU_SPLIT ? 1 : n < 2 ? 2 : n;
}

/* Where a split leaves what it found: the values, then the largest score and the sum of weights. */
static void declare_splits(tn_emit *e, const tn_attr *a, const cut *c) {
    int32_t n = splits_of(e, a, c), size = a->v_dim + 2;
    e->scratch_words = (uint64_t)e->form.max_rows * (uint64_t)a->n_head * (uint64_t)n * (uint64_t)size;
    tn_buf_printf(&e->head,
                  "fn split_at(row: u32, head: u32, split: u32) -> u32 { return ((row * %du + head) * %du + split) * "
                  "%du; }\n",
                  a->n_head, n, size);
}

/* The token, its head, what it sees, and how that is split; the page that it is in. */
static void emit_places(tn_emit *e, const tn_attr *a, const cut *c) {
    int32_t n = splits_of(e, a, c);
    tn_buf *b = &e->body;
    int32_t x = e->stage ? 1 : n;
    tn_buf_printf(b,
                  "    let head = group.x / %du;\n    let split = group.x %% %du;\n    let row = group.y;\n"
                  "    if (row >= n_rows) { return; }\n    let position = step[%du + row];\n"
                  "    let pages_at = step[%du + row];\n    let seen = ",
                  x, x, e->step.pos, e->step.pages_at);
    if (a->window)
        tn_buf_printf(b, "select(0u, position - %du, position > %du);\n", a->window - 1, a->window - 1);
    else
        tn_buf_str(b, "0u;\n");
    tn_buf_printf(b,
                  "    let tiles = position / %du - seen / %du + 1u;\n"
                  "    let n_splits = select(min(tiles, %du), 1u, position < %du);\n"
                  "    let owner = (tiles - 1u) %% n_splits == split;\n"
                  "    let page = step[pages_at + position / 64u];\n",
                  c->tile, c->tile, n, SPLIT_FROM);
    if (n > 1)
        tn_buf_str(b,
                   e->stage ? "    if (n_splits == 1u) { return; }\n" : "    if (split >= n_splits) { return; }\n");
    e->x = (uint32_t)(a->n_kv * x);
}

/* ---- loads ---- */

/* Position number j of an invocation in the tile at `first`, for v. */
static tn_text v_position(const cut *c, const char *first, int32_t j) {
    return tn_textf("%s + %du + tid / %du", first, j * c->teams, c->team);
}

/* What an invocation needs of the tile at `first`: units of k and v, scales where they have them. Positions beyond the token's
 * are its own; what is read there is not used. */
static void emit_loads(const tn_emit *e, tn_buf *b, const tn_attr *a, const cut *c, const char *to,
                       const char *first) {
    int32_t size = tn_webgpu_kv_size(e->kv_type, a->head_dim, a->v_dim),
            scales = (c->ku + c->vu) * TN_PAGE_TOKENS * 4;
    bool scaled = e->kv_type == TN_KV_Q8_0;
    tn_buf_printf(b,
                  "{ let p = min(%s + place, position);\nlet base = (step[pages_at + p / 64u] * %du + head) * %du;\n",
                  first, a->n_kv, size);
    for (int32_t j = 0; j < c->k_n; j++) {
        tn_text u = tn_textf("min(%du + part, %du)", j * c->parts, c->ku - 1);
        tn_buf_printf(b, "%sk%d = kv[base + %s * 64u + p %% 64u];\n", to, j, u.s);
        if (scaled)
            tn_buf_printf(
                b, "{ let at = base * 4u + %du + (%s >> 1u) * 64u + p %% 64u;\n%sks%d = kv[at >> 2u][at & 3u]; }\n",
                scales, u.s, to, j);
    }
    tn_buf_str(b, "}\n");
    for (int32_t j = 0; j < c->v_n; j++) {
        tn_buf_printf(b, "{ let p = min(%s, position);\nlet base = (step[pages_at + p / 64u] * %du + head) * %du;\n",
                      v_position(c, first, j).s, a->n_kv, size);
        tn_buf_printf(b, "%sv%d = kv[base + %du + p %% 64u * %du + min(unit, %du)];\n", to, j, c->ku * TN_PAGE_TOKENS,
                      c->vu, c->vu - 1);
        if (scaled)
            tn_buf_printf(b,
                          "let at = base * 4u + %du + p %% 64u * %du + (min(unit, %du) >> 1u);\n"
                          "%svs%d = kv[at >> 2u][at & 3u];\n",
                          scales + c->ku / 2 * TN_PAGE_TOKENS, c->vu / 2, c->vu - 1, to, j);
        tn_buf_str(b, "}\n");
    }
}

/* The token's own position, which this workgroup has just written: read where it was kept. */
static void emit_fresh(const tn_emit *e, tn_buf *b, const cut *c) {
    bool scaled = e->kv_type == TN_KV_Q8_0;
    tn_buf_str(b, "if (!more) {\nif (here + place == position) {\n");
    for (int32_t j = 0; j < c->k_n; j++) {
        tn_text u = tn_textf("min(%du + part, %du)", j * c->parts, c->ku - 1);
        tn_buf_printf(b, "at_k%d = fresh[%s];\n", j, u.s);
        if (scaled) tn_buf_printf(b, "at_ks%d = bitcast<u32>(fresh_scale[%s >> 1u]);\n", j, u.s);
    }
    tn_buf_str(b, "}\n");
    for (int32_t j = 0; j < c->v_n; j++) {
        tn_buf_printf(b, "if (%s >= position) {\nat_v%d = fresh[%du + min(unit, %du)];\n", v_position(c, "here", j).s,
                      j, c->ku, c->vu - 1);
        if (scaled)
            tn_buf_printf(b, "at_vs%d = bitcast<u32>(fresh_scale[%du + (min(unit, %du) >> 1u)]);\n", j, c->ku / 2,
                          c->vu - 1);
        tn_buf_str(b, "}\n");
    }
    tn_buf_str(b, "}\n");
}

/* Its scales go to the cache. Some share a vec4, so that one invocation writes them all. */
static void emit_scales(const tn_emit *e, tn_buf *b, const tn_attr *a, const cut *c) {
    int32_t size = tn_webgpu_kv_size(e->kv_type, a->head_dim, a->v_dim), kb = c->ku / 2, vb = c->vu / 2;
    tn_buf_printf(
        b,
        "if (owner && tid == 0u) {\nlet base = ((page * %du + head) * %du + %du) * 4u;\n"
        "for (var b = 0u; b < %du; b++) {\n"
        "let at = base + select(%du + position %% 64u * %du + b - %du, b * 64u + position %% 64u, b < %du);\n"
        "kv[at >> 2u][at & 3u] = bitcast<u32>(fresh_scale[b]);\n} }\n",
        a->n_kv, size, (c->ku + c->vu) * TN_PAGE_TOKENS, kb + vb, kb * TN_PAGE_TOKENS, vb, kb, kb);
}

/* Declares the variables of emit_loads, or (from) sets them. */
static void name_loads(const tn_emit *e, tn_buf *b, const cut *c, const char *to, const char *from) {
    bool scaled = e->kv_type == TN_KV_Q8_0;
    for (int v = 0; v < 2; v++)
        for (int32_t j = 0; j < (v ? c->v_n : c->k_n); j++) {
            char x = "kv"[v];
            if (from) tn_buf_printf(b, "%s%c%d = %s%c%d;\n", to, x, j, from, x, j);
            if (from && scaled) tn_buf_printf(b, "%s%cs%d = %s%cs%d;\n", to, x, j, from, x, j);
            if (!from) tn_buf_printf(b, "    var %s%c%d: vec4<u32>;\n", to, x, j);
            if (!from && scaled) tn_buf_printf(b, "    var %s%cs%d: u32;\n", to, x, j);
        }
}

static void declare_loads(tn_emit *e, const cut *c) {
    tn_buf_printf(&e->body,
                  "    let place = tid / %du;\n    let part = tid %% %du;\n    let unit = tid %% %du;\n"
                  "    let start = (seen / %du + split) * %du;\n    var first = start;\n",
                  c->parts, c->parts, c->team, c->tile, c->tile);
    name_loads(e, &e->body, c, "at_", NULL);
    name_loads(e, &e->body, c, "next_", NULL);
}

/* ---- what is done with them ---- */

/* Component of the heads that are worked on at once. */
static const char *of_head(const cut *c, int32_t h) {
    static const char *const names[] = {".x", ".y", ".z", ".w"};
    return c->heads == 1 ? "" : names[h];
}

/* The query of head h of these, four columns from column `at` of its head. */
static tn_text query(const tn_emit *e, const tn_node *n, const cut *c, int32_t h, const char *at) {
    int32_t from = tn_emit_index(e, n->src[0].node);
    tn_text head = c->heads == c->group ? tn_textf("%du", h) : tn_textf("min(h0 + %du, %du)", h, c->group - 1);
    if (from >= 0 && e->value[from].buffer >= 0)
        return tn_textf("wgf4(%du + %s * %du + %s)", e->value[from].buffer + n->src[0].first, head.s,
                        n->attr.head_dim, at);
    return tn_textf("query[(%s * %du + %s) >> 2u]", head.s, n->attr.head_dim, at);
}

/* The vec4 of a unit as floats: x0, x1, ... */
static void unpack_unit(const tn_emit *e, tn_buf *b, const cut *c, const char *name) {
    for (int32_t x = 0; x < c->vecs; x++) {
        if (e->kv_type == TN_KV_F32) tn_buf_printf(b, "let x0 = bitcast<vec4<f32>>(%s);\n", name);
        if (e->kv_type == TN_KV_F16) tn_buf_printf(b, "let x%d = halves4(%s.%s);\n", x, name, x ? "zw" : "xy");
        if (e->kv_type == TN_KV_Q8_0) tn_buf_printf(b, "let x%d = scale * unpack(%s.%c);\n", x, name, "xyzw"[x]);
    }
}

static void emit_dots(tn_emit *e, tn_buf *b, const tn_node *n, const cut *c) {
    bool scaled = e->kv_type == TN_KV_Q8_0;
    for (int32_t j = 0; j < c->k_n; j++) {
        bool whole = (j + 1) * c->parts <= c->ku;
        tn_buf_printf(b, "{ let u = %du + part;\n", j * c->parts);
        if (!whole) tn_buf_printf(b, "if (u < %du) {\n", c->ku);
        if (scaled) tn_buf_printf(b, "let scale = bitcast<f32>(at_ks%d);\n", j);
        unpack_unit(e, b, c, tn_textf("at_k%d", j).s);
        for (int32_t h = 0; h < c->heads; h++)
            for (int32_t x = 0; x < c->vecs; x++)
                tn_buf_printf(b, "d%s += dot(%s, x%d);\n", of_head(c, h),
                              query(e, n, c, h, tn_textf("u * %du + %du", c->vecs * 4, x * 4).s).s, x);
        tn_buf_str(b, whole ? "}\n" : "} }\n");
    }
}

static void emit_values(tn_emit *e, tn_buf *b, const cut *c) {
    bool scaled = e->kv_type == TN_KV_Q8_0;
    for (int32_t h = 0; h < c->heads; h++)
        for (int32_t x = 0; x < c->vecs; x++) tn_buf_printf(b, "sum%d_%d *= shrink%s;\n", h, x, of_head(c, h));
    for (int32_t j = 0; j < c->v_n; j++) {
        tn_buf_printf(b, "{ let w = narrow(score[%du + tid / %du]);\nweight += w;\n", j * c->teams, c->team);
        if (scaled) tn_buf_printf(b, "let scale = bitcast<f32>(at_vs%d);\n", j);
        unpack_unit(e, b, c, tn_textf("at_v%d", j).s);
        for (int32_t h = 0; h < c->heads; h++)
            for (int32_t x = 0; x < c->vecs; x++)
                tn_buf_printf(b, "sum%d_%d += w%s * x%d;\n", h, x, of_head(c, h), x);
        tn_buf_str(b, "}\n");
    }
}

/* ---- results ---- */

/* Four columns of the result: several invocations must not write to one vec4 of the arena. */
static tn_text store_of_four(tn_emit *e, int32_t i) {
    if (e->vec == 4) return tn_emit_store(e, i, "c", "y", true);
    return tn_textf("for (var j = 0u; j < 4u; j++) { %s }", tn_emit_store(e, i, "c + j", "y[j]", false).s);
}

/* The final result, or a split's part of it. */
static tn_text store_of(tn_emit *e, int32_t i, const tn_attr *a) {
    tn_text store = store_of_four(e, i);
    if (e->kernel->core != TN_WEBGPU_SPLIT) return store;
    return tn_textf("if (n_splits == 1u) { %s } else {\nlet at = split_at(row, head * %du + h, split);\n"
                    "for (var j = 0u; j < 4u; j++) { scratch[at + c %% %du + j] = y[j]; }\n"
                    "if (c %% %du == 0u) {\nscratch[at + %du] = tops[h - h0];\nscratch[at + %du] = all;\n} }",
                    store.s, a->n_head / a->n_kv, a->v_dim, a->v_dim, a->v_dim, a->v_dim + 1);
}

static void emit_results(tn_emit *e, tn_buf *b, int32_t i, const tn_attr *a, const cut *c) {
    int32_t all = c->heads * c->vecs;
    for (int32_t first = 0; first < all; first += c->results) {
        int32_t n = all - first < c->results ? all - first : c->results;
        tn_buf_str(b, "workgroupBarrier();\n");
        for (int32_t k = 0; k < n; k++)
            tn_buf_printf(b, "score[%du + tid] = sum%d_%d;\n", k * e->wg, (first + k) / c->vecs,
                          (first + k) % c->vecs);
        tn_emit_piece(e, b, "attend_result", "N", NUM(n), "FIRST", NUM(first), "VECS", NUM(c->vecs), "GROUP",
                      NUM(c->group), "TEAMS", NUM(c->teams), "TEAM", NUM(c->team), "V_UNITS", NUM(c->vu), "V_DIM",
                      NUM(a->v_dim), "STORE", store_of(e, i, a).s, NULL);
    }
}

/* ---- the core ---- */

static void declare_core(tn_emit *e, const tn_node *n, const cut *c, bool fresh) {
    static const struct {
        const char *type, *spread, *narrow;
    } types[] = {{0},
                 {"f32", "vec4<f32>(h, 0.0, 0.0, 0.0)", "v.x"},
                 {"vec2<f32>", "vec4<f32>(h, 0.0, 0.0)", "v.xy"},
                 {"vec3<f32>", "vec4<f32>(h, 0.0)", "v.xyz"},
                 {"vec4<f32>", "h", "v"}};
    int32_t from = tn_emit_index(e, n->src[0].node), size = c->group * n->attr.head_dim;
    tn_buf_printf(&e->types,
                  "alias H = %s;\nfn spread(h: H) -> vec4<f32> { return %s; }\n"
                  "fn narrow(v: vec4<f32>) -> H { return %s; }\nvar<workgroup> score: array<vec4<f32>, %d>;\n"
                  "var<workgroup> weights: array<vec4<f32>, %d>;\nvar<workgroup> tops: array<f32, %d>;\n",
                  types[c->heads].type, types[c->heads].spread, types[c->heads].narrow, e->wg * c->results, c->teams,
                  c->heads);
    e->extra_bytes += e->wg * c->results * 16 + c->teams * 16 + c->heads * 4;
    e->extra_bytes += (e->d->subgroup ? e->wg / e->d->subgroup : e->wg) * (c->heads == 3 ? 16 : c->heads * 4);
    e->head_teams = (uint32_t)(e->wg | c->parts);
    if (fresh) {
        tn_buf_printf(&e->types, "var<workgroup> fresh: array<vec4<u32>, %d>;\n", c->ku + c->vu);
        e->extra_bytes += (c->ku + c->vu) * 16;
    }
    if (fresh && e->kv_type == TN_KV_Q8_0) {
        tn_buf_printf(&e->types, "var<workgroup> fresh_scale: array<f32, %d>;\n", (c->ku + c->vu) / 2);
        e->extra_bytes += (c->ku + c->vu) * 2;
    }
    if (from >= 0 && e->value[from].buffer >= 0) return;
    tn_buf_printf(&e->types, "var<workgroup> query: array<vec4<f32>, %d>;\n", size / 4);
    e->extra_bytes += size * 4;
    tn_buf_printf(&e->body, "    for (var c = tid * 4u; c < %du; c += WG * 4u) { query[c >> 2u] = ", size);
    if (e->vec == 4) tn_buf_str(&e->body, tn_emit_load(e, n, 0, "c", true).s);
    for (int k = 0; e->vec != 4 && k < 4; k++)
        tn_buf_printf(&e->body, "%s%s", k ? ", " : "vec4<f32>(",
                      tn_emit_load(e, n, 0, tn_textf("c + %du", k).s, false).s);
    tn_buf_str(&e->body, e->vec == 4 ? "; }\n" : "); }\n");
}

static void emit_core(tn_emit *e, int32_t i, const cut *c) {
    const tn_node *n = tn_emit_node(e, i);
    const tn_attr *a = &n->attr;
    bool fresh = tn_emit_index(e, n->src[1].node) >= 0;
    declare_core(e, n, c, fresh);
    double scale = (double)a->factor, cap = (double)a->softcap;
    if (cap != 0) tn_emit_piece(e, &e->types, "element", "V", "H", "S", "h", NULL);
    tn_buf scales = {0}, again = {0}, sums = {0}, next = {0}, dots = {0}, values = {0}, move = {0}, tops = {0},
           results = {0};
    if (c->heads < c->group) {
        tn_buf_str(&again, "if (h0 > 0u) {\nfirst = start;\n");
        emit_loads(e, &again, a, c, "at_", "first");
        tn_buf_str(&again, "}\n");
    }
    if (fresh && e->kv_type == TN_KV_Q8_0) emit_scales(e, &scales, a, c);
    emit_loads(e, &next, a, c, "next_", "first");
    if (fresh) emit_fresh(e, &dots, c);
    emit_dots(e, &dots, n, c);
    emit_values(e, &values, c);
    name_loads(e, &move, c, "at_", "next_");
    emit_results(e, &results, i, a, c);
    for (int32_t h = 0; h < c->heads; h++) {
        for (int32_t x = 0; x < c->vecs; x++) tn_buf_printf(&sums, "var sum%d_%d = vec4<f32>();\n", h, x);
        tn_buf_printf(&tops, "tops[%d] = largest%s; ", h, of_head(c, h));
    }
    tn_emit_piece(
        e, &e->body, "attend", "TILE", NUM(c->tile), "HEADS", NUM(c->heads), "GROUP", NUM(c->group), "WG", NUM(e->wg),
        "SCALES", text_of(&scales), "AGAIN", text_of(&again), "SUMS", text_of(&sums), "NEXT", text_of(&next), "DOTS",
        text_of(&dots), "PARTS", c->parts > 1 ? tn_textf("d = sumh_%d(d);", c->parts).s : "", "SCORE",
        tn_textf(cap != 0 ? "softcaph(d * %.9e, %.9e)" : "d * %.9e", scale, cap).s, "VALUES", text_of(&values),
        "MOVE", text_of(&move), "TEAM", NUM(c->team), "LARGEST", text_of(&tops), "RESULTS", text_of(&results), NULL);
    tn_buf *all[] = {&scales, &again, &sums, &next, &dots, &values, &move, &tops, &results};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        e->body.failed |= all[k]->failed;
        tn_buf_free(all[k]);
    }
}

static void emit_merge(tn_emit *e, int32_t i) {
    const tn_attr *a = &tn_emit_node(e, i)->attr;
    tn_emit_piece(e, &e->body, "attend_merge", "GROUP", NUM(a->n_head / a->n_kv), "V_DIM", NUM(a->v_dim), "SIZE",
                  NUM(a->v_dim + 2), "STORE", store_of_four(e, i).s, NULL);
    e->from_pos = SPLIT_FROM;
}

static const char *unfit(const tn_emit *e, const tn_attr *a) {
    int32_t whole = e->kv_type == TN_KV_Q8_0 ? 32 : 8;
    if (a->head_dim % whole || a->v_dim % whole) return "heads that are not whole blocks of the cache";
    if (power_of_two(a->v_dim / tn_webgpu_kv_dims(e->kv_type)) > e->wg)
        return "heads of more elements than a workgroup can sum";
    if (e->form.max_rows > 65535) return "more tokens than a dispatch has rows of workgroups";
    return NULL;
}

static void emit_attend(tn_emit *e, int32_t core, const tn_attr *a, const cut *c) {
    bool heads = tn_emit_heads_suit(e);
    declare_loads(e, c);
    emit_loads(e, &e->body, a, c, "at_", "first");
    if (heads) {
        tn_emit_heads_loads(e);
        tn_emit_heads(e);
    } else {
        tn_emit_row_ops(e, TN_BEFORE);
    }
    if (e->why) return;
    tn_emit_give_buffers(e, TN_CORE);
    emit_core(e, core, c);
}

void tn_emit_attend(tn_emit *e) {
    int32_t core = 0;
    while (e->form.role[core] != TN_CORE) core++;
    const tn_attr *a = &tn_emit_node(e, core)->attr;
    bool split = e->kernel->core == TN_WEBGPU_SPLIT;
    e->why = unfit(e, a);
    if (e->why) return;
    cut c = cut_of(e, a);
    e->state = a->index;
    e->value[core].loop = 150;                                        /* of its own */
    for (int32_t i = core + 1; i < e->n; i++) e->value[i].loop = 200; /* until they are ordered: not the core's */
    e->rows_per_y = 1;
    emit_places(e, a, &c);
    if (split) declare_splits(e, a, &c);
    if (e->stage == 0) {
        emit_attend(e, core, a, &c);
    } else {
        tn_emit_give_buffers(e, TN_CORE);
        emit_merge(e, core);
    }
    if (e->why) return;
    if (split && e->stage == 0) tn_buf_str(&e->body, "    if (n_splits == 1u) {\n");
    tn_emit_row_ops(e, TN_AFTER);
    if (split && e->stage == 0) tn_buf_str(&e->body, "    }\n");
}
