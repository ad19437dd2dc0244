/* Products with what stands before and after them. For few rows: a team of invocations holds some rows of the weight, each
 * lane some blocks, over all tokens. For many rows: tiles of 32 x 32. After both, one invocation a result runs the ops on
 * it. Of experts: a workgroup takes one of a token's, or (tiles) one expert with all the tokens that chose it. */
#include "backend/webgpu/emit.h"

#include <string.h>

enum { MAX_GROUPS_BEFORE = 2048 };

typedef struct part {
    int32_t number;
    int32_t product[TN_LAUNCH_MAX], n; /* nodes of the launch */
    int32_t cols;                      /* of the segment */
    int32_t per_group;                 /* columns of a workgroup */
    int32_t first, last;               /* workgroups */
    int32_t quantized;                 /* results that are quantized */
    int32_t slots;                     /* experts of a token, each with `cols` columns; 0: no experts */
    bool pieces;                       /* experts: of a weight in several segments, this one's rows only */
} part;

/* How the work is cut. */
typedef struct cut {
    bool tiles, experts;
    bool before; /* row ops stand before */
    int32_t team;
    int32_t rows, passes; /* of a weight, in a team: at once, and how many times */
    int32_t blocks;       /* of a row, in a lane, at once */
    int32_t tokens;       /* in a workgroup */
} cut;

static bool is_product(const tn_node *n) {
    return tn_ops[n->op].class == TN_MATMUL;
}

static int32_t depth_of(const tn_emit *e, const tn_node *n) {
    return tn_src_weight(e->g, n->src[1])->n_in;
}

static int32_t blocks_of(const tn_emit *e, const tn_node *n) {
    return (depth_of(e, n) + 31) / 32;
}

/* The weight as the device has it; NULL while only asked whether there is a kernel. */
static const tn_webgpu_weight *held(const tn_emit *e, const tn_node *n) {
    return e->d->weights ? &e->d->weights[e->g->nodes[n->src[1].node].attr.index] : NULL;
}

static const tn_webgpu_type *type_of(const tn_emit *e, const tn_node *n) {
    const tn_weight *w = tn_src_weight(e->g, n->src[1]);
    return tn_webgpu_type_of(w->n_out == 1 ? TN_TYPE_F32 : w->type);
}

static bool is_int8(const tn_emit *e, const tn_node *n) {
    return tn_shape_of(e->g, n->src[0])->dtype == TN_Q8;
}

/* ---- activations: x_ID(row, block) as int8, xv_ID(row, block, k) as floats ---- */

/* The first word of the activations that meet this weight, in the row of a token: those of the expert's slot, where each
 * has its own. */
static tn_text slot_of(const tn_emit *e, const tn_node *n) {
    int32_t depth = depth_of(e, n);
    if (n->src[0].cols == depth) return tn_textf("0u");
    return tn_textf("slot * %zuu", is_int8(e, n) ? tn_q8_row_bytes((size_t)depth) / 4 : (size_t)depth);
}

