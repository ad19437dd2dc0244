/* What all launches share: numbers, windows on the weights, operands, the shell around a shader. */
#include "backend/webgpu/emit.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_BUFFERS = 8 }; /* storage buffers of a shader, on any device */

tn_text tn_textf(const char *format, ...) {
    tn_text t;
    va_list args;
    va_start(args, format);
    vsnprintf(t.s, sizeof t.s, format, args);
    va_end(args);
    return t;
}

/* ---- pieces ---- */

/* The files of kernels/, embedded by the build. */
#define PIECE(name) extern const char tn_webgpu_source_##name[];
#include "backend/webgpu/pieces.def"
#undef PIECE

static const struct {
    const char *name, *text;
} sources[] = {
#define PIECE(name) {#name, tn_webgpu_source_##name},
#include "backend/webgpu/pieces.def"
#undef PIECE
};

static const char *source(const char *name) {
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
        if (!strcmp(sources[i].name, name)) return sources[i].text;
    return NULL;
}

typedef struct pair {
    const char *key, *value;
} pair;

static void substitute(tn_buf *to, const char *text, const pair *pairs, int n) {
    while (*text) {
        const char *dollar = strstr(text, "${");
        if (!dollar) break;
        const char *end = strchr(dollar, '}');
        tn_buf_add(to, text, (size_t)(dollar - text));
        for (int i = 0; i < n; i++)
            if (strlen(pairs[i].key) == (size_t)(end - dollar - 2) &&
                !memcmp(pairs[i].key, dollar + 2, strlen(pairs[i].key)))
                tn_buf_str(to, pairs[i].value);
        text = end + 1;
    }
    tn_buf_str(to, text);
}

void tn_emit_piece(tn_emit *e, tn_buf *to, const char *name, ...) {
    pair pairs[32];
    int n = 0;
    va_list args;
    va_start(args, name);
    for (const char *key; n < 32 && (key = va_arg(args, const char *)) != NULL; n++)
        pairs[n] = (pair){key, va_arg(args, const char *)};
    va_end(args);
    const char *text = source(name);
    if (!text)
        e->why = "a piece of the shader is missing from this build";
    else
        substitute(to, text, pairs, n);
}

/* ---- numbers and places ---- */

tn_text tn_emit_number(tn_emit *e, uint32_t value) {
    if (e->n_numbers == TN_WEBGPU_MAX_NUMBERS) {
        e->why = "too many values in one launch";
        return tn_textf("0u");
    }
    int32_t i = e->n_numbers++;
    e->number[i] = value;
    return tn_textf("numbers[%d].%c", i / 4, "xyzw"[i % 4]);
}

int32_t tn_emit_index(const tn_emit *e, int32_t node) {
    return tn_index_in(e->nodes, e->n, node);
}

int32_t tn_emit_row_words(const tn_emit *e, int32_t node) {
    return (int32_t)(tn_shape_row_bytes(&e->g->nodes[node].out[0]) / 4);
}

/* ---- weights ---- */

static tn_webgpu_segment *segment_of(const tn_emit *e, tn_src src) {
    const tn_webgpu_weight *w = &e->d->weights[e->g->nodes[src.node].attr.index];
    return &w->segment[w->n_segments > 1 ? e->segment : 0];
}

static bool is_weight(const tn_emit *e, const tn_node *n, int k) {
    return e->g->nodes[n->src[k].node].op == TN_OP_WEIGHT;
}

