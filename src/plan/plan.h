/* The plan: every stored value has a place in one arena, every launch has a kernel. It is all that a backend needs to
 * compile a program; nothing is decided later. */
#ifndef TN_PLAN_H
#define TN_PLAN_H

#include "fuse/launch.h"

typedef struct tn_plan {
    tn_graph graph; /* lowered */
    tn_partition partition;
    int64_t *offset;     /* of (node, output) in the arena: [node * TN_MAX_OUT + output]; -1: not stored */
    const char **kernel; /* of each launch, in words */
    size_t arena_bytes;  /* with reuse */
    size_t naive_bytes;  /* if every stored value had its own place */
    int32_t in_place;    /* values that took the place of one they replace */
    uint64_t read_bytes; /* weight bytes the launches read for one token */
    int32_t n_plain;     /* launches without fusion: the lowered nodes */
    uint64_t hash;       /* of all of the above */
} tn_plan;

/* What the planner needs to know of a device. */
typedef struct tn_plan_target {
    const void *device;
    /* NULL if the device runs these nodes as one launch (and *name says with what), else why not. name may be NULL. */
    const char *(*find_kernel)(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n, tn_buf *name);
    uint64_t int8_types; /* weight types whose matmuls want int8 activations */
    size_t align;        /* of values in the arena, bytes */
} tn_plan_target;

/* Takes over `g` (a plain graph, freed on failure too): verify -> lower (unless act_f32) -> fuse -> verify -> memory ->
 * kernels. */
tn_status tn_plan_make(tn_plan *out, tn_graph *g, bool act_f32, const char *fuse, const tn_plan_target *target,
                       tn_error *err);
void tn_plan_free(tn_plan *p);

static inline int64_t tn_plan_offset(const tn_plan *p, tn_src v) {
    return p->offset[v.node * TN_MAX_OUT + v.out];
}

/* Bytes of a weight in the file that a node reads for so many tokens. */
uint64_t tn_weight_read_bytes(const tn_node *n, const tn_weight *w, uint64_t tokens);

/* memory.c: lifetimes -> offsets. A value lives from the launch that makes it to the last that reads it: that of a result is the
 * number of launches. */
int32_t tn_plan_last_use(const tn_plan *p, int32_t node, int32_t out);
tn_status tn_plan_memory(tn_plan *p, size_t align, tn_error *err);

#endif
