/* The device: library, adapter, features, limits; buffers; the fate of errors. WebGPU tells of errors through callbacks: they
 * are kept in the device and asked for after every call that can fail. */
#include "backend/webgpu/webgpu.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* ---- callbacks ---- */

static void copy_text(char *to, size_t size, WGPUStringView s) {
    size_t n = !s.data ? 0 : s.length == WGPU_STRLEN ? strlen(s.data) : s.length;
    if (n >= size) n = size - 1;
    for (size_t i = 0; i < n; i++) to[i] = s.data[i] == '\n' || s.data[i] == '\r' ? ' ' : s.data[i];
    to[n] = 0;
}

/* What became of a device. Its callbacks may come from any thread, and the one that tells of its loss after everything else: so
 * it belongs to the device and to that callback, and the last of them frees it. */
struct tn_webgpu_fate {
    atomic_int owners;
    atomic_bool lost;
    pthread_mutex_t lock; /* of what follows */
    tn_error error;       /* the first one since it was last asked for */
    char loss[200];       /* why the device was lost */
};

static void release_fate(tn_webgpu_fate *f) {
    if (!f || atomic_fetch_sub(&f->owners, 1) != 1) return;
    pthread_mutex_destroy(&f->lock);
    tn_free(f);
}

static void on_error(const WGPUDevice *device, WGPUEnum type, WGPUStringView message, void *data, void *unused) {
    (void)device, (void)unused;
    tn_webgpu_fate *f = data;
    pthread_mutex_lock(&f->lock);
    if (f->error.code == TN_OK) {
        copy_text(f->error.text, sizeof f->error.text, message);
        f->error.code = tn_webgpu_no_memory(type, f->error.text) ? TN_ERR_RESOURCES : TN_ERR_INTERNAL;
    }
    pthread_mutex_unlock(&f->lock);
}

/* Comes for every device, at the latest when it is closed; of wgpu-native again for every call that finds it lost. */
static void on_lost(const WGPUDevice *device, WGPUEnum reason, WGPUStringView message, void *data, void *unused) {
    (void)device, (void)reason, (void)unused;
    tn_webgpu_fate *f = data;
    pthread_mutex_lock(&f->lock);
    if (!f->loss[0]) copy_text(f->loss, sizeof f->loss, message);
    pthread_mutex_unlock(&f->lock);
    if (!atomic_exchange(&f->lost, true)) release_fate(f);
}

bool tn_webgpu_lost(const tn_device *d) {
    return atomic_load(&d->fate->lost);
}

/* The first error since it was last asked for. */
static tn_error take_error(tn_device *d) {
    pthread_mutex_lock(&d->fate->lock);
    tn_error e = d->fate->error;
    d->fate->error = (tn_error){0};
    pthread_mutex_unlock(&d->fate->lock);
    return e;
}

tn_status tn_webgpu_check(tn_device *d, const char *what, tn_error *err) {
    tn_error e = take_error(d);
    /* what a lost device is asked for is refused as invalid, at times before the loss itself is told */
    if (e.code != TN_OK && !tn_webgpu_lost(d)) tn_webgpu_tell_loss(&d->lib, d->instance, d->device);
    if (!tn_webgpu_lost(d)) return e.code == TN_OK ? TN_OK : tn_fail(err, e.code, "webgpu: %s: %.400s", what, e.text);
    pthread_mutex_lock(&d->fate->lock);
    tn_fail(err, TN_ERR_RESOURCES, "webgpu: the device was lost (%s): %s", what, d->fate->loss);
    pthread_mutex_unlock(&d->fate->lock);
    return TN_ERR_RESOURCES;
}

bool tn_webgpu_try(tn_device *d) {
    return !tn_webgpu_lost(d) && take_error(d).code == TN_OK;
}

/* A request is waited for where it is made: what its callback writes to may lie on the stack. */
typedef struct request {
    void *result;
    atomic_bool done;
    char text[200];
} request;

static void on_adapter(WGPUEnum status, WGPUAdapter adapter, WGPUStringView message, void *data, void *unused) {
    (void)unused;
    request *r = data;
    r->result = status == WGPUStatus_Success ? adapter : NULL;
    copy_text(r->text, sizeof r->text, message);
    atomic_store(&r->done, true);
}