/* Lets windows cover all segments of the launch: in the order of slabs and places, as few as the binding size allows. */
static void make_windows(tn_emit *e) {
    const tn_webgpu_segment *all[TN_LAUNCH_MAX * 2];
    int32_t n = 0;
    for (int32_t i = 0; i < e->n && e->d->weights; i++)
        for (int k = 0; k < tn_emit_node(e, i)->n_src; k++) {
            if (!is_weight(e, tn_emit_node(e, i), k) || tn_emit_node(e, i)->op == TN_OP_ROPE_TABLE) continue;
            const tn_webgpu_segment *s = segment_of(e, tn_emit_node(e, i)->src[k]);
            int32_t at = n++;
            for (; at > 0 &&
                   (all[at - 1]->slab > s->slab || (all[at - 1]->slab == s->slab && all[at - 1]->offset > s->offset));
                 at--)
                all[at] = all[at - 1];
            all[at] = s;
        }
    for (int32_t i = 0; i < n; i++) {
        tn_webgpu_window *w = e->n_windows ? &e->window[e->n_windows - 1] : NULL;
        if (w && w->slab == all[i]->slab && all[i]->offset + all[i]->bytes - w->offset <= e->d->max_window) {
            uint64_t end = all[i]->offset + all[i]->bytes - w->offset;
            if (end > w->bytes) w->bytes = end;
            continue;
        }
        if (e->n_windows == TN_WEBGPU_MAX_WINDOWS) {
            e->why = "the weights lie in more buffers than a shader may bind";
            return;
        }
        e->window[e->n_windows++] = (tn_webgpu_window){all[i]->slab, all[i]->offset, all[i]->bytes};
    }
}

static int32_t window_of(const tn_emit *e, const tn_webgpu_segment *s) {
    for (int32_t i = 0; i < e->n_windows; i++)
        if (s->slab == e->window[i].slab && s->offset >= e->window[i].offset &&
            s->offset + s->bytes <= e->window[i].offset + e->window[i].bytes)
            return i;
    return 0;
}

bool tn_emit_stored(const tn_emit *e, int32_t i, int32_t out) {
    return e->plan && e->plan->offset[e->nodes[i] * TN_MAX_OUT + out] >= 0;
}

static tn_text place_of(tn_emit *e, int32_t node, int32_t out, int32_t first) {
    for (int32_t i = 0; i < e->n_placed; i++)
        if (e->placed[i].node == node && e->placed[i].out == out && e->placed[i].first == first)
            return tn_textf("numbers[%d].%c", e->placed[i].number / 4, "xyzw"[e->placed[i].number % 4]);
    uint64_t at = 0;
    if (e->g->nodes[node].op == TN_OP_WEIGHT) {
        const tn_webgpu_segment *s = e->d->weights ? segment_of(e, (tn_src){.node = node}) : NULL;
        if (s) at = (s->offset - e->window[window_of(e, s)].offset) / 4 + (uint64_t)first;
    } else if (e->plan) {
        at = (uint64_t)e->plan->offset[node * TN_MAX_OUT + out] / 4 + (uint64_t)first;
    }
    if (e->n_placed < (int32_t)(sizeof e->placed / sizeof *e->placed)) {
        e->placed[e->n_placed].node = node;
        e->placed[e->n_placed].out = out;
        e->placed[e->n_placed].first = first;
        e->placed[e->n_placed++].number = e->n_numbers;
    }
    return tn_emit_number(e, (uint32_t)at);
}

tn_text tn_emit_place(tn_emit *e, int32_t node, int32_t first) {
    return place_of(e, node, 0, first);
}

tn_text tn_emit_place_out(tn_emit *e, int32_t node, int32_t out) {
    return place_of(e, node, out, 0);
}

/* ---- int8 values of several rows ---- */

tn_text tn_emit_q8_row(const tn_node *n, const char *place, const char *c) {
    int32_t width = tn_emit_q8_width(n);
    if (width == n->out[0].cols) return tn_textf("%s", place);
    return tn_textf("%s + (%s) / %du * %zuu", place, c, width, tn_q8_row_bytes((size_t)width) / 4);
}

tn_text tn_emit_q8_column(const tn_node *n, const char *c) {
    int32_t width = tn_emit_q8_width(n);
    return width == n->out[0].cols ? tn_textf("(%s)", c) : tn_textf("(%s) %% %du", c, width);
}

