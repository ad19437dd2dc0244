/* The CPU's matmul kernels beside what the machine can do, all in one run: how much of the memory's read rate, measured right before
 * and after, one token reaches (weights far larger than the caches; the middle of the rounds), and how much of the dot products' peak
 * a batch of tokens (weights in the cache; the best round). Then attention of one token over a long context, likewise.
 *   cpu_kernels [threads] [instruction set] */
#include "backend/cpu/cpu.h"
#include "backend/cpu/kernels/layout.h"
#include "backend/cpu/kernels/matmul.h"
#include "backend/cpu/kernels/peak.h"
#include "backend/cpu/kernels/pieces.h"
#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_IN = 2048, ROUNDS = 30, BATCH = 512, UNIT = 64, DEPTH = 4096, ATTEND_LAYERS = 64 };
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
    tn_attention_fn *attend;
    tn_cpu_attention a; /* of one layer .. */
    size_t layer_bytes; /* .. of ATTEND_LAYERS */
    char *scratch;
    double done, seconds[ROUNDS]; /* what a round does, and takes */
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

/* A thread's share of the layers, a kv head's pages one after the other, as in a decode step. */
static void attend(const job *j, int i, int n) {
    size_t room = tn_attention_scratch(j->a.n_head, j->a.kv.n_kv, j->a.kv.k_dim, j->a.kv.v_dim);
    char *scratch = j->scratch + room * (size_t)i;
    for (int layer = ATTEND_LAYERS * i / n; layer < ATTEND_LAYERS * (i + 1) / n; layer++) {
        tn_cpu_attention a = j->a;
        a.kv.base += j->layer_bytes * (size_t)layer;
        for (int32_t head = 0; head < a.kv.n_kv; head++)
            j->attend(&a, head, DEPTH - 1, 1, (const float *)j->x, 0, j->out + (size_t)i * UNIT * BATCH, 0, scratch);
    }
}

static void work(void *arg, int i, int n) {
    job *j = arg;
    for (int k = 0; k <= ROUNDS; k++) {
        tn_pool_barrier(j->pool, i);
        double start = tn_seconds(), done = 0;
        if (j->dots)
            done = j->dots(1 << 21) * n;
        else if (j->attend)
            attend(j, i, n);
        else
            multiply(j, i, n);
        tn_pool_barrier(j->pool, i);
        double took = tn_seconds() - start;
        if (i || k == 0) continue;
        j->seconds[k - 1] = took;
        if (j->dots) j->done = done;
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the i-th quickest round. */
static double rate(job *j, int i) {
    tn_pool_run(j->pool, work, j);
    qsort(j->seconds, ROUNDS, sizeof *j->seconds, by_value);
    return j->done / j->seconds[i];
}

static double read_rate(tn_device *device) {
    double rate = 0;
    tn_error err;
    if (tn_cpu_read_rate(device, &rate, &err)) exit(71);
    return rate;
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

static void show_type(job *j, tn_type type, tn_device *device, double dots) {
    double share[2], got[2];
    j->kernel = tn_matmul_find(type, TN_ACT_INT8, device->isa);
    for (int batch = 0; batch < 2; batch++) {
        j->w = make_weight(type, batch ? CACHED : STREAM);
        j->n_tokens = batch ? BATCH : 1;
        size_t bytes = j->w.stride * (size_t)j->w.n_out / TN_TILE_ROWS;
        j->done = batch ? (double)j->w.n_out * N_IN * BATCH : (double)bytes;
        double before = batch ? dots : read_rate(device), all = rate(j, batch ? 0 : ROUNDS / 2);
        double after = batch ? dots : read_rate(device);
        got[batch] = all / 1e9;
        share[batch] = all / ((before + after) / 2);
        tn_free_pages((void *)(uintptr_t)j->w.data, bytes);
    }
    printf("| %-6s | %6.1f | %5.0f %% | %6.0f | %5.0f %% |\n", tn_type_get(type)->name, got[0], 100 * share[0],
           got[1], 100 * share[1]);
    fflush(stdout);
}

/* Half floats, all the same number. */
static void show_attention(job *j, const char *what, int32_t n_head, int32_t n_kv, int32_t dim, tn_device *device) {
    size_t page = tn_kv_page_bytes(TN_KV_F16, n_kv, dim, dim), layer = page * (DEPTH / TN_PAGE);
    int32_t pages[DEPTH / TN_PAGE];
    float q[N_IN]; /* of all heads */
    for (int32_t i = 0; i < N_IN; i++) q[i] = 0.25f;
    for (int32_t i = 0; i < DEPTH / TN_PAGE; i++) pages[i] = i;
    uint16_t *cache = tn_alloc_pages(layer * ATTEND_LAYERS);
    size_t room = tn_attention_scratch(n_head, n_kv, dim, dim) * (size_t)tn_pool_size(j->pool);
    char *scratch = tn_alloc_pages(room);
    if (!cache || !scratch) exit(71);
    for (size_t i = 0; i < layer * ATTEND_LAYERS / sizeof *cache; i++) cache[i] = 0x2c00; /* 1/16 */
    job own = *j;
    own.x = (char *)q;
    own.attend = tn_attention_find(TN_KV_F16, device->isa);
    own.a = (tn_cpu_attention){
        .kv = {(uint8_t *)cache, page, TN_KV_F16, n_kv, dim, dim}, .n_head = n_head, .scale = 0.125f, .pages = pages};
    own.layer_bytes = layer;
    own.scratch = scratch;
    own.done = (double)(layer * ATTEND_LAYERS);
    double before = read_rate(device), all = rate(&own, ROUNDS / 2), after = read_rate(device);
    printf("| %s: %d heads, %d kv heads of %d | %6.1f | %5.0f %% |\n", what, n_head, n_kv, dim, all / 1e9,
           200 * all / (before + after));
    tn_free_pages(cache, layer * ATTEND_LAYERS);
    tn_free_pages(scratch, room);
}

int main(int argc, char **argv) {
    static const tn_type types[] = {TN_TYPE_Q4_0, TN_TYPE_Q4_1, TN_TYPE_Q5_0, TN_TYPE_Q8_0,
                                    TN_TYPE_Q4_K, TN_TYPE_Q5_K, TN_TYPE_Q6_K};
    tn_device device = {.isa = tn_isa_best()};
    tn_error err = {0};
    for (tn_isa isa = TN_ISA_REF; isa < TN_ISA_COUNT; isa++)
        if (argc > 2 && !strcmp(argv[2], tn_isa_name(isa)) && tn_isa_has(isa)) device.isa = isa;
    job j = {.dots = tn_peak_dots_find(device.isa)};
    if (tn_pool_open(&device.pool, argc > 1 ? atoi(argv[1]) : 0, &err)) {
        fprintf(stderr, "cpu_kernels: %s\n", err.text);
        return 71;
    }
    j.pool = device.pool;
    double dots = rate(&j, 0);
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
           read_rate(&device) / 1e9, dots / 1e9);
    printf("| type   | 1 token: GB/s | share | %d tokens: G/s | share |\n| --- | ---: | ---: | ---: | ---: |\n",
           BATCH);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) show_type(&j, types[i], &device, dots);
    printf("\n| attention of a token over %d | GB/s | share |\n| --- | ---: | ---: |\n", DEPTH);
    show_attention(&j, "SmolLM2-135M", 9, 3, 64, &device);
    show_attention(&j, "Llama 3.2 1B", 32, 8, 64, &device);
    show_attention(&j, "Gemma 3 270M", 4, 1, 256, &device);
    return 0;
}
