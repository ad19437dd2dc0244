/* The device: library, adapter, features, limits; buffers; the fate of errors. WebGPU tells of errors through callbacks: they
 * are kept in the device and asked for after every call that can fail. */
#include "backend/webgpu/webgpu.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* ---- callbacks ---- */

static void copy_text(char *to, size_t size, WGPUStringView s) {
    size_t n = !s.data ? 0 : s.length == WGPU_STRLEN ? strlen(s.data) : s.length;
    if (n >= size) n = size - 1;
    for (size_t i = 0; i < n; i++) to[i] = s.data[i] == '\n' || s.data[i] == '\r' ? ' ' : s.data[i];
    to[n] = 0;
}

static void keep_error(tn_device *d, tn_status code, WGPUStringView message) {
    if (d->error.code != TN_OK) return;
    d->error.code = code;
    copy_text(d->error.text, sizeof d->error.text, message);
}

static void on_error(const WGPUDevice *device, WGPUEnum type, WGPUStringView message, void *data, void *unused) {
    (void)device, (void)unused;
    keep_error(data, type == WGPUErrorType_OutOfMemory ? TN_ERR_RESOURCES : TN_ERR_INTERNAL, message);
}

static void on_lost(const WGPUDevice *device, WGPUEnum reason, WGPUStringView message, void *data, void *unused) {
    (void)device, (void)unused;
    tn_device *d = data;
    if (reason == WGPUDeviceLostReason_Destroyed) return;
    d->lost = true;
    keep_error(d, TN_ERR_RESOURCES, message);
}

typedef struct request {
    void *result;
    volatile bool done;
    char text[200];
} request;

static void on_adapter(WGPUEnum status, WGPUAdapter adapter, WGPUStringView message, void *data, void *unused) {
    (void)unused;
    request *r = data;
    r->result = status == WGPUStatus_Success ? adapter : NULL;
    copy_text(r->text, sizeof r->text, message);
    r->done = true;
}

static void on_device(WGPUEnum status, WGPUDevice device, WGPUStringView message, void *data, void *unused) {
    (void)unused;
    request *r = data;
    r->result = status == WGPUStatus_Success ? device : NULL;
    copy_text(r->text, sizeof r->text, message);
    r->done = true;
}

tn_status tn_webgpu_check(tn_device *d, const char *what, tn_error *err) {
    tn_error e = d->error;
    d->error = (tn_error){0};
    if (d->lost) return tn_fail(err, TN_ERR_RESOURCES, "webgpu: the device was lost (%s): %.300s", what, e.text);
    return e.code == TN_OK ? TN_OK : tn_fail(err, e.code, "webgpu: %s: %.400s", what, e.text);
}

/* ---- buffers ---- */

tn_status tn_webgpu_buffer(tn_device *d, WGPUBuffer *buffer, uint64_t bytes, WGPUFlags usage, const char *what,
                           tn_error *err) {
    *buffer = NULL;
    bytes = bytes < 16 ? 16 : tn_align_up(bytes, 16); /* nothing of size 0 may reach an implementation */
    if (bytes > d->limits.maxBufferSize)
        return tn_fail(err, TN_ERR_RESOURCES, "webgpu: %s need %.1f MiB in one buffer; this device allows %.1f", what,
                       (double)bytes / (1 << 20), (double)d->limits.maxBufferSize / (1 << 20));
    *buffer = d->lib.DeviceCreateBuffer(d->device, &(WGPUBufferDescriptor){.usage = usage, .size = bytes});
    char text[120];
    snprintf(text, sizeof text, "out of device memory: %s need %.1f MiB", what, (double)bytes / (1 << 20));
    tn_status status = tn_webgpu_check(d, text, err);
    if (status == TN_OK && !*buffer) status = tn_fail(err, TN_ERR_RESOURCES, "webgpu: %s", text);
    if (status != TN_OK) tn_webgpu_buffer_free(d, buffer);
    return status;
}

void tn_webgpu_buffer_free(tn_device *d, WGPUBuffer *buffer) {
    if (!*buffer) return;
    d->lib.BufferDestroy(*buffer);
    d->lib.BufferRelease(*buffer);
    *buffer = NULL;
}

/* ---- reading back ---- */

static void on_map(WGPUEnum status, WGPUStringView message, void *data, void *unused) {
    (void)message, (void)unused;
    tn_webgpu_mapping *m = data;
    m->ok = status == WGPUStatus_Success;
    m->done = true;
}