/* The functions of a block type, once a shader. */
static void need_type(tn_emit *e, const tn_webgpu_type *t) {
    if (e->types_used >> t->type & 1) return;
    e->types_used |= UINT64_C(1) << t->type;
    e->halves |= t->type != TN_TYPE_F32 && t->type != TN_TYPE_BF16;
    int32_t vecs = (t->quants + 3) / 4;
    tn_buf_printf(&e->types,
                  "struct Raw_%s { q: array<vec4<u32>, %d>, h: vec2<u32>, s: u32, d: u32 }\n"
                  "struct Pair_%s { a: Raw_%s, b: Raw_%s }\n",
                  t->name, vecs, t->name, t->name, t->name);
    tn_emit_piece(e, &e->types, t->name, NULL);
    if (t->type == TN_TYPE_IQ4_NL || t->type == TN_TYPE_IQ4_XS) {
        if (!(e->types_used & (UINT64_C(1) << 63))) tn_emit_piece(e, &e->types, "levels", NULL);
        e->types_used |= UINT64_C(1) << 63;
    }
    if (!t->floats) {
        e->int8 = true;
        tn_emit_piece(e, &e->types, t->scales == 2 ? "value2" : "value1", "TYPE", t->name, NULL);
    }
}

const tn_webgpu_weight *tn_emit_weight(tn_emit *e, int32_t id, tn_src src) {
    static const tn_webgpu_segment nothing;
    const tn_weight *from = tn_src_weight(e->g, src);
    const tn_webgpu_weight *w = e->d->weights ? &e->d->weights[e->g->nodes[src.node].attr.index] : NULL;
    const tn_webgpu_type *t = w ? w->type : tn_webgpu_type_of(from->n_out == 1 ? TN_TYPE_F32 : from->type);
    const tn_webgpu_segment *s = w ? segment_of(e, src) : &nothing;
    int32_t win = w ? window_of(e, s) : 0, blocks = (from->n_in + 31) / 32;
    uint64_t at = w ? s->offset - e->window[win].offset : 0;
    need_type(e, t);
    tn_buf *b = &e->head;
    tn_buf_printf(
        b, "fn load_%d(row: u32, block: u32) -> Raw_%s {\n    let i = row * %du + block;\n    var r: Raw_%s;\n", id,
        t->name, blocks, t->name);
    tn_text quants = tn_emit_number(e, (uint32_t)((at + s->plane[0]) / 16));
    if (t->quants == 2)
        tn_buf_printf(b, "    let q = w%d[%s + (i >> 1u)];\n    r.q[0] = select(q, q.zwxy, (i & 1u) == 1u);\n", win,
                      quants.s);
    for (int32_t k = 0; k < t->quants / 4; k++)
        tn_buf_printf(b, "    r.q[%d] = w%d[%s + i * %du + %du];\n", k, win, quants.s, t->quants / 4, k);
    tn_text high = t->high ? tn_emit_number(e, (uint32_t)((at + s->plane[1]) / 4)) : tn_textf("0u");
    for (int32_t k = 0; k < t->high; k++)
        tn_buf_printf(b, "    r.h[%d] = w%du(%s + i * %du + %du);\n", k, win, high.s, t->high, k);
    tn_text scale = t->scale_bytes ? tn_emit_number(e, (uint32_t)((at + s->plane[2]) / 4)) : tn_textf("0u");
    if (t->scale_bytes == 2)
        tn_buf_printf(b, "    r.s = (w%du(%s + (i >> 1u)) >> ((i & 1u) * 16u)) & 0xffffu;\n", win, scale.s);
    if (t->scale_bytes == 4) tn_buf_printf(b, "    r.s = w%du(%s + i);\n", win, scale.s);
    if (t->super)
        tn_buf_printf(b, "    r.d = w%du(%s + (i >> 3u));\n", win,
                      tn_emit_number(e, (uint32_t)((at + s->plane[3]) / 4)).s);
    tn_buf_str(b, "    return r;\n}\n");
    return w;
}

/* As tn_emit_weight, but two neighbouring blocks at once, which share words: load2_ID(row, pair). Rows have an even number of
 * blocks. */
