/* What comes back to the host. An implementation may tell that a buffer is mapped at any later time, even when nobody waits any
 * more (the device was lost, the program is gone): what its callback writes to belongs to both sides, and the one that is done
 * last frees it. */
#include "backend/webgpu/webgpu.h"
#include "base/mem.h"

#include <stdatomic.h>

struct tn_webgpu_mapping {
    atomic_int owners; /* who reads it, and the callback that is still to come */
    atomic_int state;
};
enum { PENDING, MAPPED, REFUSED };

static void release(tn_webgpu_mapping *m) {
    if (m && atomic_fetch_sub(&m->owners, 1) == 1) tn_free(m);
}

static void on_map(WGPUEnum status, WGPUStringView message, void *data, void *unused) {
    (void)message, (void)unused;
    tn_webgpu_mapping *m = data;
    atomic_store(&m->state, status == WGPUStatus_Success ? MAPPED : REFUSED);
    release(m);
}

static tn_webgpu_mapping *new_mapping(void) {
    tn_webgpu_mapping *m = tn_alloc_zero(1, sizeof *m);
    if (!m) return NULL;
    atomic_init(&m->owners, 1);
    atomic_init(&m->state, REFUSED);
    return m;
}

tn_status tn_webgpu_readback_make(tn_device *d, tn_webgpu_readback *r, uint64_t bytes, const char *what,
                                  tn_error *err) {
    *r = (tn_webgpu_readback){.mapping = new_mapping()};
    if (!r->mapping) return tn_fail_memory(err);
    return tn_webgpu_buffer(d, &r->buffer, bytes, WGPUBufferUsage_MapRead | WGPUBufferUsage_CopyDst, what, err);
}

void tn_webgpu_readback_ask(tn_device *d, tn_webgpu_readback *r, uint64_t bytes) {
    atomic_fetch_add(&r->mapping->owners, 1);
    atomic_store(&r->mapping->state, PENDING);
    r->bytes = bytes;
    d->lib.BufferMapAsync(r->buffer, WGPUMapMode_Read, 0, bytes,
                          (WGPUBufferMapCallbackInfo){.mode = WGPUCallbackMode_AllowProcessEvents,
                                                      .callback = on_map,
                                                      .userdata1 = r->mapping});
}

tn_status tn_webgpu_readback_wait(tn_device *d, tn_webgpu_readback *r, uint64_t submission, const void **p,
                                  tn_error *err) {
    *p = NULL;
    while (atomic_load(&r->mapping->state) == PENDING && !tn_webgpu_lost(d))
        tn_webgpu_poll(&d->lib, d->instance, d->device, &submission);
    tn_status status = tn_webgpu_check(d, "reading results", err);
    if (status == TN_OK && atomic_load(&r->mapping->state) == MAPPED)
        *p = d->lib.BufferGetConstMappedRange(r->buffer, 0, r->bytes);
    if (status == TN_OK && !*p) status = tn_fail(err, TN_ERR_RESOURCES, "webgpu: the results cannot be read");
    if (status != TN_OK) tn_webgpu_readback_done(d, r);
    return status;
}

void tn_webgpu_readback_done(tn_device *d, tn_webgpu_readback *r) {
    /* what is not mapped may not be unmapped; on a lost device nothing may, and what is destroyed is not mapped either */
    bool pending = r->bytes && atomic_load(&r->mapping->state) == PENDING;
    if (r->bytes && atomic_load(&r->mapping->state) != REFUSED && !tn_webgpu_lost(d)) d->lib.BufferUnmap(r->buffer);
    r->bytes = 0;
    if (!pending) return;
    tn_webgpu_mapping *fresh =
        new_mapping(); /* what is still to be told of this one must not be taken for the next */
    if (!fresh) return;
    release(r->mapping);
    r->mapping = fresh;
}

void tn_webgpu_readback_free(tn_device *d, tn_webgpu_readback *r) {
    tn_webgpu_buffer_free(d, &r->buffer);
    release(r->mapping);
    *r = (tn_webgpu_readback){0};
}
