/* Shaders and pipelines: compiled once for each text, shared by all launches that have it. */
#include "backend/webgpu/webgpu.h"
#include "base/mem.h"

#include <string.h>

static uint64_t hash_of(const char *text) {
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) h = (h ^ *p) * UINT64_C(0x100000001b3);
    return h;
}

WGPUBindGroupLayout tn_webgpu_layout(tn_device *d, int32_t kind) {
    if (d->layout[kind]) return d->layout[kind];
    WGPUBindGroupLayoutEntry entries[16] = {0};
    size_t n = 0;
    int32_t windows = kind / 4;
    for (uint32_t binding = 0; binding < 5 + (uint32_t)windows; binding++) {
        if ((binding == 3 && !(kind & 1)) || (binding == 4 && !(kind & 2))) continue;
        entries[n].binding = binding;
        entries[n].visibility = WGPUShaderStage_Compute;
        entries[n++].buffer.type = binding == 0 || binding == 3 || binding == 4 ? WGPUBufferBindingType_Storage
                                   : binding == 2                               ? WGPUBufferBindingType_Uniform
                                                  : WGPUBufferBindingType_ReadOnlyStorage;
    }
    d->layout[kind] = d->lib.DeviceCreateBindGroupLayout(
        d->device, &(WGPUBindGroupLayoutDescriptor){.entryCount = n, .entries = entries});
    if (d->layout[kind])
        d->pipeline_layout[kind] = d->lib.DeviceCreatePipelineLayout(
            d->device,
            &(WGPUPipelineLayoutDescriptor){.bindGroupLayoutCount = 1, .bindGroupLayouts = &d->layout[kind]});
    return d->layout[kind];
}

static tn_status compile(tn_device *d, const char *text, int32_t kind, WGPUComputePipeline *pipeline, tn_error *err) {
    WGPUShaderSourceWGSL source = {{.sType = WGPUSType_ShaderSourceWGSL}, {text, strlen(text)}};
    WGPUShaderModule module =
        tn_webgpu_module(&d->lib, d->device, &(WGPUShaderModuleDescriptor){.nextInChain = &source.chain});
    tn_status status = tn_webgpu_check(d, "a shader does not compile", err);
    if (status == TN_OK && !module) status = tn_fail(err, TN_ERR_INTERNAL, "webgpu: a shader does not compile");
    if (status == TN_OK) {
        WGPUComputePipelineDescriptor desc = {.layout = d->pipeline_layout[kind],
                                              .compute = {.module = module, .entryPoint = {"main", 4}}};
        *pipeline = d->lib.DeviceCreateComputePipeline(d->device, &desc);
        status = tn_webgpu_check(d, "a pipeline is refused", err);
    }
    if (status == TN_OK && !*pipeline) status = tn_fail(err, TN_ERR_INTERNAL, "webgpu: a pipeline is refused");
    if (module) d->lib.ShaderModuleRelease(module);
    return status;
}

tn_status tn_webgpu_pipeline_get(tn_device *d, const char *text, int32_t kind, WGPUComputePipeline *pipeline,
                                 tn_error *err) {
    uint64_t hash = hash_of(text);
    for (int32_t i = 0; i < d->n_pipelines; i++)
        if (d->pipelines[i].hash == hash && d->pipelines[i].kind == kind && !strcmp(d->pipelines[i].text, text)) {
            *pipeline = d->pipelines[i].pipeline;
            return TN_OK;
        }
    if (d->n_pipelines == d->pipelines_cap) {
        int32_t cap = d->pipelines_cap ? d->pipelines_cap * 2 : 32;
        tn_webgpu_pipeline *all = tn_realloc(d->pipelines, (size_t)cap * sizeof *all);
        if (!all) return tn_fail_memory(err);
        d->pipelines = all;
        d->pipelines_cap = cap;
    }
    tn_webgpu_pipeline p = {.hash = hash, .text = tn_strndup(text, strlen(text)), .kind = kind};
    tn_status status = p.text && tn_webgpu_layout(d, kind) ? TN_OK : tn_fail_memory(err);
    if (status == TN_OK) status = compile(d, text, kind, &p.pipeline, err);
    if (status != TN_OK) {
        tn_free(p.text);
        return status;
    }
    d->pipelines[d->n_pipelines++] = p;
    *pipeline = p.pipeline;
    return TN_OK;
}
