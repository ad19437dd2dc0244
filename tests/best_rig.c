#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "best_rig.h"
#include "verify.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- what it has to be ---- */

typedef struct pair {
    float x;
    int32_t id;
} pair;

static int by_rank(const void *a, const void *b) {
    const pair *p = a, *q = b;
    if (p->x != q->x) return p->x > q->x ? -1 : 1;
    return p->id < q->id ? -1 : 1;
}

void tn_sorted_best(const float *x, int32_t n, int32_t *ids, float *logits, int32_t k) {
    pair *all = malloc((size_t)n * sizeof *all);
    for (int32_t i = 0; i < n; i++) all[i] = (pair){isnan(x[i]) ? -INFINITY : x[i], i};
    qsort(all, (size_t)n, sizeof *all, by_rank);
    for (int32_t i = 0; i < k; i++) {
        ids[i] = all[i].id;
        logits[i] = all[i].x;
    }
    free(all);
}

/* ---- rows ---- */

enum { N_KINDS = 11, MAX_COLS = 262147 };

static uint32_t next(uint32_t *seed) { /* xorshift (Marsaglia 2003) */
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    return *seed ^= *seed << 5;
}

static float element(int kind, int32_t c, int32_t cols, uint32_t *seed) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-40f, -1e-40f, 3e38f, -3e38f, 1, -1};
    float x = (float)(next(seed) >> 8) / 1e6f - 8;
    switch (kind) {
    case 0: return x;
    case 1: return floorf(x); /* many equal ones */
    case 2: return 0.75f;
    case 3: return -INFINITY;
    case 4: return NAN;
    case 5: return odd[next(seed) % COUNT(odd)];
    case 6: return (float)c - 3;
    case 7: return (float)(cols - c);
    case 8: return c == cols - 1 ? 1 : c % 3 ? NAN : -INFINITY;
    case 9: return next(seed) % 1000 ? -x * x : (float)(c % 5); /* few that matter, some equal */
    default: return c % 2 ? 0.0f : -0.0f;
    }
}

static float *make_rows(int32_t cols) {
    float *x = malloc((size_t)N_KINDS * (size_t)cols * sizeof *x);
    uint32_t seed = 2463534242u + (uint32_t)cols;
    for (int kind = 0; kind < N_KINDS; kind++)
        for (int32_t c = 0; c < cols; c++) x[(size_t)kind * (size_t)cols + (size_t)c] = element(kind, c, cols, &seed);
    return x;
}

/* ---- on a device ---- */

static const int32_t g_cols[] = {1, 2, 63, 64, 65, 200, 300, 4096, 4097, 20001, 151936, MAX_COLS};
enum { N_COLS = COUNT(g_cols) };

static int32_t k_of(int32_t cols) {
    return cols < TN_N_BEST ? cols : TN_N_BEST;
}

/* Row by row: the choice is the first number that is the greatest, the best are what the sort says, bit for bit. */
static void check_row(const float *x, int32_t cols, const int32_t *chosen, const tn_candidates *best, int32_t row) {
    int32_t ids[TN_N_BEST], k = k_of(cols), first = -1;
    float logits[TN_N_BEST];
    x += (size_t)row * (size_t)cols;
    for (int32_t c = 0; c < cols; c++)
        if (!isnan(x[c]) && (first < 0 || x[c] > x[first])) first = c;
    if (chosen) assert_int_equal(chosen[row], first < 0 ? 0 : first);
    if (!best->n) return;
    assert_int_equal(best->n, k);
    tn_sorted_best(x, cols, ids, logits, k);
    assert_memory_equal(best->ids + row * k, ids, (size_t)k * sizeof *ids);
    assert_memory_equal(best->logits + row * k, logits, (size_t)k * sizeof *logits);
}

