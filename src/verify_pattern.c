/* A rule's pattern as a graph. The lines are walked as they read, top to bottom; what a slot is (a row, the heads of q, the
 * result of a product, ...) follows from who reads it, so that is worked out first, bottom to top. A line that is a
 * fused launch is made of the pattern of a rule that emits such launches. */
#include "base/mem.h"
#include "verify.h"

#include <stdio.h>
#include <string.h>

/* What a slot's value is, which gives it its width and, where nothing makes it, its random values. */
typedef enum role {
    ROLE_NONE,
    ROLE_X,         /* a row */
    ROLE_N,         /* the result of a product */
    ROLE_EXPERTS,   /* the results of the experts chosen */
    ROLE_PROBS,     /* a number for each expert */
    ROLE_CHOSEN,    /* a number for each chosen expert */
    ROLE_PER_HEAD,  /* a number for each head: factors between 0 and 1 */
    ROLE_LOG_DECAY, /* likewise, below 0 */
    ROLE_OTHER,     /* weights, tables, states: the op knows */
    ROLE_Q,         /* heads of q, of k, of v: from here on, whatever works on heads works on each */
    ROLE_K,
    ROLE_V,
    ROLE_SHORT_K, /* heads of q and k of a recurrence: as many as k has, and short */
} role;

enum { N_EXPERT = 5, N_USED = 2, TAPS = 4 };

typedef struct builder {
    tn_pattern_graph *out;
    tn_graph *g;
    tn_rig_weights *weights;
    const tn_sizes *s;
    int32_t serial;  /* makes names and weights differ */
    int32_t product; /* products so far: the next one's type */
    bool unfit;      /* the sizes do not suit the pattern */
} builder;

/* A pattern in the making. `given` are the values that the reader of a fused launch passes in, for its free inputs. */
typedef struct frame {
    const tn_pattern *p;
    tn_line line[TN_MAX_LINES]; /* those that are there, their sources renamed for those that are not */
    char src[TN_MAX_LINES][8];
    int at[TN_MAX_LINES]; /* which line of the rule */
    int n;
    role role[128];
    tn_val slot[128];
    bool bound[128];
    const tn_val *given;
    int n_given;
} frame;

/* Where a node's sources come from: their slots in a frame ("" for none). */
typedef struct sources {
    frame *f;
    const char *slots;
} sources;

static tn_val build_frame(builder *b, frame *f, role want);

/* ---- lines and roles ---- */

static void choose_lines(frame *f, const tn_pattern *p) {
    char as[128];
    for (int c = 0; c < 128; c++) as[c] = (char)c;
    f->p = p;
    for (int i = 0; i < TN_MAX_LINES && p->rule->line[i].slot; i++) {
        const tn_line *l = &p->rule->line[i];
        if (p->absent >> i & 1) {
            as[(int)l->slot] = as[(int)l->src[0]];
            continue;
        }
        for (int k = 0; l->src[k]; k++) f->src[f->n][k] = as[(int)l->src[k]];
        f->line[f->n] = *l;
        f->line[f->n].src = f->src[f->n];
        f->at[f->n++] = i;
    }
}

/* The op of a line; of a fused launch, the one it begins with. */
static tn_op op_of(const frame *f, int i) {
    int kind = f->p->kind[f->at[i]];
    if (kind < TN_KIND_FIRST) return (tn_op)kind;
    const tn_rule *maker = f->p->maker[f->at[i]];
    int first = 0;
    while (f->p->bare[f->at[i]] && maker->line[first].flags & TN_OPT) first++;
    return (tn_op)__builtin_ctzll(maker->line[first].kinds);
}

/* The role of source j of a node whose value has role r. */
static role source_role(tn_op op, role r, int j) {
    static const role delta[] = {ROLE_OTHER, ROLE_SHORT_K, ROLE_SHORT_K, ROLE_Q, ROLE_LOG_DECAY, ROLE_PER_HEAD};
    switch (op) {
    case TN_OP_MATMUL:
    case TN_OP_MATMUL_ID: return j == 0 ? ROLE_X : ROLE_OTHER;
    case TN_OP_ATTENTION: return j == 0 ? ROLE_Q : ROLE_OTHER;
    case TN_OP_KV_WRITE: return j == 0 ? ROLE_OTHER : j == 1 ? ROLE_K : ROLE_V;
    case TN_OP_ROPE: return j != 0 ? ROLE_OTHER : r == ROLE_K ? ROLE_K : ROLE_Q;
    case TN_OP_ADD:
    case TN_OP_MUL: return r;
    case TN_OP_TOP_K: return j == 0 ? ROLE_PROBS : ROLE_OTHER;
    case TN_OP_ARGMAX:
    case TN_OP_BEST: return ROLE_N;
    case TN_OP_EXPERT_SUM: return j == 0 ? ROLE_EXPERTS : ROLE_CHOSEN;
    case TN_OP_CONV1D: return j == 1 ? ROLE_X : ROLE_OTHER;
    case TN_OP_GATED_DELTA_NET: return delta[j];
    default: return j == 0 ? r : ROLE_OTHER;
    }
}

