/* The paged cache and the attention over it, against a naive attention in double: cache types, head sizes, groups of
 * heads, windows, softcap; shuffled pages with nan in every slot that was not written; any chunks, the same bits. */
#include "backend/cpu/kernels/pieces.h"
#include "base/half.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static uint32_t g_seed = 1;
static uint32_t random_bits(void) {
    g_seed = g_seed * 1664525u + 1013904223u;
    return g_seed >> 8;
}
static float uniform(float low, float high) {
    return low + (high - low) * (float)random_bits() / 16777216.0f;
}

/* ---- a sequence in a cache ----------------------------------------------------------------------------------------- */

enum { SPARE_PAGES = 3 };

typedef struct sequence {
    tn_cpu_attention a;
    tn_isa isa;
    int32_t n, n_pages; /* positions; pages in the pool, more than the sequence has */
    int32_t *pages;
    float *k, *v, *q; /* [position][head][element], k and v as the cache holds them */
    void *scratch;
} sequence;

static float *floats(size_t n) {
    float *p = malloc((n ? n : 1) * sizeof *p);
    assert_non_null(p);
    return p;
}

/* Numbers that every cache type holds exactly: multiples of 1/64 up to 127/64, the largest in each 32. */
static void fill_exact(float *x, int32_t dim) {
    for (int32_t i = 0; i < dim; i++) x[i] = (float)((int32_t)(random_bits() % 255) - 127) / 64;
    for (int32_t i = 0; i < dim; i += 32) x[i] = random_bits() & 1 ? 127.0f / 64 : -127.0f / 64;
}

static void shuffle_pages(sequence *s) {
    s->pages = malloc((size_t)s->n_pages * sizeof *s->pages);
    for (int32_t i = 0; i < s->n_pages; i++) s->pages[i] = i;
    for (int32_t i = s->n_pages - 1; i > 0; i--) {
        int32_t j = (int32_t)(random_bits() % (uint32_t)(i + 1)), t = s->pages[i];
        s->pages[i] = s->pages[j];
        s->pages[j] = t;
    }
    s->a.pages = s->pages;
}

static void write_position(const sequence *s, int32_t position) {
    const tn_cpu_kv *kv = &s->a.kv;
    tn_kv_write_fn *fn = tn_kv_write_find(kv->type, s->isa);
    for (int32_t h = 0; h < kv->n_kv; h++) {
        const float *k = s->k + (size_t)(position * kv->n_kv + h) * (size_t)kv->k_dim;
        const float *v = s->v + (size_t)(position * kv->n_kv + h) * (size_t)kv->v_dim;
        int32_t page = s->pages[position / TN_PAGE], slot = position % TN_PAGE;
        if (position % 2) { /* both at once, or one after the other */
            fn(kv, page, slot, h, k, v);
        } else {
            fn(kv, page, slot, h, NULL, v);
            fn(kv, page, slot, h, k, NULL);
        }
    }
}

/* From `a`: sizes, type, window, softcap. The cache is all nan before the positions are written. */
static sequence sequence_open(tn_cpu_attention a, tn_isa isa, int32_t n) {
    sequence s = {.a = a, .isa = isa, .n = n, .n_pages = (n + TN_PAGE - 1) / TN_PAGE + SPARE_PAGES};
    tn_cpu_kv *kv = &s.a.kv;
    kv->page_bytes = tn_kv_page_bytes(kv->type, kv->n_kv, kv->k_dim, kv->v_dim);
    kv->base = tn_alloc_pages((size_t)s.n_pages * kv->page_bytes);
    assert_non_null(kv->base);
    memset(kv->base, 0xff, (size_t)s.n_pages * kv->page_bytes);
    shuffle_pages(&s);
    s.k = floats((size_t)(n * kv->n_kv * kv->k_dim));
    s.v = floats((size_t)(n * kv->n_kv * kv->v_dim));
    s.q = floats((size_t)(n * a.n_head * kv->k_dim));
    for (int32_t i = 0; i < n * kv->n_kv; i++) {
        fill_exact(s.k + (size_t)(i * kv->k_dim), kv->k_dim);
        fill_exact(s.v + (size_t)(i * kv->v_dim), kv->v_dim);
    }
    for (int32_t i = 0; i < n * a.n_head * kv->k_dim; i++) s.q[i] = uniform(-3, 3);
    for (int32_t p = 0; p < n; p++) write_position(&s, p);
    size_t bytes = tn_attention_scratch(a.n_head, kv->n_kv, kv->k_dim, kv->v_dim);
    s.scratch = aligned_alloc(64, bytes);
    memset(s.scratch, 0xff, bytes);
    return s;
}