static void on_device(WGPUEnum status, WGPUDevice device, WGPUStringView message, void *data, void *unused) {
    (void)unused;
    request *r = data;
    r->result = status == WGPUStatus_Success ? device : NULL;
    copy_text(r->text, sizeof r->text, message);
    atomic_store(&r->done, true);
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

/* ---- commands ---- */

tn_status tn_webgpu_encoder(tn_device *d, const char *what, WGPUCommandEncoder *encoder, tn_error *err) {
    *encoder = d->lib.DeviceCreateCommandEncoder(d->device, NULL);
    tn_status status = tn_webgpu_check(d, what, err); /* a device that was lost meanwhile is noticed here */
    if (status == TN_OK && !*encoder) status = tn_fail(err, TN_ERR_RESOURCES, "webgpu: %s cannot be encoded", what);
    if (status == TN_OK) return TN_OK;
    if (*encoder) d->lib.CommandEncoderRelease(*encoder);
    *encoder = NULL;
    return status;
}

tn_status tn_webgpu_pass(tn_device *d, const char *what, WGPUCommandEncoder *encoder, WGPUComputePassEncoder *pass,
                         tn_error *err) {
    *pass = NULL;
    tn_status status = tn_webgpu_encoder(d, what, encoder, err);
    if (status == TN_OK) *pass = d->lib.CommandEncoderBeginComputePass(*encoder, NULL);
    if (status != TN_OK || *pass) return status;
    d->lib.CommandEncoderRelease(*encoder);
    *encoder = NULL;
    return tn_fail(err, TN_ERR_RESOURCES, "webgpu: %s cannot be encoded", what);
}

tn_status tn_webgpu_finish(tn_device *d, WGPUCommandEncoder encoder, const char *what, uint64_t *submission,
                           tn_error *err) {
    WGPUCommandBuffer commands = d->lib.CommandEncoderFinish(encoder, NULL);
    d->lib.CommandEncoderRelease(encoder);
    tn_status status = tn_webgpu_check(d, what, err);
    if (status == TN_OK && !commands) status = tn_fail(err, TN_ERR_RESOURCES, "webgpu: %s cannot be encoded", what);
    if (status == TN_OK) {
        *submission = tn_webgpu_submit_commands(&d->lib, d->queue, commands);
        status = tn_webgpu_check(d, what, err);
    }
    if (commands) d->lib.CommandBufferRelease(commands);
    return status;
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
        tn_webgpu_tell_loss(&d->lib, d->instance, d->device);
        d->lib.DeviceRelease(d->device);
    }
    if (d->adapter) d->lib.AdapterRelease(d->adapter);
    release_fate(d->fate);
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
                                  (WGPURequestAdapterCallbackInfo){.mode = WGPUCallbackMode_AllowProcessEvents,
                                                                   .callback = on_adapter,
                                                                   .userdata1 = &r});
    while (!atomic_load(&r.done)) tn_webgpu_poll(&d->lib, d->instance, NULL, &(uint64_t){0});
    d->adapter = r.result;
    if (d->adapter) return TN_OK;
    return tn_fail(
        err, TN_ERR_UNAVAILABLE,
        "webgpu: no GPU was found (%.200s); a Vulkan driver is needed, mesa-vulkan-drivers has one in software",
        r.text);
}

/* What may be said after "webgpu:". Those that name features insist on them and use no others; NULL, and scalar, use what there
 * is. */
static const struct variant {
    const char *name;
    bool insists, f16, subgroups, scalar;
} variants[] = {{.name = "none", .insists = true},
                {.name = "f16", .insists = true, .f16 = true},
                {.name = "subgroups", .insists = true, .subgroups = true},
                {.name = "both", .insists = true, .f16 = true, .subgroups = true},
                {.name = "scalar", .scalar = true}};

static tn_status find_variant(const char *name, struct variant *v, tn_error *err) {
    *v = (struct variant){0};
    for (size_t i = 0; name && i < sizeof variants / sizeof *variants; i++)
        if (!strcmp(name, variants[i].name)) *v = variants[i];
    if (!name || v->name) return TN_OK;
    return tn_fail(err, TN_ERR_USAGE,
                   "the webgpu backend has no variant '%.40s'; there are: none, f16, subgroups, both, scalar", name);
}

