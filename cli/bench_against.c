/* tenon bench --against PATH: a peer's llama-bench and this program in turn on the same files, threads and tests, -r rounds of one
 * run each, so that a machine that drifts drifts for both. The ratio is that of the medians. Beside decoding stands the
 * share of the memory's read rate (measured in every round, their median) that the weights alone make up. */
#include "bench.h"
#include "out.h"

#include <errno.h>
#include <fcntl.h>
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

/* Tokens a second of one run of the peer. */
static tn_status run_peer(const cli_options *o, const bench_row *row, double *speed, tn_error *err) {
    char threads[12], prompt[12], gen[12], depth[12], ubatch[12];
    snprintf(threads, sizeof threads, "%d", row->threads);
    snprintf(prompt, sizeof prompt, "%d", row->n_prompt);
    snprintf(gen, sizeof gen, "%d", row->n_gen);
    snprintf(depth, sizeof depth, "%d", row->n_depth);
    snprintf(ubatch, sizeof ubatch, "%d", o->n_ubatch ? o->n_ubatch : 512);
    bool on_cpu = !o->backend || !strncmp(o->backend, "cpu", 3);
    const char *argv[] = {o->against,
                          "-m",
                          row->path,
                          "-t",
                          threads,
                          "-p",
                          prompt,
                          "-n",
                          gen,
                          "-d",
                          depth,
                          "-ub",
                          ubatch,
                          "-fa",
                          "1",
                          "-ngl",
                          on_cpu ? "0" : "99",
                          "-r",
                          "1",
                          "-o",
                          "json",
                          NULL};
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
    double *peaks;       /* bytes a second of the memory, after each round of a generation */
} contest;

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *v, int32_t n) {
    double *sorted = cli_realloc(NULL, (size_t)n * sizeof *sorted);
    memcpy(sorted, v, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    double m = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
    free(sorted);
    return m;
}

static tn_status run_rounds(cli_engine *e, contest *c, const char *what, tn_error *err) {
    const cli_options *o = e->o;
    int32_t n = c->row.n_prompt + c->row.n_gen;
    int32_t *ids = bench_random_ids((size_t)(n > c->row.n_depth ? n : c->row.n_depth), e->about.n_vocab);
    tn_status status = TN_OK;
    for (int32_t i = 0; i < o->repetitions && !status; i++) {
        double seconds = 1;
        cli_show_progress(o, what, (double)i / o->repetitions);
        status = run_peer(o, &c->row, &c->peer[i], err);
        if (!status) status = bench_warm_up(e, &c->row, ids, err);
        if (!status) status = bench_time_run(e, &c->row, ids, &seconds, err);
        c->ours[i] = n / seconds;
        if (!status && c->row.n_gen) status = tn_peak_bandwidth(e->model, &c->peaks[i], err);
    }
    cli_show_progress(o, what, 1);
    free(ids);
    return status;
}

/* ---- the table ---- */

static json_t *numbers(const double *v, int32_t n) {
    json_t *list = json_array();
    for (int32_t i = 0; i < n; i++) json_array_append_new(list, json_real(v[i]));
    return list;
}

static void show(const cli_engine *e, bench_table *table, const contest *c, const char *what) {
    const cli_options *o = e->o;
    const bench_row *r = &c->row;
    double peer = median(c->peer, o->repetitions), ours = median(c->ours, o->repetitions);
    double peak = r->n_gen ? median(c->peaks, o->repetitions) : 0;
    double share = peak > 0 ? ours * (double)e->info.decode_bytes / peak : 0;
    char of_peak[20] = "";
    table->n_slower += ours < peer;
    if (o->json) {
        putchar(table->n_rows++ ? ',' : '[');
        cli_out_json(json_pack("{s:s, s:i, s:s, s:f, s:f, s:f, s:o, s:o, s:f, s:f}", "model_filename", r->path,
                               "n_threads", r->threads, "test", what, "ratio", ours / peer, "peer_ts", peer, "ts",
                               ours, "peer_samples_ts", numbers(c->peer, o->repetitions), "samples_ts",
                               numbers(c->ours, o->repetitions), "peak_bytes_per_second", peak, "share", share));
        return;
    }
    const char *slash = strrchr(r->path, '/');
    if (share > 0) snprintf(of_peak, sizeof of_peak, "%.0f %%", 100 * share);
    if (table->n_rows++ == 0) {
        printf("| %-38s | %7s | %15s | %9s | %9s | %6s | %8s |\n", "model", "threads", "test", "peer t/s",
               "tenon t/s", "ratio", "of peak");
        printf(
            "| -------------------------------------- | ------: | --------------: | --------: | --------: | -----: | "
            "-------: |\n");
    }
    printf("| %-38s | %7d | %15s | %9.1f | %9.1f | %6.2f | %8s |\n", slash ? slash + 1 : r->path, r->threads, what,
           peer, ours, ours / peer, of_peak);
    fflush(stdout);
}

static tn_status against(cli_engine *e, bench_table *table, const bench_row *row, tn_error *err) {
    const cli_options *o = e->o;
    contest c = {.row = *row};
    char what[100];
    cli_session_wish wish = {.n_ctx = row->n_depth + row->n_prompt + row->n_gen,
                             .n_ubatch = o->n_ubatch,
                             .fuse = o->fuses.n ? o->fuses.v[0] : "all"};
    tn_status status = cli_open_session(e, &wish, err);
    bench_test_name(what, sizeof what, row->n_prompt, row->n_gen, row->n_depth);
    c.peer = cli_realloc(NULL, (size_t)o->repetitions * sizeof *c.peer);
    c.ours = cli_realloc(NULL, (size_t)o->repetitions * sizeof *c.ours);
    c.peaks = cli_realloc(NULL, (size_t)o->repetitions * sizeof *c.peaks);
    if (!status) status = run_rounds(e, &c, what, err);
    if (!status) show(e, table, &c, what);
    tn_session_close(&e->session);
    free(c.peer);
    free(c.ours);
    free(c.peaks);
    return status;
}

tn_status bench_against(const cli_options *o, tn_error *err) {
    if (o->fuses.n > 1) return cli_fail(err, TN_ERR_USAGE, "--against takes one choice of --fuse");
    bench_table table = {.o = o};
    tn_status status = bench_each_test(o, &table, against, err);
    if (o->json && table.n_rows) puts("]");
    if (status || !table.n_slower) return status;
    return cli_fail(err, TN_ERR_CHECK, "slower than the peer in %d tests", table.n_slower);
}