static void sequence_close(sequence *s) {
    tn_free_pages(s->a.kv.base, (size_t)s->n_pages * s->a.kv.page_bytes);
    free(s->pages);
    free(s->k);
    free(s->v);
    free(s->q);
    free(s->scratch);
}

/* Tokens [from, from + n) in one call for each kv head. */
static void attend(const sequence *s, int32_t from, int32_t n, float *out) {
    size_t q_stride = (size_t)(s->a.n_head * s->a.kv.k_dim), out_stride = (size_t)(s->a.n_head * s->a.kv.v_dim);
    for (int32_t h = 0; h < s->a.kv.n_kv; h++) {
        tn_attention_find(s->a.kv.type, s->isa)(&s->a, h, from, n, s->q + (size_t)from * q_stride, q_stride,
                                                out + (size_t)from * out_stride, out_stride, s->scratch);
    }
}

/* ---- what it means ------------------------------------------------------------------------------------------------- */

static void naive(const sequence *s, int32_t position, int32_t head, double *out) {
    const tn_cpu_attention *a = &s->a;
    int32_t n_kv = a->kv.n_kv, kv_head = head / (a->n_head / n_kv), k_dim = a->kv.k_dim, v_dim = a->kv.v_dim;
    int32_t first = a->window && position >= a->window ? position - a->window + 1 : 0;
    const float *q = s->q + (size_t)((position * a->n_head + head) * k_dim);
    double *score = malloc((size_t)s->n * sizeof *score), max = -INFINITY, sum = 0;
    for (int32_t p = first; p <= position; p++) {
        const float *k = s->k + (size_t)((p * n_kv + kv_head) * k_dim);
        score[p] = 0;
        for (int32_t i = 0; i < k_dim; i++) score[p] += (double)q[i] * (double)k[i];
        score[p] *= (double)a->scale;
        if (a->softcap != 0) score[p] = (double)a->softcap * tanh(score[p] / (double)a->softcap);
        max = fmax(max, score[p]);
    }
    for (int32_t i = 0; i < v_dim; i++) out[i] = 0;
    for (int32_t p = first; p <= position; p++) {
        const float *v = s->v + (size_t)((p * n_kv + kv_head) * v_dim);
        double weight = exp(score[p] - max);
        sum += weight;
        for (int32_t i = 0; i < v_dim; i++) out[i] += weight * (double)v[i];
    }
    for (int32_t i = 0; i < v_dim; i++) out[i] /= sum;
    free(score);
}

/* Scores reach some 20, their rounding in float is that of the weights; values reach 2. */
#define BOUND 1e-5

static void check_against_naive(const sequence *s, const float *out) {
    int32_t v_dim = s->a.kv.v_dim;
    double want[512];
    for (int32_t p = 0; p < s->n; p++) {
        for (int32_t h = 0; h < s->a.n_head; h++) {
            naive(s, p, h, want);
            for (int32_t i = 0; i < v_dim; i++) {
                double got = (double)out[(size_t)((p * s->a.n_head + h) * v_dim + i)];
                if (fabs(got - want[i]) <= BOUND) continue;
                fail_msg("isa %d, type %d, heads %d/%d, dims %d %d, window %d, softcap %g: position %d head %d: %g, "
                         "not %g",
                         (int)s->isa, (int)s->a.kv.type, s->a.n_head, s->a.kv.n_kv, s->a.kv.k_dim, v_dim, s->a.window,
                         (double)s->a.softcap, p, h, got, want[i]);
            }
        }
    }
}

static void check_chunks(const sequence *s, const float *whole) {
    size_t n = (size_t)(s->n * s->a.n_head * s->a.kv.v_dim);
    float *out = floats(n);
    for (int kind = 0; kind < 3; kind++) { /* 1, 7, any */
        memset(out, 0xff, n * sizeof *out);
        for (int32_t p = 0, m; p < s->n; p += m) {
            m = kind == 0 ? 1 : kind == 1 ? 7 : 1 + (int32_t)(random_bits() % 70);
            if (m > s->n - p) m = s->n - p;
            attend(s, p, m, out);
        }
        assert_memory_equal(out, whole, n * sizeof *out);
    }
    free(out);
}

