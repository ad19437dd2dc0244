/* The WebGPU backend's own types. A launch of the plan becomes one compute dispatch. Its shader is text put together from
 * the pieces in kernels/: a core for the form of the launch, a piece for each op around it. All that differs between layers
 * (where values and weights lie) is in a few numbers that the shader reads, so that layers share pipelines. */
#ifndef TN_WEBGPU_H
#define TN_WEBGPU_H

#include "backend/backend.h"
#include "backend/webgpu/native.h"
#include "base/str.h"
#include "plan/form.h"

/* ---- weights: weights.c, pack.c ---- */

/* A weight lies in planes, each with all its rows one after the other; a block is 32 weights, the last one of a row padded
 * with zeros. x = a q + b, where q is an integer of 8 bits and a, b follow from the block's scales. */
typedef struct tn_webgpu_type {
    tn_type type;
    const char *name;    /* of the piece kernels/NAME.wgsl that unpacks it */
    int32_t quants;      /* 32-bit words a block of the first plane: bits of q, or the floats themselves */
    int32_t high;        /* words a block of further bits of q */
    int32_t scale_bytes; /* a block: 0, 2 or 4 */
    bool super;          /* a word for every 8 blocks: scales of the scales */
    bool floats;         /* x = q */
    int scales;          /* a, b of a block: 1, or 2 for halves of 16 */
    /* One block at element i of a row in the file's layout -> planes (super only for the first of 8 blocks). */
    void (*pack)(const uint8_t *row, int32_t i, uint32_t *quants, uint32_t *high, uint32_t *scale, uint32_t *super);
} tn_webgpu_type;
/* NULL: not a type this backend can hold. */
const tn_webgpu_type *tn_webgpu_type_of(tn_type type);

enum { TN_WEBGPU_PLANES = 4 }; /* quants, high, scale, super */

/* Rows [row, row + n_rows) of a weight: as many as one binding can hold. */
typedef struct tn_webgpu_segment {
    int32_t slab;
    int32_t row, n_rows;
    uint64_t offset, bytes;           /* in the slab */
    uint64_t plane[TN_WEBGPU_PLANES]; /* bytes from `offset` */
} tn_webgpu_segment;

typedef struct tn_webgpu_weight {
    const tn_webgpu_type *type; /* a vector is held as F32, whatever the file has */
    int32_t n_out, n_in, n_blocks;
    tn_webgpu_segment *segment;
    int32_t n_segments;
} tn_webgpu_weight;

/* Number of segments that a weight will have. */
int32_t tn_webgpu_segments(const tn_device *d, const tn_weight *w);

/* ---- device: device.c, shader.c ---- */

enum { TN_WEBGPU_GROUP = 128 }; /* invocations in a workgroup */

/* A kind of bind group: 0 the arena, 1 the step, 2 the numbers, 3 a state where kind & 1, 4 the scratch where kind & 2, 5..
 * kind / 4 windows on weights. */
enum { TN_WEBGPU_KINDS = 24 };

typedef struct tn_webgpu_pipeline {
    uint64_t hash;
    char *text;
    int32_t kind;
    WGPUComputePipeline pipeline;
} tn_webgpu_pipeline;

typedef struct tn_webgpu_fate tn_webgpu_fate;

struct tn_device {
    tn_webgpu_library lib;
    WGPUInstance instance;
    WGPUAdapter adapter;
    WGPUDevice device;
    WGPUQueue queue;
    WGPULimits limits;
    tn_caps caps;
    bool f16, packed_dot, timestamps;
    bool scalar;          /* rows one word at a time only: for measurements */
    int32_t subgroup;     /* invocations in every subgroup; 0: none, or it varies */
    const char *enable;   /* first lines of every shader */
    uint64_t max_binding; /* bytes that a shader sees of one buffer */
    uint64_t max_window;  /* likewise of weights; tests make it smaller, before the weights are put */
    tn_webgpu_fate *fate; /* its errors, its loss: what callbacks tell */
    WGPUBindGroupLayout layout[TN_WEBGPU_KINDS]; /* made when first wanted */
    WGPUPipelineLayout pipeline_layout[TN_WEBGPU_KINDS];
    tn_webgpu_pipeline *pipelines;
    int32_t n_pipelines, pipelines_cap;
    WGPUBuffer *slabs;
    int32_t n_slabs;
    tn_webgpu_weight *weights;
    int32_t n_weights;
    uint64_t weight_bytes;
};

