/* tenon: run large language models from GGUF files.
 *
 * The whole public interface. A model is what a file holds, ready on a device; a session is a running conversation (or
 * several) with it: caches, memory and compiled programs. Lifetimes nest: a session must be closed before its model.
 *
 * Conventions
 *   - Functions that can fail return a tn_status; the message is in the caller's tn_error (may be NULL).
 *   - `open(T **out, ...)` writes *out only on success (NULL on failure); `close(T **)` frees and writes NULL.
 *   - Option structs may be zeroed (`= {0}`): zero is always the default.
 *   - Strings are UTF-8. What a function allocates for the caller is freed with tn_free().
 *   - The library prints nothing and reads no environment variable; talk goes to the log callback.
 *   - A model may be shared by sessions on one thread at a time; objects are not locked. */
#ifndef TENON_H
#define TENON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TN_API __attribute__((visibility("default")))

/* ---- errors ---------------------------------------------------------------------------------------------------- */

/* The values are also the exit codes of the command line. */
typedef enum tn_status {
    TN_OK = 0,
    TN_ERR_CHECK = 1,        /* a verification found a difference outside its bound */
    TN_ERR_USAGE = 2,        /* an option or argument makes no sense */
    TN_ERR_INPUT = 65,       /* a file or text is bad, or of a kind this build cannot read */
    TN_ERR_UNAVAILABLE = 69, /* a device or library is not there */
    TN_ERR_INTERNAL = 70,    /* a bug in tenon */
    TN_ERR_RESOURCES = 71,   /* out of memory, or the device was lost */
} tn_status;

typedef struct tn_error {
    tn_status code;
    char text[500]; /* one line, no newline */
} tn_error;

TN_API const char *tn_version(void);
TN_API void tn_free(void *p);

/* Where long texts go: called with pieces in order. */
typedef struct tn_sink {
    void (*write)(void *data, const char *text, size_t len);
    void *data;
} tn_sink;

/* ---- model ------------------------------------------------------------------------------------------------------ */

typedef struct tn_model tn_model;

typedef enum tn_log_level { TN_LOG_INFO, TN_LOG_WARN } tn_log_level;

typedef struct tn_model_options {
    const char *backend; /* "cpu" (default), "cpu:ref", "cpu:avx2", "cpu:avx512", "webgpu", "cuda[:N]"; for tests
                          * "null", which computes nothing */
    int threads;         /* CPU threads; 0: one per core */
    void (*log)(void *data, tn_log_level level, const char *line);
    void (*progress)(void *data, const char *what, double done); /* 0..1 */
    void *data;                                                  /* given to both callbacks */
    bool vocab_only;                                             /* tokenizer and template only, no weights */
    bool plan_only; /* no weights: a session can be explained, it cannot run */
    const char
        *cache_dir; /* where code compiled for a device is kept; NULL: tenon's folder where the user keeps caches */
    const char *webgpu_lib; /* path of an implementation of WebGPU; NULL: it is searched for */
} tn_model_options;

typedef struct tn_model_info {
    const char *architecture, *name; /* owned by the model */
    const char *type;                /* architecture, size and block types: "llama 1B Q4_K - Medium" */
    const char *backend;             /* device in words */
    int32_t n_vocab, n_layer, n_embd, n_ctx_train;
    uint64_t n_params;
    uint64_t file_bytes;   /* sum of the tensors as stored in the file */
    uint64_t weight_bytes; /* what the weights take on the device */
    double load_seconds;
} tn_model_info;

/* Opens a GGUF file (v2 or v3; for a split file, its first part).
 * TN_ERR_INPUT: the file is bad, or of an architecture or block type that cannot be run; TN_ERR_USAGE: no such backend;
 * TN_ERR_UNAVAILABLE: its device or library is not there; TN_ERR_RESOURCES: not enough memory. */
TN_API tn_status tn_model_open(tn_model **model, const char *path, const tn_model_options *options, tn_error *err);
TN_API void tn_model_close(tn_model **model);
/* Strings are owned by the model. With vocab_only, what is of weights and devices is 0 or ""; with plan_only,
 * weight_bytes is 0. */
TN_API void tn_model_get_info(const tn_model *model, tn_model_info *info);

