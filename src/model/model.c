/* What architectures share: finding tensors and hyper-parameters, and the frame of a build. */
#include "model/model.h"

#include "base/mem.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The architectures: tn_arch_NAME in a file of model/ each (families share one). */
#define ARCHS(ARCH)                                                                                                  \
    ARCH(llama)                                                                                                      \
    ARCH(qwen2) ARCH(qwen3) ARCH(qwen3moe) ARCH(qwen35) ARCH(qwen35moe) ARCH(gemma3) ARCH(gemma4)

#define ARCH(name) extern const tn_arch tn_arch_##name;
ARCHS(ARCH)
#undef ARCH

static const tn_arch *const archs[] = {
#define ARCH(name) &tn_arch_##name,
    ARCHS(ARCH)
#undef ARCH
};

const tn_arch *tn_arch_find(tn_str name) {
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (tn_str_is(name, archs[i]->name)) return archs[i];
    return NULL;
}

const char *tn_arch_names(void) {
#define ARCH(name) ", " #name
    return (ARCHS(ARCH)) + strlen(", ");
#undef ARCH
}

/* ---- hyper-parameters ---- */

enum { MAX_LAYERS = 512 };     /* planning is quadratic in it; the deepest models have some 130 */
enum { MAX_HPARAM = 1 << 24 }; /* far beyond any model; keeps products of two inside 64 bits */

static const char *full_key(char *buf, size_t n, const char *arch, const char *suffix) {
    snprintf(buf, n, "%s.%s", arch, suffix);
    return buf;
}

tn_status tn_hp_u32_opt(const tn_gguf *g, const char *arch, const char *suffix, int32_t *out, tn_error *err) {
    char key[128];
    const tn_gguf_kv *kv = tn_gguf_find(g, full_key(key, sizeof key, arch, suffix));
    if (!kv) return TN_OK;
    if (!tn_gguf_is_integer(kv->type)) return tn_gguf_wrong_type(kv, "an integer", err);
    if (kv->u > MAX_HPARAM) /* a negative number is one of these, too */
        return tn_fail(err, TN_ERR_INPUT, "%s is out of range: 0 to %d", key, MAX_HPARAM);
    *out = (int32_t)kv->u;
    return TN_OK;
}

tn_status tn_hp_u32(const tn_gguf *g, const char *arch, const char *suffix, int32_t *out, tn_error *err) {
    int32_t v = -1;
    tn_status status = tn_hp_u32_opt(g, arch, suffix, &v, err);
    if (status != TN_OK) return status;
    if (v < 0) return tn_fail(err, TN_ERR_INPUT, "the file has no %s.%s", arch, suffix);
    if (v == 0) return tn_fail(err, TN_ERR_INPUT, "%s.%s is 0: out of range", arch, suffix);
    *out = v;
    return TN_OK;
}

tn_status tn_hp_f32_opt(const tn_gguf *g, const char *arch, const char *suffix, float least, float *out,
                        tn_error *err) {
    char key[128];
    const tn_gguf_kv *kv = tn_gguf_find(g, full_key(key, sizeof key, arch, suffix));
    if (!kv) return TN_OK;
    if (kv->type != TN_GGUF_F32 && kv->type != TN_GGUF_F64) return tn_gguf_wrong_type(kv, "f32", err);
    float v = (float)kv->f;
    if (!(v >= least) || isinf(v)) return tn_fail(err, TN_ERR_INPUT, "%s is %g: out of range", key, kv->f);
    *out = v;
    return TN_OK;
}