/* What the value of an op is where nobody says; ROLE_NONE: what its source is. */
static role result_role(tn_op op) {
    switch (op) {
    case TN_OP_MATMUL: return ROLE_N;
    case TN_OP_MATMUL_ID: return ROLE_EXPERTS;
    case TN_OP_TOP_K: return ROLE_CHOSEN;
    case TN_OP_ARGMAX:
    case TN_OP_BEST: return ROLE_OTHER;
    case TN_OP_EXPERT_SUM: return ROLE_N;
    case TN_OP_CONV1D: return ROLE_X;
    case TN_OP_ATTENTION:
    case TN_OP_GATED_DELTA_NET:
    case TN_OP_ROPE: return ROLE_Q;
    case TN_OP_KV_WRITE: return ROLE_OTHER;
    default: return ROLE_NONE;
    }
}

/* The same of a line: of a fused launch, as the last of its lines that says. */
static role line_role(const frame *f, int i) {
    int kind = f->p->kind[f->at[i]], n = 0;
    if (kind < TN_KIND_FIRST) return result_role((tn_op)kind);
    const tn_line *line = f->p->maker[f->at[i]]->line;
    while (n < TN_MAX_LINES && line[n].slot) n++;
    role r = ROLE_NONE;
    while (n-- > 0 && r == ROLE_NONE) r = result_role((tn_op)__builtin_ctzll(line[n].kinds));
    return r;
}

static void assign_roles(frame *f, role want) {
    for (int i = f->n - 1; i >= 0; i--) {
        role *r = &f->role[(int)f->line[i].slot];
        if (i == f->n - 1) *r = want;
        for (int k = i; k >= 0 && *r == ROLE_NONE; k--) *r = line_role(f, k);
        if (*r == ROLE_NONE) *r = ROLE_X;
        for (int j = 0; f->line[i].src[j]; j++) {
            role *from = &f->role[(int)f->line[i].src[j]];
            if (*from == ROLE_NONE) *from = source_role(op_of(f, i), *r, j);
        }
    }
}

static bool is_heads(role r) {
    return r >= ROLE_Q;
}

static int32_t columns(const builder *b, role r) {
    switch (r) {
    case ROLE_Q: return b->s->n_head * b->s->head_dim;
    case ROLE_K:
    case ROLE_V:
    case ROLE_SHORT_K: return b->s->n_kv * b->s->head_dim;
    case ROLE_PER_HEAD:
    case ROLE_LOG_DECAY: return b->s->n_head;
    case ROLE_N: return b->s->n_out;
    case ROLE_EXPERTS: return N_USED * b->s->n_out;
    case ROLE_PROBS: return N_EXPERT;
    case ROLE_CHOSEN: return N_USED;
    default: return b->s->width;
    }
}

/* ---- inputs ---- */

static const char *name_of(builder *b, char slot, char *to) {
    snprintf(to, 16, "%c%d", slot, b->serial++);
    return to;
}

static tn_val weight(builder *b, tn_fill fill, const tn_weight *like) {
    if (like->n_in % tn_type_get(like->type)->block) b->unfit = true;
    if (b->unfit) return (tn_val){.cols = like->n_in};
    return tn_rig_weight(b->weights, b->g, like, fill, b->serial++);
}

static tn_val vector(builder *b, int32_t cols) {
    return weight(b, TN_FILL_POSITIVE, &(tn_weight){.type = TN_TYPE_F32, .n_out = 1, .n_in = cols, .elements = true});
}

