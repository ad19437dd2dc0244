/* Sessions: however tokens are cut into steps, sequences mixed, launches fused and work shared among threads, the bits are
 * the same; sequences cut back and continued; errors that leave everything as it was; memory that runs out anywhere. */
#include "engine.h"

#include "base/mem.h"
#include "failing.h"
#include "fuse/rule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* f32 throughout; int8 activations and f16 cache; a model of each kind of layout. */
static const char *const g_models[] = {"llama-a.F32", "llama-q.Q4_K-pure"};

enum { N_IDS = 80 }; /* more than a page of the cache */

static int32_t id_at(int32_t i, int32_t n_vocab) {
    return (i * 37 + i * i * 11 + 5) % n_vocab;
}

/* ---- a session with its model ---- */

typedef struct bench {
    tn_model *m;
    tn_session *s;
    int32_t ids[N_IDS];
    size_t row; /* bytes of a row of logits */
} bench;

static tn_model *open_model(const char *name, int threads) {
    char path[400];
    tn_error err = {0};
    tn_model *m;
    snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, name);
    if (tn_model_open(&m, path, &(tn_model_options){.threads = threads}, &err) != TN_OK) fail_msg("%s", err.text);
    return m;
}

static bench open_bench(const char *name, int threads, tn_session_options options) {
    bench b = {.m = open_model(name, threads)};
    tn_error err = {0};
    if (!options.n_ctx) options.n_ctx = N_IDS;
    if (tn_session_open(&b.s, b.m, &options, &err) != TN_OK) fail_msg("%s", err.text);
    for (int32_t i = 0; i < N_IDS; i++) b.ids[i] = id_at(i, b.m->hp.n_vocab);
    b.row = (size_t)b.m->hp.n_vocab * sizeof(float);
    return b;
}

static void close_bench(bench *b) {
    tn_session_close(&b->s);
    tn_model_close(&b->m);
    assert_null(b->s);
    assert_null(b->m);
}

static void step(bench *b, const int32_t *ids, const int32_t *seqs, int32_t n) {
    tn_error err = {0};
    if (tn_step(b->s, &(tn_batch){ids, seqs, n}, &err) != TN_OK) fail_msg("%s", err.text);
}

/* The logits of ids fed to sequence 0 in steps of `chunk`: every token's where the session keeps them, else the last's of
 * each step. */
static char *feed(bench *b, int32_t n, int32_t chunk) {
    char *rows = calloc((size_t)n, b->row);
    assert_non_null(rows);
    for (int32_t i = 0; i < n; i += chunk) {
        int32_t count = n - i < chunk ? n - i : chunk, kept = tn_logits_rows(b->s);
        step(b, b->ids + i, NULL, count);
        kept = tn_logits_rows(b->s);
        for (int32_t k = 0; k < kept; k++)
            memcpy(rows + (size_t)(i + count - kept + k) * b->row, tn_logits(b->s, k), b->row);
    }
    return rows;
}

static char *feed_model(const char *name, int threads, tn_session_options options, int32_t chunk) {
    bench b = open_bench(name, threads, options);
    char *rows = feed(&b, N_IDS, chunk);
    close_bench(&b);
    return rows;
}

/* ---- the same bits ---- */

static void test_chunks(void **state) {
    (void)state;
    static const struct {
        int32_t chunk, n_ubatch;
    } ways[] = {{1, 0}, {7, 0}, {N_IDS, 5}, {N_IDS, 1}, {33, 32}, {64, 64}, {65, 64}};
    for (size_t m = 0; m < COUNT(g_models); m++) {
        char *whole = feed_model(g_models[m], 2, (tn_session_options){.all_logits = true}, N_IDS);
        size_t bytes = (size_t)N_IDS * 320 * sizeof(float);
        for (size_t i = 0; i < COUNT(ways); i++) {
            tn_session_options options = {.all_logits = true, .n_ubatch = ways[i].n_ubatch};
            char *cut = feed_model(g_models[m], 2, options, ways[i].chunk);
            assert_memory_equal(whole, cut, bytes);
            free(cut);
        }
        /* without all_logits only the last row of a step is kept, and it is the same */
        for (size_t i = 0; i < COUNT(ways); i++) {
            tn_session_options options = {.n_ubatch = ways[i].n_ubatch};
            char *cut = feed_model(g_models[m], 2, options, ways[i].chunk);
            size_t last = (N_IDS - 1) * 320 * sizeof(float);
            assert_memory_equal(whole + last, cut + last, 320 * sizeof(float));
            free(cut);
        }
        free(whole);
    }
}

