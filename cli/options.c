/* The option table of all verbs, and what is made from it: parsing, the texts of -h, and the errors for options that
 * are unknown, of another verb, or without a sensible value. */
#include "options.h"
#include "out.h"
#include "verbs.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum option_type {
    FLAG,   /* bool */
    TEXT,   /* const char * */
    PAIR,   /* const char *[2]: two words */
    INT,    /* int32_t in [min, max] */
    SEED,   /* int64_t in [min, max] */
    REAL,   /* float in [min, max] */
    CHOICE, /* int: the index in arg, which lists the words */
    INTS,   /* cli_ints: 1,2,3 or "1 2 3", each in [min, max] */
    RANGES, /* likewise, also 1-3, 0-64+16 and 1-64*2 */
    TWO,    /* cli_ints: two more */
    WORDS,  /* cli_words: a,b */
    PHRASE, /* cli_words: one more, whole and not empty */
    BIASES, /* cli_biases: 15+2.5,16-inf */
    FUSES,  /* cli_words: where "all" or "none" is among a,b each word is a value, else the whole is one */
} option_type;

typedef struct option {
    const char *name, *alias, *arg;
    unsigned verbs, needed_by;
    option_type type;
    size_t at;
    double min, max;
    const char *help;
} option;

#define AT(field) offsetof(cli_options, field)
enum {
    ONE_MODEL = RUN | LOGITS | PERPLEXITY | TOKENIZE | TEMPLATE | EXPLAIN | VERIFY | PROFILE,
    /* tokenize and template open no device, but take the common options as the others do */
    STEPS = RUN | LOGITS | PERPLEXITY | EXPLAIN | BENCH | PROFILE | TOKENIZE | TEMPLATE,
    DEVICE = STEPS | VERIFY,
    LLAMA = RUN | PERPLEXITY | BENCH, /* llama.cpp has these */
    FACTS = RUN | PERPLEXITY | TOKENIZE | TEMPLATE | INSPECT | EXPLAIN | VERIFY | BENCH | PROFILE | DOCTOR,
};

