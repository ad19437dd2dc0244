/* A GPU as a device: opening, its weights, a session's memory. */
#include "backend/cuda/cuda.h"
#include "backend/cuda/pack.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- open ---- */

static int count_devices(void) {
    int n = 0;
    tn_cu cu;
    if (tn_cu_load(&cu, NULL) != TN_OK) return 0;
    if (cu.init(0) || cu.device_count(&n)) n = 0;
    tn_cu_unload(&cu);
    return n;
}

static tn_status choose_ordinal(tn_device *d, const char *variant, tn_error *err) {
    int n = 0, device = 0;
    tn_status status = tn_cu_check(&d->cu, d->cu.init(0), "starting the driver", err);
    if (status == TN_OK) status = tn_cu_check(&d->cu, d->cu.device_count(&n), "counting devices", err);
    if (status != TN_OK && err) err->code = TN_ERR_UNAVAILABLE; /* in the driver's words */
    if (status != TN_OK) return TN_ERR_UNAVAILABLE;
    if (n == 0) return tn_fail(err, TN_ERR_UNAVAILABLE, "cuda: no device found");
    char *end = NULL;
    long ordinal = variant ? strtol(variant, &end, 10) : 0;
    if (variant && (!*variant || *end || ordinal < 0))
        return tn_fail(err, TN_ERR_USAGE, "cuda: '%s' is no device number", variant);
    if (ordinal >= n) return tn_fail(err, TN_ERR_UNAVAILABLE, "cuda: there is no device %ld: %d found", ordinal, n);
    status = tn_cu_check(&d->cu, d->cu.device_get(&device, (int)ordinal), "finding the device", err);
    d->ordinal = device;
    return status;
}

/* Whether NVRTC makes code for the device. */
static tn_status check_arch(tn_device *d, tn_error *err) {
    int n = 0, archs[64], newest = 0;
    if (d->arch < 80) return tn_fail(err, TN_ERR_UNAVAILABLE, "cuda: sm_%d is too old: sm_80 is the oldest", d->arch);
    if (d->rtc.n_archs(&n) || n > 64 || d->rtc.archs(archs))
        return tn_fail(err, TN_ERR_UNAVAILABLE, "cuda: NVRTC does not tell its architectures");
    for (int i = 0; i < n; i++) {
        if (archs[i] == d->arch) return TN_OK;
        if (archs[i] > newest) newest = archs[i];
    }
    return tn_fail(err, TN_ERR_UNAVAILABLE, "cuda: this NVRTC has no sm_%d; its newest is sm_%d", d->arch, newest);
}

static tn_status read_device(tn_device *d, tn_error *err) {
    int major = 0, minor = 0, shared = 0;
    char name[100] = "";
    const tn_cu *cu = &d->cu;
    int failed = cu->device_attribute(&major, TN_CU_MAJOR, d->ordinal);
    if (!failed) failed = cu->device_attribute(&minor, TN_CU_MINOR, d->ordinal);
    if (!failed) failed = cu->device_attribute(&d->n_sm, TN_CU_SM_COUNT, d->ordinal);
    if (!failed) failed = cu->device_attribute(&d->sm_threads, TN_CU_SM_THREADS, d->ordinal);
    if (!failed) failed = cu->device_attribute(&shared, TN_CU_SHARED_OPTIN, d->ordinal);
    if (!failed) failed = cu->device_name(name, sizeof name, d->ordinal);
    d->arch = major * 10 + minor;
    d->shared_limit = (size_t)shared - 1024;
    snprintf(d->caps.description, sizeof d->caps.description, "cuda (%s, sm_%d, %d multiprocessors)", name, d->arch,
             d->n_sm);
    return tn_cu_check(cu, failed, "asking the device", err);
}

static bool holds(tn_type type) {
    return tn_cuda_traits(type) >= 0;
}

static void fill_caps(tn_device *d) {
    tn_caps_add_types(&d->caps, holds);
    d->caps.align = 256;
    d->caps.few = TN_CUDA_FEW;
    d->caps.ahead = TN_CUDA_AHEAD;
}

