/* Building a launch: what build.c and the forms that have files of their own share. */
#ifndef TN_CUDA_BUILD_H
#define TN_CUDA_BUILD_H

#include "backend/cuda/cuda.h"

/* The launch being built. */
typedef struct tn_maker {
    const tn_cuda_ask *ask;
    const tn_graph *g;
    tn_cuda_launch *to;
    tn_buf *head;
    tn_form form;
    int32_t slot[TN_LAUNCH_MAX]; /* offset of a node's row in shared memory, floats; -1: not there */
    int32_t slot_floats;         /* of all slots */
    int32_t slot_parts;          /* a slot holds one of so many parts of a row */
    bool slot_after;             /* what comes after the core has slots too */
    int32_t n_values, n_weights, n_row_ops;
    int32_t max_rows;
    const char *why; /* the first thing that is wrong */
} tn_maker;

/* Node i of the launch; which one is its (first) core. */
static inline const tn_node *tn_node_at(const tn_maker *m, int32_t i) {
    return &m->g->nodes[m->ask->nodes[i]];
}
int32_t tn_core_at(const tn_maker *m);
/* Keeps the first reason why there is no kernel; returns 0. */
int32_t tn_maker_fail(tn_maker *m, const char *why);

/* The place of a node in the launch; -1: it is not of it. */
int32_t tn_index_of(const tn_maker *m, int32_t node);
/* v[] of a value that is stored. */
int32_t tn_stored_value(tn_maker *m, tn_src s);
/* w[] of a weight; how it is encoded. */
int32_t tn_add_weight(tn_maker *m, tn_src s);
int tn_traits_of(tn_maker *m, tn_src s);
/* The code of an operand of a row op. */
int32_t tn_row_operand(tn_maker *m, tn_src s);
/* v[] where the first output of node i is stored; -1: nowhere. */
int32_t tn_store_of(tn_maker *m, int32_t i);
/* Places in shared memory for rows that are read inside the launch: the lowest that is free while they live. A place holds one of
 * `before` parts of a row or, from the core on, one of `after`; 0: those have none. */
void tn_place_slots(tn_maker *m, int32_t before, int32_t after);
/* The table of row ops; after the slots are placed. */
void tn_put_row_ops(tn_maker *m);
/* One op on results; `local`: value number of each node of the launch, -1: not one of the part's. */
void tn_put_after_op(tn_maker *m, int32_t i, const int32_t *local);
/* The table of ops on the result of the one core. */
void tn_put_after_ops(tn_maker *m, int32_t core);

/* ---- matmuls.c, attend.c ---- */

void tn_make_matmuls(tn_maker *m);
void tn_make_attend(tn_maker *m);
/* Whether the tensor cores' kernels do it: a cache of halves, heads of dimensions that fill their registers and not more. */
bool tn_attend_halves_fit(const tn_maker *m);

#endif
