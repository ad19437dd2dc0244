/* The CUDA backend's own types. A launch of the plan becomes one kernel of its form (rows, matmuls, attend, scan), compiled
 * at run time for its exact ops, shapes and block types: the tables at the head of its source say what it does, its
 * arguments where everything lies. A program is these launches in one captured graph. */
#ifndef TN_CUDA_H
#define TN_CUDA_H

#include "backend/backend.h"
#include "backend/cuda/api.h"
#include "backend/cuda/kernels/params.h"
#include "base/thread.h"
#include "plan/form.h"

struct tn_device {
    tn_caps caps;
    tn_cu cu;
    tn_rtc rtc;
    tn_pool *pool;
    int ordinal, arch; /* 90: sm_90 */
    int n_sm, sm_threads;
    size_t shared_limit; /* of a block */
    void *context, *stream;
    uint64_t packed; /* all weights, in execution order */
    size_t packed_bytes;
    tn_k_weight *weights; /* by index in the model's table; vectors have `low` only, as floats */
    int32_t n_weights;
    char *cache_dir; /* compiled code; NULL: nowhere */
    char lost[200];  /* why the device can do nothing any more; "": it can */
};

/* Not one that only plans. */
static inline bool tn_cuda_is_real(const tn_device *d) {
    return d->context != NULL;
}

struct tn_memory {
    uint64_t *states; /* caches, by index */
    int32_t n_states, n_pages, n_seq;
    tn_kv_type kv_type;
    uint64_t arena;
    size_t arena_bytes;
    uint64_t chosen;  /* what the last step chose, row by row; programs of this memory go on from it */
    int32_t n_chosen; /* rows of that step; 0: it chose nothing */
};

/* ---- what a launch becomes: build.c ---- */

/* What a kernel has in its middle. */
typedef enum tn_cuda_core {
    TN_CUDA_ROWS,
    TN_CUDA_MATMUL,
    TN_CUDA_MATMUL_ID,
    TN_CUDA_ATTENTION,
    TN_CUDA_SCAN,
    TN_CUDA_ARGMAX,
    TN_CUDA_BEST
} tn_cuda_core;

typedef enum tn_cuda_act { TN_CUDA_ANY, TN_CUDA_INT8, TN_CUDA_F32, TN_CUDA_HALF } tn_cuda_act;

typedef struct tn_cuda_kernel {
    const char *entry;
    tn_cuda_core core;
    tn_cuda_act act;
    int32_t max_rows;
    const char *name;
    const char *source;
} tn_cuda_kernel;

typedef struct tn_cuda_launch {
    const tn_cuda_kernel *kernel;
    tn_k_args args;
    unsigned grid[3];
    size_t shared_bytes, partial_bytes, counters;
    void *function;
} tn_cuda_launch;

/* Nodes to be one launch. plan and memory may be NULL: then nothing has a place yet, and only whether and how is told. */
typedef struct tn_cuda_ask {
    const tn_device *device;
    const tn_graph *graph;
    const int32_t *nodes;
    int32_t n;
    const tn_plan *plan;
    const tn_memory *memory;
} tn_cuda_ask;

/* NULL, the launch and the head of its source (appended to *head), or why there is no kernel. */
const char *tn_cuda_build(tn_cuda_launch *launch, const tn_cuda_ask *ask, tn_buf *head);
void tn_cuda_facts(const tn_device *d, tn_buf *b);
const char *tn_cuda_find_kernel(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n, tn_buf *name);

/* ---- compiling: compile.c ---- */

/* What to compile, and what came of it. */
typedef struct tn_cuda_code {
    const char *source, *name; /* whole text; file's name for messages */
    void *cubin;               /* tn_free */
    size_t bytes;
    bool cached; /* it came from the disk */
    tn_status status;
    tn_error error;
} tn_cuda_code;

/* The whole source of a launch; allocated. NULL: out of memory. */
char *tn_cuda_source(const tn_cuda_kernel *kernel, const tn_buf *head);
/* Compiles each, from the cache on disk where it is there, in parallel. */
tn_status tn_cuda_compile_all(const tn_device *device, tn_cuda_code *code, int32_t n, tn_error *err);
/* ~/.cache/tenon, where the user keeps caches; allocated, NULL when there is no such place. */
char *tn_cuda_cache_dir(void);

/* ---- programs: program.c ---- */

enum { TN_CUDA_AHEAD = 2 }; /* steps that may be outstanding */
enum { TN_CUDA_FEW = 8 };   /* tokens that cost about as much as one */

tn_status tn_cuda_compile(tn_device *device, const tn_plan *plan, tn_memory *memory, tn_program **program,
                          tn_error *err);
void tn_cuda_free_program(tn_device *device, tn_program **program);
tn_status tn_cuda_submit(tn_program *program, const tn_step_input *step, int want, tn_error *err);
tn_status tn_cuda_wait(tn_program *program, tn_result *result, tn_error *err);
tn_status tn_cuda_profile(tn_program *program, const tn_step_input *step, tn_launch_time *times, tn_error *err);

/* ---- weights: weights.c ---- */

/* As in tn_backend. */
tn_status tn_cuda_put_weights(tn_device *device, const tn_weight *const *weights, int32_t n, tn_stored_fn *done,
                              void *data, tn_error *err);

/* ---- the device: device.c ---- */

/* Device memory; a failure tells what was needed and what is free. */
tn_status tn_cuda_alloc(tn_device *device, size_t bytes, const char *what, uint64_t *p, tn_error *err);
/* Zeroed, before anything that is enqueued later. On a failure *p may be memory all the same. */
tn_status tn_cuda_alloc_zero(tn_device *device, size_t bytes, const char *what, uint64_t *p, tn_error *err);
/* Bytes a second that its memory gives to a kernel that only reads; peak.c. */
tn_status tn_cuda_peak(tn_device *device, double *bytes_per_second, tn_error *err);
/* A device that can only plan and compile, for an architecture (90: sm_90). For tests and checks where there is no GPU. */
tn_status tn_cuda_open_offline(tn_device **device, int arch, tn_error *err);

#endif