struct tn_memory {
    WGPUBuffer *states;
    uint64_t *state_bytes;
    int32_t n_states, n_pages;
    tn_kv_type kv_type;
    WGPUBuffer arena;
    uint64_t arena_bytes;
    WGPUBuffer chosen; /* what the last step chose, a word for each row */
    uint64_t chosen_bytes;
    int32_t n_chosen; /* rows of that step; 0: there was none */
};

/* The error that a callback left behind, if any, told as the outcome of `what`; it is forgotten. Of a lost device it is the loss,
 * from then on always. */
tn_status tn_webgpu_check(tn_device *d, const char *what, tn_error *err);
bool tn_webgpu_lost(const tn_device *d);
/* Whether there was no error, without saying which. */
bool tn_webgpu_try(tn_device *d);
tn_status tn_webgpu_buffer(tn_device *d, WGPUBuffer *buffer, uint64_t bytes, WGPUFlags usage, const char *what,
                           tn_error *err);
void tn_webgpu_buffer_free(tn_device *d, WGPUBuffer *buffer);
/* An encoder for commands, and one with a pass open in it; none where it fails. `what`: these commands. */
tn_status tn_webgpu_encoder(tn_device *d, const char *what, WGPUCommandEncoder *encoder, tn_error *err);
tn_status tn_webgpu_pass(tn_device *d, const char *what, WGPUCommandEncoder *encoder, WGPUComputePassEncoder *pass,
                         tn_error *err);
/* Submits what was encoded, and releases the encoder; nothing is submitted that has an error. `what`: these commands. */
tn_status tn_webgpu_finish(tn_device *d, WGPUCommandEncoder encoder, const char *what, uint64_t *submission,
                           tn_error *err);

/* A buffer that shaders' results are copied to and the host reads: asked for with the submission that fills it, waited for, read,
 * given back. readback.c */
typedef struct tn_webgpu_mapping tn_webgpu_mapping;
typedef struct tn_webgpu_readback {
    WGPUBuffer buffer;
    tn_webgpu_mapping *mapping; /* what its callback tells */
    uint64_t bytes;             /* on their way or read; 0: none */
} tn_webgpu_readback;
tn_status tn_webgpu_readback_make(tn_device *d, tn_webgpu_readback *r, uint64_t bytes, const char *what,
                                  tn_error *err);
void tn_webgpu_readback_ask(tn_device *d, tn_webgpu_readback *r, uint64_t bytes);
/* Waits with the submission (0: all of them). On success *p is valid until readback_done, else it is done already. */
tn_status tn_webgpu_readback_wait(tn_device *d, tn_webgpu_readback *r, uint64_t submission, const void **p,
                                  tn_error *err);
void tn_webgpu_readback_done(tn_device *d, tn_webgpu_readback *r);
void tn_webgpu_readback_free(tn_device *d, tn_webgpu_readback *r);

/* Finds out by trying what shaders may say here, and the size of subgroups where they are wanted. probe.c */
tn_status tn_webgpu_probe(tn_device *d, bool subgroups, tn_error *err);

/* The pipeline of this text, from the cache or made. Owned by the device. */
tn_status tn_webgpu_pipeline_get(tn_device *d, const char *text, int32_t kind, WGPUComputePipeline *pipeline,
                                 tn_error *err);
WGPUBindGroupLayout tn_webgpu_layout(tn_device *d, int32_t kind);

/* Bytes a second that shaders read. peak.c */
tn_status tn_webgpu_peak(tn_device *d, double *bytes_per_second, tn_error *err);

tn_status tn_webgpu_place_weights(tn_device *d, const tn_weight *const *weights, int32_t n, tn_error *err);
tn_status tn_webgpu_put_weights(tn_device *d, const tn_weight *const *weights, int32_t n, tn_stored_fn *done,
                                void *data, tn_error *err);

/* ---- caches: units of 16 bytes ---- */

/* Inside a page, for each kv head: K as [unit of the head][position], V as [position][unit of the head]; for int8 elements
 * then the scales of 32 elements, a word each: of K as [32 elements][position], of V as [position][32 elements]. */
static inline int32_t tn_webgpu_kv_dims(tn_kv_type type) { /* elements in a unit */
    return type == TN_KV_F32 ? 4 : type == TN_KV_F16 ? 8 : 16;
}
static inline int32_t tn_webgpu_kv_units(tn_kv_type type, int32_t dim) {
    int32_t n = tn_webgpu_kv_dims(type);
    return (dim + n - 1) / n;
}
/* Units of all of a head in a page. */
static inline int32_t tn_webgpu_kv_size(tn_kv_type type, int32_t k_dim, int32_t v_dim) {
    int32_t units = (tn_webgpu_kv_units(type, k_dim) + tn_webgpu_kv_units(type, v_dim)) * TN_PAGE_TOKENS;
    return units + (type == TN_KV_Q8_0 ? (k_dim + v_dim) / 32 * TN_PAGE_TOKENS / 4 : 0);
}

