/* How fast this machine reads memory with the device's threads: what decoding is measured against. The middle of several rounds: others
 * may use the memory too, and what is measured beside it had no luckiest moment either. */
#include "backend/cpu/kernels/peak.h"
#include "backend/cpu/cpu.h"
#include "base/clock.h"
#include "base/mem.h"

#include <stdlib.h>

enum { ROUNDS = 13 };
#define BYTES ((size_t)512 << 20) /* far more than caches hold */

typedef struct reading {
    const char *from;
    tn_peak_read_fn *read;
    tn_pool *pool;
    double seconds[ROUNDS];
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
        if (i == 0) r->seconds[k] = took;
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

tn_status tn_cpu_read_rate(tn_device *device, double *bytes_per_second, tn_error *err) {
    char *p = tn_alloc_pages(BYTES);
    if (!p) return tn_fail_memory(err);
    for (size_t i = 0; i < BYTES; i += 4096) p[i] = 1; /* pages that were never written are all the same one */
    reading r = {.from = p, .read = tn_peak_read_find(device->isa), .pool = device->pool};
    tn_pool_run(device->pool, read_share, &r);
    tn_free_pages(p, BYTES);
    qsort(r.seconds, ROUNDS, sizeof *r.seconds, by_value);
    *bytes_per_second = (double)BYTES / r.seconds[ROUNDS / 2];
    return TN_OK;
}
