/* Row programs: the ops of a launch on the row of one token, by one workgroup. Element ops that follow each other share a
 * loop, in which their values are variables; what another loop reads is kept in the workgroup's memory (or read back from
 * the arena, where it is stored anyway). */
#include "backend/webgpu/emit.h"

#include <math.h>
#include <string.h>

enum { MAX_TURNS = 8 };

/* Element ops: the expression of $a and $b (or the op's number $f); functions come for V and, with a $1, for f32. */
static const struct {
    tn_op op;
    const char *text;
} elements[] = {
    {TN_OP_ADD, "$a + $b"},
    {TN_OP_MUL, "$a * $b"},
    {TN_OP_SCALE, "$a * $f"},
    {TN_OP_SOFTCAP, "softcap$1($a, $f)"},
    {TN_OP_SILU, "silu$1($a)"},
    {TN_OP_GELU, "gelu$1($a)"},
    {TN_OP_GELU_QUICK, "gelu_quick$1($a)"},
    {TN_OP_SIGMOID, "sigmoid$1($a)"},
    {TN_OP_SOFTPLUS, "softplus$1($a)"},
};

static const char *element_of(tn_op op) {
    for (size_t i = 0; i < sizeof elements / sizeof *elements; i++)
        if (elements[i].op == op) return elements[i].text;
    return NULL;
}

bool tn_emit_is_element(tn_op op) {
    return element_of(op) != NULL;
}

bool tn_webgpu_has_row_op(tn_op op) {
    return element_of(op) || op == TN_OP_RMS_NORM || op == TN_OP_L2_NORM || op == TN_OP_ROPE ||
           op == TN_OP_ROPE_TABLE || op == TN_OP_QUANTIZE || op == TN_OP_SOFTMAX || op == TN_OP_EMBED ||
           op == TN_OP_SELECT_ROWS || op == TN_OP_KV_WRITE || op == TN_OP_TOP_K || op == TN_OP_EXPERT_SUM ||
           op == TN_OP_ARGMAX || op == TN_OP_BEST;
}

tn_text tn_emit_element(const tn_node *node, bool scalar, const char *a, const char *b) {
    tn_text f = tn_textf("%.9e", (double)(node->op == TN_OP_SCALE ? node->attr.factor : node->attr.softcap)),
            t = {""};
    size_t n = 0;
    for (const char *p = element_of(node->op); *p; p++) {
        char one[2] = {*p, 0};
        const char *piece = one;
        if (*p == '$') {
            p++;
            piece = *p == 'a' ? a : *p == 'b' ? b : *p == 'f' ? f.s : scalar ? "1" : "";
        }
        if (n + strlen(piece) >= sizeof t.s) break;
        memcpy(t.s + n, piece, strlen(piece) + 1);
        n += strlen(piece);
    }
    return t;
}

/* ---- the order of loops ---- */

static int32_t columns(const tn_emit *e, const tn_node *n) {
    return tn_emit_columns(e, n->op == TN_OP_KV_WRITE ? n->src[1].cols : n->out[0].cols);
}

static bool is_norm(const tn_node *n) {
    return n->op == TN_OP_RMS_NORM || n->op == TN_OP_L2_NORM;
}

/* A norm of all columns that a worker has. */
static bool whole_norm(const tn_emit *e, const tn_node *n) {
    return is_norm(n) && (n->attr.head_dim == 0 || n->attr.head_dim == columns(e, n));
}

/* Ops that share loops: each element from the same element of the sources. */
static bool in_loop(const tn_emit *e, const tn_node *n) {
    return element_of(n->op) || n->op == TN_OP_EXPERT_SUM || whole_norm(e, n);
}

static bool shifted(const tn_node *n, int k) {
    return n->src[k].first != 0 || n->src[k].cols != n->out[0].cols;
}

static void order_loops(tn_emit *e, tn_role role) {
    int32_t open = -1, next = 1 + 100 * (int32_t)role; /* loops of the roles differ */
    const tn_node *last = NULL;
    for (int32_t i = 0; i < e->n; i++) {
        if (e->form.role[i] != role) continue;
        const tn_node *n = tn_emit_node(e, i);
        bool fresh = open < 0 || !in_loop(e, n) || is_norm(n) || columns(e, n) != columns(e, last);
        for (int k = 0; k < n->n_src && !fresh; k++) {
            int32_t from = tn_emit_index(e, n->src[k].node);
            fresh = from >= 0 && e->value[from].loop == open && shifted(n, k);
        }
        if (fresh) open = next++;
        e->value[i].loop = open;
        if (!in_loop(e, n)) open = -1;
        last = n;
    }
}