static void check_step(const tn_rig *rig, tn_program *program, const float *x, int32_t cols, int32_t n, int want) {
    int32_t ids[N_KINDS], pos[N_KINDS], seq[N_KINDS] = {0}, pages[1] = {0};
    tn_error err = {0};
    tn_result r;
    for (int32_t t = 0; t < n; t++) ids[t] = n == 1 ? 5 : t, pos[t] = t;
    tn_run run = {.n = n};
    tn_step_input in = {n, n, 1, ids, pos, seq, pos, &run, pages, 1};
    if (rig->backend->submit(program, &in, want, &err) != TN_OK) fail_msg("%s", err.text);
    if (rig->backend->wait(program, &r, &err) != TN_OK) fail_msg("%s", err.text);
    assert_int_equal(!!r.logits, !!(want & TN_WANT_LOGITS));
    assert_int_equal(!!r.ids, !!(want & TN_WANT_CHOSEN));
    assert_int_equal(!!r.best.n, !!(want & TN_WANT_BEST));
    for (int32_t t = 0; t < n; t++) {
        const float *from = n == 1 ? x + 5 * (size_t)cols : x;
        for (int32_t c = 0; c < cols && r.logits; c++) {
            float got = r.logits[(size_t)t * (size_t)cols + (size_t)c],
                  wanted = from[(size_t)t * (size_t)cols + (size_t)c];
            assert_true(got == wanted || (isnan(got) && isnan(wanted)));
        }
        check_row(from, cols, r.ids, &r.best, t);
    }
}

/* A table of rows, looked up; what is chosen of them. */
static void check_length(const tn_rig *rig, const tn_weight *const *weights, int32_t i, const float *x) {
    tn_error err = {0};
    int32_t cols = g_cols[i];
    tn_graph g = {.max_tokens = N_KINDS, .max_outputs = N_KINDS, .all_outputs = true, .layer = -1};
    g.weights = weights;
    g.n_weights = N_COLS;
    tn_val ids = tn_g_tokens(&g), logits = tn_g_embed(&g, ids, tn_g_weight(&g, i, weights[i]), "logits");
    g.output = logits.node;
    g.choice = tn_g_argmax(&g, logits, "chosen").node;
    g.best = tn_g_best(&g, logits, k_of(cols), "best").node;
    const tn_caps *caps = rig->backend->caps(rig->device);
    tn_plan_target target = {rig->device, rig->backend->find_kernel, caps->int8_types, caps->align};
    tn_plan plan;
    tn_memory *memory;
    tn_program *program;
    if (tn_plan_make(&plan, &g, true, "all", &target, &err) != TN_OK) fail_msg("%s", err.text);
    tn_memory_desc desc = {.n_pages = 1, .n_seq = 1, .arena_bytes = plan.arena_bytes};
    if (rig->backend->make_memory(rig->device, &desc, &memory, &err) != TN_OK) fail_msg("%s", err.text);
    if (rig->backend->compile(rig->device, &plan, memory, &program, &err) != TN_OK) fail_msg("%s", err.text);
    for (int want = 0; want < 8; want++) check_step(rig, program, x, cols, want & 1 ? N_KINDS : 1, want);
    check_step(rig, program, x, cols, N_KINDS, TN_WANT_BEST); /* after steps that did not ask for them */
    rig->backend->free_program(rig->device, &program);
    rig->backend->free_memory(rig->device, &memory);
    tn_plan_free(&plan);
}

bool tn_check_best(const char *backend, int32_t max_cols) {
    static tn_weight weight[N_COLS];
    const tn_weight *weights[N_COLS];
    tn_error err = {0};
    tn_rig rig;
    tn_status status = tn_rig_open(&rig, backend, 2, &err);
    if (status == TN_ERR_UNAVAILABLE) return false;
    if (status != TN_OK) fail_msg("%s", err.text);
    for (int32_t i = 0; i < N_COLS; i++) {
        weight[i] =
            (tn_weight){.name = "rows", .type = TN_TYPE_F32, .n_out = N_KINDS, .n_in = g_cols[i], .n_expert = 1};
        weight[i].data = make_rows(g_cols[i]);
        weight[i].bytes = (size_t)N_KINDS * (size_t)g_cols[i] * 4;
        weights[i] = &weight[i];
    }
    if (rig.backend->put_weights(rig.device, weights, N_COLS, NULL, NULL, &err) != TN_OK) fail_msg("%s", err.text);
    for (int32_t i = 0; i < N_COLS && g_cols[i] <= max_cols; i++) check_length(&rig, weights, i, weight[i].data);
    tn_rig_close(&rig);
    for (int32_t i = 0; i < N_COLS; i++) free((void *)(uintptr_t)weight[i].data);
    return true;
}
