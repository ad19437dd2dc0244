/* Verification: what the parts of tn_verify share. The report, the rig that runs small graphs on a device, and the builder
 * that makes a rule's pattern into nodes. */
#ifndef TN_VERIFY_H
#define TN_VERIFY_H

#include "backend/backend.h"
#include "fuse/rule.h"

/* ---- report: one line a check ---- */

/* A check compares in several cases; the worst of them speaks for it. */
typedef struct tn_check {
    char name[160];
    int32_t cases, fused, refused; /* fused, refused: where a rule should have fired */
    int32_t denied;                /* of those refused: the backend has no kernel */
    char refusal[200];             /* why, the last time */
    double nmse, bound;            /* of the case that came nearest to its bound */
    double part, part_bound;       /* likewise, of a part of the results by itself */
    char worst[300];               /* the worst element of the case whose part that is, in words */
    char failure[300];             /* empty: the check is fine */
    bool drift;                    /* the next ones are known: of the tokens' probabilities at each position */
    double kl, kl_most,
        same_top; /* Kullback-Leibler divergence, mean and largest; share with the same likeliest token */
} tn_check;

typedef struct tn_report {
    tn_sink out;
    bool json;
    int32_t n, n_failed;
} tn_report;

void tn_report_check(tn_report *r, const tn_check *c);
/* The summary; TN_ERR_CHECK when a check failed. */
tn_status tn_report_end(tn_report *r, tn_error *err);

