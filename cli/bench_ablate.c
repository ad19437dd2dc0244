/* tenon bench --ablate: what each rule of fusion gains. The same tests with all rules and with none, with each rule that
 * changes the plan left out, and with each alone; all sessions are open at once and take turns, each round beginning with another one and every second backwards, so
 * that a machine's moods hit them alike, and runs of one round are compared in pairs. */
#include "bench.h"
#include "out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALL, NONE }; /* the first two variants */

/* A choice of rules, with its session. */
typedef struct variant {
    char fuse[64];
    bool alone; /* one rule, which is compared with none; others are compared with all */
    cli_engine e;
    bench_row row;
    cli_ratio gain; /* of the rules in question: how much faster with them than without */
} variant;

typedef struct ablation {
    variant *v; /* all, none, each rule left out, each alone */
    size_t n;
    char idle[400]; /* rules that do not change the plan */
} ablation;

static uint64_t hash_of(const variant *v) {
    return bench_plan_hash(&v->e.info, bench_phase(&v->row));
}

/* Opens a session; one whose plan is that of variant `same` is closed again, and *idle. */
static tn_status add_variant(ablation *a, const cli_engine *model, const bench_row *row, const char *fuse,
                             size_t same, bool *idle, tn_error *err) {
    const cli_options *o = model->o;
    a->v = cli_realloc(a->v, (a->n + 1) * sizeof *a->v);
    variant *v = &a->v[a->n];
    *v = (variant){.e = *model, .row = *row, .alone = same == NONE};
    snprintf(v->fuse, sizeof v->fuse, "%s", fuse);
    cli_session_wish wish = {
        .n_ctx = row->n_depth + row->n_prompt + row->n_gen, .n_ubatch = o->n_ubatch, .fuse = v->fuse};
    tn_status status = cli_open_session(&v->e, &wish, err);
    if (status) return status;
    *idle = same < a->n && hash_of(v) == hash_of(&a->v[same]);
    if (*idle) {
        tn_session_close(&v->e.session);
        return TN_OK;
    }
    v->row.seconds = cli_realloc(NULL, (size_t)o->repetitions * sizeof *v->row.seconds);
    a->n++;
    return TN_OK;
}

static tn_status open_all(ablation *a, const cli_engine *model, const bench_row *row, tn_error *err) {
    bool idle, alone_idle;
    char left_out[64];
    tn_status status = add_variant(a, model, row, "all", SIZE_MAX, &idle, err);
    if (!status) status = add_variant(a, model, row, "none", SIZE_MAX, &idle, err);
    for (int32_t i = 0; tn_rule_name(i) && !status; i++) {
        snprintf(left_out, sizeof left_out, "-%s", tn_rule_name(i));
        status = add_variant(a, model, row, left_out, ALL, &idle, err);
        if (!status) status = add_variant(a, model, row, tn_rule_name(i), NONE, &alone_idle, err);
        if (status || !idle || !alone_idle) continue;
        size_t n = strlen(a->idle);
        snprintf(a->idle + n, sizeof a->idle - n, "%s%s", n ? ", " : "", tn_rule_name(i));
    }
    for (size_t i = 0; i < a->n; i++) { /* they have stopped moving */
        a->v[i].row.fuse = a->v[i].fuse;
        a->v[i].row.about = &model->about;
        a->v[i].row.info = &a->v[i].e.info;
    }
    return status;
}

static tn_status run_all(ablation *a, const cli_options *o, tn_error *err) {
    int32_t *ids = bench_ids_for(&a->v[0].row, a->v[0].row.about->n_vocab);
    double n_runs = (double)a->n * o->repetitions;
    tn_status status = TN_OK;
    for (size_t i = 0; i < a->n && !status; i++) {
        status = bench_warm_up(&a->v[i].e, &a->v[i].row, ids, err);
        a->v[i].row.started = time(NULL);
    }
    for (int32_t r = 0; r < o->repetitions; r++)
        for (size_t k = 0; k < a->n && !status; k++) {
            variant *v = &a->v[((size_t)r + (r % 2 ? a->n - 1 - k : k)) % a->n];
            bench_part part = {((double)r * (double)a->n + (double)k) / n_runs, 1 / n_runs};
            status = bench_time_run(&v->e, &v->row, ids, part, &v->row.seconds[r], err);
            v->row.n_runs = r + 1;
        }
    cli_show_progress(o, a->v[0].row.test, 1);
    free(ids);
    return status;
}