static void device_close(tn_device **device) {
    tn_device *d = *device;
    if (!d) return;
    if (tn_cuda_is_real(d)) {
        d->cu.context_set(d->context);
        if (d->packed) d->cu.mem_free(d->packed);
        if (d->stream) d->cu.stream_destroy(d->stream);
        d->cu.context_release(d->ordinal);
    }
    tn_pool_close(&d->pool);
    tn_rtc_unload(&d->rtc);
    tn_cu_unload(&d->cu);
    tn_free(d->weights);
    tn_free(d->cache_dir);
    tn_free(d);
    *device = NULL;
}

/* A device that plans for an architecture, as large as an H200. */
static tn_status open_plan(tn_device **device, int arch, tn_error *err) {
    *device = tn_alloc_zero(1, sizeof **device);
    if (!*device) return tn_fail_memory(err);
    tn_device *d = *device;
    d->arch = arch;
    d->n_sm = 132;
    d->shared_limit = 226 << 10;
    snprintf(d->caps.description, sizeof d->caps.description, "cuda (plans for sm_%d, runs nothing)", arch);
    fill_caps(d);
    return TN_OK;
}

tn_status tn_cuda_open_offline(tn_device **device, int arch, tn_error *err) {
    tn_status status = open_plan(device, arch, err);
    if (status != TN_OK) return status;
    tn_device *d = *device;
    d->shared_limit = 98 << 10; /* the least of sm_80 and later */
    status = tn_rtc_load(&d->rtc, err);
    if (status == TN_OK) status = check_arch(d, err);
    if (status == TN_OK) status = tn_pool_open(&d->pool, 0, err);
    if (status != TN_OK) device_close(device);
    return status;
}

static tn_status open_real(tn_device *d, const tn_device_options *options, tn_error *err) {
    tn_status status = tn_cu_load(&d->cu, err);
    if (status == TN_OK) status = choose_ordinal(d, options->variant, err);
    if (status == TN_OK) status = tn_rtc_load(&d->rtc, err);
    if (status == TN_OK) status = read_device(d, err);
    if (status == TN_OK) status = check_arch(d, err);
    if (status == TN_OK) status = tn_pool_open(&d->pool, options->threads, err);
    if (status == TN_OK)
        status = tn_cu_check(&d->cu, d->cu.context_retain(&d->context, d->ordinal), "opening the device", err);
    if (status == TN_OK) status = tn_cu_check(&d->cu, d->cu.context_set(d->context), "using the device", err);
    if (status == TN_OK) status = tn_cu_check(&d->cu, d->cu.stream_create(&d->stream, 1), "making a stream", err);
    return status;
}

static tn_status device_open(tn_device **device, const tn_device_options *options, tn_error *err) {
    tn_error own;
    if (!err) err = &own;
    *device = NULL;
    if (options->variant && !strcmp(options->variant, "plan")) return open_plan(device, 90, err);
    tn_device *d = tn_alloc_zero(1, sizeof *d);
    if (!d) return tn_fail_memory(err);
    tn_status status = open_real(d, options, err);
    if (status != TN_OK) {
        device_close(&d);
        return status;
    }
    fill_caps(d);
    d->cache_dir =
        options->cache_dir ? tn_strndup(options->cache_dir, strlen(options->cache_dir)) : tn_cuda_cache_dir();
    *device = d;
    return TN_OK;
}

static const tn_caps *device_caps(const tn_device *d) {
    return &d->caps;
}

/* ---- weights ---- */

tn_status tn_cuda_alloc(tn_device *d, size_t bytes, const char *what, uint64_t *p, tn_error *err) {
    size_t available = 0, total = 0;
    *p = 0;
    int result = d->cu.mem_alloc(p, bytes ? bytes : 1);
    if (result != TN_CU_OUT_OF_MEMORY) return tn_cu_check(&d->cu, result, "allocating memory", err);
    d->cu.mem_info(&available, &total);
    return tn_fail(err, TN_ERR_RESOURCES, "cuda: out of memory: %s: %.1f MiB needed, %.1f MiB of %.1f MiB free", what,
                   (double)bytes / (1 << 20), (double)available / (1 << 20), (double)total / (1 << 20));
}

tn_status tn_cuda_alloc_zero(tn_device *d, size_t bytes, const char *what, uint64_t *p, tn_error *err) {
    tn_status status = tn_cuda_alloc(d, bytes, what, p, err);
    if (status != TN_OK) return status;
    return tn_cu_check(&d->cu, d->cu.set_bytes_async(*p, 0, bytes, d->stream), "clearing memory", err);
}

