/* The CPU backend's own types. A program is an array of calls: each launch of the plan becomes calls of the same kernels in
 * one of four forms, so that a value has the same bits in whatever launch it is computed:
 *   rows     every thread takes some rows and runs the launch's ops on each
 *   matmuls  every thread takes some columns; row ops before the products are done by each thread for itself (cheaper than
 *            a barrier, for few rows); element ops after them work on tiles still in cache; of an argmax each thread keeps
 *            the best of its columns
 *   attend   every thread takes some (tokens, kv head) pairs
 *   scan     every thread takes some (sequence, head or channels) pairs and goes through the sequence's tokens */
#ifndef TN_CPU_H
#define TN_CPU_H

#include "backend/backend.h"
#include "backend/cpu/kernels/kernels.h"
#include "base/mem.h"
#include "base/thread.h"
#include "plan/form.h"

/* A weight as it lies here; for experts, that of the first one, the next `expert_stride` bytes on. */
typedef struct tn_cpu_matrix {
    tn_cpu_weight w;
    size_t expert_stride;
} tn_cpu_matrix;

struct tn_device {
    tn_caps caps;
    tn_isa isa;
    tn_pool *pool;
    tn_cpu_matrix *weights; /* by index in the model's table */
    int32_t n_weights;
    char *packed; /* one arena for all repacked weights, in execution order */
    size_t packed_bytes;
};

/* The state of a layer: a cache, or floats for each sequence. */
typedef struct tn_cpu_state {
    tn_cpu_kv kv;
    float *floats; /* size of them a sequence */
    size_t size, bytes;
} tn_cpu_state;

struct tn_memory {
    tn_cpu_state *states;
    int32_t n_states;
    tn_kv_type kv_type;
    char *arena;
    size_t arena_bytes;
    const int32_t *chosen; /* by the last step, of whichever program */
};

/* ---- what a launch is to this backend ---- */

enum { TN_CPU_MAX_ROWS_BEFORE = 8 }; /* rows of a norm that every thread does by itself */

/* NULL and the launch's form, or why these nodes cannot be one launch here. select.c */
const char *tn_cpu_classify(const tn_device *device, const tn_graph *g, const int32_t *nodes, int32_t n,
                            tn_form *form);
void tn_cpu_facts(const tn_device *d, tn_buf *b);
const char *tn_cpu_find_kernel(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n, tn_buf *name);
/* The kernel that multiplies by this weight as it lies. */
struct tn_matmul_kernel;
const struct tn_matmul_kernel *tn_cpu_matmul_for(const tn_device *device, const tn_weight *w, tn_dtype x);
/* Vectors and one-row matrices stay rows; everything else is laid out as its kernels want it. */
tn_cpu_layout tn_cpu_layout_for(const tn_device *device, const tn_weight *w);

/* ---- programs ---- */

enum {
    TN_CPU_TOKEN_CHUNK = 64,    /* tokens a tile of products has at most */
    TN_CPU_FEW_TOKENS = 8,      /* up to here a tile is wide */
    TN_CPU_TILE_SIZE = 64 * 64, /* numbers in a tile */
    TN_CPU_UNIT = 32,           /* columns that are never cut: a block of the int8 row */
};

/* Where an operand of an op lies. */
typedef enum tn_cpu_where {
    TN_CPU_ARENA,  /* base + row * stride: stored values */
    TN_CPU_BUFFER, /* scratch + offset + (row - row0) * stride: whole rows inside a launch */
    TN_CPU_TILE,   /* scratch + offset + (row - row0) * ld * 4 + (column - col0) * 4: part of rows inside a launch */
    TN_CPU_FIXED,  /* base + column * 4: a weight vector */
} tn_cpu_where;

typedef struct tn_cpu_operand {
    tn_cpu_where where;
    bool repeats; /* shorter than the row: handed to the kernel from its start */
    char *base;
    size_t offset, stride; /* bytes */
    int32_t first;         /* column of a slice */
} tn_cpu_operand;

/* Where a thread is: which step, which scratch, which rows and columns its tile begins with. */
typedef struct tn_cpu_frame {
    const tn_step_input *step;
    char *scratch;
    int32_t row0, col0, ld;
} tn_cpu_frame;

typedef struct tn_cpu_op tn_cpu_op;
/* Computes columns [c0, c0 + n) of a row of an op's output. */
typedef void tn_cpu_op_fn(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t c0, int32_t n);
struct tn_cpu_op {
    tn_cpu_op_fn *run;
    tn_piece_fn *piece;
    tn_cpu_operand dst, dst2, src[3];
    int32_t n_src, cols; /* columns of the output */
    int32_t i[4];
    float f[6];
    bool flat; /* all operands are tiles of one shape: a tile is one call */
    const tn_cpu_weight *weight;
    tn_weight_row_fn *weight_row;
    const tn_cpu_kv *kv;
    tn_kv_write_fn *kv_write;
};

