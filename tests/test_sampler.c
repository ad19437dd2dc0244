/* The sampler: its random numbers against published vectors, each option against a plain reading of its definition,
 * distributions, biases and penalties on small vocabularies, odd logits, memory that runs out; log-probabilities. */
#include "base/mem.h"
#include "failing.h"
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
    assert_true(o.frequency_penalty == 0 && o.presence_penalty == 0 && !o.logit_bias && o.n_logit_bias == 0);
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

/* Asserts that the logits, as the sampler changes them, are `want`: a token is as good as another one whose logit is
 * raised to exactly as much, and the lower id is picked; the next float up makes the other one win. */
static void check_changed(tn_sampler_options o, const int32_t *history, size_t n_history, const float *logits,
                          const float *want, int32_t n) {
    /* the last token of the vocabulary measures, and is not in the history */
    float in[16];
    o.temp = 0;
    for (int32_t i = 0; i < n; i++) {
        for (int above = 0; above < 2; above++) {
            tn_sampler *s = open_sampler(o, n + 1);
            for (size_t k = 0; k < n_history; k++) tn_sampler_accept(s, history[k]);
            for (int32_t k = 0; k < n; k++) in[k] = k == i ? logits[k] : -INFINITY;
            in[n] = above ? nextafterf(want[i], INFINITY) : want[i];
            int32_t id = tn_sampler_pick(s, in);
            if (id != (above ? n : i)) fail_msg("token %d: not %g (picked %d)", i, (double)want[i], id);
            tn_sampler_close(&s);
        }
    }
}

/* Numbers that floats hold exactly. */
static void penalties(void **state) {
    (void)state;
    static const float logits[] = {4, 2, -1, 0.5f};
    static const int32_t history[] = {3, 3, 0, 2, 0, 0, 1}; /* the last 6: 0 x3, 1, 2, 3 */
    tn_sampler_options o = tn_sampler_defaults();
    o.repeat_last_n = 6;
    o.frequency_penalty = 0.25f;
    check_changed(o, history, 7, logits, (float[]){3.25f, 1.75f, -1.25f, 0.25f}, 4);
    o.presence_penalty = 1.5f;
    check_changed(o, history, 7, logits, (float[]){1.75f, 0.25f, -2.75f, -1.25f}, 4);
    o.repeat_penalty = 2; /* first of the three */
    check_changed(o, history, 7, logits, (float[]){-0.25f, -0.75f, -3.75f, -1.5f}, 4);
    o.frequency_penalty = o.presence_penalty = -0.5f; /* rewards */
    check_changed(o, history, 7, logits, (float[]){4, 2, -1, 1.25f}, 4);
    o.repeat_last_n = 2; /* 0, 1 */
    check_changed(o, history, 7, logits, (float[]){3, 2, -1, 0.5f}, 4);
    check_changed(o, history, 0, logits, logits, 4);
    o.repeat_last_n = 0;
    check_changed(o, history, 7, logits, logits, 4);
}

static void logit_bias(void **state) {
    (void)state;
    static const float logits[] = {4, 2, -1, 0.5f};
    static const int32_t history[] = {1, 2};
    tn_logit_bias list[] = {{0, -1.5f}, {2, 5}, {0, 0.25f}};
    tn_sampler_options o = tn_sampler_defaults();
    o.logit_bias = list;
    check_changed(o, history, 2, logits, logits, 4); /* a list of no length */
    o.n_logit_bias = 3;
    check_changed(o, history, 0, logits, (float[]){2.75f, 2, 4, 0.5f}, 4);
    o.repeat_penalty = 2; /* after the bias: 4 / 2, where the other order gives -1 x 2 + 5 */
    o.presence_penalty = 0.5f;
    check_changed(o, history, 2, logits, (float[]){2.75f, 0.5f, 1.5f, 0.5f}, 4);

    o.temp = 0;
    tn_sampler *s = open_sampler(o, 4); /* keeps a copy */
    list[0] = (tn_logit_bias){3, 100};
    assert_int_equal(tn_sampler_pick(s, logits), 2);
    tn_sampler_close(&s);
}

/* Before the cut at k: a token far behind is drawn, and a token far ahead is not. */
static void bias_before_top_k(void **state) {
    (void)state;
    float logits[N_VOCAB];
    for (int i = 0; i < N_VOCAB; i++) logits[i] = (float)-i;
    static const tn_logit_bias list[] = {{40, 40.5f}, {0, -INFINITY}};
    tn_sampler_options o = plain();
    o.top_k = 2;
    o.logit_bias = list;
    o.n_logit_bias = 2;
    tn_sampler *s = open_sampler(o, N_VOCAB);
    int seen[N_VOCAB] = {0};
    for (int i = 0; i < 400; i++) seen[tn_sampler_pick(s, logits)]++;
    assert_int_equal(seen[1] + seen[40], 400);
    assert_in_range(seen[40], 280, 370); /* 400 / (1 + exp(-1.5)) = 327 */
    tn_sampler_close(&s);
}

