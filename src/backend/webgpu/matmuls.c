/* Products with what stands before and after them. For few rows: a team of invocations holds some rows of the weight, each
 * lane some blocks, over all tokens. For many rows: tiles. After both, one invocation a result runs the ops on
 * it. Of experts: a workgroup takes one of a token's, or (tiles) one expert with all the tokens that chose it. */
#include "backend/webgpu/matmuls.h"

#include <string.h>

enum { MAX_GROUPS_BEFORE = 2048 };

static int32_t depth_of(const tn_emit *e, const tn_node *n) {
    return tn_src_weight(e->g, n->src[1])->n_in;
}

int32_t tn_blocks_of(const tn_emit *e, const tn_node *n) {
    return (depth_of(e, n) + 31) / 32;
}

/* The weight as the device has it; NULL while only asked whether there is a kernel. */
static const tn_webgpu_weight *held(const tn_emit *e, const tn_node *n) {
    return e->d->weights ? &e->d->weights[e->g->nodes[n->src[1].node].attr.index] : NULL;
}

const tn_webgpu_type *tn_product_type(const tn_emit *e, const tn_node *n) {
    const tn_weight *w = tn_src_weight(e->g, n->src[1]);
    return tn_webgpu_type_of(w->n_out == 1 ? TN_TYPE_F32 : w->type);
}

bool tn_product_int8(const tn_emit *e, const tn_node *n) {
    return tn_shape_of(e->g, n->src[0])->dtype == TN_Q8;
}

/* ---- activations: x_ID(row, block) as int8, xv_ID(row, block, k) as floats ---- */

/* The first word of the activations that meet this weight, in the row of a token: those of the expert's slot, where each
 * has its own. */
static tn_text slot_of(const tn_emit *e, const tn_node *n) {
    int32_t depth = depth_of(e, n);
    if (n->src[0].cols == depth) return tn_textf("0u");
    return tn_textf("slot * %zuu", tn_product_int8(e, n) ? tn_q8_row_bytes((size_t)depth) / 4 : (size_t)depth);
}

/* In the workgroup's memory 32 columns are two vec4 of wq and one of wd, and lie so that invocations which read pairs of
 * them side by side read words side by side. */
static void emit_x_int8(tn_emit *e, int32_t id, const tn_node *n, const cut *c) {
    int32_t from = tn_emit_index(e, n->src[0].node), k = depth_of(e, n), pairs = (k / 32 + 1) / 2;
    tn_buf *b = &e->head;
    e->int8 = true;
    if (from >= 0 || c->staged) {
        int32_t at = from >= 0 ? e->value[from].buffer : 0;
        tn_buf_printf(b,
                      "fn x_%d(row: u32, b: u32) -> X8 {\n"
                      "    let i = %du + row * %du + (b & 1u) * %du + (b >> 1u);\n"
                      "    return X8(wq[i], wq[i + %du], wd[%du + row * %du + (b & 1u) * %du + (b >> 1u)]);\n}\n",
                      id, at / 4, pairs * 4, pairs * 2, pairs, at / 8, pairs * 2, pairs);
        tn_buf_printf(b,
                      "fn xv_%d(row: u32, b: u32, k: u32) -> vec4<f32> {\n    let x = x_%d(row, b);\n"
                      "    return x.s.x * unpack(select(x.high[k & 3u], x.low[k & 3u], k < 4u));\n}\n",
                      id, id);
        return;
    }
    tn_text at = tn_textf("%s + row * %du + %s", tn_emit_place(e, n->src[0].node, 0).s,
                          tn_emit_row_words(e, n->src[0].node), slot_of(e, n).s);
    tn_buf_printf(
        b,
        "fn raw8_%d(row: u32, b: u32) -> Raw8 {\n    let at = %s;\n"
        "    return Raw8(aru4(at + b * 8u), aru4(at + b * 8u + 4u), ars(at + %du + b), aru(at + %du + b));\n}\n"
        "fn x_%d(row: u32, b: u32) -> X8 {\n    let r = raw8_%d(row, b);\n"
        "    return X8(r.low, r.high, scales_of(r.d, r.sums));\n}\n"
        "fn xv_%d(row: u32, b: u32, k: u32) -> vec4<f32> {\n    let at = %s;\n"
        "    return ars(at + %du + b) * unpack(aru(at + b * 8u + k));\n}\n",
        id, at.s, k / 4, k / 4 + k / 32, id, id, id, at.s, k / 4);
}

