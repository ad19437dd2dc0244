/* What the command line can be told: one struct for all verbs, filled from one table (options.c). */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "tenon.h"

/* Lists grow with each use of their option. */
typedef struct cli_ints {
    int32_t *v;
    size_t n;
} cli_ints;

typedef struct cli_words {
    char **v;
    size_t n;
} cli_words;

typedef struct cli_biases {
    tn_logit_bias *v;
    size_t n;
} cli_biases;

/* Order as in the choices of --format and -o of bench in options.c. */
typedef enum cli_table { CLI_TABLE_MD, CLI_TABLE_CSV, CLI_TABLE_JSON, CLI_TABLE_JSONL, CLI_TABLE_SQL } cli_table;

typedef struct cli_options {
    const char *operand, *operands[3]; /* the words that are no options; the first of them */
    int n_operands;
    bool help, verbose, quiet, json;

    /* model and device */
    const char *model, *backend, *gpu_layers, *cache_dir, *webgpu_lib;
    int32_t threads, n_ctx, n_ubatch;
    int kv_type, act;     /* tn_kv_type, tn_act_type */
    int cache_k, cache_v; /* kv_type in llama.cpp's two options; -1: not given */
    int flash_attn;       /* the place in its list of words; 0: not given */
    const char *fuse;

    /* text in */
    const char *prompt, *file, *system, *chat_template;
    cli_ints ids;
    bool raw, no_special, no_bos, want_ids;
    cli_ints decode;

    /* generation; a seed of -1 is a new one each time, n_logprobs of -1 is none */
    int32_t n_predict, n_logprobs;
    bool ignore_eos;
    cli_words stops;
    tn_sampler_options sampler;
    cli_biases biases;
    int64_t seed;

    /* logits */
    const char *output;
    int32_t chunk, n_seq;
    bool all;

    /* quantize, synth */
    const char *type;
    int32_t n_layer;
    bool pure, allow_requantize;

    /* explain, verify */
    int phase, format; /* tn_phase, tn_format */
    bool rules, ops;

    /* bench */
    cli_words models, fuses;
    cli_ints prompts, gens, depths, thread_counts;
    cli_ints prompts_gens; /* in pairs */
    int32_t repetitions;
    bool no_warmup, ablate;
    const char *compared[2], *against;

    /* profile; an n_prompt of -1 is the default */
    int32_t n_prompt, depth;
    bool compare;
    const char *trace;
    int table; /* cli_table */
} cli_options;

typedef struct cli_verb {
    const char *name;
    unsigned bit; /* its place in the masks of the option table */
    tn_status (*run)(const cli_options *o, tn_error *err);
    const char *operand; /* the words it takes besides options, at most three; NULL: none */
    const char *help;
} cli_verb;

extern const cli_verb cli_verbs[]; /* ends with a row without a name */

/* Reads the words after the verb. */
tn_status cli_parse(const cli_verb *verb, int argc, char **argv, cli_options *o, tn_error *err);
void cli_options_free(cli_options *o);

typedef struct cli_option_info {
    const char *name, *alias, *arg, *help; /* alias, arg: NULL where there is none */
    int n_values;
    bool needed;
} cli_option_info;

/* The i-th option of a verb; false at the end. */
bool cli_option_at(const cli_verb *verb, size_t i, cli_option_info *info);

#endif
