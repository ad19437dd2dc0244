/* The engine's own view of models and sessions, for the files that implement tenon.h. */
#ifndef TN_ENGINE_H
#define TN_ENGINE_H

#include "backend/backend.h"
#include "model/model.h"
#include "text/tokenizer.h"

struct tn_model {
    tn_gguf *file;
    tn_tokenizer *tokenizer; /* NULL: the file has no usable vocabulary; no_tokenizer says why */
    tn_error no_tokenizer;
    char *chat_template; /* NULL: none */
    char *architecture, *name;
    const tn_arch *arch;
    tn_hparams hp;
    tn_weight_table weights;
    const tn_backend *backend;
    tn_device *device;
    bool plan_only; /* its weights are not on the device */
    char type[96];  /* see tn_model_info */
    uint64_t n_params, tensor_bytes;
    void (*log)(void *data, tn_log_level level, const char *line); /* NULL: nobody listens */
    void *log_data;
    double load_seconds;
};

/* The place of a sequence in the caches. */
typedef struct tn_sequence {
    int32_t n;       /* tokens it holds */
    int32_t n_pages; /* pages it holds: entries of its page table in use */
} tn_sequence;

enum { TN_N_PHASES = 3 }; /* tn_phase */

struct tn_session {
    tn_model *model;
    tn_session_options options; /* with defaults filled in */
    char *fuse;
    int32_t few; /* tokens of a step of TN_PHASE_FEW; 0: there is no such phase, its plan and program are empty */
    tn_plan plan[TN_N_PHASES];
    tn_program *program[TN_N_PHASES];
    tn_memory *memory;
    uint64_t kv_bytes;
    bool recurrent; /* has states that cannot be cut back */
    tn_sequence *seqs;
    int32_t *pages; /* page tables, max_pages a sequence */
    int32_t max_pages;
    int32_t *free_pages, n_free;
    /* the step in hand: arrays of n_ubatch */
    int32_t *ids, *pos, *seq, *outputs;
    tn_run *runs;
    /* of a batch: arrays that grow */
    int32_t *order, *row_of; /* tokens by sequence; logits row of each token, -1: none */
    int32_t batch_cap;
    float *kept; /* logits of steps before a batch's last one */
    size_t kept_cap;
    const float **rows;
    int32_t *chosen;
    int32_t *best_ids; /* n_best of each row, as in best_logits */
    float *best_logits;
    int32_t n_best; /* 0: not wanted of the last step */
    int32_t n_rows, rows_cap;
};

/* A model of a file that is open already; takes *file over, on failure too. */
tn_status tn_engine_open_file(tn_model **model, tn_gguf **file, const tn_model_options *options, tn_error *err);
/* Opens the device of a backend's name, as in tn_model_options. */
tn_status tn_engine_open_device(const tn_backend **backend, tn_device **device, const char *name,
                                const tn_device_options *options, tn_error *err);
/* Tells the caller's log, if there is one. */
void tn_engine_log(const tn_model *model, tn_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The plan target of a device. */
tn_plan_target tn_engine_target(const tn_backend *backend, const tn_device *device);
/* Builds and plans the graph of a phase. */
tn_status tn_engine_plan(tn_plan *plan, tn_model *model, const tn_session_options *options, tn_phase phase,
                         tn_error *err);

#endif
