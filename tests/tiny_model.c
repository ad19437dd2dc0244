/* Tiny models: a table of keys and a table of tensors, with the architectures that have each. */
#include "tiny_model.h"

#include "base/arena.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LLAMA = 1,
    QWEN2 = 2,
    QWEN3MOE = 4,
    QWEN35 = 8,
    QWEN35MOE = 16,
    GEMMA3 = 32,
    GEMMA4 = 64,
    GEMMA4MOE = 128,
    DELTA = QWEN35 | QWEN35MOE,
    GEMMA = GEMMA3 | GEMMA4 | GEMMA4MOE,
    EXPERTS = QWEN3MOE | QWEN35MOE | GEMMA4MOE,
    DENSE = LLAMA | QWEN2 | QWEN35 | GEMMA,
    HEAD_NORMS = QWEN3MOE | DELTA | GEMMA,
    ALL = 255,
};

static const char *const archs[] = {"llama",     "qwen2",  "qwen3moe", "qwen35",
                                    "qwen35moe", "gemma3", "gemma4",   "gemma4moe"};

const char *tn_tiny_arch(int i) {
    return i >= 0 && (size_t)i < sizeof archs / sizeof *archs ? archs[i] : NULL;
}

enum { N_LAYER = 2, N_HEAD = 2, N_KV = 1, HEAD = 8, N_EXPERT = 3, N_USED = 2, TAPS = 3, DELTA_HEADS = 2 };

/* A value of 0 stands for the width. */
static const struct {
    unsigned archs;
    const char *suffix;
    uint32_t value;
} keys[] = {
    {ALL, "block_count", N_LAYER},
    {ALL, "embedding_length", 0},
    {ALL, "feed_forward_length", 0},
    {ALL, "context_length", 64},
    {ALL, "attention.head_count", N_HEAD},
    {ALL, "attention.head_count_kv", N_KV},
    {ALL, "attention.key_length", HEAD},
    {ALL, "attention.value_length", HEAD},
    {ALL, "rope.dimension_count", HEAD},
    {EXPERTS, "expert_count", N_EXPERT},
    {EXPERTS, "expert_used_count", N_USED},
    {EXPERTS, "expert_feed_forward_length", 0},
    {QWEN35MOE, "expert_shared_feed_forward_length", 0},
    {DELTA, "full_attention_interval", 2},
    {DELTA, "ssm.conv_kernel", TAPS},
    {DELTA, "ssm.state_size", 0},
    {DELTA, "ssm.group_count", 1},
    {DELTA, "ssm.time_step_rank", DELTA_HEADS},
    {GEMMA, "attention.sliding_window", 3},
    {GEMMA3, "attention.sliding_window_pattern", 2},
    {GEMMA4 | GEMMA4MOE, "attention.key_length_swa", HEAD},
    {GEMMA4 | GEMMA4MOE, "rope.dimension_count_swa", HEAD},
    {GEMMA4, "attention.shared_kv_layers", 1},
    {GEMMA4, "embedding_length_per_layer_input", 0},
};

/* Layers: every one, those of full attention, those of delta nets, or the file once. */
typedef enum where { ONCE, EVERY, FULL, RECURRENT } where;