/* An activation from outside: random rows by token id. No rule takes an embedding. */
static tn_val fresh(builder *b, role r, int32_t cols) {
    char name[16];
    tn_fill fill = r == ROLE_LOG_DECAY                                         ? TN_FILL_NEGATIVE
                   : r == ROLE_SHORT_K                                         ? TN_FILL_SMALL
                   : r == ROLE_PROBS || r == ROLE_CHOSEN || r == ROLE_PER_HEAD ? TN_FILL_POSITIVE
                                                                               : b->s->input;
    if (b->s->input == TN_FILL_EQUAL && r == ROLE_PROBS) fill = TN_FILL_EQUAL;
    tn_val w = weight(b, fill, &(tn_weight){.type = TN_TYPE_F32, .n_out = TN_RIG_VOCAB, .n_in = cols});
    return tn_g_embed(b->g, (tn_val){.cols = 1}, w, name_of(b, 'i', name)); /* node 0: the tokens */
}

/* Whether source j is there already: its slot is bound, or the reader of the launch passed it in. */
static bool known(const sources *s, int j, tn_val *v) {
    char slot = (int)strlen(s->slots) > j ? s->slots[j] : 0;
    if (slot && s->f->bound[(int)slot]) {
        *v = s->f->slot[(int)slot];
        return true;
    }
    if (!s->f->n_given) return false;
    *v = *s->f->given++;
    s->f->n_given--;
    return true;
}

static tn_val remember(const sources *s, int j, tn_val v) {
    char slot = (int)strlen(s->slots) > j ? s->slots[j] : 0;
    if (slot) {
        s->f->slot[(int)slot] = v;
        s->f->bound[(int)slot] = true;
    }
    return v;
}

static tn_val activation(builder *b, const sources *s, int j, role r) {
    tn_val v;
    if (!known(s, j, &v)) v = fresh(b, r, columns(b, r));
    return remember(s, j, v);
}

/* The second operand of an addition or product of r columns. */
static tn_val operand(builder *b, role r, int32_t cols) {
    int32_t part = is_heads(r) ? b->s->head_dim : cols % 2 ? cols : cols / 2;
    switch (b->s->operand) {
    case TN_OPERAND_WEIGHT: return vector(b, is_heads(r) ? part : cols);
    case TN_OPERAND_REPEATS: return fresh(b, r, part);
    case TN_OPERAND_SLICE: return tn_g_slice(fresh(b, r, 2 * cols), cols / 2, cols);
    default: return fresh(b, r, cols);
    }
}

static tn_val cache_state(builder *b) {
    const tn_sizes *s = b->s;
    if (s->kv == TN_KV_Q8_0 && s->head_dim % 32) b->unfit = true;
    tn_attr heads = {.n_kv = s->n_kv, .n_head = s->n_head, .head_dim = s->head_dim, .v_dim = s->head_dim};
    return tn_g_state(b->g, b->g->n_states, "cache", &heads);
}

static tn_val rope_table(builder *b) {
    char name[16];
    const tn_sizes *s = b->s;
    tn_rope_params rope = {10000, s->ext_factor != 0 ? 0.25f : 1, s->ext_factor, 1, 32, 1, 64};
    tn_val factors = vector(b, s->n_rot / 2);
    return tn_g_rope_table(b->g, s->neox ? &factors : NULL, s->n_rot, rope, name_of(b, 't', name));
}

/* ---- nodes ---- */

static tn_val make_top_k(builder *b, const sources *s, const char *name) {
    return tn_g_top_k(b->g, activation(b, s, 0, ROLE_PROBS), NULL, N_USED, b->s->neox, name);
}

static tn_val multiply(builder *b, const sources *s, tn_op op, role r, const char *name) {
    char other[16];
    frame outside = {0};
    tn_val x = activation(b, s, 0, ROLE_X), w, ids;
    bool experts = op == TN_OP_MATMUL_ID;
    tn_weight like = {.type = b->s->type[b->product++ % 2],
                      .n_out = experts ? N_EXPERT * b->s->n_out : columns(b, r),
                      .n_in = experts && x.cols != b->s->width ? x.cols / N_USED : x.cols,
                      .n_expert = experts ? N_EXPERT : 1};
    w = weight(b, TN_FILL_RANDOM, &like);
    if (b->unfit) return x;
    if (!experts) return tn_g_matmul(b->g, x, w, name);
    if (!known(s, 2, &ids))
        ids = tn_g_out(make_top_k(b, &(sources){&outside, ""}, name_of(b, 'e', other)), 1, N_USED);
    return tn_g_matmul_id(b->g, x, w, remember(s, 2, ids), name);
}

