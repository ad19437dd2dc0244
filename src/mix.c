/* The choice of a block type for each tensor of a file: rules of mix.def over the parts of a model. */
#include "mix.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- file types ---- */

static const tn_file_type file_types[] = {
#define FILE_TYPE(name, number, type, words) {#name, number, TN_TYPE_##type, words},
#include "mix.def"
};

tn_status tn_file_type_find(const tn_file_type **out, const char *name, tn_error *err) {
    char names[300] = "";
    for (size_t i = 0; i < sizeof file_types / sizeof *file_types; i++) {
        if (!strcasecmp(name, file_types[i].name)) {
            *out = &file_types[i];
            return TN_OK;
        }
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", file_types[i].name);
    }
    return tn_fail(err, TN_ERR_USAGE, "unknown type '%.40s'; known are %s", name, names);
}

const char *tn_file_type_words(uint32_t number) {
    for (size_t i = 0; i < sizeof file_types / sizeof *file_types; i++)
        if (file_types[i].number == number) return file_types[i].words;
    return "unknown";
}

bool tn_is_quantized(uint32_t type) {
    const tn_type_info *t = tn_type_get(type);
    return !t || t->block > 1;
}

/* ---- parts of a model ---- */

typedef enum part { OTHER, OUTPUT, EMBEDDING, ATTN_V, ATTN_K, ATTN_OUTPUT, FFN_DOWN } part;

static part part_of(const char *name) {
    static const struct {
        part part;
        bool whole; /* the whole name, not a piece of it */
        const char *name;
    } names[] = {
        {OUTPUT, true, "output.weight"},
        {EMBEDDING, true, "token_embd.weight"},
        {EMBEDDING, true, "per_layer_token_embd.weight"},
        {ATTN_V, false, "attn_qkv.weight"},
        {ATTN_V, false, "attn_kv_b.weight"},
        {ATTN_V, false, "attn_v.weight"},
        {ATTN_K, false, "attn_k.weight"},
        {ATTN_OUTPUT, false, "attn_output.weight"},
        {FFN_DOWN, false, "ffn_down"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].whole ? !strcmp(name, names[i].name) : strstr(name, names[i].name) != NULL) return names[i].part;
    return OTHER;
}

/* Matrices only, and none of those that are small or upset a model when they are rounded. */
static bool may_change(const tn_gguf_tensor *t) {
    static const char *const kept[] = {"_norm.weight",     "ffn_gate_inp.weight",   "per_layer_model_proj",
                                       "ssm_conv1d",       "shortconv.conv.weight", "altup",
                                       "laurel",           "position_embd.weight",  "token_types.weight",
                                       "attn_rel_b.weight"};
    size_t n = strlen(t->name);
    if (t->ne[1] == 1 && t->ne[2] == 1 && t->ne[3] == 1) return false;
    if (n < 6 || strcmp(t->name + n - 6, "weight")) return false;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (strstr(t->name, kept[i])) return false;
    return true;
}

static int layer_of(const char *name) {
    int layer;
    return sscanf(name, "blk.%d.", &layer) == 1 && layer >= 0 && layer < TN_MIX_LAYERS ? layer : 0;
}

void tn_mix_see(tn_mix *m, const char *name) {
    part p = part_of(name);
    if (p == OUTPUT) m->untied = true;
    if (p == ATTN_V) m->attn_v[layer_of(name)] = true;
}

/* ---- rules ---- */

/* Number i of n layers; of matrices of values, only the layers that have one are counted. */
typedef struct place {
    const tn_mix *mix;
    int i, n;
} place;

static place place_of(const tn_mix *m, part p, const char *name) {
    place at = {m, layer_of(name), m->n_layer};
    if (p != ATTN_V) return at;
    int layer = at.i;
    at.i = at.n = 0;
    for (int k = 0; k < TN_MIX_LAYERS; k++) {
        at.i += m->attn_v[k] && k < layer;
        at.n += m->attn_v[k];
    }
    return at;
}

static bool always(const place *p) {
    (void)p;
    return true;
}
static bool eight_experts(const place *p) {
    return p->mix->n_expert == 8;
}
/* The first and last eighth, and every third in between. */
static bool more_bits(const place *p) {
    return p->i < p->n / 8 || p->i >= 7 * p->n / 8 || (p->i - p->n / 8) % 3 == 2;
}
static bool first_two(const place *p) {
    return p->i < 2;
}
static bool first_four(const place *p) {
    return p->i < 4;
}
static bool first_eighth(const place *p) {
    return p->i < p->n / 8;
}
static bool first_sixteenth(const place *p) {
    return p->i < p->n / 16;
}
static bool four_heads_share(const place *p) {
    return p->mix->n_kv > 0 && p->mix->n_head / p->mix->n_kv >= 4;
}
/* Models of 70 billion parameters, whose values are small beside the rest. */
static bool many_layers(const place *p) {
    return p->mix->n_layer == 80 && p->mix->n_head != p->mix->n_kv;
}

enum {
#define FILE_TYPE(name, number, type, words) FILE_##name = number,
#include "mix.def"
};

enum { TN_TYPE_SAME = -1 }; /* in a rule: the file type's own */

static const struct rule {
    uint64_t files;
    unsigned parts;
    bool (*when)(const place *p);
    int type;
} rules[] = {
#define F(name)                        (1ull << FILE_##name)
#define P(name)                        (1u << name)
#define ANY                            (~0ull)
#define RULE(files, parts, when, type) {files, parts, when, TN_TYPE_##type},
#include "mix.def"
};

static const struct {
    tn_type type, to;
} fallbacks[] = {
#define FALLBACK(type, to) {TN_TYPE_##type, TN_TYPE_##to},
#include "mix.def"
};

static bool fits(tn_type type, const tn_gguf_tensor *t) {
    return t->ne[0] % tn_type_get(type)->block == 0;
}

/* What the model would like, whether or not the rows fit. */
static tn_type wanted(const tn_mix *m, const tn_gguf_tensor *t) {
    tn_type type = m->file_type->type;
    part p = part_of(t->name);
    if (m->pure) return type;
    if (p == OUTPUT || (p == EMBEDDING && !m->untied))
        return fits(type, t) && type != TN_TYPE_Q8_0 ? TN_TYPE_Q6_K : TN_TYPE_Q8_0;
    place at = place_of(m, p, t->name);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        const struct rule *r = &rules[i];
        if (!(r->files >> m->file_type->number & 1) || !(r->parts & 1u << p) || !r->when(&at)) continue;
        return r->type == TN_TYPE_SAME ? type : (tn_type)r->type;
    }
    return type;
}

tn_type tn_mix_type(const tn_mix *m, const tn_gguf_tensor *t, bool *fell_back) {
    *fell_back = false;
    if (!may_change(t)) return (tn_type)t->type;
    if (!tn_is_quantized(m->file_type->type)) return m->file_type->type;
    tn_type type = wanted(m, t);
    if (fits(type, t)) return type;
    *fell_back = true;
    for (size_t i = 0; i < sizeof fallbacks / sizeof *fallbacks; i++)
        if (fallbacks[i].type == type && fits(fallbacks[i].to, t)) return fallbacks[i].to;
    return TN_TYPE_F16;
}
