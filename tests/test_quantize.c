/* Making files: encoders that search for scales, the choice of types, quantize and synth as library calls. */
#include "base/half.h"
#include "base/mem.h"
#include "failing.h"
#include "gguf/gguf.h"
#include "mix.h"
#include "temp_dir.h"
#include "tenon.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static float uniform(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) * 0x1p-24f;
}

/* Normal by Box and Muller. */
static float normal(uint32_t *state) {
    float u = 1 - uniform(state), v = uniform(state);
    return sqrtf(-2 * logf(u)) * cosf(6.2831853f * v);
}

/* ---- encoders ---- */

/* What llama-quantize's encoders leave of normal weights, as a share of their root mean square. */
static void test_quality(void **state) {
    (void)state;
    static const struct {
        tn_type type;
        double left;
    } rows[] = {
        {TN_TYPE_Q2_K, 0.2966}, {TN_TYPE_Q3_K, 0.1507},   {TN_TYPE_Q4_K, 0.0713},   {TN_TYPE_Q5_K, 0.0362},
        {TN_TYPE_Q6_K, 0.0178}, {TN_TYPE_IQ4_NL, 0.0761}, {TN_TYPE_IQ4_XS, 0.0767},
    };
    enum { N = 1 << 16 };
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    uint8_t *b = malloc(N);
    assert_true(x && y && b);
    uint32_t random = 11;
    double squares = 0;
    for (int i = 0; i < N; i++) {
        x[i] = 0.02f * normal(&random);
        squares += (double)x[i] * x[i];
    }
    for (size_t k = 0; k < COUNT(rows); k++) {
        const tn_type_info *t = tn_type_get(rows[k].type);
        double left = 0;
        t->encode(x, b, N);
        t->decode(b, y, N);
        for (int i = 0; i < N; i++) left += (double)(x[i] - y[i]) * (x[i] - y[i]);
        left = sqrt(left / squares);
        if (left > 1.02 * rows[k].left || left < 0.85 * rows[k].left)
            fail_msg("%s leaves %.4f, %.4f was expected", t->name, left, rows[k].left);
    }
    free(x);
    free(y);
    free(b);
}

/* Blocks whose best levels are plain to see, at magnitudes from the smallest f16 scales to the largest. */
static void test_plain_blocks(void **state) {
    (void)state;
    static const struct {
        tn_type type;
        float bound; /* IQ4 has no level at zero */
    } types[] = {{TN_TYPE_Q2_K, 0.002f}, {TN_TYPE_Q3_K, 0.002f}, {TN_TYPE_Q4_K, 0.002f},
                 {TN_TYPE_Q5_K, 0.002f}, {TN_TYPE_Q6_K, 0.002f}, {TN_TYPE_IQ4_XS, 0.008f}};
    for (size_t k = 0; k < COUNT(types); k++) {
        const tn_type_info *t = tn_type_get(types[k].type);
        for (float size = 0.25f; size < 3e4f; size *= 16) {
            float x[3][256] = {{0}}, y[256];
            uint8_t b[256];
            for (int i = 0; i < 256; i++) {
                x[0][i] = size;
                x[1][i] = -size;
                x[2][i] = i == 77 ? size : 0; /* an outlier among zeros */
            }
            for (int c = 0; c < 3; c++) {
                t->encode(x[c], b, 256);
                t->decode(b, y, 256);
                for (int i = 0; i < 256; i++)
                    if (!(fabsf(y[i] - x[c][i]) <= types[k].bound * size))
                        fail_msg("%s, case %d: %g became %g", t->name, c, x[c][i], y[i]);
            }
        }
    }
}