/* A name may have several rows, as long as no verb has two of them. */
/* clang-format off */
static const option options[] = {
    /* model and device */
    {"-m", "--model", "FILE", ONE_MODEL, ONE_MODEL & ~VERIFY, TEXT, AT(model), 0, 0, "the model, a GGUF file"},
    {"-m", "--model", "FILE[,FILE]", BENCH, 0, WORDS, AT(models), 0, 0, "the models"},
    {"-b", "--backend", "cpu|cuda[:N]|webgpu", DEVICE, 0, TEXT, AT(backend), 0, 0, "cpu (default), cpu:ref, cpu:avx2, cpu:avx512, cpu:neon, webgpu, cuda[:N]"},
    {"-t", "--threads", "N", (DEVICE & ~BENCH) | QUANTIZE, 0, INT, AT(threads), 1, 1024, "CPU threads (default: one per core)"},
    {"-t", "--threads", "N[,N]", BENCH, 0, RANGES, AT(thread_counts), 1, 1024, "CPU threads (default: one per core)"},
    {"-c", "--ctx-size", "N", PERPLEXITY, 0, INT, AT(n_ctx), 0, INT32_MAX, "tokens in a chunk of the text (default: 512)"},
    {"-c", "--ctx-size", "N", STEPS & ~BENCH & ~PERPLEXITY, 0, INT, AT(n_ctx), 0, INT32_MAX, "context in tokens (0, the default: 4096 or the model's, whichever is less)"},
    {"-ub", "--ubatch-size", "N", STEPS, 0, INT, AT(n_ubatch), 1, INT32_MAX, "tokens in one prefill step (default: 512)"},
    {"--kv-type", NULL, "f16|q8_0|f32", DEVICE, 0, CHOICE, AT(kv_type), 0, 0, "what the cache holds (default: f16)"},
    {"-ctk", "--cache-type-k", "f16|q8_0|f32", LLAMA, 0, CHOICE, AT(cache_k), 0, 0, "--kv-type as llama.cpp has it: together with -ctv of the same type"},
    {"-ctv", "--cache-type-v", "f16|q8_0|f32", LLAMA, 0, CHOICE, AT(cache_v), 0, 0, "likewise"},
    {"-fa", "--flash-attn", "auto|-1|on|1|off|0", LLAMA, 0, CHOICE, AT(flash_attn), 0, 0, "accepted for llama.cpp's sake: attention is always one kernel"},
    {"--act", NULL, "int8|f32", DEVICE, 0, CHOICE, AT(act), 0, 0, "whether matmuls may quantise their activations (default: int8)"},
    {"--fuse", NULL, "RULES", DEVICE & ~BENCH, 0, TEXT, AT(fuse), 0, 0, "all (default), none, RULE,RULE or -RULE,-RULE"},
    {"--fuse", NULL, "RULES", BENCH, 0, FUSES, AT(fuses), 0, 0, "all (default), none, all,none for both, RULE,RULE or -RULE,-RULE"},
    {"--cache-dir", NULL, "DIR", STEPS, 0, TEXT, AT(cache_dir), 0, 0, "where code compiled for a GPU is kept (default: ~/.cache/tenon)"},
    {"--webgpu-lib", NULL, "PATH", DEVICE | DOCTOR, 0, TEXT, AT(webgpu_lib), 0, 0, "the implementation of WebGPU to load (default: it is searched for)"},
    {"-ngl", "--gpu-layers", "N", STEPS, 0, TEXT, AT(gpu_layers), 0, 0, "accepted for llama.cpp's sake: all layers run on the backend"},

    /* what goes in */
    {"-p", "--prompt", "TEXT", TOKENIZE, 0, TEXT, AT(prompt), 0, 0, "the text"},
    {"-p", "--prompt", "TEXT", RUN, 0, TEXT, AT(prompt), 0, 0, "the prompt (no prompt: stdin; where that is a terminal, a chat)"},
    {"-f", "--file", "FILE", RUN | TOKENIZE, 0, TEXT, AT(file), 0, 0, "a file with it; - is stdin"},
    {"-f", "--file", "FILE", VERIFY, 0, TEXT, AT(file), 0, 0, "with -m: a text, on which fused and unfused are compared (NMSE, KL divergence, likeliest tokens); - is stdin"},
    {"-f", "--file", "FILE", PERPLEXITY, PERPLEXITY, TEXT, AT(file), 0, 0, "the text; - is stdin"},
    {"-f", "--file", "FILE", TEMPLATE, TEMPLATE, TEXT, AT(file), 0, 0, "JSON: messages, or an object with messages and more variables; - is stdin"},
    {"--ids", NULL, "1,2,3", RUN, 0, INTS, AT(ids), 0, INT32_MAX, "the prompt as tokens"},
    {"--ids", NULL, "1,2,3", LOGITS, LOGITS, INTS, AT(ids), 0, INT32_MAX, "the tokens"},
    {"--ids", NULL, NULL, TEMPLATE, 0, FLAG, AT(want_ids), 0, 0, "print the tokens in place of the text"},
    {"--raw", NULL, NULL, RUN, 0, FLAG, AT(raw), 0, 0, "do not apply the chat template"},
    {"-sys", "--system-prompt", "TEXT", RUN, 0, TEXT, AT(system), 0, 0, "a system message for the chat template"},
    {"--chat-template", NULL, "FILE", RUN | TEMPLATE, 0, TEXT, AT(chat_template), 0, 0, "a Jinja template in place of the model's"},
    {"--no-bos", NULL, NULL, TOKENIZE, 0, FLAG, AT(no_bos), 0, 0, "do not add what the model's flags ask for (BOS, EOS)"},
    {"--no-special", NULL, NULL, TOKENIZE, 0, FLAG, AT(no_special), 0, 0, "control tokens written in the text are plain text"},
    {"--decode", NULL, "1,2,3", TOKENIZE, 0, INTS, AT(decode), 0, INT32_MAX, "print the text of these tokens"},

    /* generation */
    {"-n", "--n-predict", "N", RUN, 0, INT, AT(n_predict), -1, INT32_MAX, "tokens to generate at most (default: -1: until the context is full)"},
    {"--ignore-eos", NULL, NULL, RUN, 0, FLAG, AT(ignore_eos), 0, 0, "go on after a token that ends a text"},
    {"--stop", NULL, "TEXT", RUN, 0, PHRASE, AT(stops), 0, 0, "end before this text (may be given several times)"},
    {"--logprobs", NULL, "N", RUN, 0, INT, AT(n_logprobs), 0, 1 << 20, "with --json: log-probabilities of each token and of the N likeliest"},
    {"--temp", NULL, "X", RUN, 0, REAL, AT(sampler.temp), 0, 1e6, "temperature (default: 0.8; 0: always the likeliest token)"},
    {"--top-k", NULL, "N", RUN, 0, INT, AT(sampler.top_k), 0, INT32_MAX, "draw from the N likeliest (default: 40; 0: off)"},
    {"--top-p", NULL, "X", RUN, 0, REAL, AT(sampler.top_p), 0, 1, "draw from the likeliest that make up X (default: 0.95; 1: off)"},
    {"--min-p", NULL, "X", RUN, 0, REAL, AT(sampler.min_p), 0, 1, "no token below X times the likeliest (default: 0.05; 0: off)"},
    {"--repeat-penalty", NULL, "X", RUN, 0, REAL, AT(sampler.repeat_penalty), 1e-3, 1e3, "make recent tokens less likely (default: 1, off)"},
    {"--presence-penalty", NULL, "X", RUN, 0, REAL, AT(sampler.presence_penalty), -1e3, 1e3, "taken from the logit of a recent token (default: 0, off)"},
    {"--frequency-penalty", NULL, "X", RUN, 0, REAL, AT(sampler.frequency_penalty), -1e3, 1e3, "likewise, once for each time it is there (default: 0, off)"},
    {"--repeat-last-n", NULL, "N", RUN, 0, INT, AT(sampler.repeat_last_n), -1, INT32_MAX, "how many tokens are recent (default: 64; -1: the context)"},
    {"-l", "--logit-bias", "ID+X|ID-X", RUN, 0, BIASES, AT(biases), 0, 0, "add to a token's logit; ID-inf: never this token (a list, or several times)"},
    {"-s", "--seed", "N", RUN, 0, SEED, AT(seed), -1, 9e15, "random seed (default: -1, a new one each time)"},

    /* logits */
    {"-o", "--output", "FILE", LOGITS, LOGITS, TEXT, AT(output), 0, 0, "where the logits go: little-endian f32, row after row"},
    {"--all", NULL, NULL, LOGITS, 0, FLAG, AT(all), 0, 0, "logits of every position, not only of the last"},
    {"--chunk", NULL, "N", LOGITS, 0, INT, AT(chunk), 1, 1 << 20, "feed N tokens a step"},
    {"--seq", NULL, "N", LOGITS, 0, INT, AT(n_seq), 1, 64, "run the tokens in N interleaved sequences and write all, one after the other"},

    /* quantize, synth */
    {"--allow-requantize", NULL, NULL, QUANTIZE, 0, FLAG, AT(allow_requantize), 0, 0, "convert tensors that are quantised already, at a further loss"},
    {"--pure", NULL, NULL, QUANTIZE, 0, FLAG, AT(pure), 0, 0, "one type for all matrices, in place of the mix"},
    {"-o", "--output", "FILE", SYNTH, SYNTH, TEXT, AT(output), 0, 0, "where the model goes"},
    {"--type", NULL, "TYPE", SYNTH, 0, TEXT, AT(type), 0, 0, "type of the weights, as quantize takes it (default: Q4_K_M)"},
    {"--layers", NULL, "N", SYNTH, 0, INT, AT(n_layer), 1, 1 << 20, "fewer layers than were published"},
    {"-s", "--seed", "N", SYNTH, 0, SEED, AT(seed), 0, 9e15, "random seed (default: 0)"},

    /* explain, verify */
    {"--phase", NULL, "decode|prefill|few", EXPLAIN, 0, CHOICE, AT(phase), 0, 0, "which program (default: decode)"},
    {"--format", NULL, "text|dot|json|html|svg", EXPLAIN, 0, CHOICE, AT(format), 0, 0, "(default: text)"},
    {"--rules", NULL, NULL, VERIFY, 0, FLAG, AT(rules), 0, 0, "every fusion rule, fused against unfused"},
    {"--ops", NULL, NULL, VERIFY, 0, FLAG, AT(ops), 0, 0, "every op, backend against reference"},

    /* bench */
    {"-p", "--n-prompt", "N[,N]", BENCH, 0, RANGES, AT(prompts), 0, 1 << 24, "prompt lengths to time (default: 512; 0: none); also FIRST-LAST, FIRST-LAST+STEP, FIRST-LAST*FACTOR"},
    {"-n", "--n-gen", "N[,N]", BENCH, 0, RANGES, AT(gens), 0, 1 << 24, "generation lengths to time (default: 128; 0: none)"},
    {"-pg", NULL, "P,N", BENCH, 0, TWO, AT(prompts_gens), 1, 1 << 24, "time a prompt and a generation behind it as one (may be given several times)"},
    {"-d", "--n-depth", "N[,N]", BENCH, 0, RANGES, AT(depths), 0, 1 << 24, "tokens in the cache beforehand (default: 0)"},
    {"-r", "--repetitions", "N", BENCH, 0, INT, AT(repetitions), 1, 10000, "how often each test runs (default: 5; with --ablate or --against 12 rounds)"},
    {"--no-warmup", NULL, NULL, BENCH, 0, FLAG, AT(no_warmup), 0, 0, "leave out the run before each test that is not counted"},
    {"--compare", NULL, "A.json B.json", BENCH, 0, PAIR, AT(compared), 0, 0, "tell which tests of two results (json or jsonl) differ by more than noise (Welch's test, Holm's correction, 5 %); exit code 1 where B is slower or has not all of A's"},
    {"--against", NULL, "PATH", BENCH, 0, TEXT, AT(against), 0, 0, "a llama-bench to run in turn with this program, -r rounds; prints ratios (Wilcoxon's test, Holm's correction, 5 %), and the share of the memory's read rate; exit code 1 where it is faster"},
    {"--ablate", NULL, NULL, BENCH, 0, FLAG, AT(ablate), 0, 0, "all rules, none, each one left out and each alone: what each of them gains"},
    {"-o", "--output", "md|csv|json|jsonl|sql", BENCH, 0, CHOICE, AT(table), 0, 0, "(default: md)"},

    /* profile */
    {"-p", "--n-prompt", "N", PROFILE, 0, INT, AT(n_prompt), 0, 1 << 24, "tokens of a prompt (default: 512; 0: none)"},
    {"-n", "--n-gen", "N", PROFILE, 0, INT, AT(n_predict), 0, 1 << 20, "tokens to generate (default: 32; 0: none)"},
    {"-d", "--n-depth", "N", PROFILE, 0, INT, AT(depth), 0, 1 << 24, "tokens in the cache beforehand (default: 0)"},
    {"-r", "--repetitions", "N", PROFILE, 0, INT, AT(repetitions), 1, 10000, "how often the prompt runs (default: 5; with --compare 12)"},
    {"--compare", NULL, NULL, PROFILE, 0, FLAG, AT(compare), 0, 0, "each fused launch beside its nodes run one by one"},
    {"--trace", NULL, "OUT.json", PROFILE, 0, TEXT, AT(trace), 0, 0, "write a trace of the first steps, for Perfetto or chrome://tracing"},

    /* talk */
    {"--json", NULL, NULL, FACTS, 0, FLAG, AT(json), 0, 0, "print JSON"},
    {"-v", "--verbose", NULL, ~0u, 0, FLAG, AT(verbose), 0, 0, "say more (on stderr)"},
    {"-q", "--quiet", NULL, ~0u, 0, FLAG, AT(quiet), 0, 0, "say nothing but errors"},
    {"-h", "--help", NULL, ~0u, 0, FLAG, AT(help), 0, 0, "this text"},
};
/* clang-format on */
static const size_t n_options = sizeof options / sizeof *options;