/* Scaling of the rotary frequencies: none, linear (positions divided by the factor) or YaRN. */
static tn_status read_rope_type(const tn_gguf *g, const char *arch, tn_str *type, tn_error *err) {
    char key[128];
    const tn_gguf_kv *kv = tn_gguf_find(g, full_key(key, sizeof key, arch, "rope.scaling.type"));
    *type = tn_str_of("linear"); /* by a factor, where there is one */
    if (!kv) return TN_OK;
    if (kv->type != TN_GGUF_STR) return tn_gguf_wrong_type(kv, "str", err);
    *type = kv->str;
    if (tn_str_is(*type, "none") || tn_str_is(*type, "linear") || tn_str_is(*type, "yarn")) return TN_OK;
    return tn_fail(err, TN_ERR_INPUT, "%s is '%.*s', which is not supported: none, linear and yarn are", key,
                   (int)(type->n < 50 ? type->n : 50), type->p);
}

static tn_status read_rope(tn_rope_params *r, const tn_gguf *g, const char *arch, int32_t n_ctx, tn_error *err) {
    *r = (tn_rope_params){10000.0f, 1.0f, 0.0f, 1.0f, 32.0f, 1.0f, n_ctx};
    tn_str type;
    float factor = 0;
    tn_status status = read_rope_type(g, arch, &type, err);
    if (!status) status = tn_hp_f32_opt(g, arch, "rope.freq_base", FLT_MIN, &r->base, err);
    if (!status) status = tn_hp_f32_opt(g, arch, "rope.scaling.attn_factor", FLT_MIN, &r->attn_factor, err);
    if (status || tn_str_is(type, "none")) return status;
    status = tn_hp_f32_opt(g, arch, "rope.scale_linear", 0, &factor, err);
    if (!status) status = tn_hp_f32_opt(g, arch, "rope.scaling.factor", 0, &factor, err);
    if (status || factor == 0) return status; /* there are files with a 0 for none */
    r->freq_scale = 1.0f / factor;
    if (isinf(r->freq_scale)) return tn_fail(err, TN_ERR_INPUT, "%s.rope.scaling.factor is %g", arch, (double)factor);
    if (!tn_str_is(type, "yarn")) return TN_OK;
    r->ext_factor = 1.0f;
    status = tn_hp_f32_opt(g, arch, "rope.scaling.yarn_ext_factor", 0, &r->ext_factor, err);
    if (!status) status = tn_hp_f32_opt(g, arch, "rope.scaling.yarn_beta_fast", FLT_MIN, &r->beta_fast, err);
    if (!status) status = tn_hp_f32_opt(g, arch, "rope.scaling.yarn_beta_slow", FLT_MIN, &r->beta_slow, err);
    if (!status) status = tn_hp_u32_opt(g, arch, "rope.scaling.original_context_length", &r->n_ctx_orig, err);
    if (!status && r->n_ctx_orig == 0)
        status = tn_fail(err, TN_ERR_INPUT, "%s.rope.scaling.original_context_length is 0: out of range", arch);
    return status;
}

/* The vocabulary's size is that of the embedding table. */
static tn_status read_vocab(tn_hparams *hp, const tn_gguf *g, tn_error *err) {
    const tn_gguf_tensor *t = tn_gguf_tensor_find(g, "token_embd.weight");
    if (!t) return tn_fail(err, TN_ERR_INPUT, "the file has no tensor token_embd.weight");
    if (t->n_dims != 2 || t->ne[1] > MAX_HPARAM)
        return tn_fail(err, TN_ERR_INPUT, "token_embd.weight is not a matrix of a sensible size");
    hp->n_vocab = (int32_t)t->ne[1];
    return TN_OK;
}

tn_status tn_hp_layer(const tn_gguf *g, const char *arch, const char *suffix, int32_t layer, int32_t *out,
                      tn_error *err) {
    char key[128];
    const tn_gguf_kv *kv = tn_gguf_find(g, full_key(key, sizeof key, arch, suffix));
    if (!kv) return TN_OK;
    bool array = kv->type == TN_GGUF_ARRAY;
    tn_gguf_type type = array ? kv->array.type : kv->type;
    if (!tn_gguf_is_integer(type) && type != TN_GGUF_BOOL)
        return tn_gguf_wrong_type(kv, "an integer, or an array of them,", err);
    if (array && (uint64_t)layer >= kv->array.n)
        return tn_fail(err, TN_ERR_INPUT, "%s has no element for layer %d", key, layer);
    double v = array ? tn_gguf_array_number(&kv->array, (uint64_t)layer) : (double)kv->u;
    if (!(v >= 0 && v <= MAX_HPARAM))
        return tn_fail(err, TN_ERR_INPUT, "%s is out of range for layer %d: 0 to %d", key, layer, MAX_HPARAM);
    *out = (int32_t)v;
    return TN_OK;
}

