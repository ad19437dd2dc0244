/* Products for few rows. A team of invocations holds some rows of the weight, each lane some of their blocks, over all tokens.
 * A step of decoding is a chain of such launches, none of which lasts longer than a few trips to memory, so what counts is
 * that these trips are not made one after the other: weights depend on nothing and are asked for first. */
#include "backend/webgpu/matmuls.h"

/* Whether a product is of int8 values on both sides. A plain weight may meet activations that others want as int8. */
static bool dots(const tn_emit *e, const tn_node *n) {
    return tn_product_int8(e, n) && !tn_product_type(e, n)->floats;
}

enum {
    MAX_STAGED = 8192, /* columns */
    SMALL = 8192,      /* rows of a weight whose reading lasts no longer than a few trips to memory */
    EARLY = 8          /* units of a lane that are asked for before the ops that stand before */
};

/* ---- the cut ---- */

void tn_choose_matvec(const tn_emit *e, cut *c) {
    const tn_node *first = NULL;
    int32_t sub = e->d->subgroup;
    bool quantize = false, before = false, same = true;
    c->tokens = c->experts ? 1 : e->form.max_rows;
    c->unit = 2;
    for (int32_t i = 0; i < e->n; i++) {
        const tn_node *n = tn_emit_node(e, i);
        quantize |= e->form.role[i] == TN_AFTER && n->op == TN_OP_QUANTIZE;
        before |= e->form.role[i] == TN_BEFORE;
        if (!tn_is_product(n)) continue;
        if (!first) first = n;
        same &= n->src[0].node == first->src[0].node;
        if (!dots(e, n) || tn_blocks_of(e, n) % 2) c->unit = 1;
    }
    if (quantize || before) c->wg = 2 * TN_WEBGPU_GROUP;
    c->team = sub >= 8 && sub <= 32 ? sub : 16;
    int32_t units = tn_blocks_of(e, first) / c->unit;
    while (c->team > 8 && units % c->team && units % (c->team / 2) == 0) c->team /= 2;
    c->staged = same && !c->experts && c->tokens == 1 && tn_product_int8(e, first) &&
                tn_emit_index(e, first->src[0].node) < 0 && first->src[0].cols <= MAX_STAGED;
}

/* What a team holds at once: enough loads on their way to hide that memory is far, few enough registers; and of a small
 * matrix not so much that there are too few workgroups. */
void tn_choose_matvec_part(const tn_emit *e, const part *p, cut *c) {
    int32_t units = tn_blocks_of(e, tn_emit_node(e, p->product[0])) / c->unit;
    int32_t teams = c->wg / c->team;
    int32_t lane_units = (units + c->team - 1) / c->team, hold = c->unit == 2 ? 12 : 16;
    c->rows = p->cols <= SMALL && c->tokens == 1 ? 1 : 4;
    if (p->quantized) c->rows = 32 / teams;
    if (!c->rows) c->rows = 1;
    if (teams * c->rows > 64) c->rows = 64 / teams;
    c->units = hold / (c->rows * p->n);
    c->units = c->units < 1 ? 1 : c->units > lane_units ? lane_units : c->units;
    while (c->units > 1 && lane_units % c->units) c->units--;
}

/* ---- functions ---- */

static void emit_block(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    const char *type = tn_product_type(e, n)->name;
    tn_buf_printf(&e->head, "fn block_%d(r: Raw_%s, row: u32, b: u32) -> f32 {\n", i, type);
    if (dots(e, n))
        tn_buf_printf(&e->head, "    return dot_%s(r, x_%d(row, b));\n}\n", type, i);
    else
        tn_buf_printf(
            &e->head,
            "    var s = 0.0;\n    for (var k = 0u; k < 8u; k++) { s += dot(value_%s(r, k), xv_%d(row, b, k)); }\n"
            "    return s;\n}\n",
            type, i);
}

/* Brings the row of int8 activations that all products read to the workgroup's memory. */
void tn_emit_stage(tn_emit *e, const cut *c) {
    const tn_node *n = NULL;
    for (int32_t i = 0; i < e->n && !n; i++)
        if (tn_is_product(tn_emit_node(e, i))) n = tn_emit_node(e, i);
    int32_t blocks = tn_blocks_of(e, n), pairs = (blocks + 1) / 2;
    e->q_words += pairs * 16;
    tn_emit_piece(e, &e->head, "stage", "PLACE", tn_emit_place(e, n->src[0].node, 0).s, "BLOCKS", NUM(blocks),
                  "PAIRS", NUM(pairs), "TURNS_Q", NUM((2 * blocks + c->wg - 1) / c->wg), "TURNS_D",
                  NUM((blocks + c->wg - 1) / c->wg), NULL);
}

void tn_emit_matvec_product(tn_emit *e, int32_t i, const cut *c) {
    const tn_node *n = tn_emit_node(e, i);
    if (c->unit == 1) {
        emit_block(e, i);
        return;
    }
    const char *type = tn_product_type(e, n)->name;
    tn_buf_printf(&e->head,
                  "fn pair_%d(row: u32, u: u32) -> X8x2 { return X8x2(x_%d(row, 2u * u), x_%d(row, 2u * u + 1u)); }\n"
                  "fn unit_%d(r: Pair_%s, x: X8x2) -> f32 { return dot_%s(r.a, x.a) + dot_%s(r.b, x.b); }\n",
                  i, i, i, i, type, type, type);
}

/* ---- the sums ---- */

