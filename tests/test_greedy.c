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
    if (tn_step(r->s,
                &(tn_batch){.ids = g_prompt, .n_tokens = COUNT(g_prompt), .want = TN_WANT_LOGITS | TN_WANT_CHOSEN},
                &err) != TN_OK)
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
            tn_batch one = {.ids = &id, .n_tokens = 1, .want = TN_WANT_CHOSEN | (i & 1 ? 0 : TN_WANT_LOGITS)};
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
    assert_int_equal(feed_prompt(&r) >= 0 && tn_sequence_cut(r.s, 0, length, &err) == TN_OK, true);
    assert_int_equal(go(&r, -5, 3, &err), TN_ERR_USAGE);
    assert_non_null(tn_logits(r.s, 0)); /* what was refused leaves the last step's logits */
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

/* ---- a device that works ahead ---- */

/* The CPU, said to hold two steps at once; a step, or waiting for it, fails when its turn comes. */
static struct {
    const tn_backend *cpu;
    tn_caps caps;
    int32_t id[2], n_submitted, n_waited;
    int32_t fail_submit, fail_wait; /* which one, from 1; 0: none */
} g_device;

static const tn_caps *ahead_caps(const tn_device *d) {
    g_device.caps = *g_device.cpu->caps(d);
    g_device.caps.ahead = 2;
    return &g_device.caps;
}

static tn_status ahead_submit(tn_program *p, const tn_step_input *step, int want, tn_error *err) {
    tn_result result;
    if (++g_device.n_submitted == g_device.fail_submit) return tn_fail(err, TN_ERR_RESOURCES, "a submit that fails");
    assert_true(g_device.n_submitted - g_device.n_waited <= 2);
    assert_int_equal(want, TN_WANT_CHOSEN);
    if (step->ids[0] == TN_ID_CHOSEN) assert_int_equal(g_device.n_submitted - g_device.n_waited, 2);
    tn_status status = g_device.cpu->submit(p, step, want, err);
    if (status == TN_OK) status = g_device.cpu->wait(p, &result, err);
    if (status == TN_OK) g_device.id[g_device.n_submitted % 2] = result.ids[0];
    return status;
}

static tn_status ahead_wait(tn_program *p, tn_result *result, tn_error *err) {
    (void)p;
    assert_true(g_device.n_waited < g_device.n_submitted);
    if (++g_device.n_waited == g_device.fail_wait) return tn_fail(err, TN_ERR_RESOURCES, "a wait that fails");
    *result = (tn_result){.ids = &g_device.id[g_device.n_waited % 2]};
    return TN_OK;
}

/* Greedy steps on it, from a fresh prompt. */
static tn_status go_ahead(rig *r, int32_t n, int32_t fail_submit, int32_t fail_wait, tn_error *err) {
    tn_backend device = *r->m->backend;
    assert_int_equal(tn_sequence_cut(r->s, 0, 0, err), TN_OK);
    int32_t id = feed_prompt(r);
    memset(&g_device, 0, sizeof g_device);
    g_device.cpu = r->m->backend;
    g_device.fail_submit = fail_submit;
    g_device.fail_wait = fail_wait;
    device.caps = ahead_caps;
    device.submit = ahead_submit;
    device.wait = ahead_wait;
    r->m->backend = &device;
    r->n = 0;
    tn_status status = go(r, id, n, err);
    r->m->backend = g_device.cpu;
    return status;
}

static void test_ahead(void **state) {
    (void)state;
    for (size_t m = 0; m < COUNT(g_models); m++) {
        rig a = open_rig(g_models[m], CONTEXT), b = open_rig(g_models[m], CONTEXT);
        tn_error err = {0};
        int32_t prompt = COUNT(g_prompt);
        assert_int_equal(go(&a, feed_prompt(&a), N, &err), TN_OK);
        assert_int_equal(go_ahead(&b, N, 0, 0, &err), TN_OK);
        assert_memory_equal(a.found, b.found, N * sizeof *a.found);
        assert_int_equal(tn_sequence_length(b.s, 0), prompt + N);
        b.limit = 3; /* the third token is in the sequence already */
        assert_int_equal(go_ahead(&b, N, 0, 0, &err), TN_OK);
        assert_int_equal(b.n, 3);
        assert_int_equal(tn_sequence_length(b.s, 0), prompt + 4);
        assert_int_equal(g_device.n_submitted, g_device.n_waited);
        b.limit = CONTEXT;
        for (int32_t k = 1; k <= 4; k++)
            for (int wait = 0; wait < 2; wait++) { /* what was found stays, the rest is taken back */
                assert_int_equal(go_ahead(&b, N, wait ? 0 : k, wait ? k : 0, &err), TN_ERR_RESOURCES);
                int32_t found = wait ? k - 1 : k > 2 ? k - 2 : 0;
                assert_int_equal(b.n, found);
                assert_memory_equal(a.found, b.found, (size_t)found * sizeof *a.found);
                assert_int_equal(tn_sequence_length(b.s, 0), b.s->recurrent ? 0 : prompt + found);
                assert_int_equal(g_device.n_submitted - (wait ? 0 : 1), g_device.n_waited);
            }
        close_rig(&a);
        close_rig(&b);
    }
}

/* Launches run one after the other, within the step; the step counts like any other. */
static void test_timed(void **state) {
    (void)state;
    for (size_t m = 0; m < COUNT(g_models); m++) {
        rig r = open_rig(g_models[m], CONTEXT);
        tn_error err = {0};
        tn_launch_time times[512];
        for (int one = 0; one < 2; one++) {
            tn_batch batch = {.ids = g_prompt, .n_tokens = one ? 1 : COUNT(g_prompt)};
            int32_t n = tn_launch_count(r.s, tn_phase_of(r.s, batch.n_tokens));
            assert_in_range(n, 1, COUNT(times));
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
        cmocka_unit_test(test_ahead),
        cmocka_unit_test(test_timed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