/* Writes metadata, tensors, types, sizes and whether this build can run the file; as JSON when `json`. */
TN_API tn_status tn_inspect(const char *path, bool json, tn_sink out, tn_error *err);

/* ---- text ------------------------------------------------------------------------------------------------------- */

typedef struct tn_tokenize_options {
    bool no_bos;     /* do not add what the model's flags ask for (BOS, EOS) */
    bool no_special; /* control tokens written in the text are plain text */
} tn_tokenize_options;

/* Text -> ids. *ids is allocated for the caller (it may be NULL where there are none). TN_ERR_INPUT where the model has no
 * usable vocabulary. */
TN_API tn_status tn_tokenize(const tn_model *model, const char *text, size_t len, const tn_tokenize_options *options,
                             int32_t **ids, size_t *n_ids, tn_error *err);

/* ids -> text, control tokens written out when `special`. *text is allocated, zero-terminated; it may hold any bytes.
 * len may be NULL. TN_ERR_USAGE for an id out of range. */
TN_API tn_status tn_detokenize(const tn_model *model, const int32_t *ids, size_t n_ids, bool special, char **text,
                               size_t *len, tn_error *err);

/* The token as it stands in the vocabulary, zero-terminated, owned by the model; NULL when id is out of range. */
TN_API const char *tn_token_text(const tn_model *model, int32_t id);
/* Whether a token ends a generation (the model's EOS, EOT and their like). */
TN_API bool tn_token_ends(const tn_model *model, int32_t id);

typedef struct tn_message {
    const char *role, *content;
} tn_message;

typedef struct tn_chat_options {
    const char *chat_template; /* Jinja; NULL: the model's own */
    bool no_generation_prompt; /* do not open the assistant's turn */
    const char *extra_json;    /* more variables for the template, a JSON object (tools, enable_thinking, ...) */
} tn_chat_options;

/* Whether the model's file has a chat template. */
TN_API bool tn_has_chat_template(const tn_model *model);

/* Renders messages; text may be NULL, and so may ids with n_ids. Control tokens are recognised only where the template wrote them: the
 * same characters inside a message stay text. `json` is an array of messages ({"role":..., "content":...}) or an
 * object of template variables with such an array in "messages"; where it is NULL, `messages` are used. */
TN_API tn_status tn_chat_render(const tn_model *model, const tn_message *messages, size_t n_messages,
                                const char *json, const tn_chat_options *options, char **text, int32_t **ids,
                                size_t *n_ids, tn_error *err);

/* ---- session ---------------------------------------------------------------------------------------------------- */

typedef struct tn_session tn_session;

typedef enum tn_act_type { TN_ACT_INT8, TN_ACT_F32 } tn_act_type;
typedef enum tn_kv_type { TN_KV_F16, TN_KV_Q8_0, TN_KV_F32 } tn_kv_type;

typedef struct tn_session_options {
    int32_t n_ctx;    /* positions per sequence; 0: 4096 or what the model was trained for, whichever is less */
    int32_t n_seq;    /* sequences held at once; 0: 1 */
    int32_t n_ubatch; /* tokens in one prefill step; 0: 512 */
    tn_kv_type kv_type;
    tn_act_type act;  /* whether matmuls may quantise their activations */
    const char *fuse; /* "all" (default), "none", "RULE,RULE" or "-RULE,-RULE" */
    bool all_logits;  /* logits of every token, not only of the last of each sequence */
} tn_session_options;

typedef struct tn_session_info {
    int32_t n_ctx, n_seq, n_ubatch;
    int32_t launches_decode, launches_prefill;    /* kernel launches a step */
    uint64_t kv_bytes;                            /* cache at full context */
    uint64_t arena_bytes, arena_naive_bytes;      /* planned activation memory, and what it were without reuse */
    uint64_t decode_bytes;                        /* weight bytes read for one token */
    uint64_t decode_hash, prefill_hash, few_hash; /* change whenever the phase's compiled plan changes */
    uint64_t plan_hash;                           /* of both */
} tn_session_info;

/* TN_ERR_USAGE: sizes beyond reason, an unknown rule, a cache type that the heads do not allow; TN_ERR_RESOURCES: not enough
 * memory. n_ubatch is raised to n_seq where it is less. */
TN_API tn_status tn_session_open(tn_session **session, tn_model *model, const tn_session_options *options,
                                 tn_error *err);