/* A sum of experts that is passed in waits for an op on the product. */
static tn_val make_product(builder *b, const sources *s, tn_op op, role r, const char *name) {
    int held = s->f->n_given && b->g->nodes[s->f->given->node].op == TN_OP_EXPERT_SUM ? s->f->n_given : 0;
    s->f->n_given -= held;
    tn_val y = multiply(b, s, op, r, name);
    s->f->n_given += held;
    return y;
}

static tn_val make_binary(builder *b, const sources *s, tn_op op, role r, const char *name) {
    tn_val x = activation(b, s, 0, r), y;
    if (!known(s, 1, &y)) y = operand(b, r, x.cols);
    remember(s, 1, y);
    if (b->unfit) return x;
    bool swap = b->s->operand == TN_OPERAND_SWAPPED && y.cols == x.cols;
    return tn_g_binary(b->g, op, swap ? y : x, swap ? x : y, name);
}

static tn_val make_kv_write(builder *b, const sources *s, const char *name) {
    tn_val cache;
    if (!known(s, 0, &cache)) cache = cache_state(b);
    remember(s, 0, cache);
    tn_val k = activation(b, s, 1, ROLE_K), v = activation(b, s, 2, ROLE_V);
    return tn_g_kv_write(b->g, cache, k, v, name);
}

static tn_val make_attention(builder *b, const sources *s, const char *name) {
    char other[16];
    frame outside = {0};
    tn_val q = activation(b, s, 0, ROLE_Q), cache;
    if (!known(s, 1, &cache)) cache = make_kv_write(b, &(sources){&outside, ""}, name_of(b, 'c', other));
    remember(s, 1, cache);
    tn_attr heads = {.n_head = b->s->n_head,
                     .n_kv = b->s->n_kv,
                     .head_dim = b->s->head_dim,
                     .v_dim = b->s->head_dim,
                     .window = b->s->window,
                     .softcap = b->s->softcap,
                     .factor = 0.25f};
    return tn_g_attention(b->g, q, cache, &heads, name);
}

static tn_val make_rope(builder *b, const sources *s, role r, const char *name) {
    tn_val x = activation(b, s, 0, source_role(TN_OP_ROPE, r, 0)), table;
    if (!known(s, 1, &table)) table = rope_table(b);
    remember(s, 1, table);
    return b->unfit ? x : tn_g_rope(b->g, x, table, b->s->head_dim, b->s->n_rot, b->s->neox, name);
}

static tn_val make_quantize(builder *b, const sources *s, role r, const char *name) {
    tn_val x = activation(b, s, 0, r);
    if (x.cols % 32) b->unfit = true;
    b->out->quantizes = true;
    return b->unfit ? x : tn_g_quantize(b->g, x, name);
}

/* State first, then what the pattern has. */
static tn_val make_scan(builder *b, const sources *s, tn_op op, const char *name) {
    const tn_sizes *z = b->s;
    tn_attr heads = {.n_head = z->n_head, .n_kv = z->n_kv, .head_dim = z->head_dim, .v_dim = z->head_dim};
    int32_t size = op == TN_OP_CONV1D ? (TAPS - 1) * z->width : z->n_head * z->head_dim * z->head_dim;
    tn_val src[6];
    if (!known(s, 0, &src[0])) src[0] = tn_g_recurrent_state(b->g, b->g->n_states, "state", size);
    remember(s, 0, src[0]);
    for (int j = 1; j < (op == TN_OP_CONV1D ? 2 : 6); j++)
        src[j] = activation(b, s, j, source_role(op, ROLE_NONE, j));
    if (op == TN_OP_GATED_DELTA_NET) return tn_g_gated_delta_net(b->g, src, &heads, name);
    tn_val taps = weight(b, TN_FILL_RANDOM,
                         &(tn_weight){.type = TN_TYPE_F32, .n_out = z->width, .n_in = TAPS, .elements = true});
    return tn_g_conv1d(b->g, src[0], src[1], taps, name);
}