/* ---- registers ---- */

/* Loops of few turns are written out: what they read is asked for at once, before anything is done with it, and a norm reads
 * its row once. So many turns, 0: too many. */
static int32_t turns_of(const tn_emit *e, const tn_node *n) {
    int32_t turns = (columns(e, n) + e->wg * e->vec - 1) / (e->wg * e->vec);
    return turns <= MAX_TURNS ? turns : 0;
}

/* A quantize that takes its row from the variables of the loop before it: invocations have the same columns in both. */
static bool from_variables(const tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    int32_t from = tn_emit_index(e, n->src[0].node);
    if (n->op != TN_OP_QUANTIZE || from < 0 || e->vec != 4 || e->form.role[from] != e->form.role[i]) return false;
    const tn_node *source = tn_emit_node(e, from);
    return in_loop(e, source) && turns_of(e, source) && !shifted(n, 0) && n->out[0].cols == source->out[0].cols;
}

/* ---- the workgroup's memory ---- */

/* The last op that reads node i outside its loop; -1: none. */
static int32_t last_reader(const tn_emit *e, int32_t i) {
    int32_t last = -1;
    for (int32_t j = i + 1; j < e->n; j++)
        for (int k = 0; k < tn_emit_node(e, j)->n_src; k++)
            if (tn_emit_node(e, j)->src[k].node == e->nodes[i] && e->value[j].loop != e->value[i].loop &&
                !from_variables(e, j))
                last = j;
    return last;
}

void tn_emit_give_buffers(tn_emit *e, tn_role role) {
    for (int32_t i = 0; i < e->n; i++) {
        const tn_node *n = tn_emit_node(e, i);
        tn_webgpu_value *v = &e->value[i];
        if (e->form.role[i] != role || n->out[0].dtype != TN_F32 || v->buffer >= 0) continue;
        int32_t reader = last_reader(e, i);
        if (!v->wanted && (reader < 0 || (v->stored && !e->rows_apart))) continue;
        v->size = (columns(e, n) + 3) / 4 * 4;
        for (int32_t j = 0; j < i && v->buffer < 0 && !v->wanted; j++) { /* one whose readers are done */
            const tn_webgpu_value *u = &e->value[j];
            int32_t done = last_reader(e, j);
            bool taken =
                u->buffer < 0 || u->wanted || u->size != v->size || done < 0 || e->value[done].loop >= v->loop;
            for (int32_t k = j + 1; k < i && !taken; k++) taken = e->value[k].buffer == u->buffer;
            if (!taken) v->buffer = u->buffer;
        }
        if (v->buffer >= 0) continue;
        v->buffer = e->shared;
        e->shared += v->size * (v->wanted ? e->rows_held : 1);
    }
}

/* ---- ops ---- */

/* A function of its own: as many loads as there are experts of a token. */
static tn_text expert_sum(tn_emit *e, int32_t i, const char *c, int32_t turn) {
    const tn_node *n = tn_emit_node(e, i);
    tn_text call = tn_textf("expert_sum_%d(%s, row)", i, c);
    if (turn > 0) return call;
    if (tn_emit_index(e, n->src[0].node) >= 0 || tn_emit_index(e, n->src[1].node) >= 0)
        e->why = "experts are summed where they are stored";
    tn_text y = tn_emit_place(e, n->src[0].node, 0), w = tn_emit_place(e, n->src[1].node, 0);
    tn_buf_printf(
        &e->head,
        "fn expert_sum_%d(c: u32, row: u32) -> V {\n    let y = %s + row * %du + %du + c;\n"
        "    let w = %s + row * %du + %du;\n    var s = ars(w) * arv(y);\n"
        "    for (var k = 1u; k < %du; k++) { s = fma(V(ars(w + k)), arv(y + k * %du), s); }\n    return s;\n}\n",
        i, y.s, tn_emit_row_words(e, n->src[0].node), n->src[0].first, w.s, tn_emit_row_words(e, n->src[1].node),
        n->src[1].first, n->attr.n_used, n->out[0].cols);
    return call;
}