/* A block is encoded by itself: rows do not depend on what stands before them. */
static void test_blocks_alone(void **state) {
    (void)state;
    uint32_t random = 3;
    float x[3 * 256];
    for (size_t i = 0; i < COUNT(x); i++) x[i] = normal(&random) * (1 + (float)(i / 100));
    for (uint32_t type = 0; type < TN_TYPE_LIMIT; type++) {
        const tn_type_info *t = tn_type_get(type);
        uint8_t whole[3 * 1024], alone[1024];
        if (!t) continue;
        size_t bytes = tn_type_row_bytes((tn_type)type, 256);
        t->encode(x, whole, COUNT(x));
        t->encode(x + 512, alone, 256);
        assert_memory_equal(whole + 2 * bytes, alone, bytes);
    }
}

/* ---- the mix ---- */

typedef struct mix_case {
    const char *file_type;
    int32_t n_layer, n_expert, n_kv; /* of 8 heads */
    int32_t n_attn_v;                /* layers 0.. that have a matrix of values */
    bool untied;
    const char *name;
    int64_t row;
    tn_type type;
} mix_case;

/* Files of llama-quantize, of 16 layers and others. */
static const mix_case mix_cases[] = {
    /* the first and last eighth and every third between have more bits: 0, 1, 4, 7, 10, 13, 14, 15 of 16 */
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.0.attn_v.weight", 256, TN_TYPE_Q6_K},
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.2.attn_v.weight", 256, TN_TYPE_Q4_K},
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.4.attn_v.weight", 256, TN_TYPE_Q6_K},
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.5.ffn_down.weight", 256, TN_TYPE_Q4_K},
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.7.ffn_down.weight", 256, TN_TYPE_Q6_K},
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.12.attn_qkv.weight", 256, TN_TYPE_Q4_K},
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.13.attn_qkv.weight", 256, TN_TYPE_Q6_K},
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.14.ffn_down_exps.weight", 256, TN_TYPE_Q6_K},
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.0.attn_q.weight", 256, TN_TYPE_Q4_K},
    {"q4_k", 16, 0, 2, 16, false, "blk.0.attn_v.weight", 256, TN_TYPE_Q6_K},
    /* where fewer layers have values, these are counted: 0 and 3 of 4, layer 3 of 16 */
    {"Q4_K_M", 16, 0, 2, 4, false, "blk.2.attn_v.weight", 256, TN_TYPE_Q6_K},
    {"Q4_K_M", 16, 0, 2, 4, false, "blk.1.attn_v.weight", 256, TN_TYPE_Q4_K},
    {"Q4_K_M", 16, 0, 2, 4, false, "blk.3.ffn_down.weight", 256, TN_TYPE_Q4_K},
    {"Q5_K_M", 16, 0, 2, 16, false, "blk.1.ffn_down.weight", 256, TN_TYPE_Q6_K},
    {"Q5_K_M", 16, 0, 2, 16, false, "blk.1.ffn_up.weight", 256, TN_TYPE_Q5_K},
    {"Q4_K_S", 16, 0, 2, 16, false, "blk.3.attn_v.weight", 256, TN_TYPE_Q5_K},
    {"Q4_K_S", 16, 0, 2, 16, false, "blk.4.attn_v.weight", 256, TN_TYPE_Q4_K},
    {"Q4_K_S", 16, 0, 2, 16, false, "blk.1.ffn_down.weight", 256, TN_TYPE_Q5_K},
    {"Q4_K_S", 16, 0, 2, 16, false, "blk.2.ffn_down.weight", 256, TN_TYPE_Q4_K},
    {"Q3_K_M", 16, 0, 2, 16, false, "blk.1.attn_v.weight", 256, TN_TYPE_Q5_K},
    {"Q3_K_M", 16, 0, 2, 16, false, "blk.2.attn_v.weight", 256, TN_TYPE_Q4_K},
    {"Q3_K_M", 16, 0, 2, 16, false, "blk.2.attn_output.weight", 256, TN_TYPE_Q4_K},
    {"Q3_K_L", 16, 0, 2, 16, false, "blk.9.attn_output.weight", 256, TN_TYPE_Q5_K},
    {"Q2_K", 16, 0, 2, 16, false, "blk.9.attn_v.weight", 256, TN_TYPE_Q4_K},
    {"Q2_K", 16, 0, 4, 16, false, "blk.9.attn_v.weight", 256, TN_TYPE_Q3_K},
    {"IQ4_XS", 16, 0, 2, 16, false, "blk.9.attn_v.weight", 256, TN_TYPE_Q5_K},
    /* 80 layers, 8 experts */
    {"Q4_K_S", 80, 0, 2, 80, true, "blk.9.attn_v.weight", 256, TN_TYPE_Q5_K},
    {"Q4_K_S", 80, 0, 8, 80, true, "blk.9.attn_v.weight", 256, TN_TYPE_Q4_K},
    {"Q4_K_M", 16, 8, 2, 16, false, "blk.2.attn_v.weight", 256, TN_TYPE_Q8_0},
    {"Q4_0", 16, 8, 2, 16, false, "blk.2.attn_k.weight", 256, TN_TYPE_Q8_0},
    {"Q4_K_M", 16, 8, 2, 16, false, "blk.2.attn_output.weight", 256, TN_TYPE_Q5_K},
    {"Q3_K_L", 16, 8, 2, 16, false, "blk.2.attn_output.weight", 256, TN_TYPE_Q3_K},
    /* the output, which may be the embedding table */
    {"Q4_K_M", 16, 0, 2, 16, true, "output.weight", 256, TN_TYPE_Q6_K},
    {"Q4_K_M", 16, 0, 2, 16, true, "token_embd.weight", 256, TN_TYPE_Q4_K},
    {"Q4_K_M", 16, 0, 2, 16, false, "token_embd.weight", 256, TN_TYPE_Q6_K},
    {"Q4_0", 16, 0, 2, 16, false, "per_layer_token_embd.weight", 256, TN_TYPE_Q6_K},
    {"Q8_0", 16, 0, 2, 16, false, "token_embd.weight", 256, TN_TYPE_Q8_0},
    {"F16", 16, 0, 2, 16, false, "token_embd.weight", 256, TN_TYPE_F16},
    /* rows that are not whole blocks */
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.2.attn_q.weight", 576, TN_TYPE_Q5_0},
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.0.attn_v.weight", 576, TN_TYPE_Q8_0},
    {"Q5_K_M", 16, 0, 2, 16, false, "blk.2.attn_q.weight", 576, TN_TYPE_Q5_1},
    {"Q3_K_S", 16, 0, 2, 16, false, "blk.2.attn_q.weight", 576, TN_TYPE_Q4_0},
    {"IQ4_XS", 16, 0, 2, 16, false, "blk.2.attn_q.weight", 576, TN_TYPE_IQ4_NL},
    {"Q4_K_M", 16, 0, 2, 16, false, "token_embd.weight", 576, TN_TYPE_Q8_0},
    {"Q4_0", 16, 0, 2, 16, false, "blk.2.attn_q.weight", 40, TN_TYPE_F16},
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.2.attn_q.weight", 40, TN_TYPE_F16},
    /* what stays */
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.2.ffn_gate_inp.weight", 256, TN_TYPE_F32},
    {"F16", 16, 0, 2, 16, false, "blk.2.ssm_conv1d.weight", 4, TN_TYPE_F32},
    {"Q4_K_M", 16, 0, 2, 16, false, "per_layer_model_proj.weight", 256, TN_TYPE_F32},
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.2.attn_q.bias", 256, TN_TYPE_F32},
    {"Q4_K_M", 16, 0, 2, 16, false, "blk.2.attn_q_norm.weight", 256, TN_TYPE_F32},
};

