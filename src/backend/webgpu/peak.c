/* How fast a shader reads the device's memory: what all other kernels are measured against. */
#include "backend/webgpu/webgpu.h"

#include "base/clock.h"

#include <string.h>

enum { GROUPS = 2048, LOADS = 8, FEW = 2, MANY = 10 };

/* Every invocation has several loads on their way at once; what they bring is only looked at. */
static const char shader[] =
    "@group(0) @binding(0) var<storage, read_write> a: array<vec4<u32>>;\n"
    "@compute @workgroup_size(256) fn main(@builtin(global_invocation_id) id: vec3<u32>) {\n"
    "    let n = arrayLength(&a);\n    let step = 2048u * 256u;\n    var sum = vec4<u32>();\n"
    "    for (var i = id.x; i + 7u * step < n; i += 8u * step) {\n"
    "        sum += (a[i] ^ a[i + step]) + (a[i + 2u * step] ^ a[i + 3u * step]) + (a[i + 4u * step] ^ a[i + 5u * "
    "step]) "
    "+ (a[i + 6u * step] ^ a[i + 7u * step]);\n    }\n"
    "    if (all(sum == vec4<u32>(0x9e3779b9u))) { a[0] = sum; }\n}\n";

typedef struct bench {
    WGPUShaderModule module;
    WGPUBindGroupLayout layout;
    WGPUPipelineLayout pipelines;
    WGPUComputePipeline pipeline;
    WGPUBindGroup group;
    WGPUBuffer memory;
    tn_webgpu_readback back;
    uint64_t bytes;
} bench;

static void close_bench(tn_device *d, bench *b) {
    const tn_webgpu_library *lib = &d->lib;
    if (b->group) lib->BindGroupRelease(b->group);
    if (b->pipeline) lib->ComputePipelineRelease(b->pipeline);
    if (b->pipelines) lib->PipelineLayoutRelease(b->pipelines);
    if (b->layout) lib->BindGroupLayoutRelease(b->layout);
    if (b->module) lib->ShaderModuleRelease(b->module);
    tn_webgpu_buffer_free(d, &b->memory);
    tn_webgpu_readback_free(d, &b->back);
}

static tn_status open_bench(tn_device *d, bench *b, tn_error *err) {
    const tn_webgpu_library *lib = &d->lib;
    const uint64_t turn = (uint64_t)GROUPS * 256 * LOADS * 16;
    uint64_t most = d->max_binding < UINT64_C(1) << 29 ? d->max_binding : UINT64_C(1) << 29; /* beyond any cache */
    b->bytes = most / turn * turn;
    if (!b->bytes) return tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu: bindings are too small to measure memory by");
    tn_status status = tn_webgpu_buffer(d, &b->memory, b->bytes, WGPUBufferUsage_Storage | WGPUBufferUsage_CopySrc,
                                        "measuring memory", err);
    if (status == TN_OK) status = tn_webgpu_readback_make(d, &b->back, 16, "measuring memory", err);
    if (status != TN_OK) return status;
    WGPUShaderSourceWGSL source = {{.sType = WGPUSType_ShaderSourceWGSL}, {shader, strlen(shader)}};
    WGPUBindGroupLayoutEntry entry = {.visibility = WGPUShaderStage_Compute,
                                      .buffer.type = WGPUBufferBindingType_Storage};
    WGPUBindGroupEntry bound = {.buffer = b->memory, .size = b->bytes};
    b->module = tn_webgpu_module(lib, d->device, &(WGPUShaderModuleDescriptor){.nextInChain = &source.chain});
    if (b->module)
        b->layout = lib->DeviceCreateBindGroupLayout(
            d->device, &(WGPUBindGroupLayoutDescriptor){.entryCount = 1, .entries = &entry});
    if (b->layout)
        b->pipelines = lib->DeviceCreatePipelineLayout(
            d->device, &(WGPUPipelineLayoutDescriptor){.bindGroupLayoutCount = 1, .bindGroupLayouts = &b->layout});
    if (b->pipelines)
        b->pipeline = lib->DeviceCreateComputePipeline(
            d->device, &(WGPUComputePipelineDescriptor){.layout = b->pipelines,
                                                        .compute = {.module = b->module, .entryPoint = {"main", 4}}});
    if (b->pipeline)
        b->group = lib->DeviceCreateBindGroup(
            d->device, &(WGPUBindGroupDescriptor){.layout = b->layout, .entryCount = 1, .entries = &bound});
    status = tn_webgpu_check(d, "measuring memory", err);
    if (status == TN_OK && !b->group) status = tn_fail(err, TN_ERR_RESOURCES, "webgpu: memory cannot be measured");
    return status;
}

/* Seconds for reading the memory n times, and for coming back. */
static tn_status time_reads(tn_device *d, bench *b, int n, double *seconds, tn_error *err) {
    const tn_webgpu_library *lib = &d->lib;
    double start = tn_seconds();
    WGPUCommandEncoder encoder;
    WGPUComputePassEncoder pass;
    tn_status status = tn_webgpu_pass(d, "measuring memory", &encoder, &pass, err);
    if (status != TN_OK) return status;
    lib->ComputePassEncoderSetPipeline(pass, b->pipeline);
    lib->ComputePassEncoderSetBindGroup(pass, 0, b->group, 0, NULL);
    for (int i = 0; i < n; i++) lib->ComputePassEncoderDispatchWorkgroups(pass, GROUPS, 1, 1);
    lib->ComputePassEncoderEnd(pass);
    lib->ComputePassEncoderRelease(pass);
    lib->CommandEncoderCopyBufferToBuffer(encoder, b->memory, 0, b->back.buffer, 0, 16);
    uint64_t submission;
    const void *p;
    status = tn_webgpu_finish(d, encoder, "measuring memory", &submission, err);
    if (status == TN_OK) {
        tn_webgpu_readback_ask(d, &b->back, 16);
        status = tn_webgpu_readback_wait(d, &b->back, submission, &p, err);
        tn_webgpu_readback_done(d, &b->back);
    }
    *seconds = tn_seconds() - start;
    return status;
}

tn_status tn_webgpu_peak(tn_device *d, double *bytes_per_second, tn_error *err) {
    bench b = {0};
    double few = 0, many = 0;
    *bytes_per_second = 0;
    if (!d->device) return tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu:plan only plans: it has no memory to measure");
    tn_status status = open_bench(d, &b, err);
    for (int i = 0; i < 4 && status == TN_OK; i++) {
        status = time_reads(d, &b, FEW, &few, err);
        if (status == TN_OK) status = time_reads(d, &b, MANY, &many, err);
        double speed = many > few ? (double)b.bytes * (MANY - FEW) / (many - few) : 0;
        if (i > 0 && speed > *bytes_per_second) *bytes_per_second = speed; /* the first is to warm up */
    }
    close_bench(d, &b);
    return status;
}