/* Every token forbidden but one, at any temperature, whatever the logits and penalties are. */
static void all_but_one(void **state) {
    (void)state;
    enum { LEFT = 3 };
    const float nan = NAN, inf = INFINITY, huge = 3e38f;
    tn_logit_bias list[5];
    int n = 0;
    for (int i = 0; i < 6; i++)
        if (i != LEFT) list[n++] = (tn_logit_bias){i, -INFINITY};
    for (int warm = 0; warm < 2; warm++) {
        tn_sampler_options o = plain();
        o.temp = (float)warm;
        o.frequency_penalty = -huge; /* would lift what is forbidden to infinity and beyond */
        o.logit_bias = list;
        o.n_logit_bias = 5;
        tn_sampler *s = open_sampler(o, 6);
        for (int i = 0; i < 30; i++) {
            assert_int_equal(tn_sampler_pick(s, (float[]){9, 8, 7, -6, 5, 4}), LEFT);
            assert_int_equal(tn_sampler_pick(s, (float[]){inf, nan, huge, -huge, inf, 4}), LEFT);
            assert_int_equal(tn_sampler_pick(s, (float[]){inf, 1, 1, nan, 1, 1}), LEFT);
            assert_int_equal(tn_sampler_pick(s, (float[]){1, 1, 1, -inf, nan, 1}), LEFT);
            tn_sampler_accept(s, i % 6 == LEFT ? 0 : i % 6);
        }
        tn_sampler_close(&s);
    }
}

static void bad_biases(void **state) {
    (void)state;
    static const struct {
        tn_logit_bias list[2];
        const char *says;
    } bad[] = {
        {{{2, 1}, {3, 1}}, "token 3"},
        {{{-1, 1}, {2, 1}}, "token -1"},
        {{{0, 1}, {1, NAN}}, "token 1"},
        {{{0, INFINITY}, {1, 1}}, "token 0"},
        {{{INT32_MAX, 1}, {0, 1}}, "token 2147483647"},
    };
    tn_sampler *s;
    tn_error err;
    tn_sampler_options o = plain();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        o.logit_bias = bad[i].list;
        o.n_logit_bias = 2;
        assert_int_equal(tn_sampler_open(&s, &o, 3, &err), TN_ERR_USAGE);
        assert_null(s);
        assert_non_null(strstr(err.text, bad[i].says));
    }
    static const tn_logit_bias none[] = {{0, -INFINITY}, {1, -INFINITY}, {2, -INFINITY}, {1, 5}};
    o.logit_bias = none;
    o.n_logit_bias = 4;
    assert_int_equal(tn_sampler_open(&s, &o, 3, &err), TN_ERR_USAGE);
    assert_null(s);
    assert_non_null(strstr(err.text, "every token"));
    s = open_sampler(o, 4);
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
    enum { N = 16 };
    tn_sampler_options bad[N];
    for (int i = 0; i < N; i++) bad[i] = tn_sampler_defaults();
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
    bad[12].frequency_penalty = NAN;
    bad[13].frequency_penalty = -INFINITY;
    bad[14].presence_penalty = INFINITY;
    bad[15].presence_penalty = NAN;
    for (int i = 0; i < N; i++) {
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
    static const tn_logit_bias bias = {3, 1};
    tn_sampler_options o = tn_sampler_defaults();
    o.logit_bias = &bias;
    for (o.n_logit_bias = 0; o.n_logit_bias < 2; o.n_logit_bias++) {
        tn_failing f = {0};
        while (!f.done) {
            tn_sampler *s;
            tn_failing_start(&f);
            tn_status status = tn_sampler_open(&s, &o, 100, NULL);
            assert_int_equal(status, tn_failing_stop(&f) ? TN_ERR_RESOURCES : TN_OK);
            assert_true((status == TN_OK) == (s != NULL));
            tn_sampler_close(&s);
        }
        assert_int_equal(f.n, 5 + o.n_logit_bias); /* five allocations, and a sixth for the bias */
    }
}

/* ---- log-probabilities ---- */

enum { TOP = 8 };

static void check_top(const float *logits, int32_t n, int32_t k, int32_t n_want, const int32_t *ids,
                      const float *logprobs) {
    int32_t got_ids[TOP + 1];
    float got[TOP + 1];
    for (int i = 0; i <= TOP; i++) got_ids[i] = -7, got[i] = 7;
    assert_int_equal(tn_top_logprobs(logits, n, k, got_ids, got), n_want);
    for (int i = 0; i < n_want; i++) {
        assert_int_equal(got_ids[i], ids[i]);
        if (isinf(logprobs[i]))
            assert_true(got[i] == logprobs[i]);
        else
            assert_true(fabsf(got[i] - logprobs[i]) <= 1e-6f * fabsf(logprobs[i]));
    }
    assert_true(got_ids[n_want] == -7 && got[n_want] == 7); /* nothing behind them is touched */
}

