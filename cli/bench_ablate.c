/* tenon bench --ablate: what each rule of fusion gains. The same tests with all rules, with none, and with each rule that
 * changes the plan left out; all sessions are open at once and take turns, run by run, so that a machine's moods hit
 * them alike. */
#include "bench.h"
#include "out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A choice of rules, with its session. */
typedef struct variant {
    char fuse[64];
    cli_engine e;
    bench_row row;
} variant;

typedef struct ablation {
    variant *v; /* all, none, then each rule left out */
    size_t n;
    char idle[400]; /* rules that do not change the plan */
} ablation;

/* Of the plan that the test runs. */
static uint64_t hash_of(const variant *v) {
    return v->row.n_prompt ? v->e.info.prefill_hash : v->e.info.decode_hash;
}

/* Opens a session without a rule; one whose plan is that of all rules is closed again, and the rule is idle. */
static tn_status add_variant(ablation *a, const cli_engine *model, const bench_row *row, const char *rule,
                             const char *fuse, tn_error *err) {
    const cli_options *o = model->o;
    a->v = cli_realloc(a->v, (a->n + 1) * sizeof *a->v);
    variant *v = &a->v[a->n];
    *v = (variant){.e = *model, .row = *row};
    snprintf(v->fuse, sizeof v->fuse, "%s%s", rule ? "-" : "", rule ? rule : fuse);
    cli_session_wish wish = {
        .n_ctx = row->n_depth + row->n_prompt + row->n_gen, .n_ubatch = o->n_ubatch, .fuse = v->fuse};
    tn_status status = cli_open_session(&v->e, &wish, err);
    if (status) return status;
    if (rule && hash_of(v) == hash_of(&a->v[0])) {
        size_t n = strlen(a->idle);
        snprintf(a->idle + n, sizeof a->idle - n, "%s%s", n ? ", " : "", rule);
        tn_session_close(&v->e.session);
        return TN_OK;
    }
    v->row.seconds = cli_realloc(NULL, (size_t)o->repetitions * sizeof *v->row.seconds);
    a->n++;
    return TN_OK;
}

static tn_status open_all(ablation *a, const cli_engine *model, const bench_row *row, tn_error *err) {
    tn_status status = add_variant(a, model, row, NULL, "all", err);
    if (!status) status = add_variant(a, model, row, NULL, "none", err);
    for (int32_t i = 0; tn_rule_name(i) && !status; i++)
        status = add_variant(a, model, row, tn_rule_name(i), NULL, err);
    for (size_t i = 0; i < a->n; i++) { /* they have stopped moving */
        a->v[i].row.fuse = a->v[i].fuse;
        a->v[i].row.about = &model->about;
        a->v[i].row.info = &a->v[i].e.info;
    }
    return status;
}

static tn_status run_all(ablation *a, const cli_options *o, const char *what, tn_error *err) {
    const bench_row *row = &a->v[0].row;
    int32_t n = row->n_prompt + row->n_gen;
    int32_t *ids = bench_random_ids((size_t)(n > row->n_depth ? n : row->n_depth), row->about->n_vocab);
    tn_status status = TN_OK;
    for (size_t i = 0; i < a->n && !status; i++) {
        status = bench_warm_up(&a->v[i].e, &a->v[i].row, ids, err);
        a->v[i].row.started = time(NULL);
    }
    for (int32_t r = 0; r < o->repetitions; r++)
        for (size_t i = 0; i < a->n && !status; i++) {
            bench_row *at = &a->v[i].row;
            cli_show_progress(o, what, ((double)r + (double)i / (double)a->n) / o->repetitions);
            status = bench_time_run(&a->v[i].e, at, ids, &at->seconds[at->n_runs], err);
            at->n_runs++;
        }
    cli_show_progress(o, what, 1);
    free(ids);
    return status;
}

/* ---- the table ---- */

static void print_variant(const ablation *a, size_t i) {
    const bench_row *r = &a->v[i].row;
    cli_spread all = bench_speed(&a->v[0].row), s = bench_speed(r);
    char speed[64], gain[32] = "", chance[32] = "";
    double p = cli_welch(s, all);
    snprintf(speed, sizeof speed, "%.2f ± %.2f", s.mean, s.deviation);
    if (i) {
        snprintf(gain, sizeof gain, "%+.2f %%", 100 * (all.mean / s.mean - 1));
        if (!isnan(p)) snprintf(chance, sizeof chance, "%.4f", p);
    }
    printf("| %-20s | %8d | %21s | %9s | %7s | %-12s |\n", r->fuse,
           r->n_prompt ? r->info->launches_prefill : r->info->launches_decode, speed, gain, chance,
           i ? cli_verdict_name(cli_judge(s, all)) : "");
}

/* "gain": of all rules over the row's choice; so, of the one rule that it leaves out. */
static void print_table(const ablation *a, const cli_options *o, const char *what) {
    const bench_row *r = &a->v[0].row;
    printf("%s on %s, %d threads: %s\n\n", r->path, r->about->backend, r->threads, what);
    printf("| %-20s | %8s | %20s | %9s | %7s | %-12s |\n", "fuse", "launches", "t/s", "gain", "p", "with it");
    printf("| -------------------- | -------: | -------------------: | --------: | ------: | ------------ |\n");
    for (size_t i = 0; i < a->n; i++) print_variant(a, i);
    putchar('\n');
    if (*a->idle) cli_note(o, "these rules do not change the plan: %s", a->idle);
    fflush(stdout);
}

static tn_status ablate(cli_engine *e, bench_table *table, const bench_row *row, tn_error *err) {
    ablation a = {0};
    char what[100];
    bench_test_name(what, sizeof what, row->n_prompt, row->n_gen, row->n_depth);
    tn_status status = open_all(&a, e, row, err);
    if (!status) status = run_all(&a, e->o, what, err);
    if (!status && !e->o->json && e->o->table == CLI_TABLE_MD)
        print_table(&a, e->o, what);
    else
        for (size_t i = 0; i < a.n && !status; i++) bench_table_row(table, &a.v[i].row);
    for (size_t i = 0; i < a.n; i++) {
        tn_session_close(&a.v[i].e.session);
        free(a.v[i].row.seconds);
    }
    free(a.v);
    return status;
}

tn_status bench_ablate(const cli_options *o, tn_error *err) {
    if (o->fuses.n) return cli_fail(err, TN_ERR_USAGE, "--ablate and --fuse exclude each other");
    bench_table table = {.o = o};
    tn_status status = bench_each_test(o, &table, ablate, err);
    bench_table_end(&table);
    return status;
}