TN_API void tn_session_close(tn_session **session);
TN_API void tn_session_get_info(const tn_session *session, tn_session_info *info);

/* What is wanted of a step, as bits: the rest is not computed, or stays on the device. */
enum { TN_WANT_LOGITS = 1, TN_WANT_CHOSEN = 2, TN_WANT_BEST = 4 };
enum { TN_N_BEST = 64 }; /* so many are the best, or all where the vocabulary has fewer */

/* A batch of tokens, appended to their sequences in order. Tokens of different sequences may be mixed. */
typedef struct tn_batch {
    const int32_t *ids;
    const int32_t *seqs; /* 0 .. n_seq-1 per token; NULL: all belong to sequence 0 */
    int32_t n_tokens;
    int want; /* of the rows; 0: TN_WANT_LOGITS */
} tn_batch;

/* Runs the model over a batch. What is wanted is kept for the last token of each sequence in the batch (sequences in order of
 * first appearance), or for every token in batch order when the session was opened with all_logits; they stay valid
 * until the next step. TN_ERR_INPUT when a sequence would outgrow the context, TN_ERR_USAGE for an empty batch, an id or
 * sequence out of range, or the best of a session opened with all_logits: nothing has been appended then, and what the last
 * step left stays. When the device fails, the batch's tokens are taken back; where the model's state cannot be, the batch's
 * sequences are cleared. */
TN_API tn_status tn_step(tn_session *session, const tn_batch *batch, tn_error *err);

/* Logits of row i of the last step, n_vocab floats; NULL when there is no such row, or they were not wanted. */
TN_API const float *tn_logits(const tn_session *session, int32_t row);
TN_API int32_t tn_logits_rows(const tn_session *session);
/* The likeliest token by row i of the last step, of equal ones the lowest; -1 when there is no such row, or it was not wanted. */
TN_API int32_t tn_chosen(const tn_session *session, int32_t row);

/* Tokens with their logits: the greater first (what is not a number counts as -INFINITY), of equal ones the lower id. */
typedef struct tn_candidates {
    const int32_t *ids;
    const float *logits;
    int32_t n;
} tn_candidates;

/* The best by row i of the last step; none (n is 0) when there is no such row, or they were not wanted. */
TN_API tn_candidates tn_best(const tn_session *session, int32_t row);

typedef struct tn_greedy {
    int32_t seq; /* the sequence */
    int32_t id;  /* the token it goes on with */
    int32_t n;   /* tokens wanted */
    /* Called with every token found, in order; false ends it. */
    bool (*each)(void *data, int32_t id);
    void *data;
} tn_greedy;

/* Feeds `id`, then again and again the token that is likeliest next, until n were found, `each` said so or the context is
 * full. A device that works beside the host may be a step ahead of the call, so the sequence may end with the token found last or
 * the one before it: tn_sequence_length tells. No logits are kept. Errors as of tn_step. */
TN_API tn_status tn_step_greedy(tn_session *session, const tn_greedy *options, tn_error *err);

/* When a launch ran, in seconds from the call, by the device's clock: the two are tied together where the host starts the step, or
 * sees its end, whichever it can tell more exactly. */
typedef struct tn_launch_time {
    double start, end;
    /* what its kernel takes; 0 where the device does not tell */
    double occupancy; /* share of the threads that a multiprocessor can hold of which it holds the kernel's */
    int32_t registers, shared_bytes; /* of a thread, of a block */
} tn_launch_time;

/* A step of at most n_ubatch tokens, with every launch timed: times has room for the launches of its phase. Timing costs time: the sum is more than the step takes otherwise.
 * TN_ERR_UNAVAILABLE where the backend cannot. */
TN_API tn_status tn_step_timed(tn_session *session, const tn_batch *batch, tn_launch_time *times, tn_error *err);

/* Number of tokens a sequence holds. */
TN_API int32_t tn_sequence_length(const tn_session *session, int32_t seq);
/* Cuts a sequence back to its first `keep` tokens (0 clears it); TN_ERR_USAGE where the model's state cannot be cut. */
TN_API tn_status tn_sequence_cut(tn_session *session, int32_t seq, int32_t keep, tn_error *err);

/* ---- sampling --------------------------------------------------------------------------------------------------- */

typedef struct tn_sampler tn_sampler;

