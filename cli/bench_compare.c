/* tenon bench --compare A B: two results of bench (ours or llama-bench's, as JSON or JSON lines), test by test. A test is
 * told from others by what varies in a file: a field with one value throughout (a machine, a commit, a fusion) does not
 * keep two files from being compared. */
#include "bench.h"
#include "out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What may tell tests apart; the first three do always. */
static const char *const fields[] = {"n_prompt",  "n_gen",    "n_depth", "model_type", "model_size", "backends",
                                     "n_threads", "n_ubatch", "type_k",  "act",        "fuse"};
enum { ALWAYS = 3, N_FIELDS = sizeof fields / sizeof *fields };

/* ---- reading ---- */

static bool is_row(const json_t *row) {
    return json_is_integer(json_object_get(row, "n_prompt")) && json_is_integer(json_object_get(row, "n_gen")) &&
           json_array_size(json_object_get(row, "samples_ts")) > 0;
}

/* A JSON array of rows, or rows one after the other. */
static tn_status read_rows(const char *path, json_t **rows, tn_error *err) {
    char *text;
    size_t len;
    json_error_t why;
    *rows = json_array();
    tn_status status = cli_read_file(path, &text, &len, err);
    if (status) return status;
    for (size_t at = 0; !status;) {
        at += strspn(text + at, " \t\r\n");
        if (at >= len) break;
        json_t *value = json_loadb(text + at, len - at, JSON_DISABLE_EOF_CHECK, &why);
        if (!value) {
            status = cli_fail(err, TN_ERR_INPUT, "%s: %s", path, why.text);
        } else if (json_is_array(value)) {
            json_array_extend(*rows, value);
            json_decref(value);
        } else {
            json_array_append_new(*rows, value);
        }
        at += value ? (size_t)why.position : 0;
    }
    free(text);
    if (!status && !json_array_size(*rows)) status = cli_fail(err, TN_ERR_INPUT, "%s: no rows", path);
    for (size_t i = 0; i < json_array_size(*rows) && !status; i++)
        if (!is_row(json_array_get(*rows, i)))
            status = cli_fail(err, TN_ERR_INPUT, "%s: row %zu is no result of bench: n_prompt, n_gen, samples_ts",
                              path, i + 1);
    return status;
}

/* ---- tests ---- */

static bool same_field(const json_t *a, const json_t *b, int field) {
    json_t *x = json_object_get(a, fields[field]), *y = json_object_get(b, fields[field]);
    if (!x || !y) return json_integer_value(x) == json_integer_value(y); /* no n_depth is 0 */
    return json_equal(x, y);
}

static bool varies(const json_t *rows, int field) {
    for (size_t i = 1; i < json_array_size(rows); i++)
        if (!same_field(json_array_get(rows, 0), json_array_get(rows, i), field)) return true;
    return false;
}

typedef struct comparison {
    const cli_options *o;
    json_t *a, *b;
    bool is_key[N_FIELDS];
    int32_t n, n_slower, n_untold;
    json_t *list; /* with --json */
} comparison;

static bool same_test(const comparison *c, const json_t *a, const json_t *b) {
    for (int i = 0; i < N_FIELDS; i++)
        if (c->is_key[i] && !same_field(a, b, i)) return false;
    return true;
}

/* The samples of all rows of a test. */
static cli_spread gather(const comparison *c, const json_t *rows, const json_t *test) {
    double *v = NULL;
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *samples = json_object_get(row, "samples_ts");
        if (!same_test(c, row, test)) continue;
        v = cli_realloc(v, (n + json_array_size(samples)) * sizeof *v);
        for (size_t k = 0; k < json_array_size(samples); k++) v[n++] = json_number_value(json_array_get(samples, k));
    }
    cli_spread s = cli_spread_of(v, n);
    free(v);
    return s;
}

