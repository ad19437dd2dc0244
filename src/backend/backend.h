/* The one interface between the plan and a machine. A new backend is a folder with one const struct of these functions and
 * a row in the table of backend.c. */
#ifndef TN_BACKEND_H
#define TN_BACKEND_H

#include "plan/plan.h"

typedef struct tn_device tn_device;   /* each backend's own */
typedef struct tn_memory tn_memory;   /* a session's caches and arena on a device */
typedef struct tn_program tn_program; /* a compiled plan, bound to a memory */

typedef struct tn_device_options {
    const char *variant;    /* what follows "name:" in the backend's name; NULL: the best */
    int threads;            /* 0: one per core */
    const char *cache_dir;  /* where compiled code is kept; NULL: where the user keeps caches */
    const char *webgpu_lib; /* path of an implementation of WebGPU; NULL: it is searched for */
} tn_device_options;

typedef struct tn_caps {
    char description[160]; /* the device in words */
    uint64_t weight_types; /* bit set of tn_type: weights it can hold */
    uint64_t int8_types;   /* of those, the ones whose matmuls want int8 activations */
    size_t align;          /* of values in the arena, bytes */
    int32_t few;           /* steps of up to so many tokens want a plan made for them; 0: none does */
    int32_t ahead;         /* steps that may be outstanding: 2 where the device works beside the host */
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

/* In place of a token id: what the step before on this memory chose in the row of this token, where that was wanted. It need not
 * have come back to the host yet. */
enum { TN_ID_CHOSEN = -1 };

/* One step's inputs: tokens ordered by sequence. */
typedef struct tn_step_input {
    int32_t n_tokens, n_outputs, n_runs;
    const int32_t *ids, *pos, *seq; /* of each token */
    const int32_t *outputs;         /* tokens whose logits are wanted, ascending */
    const tn_run *runs;
    const int32_t *pages; /* page table: page p of sequence s at [s * max_pages + p] */
    int32_t max_pages;
} tn_step_input;

/* What came of a step; NULL: not wanted (TN_WANT_...). */
typedef struct tn_result {
    /* n_outputs rows (or a row of every token, where the graph has them); valid until the next submit */
    const float *logits;
    /* the likeliest token of each such row; valid until the second submit after theirs */
    const int32_t *ids;
    /* the best of each such row, TN_N_BEST of them or as many as there are logits; valid until the next submit */
    tn_candidates best;
} tn_result;

/* Told while weights are stored: a weight the first `rows` rows of which are not read in the file again (-1: none is), and the share
 * of all that is stored. */
typedef void tn_stored_fn(void *data, int32_t weight, int32_t rows, double share);

typedef struct tn_backend {
    const char *name;
    bool hidden; /* for tests: in no list of backends */
    tn_status (*open)(tn_device **device, const tn_device_options *options, tn_error *err);
    void (*close)(tn_device **device);
    const tn_caps *(*caps)(const tn_device *device);
    /* See tn_plan_target. */
    const char *(*find_kernel)(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n, tn_buf *name);
    /* Converts and stores the weights, in the order given, which is that of execution. Called once; the table outlives
     * the device. `done` (may be NULL) is called for every weight, for a large one several times. */
    tn_status (*put_weights)(tn_device *device, const tn_weight *const *weights, int32_t n, tn_stored_fn *done,
                             void *data, tn_error *err);
    /* In place of put_weights, where nothing will run: what plans ask about weights, which is where they would lie. NULL: they
     * ask nothing. */
    tn_status (*place_weights)(tn_device *device, const tn_weight *const *weights, int32_t n, tn_error *err);
    uint64_t (*weight_bytes)(const tn_device *device);
    size_t (*state_bytes)(const tn_device *device, const tn_state_desc *state, const tn_memory_desc *desc);
    tn_status (*make_memory)(tn_device *device, const tn_memory_desc *desc, tn_memory **memory, tn_error *err);
    void (*free_memory)(tn_device *device, tn_memory **memory);
    /* The plan must outlive the program. */
    tn_status (*compile)(tn_device *device, const tn_plan *plan, tn_memory *memory, tn_program **program,
                         tn_error *err);
    void (*free_program)(tn_device *device, tn_program **program);
    /* Begins one step; its inputs are copied. Up to caps->ahead steps of a program may be outstanding, logits wanted of the
     * last one only. */
    tn_status (*submit)(tn_program *program, const tn_step_input *step, int want, tn_error *err);
    /* Waits for the oldest outstanding step of the program. */
    tn_status (*wait)(tn_program *program, tn_result *result, tn_error *err);
    /* Runs one step with every launch timed by the device's own clock, in seconds from this call as the host counts them: as
     * many times as the plan has launches. NULL: it cannot. */
    tn_status (*profile)(tn_program *program, const tn_step_input *step, tn_launch_time *times, tn_error *err);
    /* Bytes a second that the device reads from its memory at best, measured, which may take some tenths of a second.
     * NULL: it cannot. */
    tn_status (*peak)(tn_device *device, double *bytes_per_second, tn_error *err);
    /* Devices there are, "name:0" and so on; NULL: one. */
    int (*count)(void);
    /* What is to be known of a device, its limits and features: lines "name: value". NULL: nothing. */
    void (*facts)(const tn_device *device, tn_buf *facts);
} tn_backend;

/* Weights of the types that `holds` says yes to; where they are quantized, their matmuls want int8 activations. */
void tn_caps_add_types(tn_caps *caps, bool (*holds)(tn_type type));
/* Whether a launch runs where `want` is wanted of a step: those of the choice and of the best may be left out, as nothing reads
 * them. */
bool tn_launch_wanted(const tn_plan *plan, int32_t launch, int want);
/* Finds a backend by the part of the name before ':'; *variant is what follows or NULL. NULL when there is none. */
const tn_backend *tn_backend_find(const char *name, const char **variant);
/* The i-th backend of this build; NULL at the end. */
const tn_backend *tn_backend_at(int i);

#endif
