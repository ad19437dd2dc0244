/* tenon bench: tokens a second of llama-bench's tests: a prompt of random tokens in steps of -ub (pp), or one token after
 * the other (tg), behind so many in the cache (@ d), a run to warm up and -r that count. The generated tokens are the
 * likeliest ones, as generation has them; llama-bench feeds random ones. */
#include "bench.h"
#include "out.h"
#include "verbs.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

/* The values of one option of the grid; where none was given, its default. */
static cli_ints or_default(cli_ints given, int32_t *fallback) {
    return given.n ? given : (cli_ints){fallback, 1};
}

static int32_t cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

int32_t *bench_random_ids(size_t n, int32_t n_vocab) {
    int32_t *ids = cli_realloc(NULL, n * sizeof *ids);
    uint32_t state = 1; /* Numerical Recipes' generator */
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        ids[i] = (int32_t)((state >> 8) % (uint32_t)n_vocab);
    }
    return ids;
}

int32_t *bench_ids_for(const bench_row *r, int32_t n_vocab) {
    int32_t n = r->n_prompt + r->n_gen;
    return bench_random_ids((size_t)(n > r->n_depth ? n : r->n_depth), n_vocab);
}

uint64_t bench_plan_hash(const tn_session_info *info, tn_phase phase) {
    return phase == TN_PHASE_PREFILL ? info->prefill_hash
           : phase == TN_PHASE_FEW   ? info->few_hash
                                     : info->decode_hash;
}

/* The tokens of the step of a prompt that begins with token i. */
static int32_t step_tokens(const cli_engine *e, const bench_row *r, int32_t i) {
    int32_t n = e->info.n_ubatch, left = r->n_prompt - i, batch = BENCH_BATCH - i % BENCH_BATCH;
    if (left < n) n = left;
    return batch < n ? batch : n;
}

uint64_t bench_test_hash(const cli_engine *e, const bench_row *r) {
    bool runs[TN_PHASE_FEW + 1] = {[TN_PHASE_DECODE] = r->n_gen > 0};
    uint64_t hash = 0;
    for (int32_t i = 0, n; i < r->n_prompt; i += n) {
        n = step_tokens(e, r, i);
        runs[tn_phase_of(e->session, n)] = true;
    }
    for (int phase = 0; phase <= TN_PHASE_FEW; phase++)
        if (runs[phase]) hash = hash * 31 + bench_plan_hash(&e->info, (tn_phase)phase);
    return hash;
}

void bench_row_runs_on(bench_row *r, const cli_engine *e) {
    r->about = &e->about;
    r->info = &e->info;
    r->launches =
        tn_launch_count(e->session, r->n_prompt ? tn_phase_of(e->session, step_tokens(e, r, 0)) : TN_PHASE_DECODE);
}

tn_status bench_set_depth(cli_engine *e, const int32_t *ids, int32_t depth, tn_error *err) {
    int32_t length = tn_sequence_length(e->session, 0);
    if (length > depth && tn_sequence_cut(e->session, 0, depth, err) == TN_OK) return TN_OK;
    if (length == depth) return TN_OK;
    tn_status status = tn_sequence_cut(e->session, 0, 0, err); /* a state that cannot be cut is made anew */
    return status ? status : cli_feed(e, ids, (size_t)depth, TN_WANT_LOGITS, err);
}

/* How far a run is. */
typedef struct run_meter {
    const cli_options *o;
    const bench_row *row;
    bench_part part;
    int32_t n; /* tokens so far */
} run_meter;

static void count_tokens(run_meter *m, int32_t n) {
    m->n += n;
    cli_show_progress(m->o, m->row->test, m->part.done + m->part.share * m->n / (m->row->n_prompt + m->row->n_gen));
}

static bool go_on(void *meter, int32_t id) {
    (void)id;
    count_tokens(meter, 1);
    return true;
}

tn_status bench_time_run(cli_engine *e, const bench_row *r, const int32_t *ids, bench_part part, double *seconds,
                         tn_error *err) {
    run_meter meter = {.o = e->o, .row = r, .part = part};
    count_tokens(&meter, 0);
    tn_status status = bench_set_depth(e, ids, r->n_depth, err);
    double start = cli_seconds();
    for (int32_t i = 0; i < r->n_prompt && !status; i += BENCH_BATCH) {
        int32_t n = r->n_prompt - i < BENCH_BATCH ? r->n_prompt - i : BENCH_BATCH;
        status = cli_feed(e, ids + i, (size_t)n, TN_WANT_LOGITS, err);
        count_tokens(&meter, n);
    }
    tn_greedy greedy = {.id = ids[0], .n = r->n_gen, .each = go_on, .data = &meter};
    if (!status && r->n_gen) status = tn_step_greedy(e->session, &greedy, err);
    *seconds = cli_seconds() - start;
    return status;
}

tn_status bench_warm_up(cli_engine *e, const bench_row *r, const int32_t *ids, tn_error *err) {
    double unused;
    bench_row warm = *r;
    if (warm.n_gen) warm.n_gen = 1;
    return e->o->no_warmup ? TN_OK : bench_time_run(e, &warm, ids, (bench_part){0, 0}, &unused, err);
}

