/* From a plain graph to a plan: the passes in their order. */
#include "plan/plan.h"

#include "base/mem.h"

/* fuse asks for kernels without wanting their names */
static const char *query(const void *target, const tn_graph *g, const int32_t *nodes, int32_t n) {
    const tn_plan_target *t = target;
    return t->find_kernel(t->device, g, nodes, n, NULL);
}

static tn_status select_kernels(tn_plan *p, const tn_plan_target *target, tn_error *err) {
    const tn_graph *g = &p->graph;
    p->kernel = tn_arena_alloc(&p->graph.arena, (size_t)p->partition.n * sizeof *p->kernel);
    if (!p->kernel) return tn_fail_memory(err);
    for (int32_t l = 0; l < p->partition.n; l++) {
        const tn_launch *launch = &p->partition.launch[l];
        tn_buf name = {0};
        const char *why = target->find_kernel(target->device, g, launch->nodes, launch->n, &name);
        if (!why && !name.failed) p->kernel[l] = tn_arena_printf(&p->graph.arena, "%s", name.p ? name.p : "");
        tn_buf_free(&name);
        if (why)
            return tn_fail(err, TN_ERR_UNAVAILABLE, "no kernel for %s (%s): %s", g->nodes[launch->nodes[0]].name,
                           tn_kind_name(launch->kind), why);
        if (!p->kernel[l]) return tn_fail_memory(err);
    }
    return TN_OK;
}

uint64_t tn_weight_read_bytes(const tn_node *n, const tn_weight *w, uint64_t tokens) {
    if (n->op == TN_OP_EMBED) return w->bytes / (uint64_t)w->n_out * tokens;
    if (n->op != TN_OP_MATMUL_ID) return w->bytes;
    uint64_t most = tokens * (uint64_t)n->attr.n_used, all = (uint64_t)w->n_expert;
    return w->bytes / all * (most < all ? most : all); /* no two tokens share an expert, at worst */
}

static uint64_t weight_bytes_read(const tn_graph *g) {
    uint64_t bytes = 0;
    for (int32_t i = 0; i < g->n; i++) {
        const tn_node *n = &g->nodes[i];
        for (int k = 0; k < n->n_src; k++) {
            const tn_weight *w = tn_src_weight(g, n->src[k]);
            if (w) bytes += tn_weight_read_bytes(n, w, 1);
        }
    }
    return bytes;
}

/* FNV-1a over what was decided: as text, and the attributes to the last bit. */
static tn_status hash_plan(tn_plan *p, tn_error *err) {
    tn_buf b = {0};
    tn_print_graph(&b, &p->graph);
    for (int32_t i = 0; i < p->graph.n; i++) tn_buf_add(&b, &p->graph.nodes[i].attr, sizeof(tn_attr));
    for (int32_t l = 0; l < p->partition.n; l++) {
        tn_buf_printf(&b, "%s:", p->kernel[l]);
        for (int32_t i = 0; i < p->partition.launch[l].n; i++) {
            int32_t id = p->partition.launch[l].nodes[i];
            tn_buf_printf(&b, " %d", id);
            for (int32_t o = 0; o < p->graph.nodes[id].n_out; o++)
                tn_buf_printf(&b, "@%lld", (long long)p->offset[id * TN_MAX_OUT + o]);
        }
        tn_buf_char(&b, '\n');
    }
    tn_buf_printf(&b, "%zu %d %d", p->arena_bytes, p->graph.max_tokens, p->graph.max_outputs);
    p->hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < b.n; i++) p->hash = (p->hash ^ (unsigned char)b.p[i]) * UINT64_C(0x100000001b3);
    bool failed = b.failed;
    tn_buf_free(&b);
    return failed ? tn_fail_memory(err) : TN_OK;
}

tn_status tn_plan_make(tn_plan *out, tn_graph *g, bool act_f32, const char *fuse, const tn_plan_target *target,
                       tn_error *err) {
    *out = (tn_plan){0};
    tn_kernel_query kernels = {query, target};
    tn_status status = tn_graph_verify(g, err);
    if (status == TN_OK) status = tn_lower_quantize(&out->graph, g, act_f32 ? 0 : target->int8_types, err);
    tn_graph_free(g);
    if (status == TN_OK) status = tn_graph_verify(&out->graph, err);
    if (status == TN_OK) status = tn_fuse(&out->partition, &out->graph, fuse, kernels, err);
    if (status == TN_OK) status = tn_plan_memory(out, target->align, err);
    if (status == TN_OK) status = select_kernels(out, target, err);
    if (status == TN_OK) status = hash_plan(out, err);
    if (status != TN_OK) {
        tn_plan_free(out);
        return status;
    }
    for (int32_t i = 0; i < out->graph.n; i++) out->n_plain += !tn_is_leaf(&out->graph.nodes[i]);
    out->read_bytes = weight_bytes_read(&out->graph);
    return TN_OK;
}

void tn_plan_free(tn_plan *p) {
    tn_partition_free(&p->partition);
    tn_graph_free(&p->graph);
    *p = (tn_plan){0};
}