static void test_threads(void **state) {
    (void)state;
    for (size_t m = 0; m < COUNT(g_models); m++) {
        char *one = feed_model(g_models[m], 1, (tn_session_options){.all_logits = true}, 9);
        for (int threads = 2; threads <= 5; threads++) {
            char *more = feed_model(g_models[m], threads, (tn_session_options){.all_logits = true}, 9);
            assert_memory_equal(one, more, (size_t)N_IDS * 320 * sizeof(float));
            free(more);
        }
        free(one);
    }
}

/* Every rule left out, every rule alone, all, none: prefill (a first step of many) and decode (single tokens). */
/* Contexts of several segments: the logits of a prompt's end and of a few decode steps of sequences of different lengths. */
static char *feed_deep(const char *name, int threads, size_t *bytes) {
    enum { DEEP = 1100, STEPS = 3 };
    static const int32_t length[] = {DEEP, 520, 7}, seqs[] = {0, 1, 2};
    bench b = open_bench(name, threads, (tn_session_options){.n_ctx = DEEP + STEPS, .n_seq = COUNT(length)});
    *bytes = b.row * COUNT(length) * (STEPS + 1);
    char *rows = malloc(*bytes), *to = rows;
    assert_non_null(rows);
    for (int32_t s = 0; s < (int32_t)COUNT(length); s++, to += b.row) {
        for (int32_t i = 0; i < length[s]; i += N_IDS) {
            int32_t own[N_IDS], n = length[s] - i < N_IDS ? length[s] - i : N_IDS;
            for (int32_t k = 0; k < n; k++) own[k] = s;
            step(&b, b.ids, own, n);
        }
        memcpy(to, tn_logits(b.s, 0), b.row);
    }
    for (int32_t i = 0; i < STEPS; i++) {
        step(&b, b.ids + i, seqs, COUNT(seqs));
        for (int32_t s = 0; s < (int32_t)COUNT(seqs); s++, to += b.row) memcpy(to, tn_logits(b.s, s), b.row);
    }
    close_bench(&b);
    return rows;
}

static void test_long_contexts(void **state) {
    (void)state;
    static const char *const models[] = {"llama-q.Q4_K-pure", "gemma3-a.F32"};
    for (size_t m = 0; m < COUNT(models); m++) {
        size_t bytes, other;
        char *one = feed_deep(models[m], 1, &bytes);
        for (int threads = 2; threads <= 5; threads++) {
            char *many = feed_deep(models[m], threads, &other);
            assert_int_equal(bytes, other);
            assert_memory_equal(one, many, bytes);
            free(many);
        }
        free(one);
    }
}

static void test_fusion(void **state) {
    (void)state;
    for (size_t m = 0; m < COUNT(g_models); m++)
        for (int32_t chunk = 1; chunk <= 27; chunk += 26) {
            char *none = feed_model(g_models[m], 2, (tn_session_options){.all_logits = true, .fuse = "none"}, chunk);
            char *all = feed_model(g_models[m], 2, (tn_session_options){.all_logits = true}, chunk);
            assert_memory_equal(none, all, (size_t)N_IDS * 320 * sizeof(float));
            free(all);
            for (int32_t t = 0; t < tn_n_rule_tables; t++)
                for (int32_t r = 0; r < 2 * tn_rule_tables[t].n; r++) {
                    char spec[80];
                    snprintf(spec, sizeof spec, "%s%s", r & 1 ? "-" : "", tn_rule_tables[t].rules[r / 2].name);
                    tn_session_options options = {.all_logits = true, .fuse = spec};
                    char *some = feed_model(g_models[m], 2, options, chunk);
                    if (memcmp(none, some, (size_t)N_IDS * 320 * sizeof(float))) fail_msg("--fuse %s differs", spec);
                    free(some);
                }
            free(none);
        }
}

