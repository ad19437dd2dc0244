/* From a plan to a program: a pipeline, numbers and a bind group for every dispatch; nothing is made later. */
#include "backend/webgpu/emit.h"
#include "base/mem.h"

#include <string.h>

enum { NUMBERS_ALIGN = 256 };

tn_webgpu_step_layout tn_webgpu_step_layout_of(const tn_graph *g, int32_t n_pages) {
    tn_webgpu_step_layout l = {.max_tokens = g->max_tokens, .max_outputs = g->max_outputs};
    l.max_pages = n_pages + g->max_tokens;
    l.ids = 4;
    l.pos = l.ids + l.max_tokens;
    l.seq = l.pos + l.max_tokens;
    l.end = l.seq + l.max_tokens;
    l.pages_at = l.end + l.max_tokens;
    l.outputs = l.pages_at + l.max_tokens;
    l.pages = l.outputs + l.max_outputs;
    l.words = l.pages + l.max_pages;
    return l;
}

/* What a dispatch binds besides the arena and the step. */
typedef struct binding {
    tn_webgpu_window window[TN_WEBGPU_MAX_WINDOWS];
    int32_t n_windows, state;
    bool scratch;
    uint64_t numbers, numbers_bytes;
} binding;

/* The program being compiled. */
typedef struct maker {
    tn_program *p;
    binding *binding; /* of each dispatch */
    tn_buf numbers;   /* of all of them */
    int32_t cap;
} maker;

static int32_t kind_of(const binding *b) {
    return b->n_windows * 4 + b->scratch * 2 + (b->state >= 0);
}

/* ---- dispatches ---- */

static bool grow(maker *m) {
    if (m->p->n < m->cap) return true;
    int32_t cap = m->cap ? m->cap * 2 : 256;
    tn_webgpu_dispatch *all = tn_realloc(m->p->dispatch, (size_t)cap * sizeof *all);
    if (all) m->p->dispatch = all;
    binding *bindings = tn_realloc(m->binding, (size_t)cap * sizeof *bindings);
    if (bindings) m->binding = bindings;
    if (!all || !bindings) return false;
    m->cap = cap;
    return true;
}

static tn_status add_dispatch(maker *m, const tn_emit *e, int32_t launch, const char *text, tn_error *err) {
    static const char zeros[NUMBERS_ALIGN + 16];
    if (!grow(m)) return tn_fail_memory(err);
    binding *b = &m->binding[m->p->n];
    *b = (binding){
        .n_windows = e->n_windows, .state = e->state, .scratch = e->scratch_words > 0, .numbers = m->numbers.n};
    if (e->scratch_words * 4 > m->p->scratch_bytes) m->p->scratch_bytes = tn_align_up(e->scratch_words * 4, 16);
    memcpy(b->window, e->window, sizeof b->window);
    b->numbers_bytes = tn_align_up((size_t)(e->n_numbers > 0 ? e->n_numbers : 1) * 4, 16);
    tn_buf_add(&m->numbers, e->number, (size_t)e->n_numbers * 4);
    tn_buf_add(&m->numbers, zeros, tn_align_up(m->numbers.n + 16, NUMBERS_ALIGN) - m->numbers.n);
    if (m->numbers.failed) return tn_fail_memory(err);
    tn_webgpu_dispatch *to = &m->p->dispatch[m->p->n];
    *to = (tn_webgpu_dispatch){.launch = launch,
                               .rows = e->rows,
                               .fixed_rows = e->fixed_rows,
                               .x = e->x,
                               .rows_per_y = e->rows_per_y,
                               .from_pos = e->from_pos};
    m->p->n++;
    return tn_webgpu_pipeline_get(m->p->device, text, kind_of(b), &to->pipeline, err);
}

