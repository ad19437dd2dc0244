/* Files in the shape of published models (synth.def) with random weights, for measurements where the real ones cannot
 * be had: as many bytes to read and kernels to launch, types as quantize would choose them. The weights of a type are
 * pieces of one tile of random numbers, encoded once: writing runs at the speed of the disk. */
#include "base/mem.h"
#include "mix.h"

#include <stdio.h>
#include <string.h>

enum {
    CONV = 4,       /* taps of the short convolution */
    TILE = 1 << 20, /* elements of a tile; tensors take pieces of up to half of it */
};

typedef struct preset {
    const char *name, *arch;
    int32_t layers, embd, heads, kv, head, ff, vocab;
    float rope;
    bool qk_norm, untied;
    int32_t period;                        /* every period-th layer has full attention */
    int32_t key_heads, value_heads, state; /* linear attention */
    int32_t experts, used;
    int32_t full_head, per_layer, own_kv, window; /* gemma 4; the layers after the first own_kv reuse a cache */
} preset;

static bool is_gemma(const preset *p) {
    return p->per_layer > 0;
}
static bool is_hybrid(const preset *p) {
    return p->state > 0;
}
static bool is_full(const preset *p, int32_t i) {
    return !p->period || (i + 1) % p->period == 0;
}
static bool is_linear(const preset *p, int32_t i) {
    return is_hybrid(p) && !is_full(p, i);
}
static bool has_kv(const preset *p, int32_t i) {
    return !is_linear(p, i) && (!is_gemma(p) || i < p->own_kv);
}
static int32_t head(const preset *p, int32_t i) {
    return is_gemma(p) && is_full(p, i) ? p->full_head : p->head;
}
static int32_t channels(const preset *p) {
    return (2 * p->key_heads + p->value_heads) * p->state;
}

static const preset presets[] = {
#define PRESET(preset_name, ...) {.name = preset_name, __VA_ARGS__},
#include "synth.def"
};

typedef struct synth {
    preset p;
    tn_mix mix;
    tn_gguf_writer *out;
    const tn_synth_options *o;
    void *ones, *tiles[TN_TYPE_LIMIT]; /* F32 around 1; by type, around 0 */
    uint64_t random, bytes, done;
} synth;

/* ---- random numbers ---- */

/* SplitMix64 (Steele, Lea, Flood 2014) */
static uint64_t next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Nearly normal: the sum of four uniform numbers, scaled to a deviation of 1. */
static float normal(uint64_t *state) {
    uint64_t r = next(state);
    int32_t sum =
        (int32_t)(r & 0xffff) + (int32_t)(r >> 16 & 0xffff) + (int32_t)(r >> 32 & 0xffff) + (int32_t)(r >> 48);
    return (float)(sum - 2 * 0xffff) * (1.7320508f / 0x1p16f);
}

static void *make_tile(tn_type type, float mean, float deviation, uint64_t seed) {
    const tn_type_info *t = tn_type_get(type);
    uint8_t *tile = tn_alloc(tn_type_row_bytes(type, TILE));
    float x[256];
    for (size_t i = 0; i < TILE && tile; i += 256) {
        for (int k = 0; k < 256; k++) x[k] = mean + deviation * normal(&seed);
        t->encode(x, tile + tn_type_row_bytes(type, i), 256);
    }
    return tile;
}

/* ---- tensors ---- */

/* Vectors are norms' weights and their like. */
static bool around_one(const tn_gguf_tensor *t) {
    return (t->n_dims == 1 || strstr(t->name, "ssm_conv1d")) && !strstr(t->name, "ffn_gate_inp");
}

/* tn_gguf_fill: pieces of a tile, from random places. */
static tn_status fill(void *data, const tn_gguf_tensor *t, void *dst, tn_error *err) {
    synth *s = data;
    size_t block = (size_t)tn_type_get(t->type)->bytes, half = tn_type_row_bytes((tn_type)t->type, TILE) / 2;
    void **tile = around_one(t) ? &s->ones : &s->tiles[t->type];
    if (!*tile)
        *tile = make_tile((tn_type)t->type, tile == &s->ones ? 1 : 0, tile == &s->ones ? 0.02f : 0.01f, s->o->seed);
    if (!*tile) return tn_fail_memory(err);
    if (s->o->progress) s->o->progress(s->o->data, "writing", (double)s->done / (double)s->bytes);
    for (size_t at = 0; at < t->bytes;) {
        size_t n = t->bytes - at < half ? t->bytes - at : half;
        const uint8_t *from = (const uint8_t *)*tile + next(&s->random) % (half / block) * block;
        memcpy((uint8_t *)dst + at, from, n);
        at += n;
    }
    if (strstr(t->name, "ssm_a") && t->n_dims == 1) /* decays: negative */
        for (int64_t i = 0; i < t->ne[0]; i++) ((float *)dst)[i] = -1;
    s->done += t->bytes;
    return TN_OK;
}

typedef void each_fn(synth *s, tn_gguf_tensor *t);

static void each_sized(synth *s, each_fn *each, const char *name, int n_dims, const int64_t *ne) {
    tn_gguf_tensor t = {.name = name, .type = TN_TYPE_F32, .n_dims = n_dims, .ne = {1, 1, 1, 1}};
    memcpy(t.ne, ne, (size_t)n_dims * sizeof *ne);
    each(s, &t);
}

#define SIZES(...)                                                                                                   \
    (int64_t[]) {                                                                                                    \
        __VA_ARGS__                                                                                                  \
    }