static void emit_x_f32(tn_emit *e, int32_t id, const tn_node *n) {
    int32_t from = tn_emit_index(e, n->src[0].node), k = depth_of(e, n);
    tn_text x;
    if (from >= 0)
        x = tn_textf("wgf4(%du + row * %du + %s + c)", e->value[from].buffer + n->src[0].first, e->value[from].size,
                     slot_of(e, n).s);
    else
        x = tn_textf("arf4(%s + row * %du + %s + c)", tn_emit_place(e, n->src[0].node, n->src[0].first).s,
                     tn_emit_row_words(e, n->src[0].node), slot_of(e, n).s);
    tn_buf_printf(&e->head, "fn xv_%d(row: u32, b: u32, k: u32) -> vec4<f32> {\n    let c = b * 32u + k * 4u;\n", id);
    if (k % 32)
        tn_buf_printf(
            &e->head,
            "    return select(vec4<f32>(), %s, vec4<u32>(c, c + 1u, c + 2u, c + 3u) < vec4<u32>(%du));\n}\n", x.s,
            k);
    else
        tn_buf_printf(&e->head, "    return %s;\n}\n", x.s);
}

/* The product's functions: its weight's, its activations', and their product. */
static void emit_product(tn_emit *e, int32_t i, const cut *c) {
    const tn_node *n = tn_emit_node(e, i);
    if (c->unit == 2)
        tn_emit_weight_pairs(e, i, n->src[1]);
    else
        tn_emit_weight(e, i, n->src[1]);
    if (tn_product_int8(e, n))
        emit_x_int8(e, i, n, c);
    else
        emit_x_f32(e, i, n);
    if (!c->tiles) tn_emit_matvec_product(e, i, c);
}

/* Row r of the part in the weight of a product. */
tn_text tn_segment_row(const part *p, const char *r) {
    if (p->slots == 0) return tn_textf("%s", r);
    return tn_textf(p->pieces ? "in_segment(expert_row + %s)" : "expert_row + %s", r);
}

/* ---- after the products ---- */

/* Of result number `i` of a workgroup: `row`, `col`, and the condition that it is one. */
static tn_text result_at(const part *p, const cut *c, const char *i) {
    tn_text r = tn_textf("r0 + %s %% %du", i, p->per_group), t = tn_textf("t0 + %s / %du", i, p->per_group);
    tn_text and = p->pieces ? tn_textf(" && has_row(expert_row + %s)", r.s) : tn_textf(" ");
    if (c->tiles && p->slots)
        return tn_textf("let row = pair_row(min(%s, count - 1u)); let col = slot * %du + %s; if (%s < count && %s <= "
                        "last_row%s)",
                        t.s, p->cols, r.s, t.s, r.s, and.s);
    return tn_textf("let row = %s; let col = col0 + %s; if (row < n_rows && %s <= last_row%s)", t.s, r.s, r.s, and.s);
}

/* Result i, which stands in the given slot of outs. */
static void emit_quantize_after(tn_emit *e, const part *p, const cut *c, int32_t i, int32_t slot) {
    const tn_node *n = tn_emit_node(e, i);
    int32_t width = tn_emit_q8_width(n), at = slot * c->tokens * p->per_group;
    tn_text place = tn_textf("%s + row * %du", tn_emit_place(e, e->nodes[i], 0).s, tn_emit_row_words(e, e->nodes[i]));
    tn_text row = tn_emit_q8_row(n, place.s, "col"), col = tn_emit_q8_column(n, "col"), where = result_at(p, c, "c");
    tn_text q = tn_textf("%s { arstu(%s + %s / 4u, pack(q)); }", where.s, row.s, col.s);
    tn_text d = tn_textf("%s { arstu(%s + %du + %s / 32u, d); arstu(%s + %du + %s / 32u, sums); }", where.s, row.s,
                         width / 4, col.s, row.s, width / 4 + width / 32, col.s);
    tn_emit_team(e, 8);
    tn_buf_str(&e->body, "    workgroupBarrier();\n");
    tn_buf_printf(&e->body, "    for (var b = 0u; b < %du; b += WG * 4u) {\n        let c = b + tid * 4u;\n",
                  p->per_group * c->tokens);
    tn_emit_piece(
        e, &e->body, "quantize", "N", NUM(p->per_group * c->tokens), "X",
        tn_textf("vec4<f32>(outs[%du + c], outs[%du + c], outs[%du + c], outs[%du + c])", at, at + 1, at + 2, at + 3)
            .s,
        "STORE_Q", q.s, "STORE_D", d.s, NULL);
    tn_buf_str(&e->body, "    }\n");
}