/* Source k of op i in a loop: a variable of it, what was loaded for it (turn >= 0), or a load. */
static tn_text variable(tn_emit *e, int32_t i, int k, const char *c, int32_t turn) {
    const tn_node *n = tn_emit_node(e, i);
    int32_t from = tn_emit_index(e, n->src[k].node);
    bool inside = from >= 0 && e->value[from].loop == e->value[i].loop;
    if (turn >= 0) return tn_textf(inside ? "v%d_%d" : "l%d_%d_%d", inside ? from : i, inside ? turn : k, turn);
    return inside ? tn_textf("v%d", from) : tn_emit_load(e, n, k, c, true);
}

/* The factor of a norm from the sum of squares of its columns. */
tn_text tn_emit_norm_factor(const tn_node *n, const char *sum, int32_t cols) {
    double eps = (double)n->attr.eps;
    return n->op == TN_OP_RMS_NORM ? tn_textf("inverseSqrt(%s / %d.0 + %.9e)", sum, cols, eps)
                                   : tn_textf("1.0 / max(sqrt(%s), %.9e)", sum, eps);
}

/* What must come before the loop of norm i: its factor. */
static void emit_factor(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    tn_emit_team(e, e->wg);
    tn_emit_piece(e, &e->body, "norm", "ID", NUM(i), "N", NUM(columns(e, n)), "X", tn_emit_load(e, n, 0, "c", true).s,
                  "WG", NUM(e->wg), "FACTOR", tn_emit_norm_factor(n, tn_textf("s%d", i).s, columns(e, n)).s, NULL);
}

/* The loop's ops on columns c. */
static void emit_loop_ops(tn_emit *e, int32_t first, tn_role role, const char *c, int32_t turn) {
    for (int32_t i = first; i < e->n; i++) {
        const tn_node *n = tn_emit_node(e, i);
        if (e->form.role[i] != role || e->value[i].loop != e->value[first].loop) continue;
        bool sum = n->op == TN_OP_EXPERT_SUM;
        tn_text a = sum ? expert_sum(e, i, c, turn) : variable(e, i, 0, c, turn);
        tn_text b = n->n_src > 1 && !sum ? variable(e, i, 1, c, turn) : a;
        tn_text y = sum ? a : is_norm(n) ? tn_textf("%s * f%d", a.s, i) : tn_emit_element(n, false, a.s, b.s);
        tn_text v = turn >= 0 ? tn_textf("v%d_%d", i, turn) : tn_textf("v%d", i),
                store = tn_emit_store(e, i, c, v.s, true);
        tn_buf_printf(&e->body, "        let %s = %s;\n", v.s, y.s);
        if (turn >= 0 && store.s[0])
            tn_buf_printf(&e->body, "        if (%s < %du) { %s }\n", c, columns(e, n), store.s);
        else
            tn_buf_printf(&e->body, "        %s\n", store.s);
    }
}

/* Loads of all the loop's sources from outside it. */
static void emit_loads(tn_emit *e, int32_t first, tn_role role, const char *c, int32_t turn) {
    int32_t cols = columns(e, tn_emit_node(e, first));
    tn_buf_printf(&e->body, "    let %s = (%du * WG + tid) * VEC;\n", c, turn);
    for (int32_t i = first; i < e->n; i++) {
        const tn_node *n = tn_emit_node(e, i);
        if (e->form.role[i] != role || e->value[i].loop != e->value[first].loop) continue;
        for (int k = 0; k < n->n_src && n->op != TN_OP_EXPERT_SUM; k++) {
            int32_t from = tn_emit_index(e, n->src[k].node);
            if (from >= 0 && e->value[from].loop == e->value[i].loop) continue;
            tn_text load = tn_emit_load(e, n, k, c, true);
            if ((turn + 1) * e->wg * e->vec <= cols)
                tn_buf_printf(&e->body, "    let l%d_%d_%d = %s;\n", i, k, turn, load.s);
            else
                tn_buf_printf(&e->body, "    var l%d_%d_%d = V();\n    if (%s < %du) { l%d_%d_%d = %s; }\n", i, k,
                              turn, c, cols, i, k, turn, load.s);
        }
    }
}