void tn_emit_weight_pairs(tn_emit *e, int32_t id, tn_src src) {
    static const tn_webgpu_segment nothing;
    const tn_weight *from = tn_src_weight(e->g, src);
    const tn_webgpu_weight *w = e->d->weights ? &e->d->weights[e->g->nodes[src.node].attr.index] : NULL;
    const tn_webgpu_type *t = w ? w->type : tn_webgpu_type_of(from->n_out == 1 ? TN_TYPE_F32 : from->type);
    const tn_webgpu_segment *s = w ? segment_of(e, src) : &nothing;
    int32_t win = w ? window_of(e, s) : 0;
    uint64_t at = w ? s->offset - e->window[win].offset : 0;
    need_type(e, t);
    tn_text plane[TN_WEBGPU_PLANES]; /* in units of 16 bytes */
    const bool has[TN_WEBGPU_PLANES] = {true, t->high, t->scale_bytes, t->super};
    for (int p = 0; p < TN_WEBGPU_PLANES; p++)
        plane[p] = has[p] ? tn_emit_number(e, (uint32_t)((at + s->plane[p]) / 16)) : tn_textf("0u");
    tn_buf *b = &e->head;
    tn_buf_printf(
        b, "fn load2_%d(row: u32, pair: u32) -> Pair_%s {\n    let i = row * %du + pair;\n    var r: Pair_%s;\n", id,
        t->name, (from->n_in + 31) / 64, t->name);
    if (t->quants == 2)
        tn_buf_printf(b, "    r.a.q[0] = w%d[%s + i];\n    r.b.q[0] = r.a.q[0].zwxy;\n", win, plane[0].s);
    for (int32_t k = 0; k < t->quants / 2 && t->quants > 2; k++)
        tn_buf_printf(b, "    r.%c.q[%d] = w%d[%s + i * %du + %du];\n", "ab"[k / (t->quants / 4)],
                      k % (t->quants / 4), win, plane[0].s, t->quants / 2, k);
    if (t->high == 1)
        tn_buf_printf(b,
                      "    let h4 = w%d[%s + (i >> 1u)];\n    let h = select(h4.xy, h4.zw, (i & 1u) == 1u);\n"
                      "    r.a.h[0] = h.x;\n    r.b.h[0] = h.y;\n",
                      win, plane[1].s);
    if (t->high == 2)
        tn_buf_printf(b, "    let h = w%d[%s + i];\n    r.a.h = h.xy;\n    r.b.h = h.zw;\n", win, plane[1].s);
    if (t->scale_bytes == 2)
        tn_buf_printf(b, "    let s = w%du(%s * 4u + i);\n    r.a.s = s & 0xffffu;\n    r.b.s = s >> 16u;\n", win,
                      plane[2].s);
    if (t->scale_bytes == 4)
        tn_buf_printf(b,
                      "    let s4 = w%d[%s + (i >> 1u)];\n    let s = select(s4.xy, s4.zw, (i & 1u) == 1u);\n"
                      "    r.a.s = s.x;\n    r.b.s = s.y;\n",
                      win, plane[2].s);
    if (t->super) tn_buf_printf(b, "    r.a.d = w%du(%s * 4u + (i >> 2u));\n    r.b.d = r.a.d;\n", win, plane[3].s);
    tn_buf_str(b, "    return r;\n}\n");
}

/* ---- operands ---- */

int32_t tn_emit_columns(const tn_emit *e, int32_t cols) {
    return cols / (cols == e->k_cols ? e->k_parts : e->parts);
}

/* Where column c of what a worker has of a value is in its row. */
static tn_text column(const tn_emit *e, int32_t cols, const char *c) {
    int32_t n = tn_emit_columns(e, cols);
    if (n == cols) return tn_textf("%s", c);
    return tn_textf(cols == e->k_cols ? "k_head * %du + %s" : "head * %du + %s", n, c);
}

static tn_text load_vector_weight(tn_emit *e, tn_src src, int32_t cols, const char *c, bool vector) {
    int32_t win = e->d->weights ? window_of(e, segment_of(e, src)) : 0;
    tn_text place = tn_emit_place(e, src.node, src.first), col = column(e, cols, c);
    if (src.cols == 1) return tn_textf(vector ? "V(w%ds(%s))" : "w%ds(%s)", win, place.s);
    tn_text index = src.cols < cols ? tn_textf("(%s) %% %du", col.s, src.cols) : col;
    return tn_textf("w%d%c(%s + %s)", win, vector ? 'v' : 's', place.s, index.s);
}