/* "tg128 @ d512, fuse none": the test and what else tells it apart. */
static void describe(const comparison *c, const json_t *row, char *out, size_t cap) {
    bench_test_name(out, cap, json_integer_value(json_object_get(row, "n_prompt")),
                    json_integer_value(json_object_get(row, "n_gen")),
                    json_integer_value(json_object_get(row, "n_depth")));
    for (int i = ALWAYS; i < N_FIELDS; i++) {
        const json_t *value = json_object_get(row, fields[i]);
        size_t n = strlen(out);
        if (!c->is_key[i] || !value) continue;
        if (json_is_string(value))
            snprintf(out + n, cap - n, ", %s %s", fields[i], json_string_value(value));
        else
            snprintf(out + n, cap - n, ", %s %lld", fields[i], (long long)json_integer_value(value));
    }
}

/* ---- the table ---- */

static json_t *json_spread(cli_spread s) {
    return json_pack("{s:f, s:f, s:I}", "avg_ts", s.mean, "stddev_ts", s.deviation, "runs", (json_int_t)s.n);
}

static void show(comparison *c, const char *name, cli_spread a, cli_spread b) {
    double p = cli_welch(a, b);
    cli_verdict verdict = cli_judge(a, b);
    char chance[20] = "-", before[40], after[40];
    c->n++;
    c->n_slower += verdict == CLI_WORSE;
    c->n_untold += verdict == CLI_UNTOLD;
    if (c->o->json) {
        json_array_append_new(c->list,
                              json_pack("{s:o, s:o, s:o, s:f, s:o, s:s}", "test", cli_json_text(name, strlen(name)),
                                        "a", json_spread(a), "b", json_spread(b), "ratio", b.mean / a.mean, "p",
                                        isnan(p) ? json_null() : json_real(p), "verdict", cli_verdict_name(verdict)));
        return;
    }
    if (c->n == 1) {
        printf("| %-30s | %18s | %18s | %9s | %7s | %-12s |\n", "test", "A t/s", "B t/s", "change", "p", "verdict");
        printf("| ------------------------------ | -----------------: | -----------------: | --------: | ------: | "
               "------------ |\n");
    }
    if (!isnan(p)) snprintf(chance, sizeof chance, "%.4f", p);
    snprintf(before, sizeof before, "%.2f ± %.2f", a.mean, a.deviation);
    snprintf(after, sizeof after, "%.2f ± %.2f", b.mean, b.deviation);
    printf("| %-30s | %19s | %19s | %+7.2f %% | %7s | %-12s |\n", name, before, after, 100 * (b.mean / a.mean - 1),
           chance, cli_verdict_name(verdict));
}

/* Whether the test of row i stands before it already. */
static bool is_again(const comparison *c, const json_t *rows, size_t i) {
    for (size_t j = 0; j < i; j++)
        if (same_test(c, json_array_get(rows, j), json_array_get(rows, i))) return true;
    return false;
}

static tn_status compare_rows(comparison *c, tn_error *err) {
    char name[300];
    const json_t *side[] = {c->a, c->b};
    for (int i = 0; i < N_FIELDS; i++) c->is_key[i] = i < ALWAYS || varies(c->a, i) || varies(c->b, i);
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < json_array_size(side[k]); i++) {
            const json_t *row = json_array_get(side[k], i);
            if (is_again(c, side[k], i)) continue;
            cli_spread a = gather(c, c->a, row), b = gather(c, c->b, row);
            describe(c, row, name, sizeof name);
            if (!a.n || !b.n)
                cli_note(c->o, "%s: only in %s", name, c->o->compared[k]);
            else if (k == 0)
                show(c, name, a, b);
        }
    if (!c->n) return cli_fail(err, TN_ERR_INPUT, "the two files have no test in common");
    if (c->o->json) cli_out_json(json_incref(c->list));
    if (c->n_untold) cli_note(c->o, "a difference can be told from noise only with two runs or more (-r)");
    if (!c->n_slower) return TN_OK;
    return cli_fail(err, TN_ERR_CHECK, "%d of %d tests are slower", c->n_slower, c->n);
}

tn_status bench_compare(const cli_options *o, tn_error *err) {
    comparison c = {.o = o, .list = json_array()};
    tn_status status = read_rows(o->compared[0], &c.a, err);
    if (!status) status = read_rows(o->compared[1], &c.b, err);
    if (!status) status = compare_rows(&c, err);
    json_decref(c.a);
    json_decref(c.b);
    json_decref(c.list);
    return status;
}