/* ---- values ---- */

static bool parse_int(const char *s, const char *end, int64_t *out) {
    char *stop;
    if (s == end || *s == ' ' || *s == '+') return false;
    errno = 0;
    long long v = strtoll(s, &stop, 10);
    if (errno || stop != end) return false;
    *out = v;
    return true;
}

static tn_status parse_number(const option *r, const char *s, const char *end, int64_t *out, tn_error *err) {
    if (!parse_int(s, end, out))
        return cli_fail(err, TN_ERR_USAGE, "%s: '%.*s' is not a whole number", r->name, (int)(end - s), s);
    if ((double)*out < r->min || (double)*out > r->max)
        return cli_fail(err, TN_ERR_USAGE, "%s: %lld is not between %.0f and %.0f", r->name, (long long)*out, r->min,
                        r->max);
    return TN_OK;
}

static tn_status parse_real(const option *r, const char *s, float *out, tn_error *err) {
    char *stop;
    errno = 0;
    double v = strtod(s, &stop);
    if (!*s || *s == ' ' || *stop || errno || !isfinite(v))
        return cli_fail(err, TN_ERR_USAGE, "%s: '%s' is not a number", r->name, s);
    if (v < r->min || v > r->max)
        return cli_fail(err, TN_ERR_USAGE, "%s: %s is not between %g and %g", r->name, s, r->min, r->max);
    *out = (float)v;
    return TN_OK;
}