void tn_webgpu_map_begin(tn_device *d, WGPUBuffer buffer, uint64_t bytes, tn_webgpu_mapping *m) {
    *m = (tn_webgpu_mapping){0};
    d->lib.BufferMapAsync(
        buffer, WGPUMapMode_Read, 0, bytes,
        (WGPUBufferMapCallbackInfo){.mode = WGPUCallbackMode_AllowSpontaneous, .callback = on_map, .userdata1 = m});
}

tn_status tn_webgpu_map_end(tn_device *d, WGPUBuffer buffer, uint64_t bytes, tn_webgpu_mapping *m,
                            uint64_t submission, const void **p, tn_error *err) {
    *p = NULL;
    while (!m->done && !d->lost) tn_webgpu_poll(&d->lib, d->instance, d->device, &submission);
    tn_status status = tn_webgpu_check(d, "reading results", err);
    if (status != TN_OK) return status;
    if (m->done && m->ok) *p = d->lib.BufferGetConstMappedRange(buffer, 0, bytes);
    return *p ? TN_OK : tn_fail(err, TN_ERR_RESOURCES, "webgpu: the results cannot be read");
}

/* ---- open ---- */

static void device_close(tn_device **device) {
    tn_device *d = *device;
    if (!d) return;
    for (int32_t i = 0; i < d->n_pipelines; i++) {
        d->lib.ComputePipelineRelease(d->pipelines[i].pipeline);
        tn_free(d->pipelines[i].text);
    }
    tn_free(d->pipelines);
    for (int i = 0; i < TN_WEBGPU_KINDS; i++) {
        if (d->pipeline_layout[i]) d->lib.PipelineLayoutRelease(d->pipeline_layout[i]);
        if (d->layout[i]) d->lib.BindGroupLayoutRelease(d->layout[i]);
    }
    for (int32_t i = 0; i < d->n_slabs; i++) tn_webgpu_buffer_free(d, &d->slabs[i]);
    tn_free(d->slabs);
    for (int32_t i = 0; i < d->n_weights; i++) tn_free(d->weights[i].segment);
    tn_free(d->weights);
    if (d->queue) d->lib.QueueRelease(d->queue);
    if (d->device) {
        d->lib.DeviceDestroy(d->device);
        tn_webgpu_poll(&d->lib, d->instance, d->device, NULL);
        d->lib.DeviceRelease(d->device);
    }
    if (d->adapter) d->lib.AdapterRelease(d->adapter);
    tn_free(d);
    *device = NULL;
}

static tn_status open_adapter(tn_device *d, tn_error *err) {
    d->instance = tn_webgpu_instance(&d->lib);
    if (!d->instance) return tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu: the library gives no instance");
    request r = {0};
    WGPURequestAdapterOptions options = {.featureLevel = WGPUFeatureLevel_Core,
                                         .powerPreference = WGPUPowerPreference_HighPerformance};
    d->lib.InstanceRequestAdapter(d->instance, &options,
                                  (WGPURequestAdapterCallbackInfo){.mode = WGPUCallbackMode_AllowSpontaneous,
                                                                   .callback = on_adapter,
                                                                   .userdata1 = &r});
    while (!r.done) tn_webgpu_poll(&d->lib, d->instance, NULL, &(uint64_t){0});
    d->adapter = r.result;
    if (d->adapter) return TN_OK;
    return tn_fail(
        err, TN_ERR_UNAVAILABLE,
        "webgpu: no GPU was found (%.200s); a Vulkan driver is needed, mesa-vulkan-drivers has one in software",
        r.text);
}

/* What a variant leaves switched on: d->f16, *subgroups. */
static tn_status choose_features(tn_device *d, const char *variant, bool *subgroups, tn_error *err) {
    static const struct {
        const char *name;
        bool f16, subgroups;
    } variants[] = {{"none", false, false}, {"f16", true, false}, {"subgroups", false, true}, {"both", true, true}};
    d->f16 = d->lib.AdapterHasFeature(d->adapter, WGPUFeatureName_ShaderF16);
    *subgroups = tn_webgpu_subgroup_feature(&d->lib, d->adapter) != 0;
    WGPUAdapterInfo info = {0};
    if (d->lib.AdapterGetInfo(d->adapter, &info) == WGPUStatus_Success) {
        char name[100];
        copy_text(name, sizeof name, info.device);
        snprintf(d->caps.description, sizeof d->caps.description, "webgpu (%s", name);
        if (info.subgroupMinSize != info.subgroupMaxSize) *subgroups = false;
        d->lib.AdapterInfoFreeMembers(info);
    }
    d->scalar = variant && !strcmp(variant, "scalar");
    if (!variant || d->scalar) return TN_OK;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        if (strcmp(variant, variants[i].name)) continue;
        if ((variants[i].f16 && !d->f16) || (variants[i].subgroups && !*subgroups))
            return tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu: this device has no %s",
                           variants[i].f16 && !d->f16 ? "f16" : "subgroups of one size");
        d->f16 = variants[i].f16;
        *subgroups = variants[i].subgroups;
        return TN_OK;
    }
    return tn_fail(err, TN_ERR_USAGE,
                   "the webgpu backend has no variant '%.40s'; there are: none, f16, subgroups, both, scalar",
                   variant);
}

