/* The results of bench. The columns of the table, and the fields before our own, are llama-bench's in its order, so that
 * its users' scripts read them. What tenon gives no choice of has llama-bench's default there: a script that looks for
 * rows of two programs which agree in these finds them. */
#include "bench.h"
#include "out.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
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

const char *bench_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

json_t *bench_json_real(double v) {
    return isfinite(v) ? json_real(v) : json_null();
}

json_t *bench_json_text(const char *s) {
    return cli_json_text(s, strlen(s));
}

json_t *bench_json_spread(cli_spread s) {
    return json_pack("{s:f, s:f, s:I}", "mean", s.mean, "stddev", s.deviation, "n", (json_int_t)s.n);
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

const char *bench_kv_type(const cli_options *o) {
    static const char *const names[] = {"f16", "q8_0", "f32"};
    return names[o->kv_type];
}

static const char *act_type(const cli_options *o) {
    return o->act == TN_ACT_F32 ? "f32" : "int8";
}

/* As llama-bench calls the same: CPU, CUDA, WebGPU. */
static const char *backend(const cli_options *o) {
    static const char *const names[][2] = {{"cuda", "CUDA"}, {"webgpu", "WebGPU"}};
    for (size_t i = 0; i < 2 && o->backend; i++)
        if (!strncmp(o->backend, names[i][0], strlen(names[i][0]))) return names[i][1];
    return cli_on_cpu(o) ? "CPU" : o->backend;
}

enum { MAX_COLUMNS = 12 };

typedef struct columns {
    struct column {
        const char *name;
        int width; /* of the cells; less than 0: to the left */
        char cell[100];
    } at[MAX_COLUMNS];
    int n;
} columns;

__attribute__((format(printf, 4, 5))) static void add_column(columns *c, const char *name, int width,
                                                             const char *format, ...) {
    struct column *at = &c->at[c->n++];
    at->name = name;
    at->width = width;
    va_list args;
    va_start(args, format);
    vsnprintf(at->cell, sizeof at->cell, format, args);
    va_end(args);
}

/* llama-bench's columns, those that are options only where they are not at their defaults, and our fuse. */
static void fill_columns(columns *c, const cli_options *o, const bench_row *r) {
    char size[32], params[32];
    cli_spread s = bench_speed(r);
    format_size(size, sizeof size, r->about->file_bytes);
    format_count(params, sizeof params, r->about->n_params);
    add_column(c, "model", -30, "%s", r->about->type);
    add_column(c, "size", 10, "%s", size);
    add_column(c, "params", 10, "%s", params);
    add_column(c, "backend", -10, "%s", backend(o));
    if (cli_on_cpu(o) || o->thread_counts.n) add_column(c, "threads", 7, "%d", r->threads);
    if (r->info->n_ubatch != 512) add_column(c, "n_ubatch", 8, "%d", r->info->n_ubatch);
    if (o->kv_type != TN_KV_F16) {
        add_column(c, "type_k", 6, "%s", bench_kv_type(o));
        add_column(c, "type_v", 6, "%s", bench_kv_type(o));
    }
    if (o->flash_attn > 1) add_column(c, "fa", 4, "%s", "1");
    if (o->act != TN_ACT_INT8) add_column(c, "act", 4, "%s", act_type(o));
    add_column(c, "fuse", -8, "%s", r->fuse);
    add_column(c, "test", 15, "%s", r->test);
    add_column(c, "t/s", 20, "%.2f ± %.2f", s.mean, s.deviation);
}

static void markdown_row(const bench_table *t, const bench_row *r) {
    columns c = {.n = 0};
    fill_columns(&c, t->o, r);
    for (int i = 0; i < c.n && !t->n_rows; i++) printf("| %*s ", c.at[i].width, c.at[i].name);
    if (!t->n_rows) puts("|");
    for (int i = 0; i < c.n && !t->n_rows; i++) {
        char line[40];
        int width = abs(c.at[i].width);
        memset(line, '-', (size_t)width);
        if (c.at[i].width > 0) line[width - 1] = ':';
        printf("| %.*s ", width, line);
    }
    if (!t->n_rows) puts("|");
    for (int i = 0; i < c.n; i++) /* the sign in the last takes two bytes and one column */
        printf("| %*s ", c.at[i].width + (i == c.n - 1), c.at[i].cell);
    puts("|");
}

/* ---- fields, for programs ---- */

static json_t *samples(const bench_row *r, bool per_second) {
    json_t *list = json_array();
    for (int32_t i = 0; i < r->n_runs; i++)
        json_array_append_new(list, per_second ? json_real(tokens_per_second(r, i))
                                               : json_integer((json_int_t)llround(nanoseconds(r, i))));
    return list;
}

/* What ran where. */
static json_t *setting_fields(const cli_options *o, const bench_row *r) {
    char processor[200];
    tn_processor_name(processor, sizeof processor);
    return json_pack("{s:s, s:i, s:o, s:o, s:s, s:o, s:o, s:I, s:I, s:i, s:i, s:i}", "build_commit", TN_COMMIT,
                     "build_number", TN_COMMIT_NUMBER, "cpu_info", bench_json_text(processor), "gpu_info",
                     bench_json_text(cli_on_cpu(o) ? "" : r->about->backend), "backends", backend(o),
                     "model_filename", bench_json_text(r->path), "model_type", bench_json_text(r->about->type),
                     "model_size", (json_int_t)r->about->file_bytes, "model_n_params", (json_int_t)r->about->n_params,
                     "n_batch", BENCH_BATCH, "n_ubatch", r->info->n_ubatch, "n_threads", r->threads);
}

/* "all" is -1. */
static int n_gpu_layers(const cli_options *o) {
    return o->gpu_layers && strcmp(o->gpu_layers, "all") ? atoi(o->gpu_layers) : -1;
}

static json_t *option_fields(const cli_options *o) {
    return json_pack("{s:s, s:b, s:i, s:s, s:s, s:i, s:i, s:s, s:i, s:b, s:i, s:s, s:s, s:s, s:s, s:s, s:b, s:i, s:b,"
                     " s:b, s:i, s:i}",
                     "cpu_mask", "0x0", "cpu_strict", 0, "poll", 50, "type_k", bench_kv_type(o), "type_v",
                     bench_kv_type(o), "n_gpu_layers", n_gpu_layers(o), "n_cpu_moe", 0, "split_mode", "layer",
                     "main_gpu", 0, "no_kv_offload", 0, "flash_attn", o->flash_attn > 1 ? 1 : -1, "devices", "auto",
                     "tensor_split", "0.00", "tensor_buft_overrides", "none", "load_mode", "auto", "lazy_mode",
                     "auto", "embeddings", 0, "no_op_offload", 0, "no_host", 0, "repack", 1, "fit_target", 0,
                     "fit_min_ctx", 0);
}

static json_t *test_fields(const bench_row *r) {
    cli_spread ns = measure(r, nanoseconds), ts = bench_speed(r);
    char when[32];
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime(&r->started));
    return json_pack("{s:i, s:i, s:i, s:s, s:I, s:I, s:f, s:f, s:o, s:o}", "n_prompt", r->n_prompt, "n_gen", r->n_gen,
                     "n_depth", r->n_depth, "test_time", when, "avg_ns", (json_int_t)llround(ns.mean), "stddev_ns",
                     (json_int_t)llround(ns.deviation), "avg_ts", ts.mean, "stddev_ts", ts.deviation, "samples_ns",
                     samples(r, false), "samples_ts", samples(r, true));
}