typedef struct tn_logit_bias {
    int32_t id;
    float bias; /* added to the token's logit; -INFINITY: never this token */
} tn_logit_bias;

/* Unlike other option structs, start from tn_sampler_defaults(): those are llama.cpp's. The steps are taken in
 * llama.cpp's order: biases, penalties, top-k, top-p, min-p, temperature. With a temperature of 0 the first two are
 * all there is. A token is recent while it is among the last repeat_last_n that were accepted. */
typedef struct tn_sampler_options {
    float temp;              /* 0: greedy */
    int32_t top_k;           /* 0: off */
    float top_p;             /* 1: off */
    float min_p;             /* 0: off */
    float repeat_penalty;    /* 1: off; a recent token's logit is divided by it, or multiplied where it is below 0 */
    float frequency_penalty; /* 0: off; taken from a recent token's logit for each time it is there */
    float presence_penalty;  /* 0: off; taken from it once */
    int32_t repeat_last_n;
    uint64_t seed;
    const tn_logit_bias *logit_bias; /* copied; several for one token add up */
    size_t n_logit_bias;
} tn_sampler_options;

TN_API tn_sampler_options tn_sampler_defaults(void);
TN_API tn_status tn_sampler_open(tn_sampler **sampler, const tn_sampler_options *options, int32_t n_vocab,
                                 tn_error *err);
TN_API void tn_sampler_close(tn_sampler **sampler);
/* Tells the sampler of a token in the text (for penalties). */
TN_API void tn_sampler_accept(tn_sampler *sampler, int32_t id);
/* Picks the next token. Does not accept it. The same seed, logits and history give the same token. */
TN_API int32_t tn_sampler_pick(tn_sampler *sampler, const float *logits);
/* How many of the best logits the next token depends on, whatever the history; 0: on all of them. Where it is 1, the likeliest
 * token is it. */
TN_API int32_t tn_sampler_needs(const tn_sampler *sampler);
/* Picks from the best logits, at least as many as it needs, what tn_sampler_pick() picks from all of them: the same token, with
 * the same random numbers. -1: they are too few. */
TN_API int32_t tn_sampler_pick_from(tn_sampler *sampler, const tn_candidates *best);

/* The k likeliest tokens, or all where there are fewer, likeliest first (of equal ones the lower id), with the natural
 * logarithms of their probabilities: the softmax of the logits as they are, before any step of a sampler. A logit that
 * is not a number counts as -INFINITY. Returns how many were written. */
TN_API int32_t tn_top_logprobs(const float *logits, int32_t n_vocab, int32_t k, int32_t *ids, float *logprobs);

/* ---- seeing inside ---------------------------------------------------------------------------------------------- */

/* A session's plans: for steps where each sequence has one token; for steps of anything; for those of few tokens, where the backend
 * asks for a plan of their own. */
typedef enum tn_phase { TN_PHASE_DECODE, TN_PHASE_PREFILL, TN_PHASE_FEW } tn_phase;
TN_API const char *tn_phase_name(tn_phase phase);
/* That of a step which adds n_tokens to one sequence. */
TN_API tn_phase tn_phase_of(const tn_session *session, int32_t n_tokens);

typedef enum tn_format {
    TN_FORMAT_TEXT,
    TN_FORMAT_DOT, /* for Graphviz */
    TN_FORMAT_JSON,
    TN_FORMAT_HTML, /* one page, with no resource from elsewhere */
    TN_FORMAT_SVG,  /* a picture of one layer, such as most are */
} tn_format;

typedef struct tn_explain_options {
    tn_phase phase;
    tn_format format;
    bool verbose; /* text: every layer; otherwise equal layers are folded */
} tn_explain_options;

/* TN_ERR_USAGE for a phase that the session does not have, or no format. The plain graph, the rules that fired and why others did not, the launches, their kernels, the memory plan. */
TN_API tn_status tn_explain(const tn_session *session, const tn_explain_options *options, tn_sink out, tn_error *err);

/* The name of the i-th rule of fusion, as tn_session_options.fuse takes it; NULL at the end. */
TN_API const char *tn_rule_name(int32_t i);

