/* Which launches this backend can run, and with what. A launch can be run when its shader can be written. */
#include "backend/webgpu/emit.h"

#include <string.h>

enum { MAX_ROWS_BEFORE = 8 }; /* rows of a norm that every workgroup does by itself */

static const tn_webgpu_kernel kernels[] = {
#define KERNEL(form, core, name, min_rows, max_rows, subgroups)                                                      \
    {TN_FORM_##form, TN_WEBGPU_##core, #name, min_rows, max_rows, subgroups},
#include "backend/webgpu/kernels.def"
#undef KERNEL
};

static const tn_webgpu_kernel *find(const tn_device *d, const tn_form *form) {
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        const tn_webgpu_kernel *k = &kernels[i];
        if (k->form == form->kind && form->max_rows >= k->min_rows && form->max_rows <= k->max_rows &&
            (d->subgroup || !k->subgroups))
            return k;
    }
    return NULL;
}

/* A matrix may stand in a lookup or a product, a vector beside a row. */
static const char *check_weights(const tn_graph *g, const tn_node *n) {
    for (int k = 0; k < n->n_src; k++) {
        const tn_weight *w = tn_src_weight(g, n->src[k]);
        if (!w) continue;
        if (!tn_webgpu_type_of(w->n_out == 1 ? TN_TYPE_F32 : w->type))
            return "no layout for the block type of the weight";
        if (tn_ops[n->op].class == TN_ELEMENT && w->n_out != 1) return "a matrix beside a row";
    }
    if (n->op == TN_OP_MATMUL_ID) return "no kernel for experts";
    if (n->op == TN_OP_QUANTIZE && n->attr.head_dim && n->attr.head_dim != n->out[0].cols)
        return "no kernel for rows of several int8 rows";
    return NULL;
}

const char *tn_webgpu_select(tn_emit *e, const tn_device *d, const tn_graph *g, const int32_t *nodes, int32_t n) {
    static const tn_form_limits limits = {tn_webgpu_has_row_op, MAX_ROWS_BEFORE};
    *e = (tn_emit){.d = d, .g = g, .nodes = nodes, .n = n};
    const char *why = NULL;
    for (int32_t i = 0; i < n && !why; i++) why = check_weights(g, &g->nodes[nodes[i]]);
    if (!why) why = tn_form_of(&e->form, g, nodes, n, &limits);
    if (why) return why;
    e->kernel = find(d, &e->form);
    return e->kernel ? NULL : "no kernel for that many rows";
}

int32_t tn_webgpu_dispatches(const tn_emit *e) {
    int32_t most = tn_webgpu_is_argmax(e) ? 2 : 1;
    for (int32_t i = 0; i < e->n; i++)
        for (int k = 0; k < tn_emit_node(e, i)->n_src; k++) {
            tn_src s = tn_emit_node(e, i)->src[k];
            if (e->g->nodes[s.node].op != TN_OP_WEIGHT || !e->d->weights) continue;
            int32_t n = e->d->weights[e->g->nodes[s.node].attr.index].n_segments;
            if (n > most) most = n;
        }
    return most;
}

/* "matvec_q8_Q4_K__subgroups x 3, silu, mul, quantize" */
static void describe(const tn_emit *e, tn_buf *name) {
    const char *kernel = e->kernel->name, *how = strstr(kernel, "__");
    tn_text last = {""};
    int32_t count = 0;
    for (int32_t i = 0; i <= e->n; i++) {
        const tn_node *node = i < e->n ? tn_emit_node(e, i) : NULL;
        tn_text now = {""};
        if (node && node->op == TN_OP_MATMUL)
            now = tn_textf("%.*s_%s_%s%s", (int)(how - kernel), kernel,
                           tn_shape_of(e->g, node->src[0])->dtype == TN_Q8 ? "q8" : "f32",
                           tn_type_name(tn_src_weight(e->g, node->src[1])->type), how);
        else if (node && node->op == TN_OP_ATTENTION)
            now = tn_textf("%s", kernel);
        else if (node)
            now = tn_textf("%s", tn_ops[node->op].name);
        if (count && !strcmp(last.s, now.s)) {
            count++;
            continue;
        }
        if (count > 1) tn_buf_printf(name, " x%d", count);
        if (now.s[0]) tn_buf_printf(name, "%s%s", i ? ", " : "", now.s);
        last = now;
        count = 1;
    }
    if (e->form.kind == TN_FORM_ROWS) tn_buf_printf(name, " (%s)", kernel);
}

const char *tn_webgpu_find_kernel(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n,
                                  tn_buf *name) {
    tn_emit e;
    const char *why = tn_webgpu_select(&e, device, g, nodes, n);
    if (why) return why;
    e.step = tn_webgpu_step_layout_of(g, 1);
    tn_buf text = {0};
    /* out of memory is met again, and told, when the plan is compiled */
    if (!tn_webgpu_emit(&e, &text)) why = e.why;
    tn_buf_free(&text);
    tn_webgpu_emit_free(&e);
    if (!why && name) describe(&e, name);
    return why;
}