/* A launch is a dispatch for each segment of its weight, where that lies in several, or for each of its stages. */
static tn_status add_launch(maker *m, int32_t l, tn_error *err) {
    tn_program *p = m->p;
    const tn_launch *launch = &p->plan->partition.launch[l];
    tn_status status = TN_OK;
    for (int32_t s = 0, n = 1; s < n && status == TN_OK; s++) {
        tn_emit e;
        const char *why = tn_webgpu_select(&e, p->device, &p->plan->graph, launch->nodes, launch->n);
        if (why) return tn_fail(err, TN_ERR_INTERNAL, "webgpu: a planned launch has no kernel: %s", why);
        n = tn_webgpu_dispatches(&e);
        e.plan = p->plan;
        e.kv_type = p->memory->kv_type;
        e.step = p->layout;
        e.segment = e.stage = s;
        tn_buf text = {0};
        if (tn_webgpu_emit(&e, &text))
            status = add_dispatch(m, &e, l, text.p, err);
        else
            status = e.why ? tn_fail(err, TN_ERR_INTERNAL, "webgpu: a planned launch has no shader: %s", e.why)
                           : tn_fail_memory(err);
        tn_buf_free(&text);
        tn_webgpu_emit_free(&e);
    }
    return status;
}

/* ---- buffers and bind groups ---- */

/* What the last step chose is the memory's, for all of its programs: as large as the largest of them needs. */
static tn_status make_chosen(tn_program *p, tn_error *err) {
    tn_memory *m = p->memory;
    WGPUBuffer larger;
    if (m->chosen_bytes >= p->choice_bytes) return TN_OK;
    tn_status status = tn_webgpu_buffer(p->device, &larger, p->choice_bytes,
                                        WGPUBufferUsage_CopySrc | WGPUBufferUsage_CopyDst, "chosen tokens", err);
    if (status != TN_OK) return status;
    tn_webgpu_buffer_free(p->device, &m->chosen);
    m->chosen = larger;
    m->chosen_bytes = p->choice_bytes;
    m->n_chosen = 0;
    return TN_OK;
}

static tn_status make_results(tn_program *p, tn_error *err) {
    const tn_graph *g = &p->plan->graph;
    const tn_shape *output = &g->nodes[g->output].out[0];
    uint64_t rows = (uint64_t)tn_shape_max_rows(g, output);
    p->logits_at = (uint64_t)p->plan->offset[g->output * TN_MAX_OUT];
    p->logits_row = tn_shape_row_bytes(output);
    p->logits_rows = output->rows;
    tn_status status = tn_webgpu_readback_make(p->device, &p->logits, p->logits_row * rows, "logits", err);
    if (status != TN_OK || !g->choice) return status;
    p->choice_at = (uint64_t)p->plan->offset[g->choice * TN_MAX_OUT];
    p->choice_bytes = rows * 4;
    for (int k = 0; k < 2 && g->best; k++) p->best_at[k] = (uint64_t)p->plan->offset[g->best * TN_MAX_OUT + k];
    if (g->best) p->best_of_row = (uint64_t)g->nodes[g->best].out[0].cols;
    p->best_bytes = rows * p->best_of_row * 4;
    uint64_t bytes = p->choice_bytes + 2 * p->best_bytes;
    for (int i = 0; i < TN_WEBGPU_AHEAD && status == TN_OK; i++) {
        p->steps[i].ids = tn_alloc_zero(bytes, 1);
        status = p->steps[i].ids ? TN_OK : tn_fail_memory(err);
        if (status == TN_OK)
            status = tn_webgpu_readback_make(p->device, &p->steps[i].back, bytes, "chosen tokens", err);
    }
    return status == TN_OK ? make_chosen(p, err) : status;
}

static tn_status make_buffers(maker *m, tn_error *err) {
    tn_program *p = m->p;
    tn_device *d = p->device;
    p->words = tn_alloc_zero((size_t)p->layout.words, sizeof *p->words);
    if (!p->words) return tn_fail_memory(err);
    tn_status status =
        tn_webgpu_buffer(d, &p->step, (uint64_t)p->layout.words * 4,
                         WGPUBufferUsage_Storage | WGPUBufferUsage_CopyDst, "the inputs of a step", err);
    if (status == TN_OK)
        status = tn_webgpu_buffer(d, &p->numbers, m->numbers.n, WGPUBufferUsage_Uniform | WGPUBufferUsage_CopyDst,
                                  "the numbers of a program", err);
    if (status == TN_OK) status = make_results(p, err);
    if (status == TN_OK && p->scratch_bytes)
        status = tn_webgpu_buffer(d, &p->scratch, p->scratch_bytes, WGPUBufferUsage_Storage, "partial results", err);
    if (status != TN_OK) return status;
    d->lib.QueueWriteBuffer(d->queue, p->numbers, 0, m->numbers.p, m->numbers.n);
    return tn_webgpu_check(d, "writing a program's numbers", err);
}

