/* The sampler: its random numbers against published vectors, each option against a plain reading of its definition,
 * distributions, odd logits, memory that runs out. */
#include "base/mem.h"
#include "text/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static tn_sampler *open_sampler(tn_sampler_options o, int32_t n_vocab) {
    tn_sampler *s = NULL;
    tn_error err = {0};
    if (tn_sampler_open(&s, &o, n_vocab, &err)) fail_msg("%s", err.text);
    return s;
}

/* All of the distribution, nothing cut. */
static tn_sampler_options plain(void) {
    return (tn_sampler_options){.temp = 1, .top_p = 1, .repeat_penalty = 1, .repeat_last_n = 64, .seed = 7};
}

/* Known answers of the Random123 library. */
static void philox(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < 3; i++) {
        uint32_t out[4];
        tn_philox4x32(cases[i].counter, cases[i].key, out);
        assert_memory_equal(out, cases[i].out, sizeof out);
    }
}

static void uniform(void **state) {
    (void)state;
    enum { N = 100000 };
    int bins[16] = {0};
    double sum = 0;
    for (uint64_t n = 0; n < N; n++) {
        double u = tn_random_uniform(12345, n);
        assert_true(u >= 0 && u < 1);
        bins[(int)(u * 16)]++;
        sum += u;
    }
    assert_true(fabs(sum / N - 0.5) < 0.005);
    for (int i = 0; i < 16; i++) assert_in_range(bins[i], N / 16 - 400, N / 16 + 400);
    assert_true(tn_random_uniform(1, 5) == tn_random_uniform(1, 5));
    assert_true(tn_random_uniform(1, 5) != tn_random_uniform(2, 5));
    assert_true(tn_random_uniform(1, 5) != tn_random_uniform(1, 5 + (1ull << 32)));
    assert_true(tn_random_uniform(1, 5) != tn_random_uniform(1 + (1ull << 32), 5));
}

static void defaults(void **state) {
    (void)state;
    tn_sampler_options o = tn_sampler_defaults();
    assert_true(o.temp == 0.8f && o.top_k == 40 && o.top_p == 0.95f && o.min_p == 0.05f);
    assert_true(o.repeat_penalty == 1 && o.repeat_last_n == 64 && o.seed == 0);
}

static void greedy(void **state) {
    (void)state;
    tn_sampler_options o = tn_sampler_defaults();
    o.temp = 0;
    tn_sampler *s = open_sampler(o, 5);
    const float nan = NAN, inf = INFINITY;
    assert_int_equal(tn_sampler_pick(s, (float[]){1, 3, 2, 3, 0}), 1); /* of equal ones the first */
    assert_int_equal(tn_sampler_pick(s, (float[]){-1, -3, -2, -1, -5}), 0);
    assert_int_equal(tn_sampler_pick(s, (float[]){nan, -3, nan, 2, 1}), 3);
    assert_int_equal(tn_sampler_pick(s, (float[]){nan, nan, nan, nan, nan}), 0);
    assert_int_equal(tn_sampler_pick(s, (float[]){-inf, -inf, -inf, -3, -inf}), 3);
    assert_int_equal(tn_sampler_pick(s, (float[]){1, inf, 2, inf, 0}), 1);
    tn_sampler_close(&s);
    assert_null(s);
}

/* Odd logits while drawing: never a token that cannot be, never out of range. */
static void odd_logits(void **state) {
    (void)state;
    const float nan = NAN, inf = INFINITY, huge = 3e38f;
    for (int top_k = 0; top_k < 7; top_k++) {
        tn_sampler_options o = plain();
        o.top_k = top_k;
        o.top_p = top_k & 1 ? 0.9f : 1;
        tn_sampler *s = open_sampler(o, 5);
        for (int i = 0; i < 50; i++) {
            int32_t id = tn_sampler_pick(s, (float[]){nan, 1, -inf, 1, nan});
            assert_true(id == 1 || id == 3);
            assert_int_equal(tn_sampler_pick(s, (float[]){nan, nan, nan, nan, nan}), 0);
            assert_int_equal(tn_sampler_pick(s, (float[]){0, inf, 2, nan, 0}), 1);
            assert_int_equal(tn_sampler_pick(s, (float[]){-huge, huge, -huge, -huge, -inf}), 1);
            assert_int_equal(tn_sampler_pick(s, (float[]){-inf, -inf, -inf, -inf, -inf}), 0);
        }
        tn_sampler_close(&s);
    }
}

/* ---- distributions ---- */

enum { N_VOCAB = 50, N_DRAWS = 40000 };

static void random_logits(float *logits, uint64_t seed) {
    for (int i = 0; i < N_VOCAB; i++) logits[i] = (float)(tn_random_uniform(seed, (uint64_t)i) * 6 - 3);
}