static void test_mix(void **state) {
    (void)state;
    for (size_t k = 0; k < COUNT(mix_cases); k++) {
        const mix_case *c = &mix_cases[k];
        tn_mix mix = {.n_layer = c->n_layer, .n_expert = c->n_expert, .n_head = 8, .n_kv = c->n_kv};
        tn_gguf_tensor t = {.name = c->name, .type = TN_TYPE_F32, .n_dims = 2, .ne = {c->row, 5, 1, 1}};
        char name[40];
        bool fell_back;
        assert_int_equal(tn_file_type_find(&mix.file_type, c->file_type, NULL), TN_OK);
        for (int i = 0; i < c->n_attn_v; i++) {
            snprintf(name, sizeof name, "blk.%d.attn_v.weight", i);
            tn_mix_see(&mix, name);
        }
        if (c->untied) tn_mix_see(&mix, "output.weight");
        tn_type type = tn_mix_type(&mix, &t, &fell_back);
        if (type != c->type) fail_msg("%s: %s is %s", c->file_type, c->name, tn_type_name(type));
        t.ne[1] = 1; /* a vector stays */
        assert_int_equal(tn_mix_type(&mix, &t, &fell_back), TN_TYPE_F32);
        assert_false(fell_back);
    }
}

static void test_pure(void **state) {
    (void)state;
    static const char *const names[] = {"token_embd.weight", "output.weight", "blk.0.attn_v.weight"};
    tn_mix mix = {.n_layer = 16, .pure = true};
    bool fell_back;
    assert_int_equal(tn_file_type_find(&mix.file_type, "Q4_K_M", NULL), TN_OK);
    for (size_t i = 0; i < COUNT(names); i++) {
        tn_gguf_tensor t = {.name = names[i], .n_dims = 2, .ne = {512, 2, 1, 1}};
        assert_int_equal(tn_mix_type(&mix, &t, &fell_back), TN_TYPE_Q4_K);
        assert_false(fell_back);
        t.ne[0] = 320;
        assert_int_equal(tn_mix_type(&mix, &t, &fell_back), TN_TYPE_Q5_0);
        assert_true(fell_back);
    }
}