/* ---- launches: select.c, emit.c and the three forms; see emit.h ---- */

void tn_webgpu_facts(const tn_device *d, tn_buf *b);
const char *tn_webgpu_find_kernel(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n,
                                  tn_buf *name);

/* ---- programs: compile.c, run.c ---- */

/* A dispatch of a program. */
typedef struct tn_webgpu_dispatch {
    int32_t launch; /* of the plan, which it is a part of */
    WGPUComputePipeline pipeline;
    WGPUBindGroup group;
    tn_rows rows; /* what its grid follows */
    int32_t fixed_rows;
    uint32_t x;         /* workgroups along x; 0: one for each row (and further rows along y) */
    int32_t rows_per_y; /* rows that a workgroup takes along y */
    int32_t from_pos;   /* not in steps of which no token is at this position or beyond */
} tn_webgpu_dispatch;

/* The workgroups of a dispatch for so many rows: x, rows_per_y as in tn_webgpu_dispatch. */
static inline void tn_webgpu_grid(uint32_t x, int32_t rows_per_y, int32_t n_rows, uint32_t *gx, uint32_t *gy) {
    enum { ROW = 32768 };
    uint32_t rows = (uint32_t)n_rows, per_y = (uint32_t)(rows_per_y > 0 ? rows_per_y : 1);
    *gx = x ? x : rows < ROW ? rows : ROW;
    *gy = x ? (rows + per_y - 1) / per_y : (rows + ROW - 1) / ROW;
}

/* A step's inputs on the device, in words: n_tokens, n_outputs, then for each token its id, position, sequence, the end of
 * its run (the token after it) and the place of its page list, then the outputs, then the page lists of the runs. */
typedef struct tn_webgpu_step_layout {
    int32_t max_tokens, max_outputs, max_pages;
    int32_t ids, pos, seq, end, pages_at, outputs, pages; /* first words */
    int32_t words;
} tn_webgpu_step_layout;
tn_webgpu_step_layout tn_webgpu_step_layout_of(const tn_graph *g, int32_t n_pages);

enum { TN_WEBGPU_AHEAD = 2 }; /* steps that may be outstanding */

/* An outstanding step: what comes back of it. */
typedef struct tn_webgpu_step {
    tn_webgpu_readback back; /* of its ids and its best */
    int32_t *ids; /* what was chosen of each row; then, in a program with the best, their ids and their logits */
    int want;
    uint64_t submission;
} tn_webgpu_step;

struct tn_program {
    tn_device *device;
    tn_memory *memory;
    const tn_plan *plan;
    tn_webgpu_dispatch *dispatch;
    int32_t n;
    tn_webgpu_step_layout layout;
    WGPUBuffer step, numbers;
    tn_webgpu_readback logits; /* of the last step */
    WGPUBuffer scratch;        /* between the dispatches of one launch */
    uint64_t scratch_bytes;
    uint32_t *words; /* the step being put together */
    uint64_t logits_at, logits_row;
    tn_rows logits_rows;
    uint64_t choice_at, choice_bytes;             /* 0 bytes: the graph has no choice */
    uint64_t best_at[2], best_bytes, best_of_row; /* ids and logits, each so many bytes; 0: there are none */
    tn_webgpu_step steps[TN_WEBGPU_AHEAD];
    uint64_t submitted, waited; /* steps */
};

tn_status tn_webgpu_compile(tn_device *d, const tn_plan *plan, tn_memory *memory, tn_program **program,
                            tn_error *err);
void tn_webgpu_free_program(tn_device *d, tn_program **program);
tn_status tn_webgpu_submit(tn_program *program, const tn_step_input *step, int want, tn_error *err);
tn_status tn_webgpu_result(tn_program *program, tn_result *result, tn_error *err);
tn_status tn_webgpu_profile(tn_program *program, const tn_step_input *step, tn_launch_time *times, tn_error *err);

/* Parts of a step, for run.c and profile.c: its inputs on their way and an encoder for what follows; a dispatch, where
 * *last is the pipeline that is set. */
tn_status tn_webgpu_begin(tn_program *program, const tn_step_input *step, WGPUCommandEncoder *encoder, tn_error *err);
void tn_webgpu_encode(const tn_program *program, const tn_step_input *step, int32_t dispatch,
                      WGPUComputePassEncoder pass, WGPUComputePipeline *last);

#endif