/* use_mmap: what llama-bench said before there was load_mode. */
static json_t *own_fields(const cli_options *o, const bench_row *r) {
    char hash[32];
    snprintf(hash, sizeof hash, "%016" PRIx64, r->info->plan_hash);
    return json_pack("{s:b, s:s, s:o, s:s, s:o, s:s, s:i, s:I, s:I}", "use_mmap", 1, "build_version", tn_version(),
                     "device", bench_json_text(r->about->backend), "act", act_type(o), "fuse",
                     bench_json_text(r->fuse), "plan_hash", hash, "launches", r->launches, "decode_bytes",
                     (json_int_t)r->info->decode_bytes, "kv_bytes", (json_int_t)r->info->kv_bytes);
}

/* ---- CSV and SQL: what is no list, as text ---- */

static void put_quoted(const json_t *value, char quote) {
    char number[40] = "";
    if (json_is_boolean(value)) snprintf(number, sizeof number, "%d", json_is_true(value));
    if (json_is_integer(value)) snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    if (json_is_real(value)) snprintf(number, sizeof number, "%.9g", json_real_value(value));
    putchar(quote);
    for (const char *s = json_is_string(value) ? json_string_value(value) : number; *s; s++) {
        if (*s == quote) putchar(quote);
        putchar(*s);
    }
    putchar(quote);
}

