/* What profile has measured, and the forms in which it is shown. */
#ifndef CLI_PROFILE_H
#define CLI_PROFILE_H

#include "engine.h"
#include "out.h"
#include "stats.h"

/* The launches of a plan that are alike but for their layer: one row of the table. */
typedef struct profile_region {
    char name[120]; /* "norm+matmuls attn_norm .. v" */
    const char *kind;
    int32_t n;             /* launches */
    double *seconds;       /* of each sample: all of them */
    double *plain;         /* likewise, of the launches of the same nodes in the other plan; with --compare */
    int32_t n_plain;       /* so many of those */
    double mean;           /* of seconds */
    double bytes;          /* of a sample, on average */
    tn_launch_time kernel; /* what it takes: the least occupancy, the most of the rest; 0: not known */
    cli_ratio change;      /* seconds over plain, sample by sample; p: Holm's, NaN also where nothing is fused */
} profile_region;

/* A phase of a session. A sample is a token that was generated, or a prompt. */
typedef struct profile {
    const cli_engine *e;
    tn_phase phase;
    const char *fuse;
    int32_t n_tokens, depth; /* tokens of a sample; in the cache before the first */
    int32_t n_launches, n_samples;
    double *launch;          /* seconds of each launch: [sample][launch] */
    double *bytes;           /* of each launch, summed over samples */
    tn_launch_time *kernel;  /* of each launch: what its kernel takes */
    double timed, untimed;   /* seconds of all samples, with launches timed and without */
    double begin;            /* of those timed, what passed before a step's first launch */
    double peak;             /* bytes a second, the most that was measured around the samples; 0: not known */
    profile_region *regions; /* longest first */
    int32_t n_regions;
    profile_region all; /* of all launches */
} profile;

/* Sorts the launches into regions. other: the plan that is compared with; NULL: none. */
void profile_make_regions(profile *p, const profile *other);
void profile_free(profile *p);

void profile_print(const profile *p);
void profile_print_comparison(const profile *p, const profile *plain);
json_t *profile_json(const profile *p, bool compared); /* NULL: JSON cannot say it */

/* A trace that Perfetto and chrome://tracing read. */
typedef struct profile_trace profile_trace;
tn_status profile_trace_open(profile_trace **t, const char *path,
                             tn_error *err); /* path NULL: no trace, *t is NULL */
/* A step as the host saw it (times of cli_seconds()) and its launches. May be called with NULL. */
void profile_trace_step(profile_trace *t, const profile *p, double begin, double end, const tn_launch_time *times,
                        int32_t n_tokens, int32_t n_past);
tn_status profile_trace_close(profile_trace **t, tn_error *err);

/* "attn_norm .. v": a launch by its first and last node, without the layer's number. */
void profile_launch_name(const cli_engine *e, tn_phase phase, const tn_launch_info *info, char *out, size_t cap);

#endif
