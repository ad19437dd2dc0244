/* The tables of profile: launches that are alike but for their layer make a row. */
#include "bench.h"
#include "out.h"
#include "profile.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- regions ---- */

static const char *without_layer(const char *name) {
    const char *p = name + (*name == 'l');
    size_t digits = strspn(p, "0123456789");
    return p > name && digits && p[digits] == '.' ? p + digits + 1 : name;
}

void profile_launch_name(const cli_engine *e, tn_phase phase, const tn_launch_info *info, char *out, size_t cap) {
    tn_node_info first = {0}, last = {0};
    tn_node_get_info(e->session, phase, info->nodes[0], &first);
    tn_node_get_info(e->session, phase, info->nodes[info->n_nodes - 1], &last);
    int n = snprintf(out, cap, "%s", without_layer(first.name));
    if (info->n_nodes > 1) snprintf(out + n, cap - (size_t)n, " .. %s", without_layer(last.name));
}

static profile_region *find_region(profile *p, const tn_launch_info *info) {
    char span[80], name[120];
    profile_launch_name(p->e, p->phase, info, span, sizeof span);
    snprintf(name, sizeof name, "%.30s %.80s", info->kind, span);
    for (int32_t i = 0; i < p->n_regions; i++)
        if (!strcmp(p->regions[i].name, name)) return &p->regions[i];
    p->regions = cli_realloc(p->regions, (size_t)(p->n_regions + 1) * sizeof *p->regions);
    profile_region *r = &p->regions[p->n_regions++];
    size_t bytes = (size_t)p->n_samples * sizeof(double);
    *r = (profile_region){.kind = info->kind};
    r->seconds = memset(cli_realloc(NULL, bytes), 0, bytes);
    r->plain = memset(cli_realloc(NULL, bytes), 0, bytes);
    memcpy(r->name, name, sizeof name);
    return r;
}

/* The launch of a node in a plan; -1: none. */
static int32_t launch_of(const profile *p, int32_t node) {
    for (int32_t l = 0; l < p->n_launches; l++) {
        tn_launch_info info;
        tn_launch_get_info(p->e->session, p->phase, l, &info);
        for (int32_t i = 0; i < info.n_nodes; i++)
            if (info.nodes[i] == node) return l;
    }
    return -1;
}

static double *launch_seconds(const profile *p, int32_t sample, int32_t launch) {
    return &p->launch[(size_t)sample * (size_t)p->n_launches + (size_t)launch];
}

/* The other plan runs each node alone. */
static void add_plain(profile_region *r, const tn_launch_info *info, const profile *other) {
    for (int32_t i = 0; i < info->n_nodes; i++) {
        int32_t l = launch_of(other, info->nodes[i]);
        if (l < 0) continue;
        r->n_plain++;
        for (int32_t s = 0; s < other->n_samples; s++) r->plain[s] += *launch_seconds(other, s, l);
    }
}

static double mean(const double *v, int32_t n) {
    return cli_spread_of(v, (size_t)n).mean;
}

static const profile *g_sorted; /* qsort has no place for it */

static int longer(const void *a, const void *b) {
    const profile_region *x = a, *y = b;
    double d = mean(y->seconds, g_sorted->n_samples) - mean(x->seconds, g_sorted->n_samples);
    return d < 0 ? -1 : d > 0;
}

void profile_make_regions(profile *p, const profile *other) {
    for (int32_t l = 0; l < p->n_launches; l++) {
        tn_launch_info info;
        tn_launch_get_info(p->e->session, p->phase, l, &info);
        profile_region *r = find_region(p, &info);
        r->n++;
        r->bytes += p->bytes[l] / p->n_samples;
        for (int32_t s = 0; s < p->n_samples; s++) r->seconds[s] += *launch_seconds(p, s, l);
        if (other) add_plain(r, &info, other);
    }
    g_sorted = p;
    qsort(p->regions, (size_t)p->n_regions, sizeof *p->regions, longer);
}

void profile_free(profile *p) {
    for (int32_t i = 0; i < p->n_regions; i++) {
        free(p->regions[i].seconds);
        free(p->regions[i].plain);
    }
    free(p->regions);
    free(p->launch);
    free(p->bytes);
}