/* More than the default where the adapter has it. What we do not use stays at 'whatever'. */
static WGPULimits wanted_limits(const WGPULimits *has) {
    WGPULimits want;
    memset(&want, 0xff, sizeof want); /* undefined: the default */
    want.nextInChain = NULL;
    want.maxStorageBufferBindingSize = has->maxStorageBufferBindingSize;
    want.maxBufferSize = has->maxBufferSize;
    want.maxComputeWorkgroupStorageSize = has->maxComputeWorkgroupStorageSize;
    want.maxStorageBuffersPerShaderStage = has->maxStorageBuffersPerShaderStage;
    return want;
}

static tn_status open_device(tn_device *d, bool subgroups, tn_error *err) {
    WGPULimits has = {0};
    if (d->lib.AdapterGetLimits(d->adapter, &has) != WGPUStatus_Success)
        return tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu: the adapter does not tell its limits");
    d->limits = has;
    WGPULimits want = wanted_limits(&has);
    WGPUEnum features[3];
    size_t n = 0;
    if (d->f16) features[n++] = WGPUFeatureName_ShaderF16;
    if (subgroups) features[n++] = tn_webgpu_subgroup_feature(&d->lib, d->adapter);
    d->timestamps = d->lib.AdapterHasFeature(d->adapter, WGPUFeatureName_TimestampQuery);
    if (d->timestamps) features[n++] = WGPUFeatureName_TimestampQuery;
    WGPUDeviceDescriptor desc = {
        .requiredFeatureCount = n,
        .requiredFeatures = features,
        .requiredLimits = &want,
        .deviceLostCallbackInfo = {.mode = WGPUCallbackMode_AllowSpontaneous, .callback = on_lost, .userdata1 = d},
        .uncapturedErrorCallbackInfo = {.callback = on_error, .userdata1 = d}};
    request r = {0};
    d->lib.AdapterRequestDevice(d->adapter, &desc,
                                (WGPURequestDeviceCallbackInfo){.mode = WGPUCallbackMode_AllowSpontaneous,
                                                                .callback = on_device,
                                                                .userdata1 = &r});
    while (!r.done) tn_webgpu_poll(&d->lib, d->instance, NULL, &(uint64_t){0});
    d->device = r.result;
    if (!d->device) return tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu: the GPU gives no device: %.300s", r.text);
    d->queue = d->lib.DeviceGetQueue(d->device);
    d->max_binding = d->limits.maxStorageBufferBindingSize;
    uint64_t addressable = UINT64_C(4) << 30; /* words are counted in 32 bits with room to spare */
    if (d->max_binding > addressable) d->max_binding = addressable;
    d->max_binding &= ~UINT64_C(255);
    d->max_window = d->max_binding;
    return d->queue ? TN_OK : tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu: the device has no queue");
}

static bool holds(tn_type type) {
    return tn_webgpu_type_of(type) != NULL;
}

static void fill_caps(tn_device *d) {
    size_t n = strlen(d->caps.description);
    snprintf(d->caps.description + n, sizeof d->caps.description - n, "%s%s%s)", d->f16 ? ", f16" : "",
             d->subgroup ? ", subgroups" : "", d->packed_dot ? ", int8 dot products" : "");
    tn_caps_add_types(&d->caps, holds);
    d->caps.align = 256;
    d->caps.ahead = TN_WEBGPU_AHEAD;
}

/* The limits and features that every implementation has, and nothing that runs: for looking at plans where no device is. */
static void open_plan(tn_device *d) {
    d->limits = (WGPULimits){.maxBufferSize = 256 << 20,
                             .maxStorageBufferBindingSize = 128 << 20,
                             .maxStorageBuffersPerShaderStage = 8,
                             .maxComputeWorkgroupStorageSize = 16384};
    d->max_binding = d->max_window = d->limits.maxStorageBufferBindingSize;
    d->packed_dot = true;
    snprintf(d->caps.description, sizeof d->caps.description, "webgpu (no device: plans only");
    fill_caps(d);
}