/* ---- several sequences ---- */

/* Sequence q's tokens: the common ones from another place on. */
static void ids_of(const bench *b, int32_t q, int32_t *ids, int32_t n) {
    for (int32_t i = 0; i < n; i++) ids[i] = b->ids[(i + 13 * q) % N_IDS];
}

/* Three sequences of different lengths, mixed in several ways, against each by itself. */
static void test_sequences(void **state) {
    (void)state;
    enum { N = 30, SEQS = 3 };
    for (size_t m = 0; m < COUNT(g_models); m++)
        for (int mix = 0; mix < 4; mix++) {
            bench alone = open_bench(g_models[m], 1, (tn_session_options){.all_logits = true});
            bench b =
                open_bench(g_models[m], 2,
                           (tn_session_options){.n_seq = SEQS, .all_logits = true, .n_ubatch = mix == 3 ? 4 : 0});
            int32_t ids[SEQS][N], order[SEQS * N], seqs[SEQS * N], batch[SEQS * N], fed[SEQS] = {0}, n = 0;
            char *want[SEQS];
            for (int32_t q = 0; q < SEQS; q++) {
                ids_of(&b, q, ids[q], N);
                tn_sequence_cut(alone.s, 0, 0, NULL);
                memcpy(alone.ids, ids[q], sizeof ids[q]);
                want[q] = feed(&alone, N, N);
            }
            for (int32_t i = 0; i < SEQS * N; i++) { /* in turn; in blocks; unevenly */
                int32_t q = mix == 1 ? i / 5 % SEQS : mix == 2 ? (i * i) % SEQS : i % SEQS;
                if (fed[q] == N) continue;
                seqs[n] = q;
                order[n] = fed[q];
                batch[n++] = ids[q][fed[q]++];
            }
            for (int32_t at = 0; at < n;) {
                int32_t count = mix == 0 ? SEQS : 17; /* mix 0 decodes: one token a sequence */
                if (count > n - at) count = n - at;
                step(&b, batch + at, seqs + at, count);
                assert_int_equal(tn_logits_rows(b.s), count);
                for (int32_t k = 0; k < count; k++)
                    assert_memory_equal(tn_logits(b.s, k), want[seqs[at + k]] + (size_t)order[at + k] * b.row, b.row);
                at += count;
            }
            for (int32_t q = 0; q < SEQS; q++) {
                assert_int_equal(tn_sequence_length(b.s, q), fed[q]);
                free(want[q]);
            }
            close_bench(&b);
            close_bench(&alone);
        }
}

/* Rows come in the order in which sequences first appear, one for each. */
static void test_row_order(void **state) {
    (void)state;
    bench alone = open_bench("llama-a.F32", 1, (tn_session_options){0});
    bench b = open_bench("llama-a.F32", 1, (tn_session_options){.n_seq = 4});
    static const int32_t seqs[] = {2, 0, 2, 3, 0, 2}, first_seen[] = {2, 0, 3};
    step(&b, b.ids, seqs, COUNT(seqs));
    assert_int_equal(tn_logits_rows(b.s), 3);
    for (int32_t row = 0; row < 3; row++) {
        int32_t ids[COUNT(seqs)], n = 0;
        for (size_t i = 0; i < COUNT(seqs); i++)
            if (seqs[i] == first_seen[row]) ids[n++] = b.ids[i];
        assert_int_equal(tn_sequence_cut(alone.s, 0, 0, NULL), TN_OK);
        step(&alone, ids, NULL, n);
        assert_memory_equal(tn_logits(b.s, row), tn_logits(alone.s, 0), b.row);
    }
    assert_null(tn_logits(b.s, 3));
    assert_null(tn_logits(b.s, -1));
    close_bench(&b);
    close_bench(&alone);
}

/* ---- cutting ---- */