tn_text tn_emit_element_of_matrix(tn_emit *e, tn_src src, const char *r, const char *c) {
    int32_t win = e->d->weights ? window_of(e, segment_of(e, src)) : 0;
    int32_t words = (tn_src_weight(e->g, src)->n_in + 31) / 32 * 32;
    return tn_textf("w%ds(%s + %s * %du + %s)", win, tn_emit_place(e, src.node, 0).s, r, words, c);
}

/* Columns of what a node makes of source k: fewer in the source mean that it repeats. */
static int32_t columns_of_use(const tn_node *n, int k) {
    bool own = (n->op == TN_OP_ROPE && k == 1) || tn_ops[n->op].class == TN_STATE || n->op == TN_OP_TOP_K;
    return own ? n->src[k].cols : n->out[0].cols;
}

tn_text tn_emit_load(tn_emit *e, const tn_node *node, int k, const char *c, bool vector) {
    tn_src src = node->src[k];
    int32_t cols = columns_of_use(node, k), i = tn_emit_index(e, src.node);
    if (is_weight(e, node, k)) return load_vector_weight(e, src, cols, c, vector);
    const char *f = vector ? "v" : "s";
    bool held = i >= 0 && e->value[i].buffer >= 0, repeats = src.cols < cols;
    bool table = node->op == TN_OP_ROPE && k == 1; /* of the row, the same for every head */
    tn_text at = held || table ? tn_textf("%s", c) : column(e, cols, c), first;
    if (held && e->rows_held > 1 && e->value[i].wanted)
        first = tn_textf("%du + row * %du", e->value[i].buffer + src.first, e->value[i].size);
    else if (held)
        first = tn_textf("%du", e->value[i].buffer + src.first);
    else
        first = tn_textf("%s + %s * %du + %du", tn_emit_place_out(e, src.node, src.out).s,
                         node->op == TN_OP_SELECT_ROWS ? "source" : "row", tn_emit_row_words(e, src.node), src.first);
    const char *memory = held ? "wg" : "ar";
    if (repeats && src.cols == 1) return tn_textf(vector ? "V(%ss(%s))" : "%ss(%s)", memory, first.s);
    if (repeats) at = tn_textf("(%s) %% %du", at.s, src.cols);
    return tn_textf("%s%s(%s + %s)", memory, f, first.s, at.s);
}

tn_text tn_emit_store(tn_emit *e, int32_t i, const char *c, const char *y, bool vector) {
    tn_webgpu_value *v = &e->value[i];
    tn_text t = {""};
    const char *f = vector ? "st" : "sts";
    if (v->buffer >= 0 && e->rows_held > 1 && v->wanted)
        t = tn_textf("wg%s(%du + row * %du + %s, %s);", f, v->buffer, v->size, c, y);
    else if (v->buffer >= 0)
        t = tn_textf("wg%s(%du + %s, %s);", f, v->buffer, c, y);
    if (!v->stored) return t;
    tn_text put = tn_textf("ar%s(%s + row * %du + %s, %s);", f, tn_emit_place(e, e->nodes[i], 0).s,
                           tn_emit_row_words(e, e->nodes[i]), column(e, tn_emit_node(e, i)->out[0].cols, c).s, y);
    return e->rows_apart ? tn_textf("%s if (first_group) { %s }", t.s, put.s) : tn_textf("%s %s", t.s, put.s);
}

void tn_emit_team(tn_emit *e, int32_t team) {
    e->teams |= (uint32_t)team;
}

/* ---- the shell ---- */

/* Sources that are read word by word. */
static bool by_words(const tn_node *n, int k) {
    return (n->op == TN_OP_MATMUL_ID && k == 2) || (n->op == TN_OP_EXPERT_SUM && k == 1) ||
           (n->op == TN_OP_GATED_DELTA_NET && k >= 4);
}