typedef struct tn_cpu_product {
    tn_matmul_fn *run;
    const tn_cpu_matrix *weight;
    tn_cpu_operand x, dst;
    size_t slot;   /* experts: bytes from one expert's row of x to the next one's; 0: all read the same row */
    size_t row;    /* experts: bytes of a row of x */
    size_t gather; /* experts: scratch where rows of x are brought together */
} tn_cpu_product;

/* Products and the ops on their tiles: all with the same columns. */
typedef struct tn_cpu_part {
    tn_cpu_product *product;
    tn_cpu_op *op;
    int32_t n_products, n_ops;
    int32_t cols;             /* of one expert */
    int32_t tile;             /* experts: columns in a unit of work */
    int64_t unit_bytes;       /* weights of TN_CPU_UNIT columns .. */
    int64_t bytes;            /* .. and of all; 0 for experts */
    int32_t n_expert, n_used; /* 0: no experts */
    tn_cpu_operand ids;
    bool argmax;
    tn_cpu_operand scores, chosen; /* what it is of, where it goes */
    tn_cpu_operand aside; /* a tile for the scores of a step that wants no more than the choice; else no tile */
    size_t lists;         /* experts: scratch for counts, starts, and (token, slot) pairs by expert */
} tn_cpu_part;

/* The largest number of a row so far, and the first column that has it; at -1: none was a number. */
typedef struct tn_cpu_top {
    float max;
    int32_t at;
} tn_cpu_top;

typedef struct tn_cpu_launch {
    tn_form_kind form;
    tn_rows rows;
    tn_cpu_op *before, *after; /* rows: before only */
    int32_t n_before, n_after;
    tn_cpu_op *copy; /* matmuls: results of row ops that are stored too: copied by one thread */
    int32_t n_copies;
    tn_cpu_part *part;
    int32_t n_parts;
    int64_t bytes; /* weights of all parts but experts */
    struct {       /* attend */
        tn_attention_fn *run;
        tn_cpu_attention a; /* page table is the sequence's, filled at run time */
        tn_cpu_operand q, out;
        size_t scratch; /* where the kernel's own scratch begins */
        int32_t block;  /* tokens in a unit of work */
        size_t cache_bytes;
        int32_t slots;      /* segments of all sequences that there is room for; 0: never done apart */
        size_t part_stride; /* floats of a segment's parts, all heads */
    } attend;
    struct {
        const tn_node *node;
        tn_cpu_state *state;
        const float *taps;
        tn_conv1d_fn *conv1d;
        tn_delta_fn *delta;
        tn_cpu_operand src[5], out; /* conv1d: x; gated_delta_net: q, k, v, g, beta */
        size_t scratch;
    } scan;
} tn_cpu_launch;

struct tn_program {
    tn_device *device;
    tn_memory *memory;
    const tn_plan *plan;
    tn_arena arena;
    tn_cpu_launch *launch;
    int32_t n;
    char *scratch;        /* of all threads */
    size_t scratch_bytes; /* of one */
    float *parts;         /* of attention over segments: the launch that wants the most */
    size_t parts_bytes;
    const float *logits;
    const int32_t *chosen; /* in the arena; NULL: the graph has no choice */
    tn_candidates best;    /* of row 0, likewise */
    tn_step_input step;    /* the one that was submitted last */
    int32_t *ids;          /* its tokens, those chosen by the step before among them */
    int32_t *kept;         /* its own choices: the arena is the next step's */
    int want;
};

tn_status tn_cpu_compile(tn_device *device, const tn_plan *plan, tn_memory *memory, tn_program **program,
                         tn_error *err);
void tn_cpu_free_program(tn_device *device, tn_program **program);
tn_status tn_cpu_submit(tn_program *program, const tn_step_input *step, int want, tn_error *err);
tn_status tn_cpu_wait(tn_program *program, tn_result *result, tn_error *err);
tn_status tn_cpu_profile(tn_program *program, const tn_step_input *step, tn_launch_time *times, tn_error *err);

/* How many bytes a second all threads together read from memory, measured now (some tenths of a second). peak.c */
tn_status tn_cpu_read_rate(tn_device *device, double *bytes_per_second, tn_error *err);

/* ops.c: an op's call, without its operands. */
void tn_cpu_op_init(tn_cpu_op *op, const tn_device *device, const tn_memory *memory, const tn_graph *g,
                    const tn_node *node);
/* Whether there is a kernel for the op as a row op. */
bool tn_cpu_has_op(tn_op op);
/* Goes on with columns [first, first + n). */
void tn_cpu_top_of(tn_cpu_top *top, const float *x, int32_t first, int32_t n);
/* Bytes of the tops of so many rows of one thread: whole cache lines. */
static inline size_t tn_cpu_tops_bytes(int32_t rows) {
    return tn_align_up((size_t)rows * sizeof(tn_cpu_top), 64);
}
/* The pointer to column c of a row of an operand. */
char *tn_cpu_at(const tn_cpu_operand *o, const tn_cpu_frame *f, int32_t row, int32_t c);

#endif
