/* The results of bench as a table for people (markdown) or programs (CSV, JSON, JSON lines, SQL). */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include "options.h"
#include "stats.h"

#include <jansson.h>
#include <time.h>

typedef struct bench_row {
    const char *path, *fuse;
    char test[48]; /* in llama-bench's words: "pp512", "tg128 @ d4096" */
    int32_t threads, n_prompt, n_gen, n_depth;
    const tn_model_info *about;
    const tn_session_info *info;
    time_t started;
    double *seconds; /* of each run */
    int32_t n_runs;
    json_t *more; /* fields after the others; NULL: none */
} bench_row;

cli_spread bench_speed(const bench_row *r); /* tokens a second */
const char *bench_base_name(const char *path);
json_t *bench_json_spread(cli_spread s);
json_t *bench_json_real(double v); /* null where it is no number */

typedef struct bench_table {
    const cli_options *o;
    int32_t n_rows;
    double *p;    /* of --against: the chance of each row's ratio, */
    bool *slower; /* and whether that is below 1 */
} bench_table;

bool bench_for_people(const cli_options *o);              /* the table shall be markdown */
void bench_table_row(bench_table *t, const bench_row *r); /* printed at once; the first begins the table */
void bench_table_end(bench_table *t);                     /* prints nothing where there was no row */

#endif