/* Pages that have left the window may be anybody's by now; so may the pages after the last one. */
static void check_freed_pages(sequence *s, const float *whole) {
    size_t row = (size_t)(s->a.n_head * s->a.kv.v_dim);
    float *out = floats((size_t)s->n * row);
    int32_t last = s->n - 1, first_page = s->a.window && last >= s->a.window ? (last - s->a.window + 1) / TN_PAGE : 0;
    for (int32_t page = 0; page < s->n_pages; page++) {
        if (page < first_page || page > last / TN_PAGE) s->pages[page] = INT32_MAX / 2; /* would crash */
    }
    attend(s, last, 1, out);
    assert_memory_equal(out + (size_t)last * row, whole + (size_t)last * row, row * sizeof *out);
    free(out);
}

static void check_attention(tn_cpu_attention a, tn_isa isa, int32_t n) {
    sequence s = sequence_open(a, isa, n);
    float *whole = floats((size_t)(n * a.n_head * a.kv.v_dim));
    attend(&s, 0, n, whole);
    check_against_naive(&s, whole);
    check_chunks(&s, whole);
    check_freed_pages(&s, whole);
    free(whole);
    sequence_close(&s);
}

/* ---- tests --------------------------------------------------------------------------------------------------------- */

static void test_attention(tn_kv_type type) {
    static const int32_t dims[] = {8, 16, 64, 80, 128, 256}, scaled_dims[] = {32, 64, 96, 128, 256, 160};
    static const int32_t windows[] = {0, 1, 37, 64, 100}, lengths[] = {1, 63, 64, 65, 130, 150};
    uint32_t turn = 0;
    for (size_t d = 0; d < COUNT(dims); d++) {
        for (int32_t group = 1; group <= 8; group++, turn++) {
            int32_t dim = type == TN_KV_Q8_0 ? scaled_dims[d] : dims[d];
            tn_cpu_attention a = {.kv = {.type = type, .n_kv = 1 + (int32_t)(turn % 2), .k_dim = dim, .v_dim = dim}};
            a.n_head = group * a.kv.n_kv;
            a.window = windows[turn % COUNT(windows)];
            a.softcap = turn % 3 == 2 ? 10 : 0;
            a.scale = 1 / sqrtf((float)dim);
            int32_t n = dim > 100 || group > 5 ? lengths[turn % 4] : lengths[turn % COUNT(lengths)];
            if (group == 3) n = 150; /* each size crosses pages at least once */
            for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) check_attention(a, isa, n);
        }
    }
}

static void test_attention_f16(void **state) {
    (void)state;
    test_attention(TN_KV_F16);
}
static void test_attention_f32(void **state) {
    (void)state;
    test_attention(TN_KV_F32);
}
static void test_attention_q8_0(void **state) {
    (void)state;
    test_attention(TN_KV_Q8_0);
}

/* Keys and values of different sizes; more heads than one block has rows; a depth of many pages. */
static void test_unusual_shapes(void **state) {
    (void)state;
    static const struct {
        tn_kv_type type;
        int32_t k_dim, v_dim, n_kv, group, n;
    } shapes[] = {
        {TN_KV_F16, 192, 128, 2, 3, 70}, {TN_KV_F16, 72, 24, 1, 5, 90},    {TN_KV_F32, 24, 40, 3, 2, 129},
        {TN_KV_Q8_0, 96, 32, 1, 7, 80},  {TN_KV_F16, 512, 512, 1, 128, 3}, {TN_KV_F16, 16, 8, 1, 13, 66},
        {TN_KV_F16, 64, 64, 1, 1, 700},  {TN_KV_Q8_0, 64, 64, 1, 3, 400},
    };
    for (size_t i = 0; i < COUNT(shapes); i++) {
        tn_cpu_attention a = {.n_head = shapes[i].group * shapes[i].n_kv};
        a.kv = (tn_cpu_kv){.type = shapes[i].type, .n_kv = shapes[i].n_kv};
        a.kv.k_dim = shapes[i].k_dim;
        a.kv.v_dim = shapes[i].v_dim;
        a.scale = 1 / sqrtf((float)a.kv.k_dim);
        for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) check_attention(a, isa, shapes[i].n);
    }
}