/* Operand k of node i after the products: of the launch, asked for before them, or loaded. */
static tn_text operand_after(tn_emit *e, int32_t i, int k, const cut *c) {
    const tn_node *n = tn_emit_node(e, i);
    int32_t from = tn_emit_index(e, n->src[k].node);
    if (from >= 0) return tn_textf("v%d", from);
    return c->early ? tn_textf("early%d_%d", i, k) : tn_emit_load(e, n, k, "col", false);
}

/* Where an invocation has one result at most, what will meet it is asked for before the products are. */
static void emit_early(tn_emit *e, const part *p) {
    tn_buf *b = &e->body;
    for (int32_t i = 0; i < e->n; i++) {
        const tn_node *n = tn_emit_node(e, i);
        if (e->form.role[i] != TN_AFTER || e->form.part[i] != p->number) continue;
        for (int k = 0; k < n->n_src; k++) {
            if (tn_emit_index(e, n->src[k].node) >= 0) continue;
            tn_buf_printf(
                b,
                "    var early%d_%d = 0.0;\n    if (tid < %du && r0 + tid <= last_row && t0 < n_rows) {\n"
                "        let row = t0;\n        let col = col0 + r0 + tid;\n        early%d_%d = %s;\n    }\n",
                i, k, p->per_group, i, k, tn_emit_load(e, n, k, "col", false).s);
        }
    }
}

static void emit_after(tn_emit *e, const part *p, const cut *c) {
    tn_buf *b = &e->body;
    int32_t size = c->tokens * p->per_group, slot = p->n;
    tn_buf_printf(b, "    workgroupBarrier();\n    for (var e = tid; e < %du; e += WG) {\n        %s {\n", size,
                  result_at(p, c, "e").s);
    for (int32_t i = 0, product = 0; i < e->n; i++) {
        const tn_node *n = tn_emit_node(e, i);
        if (e->form.role[i] == TN_BEFORE || e->form.part[i] != p->number) continue;
        if (n->op == TN_OP_QUANTIZE) {
            tn_buf_printf(b, "        outs[%du + e] = v%d;\n", slot++ * size, tn_emit_index(e, n->src[0].node));
            continue;
        }
        if (tn_is_product(n)) {
            tn_buf_printf(b, "        let v%d = outs[%du + e];\n", i, product++ * size);
        } else {
            tn_text x = operand_after(e, i, 0, c), y = n->n_src > 1 ? operand_after(e, i, 1, c) : x;
            tn_buf_printf(b, "        let v%d = %s;\n", i, tn_emit_element(n, e->vec == 4, x.s, y.s).s);
        }
        tn_buf_printf(b, "        %s\n", tn_emit_store(e, i, "col", tn_textf("v%d", i).s, false).s);
    }
    tn_buf_str(b, "        }\n    }\n");
    slot = p->n;
    for (int32_t i = 0; i < e->n; i++)
        if (e->form.role[i] == TN_AFTER && e->form.part[i] == p->number && tn_emit_node(e, i)->op == TN_OP_QUANTIZE)
            emit_quantize_after(e, p, c, i, slot++);
}

/* ---- the whole ---- */

static bool emit_before(tn_emit *e) {
    bool any = false, experts = false;
    for (int32_t i = 0; i < e->n; i++) any |= e->form.role[i] == TN_BEFORE;
    if (!any) return false;
    for (int32_t i = 0; i < e->n; i++) {
        experts |= tn_emit_node(e, i)->op == TN_OP_MATMUL_ID;
        for (int32_t j = 0; j < e->n; j++)
            e->value[i].wanted |= e->form.role[i] == TN_BEFORE && tn_is_product(tn_emit_node(e, j)) &&
                                  tn_emit_node(e, j)->src[0].node == e->nodes[i];
    }
    e->rows_apart = true;
    tn_buf body = e->body;
    e->body = (tn_buf){0};
    tn_buf_str(&e->body, "fn before(group: vec3<u32>, n_rows: u32) {\n    let first_group = group.x == 0u;\n");
    if (e->rows_held > 1)
        tn_buf_str(&e->body, "    for (var row = 0u; row < n_rows; row++) {\n    workgroupBarrier();\n");
    else
        tn_buf_str(&e->body, experts ? "    {\n    let row = group.y;\n" : "    {\n    let row = 0u;\n");
    tn_emit_row_ops(e, TN_BEFORE);
    tn_buf_str(&e->body, "    }\n    workgroupBarrier();\n}\n");
    tn_buf_add(&e->head, e->body.p ? e->body.p : "", e->body.n);
    e->head.failed |= e->body.failed;
    tn_buf_free(&e->body);
    e->body = body;
    e->rows_apart = false;
    return true;
}