static void top_logprobs(void **state) {
    (void)state;
    const float nan = NAN, inf = INFINITY;
    /* log 2, log 8, log 1, log 5: of 16 */
    const float logits[] = {0.693147181f, 2.07944154f, 0, 1.60943791f};
    const float all[] = {-0.693147181f, -1.16315081f, -2.07944154f, -2.77258872f};
    const int32_t order[] = {1, 3, 0, 2};
    for (int k = -1; k < 7; k++) check_top(logits, 4, k, k < 0 ? 0 : k < 4 ? k : 4, order, all);
    /* far from 0 */
    const float gap[] = {-0.313261688f, -1.31326169f};
    check_top((float[]){1000, 1001}, 2, 2, 2, (int32_t[]){1, 0}, gap);
    check_top((float[]){-1000, -1001}, 2, 2, 2, (int32_t[]){0, 1}, gap);
    /* of equal ones the lower id, also where the cut runs through them */
    check_top((float[]){1, 1, 1, 1}, 4, 3, 3, (int32_t[]){0, 1, 2},
              (float[]){-1.38629436f, -1.38629436f, -1.38629436f});
    check_top((float[]){0, 5, 0, 5, 5}, 5, 2, 2, (int32_t[]){1, 3}, (float[]){-1.10309419f, -1.10309419f});
    /* what cannot be takes no part */
    check_top((float[]){nan, 1, -inf, 1, nan}, 5, 5, 5, (int32_t[]){1, 3, 0, 2, 4},
              (float[]){-0.693147181f, -0.693147181f, -inf, -inf, -inf});
    check_top((float[]){nan, -inf, nan}, 3, 3, 3, (int32_t[]){0, 1, 2}, (float[]){-inf, -inf, -inf});
    check_top((float[]){3, inf, nan, inf, 1}, 5, 4, 4, (int32_t[]){1, 3, 0, 4},
              (float[]){-0.693147181f, -0.693147181f, -inf, -inf});
    check_top((float[]){-3e38f, 3e38f}, 2, 2, 2, (int32_t[]){1, 0}, (float[]){0, -inf});
}

/* Against a softmax in double and a full sort; the order in which tokens come does not matter; nothing is allocated. */
static void top_logprobs_of_many(void **state) {
    (void)state;
    enum { LARGE = 100000, K = 1000 };
    static float logits[LARGE], got[LARGE];
    static int32_t ids[LARGE];
    tn_alloc_fail_after(0);
    for (int kind = 0; kind < 3; kind++) {
        double sum = 0, total = 0;
        for (int i = 0; i < LARGE; i++) {
            logits[i] = kind == 0 ? (float)i / 5000 : kind == 1 ? (float)-i / 5000 : 0;
            if (kind == 2) logits[i] = (float)floor(tn_random_uniform(9, (uint64_t)i) * 64) / 4;
            sum += exp((double)logits[i]);
        }
        assert_int_equal(tn_top_logprobs(logits, LARGE, LARGE, ids, got), LARGE);
        for (int i = 0; i < LARGE; i++) {
            total += exp((double)got[i]);
            assert_true(fabs((double)got[i] - ((double)logits[ids[i]] - log(sum))) < 1e-5);
            if (i) assert_true(got[i - 1] > got[i] || (got[i - 1] == got[i] && ids[i - 1] < ids[i]));
        }
        assert_true(fabs(total - 1) < 1e-5);
        static int32_t some[K];
        static float some_logprobs[K];
        assert_int_equal(tn_top_logprobs(logits, LARGE, K, some, some_logprobs), K);
        assert_memory_equal(some, ids, sizeof some);
        assert_memory_equal(some_logprobs, got, sizeof some_logprobs);
    }
    tn_alloc_fail_after(-1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(philox),
                                       cmocka_unit_test(uniform),
                                       cmocka_unit_test(defaults),
                                       cmocka_unit_test(greedy),
                                       cmocka_unit_test(odd_logits),
                                       cmocka_unit_test(distributions),
                                       cmocka_unit_test(ties),
                                       cmocka_unit_test(repeat_penalty),
                                       cmocka_unit_test(penalties),
                                       cmocka_unit_test(logit_bias),
                                       cmocka_unit_test(bias_before_top_k),
                                       cmocka_unit_test(all_but_one),
                                       cmocka_unit_test(bad_biases),
                                       cmocka_unit_test(same_again),
                                       cmocka_unit_test(no_allocation),
                                       cmocka_unit_test(bad_options),
                                       cmocka_unit_test(out_of_memory),
                                       cmocka_unit_test(top_logprobs),
                                       cmocka_unit_test(top_logprobs_of_many)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
