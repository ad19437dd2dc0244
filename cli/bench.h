/* What the modes of bench share: a timed run, and what else they do with such runs. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "engine.h"
#include "table.h"

enum { BENCH_BATCH = 2048 }; /* tokens of a prompt fed at once, as llama-bench does by default */

/* Tokens to run: any will do, the same each time. Freed with free(). */
int32_t *bench_random_ids(size_t n, int32_t n_vocab);
int32_t *bench_ids_for(const bench_row *r, int32_t n_vocab); /* as many as the row takes */
uint64_t bench_plan_hash(const tn_session_info *info, tn_phase phase);
/* Of all plans that a test runs on the open session. */
uint64_t bench_test_hash(const cli_engine *e, const bench_row *r);
/* Fills in what a row tells of the open session. */
void bench_row_runs_on(bench_row *r, const cli_engine *e);

/* Brings the cache to `depth` tokens. */
tn_status bench_set_depth(cli_engine *e, const int32_t *ids, int32_t depth, tn_error *err);
/* One run on an open session, timed, the cache brought to the row's depth before: a prompt, or a token after the other. `part`:
 * what of all runs is done before and by this one, for the progress. */
typedef struct bench_part {
    double done, share;
} bench_part;
tn_status bench_time_run(cli_engine *e, const bench_row *r, const int32_t *ids, bench_part part, double *seconds,
                         tn_error *err);
/* The run before those that count, unless --no-warmup was given. */
tn_status bench_warm_up(cli_engine *e, const bench_row *r, const int32_t *ids, tn_error *err);

/* Calls `test` for each place of the grid that the options span, with the model open; row: model, threads, depth and
 * test are filled in. */
typedef tn_status (*bench_test)(cli_engine *e, bench_table *table, const bench_row *row, tn_error *err);
tn_status bench_each_test(const cli_options *o, bench_table *table, bench_test test, tn_error *err);

/* The test in llama-bench's words: "pp512", "tg128 @ d4096". */
void bench_test_name(char *out, size_t cap, int64_t n_prompt, int64_t n_gen, int64_t n_depth);

/* --compare A B: which tests of two results of bench differ by more than noise; TN_ERR_CHECK where B is slower. */
tn_status bench_compare(const cli_options *o, tn_error *err);
/* --ablate: all rules, none, each of them left out, and each alone. */
tn_status bench_ablate(const cli_options *o, tn_error *err);
/* --against PATH: this program and a peer's llama-bench in turn; TN_ERR_CHECK where it is slower. */
tn_status bench_against(const cli_options *o, tn_error *err);

#endif
