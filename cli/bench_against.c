/* tenon bench --against PATH: a peer's llama-bench and this program in turn on the same files, threads and tests, -r rounds of
 * one run each, the first of a round in turn, so that a machine that drifts drifts for both; what the rounds' ratios say is
 * tested in pairs, and all tests are judged together, so the table is printed in the end. Beside decoding stands the share of the memory's read rate that the weights alone make up: the rate is
 * measured right before and right after each run, since that of a shared machine changes from one second to the next,
 * and the median is that of the rounds' shares. */
#include "bench.h"
#include "out.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- the peer ---- */

/* Everything that comes out of fd, zero-terminated. */
static char *read_all(int fd, size_t *len) {
    char *text = NULL;
    size_t room = 0;
    ssize_t got = 1;
    for (*len = 0; got > 0 || (got < 0 && errno == EINTR); *len += got > 0 ? (size_t)got : 0) {
        if (room - *len < 4096) text = cli_realloc(text, room = room * 2 + 8192);
        got = read(fd, text + *len, room - *len - 1);
    }
    text[*len] = 0;
    return text;
}

/* Runs a program; its stdout is text, its stderr goes nowhere. */
static tn_status run_program(char *const *argv, char **text, size_t *len, tn_error *err) {
    int ends[2], code = 0;
    pid_t pid;
    if (pipe(ends)) return cli_fail(err, TN_ERR_RESOURCES, "no pipe: %s", strerror(errno));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int failed = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    *text = NULL;
    if (!failed) *text = read_all(ends[0], len);
    close(ends[0]);
    if (failed) return cli_fail(err, TN_ERR_INPUT, "%s: %s", argv[0], strerror(failed));
    while (waitpid(pid, &code, 0) < 0 && errno == EINTR) continue;
    if (WIFEXITED(code) && WEXITSTATUS(code) == 0) return TN_OK;
    return cli_fail(err, TN_ERR_INPUT, "%s failed (%s %d)", argv[0], WIFSIGNALED(code) ? "signal" : "exit code",
                    WIFSIGNALED(code) ? WTERMSIG(code) : WEXITSTATUS(code));
}

/* What the peer is asked to do: the same test with the same choices. "-dev none": a build with GPUs would use one for prompts
 * even with -ngl 0. */
static void peer_words(const cli_options *o, const bench_row *r, char *out, size_t cap) {
    const char *type = bench_kv_type(o);
    char test[80];
    if (r->n_prompt && r->n_gen)
        snprintf(test, sizeof test, "-p 0 -n 0 -pg %d,%d", r->n_prompt, r->n_gen);
    else
        snprintf(test, sizeof test, "-p %d -n %d", r->n_prompt, r->n_gen);
    snprintf(out, cap, "%s -d %d -t %d -ub %d -ctk %s -ctv %s -fa 1 %s%s -r 1 -o json", test, r->n_depth, r->threads,
             o->n_ubatch ? o->n_ubatch : 512, type, type, cli_on_cpu(o) ? "-ngl 0 -dev none" : "-ngl 99",
             o->no_warmup ? " --no-warmup" : "");
}

/* Tokens a second of one run of the peer. */
static tn_status run_peer(const cli_options *o, const bench_row *row, double *speed, tn_error *err) {
    enum { MAX_WORDS = 40 };
    char words[300];
    const char *argv[MAX_WORDS] = {o->against, "-m", row->path};
    int n = 3;
    peer_words(o, row, words, sizeof words);
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) argv[n++] = word;
    char *text = NULL;
    size_t len = 0;
    json_error_t why;
    tn_status status = run_program((char *const *)(uintptr_t)argv, &text, &len, err);
    json_t *rows = status ? NULL : json_loadb(text, len, 0, &why);
    *speed = json_number_value(json_object_get(json_array_get(rows, 0), "avg_ts"));
    if (!status && !(*speed > 0))
        status = cli_fail(err, TN_ERR_INPUT, "%s: no avg_ts in what it prints with -o json", o->against);
    json_decref(rows);
    free(text);
    return status;
}

/* ---- rounds ---- */

typedef struct contest {
    bench_row row;
    double *peer, *ours; /* tokens a second of each round */
    double *peaks;       /* bytes a second of the memory around our run; of a generation only */
    double *shares;      /* of that, what the weights take */
} contest;