static tn_status parse_choice(const option *r, const char *s, int *out, tn_error *err) {
    int i = 0;
    for (const char *word = r->arg; *word; i++) {
        size_t n = strcspn(word, "|");
        if (n == strlen(s) && !memcmp(word, s, n)) {
            *out = i;
            return TN_OK;
        }
        word += n + (word[n] == '|');
    }
    return cli_fail(err, TN_ERR_USAGE, "%s: '%s' is not one of %s", r->name, s, r->arg);
}

static void add_int(cli_ints *list, int64_t v) {
    list->v = cli_realloc(list->v, (list->n + 1) * sizeof *list->v);
    list->v[list->n++] = (int32_t)v;
}

static tn_status parse_ints(const option *r, const char *s, cli_ints *list, tn_error *err) {
    for (;;) {
        const char *end = s + strcspn(s, ", ");
        int64_t v;
        tn_status status = parse_number(r, s, end, &v, err);
        if (status) return status;
        add_int(list, v);
        if (!*end) return TN_OK;
        s = end + 1;
    }
}

/* FIRST-LAST, FIRST-LAST+STEP or FIRST-LAST*FACTOR; a number alone is FIRST. */
static tn_status add_range(const option *r, const char *s, const char *end, cli_ints *list, tn_error *err) {
    const char *dash = end > s ? memchr(s + 1, '-', (size_t)(end - s - 1)) : NULL,
               *sign = dash ? dash + strcspn(dash, "+*, ") : end;
    int64_t first, last, by = 1;
    tn_status status = parse_number(r, s, dash ? dash : end, &first, err);
    last = first;
    if (!status && dash) status = parse_number(r, dash + 1, sign, &last, err);
    if (!status && sign < end) status = parse_number(r, sign + 1, end, &by, err);
    if (status) return status;
    if (last < first || by < 1 || (*sign == '*' && (by < 2 || !first)))
        return cli_fail(err, TN_ERR_USAGE, "%s: '%.*s' has no end", r->name, (int)(end - s), s);
    for (int64_t v = first; v <= last; v = *sign == '*' ? v * by : v + by) add_int(list, v);
    return TN_OK;
}

