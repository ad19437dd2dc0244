/* Writing a launch's shader. find_kernel writes it without a plan, to see whether it can be written; compile writes it again
 * with the places of all values. So the two cannot disagree. */
#ifndef TN_WEBGPU_EMIT_H
#define TN_WEBGPU_EMIT_H

#include "backend/webgpu/webgpu.h"

enum { TN_WEBGPU_MAX_NUMBERS = 1024, TN_WEBGPU_MAX_WINDOWS = 5, TN_WEBGPU_TILE = 32 };

typedef enum tn_webgpu_core {
    TN_WEBGPU_ROW,
    TN_WEBGPU_VECTOR,
    TN_WEBGPU_TILES,
    TN_WEBGPU_DOTS,
    TN_WEBGPU_SHARES,
    TN_WEBGPU_HEAD,
    TN_WEBGPU_SPLIT,
    TN_WEBGPU_CHANNEL
} tn_webgpu_core;
typedef struct tn_webgpu_kernel {
    tn_form_kind form;
    int op; /* that the launch must hold; TN_OP_COUNT: any */
    tn_webgpu_core core;
    const char *name;
    int32_t min_rows, max_rows;
    bool subgroups;
    int32_t
        vec; /* words read at once: 4, where all rows of the launch are multiples of that, or 1; 0: whatever fits */
    int32_t stages; /* dispatches, one after the other */
} tn_webgpu_kernel;

/* A piece of WGSL. */
typedef struct tn_text {
    char s[480];
} tn_text;
tn_text tn_textf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What a node's result is while the launch runs. */
typedef struct tn_webgpu_value {
    bool stored;    /* it has a place in the arena */
    bool wanted;    /* a product or the core reads it: kept in the workgroup's memory, for every row */
    int32_t loop;   /* of the row program, in which it is computed */
    int32_t buffer; /* first float in the workgroup's memory; -1: none */
    int32_t size;   /* floats of a row of it there */
} tn_webgpu_value;

/* A part of a slab that the shader sees as one binding. */
typedef struct tn_webgpu_window {
    int32_t slab;
    uint64_t offset, bytes;
} tn_webgpu_window;

typedef struct tn_emit {
    const tn_device *d;
    const tn_graph *g;
    const int32_t *nodes;
    int32_t n;
    tn_form form;
    const tn_webgpu_kernel *kernel;
    const tn_plan *plan; /* NULL: only asked whether there is a kernel */
    tn_kv_type kv_type;
    tn_webgpu_step_layout step;
    int32_t segment; /* of the weight that is in several */
    int32_t stage;   /* of a launch that is several dispatches, one after the other */
    const char *why; /* what speaks against it; NULL: nothing so far */

    tn_buf types, head, body; /* functions of types; functions of this launch; statements of main */
    uint32_t number[TN_WEBGPU_MAX_NUMBERS];
    struct {
        int32_t node, out, first, number;
    } placed[2 * TN_LAUNCH_MAX]; /* where operands from outside lie: the numbers that say so */
    int32_t n_placed;
    int32_t n_numbers;
    tn_webgpu_window window[TN_WEBGPU_MAX_WINDOWS];
    int32_t n_windows;
    int32_t state;       /* the cache it binds; -1: none */
    int32_t wg;          /* invocations in a workgroup */
    int32_t vec;         /* words read at once: 4 or 1 */
    int32_t shared;      /* floats of workgroup memory */
    int32_t q_words;     /* words of int8 rows kept there */
    int32_t extra_bytes; /* of what cores declare for themselves */
    uint32_t teams;      /* sizes (powers of two) of the reductions used, as bits */
    uint32_t head_teams; /* of those of the scores of several heads */
    uint64_t types_used;
    bool int8, halves;
    bool v_early; /* v was loaded for the cache before the ops that stand before */

    tn_webgpu_value value[TN_LAUNCH_MAX];
    /* how row ops are to be written here */
    int32_t parts;  /* columns are cut into this many: heads of the cache, of v; 1: whole rows */
    int32_t k_cols; /* scan: rows of so many columns are heads of k, which are fewer: k_parts; 0: there are none */
    int32_t k_parts;
    bool rows_apart;       /* matmuls: nothing stored is read back, stores are the first workgroup's */
    int32_t rows_held;     /* rows whose wanted values are kept at once */
    const tn_shape *shape; /* whose rows the shader counts as n_rows */
    /* the dispatch */
    tn_rows rows;
    int32_t fixed_rows, rows_per_y, from_pos;
    uint32_t x;
    uint64_t scratch_words; /* what its stages pass on: 0: it has one stage */
} tn_emit;

/* Writes the shader of a launch. False: e->why says why not (or memory ran out: e->why is then NULL). */
bool tn_webgpu_emit(tn_emit *e, tn_buf *text);
void tn_webgpu_emit_free(tn_emit *e);

