/* The results of bench as a table for people (markdown) or programs (CSV, JSON, JSON lines). */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include "options.h"
#include "stats.h"

#include <time.h>

typedef struct bench_row {
    const char *path, *fuse;
    int32_t threads, n_prompt, n_gen, n_depth; /* one of n_prompt and n_gen is 0 */
    const tn_model_info *about;
    const tn_session_info *info;
    time_t started;
    double *seconds; /* of each run */
    int32_t n_runs;
} bench_row;

cli_spread bench_speed(const bench_row *r); /* tokens a second */

typedef struct bench_table {
    const cli_options *o;
    int32_t n_rows;
    int32_t n_slower; /* than a peer */
} bench_table;

void bench_table_row(bench_table *t, const bench_row *r); /* printed at once; the first begins the table */
void bench_table_end(bench_table *t);                     /* prints nothing where there was no row */

#endif
