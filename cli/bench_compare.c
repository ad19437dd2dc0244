/* tenon bench --compare A B: two results of bench (ours or llama-bench's, as JSON or JSON lines), test by test. A test is
 * told from others by what varies within a file: a field with one value throughout (a machine, a commit, a fusion) does
 * not keep two files from being compared, but is said where the other file has another. */
#include "bench.h"
#include "out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What is measured, or follows from other fields: it neither tells tests apart nor makes two files unlike. */
/* clang-format off */
static const char *const measured[] = {
    "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "samples_ns", "samples_ts",
    "plan_hash", "launches", "decode_bytes", "kv_bytes", "build_number",
    /* --against */
    "test", "ratio", "ratio_low", "ratio_high", "p", "verdict", "peer_avg_ts", "peer_stddev_ts", "peer_samples_ts",
    "peak_bytes_per_second", "share", "share_samples",
    /* --ablate */
    "gain_over", "gain", "gain_low", "gain_high"};
/* clang-format on */
/* What always tells tests apart. */
static const char *const tests[] = {"n_prompt", "n_gen", "n_depth"};

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

typedef struct result {
    char name[300];
    cli_spread a, b; /* tokens a second */
    double p;
} result;

typedef struct comparison {
    const cli_options *o;
    json_t *a, *b;   /* rows */
    json_t *keys;    /* an object: the fields that tell tests apart */
    json_t *unlike;  /* an object: those in which the files differ, with both values */
    json_t *missing; /* names of tests of A that B has not */
    result *results;
    size_t n;
} comparison;

static bool is_among(const char *const *list, size_t n, const char *name) {
    while (n && strcmp(list[n - 1], name)) n--;
    return n;
}

/* A field that a row has not does not tell it from others; without n_depth it is 0. */
static bool same_field(const json_t *a, const json_t *b, const char *field) {
    json_t *x = json_object_get(a, field), *y = json_object_get(b, field);
    if (x && y) return json_equal(x, y);
    return strcmp(field, "n_depth") || json_integer_value(x) == json_integer_value(y);
}

static bool varies(const json_t *rows, const char *field) {
    for (size_t i = 1; i < json_array_size(rows); i++)
        if (!same_field(json_array_get(rows, 0), json_array_get(rows, i), field)) return true;
    return false;
}

/* Sorts the fields of the first rows into those that tell tests apart and those that differ between the files. */
static void sort_fields(comparison *c) {
    json_t *first = json_array_get(c->a, 0), *other = json_array_get(c->b, 0), *all = json_copy(first), *value;
    const char *field;
    json_object_update(all, other);
    json_object_foreach(all, field, value) {
        if (is_among(measured, sizeof measured / sizeof *measured, field)) continue;
        if (varies(c->a, field) || varies(c->b, field) || is_among(tests, 3, field))
            json_object_set_new(c->keys, field, json_true());
        else if (!same_field(first, other, field))
            json_object_set_new(c->unlike, field,
                                json_pack("[O, O]", json_object_get(first, field), json_object_get(other, field)));
    }
    json_decref(all);
}

static bool same_test(const comparison *c, const json_t *a, const json_t *b) {
    const char *field;
    json_t *unused;
    json_object_foreach(c->keys, field, unused) if (!same_field(a, b, field)) return false;
    return true;
}

static size_t count_rows(const comparison *c, const json_t *rows, const json_t *test) {
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) n += same_test(c, json_array_get(rows, i), test);
    return n;
}

/* What was measured of a test: all runs of its rows, or the mean of each row. */
static cli_spread gather(const comparison *c, const json_t *rows, const json_t *test, bool by_row) {
    double *v = NULL;
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *samples = json_object_get(row, "samples_ts");
        size_t n_runs = json_array_size(samples), first = n;
        if (!same_test(c, row, test)) continue;
        v = cli_realloc(v, (n + n_runs) * sizeof *v);
        for (size_t k = 0; k < n_runs; k++) v[n++] = json_number_value(json_array_get(samples, k));
        if (!by_row) continue;
        v[first] = cli_spread_of(v + first, n_runs).mean;
        n = first + 1;
    }
    cli_spread s = cli_spread_of(v, n);
    free(v);
    return s;
}

static void add_text(char *out, size_t cap, const char *before, const char *field, const json_t *value) {
    size_t n = strlen(out);
    char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    snprintf(out + n, cap - n, "%s%s %s", before, field, text ? text : json_string_value(value));
    free(text);
}

/* "tg128 @ d512, fuse none": the test and what else tells it apart. */
static void describe(const comparison *c, const json_t *row, char *out, size_t cap) {
    const char *field;
    json_t *unused;
    bench_test_name(out, cap, json_integer_value(json_object_get(row, "n_prompt")),
                    json_integer_value(json_object_get(row, "n_gen")),
                    json_integer_value(json_object_get(row, "n_depth")));
    json_object_foreach(c->keys, field, unused) if (!is_among(tests, 3, field) && json_object_get(row, field))
        add_text(out, cap, ", ", field, json_object_get(row, field));
}

/* Whether the test of row i stands before it already. */
static bool is_again(const comparison *c, const json_t *rows, size_t i) {
    for (size_t j = 0; j < i; j++)
        if (same_test(c, json_array_get(rows, j), json_array_get(rows, i))) return true;
    return false;
}

/* A test of A. Where both files have several rows of it (several processes, say), these are what is compared: runs of one
 * process are more alike than processes are. */
