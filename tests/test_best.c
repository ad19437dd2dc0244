/* The best logits: how they are found, on every device that is here; what a session tells of them; the sampler that is given them picks
 * what it picks from all logits. (On CUDA: test_cuda.c.) */
#include "engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/best.h"
#include "best_rig.h"
#include "text/sampler.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- finding them ---- */

static void test_select(void **state) {
    (void)state;
    static const int32_t lengths[] = {1, 2, 15, 16, 17, 33, 100, 1000};
    float x[1000], logits[1000];
    int32_t ids[1000], want[1000], heap[1000];
    for (uint64_t seed = 0; seed < 200; seed++) {
        int32_t n = lengths[seed % COUNT(lengths)];
        for (int32_t i = 0; i < n; i++) {
            double u = tn_random_uniform(seed, (uint64_t)i);
            x[i] = u < 0.02   ? NAN
                   : u < 0.03 ? -INFINITY
                   : u > 0.99 ? INFINITY
                              : (float)(seed & 1 ? floor(u * 9) : u * 9);
        }
        tn_sorted_best(x, n, want, logits, n);
        for (int32_t k = 1; k <= n; k = k < 5 || k == n ? k + 1 : k * 2 > n ? n : k * 2) {
            tn_select_best(x, n, ids, k);
            assert_memory_equal(ids, want, (size_t)k * sizeof *ids);
        }
        for (int32_t i = 0; i < n; i++) heap[i] = n - 1 - i;
        tn_best_heap(x, heap, n);
        for (int32_t left = n; left > 0; left--) {
            tn_best_take(x, heap, left);
            assert_int_equal(heap[left - 1], want[n - left]);
        }
    }
    tn_select_best(x, 10, ids, 0);
}

/* Of the features that WebGPU may have, halves change nothing here: two sets are as good as four. */
static void test_devices(void **state) {
    (void)state;
    static const char *const names[] = {"cpu:ref",    "cpu:avx2",         "cpu",        "webgpu:none",
                                        "webgpu:f16", "webgpu:subgroups", "webgpu:both"};
    for (size_t i = 0; i < COUNT(names); i++)
        if (!tn_check_best(names[i], i < 4 ? INT32_MAX : i == 6 ? 20001 : 300))
            print_message("skipped: %s\n", names[i]);
}

/* ---- sessions ---- */

static const char *const g_models[] = {"llama-a.F32", "qwen35moe-a.F32", "gemma4-ple.F32"};
static const int32_t g_ids[] = {5, 9, 44, 17, 3, 60, 2, 31, 31, 8, 19};
static const int32_t g_seqs[] = {0, 1, 0, 0, 1, 0, 2, 0, 0, 1, 0};

static tn_model *open_model(const char *name, const char *backend) {
    char path[400];
    tn_error err = {0};
    tn_model *m;
    snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, name);
    if (tn_model_open(&m, path, &(tn_model_options){.backend = backend, .threads = 2}, &err) != TN_OK)
        fail_msg("%s", err.text);
    return m;
}

static tn_session *open_session(tn_model *m, bool all_logits) {
    tn_error err = {0};
    tn_session *s;
    tn_session_options o = {.n_ctx = 32, .n_seq = 3, .n_ubatch = 4, .all_logits = all_logits};
    if (tn_session_open(&s, m, &o, &err) != TN_OK) fail_msg("%s", err.text);
    return s;
}

static void feed(tn_session *s, int want, bool decode) {
    tn_error err = {0};
    tn_batch b = {.ids = g_ids, .seqs = g_seqs, .n_tokens = COUNT(g_ids), .want = want};
    for (int32_t q = 0; q < 3; q++) tn_sequence_cut(s, q, 0, &err);
    if (tn_step(s, &b, &err) != TN_OK) fail_msg("%s", err.text);
    b.n_tokens = 3, b.seqs = (int32_t[]){0, 1, 2};
    if (decode && tn_step(s, &b, &err) != TN_OK) fail_msg("%s", err.text);
}

