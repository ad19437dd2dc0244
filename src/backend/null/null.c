/* A backend that runs nothing: every launch has a kernel, every step succeeds with logits of zero. Fusion and planning are
 * tested on it without a device, and it shows what a backend must have. */
#include "backend/backend.h"
#include "base/mem.h"

struct tn_device {
    tn_caps caps;
    uint64_t weight_bytes;
};

struct tn_memory {
    size_t bytes;
};

struct tn_program {
    float *logits;
    int32_t *ids;
    tn_candidates best;
};

static tn_status null_open(tn_device **device, const tn_device_options *options, tn_error *err) {
    (void)options;
    *device = tn_alloc_zero(1, sizeof **device);
    if (!*device) return tn_fail_memory(err);
    (*device)->caps = (tn_caps){"null (computes nothing)", ~UINT64_C(0), UINT64_C(0x3fffffff) & ~UINT64_C(3), 64, 1};
    return TN_OK;
}

static void null_close(tn_device **device) {
    tn_free(*device);
    *device = NULL;
}

static const tn_caps *null_caps(const tn_device *d) {
    return &d->caps;
}

static const char *null_find_kernel(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n,
                                    tn_buf *name) {
    (void)device, (void)g, (void)nodes, (void)n;
    if (name) tn_buf_str(name, "null");
    return NULL;
}

static tn_status null_put_weights(tn_device *d, const tn_weight *const *weights, int32_t n, tn_stored_fn *done,
                                  void *data, tn_error *err) {
    (void)done, (void)data, (void)err;
    for (int32_t i = 0; i < n; i++) d->weight_bytes += weights[i]->bytes;
    return TN_OK;
}

static uint64_t null_weight_bytes(const tn_device *d) {
    return d->weight_bytes;
}

static size_t null_state_bytes(const tn_device *d, const tn_state_desc *s, const tn_memory_desc *desc) {
    (void)d;
    if (s->size) return (size_t)s->size * 4 * (size_t)desc->n_seq;
    return (size_t)desc->n_pages * TN_PAGE_TOKENS * (size_t)s->n_kv * (size_t)(s->k_dim + s->v_dim) * 2;
}

static tn_status null_make_memory(tn_device *d, const tn_memory_desc *desc, tn_memory **memory, tn_error *err) {
    (void)d;
    *memory = tn_alloc_zero(1, sizeof **memory);
    if (!*memory) return tn_fail_memory(err);
    (*memory)->bytes = desc->arena_bytes;
    return TN_OK;
}

static void null_free_memory(tn_device *d, tn_memory **memory) {
    (void)d;
    tn_free(*memory);
    *memory = NULL;
}

static void null_free_program(tn_device *d, tn_program **program) {
    (void)d;
    if (*program) tn_free((*program)->logits);
    if (*program) tn_free((*program)->ids);
    tn_free(*program);
    *program = NULL;
}

static tn_status null_compile(tn_device *d, const tn_plan *plan, tn_memory *memory, tn_program **program,
                              tn_error *err) {
    (void)memory;
    const tn_shape *out = &plan->graph.nodes[plan->graph.output].out[0];
    *program = tn_alloc_zero(1, sizeof **program);
    if (*program)
        (*program)->logits = tn_alloc_zero((size_t)tn_shape_max_rows(&plan->graph, out), tn_shape_row_bytes(out));
    if (*program) (*program)->ids = tn_alloc_zero((size_t)plan->graph.max_tokens, sizeof(int32_t));
    if (*program && (*program)->logits && (*program)->ids) return TN_OK;
    null_free_program(d, program);
    return tn_fail_memory(err);
}

static tn_status null_submit(tn_program *program, const tn_step_input *step, int want, tn_error *err) {
    (void)program, (void)step, (void)want, (void)err;
    return TN_OK;
}

static tn_status null_wait(tn_program *program, tn_result *result, tn_error *err) {
    (void)err;
    *result = (tn_result){program->logits, program->ids, program->best};
    return TN_OK;
}

const tn_backend tn_backend_null = {
    .name = "null",
    .hidden = true,
    .open = null_open,
    .close = null_close,
    .caps = null_caps,
    .find_kernel = null_find_kernel,
    .put_weights = null_put_weights,
    .weight_bytes = null_weight_bytes,
    .state_bytes = null_state_bytes,
    .make_memory = null_make_memory,
    .free_memory = null_free_memory,
    .compile = null_compile,
    .free_program = null_free_program,
    .submit = null_submit,
    .wait = null_wait,
};
