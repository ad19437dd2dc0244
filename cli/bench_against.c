/* tenon bench --against PATH: a peer's llama-bench and this program in turn on the same files, threads and tests, -r rounds of
 * one run each, the first of a round in turn, so that a machine that drifts drifts for both; what the rounds' ratios say is
 * tested in pairs. Beside decoding stands the share of the memory's read rate that the weights alone make up: the rate is
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
    static const char *const types[] = {"f16", "q8_0", "f32"};
    bool on_cpu = !o->backend || !strncmp(o->backend, "cpu", 3);
    char test[80];
    if (r->n_prompt && r->n_gen)
        snprintf(test, sizeof test, "-p 0 -n 0 -pg %d,%d", r->n_prompt, r->n_gen);
    else
        snprintf(test, sizeof test, "-p %d -n %d", r->n_prompt, r->n_gen);
    snprintf(out, cap, "%s -d %d -t %d -ub %d -ctk %s -ctv %s -fa 1 %s%s -r 1 -o json", test, r->n_depth, r->threads,
             o->n_ubatch ? o->n_ubatch : 512, types[o->kv_type], types[o->kv_type],
             on_cpu ? "-ngl 0 -dev none" : "-ngl 99", o->no_warmup ? " --no-warmup" : "");
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

/* Our row with the peer's figures behind it. */
static void put_row(bench_table *table, contest *c, const cli_ratio *r) {
    int32_t n = c->row.n_runs;
    cli_spread peer = cli_spread_of(c->peer, (size_t)n);
    c->row.more =
        json_pack("{s:s, s:f, s:o, s:o, s:o, s:f, s:f, s:o, s:f, s:f, s:o}", "test", c->row.test, "ratio", r->ratio,
                  "ratio_low", bench_json_real(r->low), "ratio_high", bench_json_real(r->high), "p",
                  bench_json_real(r->p), "peer_avg_ts", peer.mean, "peer_stddev_ts", peer.deviation,
                  "peer_samples_ts", numbers(c->peer, n), "peak_bytes_per_second", cli_median(c->peaks, (size_t)n),
                  "share", cli_median(c->shares, (size_t)n), "share_samples", numbers(c->shares, n));
    bench_table_row(table, &c->row);
    json_decref(c->row.more);
}

static void print_row(const contest *c, const cli_ratio *r, bool first) {
    const bench_row *row = &c->row;
    double share = cli_median(c->shares, (size_t)row->n_runs);
    cli_spread peer = cli_spread_of(c->peer, (size_t)row->n_runs), ours = bench_speed(row);
    char of_peak[20] = "", theirs[40], mine[40], range[40] = "-";
    if (share > 0) snprintf(of_peak, sizeof of_peak, "%.0f %%", 100 * share);
    snprintf(theirs, sizeof theirs, "%.1f ± %.1f", peer.mean, peer.deviation);
    snprintf(mine, sizeof mine, "%.1f ± %.1f", ours.mean, ours.deviation);
    if (!isnan(r->low)) snprintf(range, sizeof range, "%.2f .. %.2f", r->low, r->high);
    if (first) {
        printf("| %-38s | %7s | %15s | %18s | %18s | %6s | %13s | %8s |\n", "model", "threads", "test", "peer t/s",
               "tenon t/s", "ratio", "95 % of it", "of peak");
        puts("| -------------------------------------- | ------: | --------------: | -----------------: | "
             "-----------------: | -----: | ------------: | -------: |");
    }
    printf("| %-38s | %7d | %15s | %19s | %19s | %6.2f | %13s | %8s |\n", bench_base_name(row->path), row->threads,
           row->test, theirs, mine, r->ratio, range, of_peak);
    fflush(stdout);
}

static void show(bench_table *table, contest *c) {
    cli_ratio r = cli_paired(c->peer, c->ours, (size_t)c->row.n_runs);
    size_t n = (size_t)table->n_rows;
    table->p = cli_realloc(table->p, (n + 1) * sizeof *table->p);
    table->slower = cli_realloc(table->slower, (n + 1) * sizeof *table->slower);
    table->p[n] = r.p;
    table->slower[n] = r.ratio < 1;
    if (bench_for_people(table->o)) {
        print_row(c, &r, n == 0);
        table->n_rows++;
    } else {
        put_row(table, c, &r);
    }
}

static tn_status against(cli_engine *e, bench_table *table, const bench_row *row, tn_error *err) {
    const cli_options *o = e->o;
    contest c = {.row = *row};
    double **lists[] = {&c.peer, &c.ours, &c.peaks, &c.shares, &c.row.seconds};
    c.row.fuse = o->fuses.n ? o->fuses.v[0] : "all";
    c.row.about = &e->about;
    c.row.info = &e->info;
    cli_session_wish wish = {
        .n_ctx = row->n_depth + row->n_prompt + row->n_gen, .n_ubatch = o->n_ubatch, .fuse = c.row.fuse};
    tn_status status = cli_open_session(e, &wish, err);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        *lists[i] = cli_realloc(NULL, (size_t)o->repetitions * sizeof **lists[i]);
    if (!status) status = run_rounds(e, &c, err);
    if (!status) show(table, &c);
    tn_session_close(&e->session);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) free(*lists[i]);
    return status;
}

/* Slower, and not by chance, all tests taken together. */
static tn_status judge(const bench_table *t, tn_error *err) {
    int slower = 0, untold = 0;
    cli_holm(t->p, (size_t)t->n_rows);
    for (int32_t i = 0; i < t->n_rows; i++) {
        cli_verdict v = cli_judge(t->p[i], t->slower[i]);
        slower += v == CLI_WORSE;
        untold += v == CLI_UNTOLD;
    }
    if (untold) cli_note(t->o, "a ratio can be told from chance only with %d rounds or more (-r)", CLI_FEW);
    if (!slower) return TN_OK;
    return cli_fail(err, TN_ERR_CHECK, "slower than the peer in %d of %d tests", slower, t->n_rows);
}

tn_status bench_against(const cli_options *o, tn_error *err) {
    if (o->fuses.n > 1) return cli_fail(err, TN_ERR_USAGE, "--against takes one choice of --fuse");
    if (o->act == TN_ACT_F32) cli_note(o, "--act f32 is ours alone: the peer has no such choice");
    bench_table table = {.o = o};
    tn_status status = bench_each_test(o, &table, against, err);
    if (!bench_for_people(o)) bench_table_end(&table);
    if (!status) status = judge(&table, err);
    free(table.p);
    free(table.slower);
    return status;
}
