/* Tiny models of the Llama shape against their papers' formulas, computed here in double precision and sharing nothing with
 * the engine: biases on q, k and v (Qwen 2), both ways to pair what rotates, and every scaling of rotary positions that a file
 * may ask for (linear; YaRN with each of its parameters; Llama 3's factors). One batch and token by token, fused and not. */
#include "gguf/gguf.h"
#include "tenon.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PI          3.14159265358979323846
#define EPS         1e-5f
#define BASE        10000.0
#define COUNT(a)    ((int)(sizeof(a) / sizeof *(a)))
#define YARN_OF_128 .scaling = YARN, .factor = 4, .original = 128
enum { EMBD = 40, HEADS = 4, KV = 2, HEAD = 32, Q = HEADS * HEAD, K = KV * HEAD, FF = 56, VOCAB = 48 };
enum { LAYERS = 2, TOKENS = 60, CONTEXT = 4096, MAX_TENSORS = 32 };

/* ---- what a file asks for ---- */

typedef enum scaling { PLAIN, NONE, LINEAR, OLD_LINEAR, NO_TYPE, YARN, LLAMA3 } scaling;

/* A parameter of 0 is not written to the file; it then is what the comment says. */
typedef struct spec {
    const char *name, *arch;
    scaling scaling;
    float factor, attn_factor /* 1 */, ext_factor /* 1 */, beta_fast /* 32 */, beta_slow /* 1 */;
    int original; /* CONTEXT */
    int n_rot;    /* HEAD */
    bool bias, untied;
} spec;

static const spec specs[] = {
    {"llama", "llama"},
    {"llama, half of a head", "llama", .n_rot = HEAD / 2},
    {"llama, a head of its own", "llama", .untied = true},
    {"llama, biases", "llama", .bias = true},
    {"llama, linear", "llama", LINEAR, .factor = 4},
    {"llama, linear by the old key", "llama", OLD_LINEAR, .factor = 3},
    {"llama, a factor without a type", "llama", NO_TYPE, .factor = 2.5f},
    {"llama, linear, attn_factor", "llama", LINEAR, .factor = 4, .attn_factor = 0.75f},
    {"llama, Llama 3's factors", "llama", LLAMA3, .factor = 8, .original = 64},
    {"llama, yarn", "llama", YARN, .factor = 4},
    {"llama, yarn of 128", "llama", YARN_OF_128},
    {"llama, yarn, half of a head", "llama", YARN_OF_128, .n_rot = HEAD / 2},
    {"llama, yarn, attn_factor", "llama", YARN_OF_128, .attn_factor = 0.75f},
    {"llama, yarn, ext_factor", "llama", YARN_OF_128, .ext_factor = 0.5f},
    {"llama, yarn, beta_fast", "llama", YARN_OF_128, .beta_fast = 6},
    {"llama, yarn, beta_slow", "llama", YARN_OF_128, .beta_slow = 3},
    {"qwen2", "qwen2", .bias = true},
    {"qwen2, no biases", "qwen2"},
    {"qwen2, a head of its own", "qwen2", .bias = true, .untied = true},
    {"qwen2, linear", "qwen2", LINEAR, .bias = true, .factor = 4},
    {"qwen2, yarn", "qwen2", YARN_OF_128, .bias = true},
};
/* Says the same as the first. */
static const spec none = {"llama, none", "llama", NONE, .factor = 4};

static double or_else(double x, double otherwise) {
    return x > 0 ? x : otherwise;
}

/* ---- weights: the same in all models, so that only what a spec says tells two apart ---- */

typedef struct tensor {
    char name[48];
    int n_in, n_out; /* n_out 0: a vector */
    float *x;
} tensor;

static tensor g_tensors[MAX_TENSORS];
static int g_n_tensors;

static float uniform(void) {
    static uint32_t seed = 12345;
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / 8388608.0f - 1.0f;
}

static void make_tensor(const char *name, int n_in, int n_out) {
    tensor *t = &g_tensors[g_n_tensors++];
    int n = n_in * (n_out ? n_out : 1);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->n_in = n_in;
    t->n_out = n_out;
    t->x = malloc((size_t)n * sizeof *t->x);
    for (int i = 0; i < n; i++) t->x[i] = n_out ? uniform() * 2.5f / sqrtf((float)n_in) : 1 + uniform() * 0.5f;
}

