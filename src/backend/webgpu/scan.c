/* Recurrences along a sequence. A convolution needs no more than the last few tokens: every token has its own invocations, but
 * the first ones of a run, which read the state. A gated delta net is done head by head, token after token, by one workgroup,
 * which holds the state meanwhile where that fits; ops of the head stand before and after in the same loop. */
#include "backend/webgpu/emit.h"

#include <math.h>

enum { MAX_HELD = 32 }; /* units of the state in an invocation's registers */

/* Element ops on the result `y` of node i at column c, as variables. */
static void channel_ops(tn_emit *e, tn_buf *ops, int32_t core) {
    tn_buf_printf(ops, "let v%d = y; %s\n", core, tn_emit_store(e, core, "c", "y", false).s);
    for (int32_t i = core + 1; i < e->n; i++) {
        const tn_node *n = tn_emit_node(e, i);
        tn_text x[2] = {{""}, {""}};
        if (tn_ops[n->op].class != TN_ELEMENT) {
            e->why = "no kernel for blocks of a convolution's channels";
            return;
        }
        for (int k = 0; k < n->n_src; k++) {
            int32_t from = tn_emit_index(e, n->src[k].node);
            x[k] = from >= 0 ? tn_textf("v%d", from) : tn_emit_load(e, n, k, "c", false);
        }
        tn_buf_printf(ops, "let v%d = %s; %s\n", i, tn_emit_element(n, false, x[0].s, x[1].s).s,
                      tn_emit_store(e, i, "c", tn_textf("v%d", i).s, false).s);
    }
}

static void emit_conv1d(tn_emit *e, int32_t core) {
    const tn_node *n = tn_emit_node(e, core);
    const tn_weight *taps = tn_src_weight(e->g, n->src[2]);
    int32_t cols = n->out[0].cols, back = n->attr.kernel - 1;
    if (e->d->weights && tn_webgpu_segments(e->d, taps) > 1) e->why = "the taps lie in several bindings";
    if (e->why) return;
    tn_buf_printf(&e->head, "fn conv_x(c: u32, row: u32) -> f32 { return %s; }\n",
                  tn_emit_load(e, n, 1, "c", false).s);
    tn_buf ops = {0};
    channel_ops(e, &ops, core);
    tn_emit_piece(e, &e->body, "conv1d", "END", NUM(e->step.end), "SEQ", NUM(e->step.seq), "POS", NUM(e->step.pos),
                  "BACK", NUM(back), "SIZE", NUM(back * cols), "N", NUM(cols), "TAP",
                  tn_emit_element_of_matrix(e, n->src[2], "c", "j").s, "OPS", ops.p ? ops.p : "", NULL);
    e->body.failed |= ops.failed;
    tn_buf_free(&ops);
    e->x = (uint32_t)((cols + e->wg - 1) / e->wg);
}

/* A number of each head, which another launch made. */
static tn_text gate(tn_emit *e, const tn_node *n, int k) {
    if (tn_emit_index(e, n->src[k].node) >= 0) e->why = "a gate is made in the launch that reads it";
    return tn_textf("ars(%s + row * %du + %du + head)", tn_emit_place(e, n->src[k].node, 0).s,
                    tn_emit_row_words(e, n->src[k].node), n->src[k].first);
}

/* How the state lies on the workgroup. */
typedef struct shape {
    int32_t units, team, groups, rows; /* of a row of the state; invocations for a row; rows at once; turns */
    bool held;
    tn_text guard, at;
} shape;

static shape shape_of(const tn_emit *e, const tn_attr *a) {
    shape s = {.units = a->v_dim / e->vec, .team = 1};
    while (s.team < s.units) s.team *= 2;
    s.groups = e->wg / s.team > 0 ? e->wg / s.team : 1;
    s.rows = (a->head_dim + s.groups - 1) / s.groups;
    s.held = s.rows <= MAX_HELD;
    bool whole = s.team == s.units && a->head_dim % s.groups == 0;
    s.guard = whole ? tn_textf(" ") : tn_textf("if (i < %du && unit < %du)", a->head_dim, s.units);
    s.at = tn_textf("kv[base + i * %du + unit]", s.units);
    return s;
}

