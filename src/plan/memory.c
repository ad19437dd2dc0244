/* Lifetimes to one arena. A value lives from the launch that makes it to the last launch that reads it; values whose
 * lives do not meet may share bytes. A value takes the place of one that ends with its launch where that is safe. */
#include "base/mem.h"
#include "plan/plan.h"

typedef struct interval {
    int32_t node, out;
    int32_t first, last; /* launches */
    size_t bytes;
    int64_t offset;
} interval;

int32_t tn_plan_last_use(const tn_plan *p, int32_t node, int32_t out) {
    const tn_graph *g = &p->graph;
    int32_t last = p->partition.owner[node];
    if (tn_is_result(g, node)) return p->partition.n; /* read after the step */
    for (int32_t i = node + 1; i < g->n; i++)
        for (int k = 0; k < g->nodes[i].n_src; k++)
            if (g->nodes[i].src[k].node == node && g->nodes[i].src[k].out == out && p->partition.owner[i] > last)
                last = p->partition.owner[i];
    return last;
}

/* Whether a node of a launch comes after its core (a matmul or what reads a state), by data flow. Without a core, true. */
static bool after_core(const tn_plan *p, const tn_launch *l, int32_t node) {
    const tn_graph *g = &p->graph;
    bool core = false, after[TN_LAUNCH_MAX] = {0}, found = false;
    for (int32_t i = 0; i < l->n; i++) {
        const tn_node *n = &g->nodes[l->nodes[i]];
        bool is_core = tn_ops[n->op].class == TN_MATMUL || tn_ops[n->op].class == TN_STATE;
        core |= is_core;
        after[i] = is_core;
        for (int32_t j = 0; j < i; j++)
            for (int k = 0; k < n->n_src; k++) after[i] |= after[j] && n->src[k].node == l->nodes[j];
        found |= after[i] && l->nodes[i] == node;
    }
    return !core || found;
}

/* Whether node `to` is `from` or follows from it inside the launch: then one worker does both, in this order. */
static bool leads_to(const tn_plan *p, const tn_launch *l, int32_t from, int32_t to) {
    bool reached[TN_LAUNCH_MAX] = {0}, found = false;
    for (int32_t i = 0; i < l->n; i++) {
        const tn_node *n = &p->graph.nodes[l->nodes[i]];
        reached[i] = l->nodes[i] == from;
        for (int32_t j = 0; j < i; j++)
            for (int k = 0; k < n->n_src; k++) reached[i] |= reached[j] && n->src[k].node == l->nodes[j];
        found |= reached[i] && l->nodes[i] == to;
    }
    return found;
}

/* Whether `v` may be written over `u` in launch l: both whole rows of one shape, and everything in the launch that reads u
 * is an element op that v follows from. Then column c of u is read for the last time before column c of v is written, in
 * whatever tiles the kernel works: what v does not follow from may be another worker's, and later. What stands before a
 * core is excluded: workers may do it again and again. */
static bool may_replace(const tn_plan *p, int32_t l, const interval *v, const interval *u) {
    const tn_graph *g = &p->graph;
    const tn_shape *a = &g->nodes[v->node].out[v->out], *b = &g->nodes[u->node].out[u->out];
    if (a->dtype != TN_F32 || b->dtype != TN_F32 || a->rows != b->rows || a->cols != b->cols) return false;
    const tn_launch *launch = &p->partition.launch[l];
    if (tn_ops[g->nodes[v->node].op].class != TN_ELEMENT || !after_core(p, launch, v->node)) return false;
    for (int32_t i = 0; i < launch->n; i++) {
        const tn_node *n = &g->nodes[launch->nodes[i]];
        for (int k = 0; k < n->n_src; k++) {
            if (n->src[k].node != u->node || n->src[k].out != u->out) continue;
            if (tn_ops[n->op].class != TN_ELEMENT || n->src[k].cols != b->cols ||
                !leads_to(p, launch, launch->nodes[i], v->node) || !after_core(p, launch, launch->nodes[i]))
                return false;
        }
    }
    return true;
}

/* An interval among the first n that ends in v's launch and may be replaced; NULL when there is none. */
static interval *replaceable(const tn_plan *p, interval *v, interval *all, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (all[i].last == v->first && all[i].first < v->first && all[i].bytes == v->bytes &&
            may_replace(p, v->first, v, &all[i]))
            return &all[i];
    return NULL;
}

/* The lowest offset at which v overlaps no earlier interval that is alive with it. */
static int64_t first_fit(const interval *v, const interval *all, size_t n, size_t align) {
    int64_t at = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 0; i < n; i++) {
            const interval *u = &all[i];
            if (u->last < v->first || u->first > v->last) continue;
            if (at < u->offset + (int64_t)u->bytes && u->offset < at + (int64_t)v->bytes) {
                at = (int64_t)tn_align_up((size_t)u->offset + u->bytes, align);
                moved = true;
            }
        }
    }
    return at;
}

static size_t collect(const tn_plan *p, interval *all) {
    const tn_graph *g = &p->graph;
    size_t n = 0;
    for (int32_t l = 0; l < p->partition.n; l++)
        for (int32_t i = 0; i < p->partition.launch[l].n; i++) {
            int32_t id = p->partition.launch[l].nodes[i];
            for (int32_t o = 0; o < g->nodes[id].n_out; o++) {
                const tn_shape *s = &g->nodes[id].out[o];
                if (s->dtype == TN_DTYPE_STATE || !tn_value_stored(&p->partition, g, id, o)) continue;
                size_t bytes = tn_shape_row_bytes(s) * (size_t)tn_shape_max_rows(g, s);
                all[n++] = (interval){id, o, l, tn_plan_last_use(p, id, o), bytes, -1};
            }
        }
    return n;
}

tn_status tn_plan_memory(tn_plan *p, size_t align, tn_error *err) {
    size_t slots = (size_t)p->graph.n * TN_MAX_OUT;
    p->offset = tn_arena_alloc(&p->graph.arena, slots * sizeof *p->offset);
    interval *all = tn_alloc(slots * sizeof *all);
    if (!p->offset || !all) {
        tn_free(all);
        return tn_fail_memory(err);
    }
    for (size_t i = 0; i < slots; i++) p->offset[i] = -1;
    size_t n = collect(p, all);
    for (size_t i = 0; i < n; i++) { /* in the order in which they are made */
        interval *old = replaceable(p, &all[i], all, i);
        if (old) {
            all[i].offset = old->offset;
            old->last = all[i].first - 1; /* the new value holds the place from here on */
            p->in_place++;
        } else {
            all[i].offset = first_fit(&all[i], all, i, align);
        }
        p->offset[all[i].node * TN_MAX_OUT + all[i].out] = all[i].offset;
        p->naive_bytes += tn_align_up(all[i].bytes, align);
        size_t end = (size_t)all[i].offset + tn_align_up(all[i].bytes, align);
        if (end > p->arena_bytes) p->arena_bytes = end;
    }
    tn_free(all);
    return TN_OK;
}