/* Cut back to any length and fed on, a sequence is as if it had never been longer. */
static void test_cut(void **state) {
    (void)state;
    static const int32_t keeps[] = {0, 1, 9, 63, 64, 65, 70};
    for (size_t m = 0; m < COUNT(g_models); m++) {
        bench b = open_bench(g_models[m], 1, (tn_session_options){.all_logits = true});
        char *want = feed(&b, N_IDS, N_IDS);
        for (size_t i = 0; i < COUNT(keeps); i++) {
            int32_t keep = keeps[i];
            int32_t other[70];
            tn_sequence_cut(b.s, 0, 0, NULL);
            assert_int_equal(tn_sequence_length(b.s, 0), 0);
            for (int32_t k = 0; k < 70; k++) other[k] = k < keep ? b.ids[k] : 7; /* a wrong continuation */
            step(&b, other, NULL, 70);
            assert_int_equal(tn_sequence_cut(b.s, 0, keep, NULL), TN_OK);
            assert_int_equal(tn_sequence_length(b.s, 0), keep);
            step(&b, b.ids + keep, NULL, N_IDS - keep);
            for (int32_t k = keep; k < N_IDS; k++)
                assert_memory_equal(tn_logits(b.s, k - keep), want + (size_t)k * b.row, b.row);
        }
        free(want);
        close_bench(&b);
    }
}

/* Pages go from one sequence to another and come back in other orders. */
static void test_pages_are_reused(void **state) {
    (void)state;
    bench b = open_bench("llama-a.F32", 1, (tn_session_options){.n_ctx = 200, .n_seq = 3});
    bench fresh = open_bench("llama-a.F32", 1, (tn_session_options){.n_ctx = 200});
    uint32_t x = 1;
    for (int round = 0; round < 30; round++) {
        x = x * 1664525u + 1013904223u;
        int32_t q = (int32_t)(x >> 8) % 3, n = (int32_t)(x >> 12) % N_IDS + 1, seqs[N_IDS];
        for (int32_t i = 0; i < n; i++) seqs[i] = q;
        if (tn_sequence_length(b.s, q) + n > 200 || x & 1 << 20)
            assert_int_equal(tn_sequence_cut(b.s, q, 0, NULL), TN_OK);
        int32_t before = tn_sequence_length(b.s, q);
        step(&b, b.ids, seqs, n);
        if (before) continue; /* what a fresh session would give */
        tn_sequence_cut(fresh.s, 0, 0, NULL);
        step(&fresh, b.ids, NULL, n);
        assert_memory_equal(tn_logits(b.s, 0), tn_logits(fresh.s, 0), b.row);
    }
    close_bench(&b);
    close_bench(&fresh);
}

static void test_bad_cuts(void **state) {
    (void)state;
    bench b = open_bench("llama-a.F32", 1, (tn_session_options){.n_seq = 2});
    tn_error err = {0};
    step(&b, b.ids, NULL, 5);
    assert_int_equal(tn_sequence_cut(b.s, 0, 6, &err), TN_ERR_USAGE);
    assert_int_equal(tn_sequence_cut(b.s, 0, -1, &err), TN_ERR_USAGE);
    assert_int_equal(tn_sequence_cut(b.s, 2, 0, &err), TN_ERR_USAGE);
    assert_int_equal(tn_sequence_cut(b.s, -1, 0, &err), TN_ERR_USAGE);
    assert_int_equal(tn_sequence_cut(b.s, 1, 0, &err), TN_OK); /* empty as it is */
    assert_int_equal(tn_sequence_length(b.s, 0), 5);
    assert_int_equal(tn_sequence_length(b.s, 2), 0);
    assert_int_equal(tn_sequence_length(b.s, -1), 0);
    close_bench(&b);
}

/* ---- errors ---- */