/* Round by round, in pairs; what chance does is counted over all of them together. */
static void judge_all(ablation *a, int32_t n) {
    double *p = cli_realloc(NULL, a->n * sizeof *p);
    for (size_t i = 0; i < a->n; i++) {
        variant *v = &a->v[i];
        const variant *with = v->alone ? v : &a->v[ALL], *without = v->alone ? &a->v[NONE] : v;
        v->gain = cli_paired(with->row.seconds, without->row.seconds, (size_t)n);
        p[i] = i == ALL ? NAN : v->gain.p;
    }
    cli_holm(p, a->n);
    for (size_t i = 0; i < a->n; i++) a->v[i].gain.p = p[i];
    free(p);
}

/* ---- the table ---- */

static void print_variant(const variant *v, bool is_all) {
    const bench_row *r = &v->row;
    cli_spread s = bench_speed(r);
    char speed[64], gain[80] = "", chance[32] = "";
    snprintf(speed, sizeof speed, "%.2f ± %.2f", s.mean, s.deviation);
    if (!is_all)
        snprintf(gain, sizeof gain, "%+.1f %% (%+.1f .. %+.1f)", 100 * (v->gain.ratio - 1), 100 * (v->gain.low - 1),
                 100 * (v->gain.high - 1));
    if (!isnan(v->gain.p)) snprintf(chance, sizeof chance, "%.4f", v->gain.p);
    printf("| %-20s | %8d | %21s | %26s | %8s | %-12s |\n", r->fuse,
           r->n_prompt ? r->info->launches_prefill : r->info->launches_decode, speed, gain, chance,
           is_all ? "" : cli_verdict_name(cli_judge(v->gain.p, v->gain.ratio < 1)));
}

static void print_table(const ablation *a, const cli_options *o) {
    const bench_row *r = &a->v[ALL].row;
    printf("%s on %s, %d threads: %s\n\n", r->path, r->about->backend, r->threads, r->test);
    printf("| %-20s | %8s | %20s | %26s | %8s | %-12s |\n", "fuse", "launches", "t/s", "gain", "p (Holm)", "with it");
    puts("| -------------------- | -------: | -------------------: | -------------------------: | -------: | "
         "------------ |");
    for (size_t i = 0; i < a->n; i++)
        if (!a->v[i].alone) print_variant(&a->v[i], i == ALL);
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i].alone) print_variant(&a->v[i], false);
    putchar('\n');
    if (*a->idle) cli_note(o, "these rules do not change the plan: %s", a->idle);
    fflush(stdout);
}

static void put_rows(const ablation *a, bench_table *table) {
    for (size_t i = 0; i < a->n; i++) {
        variant *v = &a->v[i];
        v->row.more = json_pack("{s:s, s:o, s:o, s:o, s:o}", "gain_over", v->alone ? "none" : v->fuse, "gain",
                                bench_json_real(v->gain.ratio - 1), "gain_low", bench_json_real(v->gain.low - 1),
                                "gain_high", bench_json_real(v->gain.high - 1), "p", bench_json_real(v->gain.p));
        bench_table_row(table, &v->row);
        json_decref(v->row.more);
    }
}

static tn_status ablate(cli_engine *e, bench_table *table, const bench_row *row, tn_error *err) {
    ablation a = {0};
    tn_status status = open_all(&a, e, row, err);
    if (!status) status = run_all(&a, e->o, err);
    if (!status) {
        judge_all(&a, e->o->repetitions);
        if (bench_for_people(e->o))
            print_table(&a, e->o);
        else
            put_rows(&a, table);
    }
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