static void test_file_types(void **state) {
    (void)state;
    const tn_file_type *t;
    tn_error err = {0};
    assert_int_equal(tn_file_type_find(&t, "q8_0", &err), TN_OK);
    assert_int_equal(t->number, 7);
    assert_int_equal(tn_file_type_find(&t, "Q5_K", &err), TN_OK);
    assert_int_equal(t->number, 17);
    assert_int_equal(tn_file_type_find(&t, "Q9", &err), TN_ERR_USAGE);
    assert_non_null(strstr(err.text, "'Q9'"));
    assert_non_null(strstr(err.text, "Q4_K_M"));
    assert_non_null(strstr(err.text, "Q5_K")); /* the last of the list */
}

/* ---- quantize ---- */

enum { ROW = 512, ROWS = 40 };

/* A model of sorts: what quantize needs of one. `part`, `parts`: a piece of a split file. */
static void write_model(const char *path, int part, int parts, tn_type type, float odd) {
    static float x[ROW * ROWS];
    static uint8_t b[sizeof x];
    uint32_t random = 5;
    tn_gguf_writer *w;
    for (int i = 0; i < ROW * ROWS; i++) x[i] = normal(&random);
    x[ROW * ROWS - 1] = odd != 0 ? odd : x[0];
    tn_type_get(type)->encode(x, b, ROW * ROWS);
    assert_int_equal(tn_gguf_writer_open(&w, NULL), TN_OK);
    tn_gguf_put_str(w, "general.architecture", "llama");
    tn_gguf_put_u32(w, "general.file_type", 0);
    tn_gguf_put_u32(w, "llama.block_count", 8);
    tn_gguf_put_f32(w, "test.pi", 3.25f);
    tn_gguf_put(w, &(tn_gguf_kv){.key = tn_str_of("test.words"),
                                 .type = TN_GGUF_ARRAY,
                                 .array = {.type = TN_GGUF_STR, .n = 2, .strs = (tn_str[]){{"a", 1}, {"bc", 2}}}});
    if (parts > 1) {
        tn_gguf_put_u32(w, "split.no", (uint32_t)part);
        tn_gguf_put_u32(w, "split.count", (uint32_t)parts);
        tn_gguf_put_u32(w, "split.tensors.count", 3);
    }
    const tn_gguf_tensor tensors[] = {
        {.name = "blk.0.attn_q.weight", .type = type, .n_dims = 2, .ne = {ROW, ROWS, 1, 1}, .data = b},
        {.name = "blk.0.attn_norm.weight", .type = TN_TYPE_F32, .n_dims = 1, .ne = {ROW, 1, 1, 1}, .data = x},
        {.name = "output.weight", .type = type, .n_dims = 2, .ne = {ROW, ROWS, 1, 1}, .data = b},
    };
    for (int i = 0; i < 3; i++)
        if (parts == 1 || i % parts == part) tn_gguf_put_tensor(w, &tensors[i], NULL, NULL);
    assert_int_equal(tn_gguf_writer_save(w, path, NULL), TN_OK);
    tn_gguf_writer_close(&w);
}

