/* The results of bench. Names of tests, columns and fields are llama-bench's, so that what reads its output reads
 * this. */
#include "bench.h"
#include "out.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers ---- */

static double tokens_per_second(const bench_row *r, int32_t run) {
    return (r->n_prompt + r->n_gen) / r->seconds[run];
}

static double nanoseconds(const bench_row *r, int32_t run) {
    return 1e9 * r->seconds[run];
}

static cli_spread measure(const bench_row *r, double (*value)(const bench_row *r, int32_t run)) {
    double *v = cli_realloc(NULL, (size_t)r->n_runs * sizeof *v);
    for (int32_t i = 0; i < r->n_runs; i++) v[i] = value(r, i);
    cli_spread s = cli_spread_of(v, (size_t)r->n_runs);
    free(v);
    return s;
}

cli_spread bench_speed(const bench_row *r) {
    return measure(r, tokens_per_second);
}

void bench_test_name(char *out, size_t cap, int64_t n_prompt, int64_t n_gen, int64_t n_depth) {
    int n = n_prompt && n_gen ? snprintf(out, cap, "pp%" PRId64 "+tg%" PRId64, n_prompt, n_gen)
            : n_prompt        ? snprintf(out, cap, "pp%" PRId64, n_prompt)
                              : snprintf(out, cap, "tg%" PRId64, n_gen);
    if (n_depth && (size_t)n < cap) snprintf(out + n, cap - (size_t)n, " @ d%" PRId64, n_depth);
}

static const char *model_type(const bench_row *r) {
    if (r->about->name && *r->about->name) return r->about->name;
    return r->about->architecture;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static const char *backend(const bench_table *t) {
    return t->o->backend ? t->o->backend : "cpu";
}

/* ---- markdown ---- */

static void format_size(char *out, size_t cap, uint64_t bytes) {
    double mib = (double)bytes / (1 << 20);
    if (mib < 1024)
        snprintf(out, cap, "%.2f MiB", mib);
    else
        snprintf(out, cap, "%.2f GiB", mib / 1024);
}

static void format_count(char *out, size_t cap, uint64_t n) {
    if (n < 1000000)
        snprintf(out, cap, "%.2f K", (double)n * 1e-3);
    else if (n < 1000000000)
        snprintf(out, cap, "%.2f M", (double)n * 1e-6);
    else
        snprintf(out, cap, "%.2f B", (double)n * 1e-9);
}

static void markdown_head(void) {
    printf("| %-30s | %10s | %10s | %-10s | %7s | %-8s | %15s | %20s |\n", "model", "size", "params", "backend",
           "threads", "fuse", "test", "t/s");
    printf("| ------------------------------ | ---------: | ---------: | ---------- | ------: | -------- | "
           "--------------: | -------------------: |\n");
}

static void markdown_row(const bench_table *t, const bench_row *r) {
    char size[32], params[32], test[64], speed[64];
    cli_spread s = bench_speed(r);
    const char *name = *model_type(r) ? model_type(r) : base_name(r->path);
    format_size(size, sizeof size, r->about->file_bytes);
    format_count(params, sizeof params, r->about->n_params);
    bench_test_name(test, sizeof test, r->n_prompt, r->n_gen, r->n_depth);
    snprintf(speed, sizeof speed, "%.2f ± %.2f", s.mean, s.deviation);
    /* the sign takes two bytes and one column */
    printf("| %-30s | %10s | %10s | %-10s | %7d | %-8s | %15s | %21s |\n", name, size, params, backend(t), r->threads,
           r->fuse, test, speed);
}

/* ---- fields, for programs ---- */

static json_t *samples(const bench_row *r, bool per_second) {
    json_t *list = json_array();
    for (int32_t i = 0; i < r->n_runs; i++)
        json_array_append_new(list, per_second ? json_real(tokens_per_second(r, i))
                                               : json_integer((json_int_t)llround(nanoseconds(r, i))));
    return list;
}

/* One row as an object: the columns of CSV are its keys, in this order. */
static json_t *fields(const bench_table *t, const bench_row *r) {
    static const char *const kv_types[] = {"f16", "q8_0", "f32"}, *const act_types[] = {"int8", "f32"};
    cli_spread ns = measure(r, nanoseconds), ts = bench_speed(r);
    char when[32], hash[32];
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime(&r->started));
    snprintf(hash, sizeof hash, "%016" PRIx64, r->info->plan_hash);
    return json_pack(
        "{s:s, s:s, s:s, s:o, s:I, s:I, s:s, s:i, s:i, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:s, s:I, s:I, s:f, s:f,"
        " s:s, s:i, s:I, s:I, s:o, s:o}",
        "build_version", tn_version(), "backends", backend(t), "model_filename", r->path, "model_type",
        cli_json_text(model_type(r), strlen(model_type(r))), "model_size", (json_int_t)r->about->file_bytes,
        "model_n_params", (json_int_t)r->about->n_params, "device", r->about->backend, "n_threads", r->threads,
        "n_ubatch", r->info->n_ubatch, "type_k", kv_types[t->o->kv_type], "type_v", kv_types[t->o->kv_type], "act",
        act_types[t->o->act], "fuse", r->fuse, "n_prompt", r->n_prompt, "n_gen", r->n_gen, "n_depth", r->n_depth,
        "test_time", when, "avg_ns", (json_int_t)llround(ns.mean), "stddev_ns", (json_int_t)llround(ns.deviation),
        "avg_ts", ts.mean, "stddev_ts", ts.deviation, "plan_hash", hash, "launches",
        r->n_prompt ? r->info->launches_prefill : r->info->launches_decode, "decode_bytes",
        (json_int_t)r->info->decode_bytes, "kv_bytes", (json_int_t)r->info->kv_bytes, "samples_ns", samples(r, false),
        "samples_ts", samples(r, true));
}

