/* Lowering: the quantization of activations becomes a node, one for each value, shared by all its readers. */
#include "base/mem.h"
#include "fuse/launch.h"

static bool wants_int8(const tn_graph *g, const tn_node *n, uint64_t types) {
    if (tn_ops[n->op].class != TN_MATMUL || tn_shape_of(g, n->src[0])->dtype != TN_F32) return false;
    const tn_weight *w = tn_src_weight(g, n->src[1]);
    return w->n_in % 32 == 0 && types >> w->type & 1;
}

/* A value that has its int8 form already, in rows of `width`. */
typedef struct done {
    tn_src old;
    int32_t width, node; /* of the new graph */
} done;

typedef struct pass {
    const tn_graph *from;
    tn_graph *to;
    int32_t *map; /* old node -> new node */
    done *done;   /* at most one for each node of the old graph */
    int32_t n_done;
} pass;

/* The int8 form of a source, made where it is first wanted, in rows of `width` (a value may hold several). */
static tn_src quantized(pass *p, tn_src old, tn_src now, int32_t width) {
    const tn_node *n = &p->from->nodes[old.node];
    int32_t same_node = 0;
    for (int32_t i = 0; i < p->n_done; i++) {
        const done *d = &p->done[i];
        if (tn_src_same(d->old, old) && d->width == width) return (tn_src){.node = d->node, .cols = old.cols};
        same_node += d->old.node == old.node; /* another slice or width: a name of its own */
    }
    const char *name = same_node ? tn_arena_printf(&p->to->arena, "%s.q8_%d", n->name, same_node + 1)
                                 : tn_arena_printf(&p->to->arena, "%s.q8", n->name);
    p->to->layer = -1; /* the name has its layer already */
    tn_src q = tn_g_quantize(p->to, now, name);
    if (p->to->failed) return now;
    p->to->nodes[q.node].layer = n->layer;
    p->to->nodes[q.node].attr.head_dim = width == old.cols ? 0 : width;
    p->done[p->n_done++] = (done){old, width, q.node};
    return q;
}

static void copy_node(pass *p, int32_t i, uint64_t types) {
    tn_node n = p->from->nodes[i];
    n.name = tn_arena_printf(&p->to->arena, "%s", n.name);
    for (int k = 0; k < n.n_src; k++) n.src[k].node = p->map[n.src[k].node];
    if (wants_int8(p->from, &p->from->nodes[i], types)) {
        int32_t width = tn_src_weight(p->from, p->from->nodes[i].src[1])->n_in;
        n.src[0] = quantized(p, p->from->nodes[i].src[0], n.src[0], width);
    }
    if (!n.name) p->to->failed = true;
    p->map[i] = tn_graph_add(p->to, &n);
}

tn_status tn_lower_quantize(tn_graph *out, const tn_graph *g, uint64_t int8_types, tn_error *err) {
    *out = *g;
    out->arena = (tn_arena){0};
    out->nodes = NULL;
    out->n = out->cap = 0;
    pass p = {.from = g, .to = out};
    p.map = tn_alloc_zero((size_t)g->n, sizeof *p.map);
    p.done = tn_alloc_zero((size_t)g->n, sizeof *p.done);
    bool ok = p.map && p.done;
    for (int32_t i = 0; ok && i < g->n; i++) {
        copy_node(&p, i, int8_types);
        ok = !out->failed;
    }
    if (ok) {
        out->output = p.map[g->output];
        out->choice = g->choice ? p.map[g->choice] : 0;
        out->best = g->best ? p.map[g->best] : 0;
    }
    tn_free(p.map);
    tn_free(p.done);
    if (ok) return TN_OK;
    tn_graph_free(out);
    return tn_fail_memory(err);
}