/* One number for all layers, or an array with one for each: the first of them, where they may differ. */
static tn_status read_layers(const tn_hparams *hp, const tn_gguf *g, const char *arch, const char *suffix,
                             unsigned allowed, int32_t *out, tn_error *err) {
    char key[128];
    const tn_gguf_kv *kv = tn_gguf_find(g, full_key(key, sizeof key, arch, suffix));
    int32_t first = -1;
    if (!kv) return TN_OK;
    if (kv->type == TN_GGUF_BOOL || (kv->type == TN_GGUF_ARRAY && kv->array.type == TN_GGUF_BOOL))
        return tn_gguf_wrong_type(kv, "a number", err);
    for (int32_t i = 0; i < hp->n_layer; i++) {
        int32_t v = -1;
        tn_status status = tn_hp_layer(g, arch, suffix, i, &v, err);
        if (status != TN_OK) return status;
        if (i == 0) first = v;
        if (v != first && !(allowed & TN_HP_BY_LAYER))
            return tn_fail(err, TN_ERR_INPUT, "%s differs from layer to layer, which is not supported", key);
    }
    *out = first;
    return TN_OK;
}

tn_status tn_hp_experts(tn_hparams *hp, const tn_gguf *g, const char *arch, tn_error *err) {
    tn_status status = tn_hp_u32(g, arch, "expert_count", &hp->n_expert, err);
    if (status == TN_OK) status = tn_hp_u32(g, arch, "expert_used_count", &hp->n_used, err);
    if (status == TN_OK) status = tn_hp_u32(g, arch, "expert_feed_forward_length", &hp->n_ff_expert, err);
    if (status != TN_OK) return status;
    if (hp->n_expert > 4096 || hp->n_used > hp->n_expert || hp->n_used > 64)
        return tn_fail(err, TN_ERR_INPUT, "%s: %d of %d experts are beyond reason", arch, hp->n_used, hp->n_expert);
    return TN_OK;
}

tn_status tn_hp_check_product(int64_t a, int64_t b, const char *what, tn_error *err) {
    if (a >= 1 && b >= 1 && a <= MAX_HPARAM && b <= MAX_HPARAM / a) return TN_OK;
    return tn_fail(err, TN_ERR_INPUT, "%lld x %lld %s are beyond reason", (long long)a, (long long)b, what);
}

tn_status tn_hp_check_sharing(int32_t n_head, int32_t n_kv, int32_t head_dim, tn_error *err) {
    if (n_kv < 1 || n_head < 1 || n_head % n_kv)
        return tn_fail(err, TN_ERR_INPUT, "%d attention heads cannot share %d kv heads", n_head, n_kv);
    return tn_hp_check_product(n_head, head_dim, "elements of attention heads", err);
}

tn_status tn_hp_check_heads(int32_t head_dim, int32_t v_dim, int32_t n_rot, tn_error *err) {
    if (head_dim < 8 || head_dim > 512 || head_dim % 8 || v_dim < 8 || v_dim > 512 || v_dim % 8)
        return tn_fail(err, TN_ERR_INPUT,
                       "attention heads of %d and %d elements are not supported: multiples of 8 up to 512 are",
                       head_dim, v_dim);
    if (n_rot < 2 || n_rot > head_dim || n_rot % 2)
        return tn_fail(err, TN_ERR_INPUT, "rotary positions over %d elements in heads of %d", n_rot, head_dim);
    return TN_OK;
}