/* What does not fit is refused whole: lengths, logits and everything that comes after are as if nobody had asked. */
static void test_context_full(void **state) {
    (void)state;
    bench b = open_bench("llama-a.F32", 1, (tn_session_options){.n_ctx = 20, .n_seq = 2, .n_ubatch = 4});
    bench other = open_bench("llama-a.F32", 1, (tn_session_options){.n_ctx = 20, .n_seq = 2, .n_ubatch = 4});
    tn_error err = {0};
    int32_t seqs[N_IDS] = {0};
    for (int32_t i = 0; i < 12; i++) seqs[i] = i >= 6; /* 6 and 6 tokens, then all of sequence 1 */
    for (int32_t i = 12; i < N_IDS; i++) seqs[i] = 1;
    step(&b, b.ids, seqs, 12);
    step(&other, b.ids, seqs, 12);
    char *before = malloc(2 * b.row);
    for (int32_t k = 0; k < 2; k++) memcpy(before + (size_t)k * b.row, tn_logits(b.s, k), b.row);
    assert_int_equal(tn_step(b.s, &(tn_batch){b.ids, seqs + 6, 21}, &err), TN_ERR_INPUT);
    assert_non_null(strstr(err.text, "20"));
    assert_int_equal(tn_step(b.s, &(tn_batch){b.ids, NULL, 15}, &err), TN_ERR_INPUT);
    assert_int_equal(tn_sequence_length(b.s, 0), 6);
    assert_int_equal(tn_sequence_length(b.s, 1), 6);
    assert_int_equal(tn_logits_rows(b.s), 2);
    for (int32_t k = 0; k < 2; k++) assert_memory_equal(before + (size_t)k * b.row, tn_logits(b.s, k), b.row);
    step(&b, b.ids, NULL, 14); /* to the brim */
    step(&other, b.ids, NULL, 14);
    assert_memory_equal(tn_logits(b.s, 0), tn_logits(other.s, 0), b.row);
    assert_int_equal(tn_step(b.s, &(tn_batch){b.ids, NULL, 1}, &err), TN_ERR_INPUT);
    step(&b, b.ids, seqs + 6, 14);
    step(&other, b.ids, seqs + 6, 14);
    assert_memory_equal(tn_logits(b.s, 0), tn_logits(other.s, 0), b.row);
    free(before);
    close_bench(&b);
    close_bench(&other);
}

static void test_bad_batches(void **state) {
    (void)state;
    bench b = open_bench("llama-a.F32", 1, (tn_session_options){.n_seq = 2});
    tn_error err = {0};
    static const int32_t ids[][3] = {{1, 2, -1}, {1, 2, 320}, {INT32_MIN, 0, 0}, {1, INT32_MAX, 0}};
    static const int32_t seqs[][3] = {{0, 0, 2}, {-1, 0, 0}, {0, INT32_MAX, 0}};
    step(&b, b.ids, NULL, 3);
    for (size_t i = 0; i < COUNT(ids); i++)
        assert_int_equal(tn_step(b.s, &(tn_batch){ids[i], NULL, 3}, &err), TN_ERR_USAGE);
    assert_non_null(strstr(err.text, "vocabulary of 320"));
    for (size_t i = 0; i < COUNT(seqs); i++)
        assert_int_equal(tn_step(b.s, &(tn_batch){b.ids, seqs[i], 3}, &err), TN_ERR_USAGE);
    assert_int_equal(tn_step(b.s, &(tn_batch){b.ids, NULL, 0}, &err), TN_ERR_USAGE);
    assert_int_equal(tn_step(b.s, &(tn_batch){b.ids, NULL, -3}, &err), TN_ERR_USAGE);
    assert_int_equal(tn_sequence_length(b.s, 0), 3);
    assert_int_equal(tn_sequence_length(b.s, 1), 0);
    assert_int_equal(tn_logits_rows(b.s), 1);
    close_bench(&b);
}

static void test_bad_options(void **state) {
    (void)state;
    static const tn_session_options bad[] = {
        {.n_ctx = -1},        {.n_seq = -1},           {.n_ubatch = -1},
        {.n_ctx = 1 << 25},   {.n_seq = 1 << 20},      {.n_ubatch = 1 << 30},
        {.fuse = "nonsense"}, {.fuse = "group,-norm"}, {.kv_type = TN_KV_Q8_0}, /* heads of 16 */
    };
    tn_model *m = open_model("llama-a.F32", 1);
    tn_error err = {0};
    for (size_t i = 0; i < COUNT(bad); i++) {
        tn_session *s = (tn_session *)m;
        if (tn_session_open(&s, m, &bad[i], &err) != TN_ERR_USAGE) fail_msg("options %zu are accepted", i);
        assert_null(s);
    }
    tn_model_close(&m);
    tn_model *none = NULL;
    tn_session *never = NULL;
    assert_int_equal(tn_model_open(&none, "/nowhere", NULL, &err), TN_ERR_INPUT);
    assert_null(none);
    tn_model_close(&none);
    tn_session_close(&never);
}