/* A batch of several steps and sequences, or a token of each: each row's best are those of its logits, whatever else is wanted. */
static void test_sessions(void **state) {
    (void)state;
    for (size_t m = 0; m < 2 * COUNT(g_models); m++) {
        bool decode = m & 1;
        tn_model *model = open_model(g_models[m / 2], "cpu");
        tn_session *s = open_session(model, false);
        int32_t n_vocab = model->hp.n_vocab, ids[TN_N_BEST];
        float *all = malloc(3 * (size_t)n_vocab * sizeof *all), logits[TN_N_BEST];
        feed(s, 0, decode);
        for (int32_t r = 0; r < 3; r++) {
            memcpy(all + r * n_vocab, tn_logits(s, r), (size_t)n_vocab * sizeof *all);
            assert_int_equal(tn_chosen(s, r), -1);
            assert_int_equal(tn_best(s, r).n, 0);
        }
        for (int want = 1; want < 8; want++) {
            feed(s, want, decode);
            assert_int_equal(tn_logits_rows(s), 3);
            assert_int_equal(tn_best(s, 3).n, 0);
            assert_int_equal(tn_best(s, -1).n, 0);
            for (int32_t r = 0; r < 3; r++) {
                tn_candidates best = tn_best(s, r);
                tn_sorted_best(all + r * n_vocab, n_vocab, ids, logits, TN_N_BEST);
                assert_int_equal(tn_chosen(s, r), want & TN_WANT_CHOSEN ? ids[0] : -1);
                assert_int_equal(best.n, want & TN_WANT_BEST ? TN_N_BEST : 0);
                assert_memory_equal(best.ids, ids, (size_t)best.n * sizeof *ids);
                assert_memory_equal(best.logits, logits, (size_t)best.n * sizeof *logits);
                assert_int_equal(!!tn_logits(s, r), want & TN_WANT_LOGITS);
                if (tn_logits(s, r)) assert_memory_equal(tn_logits(s, r), all + r * n_vocab, (size_t)n_vocab * 4);
            }
        }
        free(all);
        tn_session_close(&s);
        tn_model_close(&model);
    }
}

/* What cannot be wanted is refused, and changes nothing. */
static void test_refused(void **state) {
    (void)state;
    tn_error err = {0};
    tn_model *model = open_model(g_models[0], "cpu");
    for (int all = 0; all < 2; all++) {
        tn_session *s = open_session(model, all);
        tn_batch b = {.ids = g_ids, .n_tokens = 3, .want = TN_WANT_LOGITS | TN_WANT_CHOSEN};
        assert_int_equal(tn_step(s, &b, &err), TN_OK);
        int32_t id = tn_chosen(s, 0);
        b.want = all ? TN_WANT_BEST | TN_WANT_LOGITS : 8;
        assert_int_equal(tn_step(s, &b, &err), TN_ERR_USAGE);
        b.want = -1;
        assert_int_equal(tn_step(s, &b, &err), TN_ERR_USAGE);
        assert_int_equal(tn_sequence_length(s, 0), 3);
        assert_int_equal(tn_chosen(s, 0), id);
        assert_non_null(tn_logits(s, 0));
        tn_session_close(&s);
    }
    tn_model_close(&model);
}

/* ---- sampling from them ---- */

static const float g_temps[] = {0, 1e-3f, 0.8f, 1, 5}, g_top_ps[] = {0, 0.3f, 0.95f, 1},
                   g_min_ps[] = {0, 0.05f, 0.7f, 1};
static const int32_t g_top_ks[] = {1, 2, 7, 40, 63, 64};

#define PICK(list, x) (list)[(x) % COUNT(list)]

static tn_sampler *open_sampler(const tn_sampler_options *o, int32_t n_vocab) {
    tn_error err = {0};
    tn_sampler *s;
    if (tn_sampler_open(&s, o, n_vocab, &err) != TN_OK) fail_msg("%s", err.text);
    return s;
}