static void compare_test(comparison *c, const json_t *row) {
    size_t n_a = count_rows(c, c->a, row), n_b = count_rows(c, c->b, row);
    bool by_row = n_a > 1 && n_b > 1;
    result r = {.a = gather(c, c->a, row, by_row), .b = gather(c, c->b, row, by_row)};
    describe(c, row, r.name, sizeof r.name);
    if (!n_b) {
        json_array_append_new(c->missing, bench_json_text(r.name));
        return;
    }
    r.p = cli_welch(r.a, r.b);
    c->results = cli_realloc(c->results, (c->n + 1) * sizeof *c->results);
    c->results[c->n++] = r;
}

static void correct(comparison *c) {
    double *p = cli_realloc(NULL, c->n * sizeof *p);
    for (size_t i = 0; i < c->n; i++) p[i] = c->results[i].p;
    cli_holm(p, c->n);
    for (size_t i = 0; i < c->n; i++) c->results[i].p = p[i];
    free(p);
}

static cli_verdict verdict_of(const result *r) {
    return cli_judge(r->p, r->b.mean < r->a.mean);
}

/* ---- the table ---- */

static bool as_json(const cli_options *o) {
    return o->json || o->table == CLI_TABLE_JSON;
}

static void print_json(const comparison *c) {
    json_t *list = json_array();
    for (size_t i = 0; i < c->n; i++) {
        const result *r = &c->results[i];
        json_array_append_new(list, json_pack("{s:o, s:o, s:o, s:o, s:o, s:s}", "test", bench_json_text(r->name), "a",
                                              bench_json_spread(r->a), "b", bench_json_spread(r->b), "ratio",
                                              bench_json_real(r->b.mean / r->a.mean), "p", bench_json_real(r->p),
                                              "verdict", cli_verdict_name(verdict_of(r))));
    }
    cli_out_json(json_pack("{s:o, s:O, s:O}", "tests", list, "unlike", c->unlike, "missing", c->missing));
}

static void print_unlike(const comparison *c) {
    const char *field;
    json_t *pair;
    json_object_foreach(c->unlike, field, pair) {
        char line[600] = "";
        add_text(line, sizeof line, "A and B differ: ", field, json_array_get(pair, 0));
        add_text(line, sizeof line, ",", "", json_array_get(pair, 1));
        puts(line);
    }
    if (json_object_size(c->unlike)) putchar('\n');
}

static void print_text(const comparison *c) {
    print_unlike(c);
    printf("| %-30s | %18s | %18s | %9s | %8s | %-12s |\n", "test", "A t/s", "B t/s", "change", "p (Holm)", "B is");
    puts("| ------------------------------ | -----------------: | -----------------: | --------: | -------: | "
         "------------ |");
    for (size_t i = 0; i < c->n; i++) {
        const result *r = &c->results[i];
        char chance[20] = "-", a[40], b[40];
        if (!isnan(r->p)) snprintf(chance, sizeof chance, "%.4f", r->p);
        snprintf(a, sizeof a, "%.2f ± %.2f", r->a.mean, r->a.deviation);
        snprintf(b, sizeof b, "%.2f ± %.2f", r->b.mean, r->b.deviation);
        printf("| %-30s | %19s | %19s | %+7.2f %% | %8s | %-12s |\n", r->name, a, b,
               100 * (r->b.mean / r->a.mean - 1), chance, cli_verdict_name(verdict_of(r)));
    }
    for (size_t i = 0; i < json_array_size(c->missing); i++)
        printf("| %-30s | %18s | %18s | %9s | %8s | %-12s |\n", json_string_value(json_array_get(c->missing, i)), "",
               "", "", "", "MISSING");
}

static tn_status compare_rows(comparison *c, tn_error *err) {
    char name[300];
    int n_slower = 0, n_untold = 0;
    sort_fields(c);
    for (size_t i = 0; i < json_array_size(c->a); i++)
        if (!is_again(c, c->a, i)) compare_test(c, json_array_get(c->a, i));
    if (!c->n) return cli_fail(err, TN_ERR_INPUT, "the two files have no test in common");
    correct(c);
    (as_json(c->o) ? print_json : print_text)(c);
    for (size_t i = 0; i < json_array_size(c->b); i++) {
        const json_t *row = json_array_get(c->b, i);
        if (is_again(c, c->b, i) || count_rows(c, c->a, row)) continue;
        describe(c, row, name, sizeof name);
        cli_note(c->o, "%s: only in %s", name, c->o->compared[1]);
    }
    for (size_t i = 0; i < c->n; i++) {
        n_slower += verdict_of(&c->results[i]) == CLI_WORSE;
        n_untold += verdict_of(&c->results[i]) == CLI_UNTOLD;
    }
    if (n_untold) cli_note(c->o, "a difference can be told from noise only with two runs or more (-r)");
    int n_missing = (int)json_array_size(c->missing);
    if (!n_slower && !n_missing) return TN_OK;
    return cli_fail(err, TN_ERR_CHECK, "of %d tests %d are slower and %d missing", (int)c->n + n_missing, n_slower,
                    n_missing);
}

tn_status bench_compare(const cli_options *o, tn_error *err) {
    if (o->table != CLI_TABLE_MD && !as_json(o))
        return cli_fail(err, TN_ERR_USAGE, "--compare prints a table or, with -o json, JSON");
    comparison c = {.o = o, .keys = json_object(), .unlike = json_object(), .missing = json_array()};
    tn_status status = read_rows(o->compared[0], &c.a, err);
    if (!status) status = read_rows(o->compared[1], &c.b, err);
    if (!status) status = compare_rows(&c, err);
    json_decref(c.a);
    json_decref(c.b);
    json_decref(c.keys);
    json_decref(c.unlike);
    json_decref(c.missing);
    free(c.results);
    return status;
}