/* ---- text ---- */

static double total(const profile *p) {
    double sum = 0;
    for (int32_t i = 0; i < p->n_regions; i++) sum += mean(p->regions[i].seconds, p->n_samples);
    return sum;
}

static uint64_t hash_of(const profile *p) {
    return p->phase == TN_PHASE_DECODE ? p->e->info.decode_hash : p->e->info.prefill_hash;
}

static void print_head(const profile *p) {
    char test[64];
    bool decode = p->phase == TN_PHASE_DECODE;
    bench_test_name(test, sizeof test, decode ? 0 : p->n_tokens, decode ? p->n_samples : 0, p->depth);
    printf("%s on %s, fuse %s: %d launches a step, plan %016" PRIx64 "\n", test, p->e->about.backend, p->fuse,
           p->n_launches, hash_of(p));
    printf("a %s: %.3f ms in launches; %.3f ms in all when they are timed, %.3f ms when not\n",
           decode ? "token" : "prompt", 1e3 * total(p), 1e3 * p->timed / p->n_samples,
           1e3 * p->untimed / p->n_samples);
    if (p->peak > 0) printf("the memory was measured at %.1f GB/s\n", 1e-9 * p->peak);
    putchar('\n');
}

static void print_row(const profile *p, const char *name, int32_t calls, double seconds, double bytes) {
    char of_peak[20] = "";
    if (p->peak > 0) snprintf(of_peak, sizeof of_peak, "%.1f %%", 100 * bytes / seconds / p->peak);
    printf("| %-52s | %5d | %10.1f | %6.2f %% | %10.3f | %8.2f | %8s |\n", name, calls, 1e6 * seconds,
           100 * seconds / total(p), 1e-6 * bytes, 1e-9 * bytes / seconds, of_peak);
}

static void print_rule(void) {
    printf("| ---------------------------------------------------- | ----: | ---------: | -------: | ---------: | "
           "-------: | "
           "-------: |\n");
}

/* Regions of one kind together. */
static void print_kinds(const profile *p) {
    printf("\n| %-52s | %5s | %10s | %8s | %10s | %8s | %8s |\n", "by kind", "calls", "us", "share", "MB", "GB/s",
           "of peak");
    print_rule();
    for (int32_t i = 0; i < p->n_regions; i++) {
        const char *kind = p->regions[i].kind;
        int32_t calls = 0, first = 0;
        double seconds = 0, bytes = 0;
        while (strcmp(p->regions[first].kind, kind)) first++;
        if (first < i) continue; /* has had its row */
        for (int32_t k = i; k < p->n_regions; k++) {
            const profile_region *r = &p->regions[k];
            if (strcmp(r->kind, kind)) continue;
            calls += r->n;
            seconds += mean(r->seconds, p->n_samples);
            bytes += r->bytes;
        }
        print_row(p, kind, calls, seconds, bytes);
    }
}

void profile_print(const profile *p) {
    double bytes = 0;
    print_head(p);
    printf("| %-52s | %5s | %10s | %8s | %10s | %8s | %8s |\n", "launch", "calls", "us", "share", "MB", "GB/s",
           "of peak");
    print_rule();
    for (int32_t i = 0; i < p->n_regions; i++) {
        const profile_region *r = &p->regions[i];
        print_row(p, r->name, r->n, mean(r->seconds, p->n_samples), r->bytes);
        bytes += r->bytes;
    }
    print_row(p, "all", p->n_launches, total(p), bytes);
    print_kinds(p);
}

static void print_pair(const char *name, int32_t plain_calls, int32_t calls, cli_spread plain, cli_spread fused) {
    /* less is better */
    cli_verdict verdict = cli_judge(fused, plain);
    double p = cli_welch(plain, fused);
    char chance[20] = "-";
    if (!isnan(p)) snprintf(chance, sizeof chance, "%.4f", p);
    printf("| %-52s | %5d | %10.1f | %5d | %10.1f | %+7.1f %% | %7s | %-12s |\n", name, plain_calls, 1e6 * plain.mean,
           calls, 1e6 * fused.mean, 100 * (fused.mean / plain.mean - 1), chance, cli_verdict_name(verdict));
}