static uint64_t weight_bytes(const tn_device *d) {
    return d->packed_bytes;
}

/* ---- a session's memory ---- */

static size_t block_bytes(tn_kv_type type, int32_t dim) {
    size_t element = type == TN_KV_F32 ? 4 : type == TN_KV_F16 ? 2 : 1;
    return TN_K_PAGE * ((size_t)dim * element + (type == TN_KV_Q8_0 ? (size_t)dim / 32 * 2 : 0));
}

static size_t state_bytes(const tn_device *d, const tn_state_desc *s, const tn_memory_desc *desc) {
    (void)d;
    if (s->size) return (size_t)s->size * 4 * (size_t)desc->n_seq;
    size_t head = block_bytes(desc->kv_type, s->k_dim) + block_bytes(desc->kv_type, s->v_dim);
    return head * (size_t)s->n_kv * (size_t)desc->n_pages;
}

static void free_memory(tn_device *d, tn_memory **memory) {
    tn_memory *m = *memory;
    if (!m) return;
    if (tn_cuda_is_real(d)) d->cu.context_set(d->context);
    for (int32_t i = 0; m->states && i < m->n_states; i++)
        if (m->states[i]) d->cu.mem_free(m->states[i]);
    if (m->arena) d->cu.mem_free(m->arena);
    if (m->chosen) d->cu.mem_free(m->chosen);
    tn_free(m->states);
    tn_free(m);
    *memory = NULL;
}

static tn_status make_memory(tn_device *d, const tn_memory_desc *desc, tn_memory **memory, tn_error *err) {
    *memory = NULL;
    for (int32_t i = 0; i < desc->n_states; i++)
        if (desc->kv_type == TN_KV_Q8_0 && (desc->states[i].k_dim % 32 || desc->states[i].v_dim % 32))
            return tn_fail(err, TN_ERR_USAGE, "cuda: a q8_0 cache needs heads of whole blocks of 32, not %d and %d",
                           desc->states[i].k_dim, desc->states[i].v_dim);
    tn_memory *m = tn_alloc_zero(1, sizeof *m);
    if (!m) return tn_fail_memory(err);
    *m = (tn_memory){.n_states = desc->n_states,
                     .n_pages = desc->n_pages,
                     .n_seq = desc->n_seq,
                     .kv_type = desc->kv_type,
                     .arena_bytes = desc->arena_bytes};
    m->states = tn_alloc_zero((size_t)desc->n_states, sizeof *m->states);
    tn_status status = m->states ? TN_OK : tn_fail_memory(err);
    bool real = tn_cuda_is_real(d);
    if (status == TN_OK && real) status = tn_cu_check(&d->cu, d->cu.context_set(d->context), "using the device", err);
    if (status == TN_OK && real) status = tn_cuda_alloc(d, desc->arena_bytes, "activations", &m->arena, err);
    /* choices of a step: none has more tokens than the caches have positions */
    size_t positions = (size_t)desc->n_pages * TN_PAGE_TOKENS;
    if (status == TN_OK && real) status = tn_cuda_alloc_zero(d, positions * 4, "choices", &m->chosen, err);
    for (int32_t i = 0; i < desc->n_states && status == TN_OK && real; i++)
        status = tn_cuda_alloc_zero(d, state_bytes(d, &desc->states[i], desc), "a cache", &m->states[i], err);
    if (status != TN_OK) {
        free_memory(d, &m);
        return status;
    }
    *memory = m;
    return TN_OK;
}

const tn_backend tn_backend_cuda = {
    .name = "cuda",
    .open = device_open,
    .close = device_close,
    .caps = device_caps,
    .facts = tn_cuda_facts,
    .count = count_devices,
    .find_kernel = tn_cuda_find_kernel,
    .put_weights = tn_cuda_put_weights,
    .weight_bytes = weight_bytes,
    .state_bytes = state_bytes,
    .make_memory = make_memory,
    .free_memory = free_memory,
    .compile = tn_cuda_compile,
    .free_program = tn_cuda_free_program,
    .submit = tn_cuda_submit,
    .wait = tn_cuda_wait,
    .profile = tn_cuda_profile,
    .peak = tn_cuda_peak,
};
