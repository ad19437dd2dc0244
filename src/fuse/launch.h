/* Fusion as a partition.
 *
 * Fusing does not rewrite the graph. It partitions its nodes into launches: each launch is a set of nodes that one kernel
 * runs, and means, by definition, those nodes one after the other. What is used outside its launch is stored, everything
 * else stays in registers. So a fused launch needs no definition of its own, its reference is the graph itself, and
 * `--fuse none` is the partition into single nodes. */
#ifndef TN_FUSE_LAUNCH_H
#define TN_FUSE_LAUNCH_H

#include "graph/graph.h"

/* A tn_op for a launch of one node, else one of these. */
typedef enum tn_kind {
    TN_KIND_FIRST = TN_OP_COUNT,
#define KIND(NAME, name, what) TN_KIND_##NAME,
#include "fuse/kinds.def"
#undef KIND
    TN_KIND_LIMIT
} tn_kind;

enum { TN_LAUNCH_MAX = 32 }; /* nodes in a launch */

const char *tn_kind_name(int kind);

/* The place of a node among the nodes of a launch; -1: it is not there. */
static inline int32_t tn_index_in(const int32_t *nodes, int32_t n, int32_t node) {
    for (int32_t i = 0; i < n; i++)
        if (nodes[i] == node) return i;
    return -1;
}

typedef struct tn_launch {
    int kind;
    int32_t n;
    int32_t *nodes;    /* in graph order */
    const char *rules; /* the rules that made it, "group, matmul_add"; NULL for a single node */
} tn_launch;

/* Why a rule that found its pattern, or most of it, did not fire. */
typedef struct tn_reject {
    const char *reason;  /* owned by the partition */
    const char *example; /* the node it was first said of */
    int32_t count, pass; /* how often, in the pass that first met it */
    struct tn_reject *next;
} tn_reject;

typedef struct tn_rule_log {
    const char *name, *formula;
    bool on;
    int32_t fired;
    tn_reject *rejects;
} tn_rule_log;

typedef struct tn_partition {
    tn_arena arena;
    tn_launch *launch; /* in an order in which they can run; leaves are in none */
    int32_t n;
    int32_t *owner; /* launch of each node; -1: a leaf */
    tn_rule_log *log;
    int32_t n_rules;
} tn_partition;

/* Asks the backend whether it can run these nodes as one launch: NULL if so, else why not (static text or from `why`). */
typedef struct tn_kernel_query {
    const char *(*find)(const void *device, const tn_graph *g, const int32_t *nodes, int32_t n);
    const void *device;
} tn_kernel_query;

/* Partitions the graph. `rules`: "all" or NULL, "none", "A,B" (only these and what they need), "-A,-B" (all but these);
 * an unknown name is TN_ERR_USAGE and lists the rules. */
tn_status tn_fuse(tn_partition *out, const tn_graph *g, const char *rules, tn_kernel_query query, tn_error *err);
void tn_partition_free(tn_partition *p);

/* Checks a partition: every node but leaves in exactly one launch, sources before uses, no launch of leaves. */
tn_status tn_partition_verify(const tn_partition *p, const tn_graph *g, tn_error *err);

/* Whether output `out` of a node is read outside its launch, or is the graph's result: then it is stored. */
bool tn_value_stored(const tn_partition *p, const tn_graph *g, int32_t node, int32_t out);

/* Rewrites the graph so that the quantization of activations is explicit: one quantize node for each value that a matmul
 * wants as int8 (weight types in the bit mask), shared by all its readers. */
tn_status tn_lower_quantize(tn_graph *out, const tn_graph *g, uint64_t int8_types, tn_error *err);

#endif