static tn_status parse_ranges(const option *r, const char *s, cli_ints *list, tn_error *err) {
    for (;;) {
        const char *end = s + strcspn(s, ", ");
        tn_status status = add_range(r, s, end, list, err);
        if (status || !*end) return status;
        s = end + 1;
    }
}

static tn_status parse_two(const option *r, const char *s, cli_ints *list, tn_error *err) {
    size_t before = list->n;
    tn_status status = parse_ints(r, s, list, err);
    if (status || list->n == before + 2) return status;
    return cli_fail(err, TN_ERR_USAGE, "%s: '%s' is not two numbers, %s", r->name, s, r->arg);
}

/* A token and what is added to its logit, with a sign between them: 15+2.5, 15-inf. */
static tn_status parse_bias(const option *r, const char *s, const char *end, tn_logit_bias *out, tn_error *err) {
    const char *sign = s + strspn(s, "0123456789");
    int64_t id;
    if (parse_int(s, sign, &id) && id <= INT32_MAX && (*sign == '+' || *sign == '-')) {
        char *stop;
        float bias = strtof(sign, &stop);
        if (stop == end && (isfinite(bias) || (*sign == '-' && tolower(sign[1]) == 'i'))) {
            *out = (tn_logit_bias){(int32_t)id, bias};
            return TN_OK;
        }
    }
    return cli_fail(err, TN_ERR_USAGE, "%s: '%.*s' is not ID+X, ID-X or ID-inf", r->name, (int)(end - s), s);
}

