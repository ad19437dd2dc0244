/* The form of a launch: how the nodes that one kernel runs stand to each other. It is the same question for every backend, so
 * it is answered once; a backend adds which ops it has kernels for, and its limits.
 *   rows     ops that need nothing but a token's row
 *   matmuls  [row ops] products [element ops] [argmax]: parts of equal width, each with products (of experts or plain ones) and the
 *            ops on their results; a sum of experts that is added to these is one of the ops: it needs no more than its column of
 *            each expert's
 *   attend   [head ops] [cache write] attention [element ops], head by head
 *   scan     [head ops] conv1d or gated_delta_net [head ops], along a sequence, channel by channel or head by head */
#ifndef TN_PLAN_FORM_H
#define TN_PLAN_FORM_H

#include "fuse/launch.h"

typedef enum tn_form_kind { TN_FORM_ROWS, TN_FORM_MATMULS, TN_FORM_ATTEND, TN_FORM_SCAN } tn_form_kind;

/* Of a node: before the core, the core itself (a matmul, the attention, ...), or on its results. In rows all are before. */
typedef enum tn_role { TN_BEFORE, TN_CORE, TN_AFTER } tn_role;

typedef struct tn_form {
    tn_form_kind kind;
    tn_role role[TN_LAUNCH_MAX]; /* of each node of the launch */
    int32_t part[TN_LAUNCH_MAX]; /* matmuls: nodes of one part read each other's columns; not of BEFORE nodes */
    int32_t n_parts;
    int32_t max_rows; /* rows at the phase's maximum */
} tn_form;

/* What a backend can do with the nodes around a core. */
typedef struct tn_form_limits {
    bool (*has_row_op)(tn_op op); /* as an op on a row */
    int32_t max_rows_before;      /* rows for which row ops may stand before matmuls (each worker does them again) */
    bool argmax_after;            /* of the result of matmuls, whose columns several workers share */
    int32_t max_rows_sum;         /* rows for which a sum of experts may be among the ops on results of matmuls */
    int32_t max_rows_beside;      /* rows for which plain matmuls may stand beside those of experts */
} tn_form_limits;

/* NULL, or why these nodes (in graph order) are no launch of any form. */
const char *tn_form_of(tn_form *form, const tn_graph *g, const int32_t *nodes, int32_t n,
                       const tn_form_limits *limits);

#endif