/* One fusion on the open model: its session, the warm-up, the runs, a row of the table. */
static tn_status run_fuse(cli_engine *e, bench_table *table, bench_row *r, tn_error *err) {
    const cli_options *o = e->o;
    int32_t n = r->n_prompt + r->n_gen;
    int32_t *ids = NULL;
    cli_session_wish wish = {.n_ctx = r->n_depth + n, .n_ubatch = o->n_ubatch, .fuse = r->fuse};
    tn_status status = cli_open_session(e, &wish, err);
    if (status) goto done;
    ids = bench_ids_for(r, e->about.n_vocab);
    bench_row_runs_on(r, e);
    r->seconds = cli_realloc(NULL, (size_t)o->repetitions * sizeof *r->seconds);
    status = bench_warm_up(e, r, ids, err);
    r->started = time(NULL);
    for (int32_t i = 0; i < o->repetitions && !status; i++) {
        bench_part part = {(double)i / o->repetitions, 1.0 / o->repetitions};
        status = bench_time_run(e, r, ids, part, &r->seconds[i], err);
        r->n_runs = i + 1;
    }
    cli_show_progress(o, r->test, 1);
    if (!status) status = bench_table_row(table, r, err);
done:
    tn_session_close(&e->session);
    free(r->seconds);
    free(ids);
    return status;
}

static tn_status run_test(cli_engine *e, bench_table *table, const bench_row *row, tn_error *err) {
    const cli_options *o = e->o;
    char *all = "all";
    cli_words fuses = o->fuses.n ? o->fuses : (cli_words){&all, 1};
    tn_status status = TN_OK;
    for (size_t f = 0; f < fuses.n && !status; f++) {
        bench_row r = *row;
        r.fuse = fuses.v[f];
        status = run_fuse(e, table, &r, err);
    }
    return status;
}

/* A place of the grid, its depth filled in. */
typedef struct place {
    cli_engine *e;
    bench_table *table;
    bench_test test;
    bench_row row;
} place;

static tn_status run_place(const place *at, int32_t n_prompt, int32_t n_gen, tn_error *err) {
    bench_row row = at->row;
    if (!n_prompt && !n_gen) return TN_OK;
    row.n_prompt = n_prompt;
    row.n_gen = n_gen;
    bench_test_name(row.test, sizeof row.test, n_prompt, n_gen, row.n_depth);
    return at->test(at->e, at->table, &row, err);
}

/* All tests of one model with so many threads: depth by depth, prompts, then generations, then one after the other. */
static tn_status each_test_of(const cli_options *o, const char *path, int32_t threads, bench_table *table,
                              bench_test test, tn_error *err) {
    int32_t depth = 0, prompt = 512, gen = 128;
    cli_ints depths = or_default(o->depths, &depth), prompts = or_default(o->prompts, &prompt),
             gens = or_default(o->gens, &gen), both = o->prompts_gens;
    cli_engine e = {0};
    cli_session_wish wish = {.path = path, .threads = threads};
    tn_status status = cli_open_model(&e, o, &wish, err);
    place at = {&e, table, test, {.path = path, .threads = threads ? threads : cores()}};
    for (size_t d = 0; d < depths.n; d++) {
        at.row.n_depth = depths.v[d];
        for (size_t i = 0; i < prompts.n && !status; i++) status = run_place(&at, prompts.v[i], 0, err);
        for (size_t i = 0; i < gens.n && !status; i++) status = run_place(&at, 0, gens.v[i], err);
        for (size_t i = 0; i < both.n && !status; i += 2) status = run_place(&at, both.v[i], both.v[i + 1], err);
    }
    if (!status) cli_note_memory(&e);
    cli_close(&e);
    return status;
}

tn_status bench_each_test(const cli_options *o, bench_table *table, bench_test test, tn_error *err) {
    int32_t any = 0;
    cli_ints threads = or_default(o->thread_counts, &any);
    tn_status status = TN_OK;
    for (size_t m = 0; m < o->models.n; m++)
        for (size_t t = 0; t < threads.n && !status; t++)
            status = each_test_of(o, o->models.v[m], threads.v[t], table, test, err);
    return status;
}

static bool all_zero(cli_ints list) {
    size_t i = 0;
    while (i < list.n && !list.v[i]) i++;
    return list.n && i == list.n;
}

tn_status cli_bench(const cli_options *o, tn_error *err) {
    if (o->compared[0]) return bench_compare(o, err);
    if (!o->models.n) return cli_fail(err, TN_ERR_USAGE, "bench needs -m FILE[,FILE] or --compare");
    if (all_zero(o->prompts) && all_zero(o->gens) && (!o->prompts_gens.n || all_zero(o->prompts_gens)))
        return cli_fail(err, TN_ERR_USAGE, "nothing to measure: -p and -n are both 0");
    if (o->ablate && o->against) return cli_fail(err, TN_ERR_USAGE, "--ablate and --against exclude each other");
    if (o->ablate) return bench_ablate(o, err);
    if (o->against) return bench_against(o, err);
    bench_table table = {.o = o};
    tn_status status = bench_each_test(o, &table, run_test, err);
    bench_table_end(&table);
    return status;
}