#define EACH(name, ...) each_sized(s, each, name, sizeof SIZES(__VA_ARGS__) / sizeof(int64_t), SIZES(__VA_ARGS__))

static void each_tensor(synth *s, each_fn *each) {
    const preset *p = &s->p;
    char full[64];
#define MODEL(when, name, ...)                                                                                       \
    if (when) EACH(name, __VA_ARGS__);
#include "synth.def"
    for (int32_t i = 0; i < p->layers; i++) {
#define LAYER(when, name, ...)                                                                                       \
    if (when) {                                                                                                      \
        snprintf(full, sizeof full, "blk.%d.%s", (int)i, name);                                                      \
        EACH(full, __VA_ARGS__);                                                                                     \
    }
#include "synth.def"
    }
}

static void see(synth *s, tn_gguf_tensor *t) {
    tn_mix_see(&s->mix, t->name);
}

static void put(synth *s, tn_gguf_tensor *t) {
    bool unused;
    t->type = tn_mix_type(&s->mix, t, &unused);
    /* left as the model was published: in 16 bits */
    if (strstr(t->name, "per_layer_model_proj")) t->type = TN_TYPE_F16;
    s->bytes += tn_type_row_bytes((tn_type)t->type, (size_t)(t->ne[0] * t->ne[1] * t->ne[2]));
    tn_gguf_put_tensor(s->out, t, fill, s);
}

/* ---- keys ---- */

static void put_u32(synth *s, const char *suffix, int32_t v) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", s->p.arch, suffix);
    tn_gguf_put_u32(s->out, key, (uint32_t)v);
}
static void put_f32(synth *s, const char *suffix, float v) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", s->p.arch, suffix);
    tn_gguf_put_f32(s->out, key, v);
}
static void put_array(synth *s, const char *suffix, tn_gguf_type type, const void *data, uint64_t n) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", s->p.arch, suffix);
    tn_gguf_kv kv = {.key = tn_str_of(key), .type = TN_GGUF_ARRAY, .array = {.type = type, .n = n, .data = data}};
    tn_gguf_put(s->out, &kv);
}

static void put_keys(synth *s) {
    const preset *p = &s->p;
    static const int32_t sections[] = {11, 11, 10, 0};
    uint8_t is_local[TN_MIX_LAYERS];
    char name[96];
    snprintf(name, sizeof name, "%s (random weights)", p->name);
    tn_gguf_put_str(s->out, "general.architecture", p->arch);
    tn_gguf_put_str(s->out, "general.name", name);
    tn_gguf_put_u32(s->out, "general.file_type", s->mix.file_type->number);
    tn_gguf_put_u32(s->out, "general.quantization_version", 2);
    tn_gguf_put_str(s->out, "tokenizer.ggml.model", "none");
#define U32(when, suffix, value)                                                                                     \
    if (when) put_u32(s, suffix, value);
#define F32(when, suffix, value)                                                                                     \
    if (when) put_f32(s, suffix, value);
#include "synth.def"
    if (is_hybrid(p)) put_array(s, "rope.dimension_sections", TN_GGUF_I32, sections, 4);
    for (int32_t i = 0; i < p->layers; i++) is_local[i] = !is_full(p, i);
    if (is_gemma(p)) put_array(s, "attention.sliding_window_pattern", TN_GGUF_BOOL, is_local, (uint64_t)p->layers);
}

/* ---- the file ---- */

static tn_status find_preset(preset *out, const char *name, tn_error *err) {
    char names[200] = "";
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        if (!strcmp(name, presets[i].name)) {
            *out = presets[i];
            return TN_OK;
        }
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", presets[i].name);
    }
    return tn_fail(err, TN_ERR_USAGE, "unknown preset '%.40s'; known are %s", name, names);
}

/* Fewer layers: those with a cache of their own stay the same share, in whole periods. */
static tn_status cut(preset *p, int32_t layers, tn_error *err) {
    if (!layers) return TN_OK;
    if (layers < 1 || layers > p->layers)
        return tn_fail(err, TN_ERR_USAGE, "%s has %d layers: it cannot have %d", p->name, p->layers, layers);
    if (p->own_kv) {
        int32_t periods = layers * p->own_kv / p->layers / p->period;
        p->own_kv = layers <= p->period ? layers : p->period * (periods > 1 ? periods : 1);
    }
    p->layers = layers;
    return TN_OK;
}

tn_status tn_synth_file(const char *name, const char *out, const tn_synth_options *options, tn_error *err) {
    synth s = {.o = options, .random = options->seed};
    tn_status status = find_preset(&s.p, name, err);
    if (!status) status = cut(&s.p, options->n_layer, err);
    if (!status) status = tn_file_type_find(&s.mix.file_type, options->type ? options->type : "Q4_K_M", err);
    if (!status) status = tn_gguf_writer_open(&s.out, err);
    if (status) return status;
    s.mix.n_layer = s.p.layers;
    s.mix.n_expert = s.p.experts;
    s.mix.n_head = s.p.heads;
    s.mix.n_kv = s.p.kv;
    each_tensor(&s, see);
    put_keys(&s);
    each_tensor(&s, put);
    status = tn_gguf_writer_save(s.out, out, err);
    if (!status && options->progress) options->progress(options->data, "writing", 1);
    tn_gguf_writer_close(&s.out);
    tn_free(s.ones);
    for (int i = 0; i < TN_TYPE_LIMIT; i++) tn_free(s.tiles[i]);
    return status;
}