static void bind(maker *m, int32_t i) {
    tn_program *p = m->p;
    tn_device *d = p->device;
    const binding *b = &m->binding[i];
    WGPUBindGroupEntry entries[5 + TN_WEBGPU_MAX_WINDOWS] = {
        {.binding = 0, .buffer = p->memory->arena, .size = p->memory->arena_bytes},
        {.binding = 1, .buffer = p->step, .size = (uint64_t)p->layout.words * 4},
        {.binding = 2, .buffer = p->numbers, .offset = b->numbers, .size = b->numbers_bytes}};
    size_t n = 3;
    if (b->state >= 0)
        entries[n++] = (WGPUBindGroupEntry){
            .binding = 3, .buffer = p->memory->states[b->state], .size = p->memory->state_bytes[b->state]};
    if (b->scratch) entries[n++] = (WGPUBindGroupEntry){.binding = 4, .buffer = p->scratch, .size = p->scratch_bytes};
    for (int32_t k = 0; k < b->n_windows; k++)
        entries[n++] = (WGPUBindGroupEntry){.binding = 5 + (uint32_t)k,
                                            .buffer = d->slabs[b->window[k].slab],
                                            .offset = b->window[k].offset,
                                            .size = b->window[k].bytes};
    p->dispatch[i].group = d->lib.DeviceCreateBindGroup(
        d->device,
        &(WGPUBindGroupDescriptor){.layout = tn_webgpu_layout(d, kind_of(b)), .entryCount = n, .entries = entries});
}

/* ---- programs ---- */

tn_status tn_webgpu_compile(tn_device *d, const tn_plan *plan, tn_memory *memory, tn_program **program,
                            tn_error *err) {
    *program = NULL;
    if (plan->arena_bytes > memory->arena_bytes)
        return tn_fail(err, TN_ERR_INTERNAL, "webgpu: the arena is too small");
    tn_program *p = tn_alloc_zero(1, sizeof *p);
    if (!p) return tn_fail_memory(err);
    *p = (tn_program){.device = d, .memory = memory, .plan = plan};
    p->layout = tn_webgpu_step_layout_of(&plan->graph, memory->n_pages);
    maker m = {.p = p};
    tn_status status = TN_OK;
    for (int32_t l = 0; l < plan->partition.n && status == TN_OK && d->device; l++) status = add_launch(&m, l, err);
    if (status == TN_OK && d->device) status = make_buffers(&m, err);
    for (int32_t i = 0; i < p->n && status == TN_OK; i++) {
        bind(&m, i);
        status = tn_webgpu_check(d, "binding a launch", err);
        if (status == TN_OK && !p->dispatch[i].group) status = tn_fail_memory(err);
    }
    tn_free(m.binding);
    tn_buf_free(&m.numbers);
    if (status != TN_OK)
        tn_webgpu_free_program(d, &p);
    else
        *program = p;
    return status;
}

void tn_webgpu_free_program(tn_device *d, tn_program **program) {
    tn_program *p = *program;
    if (!p) return;
    for (int32_t i = 0; i < p->n; i++)
        if (p->dispatch[i].group) d->lib.BindGroupRelease(p->dispatch[i].group);
    tn_free(p->dispatch);
    for (tn_result unused; p->waited < p->submitted;) tn_webgpu_result(p, &unused, NULL);
    for (int i = 0; i < TN_WEBGPU_AHEAD; i++) {
        tn_webgpu_readback_free(d, &p->steps[i].back);
        tn_free(p->steps[i].ids);
    }
    tn_webgpu_readback_free(d, &p->logits);
    tn_webgpu_buffer_free(d, &p->step);
    tn_webgpu_buffer_free(d, &p->numbers);
    tn_webgpu_buffer_free(d, &p->scratch);
    tn_free(p->words);
    tn_free(p);
    *program = NULL;
}
