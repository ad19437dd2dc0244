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
    int32_t launches; /* of a step of the prompt; without one, of the generation */
    time_t started;
    double *seconds; /* of each run */
    int32_t n_runs;
    json_t *more; /* fields after the others; NULL: none */
} bench_row;

cli_spread bench_speed(const bench_row *r); /* tokens a second */
const char *bench_base_name(const char *path);
const char *bench_kv_type(const cli_options *o);
json_t *bench_json_text(const char *s);
json_t *bench_json_spread(cli_spread s);
json_t *bench_json_real(double v); /* null where it is no number */

typedef struct bench_table {
    const cli_options *o;
    int32_t n_rows;
    void *data; /* of the mode */
} bench_table;

bool bench_for_people(const cli_options *o); /* the table shall be markdown */
/* Printed at once; the first begins the table. */
tn_status bench_table_row(bench_table *t, const bench_row *r, tn_error *err);
/* The same in two steps, for a table that is not for people; the second lets go of the fields. */
tn_status bench_table_fields(const bench_table *t, const bench_row *r, json_t **fields, tn_error *err);
void bench_table_put(bench_table *t, json_t *fields);
void bench_table_end(bench_table *t); /* prints nothing where there was no row */

#endif