/* The sizes of attention heads. */
static tn_status read_heads(tn_hparams *hp, const tn_gguf *g, const char *arch, unsigned allowed, tn_error *err) {
    tn_status status = read_layers(hp, g, arch, "attention.head_count", allowed, &hp->n_head, err);
    if (!status && hp->n_head == 0)
        status = tn_fail(err, TN_ERR_INPUT, "%s.attention.head_count is missing, or 0", arch);
    if (status != TN_OK) return status;
    hp->n_kv = hp->n_head;
    hp->head_dim = hp->n_embd / hp->n_head;
    status = read_layers(hp, g, arch, "attention.head_count_kv", allowed, &hp->n_kv, err);
    if (!status) status = tn_hp_u32_opt(g, arch, "attention.key_length", &hp->head_dim, err);
    hp->v_dim = hp->n_rot = hp->head_dim;
    if (!status) status = tn_hp_u32_opt(g, arch, "attention.value_length", &hp->v_dim, err);
    if (!status) status = tn_hp_u32_opt(g, arch, "rope.dimension_count", &hp->n_rot, err);
    if (!status) status = tn_hp_check_heads(hp->head_dim, hp->v_dim, hp->n_rot, err);
    if (!status) status = tn_hp_check_sharing(hp->n_head, hp->n_kv, hp->head_dim, err);
    return status;
}

tn_status tn_hp_common(tn_hparams *hp, const tn_gguf *g, const char *arch, unsigned allowed, tn_error *err) {
    static const struct {
        const char *suffix;
        size_t at;
    } required[] = {{"block_count", offsetof(tn_hparams, n_layer)},
                    {"embedding_length", offsetof(tn_hparams, n_embd)},
                    {"context_length", offsetof(tn_hparams, n_ctx_train)}};
    tn_status status = TN_OK;
    int32_t n_expert = 0;
    for (size_t i = 0; i < sizeof required / sizeof *required && !status; i++)
        status = tn_hp_u32(g, arch, required[i].suffix, (int32_t *)((char *)hp + required[i].at), err);
    if (!status && hp->n_layer > MAX_LAYERS)
        status = tn_fail(err, TN_ERR_INPUT, "%s.block_count is %d: out of range", arch, hp->n_layer);
    hp->eps = -1;
    if (!status) status = tn_hp_f32_opt(g, arch, "attention.layer_norm_rms_epsilon", 0, &hp->eps, err);
    if (!status && hp->eps < 0)
        status = tn_fail(err, TN_ERR_INPUT, "the file has no %s.attention.layer_norm_rms_epsilon", arch);
    if (!status) status = tn_hp_u32_opt(g, arch, "expert_count", &n_expert, err);
    if (!status && n_expert > 0 && !(allowed & TN_HP_EXPERTS))
        status = tn_fail(err, TN_ERR_INPUT, "%s.expert_count is %d: experts are not supported for this architecture",
                         arch, n_expert);
    if (!status) status = read_heads(hp, g, arch, allowed, err);
    if (!status) status = read_layers(hp, g, arch, "feed_forward_length", allowed, &hp->n_ff, err);
    if (!status) status = read_rope(&hp->rope, g, arch, hp->n_ctx_train, err);
    return status == TN_OK ? read_vocab(hp, g, err) : status;
}

/* ---- tensors ---- */

static tn_val build_error(tn_build *b, tn_status status) {
    if (b->status == TN_OK) b->status = status;
    return b->tokens;
}

static int32_t table_find(const tn_weight_table *t, const char *name) {
    for (int32_t i = 0; i < t->n; i++)
        if (!strcmp(t->p[i]->name, name)) return i;
    return -1;
}

static int32_t table_add(tn_weight_table *t, const tn_weight *weight) {
    if (t->n == t->cap) {
        int32_t cap = t->cap ? t->cap * 2 : 256;
        const tn_weight **p = tn_realloc(t->p, (size_t)cap * sizeof *p);
        if (!p) return -1;
        t->p = p;
        t->cap = cap;
    }
    tn_weight *w = tn_arena_alloc(&t->arena, sizeof *w);
    const char *name = tn_arena_printf(&t->arena, "%s", weight->name);
    if (!w || !name) return -1;
    *w = *weight;
    w->name = name;
    t->p[t->n] = w;
    return t->n++;
}