/* Sizes as letters, the row first; see size_of. */
static const struct {
    unsigned archs;
    where where;
    const char *name, *sizes;
} tensors[] = {
    {ALL, ONCE, "token_embd.weight", "EV"},
    {ALL, ONCE, "output_norm.weight", "E"},
    {QWEN2, ONCE, "output.weight", "EV"},
    {LLAMA | GEMMA, ONCE, "rope_freqs.weight", "R"},
    {GEMMA4, ONCE, "per_layer_token_embd.weight", "PV"},
    {GEMMA4, ONCE, "per_layer_model_proj.weight", "EP"},
    {GEMMA4, ONCE, "per_layer_proj_norm.weight", "E"},
    {ALL, EVERY, "attn_norm.weight", "E"},
    {ALL & ~DELTA, FULL, "attn_q.weight", "EQ"},
    {DELTA, FULL, "attn_q.weight", "EG"},
    {ALL, FULL, "attn_k.weight", "EK"},
    {ALL, FULL, "attn_v.weight", "EK"},
    {QWEN2, FULL, "attn_q.bias", "Q"},
    {QWEN2, FULL, "attn_k.bias", "K"},
    {QWEN2, FULL, "attn_v.bias", "K"},
    {HEAD_NORMS, FULL, "attn_q_norm.weight", "D"},
    {HEAD_NORMS, FULL, "attn_k_norm.weight", "D"},
    {ALL, FULL, "attn_output.weight", "QE"},
    {DELTA, RECURRENT, "attn_qkv.weight", "EC"},
    {DELTA, RECURRENT, "attn_gate.weight", "EA"},
    {DELTA, RECURRENT, "ssm_beta.weight", "EH"},
    {DELTA, RECURRENT, "ssm_alpha.weight", "EH"},
    {DELTA, RECURRENT, "ssm_dt.bias", "H"},
    {DELTA, RECURRENT, "ssm_a", "H"},
    {DELTA, RECURRENT, "ssm_conv1d.weight", "TC"},
    {DELTA, RECURRENT, "ssm_norm.weight", "S"},
    {DELTA, RECURRENT, "ssm_out.weight", "AE"},
    {GEMMA | DELTA, EVERY, "post_attention_norm.weight", "E"},
    {ALL & ~DELTA, EVERY, "ffn_norm.weight", "E"},
    {DENSE, EVERY, "ffn_gate.weight", "EF"},
    {DENSE, EVERY, "ffn_up.weight", "EF"},
    {DENSE, EVERY, "ffn_down.weight", "FE"},
    {EXPERTS, EVERY, "ffn_gate_inp.weight", "EX"},
    {GEMMA4MOE, EVERY, "ffn_gate_inp.scale", "E"},
    {EXPERTS & ~GEMMA4MOE, EVERY, "ffn_gate_exps.weight", "EFX"},
    {EXPERTS & ~GEMMA4MOE, EVERY, "ffn_up_exps.weight", "EFX"},
    {GEMMA4MOE, EVERY, "ffn_gate_up_exps.weight", "EUX"},
    {EXPERTS, EVERY, "ffn_down_exps.weight", "FEX"},
    {GEMMA4MOE, EVERY, "ffn_down_exps.scale", "X"},
    {QWEN35MOE, EVERY, "ffn_gate_inp_shexp.weight", "E"},
    {QWEN35MOE, EVERY, "ffn_gate_shexp.weight", "EF"},
    {QWEN35MOE, EVERY, "ffn_up_shexp.weight", "EF"},
    {QWEN35MOE, EVERY, "ffn_down_shexp.weight", "FE"},
    {GEMMA, EVERY, "post_ffw_norm.weight", "E"},
    {GEMMA4MOE, EVERY, "pre_ffw_norm_2.weight", "E"},
    {GEMMA4MOE, EVERY, "post_ffw_norm_1.weight", "E"},
    {GEMMA4MOE, EVERY, "post_ffw_norm_2.weight", "E"},
    {GEMMA4, EVERY, "inp_gate.weight", "EE"},
    {GEMMA4, EVERY, "proj.weight", "EE"},
    {GEMMA4, EVERY, "post_norm.weight", "E"},
    {GEMMA4, EVERY, "layer_output_scale.weight", "1"},
};

/* The heads of a model with blocks in its weights are such that rows are whole blocks. */
static int32_t heads_of(int32_t width) {
    return width > N_HEAD * HEAD ? width / HEAD : N_HEAD;
}

static int64_t size_of(char letter, int32_t width) {
    int32_t q = heads_of(width) * HEAD;
    switch (letter) {
    case 'V': return TN_TINY_VOCAB;
    case 'R': return HEAD / 2;
    case 'P': return (int64_t)width * N_LAYER;
    case 'Q': return q;
    case 'G': return 2 * (int64_t)q;
    case 'K': return N_KV * HEAD;
    case 'D': return HEAD;
    case 'A': return (int64_t)width * DELTA_HEADS;
    case 'C': return (int64_t)width * (2 + DELTA_HEADS);
    case 'H': return DELTA_HEADS;
    case 'T': return TAPS;
    case 'U': return 2 * (int64_t)width;
    case 'X': return N_EXPERT;
    case '1': return 1;
    default: return width; /* E, F, S */
    }
}

typedef struct maker {
    tn_gguf_writer *w;
    tn_arena arena;
    const tn_tiny_options *o;
    unsigned arch;
    uint32_t seed;
    bool failed;
} maker;

static float uniform(maker *m) {
    m->seed ^= m->seed << 13;
    m->seed ^= m->seed >> 17;
    m->seed ^= m->seed << 5;
    return (float)(m->seed >> 8) / 16777216.0f - 0.5f;
}

/* Vectors and taps are F32 in every file. */
static void put_tensor(maker *m, const char *name, const char *sizes) {
    bool plain = strlen(sizes) == 1 || sizes[0] == 'T';
    tn_gguf_tensor t = {.name = name, .n_dims = (int)strlen(sizes), .ne = {1, 1, 1, 1}};
    t.type = plain ? TN_TYPE_F32 : m->o->type;
    size_t rows = 1;
    for (int i = 0; i < t.n_dims; i++) {
        t.ne[i] = size_of(sizes[i], m->o->width);
        rows *= i ? (size_t)t.ne[i] : 1;
    }
    size_t row = tn_type_row_bytes((tn_type)t.type, (size_t)t.ne[0]);
    uint8_t *data = tn_arena_alloc(&m->arena, row * rows);
    float *x = tn_arena_alloc(&m->arena, (size_t)t.ne[0] * sizeof *x);
    if (!data || !x || !tn_type_get(t.type)->encode) {
        m->failed = true;
        return;
    }
    for (size_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < t.ne[0]; i++) x[i] = uniform(m) + (t.n_dims == 1 ? 1.0f : 0.0f);
        tn_type_get(t.type)->encode(x, data + r * row, (size_t)t.ne[0]);
    }
    t.data = data;
    tn_gguf_put_tensor(m->w, &t, NULL, NULL);
}