static tn_status device_open(tn_device **device, const tn_device_options *options, tn_error *err) {
    *device = NULL;
    tn_device *d = tn_alloc_zero(1, sizeof *d);
    if (!d) return tn_fail_memory(err);
    if (options->variant && !strcmp(options->variant, "plan")) {
        open_plan(d);
        *device = d;
        return TN_OK;
    }
    tn_status status = tn_webgpu_library_open(&d->lib, options->webgpu_lib, err);
    if (status == TN_OK) status = open_adapter(d, err);
    bool subgroups = false;
    if (status == TN_OK) status = choose_features(d, options->variant, &subgroups, err);
    if (status == TN_OK) status = open_device(d, subgroups, err);
    if (status == TN_OK) status = tn_webgpu_probe(d, subgroups, err);
    if (status != TN_OK) {
        device_close(&d);
        return status;
    }
    fill_caps(d);
    *device = d;
    return TN_OK;
}

static const tn_caps *device_caps(const tn_device *d) {
    return &d->caps;
}

static uint64_t weight_bytes(const tn_device *d) {
    return d->weight_bytes;
}

/* ---- a session's memory ---- */

static size_t state_bytes(const tn_device *d, const tn_state_desc *s, const tn_memory_desc *desc) {
    (void)d;
    if (s->size) return (size_t)s->size * 4 * (size_t)desc->n_seq;
    return (size_t)desc->n_pages * (size_t)s->n_kv * (size_t)tn_webgpu_kv_size(desc->kv_type, s->k_dim, s->v_dim) *
           16;
}

/* A buffer that shaders see whole. */
static tn_status bound_buffer(tn_device *d, WGPUBuffer *buffer, uint64_t bytes, const char *what, tn_error *err) {
    if (!d->device) return TN_OK; /* it only plans */
    if (bytes > d->max_binding)
        return tn_fail(err, TN_ERR_RESOURCES, "webgpu: %s need %.1f MiB; a shader of this device sees %.1f at once",
                       what, (double)bytes / (1 << 20), (double)d->max_binding / (1 << 20));
    return tn_webgpu_buffer(d, buffer, bytes,
                            WGPUBufferUsage_Storage | WGPUBufferUsage_CopySrc | WGPUBufferUsage_CopyDst, what, err);
}

static void free_memory(tn_device *d, tn_memory **memory) {
    tn_memory *m = *memory;
    if (!m) return;
    for (int32_t i = 0; i < m->n_states && m->states; i++) tn_webgpu_buffer_free(d, &m->states[i]);
    tn_free(m->states);
    tn_free(m->state_bytes);
    tn_webgpu_buffer_free(d, &m->arena);
    tn_webgpu_buffer_free(d, &m->chosen);
    tn_free(m);
    *memory = NULL;
}

static tn_status make_memory(tn_device *d, const tn_memory_desc *desc, tn_memory **memory, tn_error *err) {
    *memory = NULL;
    tn_memory *m = tn_alloc_zero(1, sizeof *m);
    if (!m) return tn_fail_memory(err);
    m->n_states = desc->n_states;
    m->n_pages = desc->n_pages;
    m->kv_type = desc->kv_type;
    m->arena_bytes = desc->arena_bytes < 16 ? 16 : tn_align_up(desc->arena_bytes, 16);
    m->states = tn_alloc_zero((size_t)desc->n_states, sizeof *m->states);
    m->state_bytes = tn_alloc_zero((size_t)desc->n_states, sizeof *m->state_bytes);
    tn_status status = m->states && m->state_bytes ? TN_OK : tn_fail_memory(err);
    if (status == TN_OK) status = bound_buffer(d, &m->arena, m->arena_bytes, "the activations", err);
    for (int32_t i = 0; i < desc->n_states && status == TN_OK; i++) {
        size_t bytes = state_bytes(d, &desc->states[i], desc);
        m->state_bytes[i] = bytes < 16 ? 16 : tn_align_up(bytes, 16); /* as it is bound: never nothing */
        status = bound_buffer(d, &m->states[i], m->state_bytes[i], "the caches of a layer", err);
    }
    if (status != TN_OK)
        free_memory(d, &m);
    else
        *memory = m;
    return status;
}

const tn_backend tn_backend_webgpu = {
    .name = "webgpu",
    .open = device_open,
    .close = device_close,
    .caps = device_caps,
    .facts = tn_webgpu_facts,
    .find_kernel = tn_webgpu_find_kernel,
    .put_weights = tn_webgpu_put_weights,
    .weight_bytes = weight_bytes,
    .state_bytes = state_bytes,
    .make_memory = make_memory,
    .free_memory = free_memory,
    .compile = tn_webgpu_compile,
    .free_program = tn_webgpu_free_program,
    .submit = tn_webgpu_submit,
    .wait = tn_webgpu_result,
    .profile = tn_webgpu_profile,
    .peak = tn_webgpu_peak,
};
