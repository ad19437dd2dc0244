/* What a rule is. The table is in rules.c, the matcher in match.c. */
#ifndef TN_FUSE_RULE_H
#define TN_FUSE_RULE_H

#include "fuse/launch.h"

/* A line of a pattern: slot <- one of these kinds (sources). Slots are letters 'A'..'Z'; see rules.c for how they bind. */
typedef struct tn_line {
    char slot;
    uint64_t kinds;  /* bit set of tn_op and tn_kind */
    const char *src; /* the slots it reads, in order; sources past its end are free. "" binds nothing */
    int flags;
} tn_line;
enum { TN_OPT = 1, TN_MANY = 2 };

enum { TN_MAX_LINES = 8, TN_MAX_GROUP = 8 };

/* A set of launches that a pattern bound. */
typedef struct tn_match {
    int32_t launch[TN_MAX_LINES + TN_MAX_GROUP];
    int32_t n;
    tn_src slot[26];
    bool bound[26];
} tn_match;

typedef struct tn_rule {
    const char *name;
    const char *formula;
    tn_line line[TN_MAX_LINES];
    int emit;          /* the kind of the launch that results */
    const char *out;   /* slots that may also be used outside; the last line's always may */
    const char *needs; /* a rule whose launches the pattern reads: turned on with this one; NULL: none */
    const char *(*legal)(const tn_graph *g, const tn_match *m); /* NULL: always; else why not */
} tn_rule;

/* The tables, in the order in which they run; each to a fixpoint. */
typedef struct tn_rule_table {
    const char *name;
    const tn_rule *rules;
    int32_t n;
} tn_rule_table;
extern const tn_rule_table tn_rule_tables[];
extern const int32_t tn_n_rule_tables;

/* Launches while they are being merged: the working state of fuse.c, read by the matcher. */
typedef struct tn_work {
    const tn_graph *g;
    tn_kernel_query query;
    tn_launch *launch; /* n == 0: merged into another */
    int32_t n;
    int32_t *owner;
    int32_t **users; /* of each node: the nodes that read it */
    int32_t *n_users;
    int32_t *extent; /* of each node: at least the last node of every launch that has nodes up to it and beyond */
    char *seen;      /* scratch of the convexity check: a byte, and a place in a list, for each launch */
    int32_t *todo;
    int32_t *scratch; /* node list of a candidate: one entry a node */
} tn_work;

/* Finds the pattern of a rule with the lines of `absent` (a bit set of OPT lines) left out, its last line on launch
 * `anchor`, such that merging the match is legal and the backend has a kernel for it. On failure *why says what was
 * wrong with the candidate that came furthest, *why_node with which node; NULL when its last line was all that matched
 * or, with lines left out, when none had all the others. */
bool tn_match_rule(tn_match *m, const tn_work *w, const tn_rule *rule, unsigned absent, int32_t anchor,
                   const char **why, int32_t *why_node);

/* The nodes of the matched launches in graph order, into w->scratch; returns their number. */
int32_t tn_match_nodes(const tn_match *m, const tn_work *w);

#endif