static int make_weights(void **state) {
    static const tensor once[] = {{"token_embd.weight", EMBD, VOCAB, NULL},
                                  {"output.weight", EMBD, VOCAB, NULL},
                                  {"output_norm.weight", EMBD, 0, NULL}};
    static const tensor layer[] = {{"attn_norm.weight", EMBD, 0, NULL}, {"attn_q.weight", EMBD, Q, NULL},
                                   {"attn_q.bias", Q, 0, NULL},         {"attn_k.weight", EMBD, K, NULL},
                                   {"attn_k.bias", K, 0, NULL},         {"attn_v.weight", EMBD, K, NULL},
                                   {"attn_v.bias", K, 0, NULL},         {"attn_output.weight", Q, EMBD, NULL},
                                   {"ffn_norm.weight", EMBD, 0, NULL},  {"ffn_gate.weight", EMBD, FF, NULL},
                                   {"ffn_up.weight", EMBD, FF, NULL},   {"ffn_down.weight", FF, EMBD, NULL}};
    (void)state;
    for (int i = 0; i < COUNT(once); i++) make_tensor(once[i].name, once[i].n_in, once[i].n_out);
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < COUNT(layer); i++) {
            char name[48];
            snprintf(name, sizeof name, "blk.%d.%.40s", l, layer[i].name);
            make_tensor(name, layer[i].n_in, layer[i].n_out);
        }
    return 0;
}

static int free_weights(void **state) {
    (void)state;
    for (int i = 0; i < g_n_tensors; i++) free(g_tensors[i].x);
    return 0;
}

static const float *weight(const char *name) {
    for (int i = 0; i < g_n_tensors; i++)
        if (!strcmp(g_tensors[i].name, name)) return g_tensors[i].x;
    fail_msg("no tensor %s", name);
    return NULL;
}

static const float *layer_weight(int l, const char *part) {
    char name[48];
    snprintf(name, sizeof name, "blk.%d.%s", l, part);
    return weight(name);
}

/* ---- the formulas ---- */

/* y = x W^T + b */
static void linear(double *y, const double *x, const float *w, const float *b, int n_in, int n_out) {
    for (int o = 0; o < n_out; o++) {
        y[o] = b ? (double)b[o] : 0;
        for (int i = 0; i < n_in; i++) y[o] += x[i] * (double)w[o * n_in + i];
    }
}

/* y = x / sqrt(mean(x^2) + eps) * w */
static void rms_norm(double *y, const double *x, const float *w) {
    double sum = 0;
    for (int i = 0; i < EMBD; i++) sum += x[i] * x[i];
    for (int i = 0; i < EMBD; i++) y[i] = x[i] / sqrt(sum / EMBD + (double)EPS) * (double)w[i];
}

/* Llama 3.1: long wavelengths are stretched by the factor, short ones kept, between 1/4 and 1 of the context both mixed. */
static double llama3_frequency(const spec *s, double f) {
    double wavelength = 2 * PI / f, context = s->original, low = 1, high = 4;
    if (wavelength < context / high) return f;
    if (wavelength > context / low) return f / (double)s->factor;
    double smooth = (context / wavelength - low) / (high - low);
    return (1 - smooth) * f / (double)s->factor + smooth * f;
}

/* YaRN: the dimension at which a wave turns so many times within the context: D ln(L / (2 pi turns)) / (2 ln base) */
static double yarn_dimension(const spec *s, double turns) {
    double dims = s->n_rot ? s->n_rot : HEAD;
    return dims * log(or_else(s->original, CONTEXT) / (2 * PI * turns)) / (2 * log(BASE));
}