/* Of a variant that insists: what the device was asked for must be there, and work. */
static tn_status check_variant(const struct variant *v, bool f16, bool subgroups, tn_error *err) {
    const char *missing = v->f16 && !f16 ? "f16" : v->subgroups && !subgroups ? "subgroups of one size" : NULL;
    return missing ? tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu:%s: this device has no %s", v->name, missing) : TN_OK;
}

/* The features that will be asked for: d->f16, d->timestamps, *subgroups. */
static tn_status choose_features(tn_device *d, const struct variant *v, bool *subgroups, tn_error *err) {
    d->f16 = d->lib.AdapterHasFeature(d->adapter, WGPUFeatureName_ShaderF16);
    d->timestamps = d->lib.AdapterHasFeature(d->adapter, WGPUFeatureName_TimestampQuery);
    d->scalar = v->scalar;
    *subgroups = tn_webgpu_subgroup_feature(&d->lib, d->adapter) != 0;
    WGPUAdapterInfo info = {0};
    if (d->lib.AdapterGetInfo(d->adapter, &info) == WGPUStatus_Success) {
        char name[100];
        copy_text(name, sizeof name, info.device);
        const char *software = info.adapterType == WGPUAdapterType_CPU ? ", in software" : "";
        snprintf(d->caps.description, sizeof d->caps.description, "webgpu (%s%s", name, software);
        if (info.subgroupMinSize != info.subgroupMaxSize) *subgroups = false;
        d->lib.AdapterInfoFreeMembers(info);
    }
    tn_status status = check_variant(v, d->f16, *subgroups, err);
    if (!v->insists) return status;
    d->f16 = v->f16;
    *subgroups = v->subgroups;
    if (!v->f16 && !v->subgroups) d->timestamps = false; /* "none" asks for no feature at all */
    return status;
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
    WGPULimits want = wanted_limits(&has);
    WGPUEnum features[3];
    size_t n = 0;
    if (d->f16) features[n++] = WGPUFeatureName_ShaderF16;
    if (subgroups) features[n++] = tn_webgpu_subgroup_feature(&d->lib, d->adapter);
    if (d->timestamps) features[n++] = WGPUFeatureName_TimestampQuery;
    d->fate = tn_alloc_zero(1, sizeof *d->fate);
    if (!d->fate) return tn_fail_memory(err);
    pthread_mutex_init(&d->fate->lock, NULL);
    atomic_init(&d->fate->lost, false);
    atomic_init(&d->fate->owners, 2);
    WGPUDeviceDescriptor desc = {.requiredFeatureCount = n,
                                 .requiredFeatures = features,
                                 .requiredLimits = &want,
                                 .deviceLostCallbackInfo = {.mode = WGPUCallbackMode_AllowProcessEvents,
                                                            .callback = on_lost,
                                                            .userdata1 = d->fate},
                                 .uncapturedErrorCallbackInfo = {.callback = on_error, .userdata1 = d->fate}};
    request r = {0};
    d->lib.AdapterRequestDevice(d->adapter, &desc,
                                (WGPURequestDeviceCallbackInfo){.mode = WGPUCallbackMode_AllowProcessEvents,
                                                                .callback = on_device,
                                                                .userdata1 = &r});
    while (!atomic_load(&r.done)) tn_webgpu_poll(&d->lib, d->instance, NULL, &(uint64_t){0});
    d->device = r.result;
    if (!d->device) return tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu: the GPU gives no device: %.300s", r.text);
    d->queue = d->lib.DeviceGetQueue(d->device);
    if (d->lib.DeviceGetLimits(d->device, &d->limits) != WGPUStatus_Success)
        return tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu: the device does not tell its limits");
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
                             .maxComputeWorkgroupStorageSize = 16384,
                             .maxComputeWorkgroupsPerDimension = 65535};
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
    struct variant v;
    bool subgroups = false;
    tn_status status = find_variant(options->variant, &v, err);
    if (status == TN_OK) status = tn_webgpu_library_open(&d->lib, options->webgpu_lib, err);
    if (status == TN_OK) status = open_adapter(d, err);
    if (status == TN_OK) status = choose_features(d, &v, &subgroups, err);
    if (status == TN_OK) status = open_device(d, subgroups, err);
    if (status == TN_OK) status = tn_webgpu_probe(d, subgroups, err);
    if (status == TN_OK) status = check_variant(&v, d->f16, d->subgroup > 0, err);
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
    .place_weights = tn_webgpu_place_weights,
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