static void odd_logits(float *x, int32_t n, uint64_t seed) {
    double width = seed % 3 == 0 ? 1 : seed % 3 == 1 ? 8 : 40;
    for (int32_t i = 0; i < n; i++) {
        double u = tn_random_uniform(seed, (uint64_t)i);
        x[i] = (float)(u * width);
        if (seed % 4 == 1) x[i] = floorf(x[i]);
        if (seed % 5 == 2 && u < 0.5) x[i] = u < 0.25 ? NAN : -INFINITY;
        if (seed % 17 == 3) x[i] = i % 2 ? NAN : -INFINITY;
        if (seed % 19 == 4 && u > 0.9) x[i] = INFINITY;
    }
}

/* Token by token: from all logits and from the best of them, with one history. */
static void test_same_tokens(void **state) {
    (void)state;
    static const int32_t vocabs[] = {1, 2, 40, 64, 65, 500};
    float x[500], logits[TN_N_BEST];
    int32_t ids[TN_N_BEST], drawn = 0;
    for (uint64_t c = 0; c < 2000; c++) {
        int32_t n = PICK(vocabs, c), k = n < TN_N_BEST ? n : TN_N_BEST;
        tn_sampler_options o = {.temp = PICK(g_temps, c / 3),
                                .top_k = PICK(g_top_ks, c / 7),
                                .top_p = PICK(g_top_ps, c / 11),
                                .min_p = PICK(g_min_ps, c / 5),
                                .repeat_penalty = 1,
                                .repeat_last_n = 5,
                                .seed = c};
        tn_sampler *a = open_sampler(&o, n), *b = open_sampler(&o, n);
        int32_t needs = tn_sampler_needs(b);
        assert_int_equal(needs, o.temp == 0 ? 1 : o.top_k < n ? o.top_k : n);
        for (uint64_t step = 0; step < 6; step++) {
            odd_logits(x, n, c * 6 + step);
            tn_sorted_best(x, n, ids, logits, k);
            if (step == 4) k = needs; /* no more than that */
            int32_t id = tn_sampler_pick(a, x);
            assert_int_equal(tn_sampler_pick_from(b, &(tn_candidates){ids, logits, k}), id);
            drawn += id != ids[0];
            tn_sampler_accept(a, id);
            tn_sampler_accept(b, id);
        }
        if (needs > 1) assert_int_equal(tn_sampler_pick_from(b, &(tn_candidates){ids, logits, needs - 1}), -1);
        tn_sampler_close(&a);
        tn_sampler_close(&b);
    }
    assert_true(drawn > 1000);
}

/* What all logits are needed for. */
static void test_needs(void **state) {
    (void)state;
    tn_logit_bias bias = {3, 1};
    tn_sampler_options plain = tn_sampler_defaults();
    struct {
        tn_sampler_options o;
        int32_t needs;
    } cases[8];
    for (size_t i = 0; i < COUNT(cases); i++) cases[i].o = plain, cases[i].needs = 0;
    cases[0].needs = 40;
    cases[1].o.top_k = 0;
    cases[2].o.repeat_penalty = 1.1f;
    cases[3].o.frequency_penalty = 0.5f;
    cases[4].o.presence_penalty = -0.5f;
    cases[5].o.logit_bias = &bias, cases[5].o.n_logit_bias = 1;
    cases[6].o.repeat_penalty = 1.1f, cases[6].o.repeat_last_n = 0, cases[6].needs = 40; /* of no token */
    cases[7].o.temp = 0, cases[7].o.presence_penalty = 1;
    for (size_t i = 0; i < COUNT(cases); i++) {
        tn_sampler *s = open_sampler(&cases[i].o, 1000);
        float logits[TN_N_BEST] = {0};
        int32_t ids[TN_N_BEST] = {0};
        assert_int_equal(tn_sampler_needs(s), cases[i].needs);
        if (!cases[i].needs) assert_int_equal(tn_sampler_pick_from(s, &(tn_candidates){ids, logits, TN_N_BEST}), -1);
        tn_sampler_close(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_select),  cmocka_unit_test(test_devices),     cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_same_tokens), cmocka_unit_test(test_needs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