void tn_check_fail(tn_check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What a case ran into is that check's failure; but without memory there is no going on: that is returned. */
tn_status tn_check_case(tn_check *c, tn_status status, const char *where, const tn_error *err);

/* Results of a run: rows of one width. */
typedef struct tn_table {
    float *p; /* freed with tn_free */
    int32_t rows, cols;
} tn_table;

/* How near results are to be: NMSE = sum (got - want)^2 / sum want^2 at most `bound`; and at most TN_PART times that in every
 * `grain` columns of a row, else errors of small values would drown in large ones. Below `zero` all values are alike. */
typedef struct tn_near {
    double bound;
    int32_t grain;
    float zero;
} tn_near;
enum { TN_PART = 100 };

/* `where` names the case. */
void tn_check_near(tn_check *c, const tn_table *got, const tn_table *want, const tn_near *near, const char *where);
/* The same bits. */
void tn_check_equal(tn_check *c, const tn_table *got, const tn_table *want, const char *where);

/* ---- rig: small graphs on a device ---- */

/* Whether fused and unfused are to have the same bits on a backend: on the CPU, which NULL is too. */
bool tn_verify_exact(const char *backend);

/* A device under test. */
typedef struct tn_rig {
    const tn_backend *backend;
    tn_device *device;
    bool exact; /* see tn_verify_exact */
    float zero; /* smaller results are none: GPUs may take denormals for 0, which a norm then makes larger */
} tn_rig;

tn_status tn_rig_open(tn_rig *rig, const char *name, int threads, tn_error *err);
tn_status tn_rig_open_with(tn_rig *rig, const char *name, const tn_device_options *options, tn_error *err);
void tn_rig_close(tn_rig *rig);

/* Weights made in memory. A device takes its weights once, so all graphs share one table: the graphs are built once to
 * collect their weights, and again to be run. */
typedef enum tn_fill {
    TN_FILL_RANDOM,
    TN_FILL_SMALL,
    TN_FILL_POSITIVE,
    TN_FILL_NEGATIVE,
    TN_FILL_IDENTITY,
    /* of inputs that are hard: blocks of 32 columns in turn, from row to row another one first */
    TN_FILL_TINY, /* random, small, very small, zero, denormal */
    TN_FILL_HUGE, /* random, one huge value, all huge, where e^x is near its limits */
    TN_FILL_EQUAL /* all elements the same: every comparison is a tie */
} tn_fill;
/* ", tiny" and so on, of those that are hard; else "". */
const char *tn_fill_name(tn_fill fill);
typedef struct tn_rig_weights {
    tn_arena arena;
    const tn_weight **p;
    int32_t n, cap;
    bool failed;
} tn_rig_weights;

/* The node of a weight like this one (its type, sizes and flags), made if it is not there; `number` tells weights alike
 * apart. */
tn_val tn_rig_weight(tn_rig_weights *t, tn_graph *g, const tn_weight *like, tn_fill fill, int32_t number);
void tn_rig_weights_free(tn_rig_weights *t);

enum { TN_RIG_SEQS = 3, TN_RIG_VOCAB = 41 }; /* rows of tables: enough to be cut where bindings are small */

/* How a graph is run. The steps bring 1 or many tokens of up to three sequences (see rig.c), as the graph's max_tokens
 * and one_token allow. */
typedef struct tn_rig_options {
    const char *fuse;
    bool act_f32;
    tn_kv_type kv;
} tn_rig_options;

/* Plans a copy of g. */
tn_status tn_rig_plan(const tn_rig *rig, tn_plan *plan, const tn_graph *g, const tn_rig_options *o, tn_error *err);
/* Compiles the plan, runs the steps, gathers the outputs of all of them. */
tn_status tn_rig_run(const tn_rig *rig, const tn_plan *plan, tn_kv_type kv, tn_table *result, tn_error *err);
/* Both. */
tn_status tn_rig_measure(const tn_rig *rig, const tn_graph *g, const tn_rig_options *o, tn_table *result,
                         tn_error *err);

/* ---- patterns: a rule made into nodes ---- */

/* What stands in for an operand that the pattern leaves free. */
typedef enum tn_operand {
    TN_OPERAND_VALUE,   /* another activation */
    TN_OPERAND_SWAPPED, /* the same, as the first operand */
    TN_OPERAND_SLICE,   /* columns of a wider one */
    TN_OPERAND_WEIGHT,  /* a vector of the file */
    TN_OPERAND_REPEATS, /* a shorter vector */
    TN_OPERAND_COUNT
} tn_operand;

/* The concrete sizes of a case. */
typedef struct tn_sizes {
    int32_t width, n_out; /* of activations, of products */
    int32_t head_dim, n_head, n_kv, n_rot;
    bool neox;
    int32_t window;
    float softcap;
    tn_type type[2]; /* of weights, in turn */
    bool act_f32;
    tn_kv_type kv;
    tn_operand operand;
    int32_t max_tokens; /* in a prefill step */
    float ext_factor;   /* rope: not 0 is YaRN */
    tn_fill input;      /* of activations whose range is free */
} tn_sizes;

/* One form of a rule: which lines are there, what each of them is. */
typedef struct tn_pattern {
    const tn_rule *rule;
    unsigned absent;                    /* OPT lines left out */
    int kind[TN_MAX_LINES];             /* the op or fused kind of each line */
    const tn_rule *maker[TN_MAX_LINES]; /* the rule that makes it, where it is a fused kind */
    bool bare[TN_MAX_LINES];            /* ... with its OPT lines left out */
    int32_t many;                       /* members of a MANY line */
} tn_pattern;

enum { TN_PATTERN_NODES = 24, TN_PATTERN_SINKS = 12 };

/* A pattern as a graph. The sinks read what is seen outside; one of them is to be the graph's output. */
typedef struct tn_pattern_graph {
    tn_graph g;
    int32_t inner[TN_PATTERN_NODES]; /* the pattern's own nodes */
    int32_t n_inner;
    int32_t sink[TN_PATTERN_SINKS];
    int32_t n_sinks;
    bool quantizes, attends; /* among the inner nodes */
} tn_pattern_graph;

/* `exposed`: which slots of the rule's .out are read outside, by their place in it. TN_ERR_USAGE: these sizes do not suit
 * the pattern. */
tn_status tn_pattern_build(tn_pattern_graph *out, const tn_pattern *p, const tn_sizes *s, unsigned exposed,
                           bool one_token, tn_rig_weights *weights, tn_error *err);
void tn_pattern_free(tn_pattern_graph *p);

/* ---- the verifications ---- */
typedef struct tn_verify_rigs {
    tn_rig device, reference;
    /* Only one case of each op and type, or of each form of a rule that is fused in it, and that against the reference only; on
     * every turn (from 1) another one. 0: everything. For tests on slow devices. */
    int32_t turn;
} tn_verify_rigs;

/* `only`: the one rule or op that is verified; NULL: all. */
tn_status tn_verify_rules(tn_report *r, const tn_verify_rigs *rigs, const char *only, tn_error *err);
tn_status tn_verify_ops(tn_report *r, const tn_verify_rigs *rigs, const char *only, tn_error *err);
tn_status tn_verify_model(tn_report *r, const tn_verify_options *options, tn_error *err);
/* How far logits are from others, over positions. */
typedef struct tn_drift {
    double error, power; /* squares, of all logits */
    double kl, kl_most;  /* KL(want || got) = sum p (log p - log q), p and q being the softmax of want and got */
    int64_t positions, same_top;
    bool differs; /* in any bit */
    double worst; /* the largest difference, and where */
    int64_t at;
    int32_t id;
    float got, want;
} tn_drift;

/* bound: of the NMSE, 0 being the same bits; those of divergence and likeliest tokens follow from it. m names the token; may be
 * NULL. */
void tn_report_drift(tn_report *r, const tn_drift *d, const tn_model *m, const char *name, double bound);
void tn_drift_add(tn_drift *d, const float *got, const float *want, int32_t n);

/* What fusion does to a model on a text. */
tn_status tn_verify_drift(tn_report *r, const tn_verify_options *options, tn_error *err);

#endif
