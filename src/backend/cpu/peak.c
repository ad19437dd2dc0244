/* How fast this machine reads memory with the device's threads: what decoding is measured against. */
#include "backend/cpu/kernels/peak.h"
#include "backend/cpu/cpu.h"
#include "base/clock.h"
#include "base/mem.h"

enum { ROUNDS = 12 };
#define BYTES ((size_t)512 << 20) /* far more than caches hold */

typedef struct reading {
    const char *from;
    tn_peak_read_fn *read;
    tn_pool *pool;
    double best; /* seconds */
} reading;

/* Each thread its stretch, as a matmul's rows are cut. */
static void read_share(void *arg, int i, int n) {
    reading *r = arg;
    size_t begin = BYTES / 4096 * (size_t)i / (size_t)n * 4096,
           end = BYTES / 4096 * ((size_t)i + 1) / (size_t)n * 4096;
    for (int k = 0; k < ROUNDS; k++) {
        tn_pool_barrier(r->pool, i);
        double start = tn_seconds();
        r->read(r->from + begin, end - begin);
        tn_pool_barrier(r->pool, i);
        double took = tn_seconds() - start;
        if (i == 0 && (k == 0 || took < r->best)) r->best = took;
    }
}

tn_status tn_cpu_read_rate(tn_device *device, double *bytes_per_second, tn_error *err) {
    char *p = tn_alloc_pages(BYTES);
    if (!p) return tn_fail_memory(err);
    for (size_t i = 0; i < BYTES; i += 4096) p[i] = 1; /* pages that were never written are all the same one */
    reading r = {.from = p, .read = tn_peak_read_find(device->isa), .pool = device->pool};
    tn_pool_run(device->pool, read_share, &r);
    tn_free_pages(p, BYTES);
    *bytes_per_second = (double)BYTES / r.best;
    return TN_OK;
}