static tn_val make_node(builder *b, const sources *s, tn_op op, char slot, role r) {
    char name[16];
    name_of(b, slot, name);
    switch (op) {
    case TN_OP_MATMUL:
    case TN_OP_MATMUL_ID: return make_product(b, s, op, r, name);
    case TN_OP_ADD:
    case TN_OP_MUL: return make_binary(b, s, op, r, name);
    case TN_OP_KV_WRITE: b->out->attends = true; return make_kv_write(b, s, name);
    case TN_OP_ATTENTION: b->out->attends = true; return make_attention(b, s, name);
    case TN_OP_CONV1D:
    case TN_OP_GATED_DELTA_NET: return make_scan(b, s, op, name);
    case TN_OP_ROPE: return make_rope(b, s, r, name);
    case TN_OP_QUANTIZE: return make_quantize(b, s, r, name);
    case TN_OP_RMS_NORM:
    case TN_OP_L2_NORM:
        return tn_g_norm(b->g, op, activation(b, s, 0, r), is_heads(r) ? b->s->head_dim : 0, 1e-5f, name);
    case TN_OP_SCALE: return tn_g_scale(b->g, activation(b, s, 0, r), 0.37f, name);
    case TN_OP_SOFTCAP: return tn_g_softcap(b->g, activation(b, s, 0, r), 0.7f, name);
    case TN_OP_SELECT_ROWS: return tn_g_select_rows(b->g, activation(b, s, 0, r), name);
    case TN_OP_ROPE_TABLE: return rope_table(b);
    case TN_OP_TOP_K: return make_top_k(b, s, name);
    case TN_OP_ARGMAX: return tn_g_argmax(b->g, activation(b, s, 0, ROLE_N), name);
    case TN_OP_BEST: {
        tn_val x = activation(b, s, 0, ROLE_N);
        return tn_g_best(b->g, x, x.cols < TN_N_BEST ? x.cols : TN_N_BEST, name);
    }
    case TN_OP_EXPERT_SUM: {
        tn_val y = activation(b, s, 0, ROLE_EXPERTS), w = activation(b, s, 1, ROLE_CHOSEN);
        return tn_g_expert_sum(b->g, y, w, name);
    }
    case TN_OP_EMBED: {
        b->unfit |= s->f->n_given > 0; /* it reads no activation */
        tn_weight like = {.type = b->s->type[0], .n_out = TN_RIG_VOCAB, .n_in = b->s->width};
        return tn_g_embed(b->g, (tn_val){.cols = 1}, weight(b, TN_FILL_RANDOM, &like), name);
    }
    case TN_OP_SILU:
    case TN_OP_GELU:
    case TN_OP_GELU_QUICK:
    case TN_OP_SIGMOID:
    case TN_OP_SOFTPLUS:
    case TN_OP_SOFTMAX: return tn_g_unary(b->g, op, activation(b, s, 0, r), name);
    default: b->unfit = true; return (tn_val){.cols = 1}; /* an op that nobody taught this file */
    }
}

/* ---- what is seen outside ---- */

static void add_sink(builder *b, tn_val v) {
    if (b->out->n_sinks < TN_PATTERN_SINKS)
        b->out->sink[b->out->n_sinks++] = v.node;
    else
        b->unfit = true;
}

/* A reader that no rule takes and that changes nothing: f32 rows are selected, int8 ones multiplied by the identity, a
 * cache is read by an attention, indices choose experts. */
static void expose(builder *b, tn_val v) {
    char name[16];
    frame outside = {0};
    sources s = {&outside, ""};
    if (b->unfit || b->g->failed) return;
    const tn_shape *shape = tn_shape_of(b->g, v);
    name_of(b, 's', name);
    tn_op op = b->g->nodes[v.node].op;
    bool chosen = (op == TN_OP_ARGMAX || op == TN_OP_BEST) && v.out == 0;
    if (shape->rows == TN_ROWS_OUTPUTS || chosen) { /* the result itself */
        add_sink(b, v);
    } else if (shape->dtype == TN_DTYPE_STATE) {
        outside.slot['C'] = v;
        outside.bound['C'] = true;
        s.slots = "QC";
        add_sink(b, make_attention(b, &s, name));
    } else if (shape->dtype == TN_Q8) {
        tn_val w = weight(b, TN_FILL_IDENTITY, &(tn_weight){.type = TN_TYPE_Q8_0, .n_out = v.cols, .n_in = v.cols});
        add_sink(b, tn_g_matmul(b->g, v, w, name));
    } else if (shape->dtype == TN_I32) {
        outside.slot['I'] = v;
        outside.bound['I'] = true;
        s.slots = "XWI";
        add_sink(b, make_product(b, &s, TN_OP_MATMUL_ID, ROLE_EXPERTS, name));
    } else {
        add_sink(b, tn_g_select_rows(b->g, v, name));
    }
    const tn_node *n = &b->g->nodes[v.node];
    if (v.out == 0 && n->n_out > 1 && n->out[1].dtype != TN_DTYPE_STATE) expose(b, tn_g_out(v, 1, n->out[1].cols));
}

/* ---- patterns ---- */