/* One token's attention put together from its segments. */
static void attend_in_segments(const sequence *s, int32_t position, float *out) {
    tn_cpu_attention a = s->a;
    int32_t first = a.window && position >= a.window ? position - a.window + 1 : 0, group = a.n_head / a.kv.n_kv;
    int32_t s0 = first / TN_PAGE / TN_SEGMENT, n = position / TN_PAGE / TN_SEGMENT - s0 + 1, v_dim = a.kv.v_dim;
    size_t row = (size_t)(v_dim + 2), stride = (size_t)group * row;
    float *part = floats((size_t)n * stride);
    for (int32_t h = 0; h < a.kv.n_kv; h++) {
        for (a.segment = s0 + n - 1; a.segment >= s0; a.segment--) {
            a.part = part + (size_t)(a.segment - s0) * stride;
            tn_attention_find(a.kv.type, s->isa)(
                &a, h, position, 1, s->q + (size_t)(position * a.n_head * a.kv.k_dim), 0, NULL, 0, s->scratch);
        }
        for (int32_t i = 0; i < group; i++)
            tn_attention_join(part + (size_t)i * row, n, stride, v_dim, out + (h * group + i) * v_dim);
    }
    free(part);
}

/* A context of several segments: done apart and joined, it has the bits that it has in one call. */
static void test_segments(void **state) {
    (void)state;
    enum { N = TN_PAGE * TN_SEGMENT * 2 + 90, HEADS = 2, DIM = 32 };
    static const int32_t positions[] = {N - 1, TN_PAGE * TN_SEGMENT, TN_PAGE * TN_SEGMENT - 1, 5};
    for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++)
        for (tn_kv_type type = TN_KV_F16; type <= TN_KV_F32; type++)
            for (int32_t window = 0; window <= 600; window += 600) {
                tn_cpu_attention a = {.kv = {.type = type, .n_kv = 1, .k_dim = DIM, .v_dim = DIM}, .n_head = HEADS};
                a.window = window;
                a.scale = 1 / sqrtf(DIM);
                sequence s = sequence_open(a, isa, N);
                float *whole = floats((size_t)N * HEADS * DIM), joined[HEADS * DIM];
                attend(&s, 0, N, whole);
                if (type == TN_KV_F16 && isa == tn_isa_best()) check_against_naive(&s, whole);
                for (size_t i = 0; i < COUNT(positions); i++) {
                    attend_in_segments(&s, positions[i], joined);
                    assert_memory_equal(joined, whole + (size_t)positions[i] * HEADS * DIM, sizeof joined);
                }
                free(whole);
                sequence_close(&s);
            }
}

/* Scores far apart, growing and falling from page to page: the maximum so far has to be carried along. */
static void test_hostile_scores(void **state) {
    (void)state;
    for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
        for (int kind = 0; kind < 4; kind++) {
            tn_cpu_attention a = {
                .kv = {.type = TN_KV_F32, .n_kv = 1, .k_dim = 16, .v_dim = 16}, .n_head = 2, .scale = 1};
            sequence s = sequence_open(a, isa, 260);
            for (int32_t p = 0; p < s.n; p++) {
                float level = kind == 0   ? (float)p
                              : kind == 1 ? (float)-p
                              : kind == 2 ? (p == 100 ? 1e4f : 0)
                                          : 1e-40f;
                for (int32_t i = 0; i < 16; i++) {
                    s.k[p * 16 + i] = i == 0 ? level : 0;
                    s.q[(p * 2) * 16 + i] = s.q[(p * 2 + 1) * 16 + i] = i == 0;
                }
                write_position(&s, p);
            }
            float *out = floats((size_t)s.n * 32);
            attend(&s, 0, s.n, out);
            check_against_naive(&s, out);
            check_chunks(&s, out);
            free(out);
            sequence_close(&s);
        }
    }
}

/* Where scores are no numbers the result is none, in one piece and joined from segments. */
static void test_not_a_number(void **state) {
    (void)state;
    enum { N = TN_PAGE * TN_SEGMENT + 90, HEADS = 2, DIM = 32 };
    for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
        tn_cpu_attention a = {
            .kv = {.type = TN_KV_F32, .n_kv = 1, .k_dim = DIM, .v_dim = DIM}, .n_head = HEADS, .scale = 1};
        sequence s = sequence_open(a, isa, N);
        for (int32_t i = 0; i < DIM; i++) s.q[(size_t)(N - 1) * HEADS * DIM + (size_t)i] = NAN; /* the first head */
        float *whole = floats((size_t)N * HEADS * DIM), joined[HEADS * DIM];
        attend(&s, 0, N, whole);
        attend_in_segments(&s, N - 1, joined);
        for (int32_t i = 0; i < HEADS * DIM; i++) {
            bool bad = i < DIM;
            assert_int_equal(isnan(whole[(size_t)(N - 1) * HEADS * DIM + (size_t)i]) != 0, bad);
            assert_int_equal(isnan(joined[i]) != 0, bad);
        }
        free(whole);
        sequence_close(&s);
    }
}

