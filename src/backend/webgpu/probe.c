/* What a device can do is found out by trying: what there is to ask differs between implementations. */
#include "backend/webgpu/webgpu.h"

#include "base/mem.h"

#include <string.h>

static WGPUShaderModule module_of(tn_device *d, const char *enable, const char *body) {
    tn_buf b = {0};
    tn_buf_printf(&b,
                  "%s@group(0) @binding(0) var<storage, read_write> a: array<u32>;\n"
                  "@compute @workgroup_size(%d) fn main(%s) { %s }\n",
                  enable, TN_WEBGPU_GROUP,
                  strstr(body, "size")
                      ? "@builtin(local_invocation_index) i: u32, @builtin(subgroup_size) size: u32, "
                        "@builtin(subgroup_invocation_id) lane: u32"
                      : "",
                  body);
    WGPUShaderModule module = NULL;
    WGPUShaderSourceWGSL source = {{.sType = WGPUSType_ShaderSourceWGSL}, {b.p, b.n}};
    if (!b.failed)
        module =
            d->lib.DeviceCreateShaderModule(d->device, &(WGPUShaderModuleDescriptor){.nextInChain = &source.chain});
    tn_buf_free(&b);
    if (module && !tn_webgpu_try(d)) {
        d->lib.ShaderModuleRelease(module);
        module = NULL;
    }
    return module;
}

static bool compiles(tn_device *d, const char *enable, const char *body) {
    WGPUShaderModule module = module_of(d, enable, body);
    if (module) d->lib.ShaderModuleRelease(module);
    return module != NULL;
}

/* ---- subgroups ---- */

enum { WORDS = 2 * TN_WEBGPU_GROUP };

static tn_status dispatch_once(tn_device *d, WGPUBindGroupLayout layout, WGPUComputePipeline pipeline, WGPUBuffer a,
                               tn_webgpu_readback *back, uint32_t *words, tn_error *err) {
    const tn_webgpu_library *lib = &d->lib;
    WGPUCommandEncoder encoder;
    WGPUComputePassEncoder pass;
    tn_status status = tn_webgpu_pass(d, "a probe", &encoder, &pass, err);
    if (status != TN_OK) return status;
    WGPUBindGroupEntry bound = {.buffer = a, .size = WORDS * 4};
    WGPUBindGroup group = lib->DeviceCreateBindGroup(
        d->device, &(WGPUBindGroupDescriptor){.layout = layout, .entryCount = 1, .entries = &bound});
    if (group) {
        lib->ComputePassEncoderSetPipeline(pass, pipeline);
        lib->ComputePassEncoderSetBindGroup(pass, 0, group, 0, NULL);
        lib->ComputePassEncoderDispatchWorkgroups(pass, 1, 1, 1);
    }
    lib->ComputePassEncoderEnd(pass);
    lib->ComputePassEncoderRelease(pass);
    lib->CommandEncoderCopyBufferToBuffer(encoder, a, 0, back->buffer, 0, WORDS * 4);
    uint64_t submission;
    status = tn_webgpu_finish(d, encoder, "a probe", &submission, err);
    if (group) lib->BindGroupRelease(group);
    if (status != TN_OK) return status;
    const void *p;
    tn_webgpu_readback_ask(d, back, WORDS * 4);
    status = tn_webgpu_readback_wait(d, back, submission, &p, err);
    if (status == TN_OK) memcpy(words, p, WORDS * 4);
    return status;
}

/* Runs a module over one workgroup and copies what it wrote. */
static tn_status run_once(tn_device *d, WGPUShaderModule module, uint32_t *words, tn_error *err) {
    const tn_webgpu_library *lib = &d->lib;
    WGPUBuffer a = NULL;
    tn_webgpu_readback back = {0};
    WGPUBindGroupLayoutEntry entry = {.visibility = WGPUShaderStage_Compute,
                                      .buffer.type = WGPUBufferBindingType_Storage};
    WGPUPipelineLayout pipelines = NULL;
    WGPUComputePipeline pipeline = NULL;
    WGPUBindGroupLayout layout = lib->DeviceCreateBindGroupLayout(
        d->device, &(WGPUBindGroupLayoutDescriptor){.entryCount = 1, .entries = &entry});
    if (layout)
        pipelines = lib->DeviceCreatePipelineLayout(
            d->device, &(WGPUPipelineLayoutDescriptor){.bindGroupLayoutCount = 1, .bindGroupLayouts = &layout});
    WGPUComputePipelineDescriptor desc = {.layout = pipelines,
                                          .compute = {.module = module, .entryPoint = {"main", 4}}};
    if (pipelines) pipeline = lib->DeviceCreateComputePipeline(d->device, &desc);
    tn_status status = tn_webgpu_check(d, "a first pipeline is refused", err);
    if (status == TN_OK && !pipeline)
        status = tn_fail(err, TN_ERR_RESOURCES, "webgpu: no first pipeline could be made");
    if (status == TN_OK)
        status =
            tn_webgpu_buffer(d, &a, WORDS * 4, WGPUBufferUsage_Storage | WGPUBufferUsage_CopySrc, "a probe", err);
    if (status == TN_OK) status = tn_webgpu_readback_make(d, &back, WORDS * 4, "a probe", err);
    if (status == TN_OK) status = dispatch_once(d, layout, pipeline, a, &back, words, err);
    tn_webgpu_buffer_free(d, &a);
    tn_webgpu_readback_free(d, &back);
    if (pipeline) lib->ComputePipelineRelease(pipeline);
    if (pipelines) lib->PipelineLayoutRelease(pipelines);
    if (layout) lib->BindGroupLayoutRelease(layout);
    return status;
}

/* The size of subgroups, where they are the workgroup's invocations in order; else 0. */
static tn_status find_subgroup(tn_device *d, const char *enable, tn_error *err) {
    WGPUShaderModule module = module_of(d, enable, "a[2u * i] = size; a[2u * i + 1u] = lane + subgroupAdd(0u);");
    if (!module) return TN_OK;
    uint32_t words[WORDS] = {0};
    tn_status status = run_once(d, module, words, err);
    d->lib.ShaderModuleRelease(module);
    uint32_t size = words[0];
    bool fits = size >= 8 && size <= TN_WEBGPU_GROUP && !(size & (size - 1));
    for (uint32_t i = 0; i < TN_WEBGPU_GROUP && fits; i++)
        fits = words[2 * i] == size && words[2 * i + 1] == i % size;
    if (fits) d->subgroup = (int32_t)size;
    return status;
}

tn_status tn_webgpu_probe(tn_device *d, bool subgroups, tn_error *err) {
    static const char *const lines[] = {"", "enable f16;\n", "enable subgroups;\n",
                                        "enable f16;\nenable subgroups;\n"};
    if (d->f16) d->f16 = compiles(d, lines[1], "a[0] = u32(f16(1.0));");
    bool line = subgroups && compiles(d, lines[2], "a[0] = subgroupAdd(1u);");
    tn_status status = subgroups ? find_subgroup(d, lines[line ? 2 : 0], err) : TN_OK;
    d->enable = lines[(d->f16 ? 1 : 0) + (line && d->subgroup ? 2 : 0)];
    d->packed_dot = compiles(d, "", "a[0] = u32(dot4I8Packed(a[1], a[2]));");
    return status;
}