static void emit_loop_written_out(tn_emit *e, int32_t first, tn_role role, int32_t turns) {
    const tn_node *n = tn_emit_node(e, first);
    tn_text c[MAX_TURNS];
    for (int32_t j = 0; j < turns; j++) {
        c[j] = tn_textf("c%d_%d", first, j);
        emit_loads(e, first, role, c[j].s, j);
    }
    if (is_norm(n)) {
        tn_emit_team(e, e->wg);
        tn_buf_printf(&e->body, "    var s%d = 0.0;\n", first);
        for (int32_t j = 0; j < turns; j++)
            tn_buf_printf(&e->body, "    s%d += square(l%d_0_%d);\n", first, first, j);
        tn_buf_printf(&e->body, "    s%d = sum_%d(s%d);\n    let f%d = %s;\n", first, e->wg, first, first,
                      tn_emit_norm_factor(n, tn_textf("s%d", first).s, columns(e, n)).s);
    }
    for (int32_t j = 0; j < turns; j++) emit_loop_ops(e, first, role, c[j].s, j);
}

/* Ops first .. end of one loop. */
static void emit_loop(tn_emit *e, int32_t first, tn_role role) {
    const tn_node *n = tn_emit_node(e, first);
    int32_t turns = turns_of(e, n);
    if (turns) {
        emit_loop_written_out(e, first, role, turns);
        return;
    }
    if (is_norm(n)) emit_factor(e, first);
    tn_buf_printf(&e->body, "    for (var c = tid * VEC; c < %du; c += WG * VEC) {\n", columns(e, n));
    emit_loop_ops(e, first, role, "c", -1);
    tn_buf_str(&e->body, "    }\n");
}

static void emit_norm_heads(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    int32_t group = n->attr.head_dim ? n->attr.head_dim : n->out[0].cols;
    tn_emit_team(e, 16);
    tn_emit_piece(e, &e->body, "norm_heads", "GROUPS", NUM(columns(e, n) / group), "GROUP", NUM(group), "X",
                  tn_emit_load(e, n, 0, "c", true).s, "STORE", tn_emit_store(e, i, "c", "y", true).s, "FACTOR",
                  tn_emit_norm_factor(n, "s", group).s, NULL);
}

static void emit_softmax(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    tn_emit_team(e, e->wg);
    tn_buf_str(&e->body, "    {\n");
    tn_emit_piece(e, &e->body, "softmax", "ID", NUM(i), "N", NUM(n->out[0].cols), "WG", NUM(e->wg), "X",
                  tn_emit_load(e, n, 0, "c", true).s, "STORE", tn_emit_store(e, i, "c", "y", true).s, NULL);
    tn_buf_str(&e->body, "    }\n");
}

static void emit_top_k(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    int32_t count = n->src[0].cols, k = n->attr.n_used;
    if (k > e->wg) e->why = "more experts of a token than a workgroup has invocations";
    tn_emit_team(e, e->wg);
    tn_buf_printf(&e->types, "var<workgroup> pool: array<f32, %d>;\n", count);
    e->extra_bytes += count * 4;
    tn_text store = {""};
    for (int32_t out = 0; out < 2; out++)
        if (tn_emit_stored(e, i, out))
            store = tn_textf("%s %s(%s + row * %du + tid, %s);", store.s, out ? "arstu" : "arsts",
                             tn_emit_place_out(e, e->nodes[i], out).s, tn_emit_row_words(e, e->nodes[i]),
                             out ? "mine" : "y");
    tn_text scale = n->n_src > 1 ? tn_emit_load(e, n, 1, "mine", false) : tn_textf("1.0");
    tn_emit_piece(e, &e->body, "top_k", "N", NUM(count), "K", NUM(k), "WG", NUM(e->wg), "X",
                  tn_emit_load(e, n, 0, "c", false).s, "TOTAL", n->attr.norm ? "sum" : "1.0", "SCALE", scale.s,
                  "STORE", store.s, NULL);
}

static void emit_rope(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    int32_t apart = n->attr.neox ? n->attr.n_rot / 2 : 1;
    tn_emit_piece(
        e, &e->body, "rope", "N", NUM(columns(e, n)), "HEAD", NUM(n->attr.head_dim), "ROT", NUM(n->attr.n_rot),
        "APART", NUM(apart), "SECOND", n->attr.neox ? tn_textf("j >= %du", apart).s : "(j & 1u) == 1u", "PAIR",
        n->attr.neox ? tn_textf("j %% %du", apart).s : "j / 2u", "X", tn_emit_load(e, n, 0, "c", false).s, "OTHER",
        tn_emit_load(e, n, 0, "other", false).s, "COSINE", tn_emit_load(e, n, 1, "2u * pair", false).s, "SINE",
        tn_emit_load(e, n, 1, "2u * pair + 1u", false).s, "STORE", tn_emit_store(e, i, "c", "y", false).s, NULL);
}