static void put_keys(json_t *row, const char *comma, bool types) {
    const char *key, *between = "";
    json_t *value;
    json_object_foreach(row, key, value) {
        if (json_is_array(value)) continue;
        printf("%s%s", between, key);
        if (types) fputs(json_is_string(value) ? " TEXT" : json_is_real(value) ? " REAL" : " INTEGER", stdout);
        between = comma;
    }
}

static void put_values(json_t *row, const char *comma, char quote) {
    const char *key, *between = "";
    json_t *value;
    json_object_foreach(row, key, value) {
        if (json_is_array(value)) continue;
        fputs(between, stdout);
        put_quoted(value, quote);
        between = comma;
    }
}

static void csv_row(json_t *row, bool first) {
    if (first) {
        put_keys(row, ",", false);
        putchar('\n');
    }
    put_values(row, ",", '"');
    putchar('\n');
}

static void sql_row(json_t *row, bool first) {
    if (first) {
        fputs("CREATE TABLE IF NOT EXISTS llama_bench (\n  ", stdout);
        put_keys(row, ",\n  ", true);
        puts("\n);\n");
    }
    fputs("INSERT INTO llama_bench (", stdout);
    put_keys(row, ", ", false);
    fputs(") VALUES (", stdout);
    put_values(row, ", ", '\'');
    puts(");");
}

/* ---- the table ---- */

static cli_table kind(const cli_options *o) {
    return o->json ? CLI_TABLE_JSON : (cli_table)o->table;
}

bool bench_for_people(const cli_options *o) {
    return kind(o) == CLI_TABLE_MD;
}

/* One row as an object, in order; for SQL, what llama-bench has and no more. */
tn_status bench_table_fields(const bench_table *t, const bench_row *r, json_t **fields, tn_error *err) {
    const cli_options *o = t->o;
    json_t *row = *fields = setting_fields(o, r);
    bool failed = json_object_update_new(row, option_fields(o)) || json_object_update_new(row, test_fields(r));
    if (!failed && kind(o) != CLI_TABLE_SQL)
        failed = json_object_update_new(row, own_fields(o, r)) || (r->more && json_object_update(row, r->more));
    if (!failed) return TN_OK;
    json_decref(row);
    return cli_fail(err, TN_ERR_INTERNAL, "the row of %s cannot be written as JSON", r->test);
}

void bench_table_put(bench_table *t, json_t *row) {
    switch (kind(t->o)) {
    case CLI_TABLE_MD: break;
    case CLI_TABLE_CSV: csv_row(row, t->n_rows == 0); break;
    case CLI_TABLE_SQL: sql_row(row, t->n_rows == 0); break;
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

tn_status bench_table_row(bench_table *t, const bench_row *r, tn_error *err) {
    json_t *row = NULL;
    if (bench_for_people(t->o)) {
        markdown_row(t, r);
    } else {
        tn_status status = bench_table_fields(t, r, &row, err);
        if (status) return status;
    }
    bench_table_put(t, row);
    return TN_OK;
}

void bench_table_end(bench_table *t) {
    if (kind(t->o) == CLI_TABLE_JSON && t->n_rows) puts("\n]");
    if (bench_for_people(t->o) && t->n_rows) printf("\nbuild: %s (%d)\n", TN_COMMIT, TN_COMMIT_NUMBER);
}
