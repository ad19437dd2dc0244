/* How fast the device's memory can be read: a kernel that does nothing else, timed by the device's own clock. */
#include "backend/cuda/cuda.h"
#include "base/mem.h"

enum { ROUNDS = 8 };
#define BYTES ((size_t)1 << 30) /* far more than caches hold */

extern const char tn_cuda_source_peak[];

/* Seconds of the fastest round. */
static int time_rounds(tn_device *d, void *function, uint64_t from, void *const events[2], double *best) {
    const tn_cu *cu = &d->cu;
    uint64_t n = BYTES / 16, sink = from;
    void *arguments[] = {&from, &n, &sink};
    tn_cu_launch config = {.grid = {(unsigned)d->n_sm * 4, 1, 1}, .block = {256, 1, 1}, .stream = d->stream};
    int result = 0;
    for (int i = 0; i < ROUNDS && result == 0; i++) {
        float ms = 0;
        result = cu->event_record(events[0], d->stream);
        if (result == 0) result = cu->launch(&config, function, arguments, NULL);
        if (result == 0) result = cu->event_record(events[1], d->stream);
        if (result == 0) result = cu->event_wait(events[1]);
        if (result == 0) result = cu->event_elapsed(&ms, events[0], events[1]);
        if (i == 0 || (double)ms * 1e-3 < *best) *best = (double)ms * 1e-3;
    }
    return result;
}

static tn_status read_rate(tn_device *d, const tn_cuda_code *code, double *bytes_per_second, tn_error *err) {
    const tn_cu *cu = &d->cu;
    void *module = NULL, *function = NULL, *events[2] = {NULL, NULL};
    uint64_t from = 0;
    double best = 1;
    tn_status status = tn_cuda_alloc(d, BYTES, "reading memory", &from, err);
    if (status != TN_OK) return status;
    int result = cu->set_bytes_async(from, 0, BYTES, d->stream);
    if (result == 0) result = cu->module_load(&module, code->cubin);
    if (result == 0) result = cu->module_function(&function, module, "peak");
    for (int i = 0; i < 2 && result == 0; i++) result = cu->event_create(&events[i], TN_CU_EVENT_TIMED);
    if (result == 0) result = time_rounds(d, function, from, events, &best);
    if (result == 0) *bytes_per_second = (double)BYTES / best;
    for (int i = 0; i < 2; i++)
        if (events[i]) cu->event_destroy(events[i]);
    if (module) cu->module_unload(module);
    cu->mem_free(from);
    return tn_cu_check(cu, result, "timing memory", err);
}

tn_status tn_cuda_peak(tn_device *d, double *bytes_per_second, tn_error *err) {
    tn_cuda_code code = {.source = tn_cuda_source_peak, .name = "peak"};
    if (!tn_cuda_is_real(d)) return tn_fail(err, TN_ERR_UNAVAILABLE, "cuda:plan runs nothing");
    tn_status status = tn_cu_check(&d->cu, d->cu.context_set(d->context), "using the device", err);
    if (status == TN_OK) status = tn_cuda_compile_all(d, &code, 1, err);
    if (status == TN_OK) status = read_rate(d, &code, bytes_per_second, err);
    tn_free(code.cubin);
    return status;
}