/* An int8 row goes to the workgroup's memory for the products, to the arena for other launches. */
static void emit_quantize(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    int32_t cols = n->out[0].cols, mine = cols / e->parts, width = tn_emit_q8_width(n);
    tn_webgpu_value *v = &e->value[i];
    tn_text q = {""}, d = {""}, base = e->parts > 1 ? tn_textf("head * %du + c", mine) : tn_textf("c");
    if (v->wanted) {
        if (width != cols) e->why = "several int8 rows in the workgroup's memory";
        v->buffer = e->q_words;
        int32_t pairs = (cols / 32 + 1) / 2; /* of blocks; see emit_x_int8 */
        const char *row = e->rows_held > 1 ? "row" : "0u";
        e->q_words += pairs * 16 * e->rows_held;
        q = tn_textf("wq[%du + %s * %du + (c / 16u & 3u) * %du + c / 64u][c / 4u & 3u] = pack(q);", v->buffer / 4,
                     row, pairs * 4, pairs);
        d = tn_textf("wd[%du + %s * %du + (c / 32u & 1u) * %du + c / 64u] = scales_of(bitcast<f32>(d), sums);",
                     v->buffer / 8, row, pairs * 2, pairs);
    }
    if (v->stored) {
        tn_text place = tn_emit_place(e, e->nodes[i], 0);
        const char *when = e->rows_apart ? "if (first_group) " : "";
        tn_text at =
            tn_emit_q8_row(n, tn_textf("%s + row * %du", place.s, tn_emit_row_words(e, e->nodes[i])).s, base.s);
        tn_text c = tn_emit_q8_column(n, base.s);
        q = tn_textf("%s %s{ arstu(%s + %s / 4u, pack(q)); }", q.s, when, at.s, c.s);
        d = tn_textf("%s %s{ arstu(%s + %du + %s / 32u, d); arstu(%s + %du + %s / 32u, sums); }", d.s, when, at.s,
                     width / 4, c.s, at.s, width / 4 + width / 32, c.s);
    }
    tn_emit_team(e, 8);
    for (int32_t j = 0; from_variables(e, i) && j * e->wg * 4 < mine; j++) {
        int32_t from = tn_emit_index(e, n->src[0].node);
        tn_buf_printf(&e->body, "    {\n        let c = (%du * WG + tid) * 4u;\n", j);
        tn_emit_piece(e, &e->body, "quantize", "N", NUM(mine), "X", tn_textf("v%d_%d", from, j).s, "STORE_Q", q.s,
                      "STORE_D", d.s, NULL);
        tn_buf_str(&e->body, "    }\n");
    }
    if (from_variables(e, i)) return;
    tn_text x[4];
    for (int k = 0; k < 4; k++) x[k] = tn_emit_load(e, n, 0, tn_textf("c + %du", k).s, false);
    tn_text x4 = tn_textf("vec4<f32>(%.110s, %.110s, %.110s, %.110s)", x[0].s, x[1].s, x[2].s, x[3].s);
    tn_buf_printf(&e->body, "    for (var b = 0u; b < %du; b += WG * 4u) {\n        let c = b + tid * 4u;\n", mine);
    tn_emit_piece(e, &e->body, "quantize", "N", NUM(mine), "X", x4.s, "STORE_Q", q.s, "STORE_D", d.s, NULL);
    tn_buf_str(&e->body, "    }\n");
}

static void emit_embed(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    const tn_weight *from = tn_src_weight(e->g, n->src[1]);
    const tn_webgpu_weight *w = tn_emit_weight(e, i, n->src[1]);
    const tn_webgpu_type *t = tn_webgpu_type_of(from->n_out == 1 ? TN_TYPE_F32 : from->type);
    const tn_webgpu_segment *s = w ? &w->segment[w->n_segments > 1 ? e->segment : 0] : NULL;
    int32_t cols = n->out[0].cols;
    tn_text store = cols % 32 == 0 && e->vec == 4
                        ? tn_emit_store(e, i, "c", "x", true)
                        : tn_textf("for (var j = 0u; j < 4u && c + j < %du; j++) { let y = x[j]; %s }", cols,
                                   tn_emit_store(e, i, "c + j", "y", false).s);
    tn_emit_piece(e, &e->body, "embed", "IDS", NUM(e->step.ids), "FIRST",
                  tn_emit_number(e, s ? (uint32_t)s->row : 0).s, "ROWS",
                  tn_emit_number(e, s ? (uint32_t)s->n_rows : 0).s, "BLOCKS", NUM((cols + 31) / 32), "WEIGHT", NUM(i),
                  "TYPE", t->name, "STORE", store.s, NULL);
}

