/* Which launches this backend can run, and with what: the answer to every find_kernel. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/kernels/matmul.h"
#include "backend/cpu/kernels/pieces.h"

#include <string.h>

tn_cpu_layout tn_cpu_layout_for(const tn_device *device, const tn_weight *w) {
    return w->n_out == 1 || w->elements ? TN_LAYOUT_ROWS : tn_matmul_find(w->type, TN_ACT_F32, device->isa)->layout;
}

const tn_matmul_kernel *tn_cpu_matmul_for(const tn_device *device, const tn_weight *w, tn_dtype x) {
    tn_isa isa = tn_cpu_layout_for(device, w) == TN_LAYOUT_ROWS ? TN_ISA_REF : device->isa;
    return tn_matmul_find(w->type, x == TN_Q8 ? TN_ACT_INT8 : TN_ACT_F32, isa);
}

const char *tn_cpu_classify(const tn_device *device, const tn_graph *g, const int32_t *nodes, int32_t n,
                            tn_form *form) {
    static const tn_form_limits limits = {.has_row_op = tn_cpu_has_op,
                                          .max_rows_before = TN_CPU_MAX_ROWS_BEFORE,
                                          .argmax_after = true,
                                          .max_rows_sum = TN_CPU_MAX_ROWS_BEFORE,
                                          .max_rows_beside = INT32_MAX};
    for (int32_t i = 0; i < n; i++)
        for (int k = 0; k < g->nodes[nodes[i]].n_src; k++) {
            const tn_weight *w = tn_src_weight(g, g->nodes[nodes[i]].src[k]);
            if (w && !(device->caps.weight_types >> w->type & 1)) return "no kernel for the block type of the weight";
        }
    return tn_form_of(form, g, nodes, n, &limits);
}

/* "matmul_q8_Q4_1__avx512 x 3, silu, mul, quantize" */
static void describe(const tn_device *device, const tn_graph *g, const int32_t *nodes, int32_t n, tn_buf *name) {
    const char *last = NULL;
    int32_t count = 0;
    for (int32_t i = 0; i <= n; i++) {
        const tn_node *node = i < n ? &g->nodes[nodes[i]] : NULL;
        const char *now = NULL;
        if (node && tn_ops[node->op].class == TN_MATMUL) {
            const tn_weight *w = tn_src_weight(g, node->src[1]);
            now = tn_cpu_matmul_for(device, w, tn_shape_of(g, node->src[0])->dtype)->name + strlen("tn_");
        } else if (node) {
            now = tn_ops[node->op].name;
        }
        if (last && now && !strcmp(last, now)) {
            count++;
            continue;
        }
        if (count > 1) tn_buf_printf(name, " x%d", count);
        if (now) tn_buf_printf(name, "%s%s", i ? ", " : "", now);
        last = now;
        count = 1;
    }
    bool named = strstr(name->p ? name->p : "", "__") != NULL;
    if (!named) tn_buf_printf(name, " (%s)", tn_isa_name(device->isa));
}

const char *tn_cpu_find_kernel(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n, tn_buf *name) {
    tn_form form;
    const char *why = tn_cpu_classify(device, g, nodes, n, &form);
    if (!why && name) describe(device, g, nodes, n, name);
    return why;
}