void tn_weight_table_free(tn_weight_table *t) {
    tn_free(t->p);
    tn_arena_free(&t->arena);
    *t = (tn_weight_table){0};
}

static const char *tensor_name(char *buf, size_t n, const char *format, int32_t layer) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(buf, n, format, layer);
#pragma GCC diagnostic pop
    return buf;
}

bool tn_has_tensor(const tn_build *b, const char *format, int32_t layer) {
    char name[96];
    return tn_gguf_tensor_find(b->file, tensor_name(name, sizeof name, format, layer)) != NULL;
}

/* The tensor of this name, which must have these dimensions and a type that can be read; NULL after an error. */
static const tn_gguf_tensor *find_tensor(tn_build *b, const char *name, int64_t n_in, int64_t n_out,
                                         int64_t n_expert) {
    if (b->status != TN_OK) return NULL;
    const tn_gguf_tensor *t = tn_gguf_tensor_find(b->file, name);
    const char *type = t ? tn_type_name(t->type) : NULL;
    if (!t) {
        b->status = tn_fail(b->err, TN_ERR_INPUT, "the file has no tensor %s", name);
    } else if (!tn_type_get(t->type)) {
        b->status = tn_fail(b->err, TN_ERR_INPUT, "tensor %s has type %s (%u), which tenon cannot read", name,
                            type ? type : "unknown", t->type);
    } else if (t->ne[0] != n_in || t->ne[1] != n_out || t->ne[2] != n_expert || t->ne[3] != 1) {
        b->status =
            tn_fail(b->err, TN_ERR_INPUT, "tensor %s is [%lld, %lld, %lld, %lld]; [%lld, %lld, %lld] was expected",
                    name, (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2], (long long)t->ne[3],
                    (long long)n_in, (long long)n_out, (long long)n_expert);
    }
    return b->status == TN_OK ? t : NULL;
}

/* The node of a weight, put into the table when it is new. */
static tn_val weight_node(tn_build *b, const tn_weight *w) {
    int32_t i = table_find(b->weights, w->name);
    if (i < 0) i = table_add(b->weights, w);
    if (i < 0) return build_error(b, tn_fail_memory(b->err));
    b->g->weights = b->weights->p; /* the table may have moved */
    b->g->n_weights = b->weights->n;
    return tn_g_weight(b->g, i, b->weights->p[i]);
}

tn_val tn_matrix(tn_build *b, int32_t n_out, int32_t n_in, const char *format, int32_t layer) {
    char name[96];
    const tn_gguf_tensor *t = find_tensor(b, tensor_name(name, sizeof name, format, layer), n_in, n_out, 1);
    if (!t) return b->tokens;
    return weight_node(b, &(tn_weight){.name = name,
                                       .type = (tn_type)t->type,
                                       .n_out = n_out,
                                       .n_in = n_in,
                                       .n_expert = 1,
                                       .data = t->data,
                                       .bytes = t->bytes});
}

tn_val tn_matrix_part(tn_build *b, tn_part part, int32_t n_in, const char *format, int32_t layer, const char *what) {
    char name[96], view[128];
    int64_t rows = (int64_t)part.pitch * part.n, experts = part.experts ? part.experts : 1;
    const tn_gguf_tensor *t =
        find_tensor(b, tensor_name(name, sizeof name, format, layer), n_in, rows / experts, experts);
    if (!t) return b->tokens;
    if (rows > INT32_MAX)
        return build_error(b, tn_fail(b->err, TN_ERR_INPUT, "tensor %s has more rows than can be counted", name));
    snprintf(view, sizeof view, "%s:%s", name, what);
    size_t row = t->bytes / (size_t)rows;
    return weight_node(b, &(tn_weight){.name = view,
                                       .type = (tn_type)t->type,
                                       .n_out = part.block * part.n,
                                       .n_in = n_in,
                                       .n_expert = (int32_t)experts,
                                       .data = (const char *)t->data + (size_t)part.first * row,
                                       .bytes = row * (size_t)part.block * (size_t)part.n,
                                       .block = part.block == part.pitch ? 0 : part.block,
                                       .pitch = part.pitch});
}