/* ---- rope tables: the host's share ---- */

/* YaRN (Peng et al. 2023): the pair that turns `turns` times in n_context positions. */
static double pair_of_turns(double turns, const tn_rope_params *r, double n_rot) {
    return n_rot * log(r->n_ctx_orig / (turns * 2 * 3.14159265358979323846)) / (2 * log((double)r->base));
}

/* The part of a turn by which pair p advances with each position. */
static double turn_of(const tn_node *n, const float *factors, int32_t p) {
    const tn_rope_params *r = &n->attr.rope;
    double n_rot = n->attr.n_rot, share = 0;
    if (r->ext_factor != 0) {
        double low = fmax(floor(pair_of_turns((double)r->beta_fast, r, n_rot)), 0);
        double high = fmin(ceil(pair_of_turns((double)r->beta_slow, r, n_rot)), n_rot - 1);
        double line = (p - low) / fmax(high - low, 0.001);
        share = (1 - fmin(fmax(line, 0), 1)) * (double)r->ext_factor;
    }
    double frequency = pow((double)r->base, -2.0 * p / n_rot) / (factors ? (double)factors[p] : 1.0);
    return frequency * ((double)r->freq_scale * (1 - share) + share) / (2 * 3.14159265358979323846);
}

static void emit_rope_table(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    const tn_weight *w = n->n_src ? tn_src_weight(e->g, n->src[0]) : NULL;
    if (w && w->type != TN_TYPE_F32) e->why = "rope factors that are not f32";
    tn_text place = tn_emit_place(e, e->nodes[i], 0);
    int32_t first = e->n_numbers;
    for (int32_t p = 0; p < n->attr.n_rot / 2 && !e->why; p++) {
        double turn = turn_of(n, w && e->plan ? w->data : NULL, p);
        turn -= floor(turn);
        double high = floor(turn * 4294967296.0);
        tn_emit_number(e, (uint32_t)((turn * 4294967296.0 - high) * 4294967296.0));
        tn_emit_number(e, (uint32_t)high);
    }
    double factor = (double)n->attr.rope.attn_factor;
    if (n->attr.rope.ext_factor != 0) factor *= 1 + 0.1 * log(1 / (double)n->attr.rope.freq_scale);
    tn_emit_piece(e, &e->body, "rope_table", "PAIRS", NUM(n->attr.n_rot / 2), "POS", NUM(e->step.pos), "ANGLES",
                  NUM(first), "OUT", tn_textf("%s + row * %du", place.s, n->attr.n_rot).s, "FACTOR",
                  tn_textf("%.9e", factor).s, NULL);
}

/* ---- caches ---- */

/* Elements c, c + 1, ... of source k as one unit of the cache: a call of a function made for it. */
static tn_text unit(tn_emit *e, const tn_node *n, int k) {
    int dims = tn_webgpu_kv_dims(e->kv_type);
    tn_buf_printf(&e->head, "fn unit_%d(c: u32, row: u32, head: u32) -> vec4<u32> {\n", k);
    for (int j = 0; j < dims; j += 4) {
        tn_text x[4];
        for (int m = 0; m < 4; m++) x[m] = tn_emit_load(e, n, k, tn_textf("c + %du", j + m).s, false);
        if (e->vec == 4)
            tn_buf_printf(&e->head, "    let x%d = %s;\n", j,
                          tn_emit_load(e, n, k, tn_textf("c + %du", j).s, true).s);
        else
            tn_buf_printf(&e->head, "    let x%d = vec4<f32>(%s, %s, %s, %s);\n", j, x[0].s, x[1].s, x[2].s, x[3].s);
    }
    tn_buf_str(&e->head, dims == 4 ? "    return bitcast<vec4<u32>>(x0);\n}\n"
                                   : "    return vec4<u32>(pack2x16float(x0.xy), pack2x16float(x0.zw), "
                                     "pack2x16float(x4.xy), pack2x16float(x4.zw));\n}\n");
    return tn_textf("unit_%d(c, row, %s)", k, e->parts > 1 ? "head" : "0u");
}

