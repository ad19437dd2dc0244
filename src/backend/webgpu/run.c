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
    if (tn_webgpu_lost(d)) return tn_webgpu_check(d, "running a step", err);
    int32_t words = fill_step(p, in);
    if (!words) return tn_fail(err, TN_ERR_RESOURCES, "webgpu: the step is larger than it was planned for");
    for (int32_t t = p->memory->n_chosen; t < in->n_tokens; t++)
        if (in->ids[t] == TN_ID_CHOSEN)
            return tn_fail(err, TN_ERR_INTERNAL, "webgpu: the step before chose no token in row %d", t);
    d->lib.QueueWriteBuffer(d->queue, p->step, 0, p->words, (size_t)words * 4);
    tn_status status = tn_webgpu_encoder(d, "a step", encoder, err);
    if (status != TN_OK) return status;
    for (int32_t t = 0; t < in->n_tokens; t++)
        if (in->ids[t] == TN_ID_CHOSEN)
            d->lib.CommandEncoderCopyBufferToBuffer(*encoder, p->memory->chosen, (uint64_t)t * 4, p->step,
                                                    (uint64_t)(p->layout.ids + t) * 4, 4);
    return TN_OK;
}

void tn_webgpu_encode(const tn_program *p, const tn_step_input *in, int32_t i, WGPUComputePassEncoder pass,
                      WGPUComputePipeline *last) {
    const tn_webgpu_library *lib = &p->device->lib;
    const tn_webgpu_dispatch *x = &p->dispatch[i];
    uint32_t gx, gy;
    tn_webgpu_grid(x->x, x->rows_per_y, rows_of(in, x->rows, x->fixed_rows), &gx, &gy);
    int32_t last_pos = 0;
    for (int32_t t = 0; t < in->n_tokens && x->from_pos; t++)
        last_pos = in->pos[t] > last_pos ? in->pos[t] : last_pos;
    if (gx == 0 || gy == 0 || last_pos < x->from_pos) return;
    if (x->pipeline != *last) lib->ComputePassEncoderSetPipeline(pass, x->pipeline);
    *last = x->pipeline;
    lib->ComputePassEncoderSetBindGroup(pass, 0, x->group, 0, NULL);
    lib->ComputePassEncoderDispatchWorkgroups(pass, gx, gy, 1);
}

static void encode_pass(const tn_program *p, const tn_step_input *in, int want, WGPUCommandEncoder encoder) {
    const tn_webgpu_library *lib = &p->device->lib;
    WGPUComputePipeline last = NULL;
    WGPUComputePassEncoder pass = lib->CommandEncoderBeginComputePass(encoder, NULL);
    if (!pass) return; /* the error is kept */
    for (int32_t i = 0; i < p->n; i++)
        if (tn_launch_wanted(p->plan, p->dispatch[i].launch, want)) tn_webgpu_encode(p, in, i, pass, &last);
    lib->ComputePassEncoderEnd(pass);
    lib->ComputePassEncoderRelease(pass);
}

/* ---- steps ---- */

/* What the step chose stays for the one after it; what is wanted of it goes where the host can read it. */
static void encode_results(tn_program *p, const tn_webgpu_step *s, uint64_t rows, WGPUCommandEncoder encoder) {
    const tn_webgpu_library *lib = &p->device->lib;
    WGPUBuffer arena = p->memory->arena, back = s->back.buffer;
    if (s->want & TN_WANT_CHOSEN) {
        lib->CommandEncoderCopyBufferToBuffer(encoder, arena, p->choice_at, p->memory->chosen, 0, rows * 4);
        lib->CommandEncoderCopyBufferToBuffer(encoder, arena, p->choice_at, back, 0, rows * 4);
    }
    for (uint64_t k = 0; k < 2 && s->want & TN_WANT_BEST; k++)
        lib->CommandEncoderCopyBufferToBuffer(encoder, arena, p->best_at[k], back,
                                              p->choice_bytes + k * p->best_bytes, rows * p->best_of_row * 4);
    if (s->want & TN_WANT_LOGITS)
        lib->CommandEncoderCopyBufferToBuffer(encoder, arena, p->logits_at, p->logits.buffer, 0,
                                              rows * p->logits_row);
}