static void test_defaults(void **state) {
    (void)state;
    tn_model *m = open_model("llama-a.F32", 1);
    tn_session *s;
    tn_session_info info;
    assert_int_equal(tn_session_open(&s, m, NULL, NULL), TN_OK);
    tn_session_get_info(s, &info);
    assert_int_equal(info.n_ctx, m->hp.n_ctx_train < 4096 ? m->hp.n_ctx_train : 4096);
    assert_int_equal(info.n_seq, 1);
    assert_int_equal(info.n_ubatch, 512);
    int32_t positions = (info.n_ctx + TN_PAGE_TOKENS - 1) / TN_PAGE_TOKENS * TN_PAGE_TOKENS;
    assert_int_equal(info.kv_bytes, positions * m->hp.n_layer * m->hp.n_kv * (m->hp.head_dim + m->hp.v_dim) * 2);
    assert_int_equal(tn_logits_rows(s), 0);
    assert_null(tn_logits(s, 0));
    tn_session_close(&s);
    tn_model_close(&m);
}

/* What a cache of another type costs, in NMSE of the logits. */
static void test_kv_types(void **state) {
    (void)state;
    static const struct {
        tn_kv_type type;
        double bound;
    } types[] = {{TN_KV_F16, 1e-5}, {TN_KV_Q8_0, 1e-3}};
    tn_session_options f32 = {.kv_type = TN_KV_F32, .act = TN_ACT_F32, .all_logits = true};
    float *want = (float *)feed_model("llama-q.Q4_K-pure", 1, f32, 9);
    for (size_t i = 0; i < COUNT(types); i++) {
        tn_session_options options = f32;
        options.kv_type = types[i].type;
        float *got = (float *)feed_model("llama-q.Q4_K-pure", 1, options, 9);
        double error = 0, power = 0;
        for (size_t k = 0; k < (size_t)N_IDS * 320; k++) {
            error += (double)(got[k] - want[k]) * (double)(got[k] - want[k]);
            power += (double)want[k] * (double)want[k];
        }
        assert_true(error > 0 && error / power <= types[i].bound);
        free(got);
    }
    free(want);
}

/* ---- memory ---- */

enum { VOCAB = 320 };

/* Opens, steps and closes; whatever fails says that memory ran out. */
static tn_status whole_run(const char *path, bool *stepped, float *logits) {
    tn_error err = {0};
    tn_model *m = NULL;
    tn_session *s = NULL;
    static const int32_t ids[] = {1, 2, 3, 4, 5};
    *stepped = false;
    tn_status status = tn_model_open(&m, path, &(tn_model_options){.threads = 2}, &err);
    if (status == TN_OK) status = tn_session_open(&s, m, &(tn_session_options){.n_ctx = 16, .n_ubatch = 2}, &err);
    if (status == TN_OK) {
        *stepped = true;
        status = tn_step(s, &(tn_batch){.ids = ids, .n_tokens = 5}, &err);
        assert_int_equal(tn_sequence_length(s, 0), status == TN_OK ? 5 : 0);
    }
    if (status == TN_OK) memcpy(logits, tn_logits(s, 0), VOCAB * sizeof *logits);
    assert_true(status == TN_OK || err.text[0]);
    tn_session_close(&s);
    tn_model_close(&m);
    return status;
}

/* Each allocation fails; only the compiler of the tokenizer's pattern can do without, and then nothing differs. */
static void test_out_of_memory(void **state) {
    (void)state;
    char path[400];
    long in_step = 0;
    bool stepped;
    float want[VOCAB], got[VOCAB];
    tn_failing f = {0};
    snprintf(path, sizeof path, "%s/reference/llama-q.Q2_K-pure.gguf", TESTS_DATA_BUILD);
    assert_int_equal(whole_run(path, &stepped, want), TN_OK);
    while (!f.done) {
        long n = f.n;
        tn_failing_start(&f);
        tn_status status = whole_run(path, &stepped, got);
        bool failed = tn_failing_stop(&f);
        in_step += stepped;
        if (status == TN_OK)
            assert_memory_equal(got, want, sizeof want);
        else if (status != TN_ERR_RESOURCES || !failed)
            fail_msg("allocation %ld: status %d", n, (int)status);
        assert_true(n < 100000);
    }
    assert_true(f.n > 50 && in_step > 3); /* it was met in the open and in the step */
}