static void put_tensors(maker *m) {
    char name[80];
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        if (tensors[i].archs & m->arch && tensors[i].where == ONCE) put_tensor(m, tensors[i].name, tensors[i].sizes);
    for (int l = 0; l < N_LAYER; l++) {
        bool full = !(m->arch & DELTA) || (l + 1) % 2 == 0;
        for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
            where at = tensors[i].where;
            if (!(tensors[i].archs & m->arch) || at == ONCE || at == (full ? RECURRENT : FULL)) continue;
            snprintf(name, sizeof name, "blk.%d.%s", l, tensors[i].name);
            put_tensor(m, name, tensors[i].sizes);
        }
    }
}

static void put_keys(maker *m, const char *arch) {
    char key[80];
    tn_gguf_put_str(m->w, "general.architecture", arch);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!(keys[i].archs & m->arch)) continue;
        bool heads = !strcmp(keys[i].suffix, "attention.head_count");
        snprintf(key, sizeof key, "%s.%s", arch, keys[i].suffix);
        tn_gguf_put_u32(m->w, key,
                        heads           ? (uint32_t)heads_of(m->o->width)
                        : keys[i].value ? keys[i].value
                                        : (uint32_t)m->o->width);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    tn_gguf_put_f32(m->w, key, 1e-6f);
}

static void put_vocab(maker *m) {
    static const char letters[TN_TINY_VOCAB + 1] = "?<>abcdefghi";
    tn_str texts[TN_TINY_VOCAB];
    float scores[TN_TINY_VOCAB];
    int32_t types[TN_TINY_VOCAB];
    for (int i = 0; i < TN_TINY_VOCAB; i++) {
        texts[i] = (tn_str){letters + i, 1};
        scores[i] = (float)-i;
        types[i] = i == 0 ? 2 : i < 3 ? 3 : 1;
    }
    tn_gguf_kv arrays[] = {
        {.key = tn_str_of("tokenizer.ggml.tokens"), .array = {TN_GGUF_STR, TN_TINY_VOCAB, NULL, texts}},
        {.key = tn_str_of("tokenizer.ggml.scores"), .array = {TN_GGUF_F32, TN_TINY_VOCAB, scores, NULL}},
        {.key = tn_str_of("tokenizer.ggml.token_type"), .array = {TN_GGUF_I32, TN_TINY_VOCAB, types, NULL}},
    };
    tn_gguf_put_str(m->w, "tokenizer.ggml.model", "llama");
    for (int i = 0; i < 3; i++) {
        arrays[i].type = TN_GGUF_ARRAY;
        tn_gguf_put(m->w, &arrays[i]);
    }
    tn_gguf_put_u32(m->w, "tokenizer.ggml.bos_token_id", 1);
    tn_gguf_put_u32(m->w, "tokenizer.ggml.eos_token_id", 2);
    tn_gguf_put_u32(m->w, "tokenizer.ggml.unknown_token_id", 0);
}

tn_status tn_tiny_write(const tn_tiny_options *o, const char *path, tn_error *err) {
    maker m = {.o = o, .seed = 88172645u};
    for (int i = 0; tn_tiny_arch(i); i++)
        if (!strcmp(o->arch, tn_tiny_arch(i))) m.arch = 1u << i;
    tn_status status = tn_gguf_writer_open(&m.w, err);
    if (status != TN_OK) return status;
    put_keys(&m, m.arch == GEMMA4MOE ? "gemma4" : o->arch);
    if (o->vocab) put_vocab(&m);
    put_tensors(&m);
    status = m.failed || !m.arch ? tn_fail(err, TN_ERR_USAGE, "no tiny model like this")
                                 : tn_gguf_writer_save(m.w, path, err);
    tn_gguf_writer_close(&m.w);
    tn_arena_free(&m.arena);
    return status;
}

static void *read_all(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    void *p = tn_alloc(*n);
    if (p && fread(p, 1, *n, f) != *n) {
        tn_free(p);
        p = NULL;
    }
    fclose(f);
    return p;
}

void *tn_tiny_bytes(const tn_tiny_options *o, size_t *n, tn_error *err) {
    char path[] = "/tmp/tenon-tiny-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0) return NULL;
    close(fd);
    void *p = tn_tiny_write(o, path, err) == TN_OK ? read_all(path, n) : NULL;
    unlink(path);
    return p;
}