tn_val tn_experts(tn_build *b, int32_t n_expert, int32_t n_out, int32_t n_in, const char *format, int32_t layer) {
    return tn_matrix_part(b, (tn_part){.block = n_out, .pitch = n_out, .n = n_expert, .experts = n_expert}, n_in,
                          format, layer, "experts");
}

/* What element kernels read must be f32. */
static tn_val elements(tn_build *b, int32_t n_out, int32_t n_in, const char *format, int32_t layer) {
    char name[96];
    const tn_gguf_tensor *t = find_tensor(b, tensor_name(name, sizeof name, format, layer), n_in, n_out, 1);
    if (!t) return b->tokens;
    if (t->type != TN_TYPE_F32)
        return build_error(
            b, tn_fail(b->err, TN_ERR_INPUT, "tensor %s has type %s; F32 was expected", name, tn_type_name(t->type)));
    return weight_node(b, &(tn_weight){.name = name,
                                       .type = TN_TYPE_F32,
                                       .n_out = n_out,
                                       .n_in = n_in,
                                       .n_expert = 1,
                                       .data = t->data,
                                       .bytes = t->bytes,
                                       .elements = true});
}

tn_val tn_vector(tn_build *b, int32_t n, const char *format, int32_t layer) {
    return elements(b, 1, n, format, layer);
}

tn_val tn_vector_part(tn_build *b, tn_part part, const char *format, int32_t layer, const char *what) {
    char name[96], view[128];
    int64_t all = (int64_t)part.pitch * part.n;
    const tn_gguf_tensor *t = find_tensor(b, tensor_name(name, sizeof name, format, layer), all, 1, 1);
    if (!t) return b->tokens;
    if (t->type != TN_TYPE_F32)
        return build_error(
            b, tn_fail(b->err, TN_ERR_INPUT, "tensor %s has type %s; F32 was expected", name, tn_type_name(t->type)));
    snprintf(view, sizeof view, "%s:%s", name, what);
    size_t n = (size_t)part.block * (size_t)part.n;
    float *data = tn_arena_alloc(&b->weights->arena, n * sizeof *data); /* short: a copy is simpler than a view */
    if (!data) return build_error(b, tn_fail_memory(b->err));
    for (size_t i = 0; i < (size_t)part.n; i++)
        memcpy(data + i * (size_t)part.block, (const float *)t->data + i * (size_t)part.pitch + part.first,
               (size_t)part.block * sizeof *data);
    return weight_node(b, &(tn_weight){.name = view,
                                       .type = TN_TYPE_F32,
                                       .n_out = 1,
                                       .n_in = (int32_t)n,
                                       .n_expert = 1,
                                       .data = data,
                                       .bytes = n * sizeof *data,
                                       .elements = true});
}

tn_val tn_taps(tn_build *b, int32_t n_out, int32_t n_in, const char *format, int32_t layer) {
    return elements(b, n_out, n_in, format, layer);
}

/* ---- pieces of many architectures ---- */

const char *tn_name(tn_build *b, const char *name, const char *part) {
    tn_arena *arena = &b->g->arena;
    const char *s =
        part ? tn_arena_printf(arena, "%s.%s", name, part) : tn_arena_printf(arena, "l%d.%s", b->g->layer, name);
    if (!s) b->g->failed = true;
    return s ? s : name;
}