static cut choose_cut(const tn_emit *e) {
    cut c = {.tiles = e->kernel->core == TN_WEBGPU_TILES || e->kernel->core == TN_WEBGPU_DOTS,
             .dots = e->kernel->core == TN_WEBGPU_DOTS,
             .experts = e->kernel->op == TN_OP_MATMUL_ID};
    c.wg = c.dots ? 2 * TN_WEBGPU_GROUP : TN_WEBGPU_GROUP;
    c.tokens = c.dots ? 2 * TN_WEBGPU_TILE : TN_WEBGPU_TILE;
    if (!c.tiles) tn_choose_matvec(e, &c);
    return c;
}

static bool fill_part(tn_emit *e, part *p, cut *c, int32_t number) {
    *p = (part){.number = number};
    bool cut_up = false;
    for (int32_t i = 0; i < e->n; i++) {
        const tn_node *n = tn_emit_node(e, i);
        if (e->form.role[i] == TN_BEFORE || e->form.part[i] != number) continue;
        p->cols = n->out[0].cols;
        p->quantized += n->op == TN_OP_QUANTIZE;
        if (!tn_is_product(n)) continue;
        const tn_webgpu_weight *w = held(e, n);
        cut_up |= w && w->n_segments > 1;
        if (tn_product_int8(e, n) && n->src[0].first) e->why = "a slice of an int8 row";
        if (c->experts) p->slots = n->attr.n_used;
        p->product[p->n++] = i;
    }
    const tn_node *first = tn_emit_node(e, p->product[0]);
    if (cut_up && (p->n > 1 || e->form.n_parts > 1)) e->why = "a weight in several bindings is multiplied by itself";
    if (p->slots) p->cols /= p->slots;
    p->pieces = cut_up && p->slots;
    if (cut_up && !p->slots) p->cols = held(e, first)->segment[e->segment].n_rows;
    for (int32_t i = 1; i < p->n; i++)
        if (depth_of(e, tn_emit_node(e, p->product[i])) != depth_of(e, first))
            e->why = "products of different depths meet";
    if (c->tiles && p->n > 2) e->why = "too many products meet in one tile";
    return !e->why;
}

/* What an expert's workgroup works on: `slot` or the pairs that chose it, and the first of its rows in the weight. */
static void emit_experts(tn_emit *e, const part *p, const cut *c, int32_t groups) {
    const tn_node *n = tn_emit_node(e, p->product[0]);
    const tn_src ids = n->src[2];
    tn_text place = tn_emit_place_out(e, ids.node, ids.out);
    int32_t words = e->g->nodes[ids.node].out[ids.out].cols;
    if (p->pieces) {
        const tn_webgpu_segment *s = &held(e, n)->segment[e->segment];
        tn_buf_printf(&e->head,
                      "fn has_row(r: u32) -> bool { return r >= %s && r - %s < %s; }\n"
                      "fn in_segment(r: u32) -> u32 { return select(0u, r - %s, has_row(r)); }\n",
                      tn_emit_number(e, (uint32_t)s->row).s, tn_emit_number(e, (uint32_t)s->row).s,
                      tn_emit_number(e, (uint32_t)s->n_rows).s, tn_emit_number(e, (uint32_t)s->row).s);
    }
    if (c->tiles) {
        tn_buf_printf(&e->body, "    let expert_row = group.y * %du;\n", p->cols);
        tn_emit_piece(e, &e->body, "chosen", "USED", NUM(p->slots), "IDS", place.s, "WORDS", NUM(words), "FIRST",
                      NUM(ids.first), "MOST", NUM(e->form.max_rows), NULL);
        return;
    }
    tn_buf_printf(&e->body,
                  "    slot = (group.x - %du) / %du;\n    let col0 = slot * %du;\n    let t0 = group.y;\n"
                  "    let expert_row = aru(%s + t0 * %du + %du + slot) * %du;\n",
                  p->first, groups, p->cols, place.s, words, ids.first, p->cols);
}

