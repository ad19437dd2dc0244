/* The CPU's matmul kernels beside what the machine can do, all in one run: how much of the memory's read rate one token
 * reaches (weights far larger than the caches), and how much of the dot products' peak a batch of tokens (weights in the cache).
 *   cpu_kernels [threads] [instruction set] */
#include "backend/cpu/cpu.h"
#include "backend/cpu/kernels/layout.h"
#include "backend/cpu/kernels/matmul.h"
#include "backend/cpu/kernels/peak.h"
#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_IN = 2048, ROUNDS = 30, BATCH = 512, UNIT = 64 };
#define STREAM ((size_t)192 << 20) /* bytes of weights that one token reads */
#define CACHED ((size_t)1 << 20)   /* bytes of weights for a batch */

typedef struct job {
    tn_pool *pool;
    const tn_matmul_kernel *kernel;
    tn_cpu_weight w;
    char *x;
    float *out; /* UNIT x BATCH for each thread */
    int n_tokens;
    tn_peak_dots_fn *dots;
    double done, best; /* what a round does, seconds of the quickest */
} job;

static void multiply(const job *j, int i, int n) {
    int32_t units = j->w.n_out / UNIT, begin = units * i / n, end = units * (i + 1) / n;
    size_t stride = tn_q8_row_bytes(N_IN);
    float *out = j->out + (size_t)i * UNIT * BATCH;
    for (int32_t u = begin; u < end; u++)
        for (int t = 0; t < j->n_tokens; t += TN_CPU_TOKEN_CHUNK)
            j->kernel->run(&j->w, u * UNIT, UNIT, j->x + stride * (size_t)t, stride,
                           j->n_tokens < TN_CPU_TOKEN_CHUNK ? j->n_tokens : TN_CPU_TOKEN_CHUNK, out, UNIT);
}

static void work(void *arg, int i, int n) {
    job *j = arg;
    for (int k = 0; k <= ROUNDS; k++) {
        tn_pool_barrier(j->pool, i);
        double start = tn_seconds(), done = 0;
        if (j->dots)
            done = j->dots(1 << 21) * n;
        else
            multiply(j, i, n);
        tn_pool_barrier(j->pool, i);
        double took = tn_seconds() - start;
        if (i || k == 0) continue;
        if (k == 1 || took < j->best) j->best = took;
        if (j->dots) j->done = done;
    }
}

static double rate(job *j) {
    tn_pool_run(j->pool, work, j);
    return j->done / j->best;
}

/* Weights of `bytes` bytes: one tile of encoded numbers, again and again. */
static tn_cpu_weight make_weight(tn_type type, size_t bytes) {
    size_t tile = tn_tile_bytes(type, N_IN), row = tn_type_row_bytes(type, N_IN);
    size_t tiles = tn_align_up(bytes / tile, 8 * UNIT / TN_TILE_ROWS);
    float *x = malloc(sizeof *x * N_IN);
    char *rows = malloc(row * TN_TILE_ROWS), *to = tn_alloc_pages(tile * tiles);
    if (!x || !rows || !to) exit(71);
    for (int r = 0; r < TN_TILE_ROWS; r++) {
        for (int i = 0; i < N_IN; i++) x[i] = (float)((r * 7 + i * 13) % 101 - 50) / 50;
        tn_type_get(type)->encode(x, rows + row * (size_t)r, N_IN);
    }
    tn_tile_pack(&(tn_cpu_weight){rows, row, type, TN_TILE_ROWS, N_IN}, 0, 1, to);
    for (size_t t = 1; t < tiles; t++) memcpy(to + t * tile, to, tile);
    free(rows);
    free(x);
    return (tn_cpu_weight){to, tile, type, (int32_t)tiles * TN_TILE_ROWS, N_IN};
}

static void show_type(job *j, tn_type type, tn_isa isa, double read, double dots) {
    double share[2], got[2];
    j->kernel = tn_matmul_find(type, TN_ACT_INT8, isa);
    for (int batch = 0; batch < 2; batch++) {
        j->w = make_weight(type, batch ? CACHED : STREAM);
        j->n_tokens = batch ? BATCH : 1;
        size_t bytes = j->w.stride * (size_t)j->w.n_out / TN_TILE_ROWS;
        j->done = batch ? (double)j->w.n_out * N_IN * BATCH : (double)bytes;
        got[batch] = rate(j) / 1e9;
        share[batch] = 1e9 * got[batch] / (batch ? dots : read);
        tn_free_pages((void *)(uintptr_t)j->w.data, bytes);
    }
    printf("| %-6s | %6.1f | %5.0f %% | %6.0f | %5.0f %% |\n", tn_type_get(type)->name, got[0], 100 * share[0],
           got[1], 100 * share[1]);
    fflush(stdout);
}

int main(int argc, char **argv) {
    static const tn_type types[] = {TN_TYPE_Q4_0, TN_TYPE_Q4_1, TN_TYPE_Q5_0, TN_TYPE_Q8_0,
                                    TN_TYPE_Q4_K, TN_TYPE_Q5_K, TN_TYPE_Q6_K};
    tn_device device = {.isa = tn_isa_best()};
    tn_error err = {0};
    for (tn_isa isa = TN_ISA_REF; isa < TN_ISA_COUNT; isa++)
        if (argc > 2 && !strcmp(argv[2], tn_isa_name(isa)) && tn_isa_has(isa)) device.isa = isa;
    double read;
    job j = {.dots = tn_peak_dots_find(device.isa)};
    if (tn_pool_open(&device.pool, argc > 1 ? atoi(argv[1]) : 0, &err) || tn_cpu_read_rate(&device, &read, &err)) {
        fprintf(stderr, "cpu_kernels: %s\n", err.text);
        return 71;
    }
    j.pool = device.pool;
    double dots = rate(&j);
    int n = tn_pool_size(device.pool);
    j = (job){.pool = device.pool, .x = tn_alloc_pages(tn_q8_row_bytes(N_IN) * BATCH)};
    j.out = tn_alloc_pages(sizeof *j.out * UNIT * BATCH * (size_t)n);
    if (!j.x || !j.out || device.isa == TN_ISA_REF) return 71;
    float x[N_IN];
    for (int t = 0; t < BATCH; t++) {
        for (int i = 0; i < N_IN; i++) x[i] = (float)((t * 3 + i * 11) % 61 - 30) / 30;
        tn_q8_encode(x, j.x + tn_q8_row_bytes(N_IN) * (size_t)t, N_IN, 0, N_IN);
    }
    printf("%d threads, %s: reads %.1f GB/s; %.0f G products of 8 bits a second\n\n", n, tn_isa_name(device.isa),
           read / 1e9, dots / 1e9);
    printf("| type   | 1 token: GB/s | share | %d tokens: G/s | share |\n| --- | ---: | ---: | ---: | ---: |\n",
           BATCH);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) show_type(&j, types[i], device.isa, read, dots);
    return 0;
}