/* The launches of a phase's plan, in the order in which they run. Strings and lists are owned by the session. */
typedef struct tn_launch_info {
    const char *kind;     /* the op of a single node, else what kind of fused launch it is */
    const char *kernel;   /* in words */
    const char *rules;    /* the rules that made it; NULL for a single node */
    const int32_t *nodes; /* whatever the rules, the same numbers for the same nodes */
    int32_t n_nodes;
    int32_t layer; /* -1: outside the layers */
} tn_launch_info;

typedef struct tn_node_info {
    const char *name, *op; /* "l0.attn_norm", "rms_norm" */
    int32_t layer;
} tn_node_info;

/* 0: the session does not have the phase. */
TN_API int32_t tn_launch_count(const tn_session *session, tn_phase phase);
/* false where there is no such launch, or node. */
TN_API bool tn_launch_get_info(const tn_session *session, tn_phase phase, int32_t launch, tn_launch_info *info);
TN_API bool tn_node_get_info(const tn_session *session, tn_phase phase, int32_t node, tn_node_info *info);
/* The least that a launch moves in a step which adds n_tokens to a sequence of n_past: every weight, input and cached position
 * read once, every result written once. */
TN_API uint64_t tn_launch_bytes(const tn_session *session, tn_phase phase, int32_t launch, int32_t n_tokens,
                                int32_t n_past);
/* Bytes a second that the model's device reads from its memory, measured (which takes a moment); 0: it cannot be. */
TN_API tn_status tn_peak_bandwidth(tn_model *model, double *bytes_per_second, tn_error *err);

typedef enum tn_verify_what { TN_VERIFY_OPS, TN_VERIFY_RULES, TN_VERIFY_MODEL } tn_verify_what;

typedef struct tn_verify_options {
    tn_verify_what what;
    const char *backend; /* as in tn_model_options */
    const char *path;    /* the model, for TN_VERIFY_MODEL */
    const char *text;    /* not NULL: what fusion does to that model on this text, text_len bytes */
    size_t text_len;
    const char
        *fuse; /* of models: the rules, the cache's and the activations' type under test, as in tn_session_options */
    tn_kv_type kv_type;
    tn_act_type act;
    int threads;
    bool json;
    const char *webgpu_lib; /* as in tn_model_options */
} tn_verify_options;

/* Fused against unfused, backend against reference. A line (or JSON object) per check; TN_ERR_CHECK when one fails. */
TN_API tn_status tn_verify(const tn_verify_options *options, tn_sink out, tn_error *err);

/* The host's processor in words; "" where the system does not tell. */
TN_API void tn_processor_name(char *out, size_t cap);

typedef struct tn_doctor_options {
    bool json;
    const char *webgpu_lib; /* as in tn_model_options */
} tn_doctor_options;

/* Backends, libraries and devices found, and what to install for the rest. */
TN_API tn_status tn_doctor(const tn_doctor_options *options, tn_sink out, tn_error *err);

/* ---- making files ----------------------------------------------------------------------------------------------- */

/* Types of files are named as llama-quantize names them: "Q4_K_M", "Q8_0", "F16", ...; in either case. Files appear
 * when they are complete: a failure leaves what was there before. */

typedef struct tn_quantize_options {
    const char *type;      /* needed */
    int threads;           /* 0: one per core */
    bool pure;             /* one type for all matrices, in place of the mix */
    bool allow_requantize; /* convert tensors that are quantised already, at a further loss */
    void (*log)(void *data, tn_log_level level, const char *line);
    void (*progress)(void *data, const char *what, double done); /* 0..1 */
    void *data;                                                  /* given to both callbacks */
} tn_quantize_options;

/* Writes the model in IN (for a split file, its first part) to OUT, its matrices converted. */
TN_API tn_status tn_quantize_file(const char *in, const char *out, const tn_quantize_options *options, tn_error *err);

typedef struct tn_synth_options {
    const char *type; /* NULL: "Q4_K_M" */
    int32_t n_layer;  /* 0: as published */
    uint64_t seed;    /* the same seed gives the same file */
    void (*progress)(void *data, const char *what, double done);
    void *data;
} tn_synth_options;

/* Writes a model with the shape of a published one and random weights, without a vocabulary: for measurements. An
 * unknown preset is an error that lists those there are. */
TN_API tn_status tn_synth_file(const char *preset, const char *out, const tn_synth_options *options, tn_error *err);

#ifdef __cplusplus
}
#endif
#endif