/* Our run of round i, and the memory around it. */
static tn_status run_ours(cli_engine *e, contest *c, const int32_t *ids, int32_t i, tn_error *err) {
    double before = 0, after = 0, *seconds = &c->row.seconds[i];
    bench_part part = {(i + 0.5) / e->o->repetitions, 0.5 / e->o->repetitions};
    bool decode = !c->row.n_prompt;
    tn_status status = bench_warm_up(e, &c->row, ids, err);
    if (!status && decode) status = tn_peak_bandwidth(e->model, &before, err);
    if (!status) status = bench_time_run(e, &c->row, ids, part, seconds, err);
    if (!status && decode) status = tn_peak_bandwidth(e->model, &after, err);
    if (status) return status;
    c->row.n_runs = i + 1;
    c->ours[i] = (c->row.n_prompt + c->row.n_gen) / *seconds;
    c->peaks[i] = (before + after) / 2;
    c->shares[i] = c->peaks[i] > 0 ? c->ours[i] * (double)e->info.decode_bytes / c->peaks[i] : 0;
    return TN_OK;
}

static tn_status run_rounds(cli_engine *e, contest *c, tn_error *err) {
    const cli_options *o = e->o;
    int32_t *ids = bench_ids_for(&c->row, e->about.n_vocab);
    tn_status status = TN_OK;
    c->row.started = time(NULL);
    for (int32_t i = 0; i < o->repetitions && !status; i++) {
        cli_show_progress(o, c->row.test, (double)i / o->repetitions);
        for (int32_t k = 0; k < 2 && !status; k++)
            status = (k + i) % 2 ? run_ours(e, c, ids, i, err) : run_peer(o, &c->row, &c->peer[i], err);
    }
    cli_show_progress(o, c->row.test, 1);
    free(ids);
    return status;
}

/* ---- the table ---- */

static json_t *numbers(const double *v, int32_t n) {
    json_t *list = json_array();
    for (int32_t i = 0; i < n; i++) json_array_append_new(list, json_real(v[i]));
    return list;
}

/* A test that is done, with its fields made: its model is closed before all tests are. */
typedef struct match {
    const char *path;
    char test[48];
    int32_t threads;
    cli_spread peer, ours; /* tokens a second */
    cli_ratio ratio;       /* p: of all tests together, once they are judged */
    double share;
    json_t *fields; /* NULL: the table is for people */
} match;

typedef struct matches {
    match *v;
    size_t n;
} matches;

static cli_verdict verdict_of(const match *m) {
    return cli_judge(m->ratio.p, m->ratio.ratio < 1);
}

/* Our row with the peer's figures behind it; p and the verdict are not known yet. */
static tn_status make_fields(const bench_table *table, contest *c, match *m, tn_error *err) {
    int32_t n = c->row.n_runs;
    c->row.more =
        json_pack("{s:s, s:o, s:o, s:o, s:n, s:n, s:f, s:f, s:o, s:f, s:f, s:o}", "test", c->row.test, "ratio",
                  bench_json_real(m->ratio.ratio), "ratio_low", bench_json_real(m->ratio.low), "ratio_high",
                  bench_json_real(m->ratio.high), "p", "verdict", "peer_avg_ts", m->peer.mean, "peer_stddev_ts",
                  m->peer.deviation, "peer_samples_ts", numbers(c->peer, n), "peak_bytes_per_second",
                  cli_median(c->peaks, (size_t)n), "share", m->share, "share_samples", numbers(c->shares, n));
    tn_status status = bench_table_fields(table, &c->row, &m->fields, err);
    json_decref(c->row.more);
    return status;
}

static tn_status keep(bench_table *table, contest *c, tn_error *err) {
    matches *all = table->data;
    size_t n = (size_t)c->row.n_runs;
    match m = {.path = c->row.path,
               .threads = c->row.threads,
               .peer = cli_spread_of(c->peer, n),
               .ours = bench_speed(&c->row),
               .ratio = cli_paired(c->peer, c->ours, n),
               .share = cli_median(c->shares, n)};
    snprintf(m.test, sizeof m.test, "%s", c->row.test);
    tn_status status = bench_for_people(table->o) ? TN_OK : make_fields(table, c, &m, err);
    if (status) return status;
    all->v = cli_realloc(all->v, (all->n + 1) * sizeof *all->v);
    all->v[all->n++] = m;
    return TN_OK;
}

static void judge(const matches *all, int32_t rounds) {
    double *p = cli_realloc(NULL, all->n * sizeof *p);
    for (size_t i = 0; i < all->n; i++) p[i] = all->v[i].ratio.p;
    cli_holm_paired(p, all->n, (size_t)rounds);
    for (size_t i = 0; i < all->n; i++) all->v[i].ratio.p = p[i];
    free(p);
}