static char *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

static void assert_same_files(const char *a, const char *b) {
    size_t n, m;
    char *p = read_file(a, &n), *q = read_file(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(p, q, n);
    free(p);
    free(q);
}

static void check_quantized(const char *path) {
    tn_gguf *g;
    uint32_t v;
    float f;
    assert_int_equal(tn_gguf_open(&g, path, NULL), TN_OK);
    assert_true(tn_gguf_get_u32(g, "general.file_type", &v) && v == 15);
    assert_true(tn_gguf_get_u32(g, "general.quantization_version", &v) && v == 2);
    assert_true(tn_gguf_get_u32(g, "llama.block_count", &v) && v == 8);
    assert_true(tn_gguf_get_f32(g, "test.pi", &f) && f == 3.25f);
    const tn_gguf_kv *words = tn_gguf_find(g, "test.words");
    assert_true(words && words->array.n == 2 && tn_str_is(words->array.strs[1], "bc"));
    assert_null(tn_gguf_find(g, "split.count"));
    assert_int_equal(tn_gguf_n_kv(g), 6);
    assert_int_equal(tn_gguf_n_tensors(g), 3);
    const tn_gguf_tensor *q = tn_gguf_tensor_find(g, "blk.0.attn_q.weight");
    assert_int_equal(q->type, TN_TYPE_Q4_K);
    assert_int_equal(tn_gguf_tensor_find(g, "output.weight")->type, TN_TYPE_Q6_K);
    const tn_gguf_tensor *norm = tn_gguf_tensor_find(g, "blk.0.attn_norm.weight");
    assert_int_equal(norm->type, TN_TYPE_F32);
    uint32_t random = 5;
    float y[ROW], left = 0;
    tn_type_get(TN_TYPE_Q4_K)->decode(q->data, y, ROW);
    for (int i = 0; i < ROW; i++) {
        float x = normal(&random);
        assert_true(memcmp((const char *)norm->data + 4 * i, &x, 4) == 0);
        left += (y[i] - x) * (y[i] - x);
    }
    assert_true(left < 0.01f * ROW);
    tn_gguf_close(&g);
}

typedef struct heard {
    int infos, warnings;
    double last;
} heard;

static void on_log(void *data, tn_log_level level, const char *line) {
    heard *h = data;
    level == TN_LOG_WARN ? h->warnings++ : h->infos++;
    assert_null(strchr(line, '\n'));
}

static void on_progress(void *data, const char *what, double done) {
    heard *h = data;
    assert_non_null(what);
    assert_true(done >= h->last && done <= 1);
    h->last = done;
}

static void test_quantize(void **state) {
    (void)state;
    const char *in = temp("in.gguf"), *out = temp("out.gguf"), *other = temp("other.gguf");
    heard h = {0};
    tn_quantize_options o = {.type = "Q4_K_M", .threads = 1, .log = on_log, .progress = on_progress, .data = &h};
    write_model(in, 0, 1, TN_TYPE_F32, 0);
    assert_int_equal(tn_quantize_file(in, out, &o, NULL), TN_OK);
    check_quantized(out);
    assert_int_equal(h.infos, 3);
    assert_int_equal(h.warnings, 0);
    assert_true(h.last == 1);
    o = (tn_quantize_options){.type = "Q4_K_M", .threads = 3};
    assert_int_equal(tn_quantize_file(in, other, &o, NULL), TN_OK);
    assert_same_files(out, other);
    o.type = "F32"; /* back: what was lost stays lost */
    tn_error err = {0};
    assert_int_equal(tn_quantize_file(out, other, &o, &err), TN_ERR_USAGE);
    assert_non_null(strstr(err.text, "--allow-requantize"));
    assert_non_null(strstr(err.text, "Q4_K"));
    o.allow_requantize = true;
    assert_int_equal(tn_quantize_file(out, other, &o, &err), TN_OK);
    tn_gguf *g;
    assert_int_equal(tn_gguf_open(&g, other, NULL), TN_OK);
    for (size_t i = 0; i < 3; i++) assert_int_equal(tn_gguf_tensor_at(g, i)->type, TN_TYPE_F32);
    tn_gguf_close(&g);
    unlink(in);
    unlink(out);
    unlink(other);
}

/* Each type, from each kind of float: what the encoder gives for the decoded floats. */
static void test_quantize_types(void **state) {
    (void)state;
    static const char *const names[] = {"F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K"};
    static const tn_type from[] = {TN_TYPE_F32, TN_TYPE_F16, TN_TYPE_BF16};
    const char *in = temp("in.gguf"), *out = temp("out.gguf");
    static float x[ROW * ROWS];
    static uint8_t b[sizeof x];
    for (size_t i = 0; i < COUNT(names) * COUNT(from); i++) {
        tn_quantize_options o = {.type = names[i / COUNT(from)], .threads = 2, .pure = true};
        tn_type type = (tn_type)tn_type_find(o.type);
        tn_gguf *old, *new;
        write_model(in, 0, 1, from[i % COUNT(from)], 0);
        assert_int_equal(tn_quantize_file(in, out, &o, NULL), TN_OK);
        assert_int_equal(tn_gguf_open(&old, in, NULL), TN_OK);
        assert_int_equal(tn_gguf_open(&new, out, NULL), TN_OK);
        const tn_gguf_tensor *a = tn_gguf_tensor_find(old, "output.weight"), *c = tn_gguf_tensor_find(new, a->name);
        assert_int_equal(c->type, type);
        tn_type_get(a->type)->decode(a->data, x, ROW * ROWS);
        tn_type_get(type)->encode(x, b, ROW * ROWS);
        assert_memory_equal(c->data, b, c->bytes);
        tn_gguf_close(&old);
        tn_gguf_close(&new);
    }
    unlink(in);
    unlink(out);
}

static void test_quantize_split(void **state) {
    (void)state;
    char parts[3][300];
    const char *out = temp("out.gguf");
    tn_quantize_options o = {.type = "Q4_K_M"};
    for (int i = 0; i < 3; i++) {
        snprintf(parts[i], sizeof parts[i], "%s/m-%05d-of-00003.gguf", g_dir, i + 1);
        write_model(parts[i], i, 3, TN_TYPE_F32, 0);
    }
    assert_int_equal(tn_quantize_file(parts[0], out, &o, NULL), TN_OK);
    check_quantized(out);
    assert_int_equal(tn_quantize_file(parts[0], parts[2], &o, NULL), TN_ERR_USAGE);
    assert_int_equal(tn_quantize_file(parts[0], parts[0], &o, NULL), TN_ERR_USAGE);
    assert_int_equal(tn_quantize_file(parts[0], out, &o, NULL), TN_OK); /* all parts are still there */
    for (int i = 0; i < 3; i++) unlink(parts[i]);
    unlink(out);
}

/* The old file is never written over, by whatever name. */
static void test_quantize_in_place(void **state) {
    (void)state;
    const char *in = temp("out.gguf.tmp"), *link_to = temp("link.gguf"), *copy = temp("copy.gguf");
    tn_quantize_options o = {.type = "Q8_0"};
    tn_error err = {0};
    write_model(in, 0, 1, TN_TYPE_F32, 0);
    write_model(copy, 0, 1, TN_TYPE_F32, 0);
    assert_int_equal(symlink(in, link_to), 0);
    assert_int_equal(tn_quantize_file(in, in, &o, &err), TN_ERR_USAGE);
    assert_int_equal(tn_quantize_file(in, link_to, &o, &err), TN_ERR_USAGE);
    assert_int_equal(tn_quantize_file(in, temp("out.gguf"), &o, &err), TN_ERR_USAGE);
    assert_same_files(in, copy);
    unlink(in);
    unlink(link_to);
    unlink(copy);
}

/* A failure names its cause and leaves the file that was there. */
static void test_quantize_failures(void **state) {
    (void)state;
    static const struct {
        float odd;
        const char *type;
        tn_status status;
    } rows[] = {
        {NAN, "Q4_K_M", TN_ERR_INPUT},
        {INFINITY, "Q8_0", TN_ERR_INPUT},
        {-INFINITY, "BF16", TN_ERR_INPUT},
        {1e6f, "F16", TN_ERR_INPUT},
        {1e6f, "Q4_0", TN_ERR_INPUT},
        {1e6f, "BF16", TN_OK},
        {65504.0f, "Q4_1", TN_OK},
        {1e6f, "Q4_1", TN_ERR_INPUT},
        {1e6f, "Q8_0", TN_OK},
        {127 * 65504.0f, "Q8_0", TN_OK},
        {127 * 65600.0f, "Q8_0", TN_ERR_INPUT},
        {-8 * 65504.0f, "Q4_0", TN_OK},
        {-8 * 65600.0f, "Q4_0", TN_ERR_INPUT},
        {1e6f, "Q6_K", TN_OK},
        {1e9f, "Q6_K", TN_ERR_INPUT},
        {1e6f, "Q4_K_M", TN_OK},
        {3.4e38f, "BF16", TN_ERR_INPUT},
        {0, "Q7_K", TN_ERR_USAGE},
        {0, NULL, TN_ERR_USAGE},
    };
    const char *in = temp("in.gguf"), *out = temp("out.gguf");
    for (size_t i = 0; i < COUNT(rows); i++) {
        tn_quantize_options o = {.type = rows[i].type};
        tn_error err = {0};
        write_model(in, 0, 1, TN_TYPE_F32, rows[i].odd);
        write_model(out, 0, 1, TN_TYPE_F16, 0);
        size_t n, m;
        char *before = read_file(out, &n);
        assert_int_equal(tn_quantize_file(in, out, &o, &err), rows[i].status);
        char *after = read_file(out, &m);
        assert_int_equal(rows[i].status == TN_OK, n != m || memcmp(before, after, n) != 0);
        if (rows[i].status == TN_ERR_INPUT) assert_non_null(strstr(err.text, "blk.0.attn_q.weight"));
        free(before);
        free(after);
    }
    unlink(in);
    unlink(out);
    tn_quantize_options o = {.type = "Q8_0"};
    assert_int_equal(tn_quantize_file(in, out, &o, NULL), TN_ERR_INPUT);
    assert_int_equal(access(out, F_OK), -1);
}

static void test_quantize_no_memory(void **state) {
    (void)state;
    const char *in = temp("in.gguf"), *out = temp("out.gguf");
    tn_quantize_options o = {.type = "Q5_K_M", .threads = 2};
    tn_failing f = {0};
    write_model(in, 0, 1, TN_TYPE_F32, 0);
    while (!f.done) {
        tn_error err = {0};
        tn_failing_start(&f);
        tn_status status = tn_quantize_file(in, out, &o, &err);
        assert_int_equal(status, tn_failing_stop(&f) ? TN_ERR_RESOURCES : TN_OK);
        assert_int_equal(err.code, status);
        assert_int_equal(access(out, F_OK), status ? -1 : 0);
        unlink(out);
    }
    assert_true(f.n > 10);
    unlink(in);
}

/* ---- synth ---- */

static void test_synth_usage(void **state) {
    (void)state;
    const char *out = temp("s.gguf");
    tn_synth_options o = {0};
    tn_error err = {0};
    assert_int_equal(tn_synth_file("llama-9", out, &o, &err), TN_ERR_USAGE);
    assert_non_null(strstr(err.text, "qwen3.6-35b-a3b"));
    assert_non_null(strstr(err.text, "gemma-4-e4b"));
    o.n_layer = 29;
    assert_int_equal(tn_synth_file("llama-3.2-3b", out, &o, &err), TN_ERR_USAGE);
    assert_non_null(strstr(err.text, "28 layers"));
    o = (tn_synth_options){.type = "Q9"};
    assert_int_equal(tn_synth_file("llama-3.2-3b", out, &o, &err), TN_ERR_USAGE);
    assert_int_equal(access(out, F_OK), -1);
}

/* One layer of the smallest: 200 MB, so it is made only once for all that there is to see, after the failures that
 * memory running out leads to. */
static void test_synth(void **state) {
    (void)state;
    const char *out = temp("s.gguf");
    tn_synth_options o = {.n_layer = 1, .type = "Q4_0", .seed = 3};
    tn_status status = TN_ERR_RESOURCES;
    long last = 0;
    for (long n = 0; status; n += n < 8 ? 1 : 40) {
        tn_error err = {0};
        tn_alloc_fail_after(n);
        status = tn_synth_file("llama-3.2-1b", out, &o, &err);
        tn_alloc_fail_after(-1);
        if (!status) break;
        assert_int_equal(err.code, TN_ERR_RESOURCES);
        assert_int_equal(access(out, F_OK), -1);
        last = n;
    }
    for (long n = 0; n <= last; n += n < 8 ? 1 : 40) { /* alone */
        tn_alloc_fail_once(n);
        status = tn_synth_file("llama-3.2-1b", out, &o, NULL);
        tn_alloc_fail_after(-1);
        assert_int_equal(status, TN_ERR_RESOURCES);
    }
    tn_gguf *g;
    uint32_t v;
    assert_int_equal(tn_gguf_open(&g, out, NULL), TN_OK);
    assert_true(tn_gguf_get_u32(g, "llama.block_count", &v) && v == 1);
    assert_true(tn_gguf_get_u32(g, "general.file_type", &v) && v == 2);
    assert_int_equal(tn_gguf_n_tensors(g), 11);
    const tn_gguf_tensor *t = tn_gguf_tensor_find(g, "blk.0.ffn_down.weight");
    assert_true(t && t->type == TN_TYPE_Q4_0 && t->ne[0] == 8192 && t->ne[1] == 2048);
    float x[8192], sum = 0, squares = 0;
    tn_type_get(t->type)->decode(t->data, x, 8192);
    for (int i = 0; i < 8192; i++) {
        sum += x[i];
        squares += x[i] * x[i];
    }
    assert_true(fabsf(sum) < 5 * 0.01f * 90.5f); /* around zero */
    assert_true(squares > 0.9e-4f * 8192 && squares < 1.1e-4f * 8192);
    t = tn_gguf_tensor_find(g, "output_norm.weight");
    tn_type_get(t->type)->decode(t->data, x, 2048);
    for (int i = 0; i < 2048; i++) assert_true(x[i] > 0.9f && x[i] < 1.1f);
    tn_gguf_close(&g);
    unlink(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quality),
        cmocka_unit_test(test_plain_blocks),
        cmocka_unit_test(test_blocks_alone),
        cmocka_unit_test(test_mix),
        cmocka_unit_test(test_pure),
        cmocka_unit_test(test_file_types),
        cmocka_unit_test(test_quantize),
        cmocka_unit_test(test_quantize_types),
        cmocka_unit_test(test_quantize_split),
        cmocka_unit_test(test_quantize_in_place),
        cmocka_unit_test(test_quantize_failures),
        cmocka_unit_test(test_quantize_no_memory),
        cmocka_unit_test(test_synth_usage),
        cmocka_unit_test(test_synth),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