void profile_print_comparison(const profile *p, const profile *plain) {
    size_t n = (size_t)p->n_samples;
    double *sums[2];
    int32_t calls = 0;
    const profile *of[] = {plain, p};
    for (int k = 0; k < 2; k++) {
        sums[k] = memset(cli_realloc(NULL, n * sizeof(double)), 0, n * sizeof(double));
        for (size_t s = 0; s < n; s++)
            for (int32_t l = 0; l < of[k]->n_launches; l++) sums[k][s] += *launch_seconds(of[k], (int32_t)s, l);
    }
    printf("\n| %-52s | %5s | %10s | %5s | %10s | %9s | %7s | %-12s |\n", "region: its nodes one by one, and as here",
           "calls", "plain us", "calls", "fused us", "change", "p", "fused is");
    printf("| ---------------------------------------------------- | ----: | ---------: | ----: | ---------: | "
           "--------: | "
           "------: | ------------ |\n");
    for (int32_t i = 0; i < p->n_regions; i++) {
        const profile_region *r = &p->regions[i];
        calls += r->n_plain;
        print_pair(r->name, r->n_plain, r->n, cli_spread_of(r->plain, n), cli_spread_of(r->seconds, n));
    }
    print_pair("all launches", calls, p->n_launches, cli_spread_of(sums[0], n), cli_spread_of(sums[1], n));
    printf("\na step, launches not timed: %.3f ms plain, %.3f ms fused\n", 1e3 * plain->untimed / (double)n,
           1e3 * p->untimed / (double)n);
    for (int k = 0; k < 2; k++) free(sums[k]);
}

/* ---- JSON ---- */

static json_t *json_spread(const double *v, int32_t n) {
    cli_spread s = cli_spread_of(v, (size_t)n);
    return json_pack("{s:f, s:f}", "mean", s.mean, "stddev", s.deviation);
}

static json_t *json_region(const profile *p, const profile_region *r, bool compared) {
    double seconds = mean(r->seconds, p->n_samples);
    json_t *j = json_pack("{s:s, s:s, s:i, s:o, s:f, s:f, s:f, s:o}", "launch", r->name, "kind", r->kind, "calls",
                          r->n, "seconds", json_spread(r->seconds, p->n_samples), "share", seconds / total(p),
                          "bytes", r->bytes, "bytes_per_second", r->bytes / seconds, "of_peak",
                          p->peak > 0 ? json_real(r->bytes / seconds / p->peak) : json_null());
    if (!compared) return j;
    cli_spread fused = cli_spread_of(r->seconds, (size_t)p->n_samples),
               plain = cli_spread_of(r->plain, (size_t)p->n_samples);
    double chance = cli_welch(plain, fused);
    json_object_set_new(j, "plain_calls", json_integer(r->n_plain));
    json_object_set_new(j, "plain_seconds", json_spread(r->plain, p->n_samples));
    json_object_set_new(j, "p", isnan(chance) ? json_null() : json_real(chance));
    json_object_set_new(j, "verdict", json_string(cli_verdict_name(cli_judge(fused, plain))));
    return j;
}

json_t *profile_json(const profile *p, bool compared) {
    char hash[20];
    json_t *regions = json_array();
    for (int32_t i = 0; i < p->n_regions; i++)
        json_array_append_new(regions, json_region(p, &p->regions[i], compared));
    snprintf(hash, sizeof hash, "%016" PRIx64, hash_of(p));
    return json_pack("{s:s, s:o, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:o, s:o}", "build_version",
                     tn_version(), "model_type", cli_json_text(p->e->about.name, strlen(p->e->about.name)), "device",
                     p->e->about.backend, "phase", p->phase == TN_PHASE_DECODE ? "decode" : "prefill", "fuse",
                     p->fuse, "plan_hash", hash, "n_tokens", p->n_tokens, "n_depth", p->depth, "samples",
                     p->n_samples, "launches", p->n_launches, "launch_seconds", total(p), "timed_seconds",
                     p->timed / p->n_samples, "untimed_seconds", p->untimed / p->n_samples, "peak_bytes_per_second",
                     p->peak > 0 ? json_real(p->peak) : json_null(), "regions", regions);
}
