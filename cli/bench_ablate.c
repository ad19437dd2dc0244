/* tenon bench --ablate: what each rule of fusion gains. The same tests with all rules and with none, with each rule that
 * changes the plan left out, and with each alone; a choice of rules that comes to the plan of another is not measured twice. All
 * sessions are open at once and take turns, each round beginning with another one and every second backwards, so that a machine's
 * moods hit them alike, and runs of one round are compared in pairs. */
#include "bench.h"
#include "out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALL, NONE }; /* the first two variants */

/* A choice of rules, with its session. */
typedef struct variant {
    char fuse[64];
    bool alone;    /* one rule (and what it needs), which is compared with none; others are compared with all */
    uint64_t hash; /* of what the test runs */
    cli_engine e;
    bench_row row;
    cli_ratio gain; /* of the rules in question: how much faster with them than without */
} variant;

typedef struct ablation {
    variant *v; /* all, none, each rule left out, each alone */
    size_t n;
    char idle[400];   /* rules that do not change the plan */
    char twins[1000]; /* choices whose plan is another's */
} ablation;

/* Opens a session; one that has the plan of an earlier variant is closed again, and that is *place. */
static tn_status add_variant(ablation *a, const cli_engine *model, const bench_row *row, const char *fuse, bool alone,
                             size_t *place, tn_error *err) {
    const cli_options *o = model->o;
    a->v = cli_realloc(a->v, (a->n + 1) * sizeof *a->v);
    variant *v = &a->v[a->n];
    *v = (variant){.e = *model, .row = *row, .alone = alone};
    snprintf(v->fuse, sizeof v->fuse, "%s", fuse);
    cli_session_wish wish = {
        .n_ctx = row->n_depth + row->n_prompt + row->n_gen, .n_ubatch = o->n_ubatch, .fuse = v->fuse};
    tn_status status = cli_open_session(&v->e, &wish, err);
    if (status) return status;
    v->hash = bench_test_hash(&v->e, row);
    for (size_t i = 0; i < a->n && a->n > NONE; i++) /* what is compared with another is another question */
        if (a->v[i].hash == v->hash && (i <= NONE || a->v[i].alone == alone)) {
            *place = i;
            tn_session_close(&v->e.session);
            return TN_OK;
        }
    *place = a->n;
    v->row.seconds = cli_realloc(NULL, (size_t)o->repetitions * sizeof *v->row.seconds);
    a->n++;
    return TN_OK;
}

/* To a list of words; what has no room is cut. */
static void add_words(char *list, size_t cap, const char *first, const char *second, const char *third) {
    size_t n = strlen(list);
    snprintf(list + n, cap - n, "%s%s%s%s", n ? ", " : "", first, second, third);
}

/* Whose plan a choice has, where that is neither its own nor what it is compared with. */
static void name_twin(ablation *a, const char *fuse, size_t place, size_t base) {
    const variant *v = &a->v[place];
    if (v->hash != a->v[base].hash && strcmp(v->fuse, fuse))
        add_words(a->twins, sizeof a->twins, fuse, " = ", v->fuse);
}

/* A rule left out, and alone. */
static tn_status add_rule(ablation *a, const cli_engine *model, const bench_row *row, const char *rule,
                          tn_error *err) {
    char left_out[64];
    size_t without, alone;
    snprintf(left_out, sizeof left_out, "-%s", rule);
    tn_status status = add_variant(a, model, row, left_out, false, &without, err);
    if (!status) status = add_variant(a, model, row, rule, true, &alone, err);
    if (status) return status;
    name_twin(a, left_out, without, ALL);
    name_twin(a, rule, alone, NONE);
    if (a->v[without].hash == a->v[ALL].hash && a->v[alone].hash == a->v[NONE].hash)
        add_words(a->idle, sizeof a->idle, rule, "", "");
    return TN_OK;
}

static tn_status open_all(ablation *a, const cli_engine *model, const bench_row *row, tn_error *err) {
    size_t unused;
    tn_status status = add_variant(a, model, row, "all", false, &unused, err);
    if (!status) status = add_variant(a, model, row, "none", false, &unused, err);
    for (int32_t i = 0; tn_rule_name(i) && !status; i++) status = add_rule(a, model, row, tn_rule_name(i), err);
    for (size_t i = 0; i < a->n; i++) { /* they have stopped moving */
        a->v[i].row.fuse = a->v[i].fuse;
        bench_row_runs_on(&a->v[i].row, &a->v[i].e);
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
    cli_holm_paired(p, a->n, (size_t)n);
    for (size_t i = 0; i < a->n; i++) a->v[i].gain.p = p[i];
    free(p);
}

/* ---- the table ---- */

static void print_variant(const variant *v, bool is_all) {
    const bench_row *r = &v->row;
    cli_spread s = bench_speed(r);
    char speed[64], gain[80] = "", range[60] = "-", chance[32] = "";
    snprintf(speed, sizeof speed, "%.2f ± %.2f", s.mean, s.deviation);
    if (!isnan(v->gain.low))
        snprintf(range, sizeof range, "%+.1f .. %+.1f", 100 * (v->gain.low - 1), 100 * (v->gain.high - 1));
    if (!is_all) snprintf(gain, sizeof gain, "%+.1f %% (%s)", 100 * (v->gain.ratio - 1), range);
    if (!isnan(v->gain.p)) snprintf(chance, sizeof chance, "%.4f", v->gain.p);
    printf("| %-20s | %8d | %21s | %26s | %8s | %-12s |\n", r->fuse, r->launches, speed, gain, chance,
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
    fflush(stdout);
    if (*a->twins) cli_note(o, "the same plan, measured once: %s", a->twins);
    if (*a->idle) cli_note(o, "these rules do not change the plan: %s", a->idle);
}

static tn_status put_rows(const ablation *a, bench_table *table, tn_error *err) {
    tn_status status = TN_OK;
    for (size_t i = 0; i < a->n && !status; i++) {
        variant *v = &a->v[i];
        v->row.more = json_pack("{s:s, s:o, s:o, s:o, s:o}", "gain_over", v->alone ? "none" : v->fuse, "gain",
                                bench_json_real(v->gain.ratio - 1), "gain_low", bench_json_real(v->gain.low - 1),
                                "gain_high", bench_json_real(v->gain.high - 1), "p", bench_json_real(v->gain.p));
        status = bench_table_row(table, &v->row, err);
        json_decref(v->row.more);
    }
    return status;
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
            status = put_rows(&a, table, err);
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