static tn_status parse_biases(const option *r, const char *s, cli_biases *list, tn_error *err) {
    for (;;) {
        const char *end = s + strcspn(s, ",");
        list->v = cli_realloc(list->v, (list->n + 1) * sizeof *list->v);
        tn_status status = parse_bias(r, s, end, &list->v[list->n], err);
        if (status) return status;
        list->n++;
        if (!*end) return TN_OK;
        s = end + 1;
    }
}

static void add_word(cli_words *list, const char *s, size_t n) {
    list->v = cli_realloc(list->v, (list->n + 1) * sizeof *list->v);
    list->v[list->n] = cli_realloc(NULL, n + 1);
    memcpy(list->v[list->n], s, n);
    list->v[list->n++][n] = 0;
}

static void add_words(cli_words *list, const char *s) {
    for (;;) {
        size_t n = strcspn(s, ",");
        add_word(list, s, n);
        if (!s[n]) return;
        s += n + 1;
    }
}

static void add_fuses(cli_words *list, const char *s) {
    cli_words words = {0};
    bool grid = false;
    add_words(&words, s);
    for (size_t i = 0; i < words.n; i++) grid |= !strcmp(words.v[i], "all") || !strcmp(words.v[i], "none");
    if (grid)
        add_words(list, s);
    else
        add_word(list, s, strlen(s));
    for (size_t i = 0; i < words.n; i++) free(words.v[i]);
    free(words.v);
}

/* Stores the value (NULL for flags) of one option. */
static tn_status store(const option *r, const char *value, cli_options *o, tn_error *err) {
    void *at = (char *)o + r->at;
    int64_t number;
    tn_status status = TN_OK;
    switch (r->type) {
    case FLAG: *(bool *)at = true; break;
    case TEXT:
    case PAIR: *(const char **)at = value; break;
    case INT:
    case SEED:
        status = parse_number(r, value, value + strlen(value), &number, err);
        if (status) break;
        if (r->type == INT)
            *(int32_t *)at = (int32_t)number;
        else
            *(int64_t *)at = number;
        break;
    case REAL: return parse_real(r, value, at, err);
    case CHOICE: return parse_choice(r, value, at, err);
    case INTS: return parse_ints(r, value, at, err);
    case RANGES: return parse_ranges(r, value, at, err);
    case TWO: return parse_two(r, value, at, err);
    case WORDS: add_words(at, value); break;
    case PHRASE:
        if (!*value) return cli_fail(err, TN_ERR_USAGE, "%s: the text is empty", r->name);
        add_word(at, value, strlen(value));
        break;
    case BIASES: return parse_biases(r, value, at, err);
    case FUSES: add_fuses(at, value); break;
    }
    return status;
}

/* ---- words ---- */

static bool is_named(const option *r, const char *word) {
    return !strcmp(r->name, word) || (r->alias && !strcmp(r->alias, word));
}

static tn_status unknown_option(const cli_verb *verb, const char *word, tn_error *err) {
    char others[200] = "";
    for (const cli_verb *v = cli_verbs; v->name; v++)
        for (size_t i = 0; i < n_options; i++)
            if (is_named(&options[i], word) && options[i].verbs & v->bit) {
                size_t n = strlen(others);
                snprintf(others + n, sizeof others - n, "%s%s", n ? ", " : "", v->name);
            }
    if (*others)
        return cli_fail(err, TN_ERR_USAGE, "%s has no option %s (it belongs to %s)", verb->name, word, others);
    return cli_fail(err, TN_ERR_USAGE, "unknown option %s (tenon %s -h lists those there are)", word, verb->name);
}

static int n_values(const option *r) {
    return r->type == PAIR ? 2 : r->arg != NULL;
}

static int n_operands(const cli_verb *verb) {
    int n = verb->operand != NULL;
    for (const char *s = verb->operand; s && *s; s++) n += *s == ' ';
    return n;
}