/* Whether the launch's attention wants what is written now: it has read the cache before. */
static bool kept_for_attention(const tn_emit *e) {
    return e->form.kind == TN_FORM_ATTEND;
}

/* The unit of v that an invocation will write, asked for early. */
void tn_emit_kv_write_loads(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    int32_t dims = tn_webgpu_kv_dims(e->kv_type);
    if (tn_emit_index(e, n->src[2].node) >= 0 || e->kv_type == TN_KV_Q8_0) return;
    e->v_early = true;
    tn_buf_printf(
        &e->body,
        "    var early_v = vec4<u32>();\n    if (tid < %du) {\n        let c = tid * %du;\n        early_v = "
        "%s;\n    }\n",
        n->attr.v_dim / dims, dims, unit(e, n, 2).s);
}

/* Of the splits of a token's attention, one writes. */
static const char *owner(const tn_emit *e) {
    return e->kernel->core == TN_WEBGPU_SPLIT ? "if (owner)" : "";
}

/* k (source 1) or v (source 2) as int8. The scales of several tokens may share a vec4: here the cache is words, and where
 * attention reads it by vec4, that writes them. */
static void emit_scaled(tn_emit *e, const tn_node *n, int k) {
    const tn_attr *a = &n->attr;
    int32_t dim = k == 1 ? a->head_dim : a->v_dim, ku = a->head_dim / 16, vu = a->v_dim / 16;
    int32_t keys = ku * TN_PAGE_TOKENS, scales = (ku + vu) * TN_PAGE_TOKENS * 4;
    tn_text unit = k == 1 ? tn_textf("u * 64u + slot") : tn_textf("%du + slot * %du + u", keys, vu);
    tn_text scale = k == 1 ? tn_textf("%du + b * 64u + slot", scales)
                           : tn_textf("%du + slot * %du + b", scales + ku / 2 * TN_PAGE_TOKENS, vu / 2);
    tn_text store, store_scale;
    if (kept_for_attention(e)) {
        store = tn_textf("%s { kv[base + %s] = unit; }\n                fresh[%du + u] = unit;", owner(e), unit.s,
                         k == 1 ? 0 : ku);
        store_scale = tn_textf("fresh_scale[%du + b] = d;", k == 1 ? 0 : ku / 2);
    } else {
        store = tn_textf("for (var j = 0u; j < 4u; j++) { kv[(base + %s) * 4u + j] = unit[j]; }", unit.s);
        store_scale = tn_textf("kv[base * 4u + %s] = bitcast<u32>(d);", scale.s);
    }
    tn_buf_printf(&e->head, "fn element_%d(c: u32, row: u32, head: u32) -> f32 { return %s; }\n", k,
                  tn_emit_load(e, n, k, "c", false).s);
    tn_emit_piece(e, &e->body, "kv_write_scaled", "WHAT", k == 1 ? "k" : "v", "HEADS", NUM(a->n_kv / e->parts),
                  "BLOCKS", NUM(dim / 32), "N_KV", NUM(a->n_kv), "HEAD0", e->parts > 1 ? "head" : "0u", "SIZE",
                  NUM(tn_webgpu_kv_size(e->kv_type, a->head_dim, a->v_dim)), "DIM", NUM(dim), "X",
                  tn_textf("element_%d(c, row, %s)", k, e->parts > 1 ? "head" : "0u").s, "STORE", store.s,
                  "STORE_SCALE", store_scale.s, NULL);
}