/* A position that sees only itself gives its own v back, as the cache has rounded it. */
static void check_stored(tn_kv_type type, tn_isa isa, float magnitude) {
    enum { DIM = 64, N = 70 };
    tn_cpu_attention a = {.kv = {.type = type, .n_kv = 1, .k_dim = DIM, .v_dim = DIM}, .n_head = 1, .scale = 1};
    a.window = 1;
    sequence s = sequence_open(a, isa, N);
    for (int32_t i = 0; i < N * DIM; i++) s.v[i] = uniform(-magnitude, magnitude);
    for (int32_t i = 0; i < N * DIM; i++) s.k[i] = s.q[i] = 0;
    for (int32_t p = 0; p < N; p++) write_position(&s, p);
    float out[N * DIM];
    attend(&s, 0, N, out);
    for (int32_t i = 0; i < N * DIM; i++) {
        if (type == TN_KV_F32) assert_true(out[i] == s.v[i]);
        if (type == TN_KV_F16) assert_true(out[i] == tn_f16_to_f32(tn_f32_to_f16(s.v[i])));
        if (type != TN_KV_Q8_0) continue;
        float max = 0;
        for (int32_t j = i / 32 * 32; j < i / 32 * 32 + 32; j++) max = fmaxf(max, fabsf(s.v[j]));
        float step = tn_f16_to_f32(tn_f32_to_f16(max / 127)); /* and the largest may be cut to 127 steps */
        assert_true(fabsf(out[i] - s.v[i]) <= fmaxf(step * 0.5001f, max - 127 * step));
    }
    sequence_close(&s);
}

static void test_what_the_cache_stores(void **state) {
    (void)state;
    static const float magnitudes[] = {1, 1000, 60000, 1e-3f, 1e-6f, 0};
    for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
        for (size_t m = 0; m < COUNT(magnitudes); m++) {
            for (tn_kv_type type = TN_KV_F16; type <= TN_KV_F32; type++) check_stored(type, isa, magnitudes[m]);
        }
    }
}

/* Every set writes the same bytes, and touches nothing but its own slot. */
static void test_writes_are_the_same_bytes(void **state) {
    (void)state;
    for (tn_kv_type type = TN_KV_F16; type <= TN_KV_F32; type++) {
        tn_cpu_kv kv = {.type = type, .n_kv = 2, .k_dim = 96, .v_dim = 64};
        kv.page_bytes = tn_kv_page_bytes(type, 2, 96, 64);
        size_t elements = (size_t)2 * TN_PAGE * (96 + 64);
        assert_int_equal(kv.page_bytes, type == TN_KV_F32   ? elements * 4
                                        : type == TN_KV_F16 ? elements * 2
                                                            : elements + elements / 32 * 2);
        uint8_t *pages[TN_ISA_COUNT];
        for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
            pages[isa] = kv.base = malloc(kv.page_bytes * 2);
            memset(kv.base, 0xa5, kv.page_bytes * 2);
            g_seed = 77;
            float k[96], v[64];
            for (int i = 0; i < 300; i++) {
                for (int j = 0; j < 96; j++) k[j] = uniform(-2, 2);
                for (int j = 0; j < 64; j++) v[j] = i % 7 ? uniform(-1e-6f, 1e-6f) : uniform(-9e4f, 9e4f);
                tn_kv_write_find(type, isa)(&kv, 1, (i * 5) % (TN_PAGE - 1), i % 2, k, v);
            }
            for (size_t i = 0; i < kv.page_bytes; i++) assert_int_equal(kv.base[i], 0xa5); /* page 0 */
            assert_memory_equal(pages[isa], pages[TN_ISA_REF], kv.page_bytes * 2);
        }
        for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) free(pages[isa]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_f16),
        cmocka_unit_test(test_attention_f32),
        cmocka_unit_test(test_attention_q8_0),
        cmocka_unit_test(test_unusual_shapes),
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_hostile_scores),
        cmocka_unit_test(test_what_the_cache_stores),
        cmocka_unit_test(test_writes_are_the_same_bytes),
    };
    return cmocka_run_group_tests_name("cpu_attention", tests, NULL, NULL);
}
