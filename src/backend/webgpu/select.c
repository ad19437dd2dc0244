/* Which launches this backend can run, and with what. A launch can be run when its shader can be written. */
#include "backend/webgpu/matmuls.h"

#include <string.h>

enum { MAX_ROWS_BEFORE = 8 }; /* rows of a norm that every workgroup does by itself */

static const tn_webgpu_kernel kernels[] = {
#define KERNEL(form, op, core, name, min_rows, max_rows, subgroups, vec, stages)                                     \
    {TN_FORM_##form, OF_##op, TN_WEBGPU_##core, #name, min_rows, max_rows, subgroups, vec, stages},
#define OF_ANY     TN_OP_COUNT
#define OF_MATMUL  TN_OP_MATMUL
#define OF_EXPERTS TN_OP_MATMUL_ID
#define OF_ARGMAX  TN_OP_ARGMAX
#define OF_BEST    TN_OP_BEST
#define OF_CONV1D  TN_OP_CONV1D
#include "backend/webgpu/kernels.def"
#undef KERNEL
};

static bool has_op(const tn_emit *e, int op) {
    for (int32_t i = 0; i < e->n; i++)
        if ((int)tn_emit_node(e, i)->op == op) return true;
    return op == TN_OP_COUNT;
}

/* The first kernel that suits, and the words it reads at once. */
static bool find(tn_emit *e) {
    int32_t rows = e->form.max_rows, width = tn_emit_width(e);
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        const tn_webgpu_kernel *k = &kernels[i];
        if (k->form != e->form.kind || rows < k->min_rows || rows > k->max_rows ||
            (k->subgroups && !e->d->subgroup) || k->vec > width || (k->vec > 1 && e->d->scalar) ||
            !has_op(e, k->op) || (k->core == TN_WEBGPU_DOTS && !tn_dot_tiles_suit(e)))
            continue;
        e->kernel = k;
        e->vec = k->vec ? k->vec : width;
        return true;
    }
    return false;
}

/* How the columns of the launch's values are cut: by heads of its core, where it works on one at a time. */
static void find_parts(tn_emit *e) {
    e->parts = 1;
    for (int32_t i = 0; i < e->n; i++) {
        const tn_node *n = tn_emit_node(e, i);
        if (e->form.role[i] == TN_CORE && n->op == TN_OP_ATTENTION) e->parts = n->attr.n_kv;
        if (e->form.role[i] != TN_CORE || n->op != TN_OP_GATED_DELTA_NET) continue;
        e->parts = n->attr.n_head;
        if (n->attr.n_kv == n->attr.n_head) continue;
        e->k_parts = n->attr.n_kv;
        e->k_cols = n->src[1].cols;
    }
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
    return NULL;
}

/* A launch goes through the pieces of a cut weight one by one; of a row that is looked up, only one piece has it. */
static const char *check_tables(const tn_emit *e) {
    for (int32_t i = 0; i < e->n && e->n > 1; i++) {
        const tn_node *n = tn_emit_node(e, i);
        if (n->op == TN_OP_EMBED && tn_webgpu_segments(e->d, tn_src_weight(e->g, n->src[1])) > 1)
            return "the table lies in several bindings: its rows are looked up in a launch of their own";
    }
    return NULL;
}

const char *tn_webgpu_select(tn_emit *e, const tn_device *d, const tn_graph *g, const int32_t *nodes, int32_t n) {
    static const tn_form_limits limits = {tn_webgpu_has_row_op, MAX_ROWS_BEFORE};
    *e = (tn_emit){.d = d, .g = g, .nodes = nodes, .n = n};
    const char *why = NULL;
    for (int32_t i = 0; i < n && !why; i++) why = check_weights(g, &g->nodes[nodes[i]]);
    if (!why) why = tn_form_of(&e->form, g, nodes, n, &limits);
    if (!why) why = check_tables(e);
    if (why) return why;
    find_parts(e);
    return find(e) ? NULL : "no kernel for that many rows";
}

int32_t tn_webgpu_dispatches(const tn_emit *e) {
    int32_t most = e->kernel->stages;
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
        if (node && tn_ops[node->op].class == TN_MATMUL)
            now = tn_textf("%.*s_%s_%s%s", (int)(how - kernel), kernel,
                           tn_shape_of(e->g, node->src[0])->dtype == TN_Q8 ? "q8" : "f32",
                           tn_type_name(tn_src_weight(e->g, node->src[1])->type), how);
        else if (node && node->op == TN_OP_ATTENTION)
            now = tn_textf("%s", kernel);
        else if (node && e->form.kind == TN_FORM_SCAN && e->form.role[i] == TN_CORE)
            now = tn_textf("%s%s", tn_ops[node->op].name, how);
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
    const char *why = NULL;
    for (int32_t i = 0, dispatches = 1; i < dispatches && !why; i++) {
        tn_emit e;
        why = tn_webgpu_select(&e, device, g, nodes, n);
        if (why) return why;
        e.step = tn_webgpu_step_layout_of(g, 1);
        e.segment = e.stage = i;
        dispatches = tn_webgpu_dispatches(&e);
        tn_buf text = {0};
        /* out of memory is met again, and told, when the plan is compiled */
        if (!tn_webgpu_emit(&e, &text)) why = e.why;
        tn_buf_free(&text);
        tn_webgpu_emit_free(&e);
        if (!why && name && i == 0) describe(&e, name);
    }
    return why;
}