/* Sets e up for these nodes, with their form and kernel; NULL, or why there is none. select.c */
const char *tn_webgpu_select(tn_emit *e, const tn_device *d, const tn_graph *g, const int32_t *nodes, int32_t n);
/* Dispatches that the launch takes: one for each of its stages, or for each segment of its largest weight. */
int32_t tn_webgpu_dispatches(const tn_emit *e);

/* ---- for the forms ---- */

void tn_emit_rows(tn_emit *e);
/* Whether all rows of the launch are multiples of four words, the workers' parts of them too: 4, else 1. */
int32_t tn_emit_width(const tn_emit *e);
void tn_emit_matmuls(tn_emit *e);
void tn_emit_attend(tn_emit *e);
void tn_emit_scan(tn_emit *e);
/* argmax.c, best.c: a row's op in two stages. */
void tn_emit_argmax(tn_emit *e);
void tn_emit_best(tn_emit *e);

/* rows.c: the row ops of one role, in order, each on columns [base, base + n) of row `row`. */
void tn_emit_row_ops(tn_emit *e, tn_role role);
/* Buffers for those values of a role that are read outside the loop that makes them. */
void tn_emit_give_buffers(tn_emit *e, tn_role role);
/* The expression of an element op on a and b, of type V or, where `scalar`, f32. */
tn_text tn_emit_element(const tn_node *node, bool scalar, const char *a, const char *b);
bool tn_emit_is_element(tn_op op);
bool tn_webgpu_has_row_op(tn_op op);
/* The factor of a norm from the sum of squares of its columns. */
tn_text tn_emit_norm_factor(const tn_node *n, const char *sum, int32_t cols);
void tn_emit_kv_write(tn_emit *e, int32_t i);
void tn_emit_kv_write_loads(tn_emit *e, int32_t i);

/* heads.c: whether the ops before attention can be done in registers; what they load; themselves. */
bool tn_emit_heads_suit(const tn_emit *e);
void tn_emit_heads_loads(tn_emit *e);
void tn_emit_heads(tn_emit *e);

static inline const tn_node *tn_emit_node(const tn_emit *e, int32_t i) {
    return &e->g->nodes[e->nodes[i]];
}
int32_t tn_emit_index(const tn_emit *e, int32_t node); /* in the launch; -1: not */
/* A number that the shader reads: its expression. */
tn_text tn_emit_number(tn_emit *e, uint32_t value);
/* First word of row 0 of a stored value, or of element `first` of a weight vector. */
tn_text tn_emit_place(tn_emit *e, int32_t node, int32_t first);
/* The same of any of a node's outputs, and whether it has a place. */
tn_text tn_emit_place_out(tn_emit *e, int32_t node, int32_t out);
bool tn_emit_stored(const tn_emit *e, int32_t i, int32_t out);
int32_t tn_emit_row_words(const tn_emit *e, int32_t node);
/* Columns of a value of `cols` that a worker has: all, or a head. */
int32_t tn_emit_columns(const tn_emit *e, int32_t cols);
/* Of an int8 value of several rows in one: the first word of the row that column c is in, and c's column there. */
tn_text tn_emit_q8_row(const tn_node *n, const char *place, const char *c);
tn_text tn_emit_q8_column(const tn_node *n, const char *c);
static inline int32_t tn_emit_q8_width(const tn_node *n) {
    return n->attr.head_dim ? n->attr.head_dim : n->out[0].cols;
}
/* Element(s) at column `c` of source k of a node: V where `vector`, else f32. */
tn_text tn_emit_load(tn_emit *e, const tn_node *node, int k, const char *c, bool vector);
/* Element (r, c) of a weight that is a matrix of floats. */
tn_text tn_emit_element_of_matrix(tn_emit *e, tn_src src, const char *r, const char *c);
/* Statements that store `y` as node i's element(s) at column `c`. */
tn_text tn_emit_store(tn_emit *e, int32_t i, const char *c, const char *y, bool vector);
/* A weight of a product or a lookup: declares load_ID(row, block) and the functions of its type. */
const tn_webgpu_weight *tn_emit_weight(tn_emit *e, int32_t id, tn_src src);
void tn_emit_weight_pairs(tn_emit *e, int32_t id, tn_src src);
/* sum_TEAM and max_TEAM will be there. */
void tn_emit_team(tn_emit *e, int32_t team);
/* Appends the source file `name`, ${KEY} replaced: pairs of key and value, then NULL. */
void tn_emit_piece(tn_emit *e, tn_buf *to, const char *name, ...) __attribute__((sentinel));

#define NUM(x) tn_textf("%lld", (long long)(x)).s

#endif