int32_t tn_emit_width(const tn_emit *e) {
    for (int32_t i = 0; i < e->n; i++) {
        const tn_node *n = tn_emit_node(e, i);
        if (n->out[0].dtype != TN_DTYPE_STATE &&
            (tn_emit_row_words(e, e->nodes[i]) % 4 || tn_emit_columns(e, n->out[0].cols) % 4))
            return 1;
        for (int k = 0; k < n->n_src; k++) {
            const tn_node *from = &e->g->nodes[n->src[k].node];
            if (from->op == TN_OP_INPUT || from->op == TN_OP_STATE || from->out[0].dtype == TN_DTYPE_STATE) continue;
            if (by_words(n, k)) continue;
            if (n->src[k].first % 4 || (n->src[k].cols % 4 && n->src[k].cols != 1)) return 1;
            if (from->op != TN_OP_WEIGHT && tn_emit_row_words(e, n->src[k].node) % 4) return 1;
        }
    }
    return 4;
}

/* Of numbers (suffix ""), of the scores of several heads (suffix h). */
static void add_reductions(tn_emit *e, tn_buf *to, uint32_t teams, const char *suffix, const char *type) {
    int32_t sub = e->d->subgroup;
    if (!teams) return;
    tn_buf_printf(to, "var<workgroup> red%s: array<%s, %d>;\n", suffix, type, sub ? e->wg / sub : e->wg);
    for (int32_t team = 2; team <= e->wg; team *= 2)
        if (teams & (uint32_t)team)
            tn_emit_piece(e, to, sub ? "reduce_subgroups" : "reduce_plain", "TEAM", NUM(team), "SUBGROUP",
                          NUM(sub ? sub : 1), "INSIDE", NUM(team < sub ? team : sub), "S", suffix, "V", type, NULL);
}

static void assemble(tn_emit *e, tn_buf *text) {
    tn_buf_str(text, e->d->enable ? e->d->enable : "");
    tn_emit_piece(e, text, e->vec == 4 ? "access4" : "access1", NULL);
    tn_emit_piece(e, text, "common", "UNIT", e->vec == 4 ? "vec4<u32>" : "u32", "NUMBERS",
                  NUM((e->n_numbers + 3) / 4 + (e->n_numbers == 0)), "WG", NUM(e->wg), "VEC", NUM(e->vec), "SHARED",
                  NUM((e->shared + 3) / e->vec + 1), NULL);
    tn_emit_piece(e, text, "element", "V", "V", "S", "", NULL);
    if (e->vec == 4 && e->form.kind == TN_FORM_MATMULS) tn_emit_piece(e, text, "element", "V", "f32", "S", "1", NULL);
    if (e->q_words)
        tn_buf_printf(text, "var<workgroup> wq: array<vec4<u32>, %d>;\nvar<workgroup> wd: array<vec4<f32>, %d>;\n",
                      e->q_words / 4, e->q_words / 8);
    if (e->state >= 0)
        tn_buf_printf(text, "@group(0) @binding(3) var<storage, read_write> kv: array<%s>;\n",
                      e->form.kind == TN_FORM_SCAN                               ? "V"
                      : e->form.kind == TN_FORM_ROWS && e->kv_type == TN_KV_Q8_0 ? "u32"
                                                                                 : "vec4<u32>");
    if (e->scratch_words) tn_buf_str(text, "@group(0) @binding(4) var<storage, read_write> scratch: array<f32>;\n");
    for (int32_t i = 0; i < e->n_windows; i++)
        tn_emit_piece(e, text, "window", "ID", NUM(i), "BINDING", NUM(5 + i), "VALUE",
                      e->vec == 4 ? tn_textf("bitcast<vec4<f32>>(w%d[i >> 2u])", i).s : tn_textf("w%ds(i)", i).s,
                      NULL);
    add_reductions(e, text, e->teams, "", "f32");
    add_reductions(e, text, e->head_teams, "h", "H");
    if (e->halves || e->state >= 0) tn_emit_piece(e, text, "halves", NULL);
    if (e->int8) {
        tn_emit_piece(e, text, "x8", NULL);
        tn_emit_piece(e, text, e->d->packed_dot ? "dot_packed" : "dot_plain", NULL);
    }
    tn_buf_add(text, e->types.p ? e->types.p : "", e->types.n);
    tn_buf_add(text, e->head.p ? e->head.p : "", e->head.n);
    tn_buf_printf(text,
                  "@compute @workgroup_size(%d)\nfn main(@builtin(workgroup_id) group: vec3<u32>, "
                  "@builtin(local_invocation_index) local: u32) {\n    tid = local;\n    let n_rows = %s;\n",
                  e->wg,
                  e->form.max_rows == 1 && e->form.kind == TN_FORM_MATMULS ? "1u"
                  : e->shape->rows == TN_ROWS_TOKENS                       ? "step[0]"
                  : e->shape->rows == TN_ROWS_OUTPUTS                      ? "step[1]"
                                                                           : tn_textf("%du", e->shape->n_rows).s);
    tn_buf_add(text, e->body.p ? e->body.p : "", e->body.n);
    tn_buf_str(text, "}\n");
}

