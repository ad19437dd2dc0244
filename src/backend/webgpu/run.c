/* Running a program: the step's inputs are written, one command buffer is submitted, the logits are mapped. */
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

static void encode(const tn_program *p, const tn_step_input *in, WGPUComputePassEncoder pass) {
    const tn_webgpu_library *lib = &p->device->lib;
    WGPUComputePipeline last = NULL;
    int32_t last_pos = 0;
    for (int32_t t = 0; t < in->n_tokens; t++) last_pos = in->pos[t] > last_pos ? in->pos[t] : last_pos;
    for (int32_t i = 0; i < p->n; i++) {
        const tn_webgpu_dispatch *x = &p->dispatch[i];
        uint32_t rows = (uint32_t)rows_of(in, x->rows, x->fixed_rows), gx = x->x;
        uint32_t gy = gx ? (rows + (uint32_t)x->rows_per_y - 1) / (uint32_t)x->rows_per_y : (rows + 32767) / 32768;
        if (!gx) gx = rows < 32768 ? rows : 32768;
        if (gx == 0 || gy == 0 || last_pos < x->from_pos) continue;
        if (x->pipeline != last) lib->ComputePassEncoderSetPipeline(pass, x->pipeline);
        last = x->pipeline;
        lib->ComputePassEncoderSetBindGroup(pass, 0, x->group, 0, NULL);
        lib->ComputePassEncoderDispatchWorkgroups(pass, gx, gy, 1);
    }
}

static tn_status submit(tn_program *p, const tn_step_input *in, uint64_t bytes, tn_error *err) {
    tn_device *d = p->device;
    const tn_webgpu_library *lib = &d->lib;
    WGPUCommandEncoder encoder = lib->DeviceCreateCommandEncoder(d->device, NULL);
    WGPUComputePassEncoder pass = encoder ? lib->CommandEncoderBeginComputePass(encoder, NULL) : NULL;
    WGPUCommandBuffer commands = NULL;
    if (pass) {
        encode(p, in, pass);
        lib->ComputePassEncoderEnd(pass);
        lib->ComputePassEncoderRelease(pass);
        if (bytes)
            lib->CommandEncoderCopyBufferToBuffer(encoder, p->memory->arena, p->logits_at, p->readback, 0, bytes);
        commands = lib->CommandEncoderFinish(encoder, NULL);
    }
    if (encoder) lib->CommandEncoderRelease(encoder);
    tn_status status = tn_webgpu_check(d, "encoding a step", err);
    if (status == TN_OK && !commands) status = tn_fail(err, TN_ERR_RESOURCES, "webgpu: a step cannot be encoded");
    if (status == TN_OK) {
        lib->QueueSubmit(d->queue, 1, &commands);
        status = tn_webgpu_check(d, "submitting a step", err);
    }
    if (commands) lib->CommandBufferRelease(commands);
    return status;
}

tn_status tn_webgpu_submit(tn_program *p, const tn_step_input *in, int want, tn_error *err) {
    (void)want;
    tn_device *d = p->device;
    p->result = NULL;
    if (d->lost) return tn_webgpu_check(d, "running a step", err);
    if (p->mapped) d->lib.BufferUnmap(p->readback);
    p->mapped = false;
    int32_t words = fill_step(p, in);
    if (!words) return tn_fail(err, TN_ERR_RESOURCES, "webgpu: the step is larger than it was planned for");
    uint64_t bytes = p->logits_row * (uint64_t)rows_of(in, p->logits_rows, 1);
    d->lib.QueueWriteBuffer(d->queue, p->step, 0, p->words, (size_t)words * 4);
    tn_status status = submit(p, in, bytes, err);
    if (status != TN_OK || !bytes) return status;
    status = tn_webgpu_map(d, p->readback, bytes, (const void **)&p->result, err);
    p->mapped = status == TN_OK;
    return status;
}

tn_status tn_webgpu_result(tn_program *p, tn_result *result, tn_error *err) {
    (void)err;
    *result = (tn_result){.logits = p->result};
    return TN_OK;
}