/* (1 - m) f / factor + m f, where m falls from 1 to 0 between two dimensions */
static double yarn_frequency(const spec *s, double f, int pair) {
    double dims = s->n_rot ? s->n_rot : HEAD;
    double low = floor(yarn_dimension(s, or_else((double)s->beta_fast, 32)));
    double high = ceil(yarn_dimension(s, or_else((double)s->beta_slow, 1)));
    if (low < 0) low = 0;
    if (high > dims - 1) high = dims - 1;
    double ramp = (pair - low) / (high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    double m = (1 - ramp) * or_else((double)s->ext_factor, 1);
    return f / (double)s->factor * (1 - m) + f * m;
}

static double frequency(const spec *s, int pair) {
    double f = pow(BASE, -2.0 * pair / (s->n_rot ? s->n_rot : HEAD));
    switch (s->scaling) {
    case LINEAR:
    case OLD_LINEAR:
    case NO_TYPE: return f / (double)s->factor;
    case YARN: return yarn_frequency(s, f, pair);
    case LLAMA3: return llama3_frequency(s, f);
    default: return f;
    }
}

/* Pairs of a head turn by position * frequency: neighbours in Llama, the two halves in Qwen. Cos and sin carry a magnitude. */
static void rope(const spec *s, double *x, int n_head, int position) {
    int n_rot = s->n_rot ? s->n_rot : HEAD;
    bool halves = !strcmp(s->arch, "qwen2");
    double magnitude =
        or_else((double)s->attn_factor, 1) * (s->scaling == YARN ? 0.1 * log((double)s->factor) + 1 : 1);
    for (int h = 0; h < n_head; h++)
        for (int i = 0; i < n_rot / 2; i++) {
            double *a = x + h * HEAD + (halves ? i : 2 * i), *b = halves ? a + n_rot / 2 : a + 1,
                   angle = position * frequency(s, i);
            double re = *a * cos(angle) - *b * sin(angle), im = *a * sin(angle) + *b * cos(angle);
            *a = re * magnitude;
            *b = im * magnitude;
        }
}

/* out = softmax(q k^T / sqrt(d)) v over the positions so far; KV heads are shared by neighbouring heads */
static void attention(double *out, const double *q, double (*k)[K], double (*v)[K], int position) {
    for (int h = 0; h < HEADS; h++) {
        int at = h / (HEADS / KV) * HEAD;
        double p[TOKENS], sum = 0;
        for (int t = 0; t <= position; t++) {
            double score = 0;
            for (int i = 0; i < HEAD; i++) score += q[h * HEAD + i] * k[t][at + i];
            p[t] = exp(score / sqrt(HEAD));
            sum += p[t];
        }
        for (int i = 0; i < HEAD; i++) {
            out[h * HEAD + i] = 0;
            for (int t = 0; t <= position; t++) out[h * HEAD + i] += p[t] / sum * v[t][at + i];
        }
    }
}

/* x += w_down (silu(w_gate n) * w_up n), n = norm(x) */
static void feed_forward(double *x, int l) {
    double n[EMBD], gate[FF], up[FF], y[EMBD];
    rms_norm(n, x, layer_weight(l, "ffn_norm.weight"));
    linear(gate, n, layer_weight(l, "ffn_gate.weight"), NULL, EMBD, FF);
    linear(up, n, layer_weight(l, "ffn_up.weight"), NULL, EMBD, FF);
    for (int i = 0; i < FF; i++) up[i] *= gate[i] / (1 + exp(-gate[i]));
    linear(y, up, layer_weight(l, "ffn_down.weight"), NULL, FF, EMBD);
    for (int i = 0; i < EMBD; i++) x[i] += y[i];
}

static const float *bias(const spec *s, int l, const char *name) {
    return s->bias ? layer_weight(l, name) : NULL;
}

static int token(int position) {
    return (position * 31 + position * position % 11) % VOCAB;
}

static void forward(const spec *s, double (*logits)[VOCAB]) {
    static double k[LAYERS][TOKENS][K], v[LAYERS][TOKENS][K];
    for (int t = 0; t < TOKENS; t++) {
        double x[EMBD], n[EMBD], q[Q], o[Q], y[EMBD];
        for (int i = 0; i < EMBD; i++) x[i] = (double)weight("token_embd.weight")[token(t) * EMBD + i];
        for (int l = 0; l < LAYERS; l++) {
            rms_norm(n, x, layer_weight(l, "attn_norm.weight"));
            linear(q, n, layer_weight(l, "attn_q.weight"), bias(s, l, "attn_q.bias"), EMBD, Q);
            linear(k[l][t], n, layer_weight(l, "attn_k.weight"), bias(s, l, "attn_k.bias"), EMBD, K);
            linear(v[l][t], n, layer_weight(l, "attn_v.weight"), bias(s, l, "attn_v.bias"), EMBD, K);
            rope(s, q, HEADS, t);
            rope(s, k[l][t], KV, t);
            attention(o, q, k[l], v[l], t);
            linear(y, o, layer_weight(l, "attn_output.weight"), NULL, Q, EMBD);
            for (int i = 0; i < EMBD; i++) x[i] += y[i];
            feed_forward(x, l);
        }
        rms_norm(n, x, weight("output_norm.weight"));
        linear(logits[t], n, weight(s->untied ? "output.weight" : "token_embd.weight"), NULL, EMBD, VOCAB);
    }
}

/* ---- the same as a file ---- */

static void put_scaling(tn_gguf_writer *w, const spec *s) {
    static const char *const types[] = {NULL, "none", "linear", NULL, NULL, "yarn", NULL};
    const struct {
        const char *key;
        float value;
    } numbers[] = {{s->scaling == OLD_LINEAR ? "rope.scale_linear" : "rope.scaling.factor", s->factor},
                   {"rope.scaling.attn_factor", s->attn_factor},
                   {"rope.scaling.yarn_ext_factor", s->ext_factor},
                   {"rope.scaling.yarn_beta_fast", s->beta_fast},
                   {"rope.scaling.yarn_beta_slow", s->beta_slow}};
    char key[80];
    snprintf(key, sizeof key, "%s.rope.scaling.type", s->arch);
    if (types[s->scaling]) tn_gguf_put_str(w, key, types[s->scaling]);
    for (int i = 0; i < COUNT(numbers) && s->scaling != LLAMA3; i++) {
        snprintf(key, sizeof key, "%s.%s", s->arch, numbers[i].key);
        if (numbers[i].value > 0) tn_gguf_put_f32(w, key, numbers[i].value);
    }
    snprintf(key, sizeof key, "%s.rope.scaling.original_context_length", s->arch);
    if (s->original && s->scaling == YARN) tn_gguf_put_u32(w, key, (uint32_t)s->original);
}

static void put_keys(tn_gguf_writer *w, const spec *s) {
    const struct {
        const char *key;
        int value;
    } numbers[] = {
        {"block_count", LAYERS},        {"embedding_length", EMBD},       {"feed_forward_length", FF},
        {"context_length", CONTEXT},    {"attention.head_count", HEADS},  {"attention.head_count_kv", KV},
        {"attention.key_length", HEAD}, {"attention.value_length", HEAD}, {"rope.dimension_count", s->n_rot}};
    char key[80];
    tn_gguf_put_str(w, "general.architecture", s->arch);
    for (int i = 0; i < COUNT(numbers); i++) {
        snprintf(key, sizeof key, "%s.%s", s->arch, numbers[i].key);
        if (numbers[i].value) tn_gguf_put_u32(w, key, (uint32_t)numbers[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", s->arch);
    tn_gguf_put_f32(w, key, EPS);
    snprintf(key, sizeof key, "%s.rope.freq_base", s->arch);
    tn_gguf_put_f32(w, key, (float)BASE);
    put_scaling(w, s);
}

static void put_f32(tn_gguf_writer *w, const char *name, int n_in, int n_out, const float *x) {
    tn_gguf_tensor t = {
        .name = name, .type = TN_TYPE_F32, .n_dims = n_out ? 2 : 1, .ne = {n_in, n_out ? n_out : 1, 1, 1}, .data = x};
    tn_gguf_put_tensor(w, &t, NULL, NULL);
}

static tn_model *open_model(const spec *s, const char *backend) {
    char path[] = "/tmp/tenon-formula-XXXXXX";
    float factors[HEAD / 2];
    tn_gguf_writer *w;
    tn_error err = {0};
    tn_model *model = NULL;
    int fd = mkstemp(path);
    assert_true(fd >= 0 && close(fd) == 0);
    assert_int_equal(tn_gguf_writer_open(&w, &err), TN_OK);
    put_keys(w, s);
    for (int i = 0; i < g_n_tensors; i++) {
        const tensor *t = &g_tensors[i];
        if ((!s->bias && strstr(t->name, ".bias")) || (!s->untied && !strcmp(t->name, "output.weight"))) continue;
        put_f32(w, t->name, t->n_in, t->n_out, t->x);
    }
    for (int i = 0; i < HEAD / 2; i++) factors[i] = (float)(pow(BASE, -2.0 * i / HEAD) / frequency(s, i));
    if (s->scaling == LLAMA3) put_f32(w, "rope_freqs.weight", HEAD / 2, 0, factors);
    tn_status status = tn_gguf_writer_save(w, path, &err);
    tn_gguf_writer_close(&w);
    if (status == TN_OK)
        status = tn_model_open(&model, path, &(tn_model_options){.backend = backend, .threads = 2}, &err);
    unlink(path);
    if (status != TN_OK && status != TN_ERR_UNAVAILABLE) fail_msg("%s: %s", s->name, err.text);
    return model;
}

/* ---- the comparison ---- */

static double nmse(const double *got, const double *want) {
    double error = 0, power = 0;
    for (int i = 0; i < TOKENS * VOCAB; i++) {
        error += (got[i] - want[i]) * (got[i] - want[i]);
        power += want[i] * want[i];
    }
    return error / power;
}

static void run(tn_model *m, const char *fuse, int chunk, double (*logits)[VOCAB]) {
    tn_session_options o = {
        .n_ctx = TOKENS, .act = TN_ACT_F32, .kv_type = TN_KV_F32, .fuse = fuse, .all_logits = true};
    tn_session *s;
    tn_error err = {0};
    if (tn_session_open(&s, m, &o, &err) != TN_OK) fail_msg("%s", err.text);
    for (int t = 0; t < TOKENS; t += chunk) {
        int32_t ids[TOKENS];
        for (int i = 0; i < chunk; i++) ids[i] = token(t + i);
        if (tn_step(s, &(tn_batch){.ids = ids, .n_tokens = chunk}, &err) != TN_OK) fail_msg("%s", err.text);
        for (int i = 0; i < chunk; i++)
            for (int k = 0; k < VOCAB; k++) logits[t + i][k] = (double)tn_logits(s, i)[k];
    }
    tn_session_close(&s);
}

static void check(const spec *s) {
    static const char *const backends[] = {"cpu:ref", "cpu:avx2", "cpu:avx512"}, *const fuse[] = {"all", "none"};
    static double want[TOKENS][VOCAB], got[TOKENS][VOCAB];
    forward(s, want);
    for (int b = 0; b < COUNT(backends); b++) {
        tn_model *m = open_model(s, backends[b]);
        double worst = 0;
        if (!m) continue; /* an instruction set that is not here */
        for (int f = 0; f < COUNT(fuse); f++)
            for (int chunk = 1; chunk <= TOKENS; chunk += TOKENS - 1) {
                run(m, fuse[f], chunk, got);
                double e = nmse(got[0], want[0]);
                worst = e > worst ? e : worst;
                if (!(e <= 1e-10))
                    fail_msg("%s, %s, fuse %s, chunk %d: NMSE %g", s->name, backends[b], fuse[f], chunk, e);
            }
        print_message("%-32s %-10s nmse %.2g\n", s->name, backends[b], worst);
        tn_model_close(&m);
    }
}

static void test_formulas(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(specs); i++) check(&specs[i]);
    check(&none);
}

/* The formulas tell all these models apart: a parameter that the engine does not read would be noticed. */
static void test_parameters_matter(void **state) {
    (void)state;
    static double logits[COUNT(specs)][TOKENS][VOCAB];
    for (int i = 0; i < COUNT(specs); i++) {
        forward(&specs[i], logits[i]);
        for (int j = 0; j < i; j++) {
            double e = nmse(logits[i][0], logits[j][0]);
            if (!(e > 1e-5)) fail_msg("%s and %s: NMSE %g", specs[i].name, specs[j].name, e);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_formulas), cmocka_unit_test(test_parameters_matter)};
    return cmocka_run_group_tests(tests, make_weights, free_weights);
}