/* Bytes of what is read back but for the logits: the choices, and behind room for all of them the best. */
static uint64_t back_bytes(const tn_program *p, int want, uint64_t rows) {
    return want & TN_WANT_BEST ? p->choice_bytes + 2 * p->best_bytes : want & TN_WANT_CHOSEN ? rows * 4 : 0;
}

tn_status tn_webgpu_submit(tn_program *p, const tn_step_input *in, int want, tn_error *err) {
    tn_device *d = p->device;
    if (!d->device) return tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu:plan only plans: it has no device to run on");
    if (p->submitted - p->waited == TN_WEBGPU_AHEAD)
        return tn_fail(err, TN_ERR_INTERNAL, "webgpu: %d steps are outstanding already", TN_WEBGPU_AHEAD);
    if (p->submitted > p->waited && p->steps[(p->submitted - 1) % TN_WEBGPU_AHEAD].want & TN_WANT_LOGITS)
        return tn_fail(err, TN_ERR_INTERNAL, "webgpu: the logits of the step before have not been waited for");
    tn_webgpu_step *s = &p->steps[p->submitted % TN_WEBGPU_AHEAD];
    uint64_t rows = (uint64_t)rows_of(in, p->logits_rows, 1), back;
    want &= rows ? TN_WANT_LOGITS | (p->choice_bytes ? TN_WANT_CHOSEN : 0) | (p->best_bytes ? TN_WANT_BEST : 0) : 0;
    tn_webgpu_readback_done(d, &p->logits);
    WGPUCommandEncoder encoder;
    tn_status status = tn_webgpu_begin(p, in, &encoder, err);
    if (status != TN_OK) return status;
    s->want = want;
    encode_pass(p, in, want, encoder);
    encode_results(p, s, rows, encoder);
    status = tn_webgpu_finish(d, encoder, "a step", &s->submission, err);
    if (status != TN_OK) return status;
    p->memory->n_chosen = want & TN_WANT_CHOSEN ? (int32_t)rows : 0;
    if ((back = back_bytes(p, want, rows)) > 0) tn_webgpu_readback_ask(d, &s->back, back);
    if (want & TN_WANT_LOGITS) tn_webgpu_readback_ask(d, &p->logits, rows * p->logits_row);
    p->submitted++;
    return TN_OK;
}

tn_status tn_webgpu_result(tn_program *p, tn_result *result, tn_error *err) {
    tn_device *d = p->device;
    *result = (tn_result){0};
    if (p->waited == p->submitted) return tn_fail(err, TN_ERR_INTERNAL, "webgpu: no step is outstanding");
    tn_webgpu_step *s = &p->steps[p->waited++ % TN_WEBGPU_AHEAD];
    tn_status status = TN_OK;
    const void *got = NULL;
    if (s->back.bytes) {
        size_t bytes = s->back.bytes;
        status = tn_webgpu_readback_wait(d, &s->back, s->submission, &got, err);
        if (status == TN_OK) {
            memcpy(s->ids, got, bytes);
            tn_webgpu_readback_done(d, &s->back);
            const char *best = (const char *)s->ids + p->choice_bytes;
            if (s->want & TN_WANT_CHOSEN) result->ids = s->ids;
            if (s->want & TN_WANT_BEST)
                result->best = (tn_candidates){(const int32_t *)best, (const float *)(best + p->best_bytes),
                                               (int32_t)p->best_of_row};
        }
    }
    if (status == TN_OK && s->want & TN_WANT_LOGITS) {
        status = tn_webgpu_readback_wait(d, &p->logits, s->submission, &got, err);
        result->logits = got;
    }
    if (status == TN_OK) return TN_OK;
    *result = (tn_result){0};
    if (s->want & TN_WANT_LOGITS) tn_webgpu_readback_done(d, &p->logits);
    return status;
}