static tn_val add_bias(tn_build *b, tn_val y, const char *prefix, int32_t layer, const char *name) {
    char bias[96];
    snprintf(bias, sizeof bias, "%s.bias", prefix);
    if (!tn_has_tensor(b, bias, layer)) return y;
    return tn_g_binary(b->g, TN_OP_ADD, y, tn_vector(b, y.cols, bias, layer), tn_name(b, name, "bias"));
}

tn_val tn_apply_scale(tn_build *b, tn_val y, const char *prefix, int32_t layer, const char *name) {
    char format[96], scale[96];
    snprintf(format, sizeof format, "%s.scale", prefix);
    const tn_gguf_tensor *t = tn_gguf_tensor_find(b->file, tensor_name(scale, sizeof scale, format, layer));
    if (!t || t->ne[0] != 1 || t->n_dims != 1) return y;
    return tn_g_binary(b->g, TN_OP_MUL, y, tn_vector(b, 1, format, layer), tn_name(b, name, "scale"));
}

static tn_val product(tn_build *b, tn_val x, int32_t n_out, const char *prefix, int32_t layer, const char *name) {
    char weight[96];
    snprintf(weight, sizeof weight, "%s.weight", prefix);
    return tn_g_matmul(b->g, x, tn_matrix(b, n_out, x.cols, weight, layer), name);
}

tn_val tn_linear(tn_build *b, tn_val x, int32_t n_out, const char *prefix, int32_t layer, const char *name) {
    tn_val y = tn_apply_scale(b, product(b, x, n_out, prefix, layer, name), prefix, layer, name);
    return add_bias(b, y, prefix, layer, name);
}

tn_val tn_linear_ffn(tn_build *b, tn_val x, int32_t n_out, const char *prefix, int32_t layer, const char *name) {
    tn_val y = add_bias(b, product(b, x, n_out, prefix, layer, name), prefix, layer, name);
    return tn_apply_scale(b, y, prefix, layer, name);
}

tn_val tn_rope_angles(tn_build *b, int32_t n_rot, tn_rope_params rope, bool factors, const char *name) {
    if (!factors || !tn_has_tensor(b, "rope_freqs.weight", 0)) return tn_g_rope_table(b->g, NULL, n_rot, rope, name);
    tn_val f = tn_vector(b, n_rot / 2, "rope_freqs.weight", 0);
    return tn_g_rope_table(b->g, &f, n_rot, rope, name);
}

tn_val tn_row_matrix(tn_build *b, int32_t n, const char *format, int32_t layer) {
    return tn_matrix(b, 1, n, format, layer);
}

/* ---- the frame ---- */

/* Logits that tn_best() tells of. */
static int32_t n_best(const tn_hparams *hp) {
    return hp->n_vocab < TN_N_BEST ? hp->n_vocab : TN_N_BEST;
}

tn_status tn_model_build(tn_graph *g, const tn_arch *arch, const tn_hparams *hp, const tn_gguf *file,
                         tn_weight_table *weights, const tn_phase_shape *shape, tn_error *err) {
    *g = (tn_graph){.max_tokens = shape->max_tokens,
                    .max_outputs = shape->max_outputs,
                    .one_token = shape->one_token,
                    .all_outputs = shape->all_outputs,
                    .layer = -1};
    g->weights = weights->p;
    g->n_weights = weights->n;
    tn_build b = {.g = g, .file = file, .hp = hp, .weights = weights, .err = err};
    b.tokens = tn_g_tokens(g);
    if (g->failed) goto fail; /* from here on there is a node for values after an error */
    tn_val logits = arch->build(&b);
    if (g->failed || b.status != TN_OK) goto fail;
    g->output = logits.node;
    g->layer = -1;
    g->choice = tn_g_argmax(g, logits, "chosen").node;
    if (shape->one_token || !shape->all_outputs) g->best = tn_g_best(g, logits, n_best(hp), "best").node;
    if (g->failed) goto fail;
    return TN_OK;
fail:
    if (b.status == TN_OK) b.status = tn_fail_memory(err);
    tn_graph_free(g);
    return b.status;
}