void tn_emit_kv_write(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    const tn_attr *a = &n->attr;
    int32_t dims = tn_webgpu_kv_dims(e->kv_type), whole = e->kv_type == TN_KV_Q8_0 ? 32 : 8;
    if (a->head_dim % whole || a->v_dim % whole) {
        e->why = "heads that are not whole blocks of the cache";
        return;
    }
    e->state = a->index;
    int32_t ku = a->head_dim / dims, vu = a->v_dim / dims;
    tn_buf_str(&e->body, "    {\n");
    if (!kept_for_attention(e)) /* which has found these already */
        tn_buf_printf(&e->body,
                      "        let position = step[%du + row];\n"
                      "        let page = step[step[%du + row] + position / 64u];\n",
                      e->step.pos, e->step.pages_at);
    tn_buf_str(&e->body, "        let slot = position % 64u;\n");
    if (e->kv_type == TN_KV_Q8_0) {
        emit_scaled(e, n, 1);
        emit_scaled(e, n, 2);
    } else {
        tn_emit_piece(e, &e->body, "kv_write", "HEADS", NUM(a->n_kv / e->parts), "N_KV", NUM(a->n_kv), "HEAD0",
                      e->parts > 1 ? "head" : "0u", "K_UNITS", NUM(ku), "V_UNITS", NUM(vu), "K_DIM", NUM(a->head_dim),
                      "V_DIM", NUM(a->v_dim), "DIMS", NUM(dims), "SIZE",
                      NUM(tn_webgpu_kv_size(e->kv_type, a->head_dim, a->v_dim)), "K", unit(e, n, 1).s, "VALUE",
                      e->v_early ? "early_v" : unit(e, n, 2).s, "KEEP_K",
                      kept_for_attention(e) ? "fresh[u] = y;" : "", "KEEP_V",
                      kept_for_attention(e) ? tn_textf("fresh[%du + u] = y;", ku).s : "", "OWNER", owner(e), NULL);
    }
    tn_buf_str(&e->body, "    }\n");
}

static void emit_op(tn_emit *e, int32_t i) {
    const tn_node *n = tn_emit_node(e, i);
    switch (n->op) {
    case TN_OP_RMS_NORM:
    case TN_OP_L2_NORM: emit_norm_heads(e, i); break;
    case TN_OP_SOFTMAX: emit_softmax(e, i); break;
    case TN_OP_TOP_K: emit_top_k(e, i); break;
    case TN_OP_ROPE: emit_rope(e, i); break;
    case TN_OP_QUANTIZE: emit_quantize(e, i); break;
    case TN_OP_EMBED: emit_embed(e, i); break;
    case TN_OP_ROPE_TABLE: emit_rope_table(e, i); break;
    case TN_OP_KV_WRITE: tn_emit_kv_write(e, i); break;
    case TN_OP_SELECT_ROWS:
        tn_emit_piece(e, &e->body, "select_rows", "OUTPUTS", NUM(e->step.outputs), "N", NUM(n->out[0].cols), "X",
                      tn_emit_load(e, n, 0, "c", true).s, "STORE", tn_emit_store(e, i, "c", "y", true).s, NULL);
        break;
    default: e->why = "no row kernel for the op"; break;
    }
}

/* The barrier before the loop of op i: it reads what other invocations wrote before it, in the arena or in the workgroup's
 * memory, or writes there where they may still be reading. Waiting for the arena costs many times more. */
static const char *barrier_before(const tn_emit *e, int32_t i) {
    bool wait = false;
    for (int32_t j = i; j < e->n; j++) {
        if (e->value[j].loop != e->value[i].loop) continue;
        for (int k = 0; k < tn_emit_node(e, j)->n_src; k++) {
            int32_t from = tn_emit_index(e, tn_emit_node(e, j)->src[k].node);
            if (from < 0 || e->value[from].loop == e->value[i].loop || from_variables(e, j)) continue;
            if (e->value[from].buffer < 0) return "    workgroupBarrier();\n    storageBarrier();\n";
            wait = true;
        }
        for (int32_t k = 0; k < j; k++) wait |= e->value[j].buffer >= 0 && e->value[k].buffer == e->value[j].buffer;
    }
    return wait ? "    workgroupBarrier();\n" : "";
}

void tn_emit_row_ops(tn_emit *e, tn_role role) {
    order_loops(e, role);
    tn_emit_give_buffers(e, role);
    int32_t done = -1;
    for (int32_t i = 0; i < e->n && !e->why; i++) {
        if (e->form.role[i] != role || e->value[i].loop == done) continue;
        done = e->value[i].loop;
        tn_buf_str(&e->body, barrier_before(e, i));
        tn_buf_printf(&e->body, "    // %s\n", tn_ops[tn_emit_node(e, i)->op].name);
        if (in_loop(e, tn_emit_node(e, i)))
            emit_loop(e, i, role);
        else
            emit_op(e, i);
    }
}

void tn_emit_rows(tn_emit *e) {
    tn_buf_str(&e->body, "    let row = group.y * 32768u + group.x;\n    if (row >= n_rows) { return; }\n");
    tn_emit_row_ops(e, TN_BEFORE);
    e->x = 0;
    e->rows_per_y = 1;
}