static void csv_text(const char *s) {
    putchar('"');
    for (; *s; s++) {
        if (*s == '"') putchar('"');
        putchar(*s);
    }
    putchar('"');
}

/* A row, its keys before it where it is the first. Lists have no column. */
static void csv_row(json_t *row, bool first) {
    const char *key;
    json_t *value;
    const char *comma = "";
    if (first) {
        json_object_foreach(row, key, value) {
            if (json_is_array(value)) continue;
            printf("%s%s", comma, key);
            comma = ",";
        }
        putchar('\n');
    }
    comma = "";
    json_object_foreach(row, key, value) {
        if (json_is_array(value)) continue;
        fputs(comma, stdout);
        comma = ",";
        if (json_is_string(value))
            csv_text(json_string_value(value));
        else
            json_dumpf(value, stdout, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    }
    putchar('\n');
}

/* ---- the table ---- */

static cli_table kind(const bench_table *t) {
    return t->o->json ? CLI_TABLE_JSON : (cli_table)t->o->table;
}

void bench_table_row(bench_table *t, const bench_row *r) {
    json_t *row = kind(t) == CLI_TABLE_MD ? NULL : fields(t, r);
    switch (kind(t)) {
    case CLI_TABLE_MD:
        if (!t->n_rows) markdown_head();
        markdown_row(t, r);
        break;
    case CLI_TABLE_CSV: csv_row(row, t->n_rows == 0); break;
    case CLI_TABLE_JSON:
        fputs(t->n_rows ? ",\n" : "[\n", stdout);
        json_dumpf(row, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        break;
    case CLI_TABLE_JSONL:
        json_dumpf(row, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
        putchar('\n');
        break;
    }
    json_decref(row);
    t->n_rows++;
    fflush(stdout);
}

void bench_table_end(bench_table *t) {
    if (kind(t) == CLI_TABLE_JSON && t->n_rows) puts("\n]");
}