/* Marks a row as given. */
static tn_status parse_words(const cli_verb *verb, int argc, char **argv, cli_options *o, bool *given,
                             tn_error *err) {
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (word[0] != '-' || !word[1]) {
            int n = n_operands(verb);
            if (!n) return cli_fail(err, TN_ERR_USAGE, "%s does not take '%s'", verb->name, word);
            if (o->n_operands == n)
                return cli_fail(err, TN_ERR_USAGE, "%s takes %s%s", verb->name, n > 1 ? "" : "one ", verb->operand);
            o->operands[o->n_operands++] = word;
            o->operand = o->operands[0];
            continue;
        }
        size_t r = 0;
        while (r < n_options && !(options[r].verbs & verb->bit && is_named(&options[r], word))) r++;
        if (r == n_options) return unknown_option(verb, word, err);
        const char *value = NULL;
        int wanted = n_values(&options[r]);
        if (wanted > argc - 1 - i)
            return cli_fail(err, TN_ERR_USAGE, "%s needs %s: %s", word, wanted > 1 ? "two values" : "a value",
                            options[r].arg);
        if (wanted) value = argv[++i];
        given[r] = true;
        option row = options[r];
        row.name = word; /* errors call it as the user did */
        tn_status status = store(&row, value, o, err);
        if (status) return status;
        if (wanted > 1) ((const char **)((char *)o + row.at))[1] = argv[++i];
    }
    return TN_OK;
}

/* What llama.cpp's tools know otherwise, or more of. */
static tn_status read_as_llama(cli_options *o, tn_error *err) {
    static const char *const fa[] = {"auto", "-1", "on", "1", "off", "0"};
    if (o->backend && isdigit((unsigned char)*o->backend))
        return cli_fail(err, TN_ERR_USAGE,
                        "-b %s: -b is the backend here (cpu, cuda, webgpu); there is no batch size but -ub",
                        o->backend);
    if (o->flash_attn >= 4)
        return cli_fail(err, TN_ERR_USAGE, "-fa %s: attention is always one kernel, there is no other",
                        fa[o->flash_attn]);
    if (o->cache_k != o->cache_v)
        return cli_fail(err, TN_ERR_USAGE, "-ctk and -ctv: keys and values are kept in one type; name it for both");
    if (o->cache_k >= 0) o->kv_type = o->cache_k;
    return TN_OK;
}

tn_status cli_parse(const cli_verb *verb, int argc, char **argv, cli_options *o, tn_error *err) {
    bool given[sizeof options / sizeof *options] = {0};
    *o = (cli_options){.cache_k = -1,
                       .cache_v = -1,
                       .n_predict = -1,
                       .n_prompt = -1,
                       .n_logprobs = -1,
                       .seed = -1,
                       .n_seq = 1,
                       .sampler = tn_sampler_defaults()};
    tn_status status = parse_words(verb, argc, argv, o, given, err);
    if (status || o->help) return status;
    for (size_t i = 0; i < n_options; i++)
        if (options[i].needed_by & verb->bit && !given[i])
            return cli_fail(err, TN_ERR_USAGE, "%s needs %s %s", verb->name, options[i].name, options[i].arg);
    if (o->n_operands < n_operands(verb))
        return cli_fail(err, TN_ERR_USAGE, "%s needs %s", verb->name, verb->operand);
    if (!o->repetitions) o->repetitions = o->ablate || o->against || o->compare ? 12 : 5;
    return read_as_llama(o, err);
}

void cli_options_free(cli_options *o) {
    cli_words *words[] = {&o->models, &o->fuses, &o->stops};
    cli_ints *ints[] = {&o->ids, &o->decode, &o->prompts, &o->gens, &o->prompts_gens, &o->depths, &o->thread_counts};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        for (size_t j = 0; j < words[i]->n; j++) free(words[i]->v[j]);
        free(words[i]->v);
    }
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) free(ints[i]->v);
    free(o->biases.v);
}

bool cli_option_at(const cli_verb *verb, size_t i, cli_option_info *info) {
    for (size_t k = 0; k < n_options; k++) {
        const option *r = &options[k];
        if (!(r->verbs & verb->bit) || i--) continue;
        *info = (cli_option_info){.name = r->name,
                                  .alias = r->alias,
                                  .arg = r->arg,
                                  .help = r->help,
                                  .n_values = n_values(r),
                                  .needed = r->needed_by & verb->bit};
        return true;
    }
    return false;
}
