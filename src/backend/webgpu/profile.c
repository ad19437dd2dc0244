/* A step with every launch timed. WebGPU tells the time at both ends of a compute pass only, so here each dispatch is a pass
 * of its own, which it is in no other step. */
#include "backend/webgpu/webgpu.h"
#include "base/clock.h"
#include "base/mem.h"

#include <string.h>

enum { SET = 4096, PER_SET = SET / 2 }; /* times in a query set, at most; two of them a dispatch */

typedef struct stopwatch {
    WGPUQuerySet *set;
    int32_t n;
    WGPUBuffer resolved;
    tn_webgpu_readback back;
    uint64_t bytes;
} stopwatch;

static void close_watch(tn_device *d, stopwatch *w) {
    for (int32_t i = 0; i < w->n && w->set; i++)
        if (w->set[i]) d->lib.QuerySetRelease(w->set[i]);
    tn_free(w->set);
    tn_webgpu_buffer_free(d, &w->resolved);
    tn_webgpu_readback_free(d, &w->back);
}

static tn_status open_watch(tn_device *d, stopwatch *w, int32_t n_dispatches, tn_error *err) {
    w->n = (n_dispatches + PER_SET - 1) / PER_SET;
    w->bytes = (uint64_t)w->n * SET * 8;
    w->set = tn_alloc_zero((size_t)w->n, sizeof *w->set);
    if (!w->set) return tn_fail_memory(err);
    const WGPUQuerySetDescriptor desc = {.type = WGPUQueryType_Timestamp, .count = SET};
    tn_status status = TN_OK;
    for (int32_t i = 0; i < w->n && status == TN_OK; i++) {
        w->set[i] = d->lib.DeviceCreateQuerySet(d->device, &desc);
        status = tn_webgpu_check(d, "making timestamps", err);
        if (status == TN_OK && !w->set[i]) status = tn_fail(err, TN_ERR_RESOURCES, "webgpu: no timestamps");
    }
    if (status == TN_OK)
        status = tn_webgpu_buffer(d, &w->resolved, w->bytes, WGPUBufferUsage_QueryResolve | WGPUBufferUsage_CopySrc,
                                  "timestamps", err);
    if (status == TN_OK) status = tn_webgpu_readback_make(d, &w->back, w->bytes, "timestamps", err);
    return status;
}

static void encode_passes(const tn_program *p, const tn_step_input *in, const stopwatch *w,
                          WGPUCommandEncoder encoder) {
    const tn_webgpu_library *lib = &p->device->lib;
    for (int32_t i = 0; i < p->n; i++) {
        uint32_t at = (uint32_t)(i % PER_SET) * 2;
        WGPUPassTimestampWrites times = {
            .querySet = w->set[i / PER_SET], .beginningOfPassWriteIndex = at, .endOfPassWriteIndex = at + 1};
        WGPUComputePassEncoder pass =
            lib->CommandEncoderBeginComputePass(encoder, &(WGPUComputePassDescriptor){.timestampWrites = &times});
        if (!pass) return; /* the error is kept */
        tn_webgpu_encode(p, in, i, pass, &(WGPUComputePipeline){NULL});
        lib->ComputePassEncoderEnd(pass);
        lib->ComputePassEncoderRelease(pass);
    }
    for (int32_t i = 0; i < w->n; i++) {
        int32_t n = p->n - i * PER_SET;
        lib->CommandEncoderResolveQuerySet(encoder, w->set[i], 0, (uint32_t)(n < PER_SET ? n : PER_SET) * 2,
                                           w->resolved, (uint64_t)i * SET * 8);
    }
    lib->CommandEncoderCopyBufferToBuffer(encoder, w->resolved, 0, w->back.buffer, 0, w->bytes);
}

/* Some drivers' clocks go back now and then. */
static double since(uint64_t now, uint64_t start) {
    return (double)(int64_t)(now - start);
}

/* Ticks -> seconds, of which the last launch's end is known: the host has just seen it. Of a launch in several dispatches, from
 * the first's start to the last's end. */
static void read_times(const tn_program *p, const uint64_t *ticks, double seen, tn_launch_time *times) {
    double tick = tn_webgpu_tick_seconds(&p->device->lib, p->device->queue);
    int32_t last = -1;
    for (int32_t i = 0; i < p->n; i++) {
        const uint64_t *t = ticks + (size_t)(i / PER_SET) * SET + (size_t)(i % PER_SET) * 2;
        tn_launch_time *to = &times[p->dispatch[i].launch];
        if (p->dispatch[i].launch != last) to->start = since(t[0], ticks[0]) * tick;
        to->end = since(t[1], ticks[0]) * tick;
        last = p->dispatch[i].launch;
    }
    double shift = seen - times[last].end;
    for (int32_t l = 0; l < p->plan->partition.n; l++)
        times[l] = (tn_launch_time){times[l].start + shift, times[l].end + shift};
}

tn_status tn_webgpu_profile(tn_program *p, const tn_step_input *in, tn_launch_time *times, tn_error *err) {
    double entered = tn_seconds();
    tn_device *d = p->device;
    stopwatch w = {0};
    WGPUCommandEncoder encoder = NULL;
    uint64_t submission;
    if (!d->timestamps) return tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu: this device has no timestamps");
    tn_status status = open_watch(d, &w, p->n, err);
    if (status == TN_OK) status = tn_webgpu_begin(p, in, &encoder, err);
    if (status == TN_OK) {
        encode_passes(p, in, &w, encoder);
        status = tn_webgpu_finish(d, encoder, "a timed step", &submission, err);
    }
    if (status == TN_OK) {
        const void *ticks;
        tn_webgpu_readback_ask(d, &w.back, w.bytes);
        status = tn_webgpu_readback_wait(d, &w.back, submission, &ticks, err);
        if (status == TN_OK) read_times(p, ticks, tn_seconds() - entered, times);
    }
    close_watch(d, &w);
    p->memory->n_chosen = 0; /* its choice is not kept */
    return status;
}