/* ---- a backend that wants a plan of its own for few tokens: the CPU that says so ---- */

enum { FEW = 3 };
static tn_backend g_few;
static tn_caps g_few_caps;
static tn_program *g_submitted;

static const tn_caps *few_caps(const tn_device *d) {
    (void)d;
    return &g_few_caps;
}
static tn_status few_submit(tn_program *p, const tn_step_input *in, int want, tn_error *err) {
    g_submitted = p;
    return tn_backend_find("cpu", &(const char *){NULL})->submit(p, in, want, err);
}

static bench open_few(int32_t n_ubatch, int32_t n_seq) {
    bench b = open_bench(g_models[1], 2, (tn_session_options){.n_ubatch = n_ubatch, .n_seq = n_seq});
    tn_error err = {0};
    tn_session_options options = b.s->options;
    tn_session_close(&b.s);
    g_few_caps = *b.m->backend->caps(b.m->device);
    g_few_caps.few = FEW;
    g_few = *b.m->backend;
    g_few.caps = few_caps;
    g_few.submit = few_submit;
    b.m->backend = &g_few;
    options.fuse = NULL;
    if (tn_session_open(&b.s, b.m, &options, &err) != TN_OK) fail_msg("%s", err.text);
    return b;
}

/* Which plan runs how many tokens; the bits are those of any other cut. */
static void test_few(void **state) {
    (void)state;
    static const struct {
        int32_t n_ubatch, n_seq, n;
        tn_phase phase;
    } cases[] = {{16, 1, 1, TN_PHASE_DECODE},   {16, 1, 2, TN_PHASE_FEW},      {16, 1, FEW, TN_PHASE_FEW},
                 {16, 1, 4, TN_PHASE_PREFILL},  {16, 2, 2, TN_PHASE_FEW},      {16, 1, 16 + 2, TN_PHASE_FEW},
                 {FEW, 1, 2, TN_PHASE_PREFILL}, {16, 1, 16, TN_PHASE_PREFILL}, {2, 1, 2, TN_PHASE_PREFILL}};
    bench plain = open_bench(g_models[1], 2, (tn_session_options){0});
    for (size_t i = 0; i < COUNT(cases); i++) {
        bench b = open_few(cases[i].n_ubatch, cases[i].n_seq);
        tn_error err = {0};
        assert_int_equal(tn_launch_count(b.s, TN_PHASE_FEW) > 0, cases[i].n_ubatch > FEW);
        assert_int_equal(b.s->plan[TN_PHASE_FEW].graph.max_tokens, cases[i].n_ubatch > FEW ? FEW : 0);
        step(&b, b.ids, NULL, cases[i].n);
        assert_ptr_equal(g_submitted, b.s->program[cases[i].phase]);
        if (cases[i].n <= cases[i].n_ubatch) assert_int_equal(tn_phase_of(b.s, cases[i].n), cases[i].phase);
        assert_int_equal(tn_sequence_cut(plain.s, 0, 0, &err), TN_OK);
        step(&plain, b.ids, NULL, cases[i].n);
        assert_memory_equal(tn_logits(b.s, 0), tn_logits(plain.s, 0), b.row);
        close_bench(&b);
    }
    close_bench(&plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks),        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_fusion),        cmocka_unit_test(test_long_contexts),
        cmocka_unit_test(test_sequences),     cmocka_unit_test(test_row_order),
        cmocka_unit_test(test_cut),           cmocka_unit_test(test_pages_are_reused),
        cmocka_unit_test(test_bad_cuts),      cmocka_unit_test(test_context_full),
        cmocka_unit_test(test_bad_batches),   cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_defaults),      cmocka_unit_test(test_kv_types),
        cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
