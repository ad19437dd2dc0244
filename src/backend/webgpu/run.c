/* Running a program: the step's inputs are written, one command buffer is submitted, what is wanted is mapped. A second step
 * may be submitted while the first one runs: the token that the first one chose stays on the device. */
#include "backend/webgpu/webgpu.h"

#include <string.h>

/* Words of the step buffer in use, 0: it does not fit. */
static int32_t fill_step(tn_program *p, const tn_step_input *in) {
    const tn_webgpu_step_layout *l = &p->layout;
    if (in->n_tokens > l->max_tokens || in->n_outputs > l->max_outputs) return 0;
    uint32_t *w = p->words;
    w[0] = (uint32_t)in->n_tokens;
    w[1] = (uint32_t)in->n_outputs;
    memcpy(w + l->ids, in->ids, (size_t)in->n_tokens * 4);
    memcpy(w + l->pos, in->pos, (size_t)in->n_tokens * 4);
    memcpy(w + l->outputs, in->outputs, (size_t)in->n_outputs * 4);
    int32_t at = l->pages;
    for (int32_t r = 0; r < in->n_runs; r++) {
        const tn_run *run = &in->runs[r];
        int32_t pages = (run->pos + run->n + TN_PAGE_TOKENS - 1) / TN_PAGE_TOKENS;
        if (at + pages > l->words) return 0;
        memcpy(w + at, in->pages + (size_t)run->seq * (size_t)in->max_pages, (size_t)pages * 4);
        for (int32_t t = run->first; t < run->first + run->n; t++) {
            w[l->seq + t] = (uint32_t)run->seq;
            w[l->end + t] = (uint32_t)(run->first + run->n);
            w[l->pages_at + t] = (uint32_t)at;
        }
        at += pages;
    }
    return at;
}

static int32_t rows_of(const tn_step_input *in, tn_rows rows, int32_t fixed) {
    return rows == TN_ROWS_TOKENS ? in->n_tokens : rows == TN_ROWS_OUTPUTS ? in->n_outputs : fixed;
}

/* ---- encoding ---- */

tn_status tn_webgpu_begin(tn_program *p, const tn_step_input *in, WGPUCommandEncoder *encoder, tn_error *err) {
    tn_device *d = p->device;
    *encoder = NULL;
    if (d->lost) return tn_webgpu_check(d, "running a step", err);
    int32_t words = fill_step(p, in);
    if (!words) return tn_fail(err, TN_ERR_RESOURCES, "webgpu: the step is larger than it was planned for");
    d->lib.QueueWriteBuffer(d->queue, p->step, 0, p->words, (size_t)words * 4);
    *encoder = d->lib.DeviceCreateCommandEncoder(d->device, NULL);
    if (!*encoder) return tn_fail(err, TN_ERR_RESOURCES, "webgpu: a step cannot be encoded");
    for (int32_t t = 0; t < in->n_tokens; t++)
        if (in->ids[t] == TN_ID_CHOSEN && p->memory->chosen)
            d->lib.CommandEncoderCopyBufferToBuffer(*encoder, p->memory->chosen, (uint64_t)t * 4, p->step,
                                                    (uint64_t)(p->layout.ids + t) * 4, 4);
    return TN_OK;
}

void tn_webgpu_encode(const tn_program *p, const tn_step_input *in, int32_t i, WGPUComputePassEncoder pass,
                      WGPUComputePipeline *last) {
    const tn_webgpu_library *lib = &p->device->lib;
    const tn_webgpu_dispatch *x = &p->dispatch[i];
    uint32_t rows = (uint32_t)rows_of(in, x->rows, x->fixed_rows), gx = x->x;
    uint32_t gy = gx ? (rows + (uint32_t)x->rows_per_y - 1) / (uint32_t)x->rows_per_y : (rows + 32767) / 32768;
    if (!gx) gx = rows < 32768 ? rows : 32768;
    int32_t last_pos = 0;
    for (int32_t t = 0; t < in->n_tokens && x->from_pos; t++)
        last_pos = in->pos[t] > last_pos ? in->pos[t] : last_pos;
    if (gx == 0 || gy == 0 || last_pos < x->from_pos) return;
    if (x->pipeline != *last) lib->ComputePassEncoderSetPipeline(pass, x->pipeline);
    *last = x->pipeline;
    lib->ComputePassEncoderSetBindGroup(pass, 0, x->group, 0, NULL);
    lib->ComputePassEncoderDispatchWorkgroups(pass, gx, gy, 1);
}

