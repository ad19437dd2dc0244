/* The one interface between the plan and a machine. A new backend is a folder with one const struct of these functions and
 * a row in the table of backend.c. */
#ifndef TN_BACKEND_H
#define TN_BACKEND_H

#include "plan/plan.h"

typedef struct tn_device tn_device;   /* each backend's own */
typedef struct tn_memory tn_memory;   /* a session's caches and arena on a device */
typedef struct tn_program tn_program; /* a compiled plan, bound to a memory */

typedef struct tn_device_options {
    const char *variant; /* what follows "name:" in the backend's name; NULL: the best */
    int threads;         /* 0: one per core */
} tn_device_options;

typedef struct tn_caps {
    char description[160]; /* the device in words */
    uint64_t weight_types; /* bit set of tn_type: weights it can hold */
    uint64_t int8_types;   /* of those, the ones whose matmuls want int8 activations */
    size_t align;          /* of values in the arena, bytes */
} tn_caps;

/* A state of a layer: a paged cache of k and v, or `size` floats for each sequence (size > 0), which read as zero in a
 * run that begins at position 0. */
typedef struct tn_state_desc {
    int32_t n_kv, k_dim, v_dim;
    int32_t size;
} tn_state_desc;

enum { TN_PAGE_TOKENS = 64 }; /* positions in a cache page */

typedef struct tn_memory_desc {
    const tn_state_desc *states;
    int32_t n_states;
    int32_t n_pages; /* of every cache */
    int32_t n_seq;   /* of every recurrent state */
    tn_kv_type kv_type;
    size_t arena_bytes; /* the largest of the plans that will be compiled for it */
} tn_memory_desc;

/* Consecutive tokens of a step that belong to one sequence at consecutive positions. */
typedef struct tn_run {
    int32_t first, n; /* tokens of the step */
    int32_t pos;      /* position of the first */
    int32_t seq;
} tn_run;

/* One step's inputs: tokens ordered by sequence. */
typedef struct tn_step_input {
    int32_t n_tokens, n_outputs, n_runs;
    const int32_t *ids, *pos, *seq; /* of each token */
    const int32_t *outputs;         /* tokens whose logits are wanted, ascending */
    const tn_run *runs;
    const int32_t *pages; /* page table: page p of sequence s at [s * max_pages + p] */
    int32_t max_pages;
} tn_step_input;

typedef struct tn_backend {
    const char *name;
    bool hidden; /* for tests: in no list of backends */
    tn_status (*open)(tn_device **device, const tn_device_options *options, tn_error *err);
    void (*close)(tn_device **device);
    const tn_caps *(*caps)(const tn_device *device);
    /* See tn_plan_target. */
    const char *(*find_kernel)(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n, tn_buf *name);
    /* Converts and stores the weights, in the order given, which is that of execution. Called once; the table outlives
     * the device. `done` (may be NULL) is called with the share that is stored. */
    tn_status (*put_weights)(tn_device *device, const tn_weight *const *weights, int32_t n,
                             void (*done)(void *data, int32_t weight, double share), void *data, tn_error *err);
    uint64_t (*weight_bytes)(const tn_device *device);
    size_t (*state_bytes)(const tn_device *device, const tn_state_desc *state, const tn_memory_desc *desc);
    tn_status (*make_memory)(tn_device *device, const tn_memory_desc *desc, tn_memory **memory, tn_error *err);
    void (*free_memory)(tn_device *device, tn_memory **memory);
    /* The plan must outlive the program. */
    tn_status (*compile)(tn_device *device, const tn_plan *plan, tn_memory *memory, tn_program **program,
                         tn_error *err);
    void (*free_program)(tn_device *device, tn_program **program);
    /* Runs one step. *logits: n_outputs rows, valid until the next run on this memory. */
    tn_status (*run)(tn_program *program, const tn_step_input *step, const float **logits, tn_error *err);
} tn_backend;

/* Finds a backend by the part of the name before ':'; *variant is what follows or NULL. NULL when there is none. */
const tn_backend *tn_backend_find(const char *name, const char **variant);
/* The i-th backend of this build; NULL at the end. */
const tn_backend *tn_backend_at(int i);

#endif