/* Sums of a team's lanes to outs[product][token][column]. */
static void emit_team_sums(tn_emit *e, const part *p, const cut *c, const char *t) {
    int32_t accs = p->n * c->rows, teams = c->wg / c->team, n = accs * teams;
    tn_buf *b = &e->body;
    if (e->d->subgroup) {
        tn_emit_team(e, c->team);
        for (int32_t k = 0; k < accs; k++) tn_buf_printf(b, "        let y%d = sum_%d(a%d[%s]);\n", k, c->team, k, t);
        tn_buf_str(b, "        if (lane == 0u) {\n");
        for (int32_t k = 0; k < accs; k++)
            tn_buf_printf(b, "            outs[%du + %s * %du + team_row + %du] = y%d;\n",
                          k / c->rows * c->tokens * p->per_group, t, p->per_group, k % c->rows, k);
        tn_buf_str(b, "        }\n");
        return;
    }
    tn_buf_str(b, "        workgroupBarrier();\n");
    for (int32_t k = 0; k < accs; k++) tn_buf_printf(b, "        partial[%du + tid] = a%d[%s];\n", k * c->wg, k, t);
    tn_buf_printf(
        b,
        "        workgroupBarrier();\n        for (var i = tid; i < %du; i += WG) {\n"
        "            let k = i / %du;\n            let first = k * WG + i %% %du * %du;\n            var y = 0.0;\n"
        "            for (var j = 0u; j < %du; j++) { y += partial[first + j]; }\n"
        "            outs[k / %du * %du + %s * %du + (i %% %du) * %du + k %% %du] = y;\n        }\n",
        n, teams, teams, c->team, c->team, c->rows, c->tokens * p->per_group, t, p->per_group, teams, c->rows,
        c->rows);
}

static int32_t lane_units(const tn_emit *e, const part *p, const cut *c) {
    return tn_blocks_of(e, tn_emit_node(e, p->product[0])) / c->unit;
}

/* Weights of the units that a lane handles from u0 on, of rows [from, to) of the team: `put` declares or assigns. */
static void emit_loads(tn_emit *e, const part *p, const cut *c, const char *put, int32_t from, int32_t to) {
    int32_t units = lane_units(e, p, c), step = c->team * c->units;
    for (int32_t k = from; k < to; k++)
        for (int32_t u = 0; u < c->units; u++) {
            tn_text at = units % step ? tn_textf("min(u0 + %du, %du)", u * c->team, units - 1)
                                      : tn_textf("u0 + %du", u * c->team);
            tn_text row = tn_segment_row(p, tn_textf("min(r0 + team_row + %du, last_row)", k % c->rows).s);
            tn_buf_printf(&e->body, "        %sw%d_%d = load%s_%d(%s, %s);\n", put, k, u, c->unit == 2 ? "2" : "",
                          p->product[k / c->rows], row.s, at.s);
        }
}

/* What the weights at hand add to the sums. */
static void emit_sums(tn_emit *e, const part *p, const cut *c, const char *t) {
    tn_buf *b = &e->body;
    int32_t units = lane_units(e, p, c), step = c->team * c->units;
    if (c->tokens > 1) tn_buf_str(b, "        for (var t = 0u; t < n_rows; t++) {\n");
    for (int32_t u = 0; u < c->units; u++) {
        tn_buf_str(b, "        {\n");
        if (units % step) tn_buf_printf(b, "        if (u0 + %du < %du) {\n", u * c->team, units);
        for (int32_t k = 0; k < p->n * c->rows; k++) {
            int32_t i = p->product[k / c->rows];
            const char *row = c->experts && tn_emit_index(e, tn_emit_node(e, i)->src[0].node) < 0 ? "t0" : t;
            if (c->unit == 2 && k % c->rows == 0)
                tn_buf_printf(b, "        let x%d = pair_%d(%s, u0 + %du);\n", k / c->rows, i, row, u * c->team);
            if (c->unit == 2)
                tn_buf_printf(b, "        a%d[%s] += unit_%d(w%d_%d, x%d);\n", k, t, i, k, u, k / c->rows);
            else
                tn_buf_printf(b, "        a%d[%s] += block_%d(w%d_%d, %s, u0 + %du);\n", k, t, i, k, u, row,
                              u * c->team);
        }
        tn_buf_str(b, units % step ? "        }\n        }\n" : "        }\n");
    }
    if (c->tokens > 1) tn_buf_str(b, "        }\n");
}

void tn_emit_matvec(tn_emit *e, const part *p, const cut *c) {
    tn_buf *b = &e->body;
    const char *t = c->tokens > 1 ? "t" : "0u";
    int32_t units = lane_units(e, p, c), step = c->team * c->units, all = p->n * c->rows;
    int32_t early = EARLY / c->units < all ? EARLY / c->units : all;
    tn_buf_printf(b, "    let lane = tid %% %du;\n    let team_row = tid / %du * %du;\n        var u0 = lane;\n",
                  c->team, c->team, c->rows);
    for (int32_t k = 0; k < all; k++) tn_buf_printf(b, "        var a%d = array<f32, %d>();\n", k, c->tokens);
    emit_loads(e, p, c, "var ", 0, early);
    if (c->before) tn_buf_str(b, "    before(group, n_rows);\n");
    if (c->staged) tn_buf_str(b, "    stage();\n    workgroupBarrier();\n");
    emit_loads(e, p, c, "var ", early, all);
    if (units <= step) {
        emit_sums(e, p, c, t);
    } else {
        tn_buf_str(b, "    loop {\n");
        emit_sums(e, p, c, t);
        tn_buf_printf(b, "        u0 += %du;\n        if (u0 >= %du) { break; }\n", step, units);
        emit_loads(e, p, c, "", 0, all);
        tn_buf_str(b, "    }\n");
    }
    if (c->tokens > 1) tn_buf_str(b, "        for (var t = 0u; t < n_rows; t++) {\n");
    emit_team_sums(e, p, c, t);
    if (c->tokens > 1) tn_buf_str(b, "        }\n");
}
