/* From a plan to a program: a pipeline, numbers and a bind group for every dispatch; nothing is made later. */
#include "backend/webgpu/emit.h"
#include "base/mem.h"

#include <string.h>

enum { NUMBERS_ALIGN = 256, NUMBERS_BYTES = TN_WEBGPU_MAX_NUMBERS * 4 };

tn_webgpu_step_layout tn_webgpu_step_layout_of(const tn_graph *g, int32_t n_pages) {
    tn_webgpu_step_layout l = {.max_tokens = g->max_tokens, .max_outputs = g->max_outputs};
    l.max_pages = n_pages + g->max_tokens;
    l.ids = 4;
    l.pos = l.ids + l.max_tokens;
    l.pages_at = l.pos + l.max_tokens;
    l.outputs = l.pages_at + l.max_tokens;
    l.pages = l.outputs + l.max_outputs;
    l.words = l.pages + l.max_pages;
    return l;
}

/* The program being compiled: the numbers of all dispatches, before they go to the device. */
typedef struct maker {
    tn_program *p;
    char *numbers;
    int32_t cap;
} maker;

static bool bind(maker *m, const tn_emit *e, int32_t i, int32_t kind) {
    tn_program *p = m->p;
    tn_device *d = p->device;
    WGPUBindGroupEntry entries[4 + TN_WEBGPU_MAX_WINDOWS] = {0};
    size_t n = 0;
    uint64_t numbers = tn_align_up((size_t)(e->n_numbers > 0 ? e->n_numbers : 1) * 4, 16);
    entries[n++] = (WGPUBindGroupEntry){.binding = 0,
                                        .buffer = p->memory->arena,
                                        .size = tn_align_up(p->memory->arena_bytes < 16 ? 16 : p->memory->arena_bytes, 16)};
    entries[n++] = (WGPUBindGroupEntry){
        .binding = 1, .buffer = p->step, .size = tn_align_up((size_t)p->layout.words * 4, 16)};
    entries[n++] = (WGPUBindGroupEntry){
        .binding = 2, .buffer = p->numbers, .offset = (uint64_t)i * NUMBERS_BYTES, .size = numbers};
    if (e->state >= 0)
        entries[n++] = (WGPUBindGroupEntry){
            .binding = 3, .buffer = p->memory->states[e->state], .size = p->memory->state_bytes[e->state]};
    for (int32_t k = 0; k < e->n_windows; k++)
        entries[n++] = (WGPUBindGroupEntry){.binding = 4 + (uint32_t)k,
                                            .buffer = d->slabs[e->window[k].slab],
                                            .offset = e->window[k].offset,
                                            .size = e->window[k].bytes};
    p->dispatch[i].group = d->lib.DeviceCreateBindGroup(
        d->device,
        &(WGPUBindGroupDescriptor){.layout = tn_webgpu_layout(d, kind), .entryCount = n, .entries = entries});
    return p->dispatch[i].group != NULL;
}

static tn_status add_dispatch(maker *m, tn_emit *e, tn_error *err) {
    tn_program *p = m->p;
    tn_device *d = p->device;
    if (p->n == m->cap) {
        int32_t cap = m->cap ? m->cap * 2 : 256;
        tn_webgpu_dispatch *all = tn_realloc(p->dispatch, (size_t)cap * sizeof *all);
        if (all) p->dispatch = all;
        char *numbers = tn_realloc(m->numbers, (size_t)cap * NUMBERS_BYTES);
        if (numbers) m->numbers = numbers;
        if (!all || !numbers) return tn_fail_memory(err);
        m->cap = cap;
    }
    tn_buf text = {0};
    tn_status status = tn_webgpu_emit(e, &text) ? TN_OK
                       : e->why ? tn_fail(err, TN_ERR_INTERNAL, "webgpu: a planned launch has no shader: %s", e->why)
                                : tn_fail_memory(err);
    int32_t i = p->n, kind = e->n_windows * 2 + (e->state >= 0);
    p->dispatch[i] = (tn_webgpu_dispatch){
        .rows = e->rows, .fixed_rows = e->fixed_rows, .x = e->x, .rows_per_y = e->rows_per_y};
    if (status == TN_OK && e->x > 65535)
        status = tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu: a launch needs %u workgroups in a row, 65535 are allowed", e->x);
    if (status == TN_OK) status = tn_webgpu_pipeline_get(d, text.p, kind, &p->dispatch[i].pipeline, err);
    if (status == TN_OK) {
        memset(m->numbers + (size_t)i * NUMBERS_BYTES, 0, NUMBERS_BYTES);
        memcpy(m->numbers + (size_t)i * NUMBERS_BYTES, e->number, (size_t)e->n_numbers * 4);
        p->dispatch[i].state = e->state;
        p->n++;
    }
    tn_buf_free(&text);
    return status;
}

/* Calls for each dispatch of each launch. */
static tn_status each(maker *m, tn_status (*call)(maker *m, tn_emit *e, tn_error *err), tn_error *err) {
    tn_program *p = m->p;
    tn_status status = TN_OK;
    for (int32_t l = 0; l < p->plan->partition.n && status == TN_OK; l++) {
        const tn_launch *launch = &p->plan->partition.launch[l];
        for (int32_t s = 0, n = 1; s < n && status == TN_OK; s++) {
            tn_emit e;
            const char *why = tn_webgpu_select(&e, p->device, &p->plan->graph, launch->nodes, launch->n);
            if (why) return tn_fail(err, TN_ERR_INTERNAL, "webgpu: a planned launch has no kernel: %s", why);
            n = tn_webgpu_dispatches(&e);
            e.plan = p->plan;
            e.kv_type = p->memory->kv_type;
            e.step = p->layout;
            e.segment = s;
            status = call(m, &e, err);
            tn_webgpu_emit_free(&e);
        }
    }
    return status;
}