static void emit_begin(tn_emit *e, const tn_attr *a, const shape *s) {
    tn_text declare = s->held ? tn_textf("var state = array<V, %d>();", s->rows) : tn_textf(" ");
    tn_text begin = s->held ? tn_textf("if (!fresh) { state[r] = %s; }", s->at.s)
                            : tn_textf("if (fresh) { %s = V(0.0); }", s->at.s);
    tn_emit_piece(e, &e->body, "delta_begin", "K_HEADS", NUM(a->n_kv), "HEADS", NUM(a->n_head), "END",
                  NUM(e->step.end), "POS", NUM(e->step.pos), "SEQ", NUM(e->step.seq), "SIZE",
                  NUM(a->head_dim * s->units), "TEAM", NUM(s->team), "GROUPS", NUM(s->groups), "ROWS", NUM(s->rows),
                  "DECLARE", declare.s, "GUARD", s->guard.s, "BEGIN", begin.s, NULL);
    tn_buf_str(&e->body, "    for (var row = row0; row < end; row++) {\n    workgroupBarrier();\n");
}

static void emit_token(tn_emit *e, int32_t core, const shape *s) {
    const tn_node *n = tn_emit_node(e, core);
    const tn_attr *a = &n->attr;
    tn_emit_piece(e, &e->body, "delta_net", "K_DIM", NUM(a->head_dim), "UNITS", NUM(s->units), "TEAM", NUM(s->team),
                  "GROUPS", NUM(s->groups), "ROWS", NUM(s->rows), "GUARD", s->guard.s, "STATE",
                  s->held ? "state[r]" : s->at.s, "QUERY", tn_emit_load(e, n, 1, "i", false).s, "KEY",
                  tn_emit_load(e, n, 2, "i", false).s, "VALUE", tn_emit_load(e, n, 3, "c", true).s, "DECAY",
                  gate(e, n, 4).s, "BETA", gate(e, n, 5).s, "SCALE", tn_textf("%.9e", 1 / sqrt(a->head_dim)).s,
                  "STORE", tn_emit_store(e, core, "c", "y", true).s, NULL);
}

static void emit_delta_net(tn_emit *e, int32_t core) {
    const tn_node *n = tn_emit_node(e, core);
    const tn_attr *a = &n->attr;
    shape s = shape_of(e, a);
    if (s.team > e->wg) e->why = "heads of more elements than a workgroup has invocations";
    if (e->k_cols == n->src[3].cols) e->why = "k and v of different heads, but of one width";
    if (e->why) return;
    e->value[core].loop = 150;                                        /* of its own */
    for (int32_t i = core + 1; i < e->n; i++) e->value[i].loop = 200; /* until they are ordered: not the core's */
    tn_buf_printf(&e->types,
                  "var<workgroup> keys: array<f32, %d>;\nvar<workgroup> queries: array<f32, %d>;\n"
                  "var<workgroup> part: array<V, %d>;\n",
                  a->head_dim, a->head_dim, e->wg);
    e->extra_bytes += a->head_dim * 8 + e->wg * e->vec * 4;
    emit_begin(e, a, &s);
    tn_emit_row_ops(e, TN_BEFORE);
    if (e->why) return;
    tn_emit_give_buffers(e, TN_CORE);
    emit_token(e, core, &s);
    if (!e->why) tn_emit_row_ops(e, TN_AFTER);
    tn_buf_str(&e->body, "    }\n");
    if (s.held)
        tn_buf_printf(&e->body,
                      "    for (var r = 0u; r < %du; r++) {\n        let i = i0 + r * %du;\n        %s { %s = "
                      "state[r]; }\n    }\n",
                      s.rows, s.groups, s.guard.s, s.at.s);
    e->x = (uint32_t)a->n_head;
}

void tn_emit_scan(tn_emit *e) {
    int32_t core = 0;
    while (e->form.role[core] != TN_CORE) core++;
    const tn_node *n = tn_emit_node(e, core);
    e->state = n->attr.index;
    e->rows_per_y = 1;
    if (n->op == TN_OP_CONV1D)
        emit_conv1d(e, core);
    else
        emit_delta_net(e, core);
}