static void emit_x_int8(tn_emit *e, int32_t id, const tn_node *n) {
    int32_t from = tn_emit_index(e, n->src[0].node), k = depth_of(e, n);
    tn_buf *b = &e->head;
    if (from >= 0) {
        int32_t at = e->value[from].buffer;
        tn_buf_printf(b,
                      "fn x_%d(row: u32, b: u32) -> X8 {\n    let i = %du + row * %du + b * 2u;\n"
                      "    let d = wd[%du + row * %du + b];\n    return X8(wq[i], wq[i + 1u], bitcast<f32>(d.x), "
                      "low16(d.y), high16(d.y));\n}\n",
                      id, at / 4, k / 16, at / 8, k / 32);
        return;
    }
    tn_text at = tn_textf("%s + row * %du + %s", tn_emit_place(e, n->src[0].node, 0).s,
                          tn_emit_row_words(e, n->src[0].node), slot_of(e, n).s);
    tn_buf_printf(
        b,
        "fn x_%d(row: u32, b: u32) -> X8 {\n    let at = %s;\n    let s = aru(at + %du + b);\n"
        "    return X8(aru4(at + b * 8u), aru4(at + b * 8u + 4u), ars(at + %du + b), low16(s), high16(s));\n}\n"
        "fn xv_%d(row: u32, b: u32, k: u32) -> vec4<f32> {\n    let at = %s;\n"
        "    return ars(at + %du + b) * unpack(aru(at + b * 8u + k));\n}\n",
        id, at.s, k / 4 + k / 32, k / 4, id, at.s, k / 4);
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

/* The product's functions: its weight's, its activations', and their product of one block. */
static void emit_product(tn_emit *e, int32_t i, const cut *c) {
    const tn_node *n = tn_emit_node(e, i);
    const tn_webgpu_type *t = type_of(e, n);
    tn_emit_weight(e, i, n->src[1]);
    if (is_int8(e, n))
        emit_x_int8(e, i, n);
    else
        emit_x_f32(e, i, n);
    if (c->tiles) return;
    tn_buf_printf(&e->head, "fn block_%d(r: Raw_%s, row: u32, b: u32) -> f32 {\n", i, t->name);
    if (is_int8(e, n))
        tn_buf_printf(&e->head, "    return dot_%s(r, x_%d(row, b));\n}\n", t->name, i);
    else
        tn_buf_printf(
            &e->head,
            "    var s = 0.0;\n    for (var k = 0u; k < 8u; k++) { s += dot(value_%s(r, k), xv_%d(row, b, k)); }\n"
            "    return s;\n}\n",
            t->name, i);
}

/* ---- the two cores ---- */

/* Sums of a team's lanes to outs[product][token][column]. */
static void emit_team_sums(tn_emit *e, const part *p, const cut *c, const char *t) {
    int32_t accs = p->n * c->rows;
    tn_buf *b = &e->body;
    if (e->d->subgroup) {
        for (int32_t k = 0; k < accs; k++) tn_buf_printf(b, "        let y%d = sum_%d(a%d[%s]);\n", k, c->team, k, t);
        tn_buf_str(b, "        if (lane == 0u) {\n");
        for (int32_t k = 0; k < accs; k++)
            tn_buf_printf(b, "            outs[%du + %s * %du + team_row + %du] = y%d;\n",
                          k / c->rows * c->tokens * p->per_group, t, p->per_group, k % c->rows, k);
        tn_buf_str(b, "        }\n");
        return;
    }
    tn_buf_str(b, "        workgroupBarrier();\n");
    for (int32_t k = 0; k < accs; k++)
        tn_buf_printf(b, "        partial[%du + tid] = a%d[%s];\n", k * TN_WEBGPU_GROUP, k, t);
    int32_t teams = TN_WEBGPU_GROUP / c->team, n = accs * teams;
    tn_buf_printf(
        b,
        "        workgroupBarrier();\n        for (var i = tid; i < %du; i += WG) {\n"
        "            let k = i / %du;\n            let first = k * WG + i %% %du * %du;\n            var y = 0.0;\n"
        "            for (var j = 0u; j < %du; j++) { y += partial[first + j]; }\n"
        "            outs[k / %du * %du + %s * %du + (i %% %du) * %du + turn * %du + k %% %du] = y;\n        }\n",
        n, teams, teams, c->team, c->team, c->rows, c->tokens * p->per_group, t, p->per_group, teams,
        c->rows * c->passes, c->rows, c->rows);
}

/* Row r of the part in the weight of a product. */
static tn_text weight_row(const part *p, const char *r) {
    if (p->slots == 0) return tn_textf("%s", r);
    return tn_textf(p->pieces ? "in_segment(expert_row + %s)" : "expert_row + %s", r);
}

/* The loop along the rows: all loads of weights first, so that they do not wait for each other. */
static void emit_blocks(tn_emit *e, const part *p, const cut *c) {
    tn_buf *b = &e->body;
    const char *t = c->tokens > 1 ? "t" : "0u";
    int32_t blocks = blocks_of(e, tn_emit_node(e, p->product[0])), n = p->n * c->rows, step = c->team * c->blocks;
    bool even = blocks % step == 0;
    tn_buf_printf(b, "        for (var b0 = lane; b0 < %du; b0 += %du) {\n", blocks, step);
    for (int32_t u = 0; u < c->blocks; u++) {
        tn_buf_printf(b, even ? "            let b%d_ = b0 + %du;\n" : "            let b%d_ = min(b0 + %du, %du);\n",
                      u, u * c->team, blocks - 1);
        for (int32_t k = 0; k < n; k++)
            tn_buf_printf(b, "            let w%d_%d = load_%d(%s, b%d_);\n", k, u, p->product[k / c->rows],
                          weight_row(p, tn_textf("min(r0 + team_row + %du, last_row)", k % c->rows).s).s, u);
    }
    if (c->tokens > 1) tn_buf_str(b, "            for (var t = 0u; t < n_rows; t++) {\n");
    for (int32_t u = 0; u < c->blocks; u++) {
        if (!even) tn_buf_printf(b, "            if (b0 + %du < %du) {\n", u * c->team, blocks);
        for (int32_t k = 0; k < n; k++) {
            int32_t i = p->product[k / c->rows];
            bool in_arena = tn_emit_index(e, tn_emit_node(e, i)->src[0].node) < 0;
            tn_buf_printf(b, "            a%d[%s] += block_%d(w%d_%d, %s, b%d_);\n", k, t, i, k, u,
                          c->experts && in_arena ? "t0" : t, u);
        }
        if (!even) tn_buf_str(b, "            }\n");
    }
    tn_buf_str(b, c->tokens > 1 ? "            }\n        }\n" : "        }\n");
}

static void emit_vector(tn_emit *e, const part *p, const cut *c) {
    tn_buf *b = &e->body;
    tn_buf_printf(b,
                  "    let lane = tid %% %du;\n    for (var turn = 0u; turn < %du; turn++) {\n"
                  "        let team_row = tid / %du * %du + turn * %du;\n",
                  c->team, c->passes, c->team, c->rows * c->passes, c->rows);
    for (int32_t k = 0; k < p->n * c->rows; k++)
        tn_buf_printf(b, "        var a%d = array<f32, %d>();\n", k, c->tokens);
    emit_blocks(e, p, c);
    if (c->tokens > 1) tn_buf_str(b, "        for (var t = 0u; t < n_rows; t++) {\n");
    emit_team_sums(e, p, c, c->tokens > 1 ? "t" : "0u");
    tn_buf_str(b, c->tokens > 1 ? "        }\n    }\n" : "    }\n");
    if (e->d->subgroup) tn_emit_team(e, c->team);
}

static void emit_tiles(tn_emit *e, const part *p) {
    for (int32_t k = 0; k < p->n; k++) {
        int32_t i = p->product[k];
        const tn_node *n = tn_emit_node(e, i);
        tn_emit_piece(
            e, &e->body, "tile", "WHAT", n->name ? n->name : "", "ID", NUM(i), "BLOCKS", NUM(blocks_of(e, n)),
            "WEIGHT_ROW", weight_row(p, "min(r0 + tid, last_row)").s, "ROW",
            p->slots ? "let row = pair_row(min(t0 + t, count - 1u));" : "let row = min(t0 + t, n_rows - 1u);", "TYPE",
            type_of(e, n)->name, "X", tn_textf("xv_%d(row, b, k)", i).s, "OUT", NUM(k * 1024), NULL);
    }
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
    tn_emit_piece(
        e, &e->body, "quantize", "N", NUM(p->per_group * c->tokens), "X",
        tn_textf("vec4<f32>(outs[%du + c], outs[%du + c], outs[%du + c], outs[%du + c])", at, at + 1, at + 2, at + 3)
            .s,
        "STORE_Q", q.s, "STORE_D", d.s, NULL);
}

static tn_text operand_after(tn_emit *e, const tn_node *n, int k) {
    int32_t from = tn_emit_index(e, n->src[k].node);
    return from >= 0 ? tn_textf("v%d", from) : tn_emit_load(e, n, k, "col", false);
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
        if (is_product(n)) {
            tn_buf_printf(b, "        let v%d = outs[%du + e];\n", i, product++ * size);
        } else {
            tn_text x = operand_after(e, n, 0), y = n->n_src > 1 ? operand_after(e, n, 1) : x;
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
            e->value[i].wanted |= e->form.role[i] == TN_BEFORE && is_product(tn_emit_node(e, j)) &&
                                  tn_emit_node(e, j)->src[0].node == e->nodes[i];
    }
    e->rows_apart = true;
    tn_buf_str(&e->body, "    let first_group = group.x == 0u;\n");
    if (e->rows_held > 1)
        tn_buf_str(&e->body, "    for (var row = 0u; row < n_rows; row++) {\n    workgroupBarrier();\n");
    else
        tn_buf_str(&e->body, experts ? "    {\n    let row = group.y;\n" : "    {\n    let row = 0u;\n");
    tn_emit_row_ops(e, TN_BEFORE);
    tn_buf_str(&e->body, "    }\n    workgroupBarrier();\n");
    e->rows_apart = false;
    return true;
}

static cut choose_cut(const tn_emit *e) {
    cut c = {.tiles = e->kernel->core == TN_WEBGPU_TILES, .experts = e->kernel->op == TN_OP_MATMUL_ID};
    if (c.tiles) {
        c.tokens = TN_WEBGPU_TILE;
        return c;
    }
    c.tokens = c.experts ? 1 : e->form.max_rows;
    c.team = e->d->subgroup >= 8 && e->d->subgroup <= 32 ? e->d->subgroup : 16;
    c.passes = 1;
    return c;
}

/* What a team holds at once: enough loads on their way to hide that memory is far, few enough registers; and of a small
 * matrix not so much that there are too few workgroups. */
static void choose_shape(const tn_emit *e, const part *p, cut *c) {
    int32_t teams = TN_WEBGPU_GROUP / c->team, blocks = blocks_of(e, tn_emit_node(e, p->product[0]));
    c->rows = p->n == 1 && p->cols <= 4096 ? 2 : 4;
    if (teams * c->rows > 32) c->rows = 32 / teams;
    c->blocks = c->rows * p->n <= 2 && blocks >= 4 * c->team ? 4 : blocks >= 2 * c->team ? 2 : 1;
}

static bool fill_part(tn_emit *e, part *p, cut *c, int32_t number) {
    *p = (part){.number = number};
    bool cut_up = false;
    for (int32_t i = 0; i < e->n; i++) {
        const tn_node *n = tn_emit_node(e, i);
        if (e->form.role[i] == TN_BEFORE || e->form.part[i] != number) continue;
        p->cols = n->out[0].cols;
        p->quantized += n->op == TN_OP_QUANTIZE;
        if (!is_product(n)) continue;
        const tn_webgpu_weight *w = held(e, n);
        cut_up |= w && w->n_segments > 1;
        if (is_int8(e, n) && n->src[0].first) e->why = "a slice of an int8 row";
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
        p->per_group = TN_WEBGPU_TILE;
    } else {
        choose_shape(e, p, &c);
        int32_t once = TN_WEBGPU_GROUP / c.team * c.rows;
        if (p->quantized && once < 32) c.passes = 32 / once;
        p->per_group = once * c.passes;
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
    if (c.tiles)
        emit_tiles(e, p);
    else
        emit_vector(e, p, &c);
    emit_after(e, p, &c);
    tn_buf_str(&e->body, c.tiles && c.experts ? "    }\n    }\n" : "    }\n");
}

/* What all workgroups of a launch of experts have, and how many there are of them. */
static void declare_experts(tn_emit *e, const cut *c) {
    int32_t i = 0;
    while (!is_product(tn_emit_node(e, i))) i++;
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
    e->rows_held = c.tiles ? 1 : c.tokens;
    if (c.experts) declare_experts(e, &c);
    c.before = emit_before(e);
    for (int32_t k = 0; k < e->form.n_parts && !e->why; k++) {
        part p;
        if (!fill_part(e, &p, &c, k)) return;
        emit_part(e, &p, &c, &group);
        int32_t need = (p.n + p.quantized) * c.tokens * p.per_group;
        if (need > outs) outs = need;
        if (p.n * 4 > partial) partial = p.n * 4; /* rows are at most four */
    }
    tn_buf_printf(&e->types, "var<workgroup> outs: array<f32, %d>;\n", outs);
    e->extra_bytes += outs * 4;
    if (c.tiles) {
        tn_buf_str(&e->types,
                   "var<workgroup> tile_w: array<vec4<f32>, 256>;\nvar<workgroup> tile_x: array<vec4<f32>, 256>;\n");
        e->extra_bytes += 8192;
    } else if (!e->d->subgroup) {
        tn_buf_printf(&e->types, "var<workgroup> partial: array<f32, %d>;\n", partial * TN_WEBGPU_GROUP);
        e->extra_bytes += partial * TN_WEBGPU_GROUP * 4;
    }
    e->x = (uint32_t)group;
    if (c.before && e->x > MAX_GROUPS_BEFORE)
        e->why = "so many workgroups would do the norm again, each for itself: it runs once, before";
    e->rows_per_y = c.experts ? 1 : c.tokens;
}