/* The probabilities that the options define, by sorting everything. */
static void expected_probabilities(const float *logits, const tn_sampler_options *o, double *p) {
    int order[N_VOCAB], n = N_VOCAB;
    for (int i = 0; i < n; i++) {
        int k = i;
        for (; k > 0 && logits[order[k - 1]] < logits[i]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    double max = logits[order[0]], sum = 0, have = 0;
    if (o->top_k > 0 && o->top_k < n) n = o->top_k;
    for (int i = 0; i < n; i++) sum += exp(logits[order[i]] - max);
    if (o->top_p < 1) {
        int kept = 0;
        while (kept < n && (kept == 0 || have < (double)o->top_p * sum)) have += exp(logits[order[kept++]] - max);
        n = kept;
    }
    while (n > 1 && exp(logits[order[n - 1]] - max) < (double)o->min_p) n--;
    sum = 0;
    for (int i = 0; i < n; i++) sum += exp((logits[order[i]] - max) / (double)o->temp);
    memset(p, 0, N_VOCAB * sizeof *p);
    for (int i = 0; i < n; i++) p[order[i]] = exp((logits[order[i]] - max) / (double)o->temp) / sum;
}

static void distributions(void **state) {
    (void)state;
    static const tn_sampler_options cases[] = {
        {.temp = 1, .top_p = 1},
        {.temp = 0.5f, .top_p = 1},
        {.temp = 2, .top_p = 1},
        {.temp = 1, .top_p = 1, .top_k = 1},
        {.temp = 1, .top_p = 1, .top_k = 7},
        {.temp = 1, .top_p = 1, .top_k = 49},
        {.temp = 1, .top_p = 1, .top_k = 50},
        {.temp = 1, .top_p = 1, .top_k = 1000},
        {.temp = 1, .top_p = 0.5f},
        {.temp = 1, .top_p = 0.9f},
        {.temp = 1, .top_p = 0},
        {.temp = 1, .top_p = 1, .min_p = 0.3f},
        {.temp = 1, .top_p = 1, .min_p = 1},
        {.temp = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f},
        {.temp = 3, .top_k = 20, .top_p = 0.7f, .min_p = 0.2f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tn_sampler_options o = cases[i];
        o.repeat_penalty = 1;
        o.seed = i;
        float logits[N_VOCAB];
        double p[N_VOCAB];
        int count[N_VOCAB] = {0};
        random_logits(logits, 100 + i);
        expected_probabilities(logits, &o, p);
        tn_sampler *s = open_sampler(o, N_VOCAB);
        for (int k = 0; k < N_DRAWS; k++) count[tn_sampler_pick(s, logits)]++;
        for (int k = 0; k < N_VOCAB; k++) {
            double sigma = sqrt(N_DRAWS * p[k] * (1 - p[k]));
            if (p[k] == 0) assert_int_equal(count[k], 0);
            if (fabs(count[k] - N_DRAWS * p[k]) > 5 * sigma + 1e-9)
                fail_msg("case %zu, token %d: %d draws for p = %g", i, k, count[k], p[k]);
        }
        tn_sampler_close(&s);
    }
}

/* Equal logits: the cut at k keeps the lower ids. */
static void ties(void **state) {
    (void)state;
    float logits[N_VOCAB] = {0};
    tn_sampler_options o = plain();
    o.top_k = 10;
    tn_sampler *s = open_sampler(o, N_VOCAB);
    int seen[N_VOCAB] = {0};
    for (int i = 0; i < 2000; i++) seen[tn_sampler_pick(s, logits)]++;
    for (int i = 0; i < N_VOCAB; i++) assert_true((seen[i] > 0) == (i < 10));
    tn_sampler_close(&s);
}

/* ---- penalties ---- */

static void repeat_penalty(void **state) {
    (void)state;
    tn_sampler_options o = tn_sampler_defaults();
    o.temp = 0;
    o.repeat_penalty = 2;
    o.repeat_last_n = 2;
    tn_sampler *s = open_sampler(o, 3);
    const float up[] = {3, 2, 1}, down[] = {-1, -1.5f, -4};
    assert_int_equal(tn_sampler_pick(s, up), 0);
    tn_sampler_accept(s, 0);
    assert_int_equal(tn_sampler_pick(s, up), 1);   /* 1.5 2 1 */
    assert_int_equal(tn_sampler_pick(s, down), 1); /* -2 -1.5 -4 */
    tn_sampler_accept(s, 0);                       /* counts once, however often it is there */
    assert_int_equal(tn_sampler_pick(s, (float[]){3, 1.4f, 1}), 0);
    tn_sampler_accept(s, 1); /* window: 0 1 */
    assert_int_equal(tn_sampler_pick(s, up), 0);
    tn_sampler_accept(s, 2); /* window: 1 2 */
    assert_int_equal(tn_sampler_pick(s, (float[]){2, 3.9f, 3.8f}), 0);
    tn_sampler_accept(s, 2); /* window: 2 2 */
    assert_int_equal(tn_sampler_pick(s, (float[]){2, 3.9f, 3.8f}), 1);
    tn_sampler_accept(s, -1); /* no tokens: not counted */
    tn_sampler_accept(s, 3);
    assert_int_equal(tn_sampler_pick(s, (float[]){2, 1, 3.9f}), 0);
    tn_sampler_close(&s);
    o.repeat_last_n = 0;
    s = open_sampler(o, 3);
    tn_sampler_accept(s, 0);
    assert_int_equal(tn_sampler_pick(s, up), 0);
    tn_sampler_close(&s);
}

static void same_again(void **state) {
    (void)state;
    float logits[N_VOCAB];
    tn_sampler_options o = tn_sampler_defaults();
    o.repeat_penalty = 1.1f;
    o.seed = 99;
    int32_t first[100], different = 0;
    for (int run = 0; run < 3; run++) {
        if (run == 2) o.seed = 98;
        tn_sampler *s = open_sampler(o, N_VOCAB);
        for (int i = 0; i < 100; i++) {
            random_logits(logits, (uint64_t)i);
            int32_t id = tn_sampler_pick(s, logits);
            if (run == 0) first[i] = id;
            if (run == 1) assert_int_equal(id, first[i]);
            different += run == 2 && id != first[i];
            tn_sampler_accept(s, id);
        }
        tn_sampler_close(&s);
    }
    assert_true(different > 20);
}

/* A large vocabulary, cut and uncut, without a single allocation. */
static void no_allocation(void **state) {
    (void)state;
    enum { LARGE = 262144 };
    float *logits = malloc(LARGE * sizeof *logits);
    assert_non_null(logits);
    for (int i = 0; i < LARGE; i++) logits[i] = (float)(tn_random_uniform(3, (uint64_t)i) * 10);
    for (int top_k = 0; top_k <= 40; top_k += 40) {
        tn_sampler_options o = tn_sampler_defaults();
        o.top_k = top_k;
        tn_sampler *s = open_sampler(o, LARGE);
        tn_alloc_fail_after(0);
        for (int i = 0; i < 5; i++) {
            int32_t id = tn_sampler_pick(s, logits);
            assert_in_range(id, 0, LARGE - 1);
            tn_sampler_accept(s, id);
        }
        tn_alloc_fail_after(-1);
        tn_sampler_close(&s);
    }
    free(logits);
}

static void bad_options(void **state) {
    (void)state;
    tn_sampler_options bad[12];
    for (int i = 0; i < 12; i++) bad[i] = tn_sampler_defaults();
    bad[0].temp = -1;
    bad[1].temp = NAN;
    bad[2].temp = INFINITY;
    bad[3].top_k = -1;
    bad[4].top_p = 1.1f;
    bad[5].top_p = -0.1f;
    bad[6].min_p = 2;
    bad[7].min_p = NAN;
    bad[8].repeat_penalty = 0;
    bad[9].repeat_penalty = NAN;
    bad[10].repeat_last_n = -1;
    bad[11].top_p = NAN;
    for (int i = 0; i < 12; i++) {
        tn_sampler *s = (tn_sampler *)state;
        tn_error err = {0};
        assert_int_equal(tn_sampler_open(&s, &bad[i], 10, &err), TN_ERR_USAGE);
        assert_null(s);
        assert_true(err.text[0]);
    }
    tn_sampler *s;
    tn_sampler_options o = tn_sampler_defaults();
    assert_int_equal(tn_sampler_open(&s, &o, 0, NULL), TN_ERR_USAGE);
}

static void out_of_memory(void **state) {
    (void)state;
    tn_sampler_options o = tn_sampler_defaults();
    for (long n = 0; n < 4; n++) {
        tn_sampler *s;
        tn_alloc_fail_after(n);
        assert_int_equal(tn_sampler_open(&s, &o, 100, NULL), TN_ERR_RESOURCES);
        assert_null(s);
    }
    tn_alloc_fail_after(4);
    tn_sampler *s = NULL;
    assert_int_equal(tn_sampler_open(&s, &o, 100, NULL), TN_OK);
    tn_alloc_fail_after(-1);
    tn_sampler_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox),        cmocka_unit_test(uniform),        cmocka_unit_test(defaults),
        cmocka_unit_test(greedy),        cmocka_unit_test(odd_logits),     cmocka_unit_test(distributions),
        cmocka_unit_test(ties),          cmocka_unit_test(repeat_penalty), cmocka_unit_test(same_again),
        cmocka_unit_test(no_allocation), cmocka_unit_test(bad_options),    cmocka_unit_test(out_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