/* What a device may be asked for at most: nothing beyond it may reach an implementation. */
static void check_limits(tn_emit *e) {
    const tn_device *d = e->d;
    const WGPULimits *most = &d->limits;
    size_t bytes = ((size_t)e->shared + 8 + e->wg) * 4 + (size_t)e->q_words * 6 + (size_t)e->extra_bytes;
    uint32_t buffers = 2u + (uint32_t)e->n_windows + (e->state >= 0) + (e->scratch_words > 0), x, y;
    int32_t rows = e->rows == TN_ROWS_TOKENS    ? e->g->max_tokens
                   : e->rows == TN_ROWS_OUTPUTS ? e->g->max_outputs
                                                : e->fixed_rows;
    if (e->why) return;
    tn_webgpu_grid(e->x, e->rows_per_y, rows, &x, &y);
    if (buffers > MAX_BUFFERS || buffers > most->maxStorageBuffersPerShaderStage)
        e->why = "the weights lie in more buffers than a shader may bind";
    else if (bytes > most->maxComputeWorkgroupStorageSize)
        e->why = "what a workgroup keeps of its rows does not fit into its memory";
    else if (x > most->maxComputeWorkgroupsPerDimension || y > most->maxComputeWorkgroupsPerDimension)
        e->why = "more workgroups in a row than a dispatch may have";
    else if (e->scratch_words * 4 > d->max_binding)
        e->why = "its partial results are more than a shader may bind";
}

bool tn_webgpu_emit(tn_emit *e, tn_buf *text) {
    for (int32_t i = 0; i < e->n; i++)
        e->value[i] = (tn_webgpu_value){.stored = tn_emit_stored(e, i, 0), .buffer = -1};
    const tn_node *first = tn_emit_node(e, 0), *last = tn_emit_node(e, e->n - 1);
    const tn_shape *shape = first->op == TN_OP_KV_WRITE && e->n == 1 ? tn_shape_of(e->g, first->src[1])
                            : last->out[0].dtype == TN_DTYPE_STATE   ? &first->out[0]
                                                                     : &last->out[0];
    e->shape = shape;
    e->rows = shape->rows;
    e->fixed_rows = shape->n_rows;
    e->state = -1;
    e->wg = e->form.kind == TN_FORM_ATTEND || e->form.kind == TN_FORM_SCAN ? 2 * TN_WEBGPU_GROUP : TN_WEBGPU_GROUP;
    e->rows_held = 1;
    make_windows(e);
    if (e->why) return false;
    switch (e->form.kind) {
    case TN_FORM_ROWS:
        if (e->kernel->core != TN_WEBGPU_SHARES)
            tn_emit_rows(e);
        else
            e->kernel->op == TN_OP_BEST ? tn_emit_best(e) : tn_emit_argmax(e);
        break;
    case TN_FORM_MATMULS: tn_emit_matmuls(e); break;
    case TN_FORM_ATTEND: tn_emit_attend(e); break;
    case TN_FORM_SCAN: tn_emit_scan(e); break;
    }
    check_limits(e);
    if (!e->why) assemble(e, text);
    return !e->why && !text->failed && !e->body.failed && !e->head.failed && !e->types.failed;
}

void tn_webgpu_emit_free(tn_emit *e) {
    tn_buf_free(&e->types);
    tn_buf_free(&e->head);
    tn_buf_free(&e->body);
}
