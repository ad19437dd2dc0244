/* Greedy decoding: the argmax of the device is that of its logits; a run of greedy steps is the same as steps one by one; launches
 * can be timed. For every family, on the CPU. */
#include "engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const char *const g_models[] = {"llama-a.F32",     "llama-q.Q4_K-pure", "qwen35-mtp.F32",
                                       "qwen35moe-a.F32", "gemma3-a.F32",      "gemma4-ple.F32"};
static const int32_t g_prompt[] = {5, 9, 44, 17, 3};
enum { N = 24, CONTEXT = 64 };

typedef struct rig {
    tn_model *m;
    tn_session *s;
    int32_t found[CONTEXT], n, limit;
} rig;

static rig open_rig(const char *name, int32_t n_ctx) {
    char path[400];
    tn_error err = {0};
    rig r = {.limit = CONTEXT};
    snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, name);
    if (tn_model_open(&r.m, path, &(tn_model_options){.threads = 2}, &err) != TN_OK) fail_msg("%s", err.text);
    if (tn_session_open(&r.s, r.m, &(tn_session_options){.n_ctx = n_ctx}, &err) != TN_OK) fail_msg("%s", err.text);
    return r;
}

static void close_rig(rig *r) {
    tn_session_close(&r->s);
    tn_model_close(&r->m);
}

static int32_t argmax(const float *x, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* Feeds the prompt; the token chosen after it. */
static int32_t feed_prompt(rig *r) {
    tn_error err = {0};
    if (tn_step(r->s, &(tn_batch){.ids = g_prompt, .n_tokens = COUNT(g_prompt)}, &err) != TN_OK)
        fail_msg("%s", err.text);
    assert_int_equal(tn_chosen(r->s, 0), argmax(tn_logits(r->s, 0), r->m->hp.n_vocab));
    assert_int_equal(tn_chosen(r->s, 1), -1);
    assert_int_equal(tn_chosen(r->s, -1), -1);
    return tn_chosen(r->s, 0);
}

static bool note(void *data, int32_t id) {
    rig *r = data;
    r->found[r->n++] = id;
    return r->n < r->limit;
}

static tn_status go(rig *r, int32_t id, int32_t n, tn_error *err) {
    return tn_step_greedy(r->s, &(tn_greedy){.id = id, .n = n, .each = note, .data = r}, err);
}

static void test_same_as_steps(void **state) {
    (void)state;
    for (size_t m = 0; m < COUNT(g_models); m++) {
        rig a = open_rig(g_models[m], CONTEXT), b = open_rig(g_models[m], CONTEXT);
        int32_t id = feed_prompt(&a), other = feed_prompt(&b);
        tn_error err = {0};
        assert_int_equal(id, other);
        if (go(&b, other, N, &err) != TN_OK) fail_msg("%s", err.text);
        assert_int_equal(b.n, N);
        for (int32_t i = 0; i < N; i++) {
            tn_batch one = {.ids = &id, .n_tokens = 1, .chosen_only = i & 1};
            if (tn_step(a.s, &one, &err) != TN_OK) fail_msg("%s", err.text);
            if (i & 1)
                assert_null(tn_logits(a.s, 0));
            else
                assert_int_equal(tn_chosen(a.s, 0), argmax(tn_logits(a.s, 0), a.m->hp.n_vocab));
            id = tn_chosen(a.s, 0);
            assert_int_equal(b.found[i], id);
        }
        assert_int_equal(tn_sequence_length(a.s, 0), tn_sequence_length(b.s, 0));
        assert_null(tn_logits(b.s, 0));
        close_rig(&a);
        close_rig(&b);
    }
}

/* It ends where `each` says so, where enough were found, and where the context is full; what is wrong changes nothing. */
static void test_ends(void **state) {
    (void)state;
    enum { SMALL = 12, LEFT = SMALL - (int)COUNT(g_prompt) };
    rig r = open_rig(g_models[0], SMALL);
    tn_error err = {0};
    int32_t id = feed_prompt(&r), length = COUNT(g_prompt);
    assert_int_equal(go(&r, id, 0, &err), TN_OK);
    assert_int_equal(go(&r, -5, 3, &err), TN_ERR_USAGE);
    assert_int_equal(go(&r, r.m->hp.n_vocab, 3, &err), TN_ERR_USAGE);
    assert_int_equal(r.n, 0);
    assert_int_equal(tn_sequence_length(r.s, 0), length);
    r.limit = 2;
    assert_int_equal(go(&r, id, 5, &err), TN_OK);
    assert_int_equal(r.n, 2);
    assert_int_equal(tn_sequence_length(r.s, 0), length + 2);
    r.limit = CONTEXT;
    assert_int_equal(go(&r, r.found[1], 100, &err), TN_OK);
    assert_int_equal(r.n, LEFT);
    assert_int_equal(tn_sequence_length(r.s, 0), SMALL);
    assert_int_equal(go(&r, id, 1, &err), TN_ERR_INPUT);
    assert_int_equal(r.n, LEFT);
    close_rig(&r);
}

/* Launches run one after the other, within the step; the step counts like any other. */
static void test_timed(void **state) {
    (void)state;
    for (size_t m = 0; m < COUNT(g_models); m++) {
        rig r = open_rig(g_models[m], CONTEXT);
        tn_error err = {0};
        tn_session_info info;
        tn_launch_time times[512];
        tn_session_get_info(r.s, &info);
        assert_true(info.launches_prefill <= (int32_t)COUNT(times) && info.launches_decode <= (int32_t)COUNT(times));
        for (int phase = 0; phase < 2; phase++) {
            int32_t n = phase ? info.launches_decode : info.launches_prefill;
            tn_batch batch = {.ids = g_prompt, .n_tokens = phase ? 1 : COUNT(g_prompt)};
            memset(times, 0xff, sizeof times);
            if (tn_step_timed(r.s, &batch, times, &err) != TN_OK) fail_msg("%s", err.text);
            for (int32_t i = 0; i < n; i++)
                assert_true(times[i].start >= (i ? times[i - 1].end : 0) && times[i].end >= times[i].start);
            assert_true(times[n - 1].end > 0 && times[n - 1].end < 60);
        }
        assert_int_equal(tn_sequence_length(r.s, 0), COUNT(g_prompt) + 1);
        close_rig(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_steps),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_timed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