static void emit_tokens(tn_emit *e, const part *p, const cut *c) {
    const tn_webgpu_weight *w = held(e, tn_emit_node(e, p->product[0]));
    int32_t col0 = w && w->n_segments > 1 ? w->segment[e->segment].row : 0;
    tn_buf_printf(&e->body, "    let col0 = %s;\n    let t0 = group.y * %du;\n", tn_emit_number(e, (uint32_t)col0).s,
                  c->tokens);
}

static void emit_part(tn_emit *e, part *p, const cut *given, int32_t *group) {
    cut c = *given;
    if (c.tiles) {
        p->per_group = c.tokens; /* tiles are square */
    } else {
        tn_choose_matvec_part(e, p, &c);
        p->per_group = c.wg / c.team * c.rows;
    }
    int32_t groups = (p->cols + p->per_group - 1) / p->per_group;
    p->first = *group;
    p->last = *group += groups * (c.experts && !c.tiles ? p->slots : 1);
    tn_buf_printf(&e->body,
                  "    if (group.x >= %du && group.x < %du) {\n    let r0 = (group.x - %du) %% %du * %du;\n"
                  "    let last_row = %s;\n",
                  p->first, p->last, p->first, groups, p->per_group, tn_emit_number(e, (uint32_t)p->cols - 1).s);
    if (c.experts)
        emit_experts(e, p, &c, groups);
    else
        emit_tokens(e, p, &c);
    for (int32_t k = 0; k < p->n; k++) emit_product(e, p->product[k], &c);
    c.early = !c.tiles && c.tokens == 1 && p->per_group <= c.wg;
    if (c.early) emit_early(e, p);
    if (c.tiles)
        tn_emit_tiles(e, p, &c);
    else
        tn_emit_matvec(e, p, &c);
    if (c.dots) {
        c.tokens = TN_TILE_SLICE;
        tn_emit_tile_slice(e, p);
    }
    emit_after(e, p, &c);
    if (c.dots) tn_buf_str(&e->body, "    }\n");
    tn_buf_str(&e->body, c.tiles && c.experts ? "    }\n    }\n" : "    }\n");
}

/* What all workgroups of a launch of experts have, and how many there are of them. */
static void declare_experts(tn_emit *e, const cut *c) {
    int32_t i = 0;
    while (!tn_is_product(tn_emit_node(e, i))) i++;
    const tn_node *n = tn_emit_node(e, i);
    tn_buf_str(&e->types, "var<private> slot: u32;\n");
    if (!c->tiles) return;
    tn_buf_printf(&e->types,
                  "var<workgroup> pairs: array<u32, %d>;\nvar<workgroup> found: atomic<u32>;\n"
                  "var<workgroup> n_pairs: u32;\n"
                  "fn pair_row(i: u32) -> u32 {\n    slot = pairs[i] %% %du;\n    return pairs[i] / %du;\n}\n",
                  e->form.max_rows, n->attr.n_used, n->attr.n_used);
    e->extra_bytes += e->form.max_rows * 4 + 8;
    e->rows = TN_ROWS_FIXED;
    e->fixed_rows = tn_src_weight(e->g, n->src[1])->n_expert;
}

void tn_emit_matmuls(tn_emit *e) {
    cut c = choose_cut(e);
    int32_t group = 0, outs = 0, partial = 0;
    e->wg = c.wg;
    e->rows_held = c.tiles ? 1 : c.tokens;
    if (c.experts) declare_experts(e, &c);
    c.before = emit_before(e);
    if (c.staged) tn_emit_stage(e, &c);
    for (int32_t k = 0; k < e->form.n_parts && !e->why; k++) {
        part p;
        if (!fill_part(e, &p, &c, k)) return;
        emit_part(e, &p, &c, &group);
        int32_t need = (p.n + p.quantized) * (c.dots ? TN_TILE_SLICE : c.tokens) * p.per_group;
        if (need > outs) outs = need;
        if (p.n * 4 > partial) partial = p.n * 4; /* rows are at most four */
    }
    tn_buf_printf(&e->types, "var<workgroup> outs: array<f32, %d>;\n", outs);
    e->extra_bytes += outs * 4;
    if (c.tiles) {
        tn_declare_tiles(e, &c);
    } else if (!e->d->subgroup) {
        tn_buf_printf(&e->types, "var<workgroup> partial: array<f32, %d>;\n", partial * c.wg);
        e->extra_bytes += partial * c.wg * 4;
    }
    e->x = (uint32_t)group;
    if (c.before && e->x > MAX_GROUPS_BEFORE)
        e->why = "so many workgroups would do the norm again, each for itself: it runs once, before";
    e->rows_per_y = c.experts ? 1 : c.tokens;
}