static void print_match(const match *m) {
    const cli_ratio *r = &m->ratio;
    char of_peak[20] = "", theirs[40], mine[40], ratio[20] = "-", range[40] = "-", chance[20] = "-";
    if (m->share > 0) snprintf(of_peak, sizeof of_peak, "%.0f %%", 100 * m->share);
    snprintf(theirs, sizeof theirs, "%.1f ± %.1f", m->peer.mean, m->peer.deviation);
    snprintf(mine, sizeof mine, "%.1f ± %.1f", m->ours.mean, m->ours.deviation);
    if (!isnan(r->ratio)) snprintf(ratio, sizeof ratio, "%.2f", r->ratio);
    if (!isnan(r->low)) snprintf(range, sizeof range, "%.2f .. %.2f", r->low, r->high);
    if (!isnan(r->p)) snprintf(chance, sizeof chance, "%.4f", r->p);
    printf("| %-38s | %7d | %15s | %19s | %19s | %6s | %13s | %8s | %-12s | %8s |\n", bench_base_name(m->path),
           m->threads, m->test, theirs, mine, ratio, range, chance, cli_verdict_name(verdict_of(m)), of_peak);
}

static void print_table(const matches *all) {
    if (!all->n) return;
    printf("| %-38s | %7s | %15s | %18s | %18s | %6s | %13s | %8s | %-12s | %8s |\n", "model", "threads", "test",
           "peer t/s", "tenon t/s", "ratio", "95 % of it", "p (Holm)", "tenon is", "of peak");
    puts("| -------------------------------------- | ------: | --------------: | -----------------: | "
         "-----------------: | -----: | ------------: | -------: | ------------ | -------: |");
    for (size_t i = 0; i < all->n; i++) print_match(&all->v[i]);
    fflush(stdout);
}

/* Of the fields only those that the format has. */
static void put_rows(bench_table *table, const matches *all) {
    for (size_t i = 0; i < all->n; i++) {
        match *m = &all->v[i];
        json_object_update_existing_new(m->fields, json_pack("{s:o, s:s}", "p", bench_json_real(m->ratio.p),
                                                             "verdict", cli_verdict_name(verdict_of(m))));
        bench_table_put(table, m->fields);
    }
    bench_table_end(table);
}

static tn_status against(cli_engine *e, bench_table *table, const bench_row *row, tn_error *err) {
    const cli_options *o = e->o;
    contest c = {.row = *row};
    double **lists[] = {&c.peer, &c.ours, &c.peaks, &c.shares, &c.row.seconds};
    c.row.fuse = o->fuses.n ? o->fuses.v[0] : "all";
    cli_session_wish wish = {
        .n_ctx = row->n_depth + row->n_prompt + row->n_gen, .n_ubatch = o->n_ubatch, .fuse = c.row.fuse};
    tn_status status = cli_open_session(e, &wish, err);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        *lists[i] = cli_realloc(NULL, (size_t)o->repetitions * sizeof **lists[i]);
    if (status) goto done;
    bench_row_runs_on(&c.row, e);
    status = run_rounds(e, &c, err);
    if (!status) status = keep(table, &c, err);
done:
    tn_session_close(&e->session);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) free(*lists[i]);
    return status;
}

static tn_status fail_if_slower(const matches *all, const cli_options *o, tn_error *err) {
    int slower = 0;
    size_t needed = cli_pairs_needed(all->n);
    for (size_t i = 0; i < all->n; i++) slower += verdict_of(&all->v[i]) == CLI_WORSE;
    if ((size_t)o->repetitions < needed)
        cli_note(o, "with so many tests ratios can be told from chance only with %zu rounds or more (-r)", needed);
    if (!slower) return TN_OK;
    return cli_fail(err, TN_ERR_CHECK, "slower than the peer in %d of %zu tests", slower, all->n);
}

tn_status bench_against(const cli_options *o, tn_error *err) {
    if (o->fuses.n > 1) return cli_fail(err, TN_ERR_USAGE, "--against takes one choice of --fuse");
    if (o->act == TN_ACT_F32) cli_note(o, "--act f32 is ours alone: the peer has no such choice");
    matches all = {0};
    bench_table table = {.o = o, .data = &all};
    tn_status status = bench_each_test(o, &table, against, err);
    judge(&all, o->repetitions); /* after a failure, too: the tests before it are done */
    if (bench_for_people(o))
        print_table(&all);
    else
        put_rows(&table, &all);
    if (!status) status = fail_if_slower(&all, o, err);
    free(all.v);
    return status;
}
