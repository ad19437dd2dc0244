/* What is to be known of the GPU and its libraries: for doctor. */
#include "backend/cuda/cuda.h"

void tn_cuda_facts(const tn_device *d, tn_buf *b) {
    int version = 0, major = 0, minor = 0;
    size_t available = 0, total = 0;
    tn_buf_printf(b, "architecture: sm_%d\nmultiprocessors: %d\n", d->arch, d->n_sm);
    if (!tn_cuda_is_real(d)) return;
    if (!d->cu.driver_version(&version))
        tn_buf_printf(b, "driver: CUDA %d.%d\n", version / 1000, version % 1000 / 10);
    if (!d->rtc.version(&major, &minor)) tn_buf_printf(b, "NVRTC: %d.%d\n", major, minor);
    if (!d->cu.context_set(d->context) && !d->cu.mem_info(&available, &total))
        tn_buf_printf(b, "memory: %.1f GiB, %.1f free\n", (double)total / (1 << 30), (double)available / (1 << 30));
    tn_buf_printf(b, "shared memory: %zu KiB a block\n", d->shared_limit >> 10);
    tn_buf_printf(b, "compiled code: %s\n", d->cache_dir ? d->cache_dir : "not kept");
}
