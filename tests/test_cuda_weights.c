/* Weights on their way to the device, without one: a driver that copies as late as it may. */
#include "backend/cuda/cuda.h"
#include "backend/cuda/pack.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- the driver: a copy is made when an event behind it is waited for, or there is no room ---- */

enum { ROOM = 64 };
static struct {
    uint64_t to;
    const void *from;
    size_t bytes;
} g_copy[ROOM];
static int g_asked, g_done; /* copies, ever */

static void copy_until(int n) {
    for (; g_done < n; g_done++)
        memcpy((void *)(uintptr_t)g_copy[g_done % ROOM].to, g_copy[g_done % ROOM].from, g_copy[g_done % ROOM].bytes);
}
static int late_copy(uint64_t to, const void *from, size_t bytes, void *stream) {
    (void)stream;
    if (g_asked - g_done == ROOM) copy_until(g_done + 1);
    g_copy[g_asked % ROOM].to = to;
    g_copy[g_asked % ROOM].from = from;
    g_copy[g_asked++ % ROOM].bytes = bytes;
    return 0;
}
static int late_event_create(void **event, unsigned flags) {
    (void)flags;
    *event = calloc(1, sizeof(int));
    return *event ? 0 : TN_CU_OUT_OF_MEMORY;
}
static int late_event_destroy(void *event) {
    free(event);
    return 0;
}
static int late_event_record(void *event, void *stream) {
    (void)stream;
    *(int *)event = g_asked;
    return 0;
}
static int late_event_wait(void *event) {
    copy_until(*(int *)event);
    return 0;
}
static int late_stream_wait(void *stream) {
    (void)stream;
    copy_until(g_asked);
    return 0;
}
static int late_context(void *context) {
    (void)context;
    return 0;
}
static int late_alloc(uint64_t *p, size_t bytes) {
    *p = (uint64_t)(uintptr_t)malloc(bytes);
    return *p ? 0 : TN_CU_OUT_OF_MEMORY;
}
static int late_host_alloc(void **p, size_t bytes, unsigned flags) {
    (void)flags;
    *p = malloc(bytes);
    return *p ? 0 : TN_CU_OUT_OF_MEMORY;
}
static int late_host_free(void *p) {
    free(p);
    return 0;
}

static void stored_in_order(void *data, int32_t weight, int32_t rows, double share) {
    int32_t *next = data;
    assert_true(rows > 0);
    assert_int_equal(weight, (*next)++);
    assert_true(share >= 0 && share <= 1);
}

/* Any bytes will do: nothing is decoded. */
static tn_weight make_weight(const char *name, tn_type type, int32_t n_out, int32_t n_in) {
    tn_weight w = {.name = name, .type = type, .n_out = n_out, .n_in = n_in, .n_expert = 1, .elements = n_out == 1};
    static uint32_t seed = 1;
    w.bytes = tn_type_row_bytes(type, (size_t)n_in) * (size_t)n_out;
    uint8_t *data = malloc(w.bytes);
    assert_non_null(data);
    for (size_t i = 0; i < w.bytes; i++) data[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
    w.data = data;
    return w;
}

/* Matrices that share a slab, fill many, or have experts lie on the device as if each were packed as a whole. */
static void test_sending(void **state) {
    (void)state;
    tn_weight w[] = {
        make_weight("vector", TN_TYPE_F32, 1, 512),      make_weight("small", TN_TYPE_Q4_K, 37, 512),
        make_weight("large", TN_TYPE_Q6_K, 30011, 1024), make_weight("experts", TN_TYPE_Q8_0, 3 * 37, 512),
        make_weight("halves", TN_TYPE_F16, 9001, 1000),  make_weight("last", TN_TYPE_F32, 1, 40)};
    const tn_weight *all[COUNT(w)];
    tn_device d = {.context = &d};
    tn_error err;
    int32_t next = 0;
    w[3].n_expert = 3;
    for (size_t i = 0; i < COUNT(w); i++) all[i] = &w[i];
    d.cu = (tn_cu){.context_set = late_context,
                   .mem_alloc = late_alloc,
                   .host_alloc = late_host_alloc,
                   .host_free = late_host_free,
                   .to_device_async = late_copy,
                   .event_create = late_event_create,
                   .event_destroy = late_event_destroy,
                   .event_record = late_event_record,
                   .event_wait = late_event_wait,
                   .stream_wait = late_stream_wait};
    assert_int_equal(tn_pool_open(&d.pool, 3, &err), TN_OK);
    if (tn_cuda_put_weights(&d, all, COUNT(w), stored_in_order, &next, &err) != TN_OK) fail_msg("%s", err.text);
    assert_int_equal(next, COUNT(w));
    for (size_t i = 0; i < COUNT(w); i++) {
        const uint8_t *at = (const uint8_t *)(uintptr_t)d.weights[i].low;
        int32_t rows = w[i].n_out / w[i].n_expert;
        size_t bytes = w[i].elements ? w[i].bytes : tn_cuda_matrix_bytes(&w[i]);
        for (int32_t e = 0; e < w[i].n_expert; e++, at += bytes) {
            uint8_t *want = calloc(1, bytes);
            if (w[i].elements)
                memcpy(want, w[i].data, bytes);
            else
                tn_cuda_pack(&w[i], &(tn_cuda_rows){e, 0, rows}, 0, (rows + 3) / 4, want);
            if (memcmp(at, want, bytes)) fail_msg("%s, expert %d", w[i].name, e);
            free(want);
        }
        free((void *)(uintptr_t)w[i].data);
    }
    assert_int_equal(g_done, g_asked);
    tn_pool_close(&d.pool);
    free((void *)(uintptr_t)d.packed);
    tn_free(d.weights);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sending)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