static void mark(builder *b, tn_val v) {
    if (b->out->n_inner < TN_PATTERN_NODES)
        b->out->inner[b->out->n_inner++] = v.node;
    else
        b->unfit = true;
}

/* A line that is a fused launch: the pattern of its maker. An int8 result is only for those who read int8. */
static tn_val make_launch(builder *b, frame *f, int i, role r) {
    const tn_rule *maker = f->p->maker[f->at[i]];
    tn_pattern p = {.rule = maker, .many = 2};
    for (int k = 0; k < TN_MAX_LINES && maker->line[k].slot; k++) {
        if (maker->line[k].flags & TN_OPT && f->p->bare[f->at[i]]) p.absent |= 1u << k;
        p.kind[k] = __builtin_ctzll(maker->line[k].kinds); /* an op: see makes() in verify_rules.c */
    }
    tn_val given[TN_MAX_SRC];
    frame inner = {.given = given};
    for (int j = 0; f->line[i].src[j]; j++) /* what is free and no activation is the maker's affair */
        if (f->bound[(int)f->line[i].src[j]] || source_role(op_of(f, i), r, j) != ROLE_OTHER)
            given[inner.n_given++] = activation(b, &(sources){f, f->line[i].src}, j, source_role(op_of(f, i), r, j));
    choose_lines(&inner, &p);
    tn_val v = build_frame(b, &inner, r);
    b->unfit |= inner.n_given > 0; /* the maker has no place for what its reader's line reads */
    if (b->unfit || b->g->failed || tn_shape_of(b->g, v)->dtype != TN_Q8) return v;
    if (i + 1 == f->n || tn_ops[op_of(f, i + 1)].class == TN_MATMUL) return v;
    expose(b, v);
    return b->g->nodes[v.node].src[0];
}

/* Whether a later line reads the slot of line i. */
static bool is_read(const frame *f, int i) {
    for (int k = i + 1; k < f->n; k++)
        if (strchr(f->line[k].src, f->line[i].slot)) return true;
    return false;
}

static tn_val build_frame(builder *b, frame *f, role want) {
    assign_roles(f, want);
    tn_val v = {0};
    for (int i = 0; i < f->n && !b->unfit && !b->g->failed; i++) {
        char slot = f->line[i].slot;
        int kind = f->p->kind[f->at[i]];
        role r = f->role[(int)slot];
        int32_t members = f->line[i].flags & TN_MANY ? f->p->many : 1;
        for (int32_t k = members - 1; k >= 0; k--) { /* the slot is the member that is made last */
            v = kind >= TN_KIND_FIRST ? make_launch(b, f, i, r)
                                      : make_node(b, &(sources){f, f->line[i].src}, (tn_op)kind, slot, r);
            if (kind < TN_KIND_FIRST) mark(b, v);
            if (k > 0) expose(b, v);
        }
        if (i + 1 < f->n && !is_read(f, i)) expose(b, v);
        f->slot[(int)slot] = v;
        f->bound[(int)slot] = true;
    }
    return v;
}

static void expose_slots(builder *b, const frame *f, unsigned exposed) {
    const char *out = f->p->rule->out ? f->p->rule->out : "";
    for (int k = 0; out[k]; k++)
        for (int i = 0; i + 1 < f->n; i++)
            if (f->line[i].slot == out[k] && exposed >> k & 1) expose(b, f->slot[(int)out[k]]);
}

tn_status tn_pattern_build(tn_pattern_graph *out, const tn_pattern *p, const tn_sizes *s, unsigned exposed,
                           bool one_token, tn_rig_weights *weights, tn_error *err) {
    *out = (tn_pattern_graph){.g = {.layer = -1, .one_token = one_token}};
    out->g.max_tokens = out->g.max_outputs = one_token ? TN_RIG_SEQS : s->max_tokens;
    builder b = {.out = out, .g = &out->g, .weights = weights, .s = s};
    frame f = {0};
    tn_g_tokens(&out->g);
    choose_lines(&f, p);
    tn_val last = build_frame(&b, &f, ROLE_NONE);
    expose_slots(&b, &f, exposed);
    expose(&b, last);
    if (!b.unfit && !out->g.failed) return TN_OK;
    bool memory = out->g.failed;
    tn_pattern_free(out);
    return memory ? tn_fail_memory(err) : tn_fail(err, TN_ERR_USAGE, "the sizes do not suit the pattern");
}

void tn_pattern_free(tn_pattern_graph *p) {
    tn_graph_free(&p->g);
}