tn_status tn_webgpu_end(tn_program *p, WGPUCommandEncoder encoder, uint64_t *submission, tn_error *err) {
    tn_device *d = p->device;
    WGPUCommandBuffer commands = d->lib.CommandEncoderFinish(encoder, NULL);
    tn_status status = tn_webgpu_check(d, "encoding a step", err);
    if (status == TN_OK && !commands) status = tn_fail(err, TN_ERR_RESOURCES, "webgpu: a step cannot be encoded");
    if (status == TN_OK) {
        *submission = tn_webgpu_submit_commands(&d->lib, d->queue, commands);
        status = tn_webgpu_check(d, "submitting a step", err);
    }
    if (commands) d->lib.CommandBufferRelease(commands);
    return status;
}

static void encode_pass(const tn_program *p, const tn_step_input *in, WGPUCommandEncoder encoder) {
    const tn_webgpu_library *lib = &p->device->lib;
    WGPUComputePipeline last = NULL;
    WGPUComputePassEncoder pass = lib->CommandEncoderBeginComputePass(encoder, NULL);
    if (!pass) return; /* the error is kept */
    for (int32_t i = 0; i < p->n; i++) tn_webgpu_encode(p, in, i, pass, &last);
    lib->ComputePassEncoderEnd(pass);
    lib->ComputePassEncoderRelease(pass);
}

/* ---- steps ---- */

tn_status tn_webgpu_submit(tn_program *p, const tn_step_input *in, int want, tn_error *err) {
    tn_device *d = p->device;
    if (!d->device) return tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu:plan only plans: it has no device to run on");
    tn_webgpu_step *s = &p->steps[p->submitted % TN_WEBGPU_AHEAD];
    if (p->logits_mapped) d->lib.BufferUnmap(p->readback);
    p->logits_mapped = false;
    *s = (tn_webgpu_step){.back = s->back, .ids = s->ids};
    if (want & TN_WANT_LOGITS) s->logits_bytes = p->logits_row * (uint64_t)rows_of(in, p->logits_rows, 1);
    uint64_t chosen = p->choice_bytes ? (uint64_t)rows_of(in, p->logits_rows, 1) * 4 : 0;
    if (want & TN_WANT_IDS) s->ids_bytes = chosen;
    WGPUCommandEncoder encoder;
    tn_status status = tn_webgpu_begin(p, in, &encoder, err);
    if (status != TN_OK) return status;
    encode_pass(p, in, encoder);
    WGPUBuffer arena = p->memory->arena;
    if (chosen) d->lib.CommandEncoderCopyBufferToBuffer(encoder, arena, p->choice_at, p->memory->chosen, 0, chosen);
    if (s->ids_bytes) d->lib.CommandEncoderCopyBufferToBuffer(encoder, arena, p->choice_at, s->back, 0, s->ids_bytes);
    if (s->logits_bytes)
        d->lib.CommandEncoderCopyBufferToBuffer(encoder, arena, p->logits_at, p->readback, 0, s->logits_bytes);
    status = tn_webgpu_end(p, encoder, &s->submission, err);
    d->lib.CommandEncoderRelease(encoder);
    if (status != TN_OK) return status;
    if (s->ids_bytes) tn_webgpu_map_begin(d, s->back, s->ids_bytes, &s->ids_mapping);
    if (s->logits_bytes) tn_webgpu_map_begin(d, p->readback, s->logits_bytes, &s->logits_mapping);
    p->submitted++;
    return TN_OK;
}

tn_status tn_webgpu_result(tn_program *p, tn_result *result, tn_error *err) {
    tn_device *d = p->device;
    *result = (tn_result){0};
    if (p->waited == p->submitted) return tn_fail(err, TN_ERR_INTERNAL, "webgpu: no step is outstanding");
    tn_webgpu_step *s = &p->steps[p->waited++ % TN_WEBGPU_AHEAD];
    tn_status status = TN_OK;
    const void *ids;
    if (s->ids_bytes) {
        status = tn_webgpu_map_end(d, s->back, s->ids_bytes, &s->ids_mapping, s->submission, &ids, err);
        if (status == TN_OK) {
            memcpy(s->ids, ids, s->ids_bytes);
            d->lib.BufferUnmap(s->back);
            result->ids = s->ids;
        }
    }
    if (s->logits_bytes) {
        tn_status other = tn_webgpu_map_end(d, p->readback, s->logits_bytes, &s->logits_mapping, s->submission,
                                            (const void **)&result->logits, status == TN_OK ? err : NULL);
        p->logits_mapped = other == TN_OK;
        if (status == TN_OK) status = other;
    }
    return status;
}
