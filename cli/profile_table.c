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

static void init_region(const profile *p, profile_region *r, const char *kind, const char *name) {
    size_t bytes = (size_t)p->n_samples * sizeof(double);
    *r = (profile_region){.kind = kind};
    r->seconds = memset(cli_realloc(NULL, bytes), 0, bytes);
    r->plain = memset(cli_realloc(NULL, bytes), 0, bytes);
    snprintf(r->name, sizeof r->name, "%s", name);
}

static profile_region *find_region(profile *p, const tn_launch_info *info) {
    char span[80], name[120];
    profile_launch_name(p->e, p->phase, info, span, sizeof span);
    snprintf(name, sizeof name, "%.30s %.80s", info->kind, span);
    for (int32_t i = 0; i < p->n_regions; i++)
        if (!strcmp(p->regions[i].name, name)) return &p->regions[i];
    p->regions = cli_realloc(p->regions, (size_t)(p->n_regions + 1) * sizeof *p->regions);
    init_region(p, &p->regions[p->n_regions], info->kind, name);
    return &p->regions[p->n_regions++];
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

static int longer(const void *a, const void *b) {
    double x = ((const profile_region *)a)->mean, y = ((const profile_region *)b)->mean;
    return (x < y) - (x > y);
}

/* One node a launch in both plans: a difference is the clock's or the neighbours', not fusion's. */
static bool is_unfused(const profile_region *r) {
    return r->n == r->n_plain;
}

/* NULL: there is nothing to judge. */
static const char *verdict_of(const profile_region *r) {
    return is_unfused(r) ? NULL : cli_verdict_name(cli_judge(r->change.p, r->change.ratio > 1));
}

/* Adds up, and compares sample by sample with the other plan's launches. */
static void sum_up(profile *p, const profile *other) {
    size_t n = (size_t)p->n_samples, n_all = (size_t)p->n_regions + 1;
    double *chances = cli_realloc(NULL, n_all * sizeof *chances);
    for (int32_t i = 0; i < p->n_regions; i++) {
        profile_region *r = &p->regions[i];
        p->all.n += r->n;
        p->all.n_plain += r->n_plain;
        p->all.bytes += r->bytes;
        for (size_t s = 0; s < n; s++) {
            p->all.seconds[s] += r->seconds[s];
            p->all.plain[s] += r->plain[s];
        }
    }
    for (int32_t i = 0; i <= p->n_regions; i++) {
        profile_region *r = i < p->n_regions ? &p->regions[i] : &p->all;
        r->mean = cli_spread_of(r->seconds, n).mean;
        if (other) r->change = cli_paired(r->plain, r->seconds, n);
        chances[i] = is_unfused(r) ? NAN : r->change.p;
    }
    cli_holm_paired(chances, n_all, n);
    for (int32_t i = 0; i < p->n_regions; i++) p->regions[i].change.p = chances[i];
    p->all.change.p = chances[p->n_regions];
    free(chances);
}

static void add_kernel(tn_launch_time *sum, const tn_launch_time *one) {
    if (!sum->registers || one->occupancy < sum->occupancy) sum->occupancy = one->occupancy;
    if (one->registers > sum->registers) sum->registers = one->registers;
    if (one->shared_bytes > sum->shared_bytes) sum->shared_bytes = one->shared_bytes;
}

void profile_make_regions(profile *p, const profile *other) {
    init_region(p, &p->all, "", "all launches");
    for (int32_t l = 0; l < p->n_launches; l++) {
        tn_launch_info info;
        tn_launch_get_info(p->e->session, p->phase, l, &info);
        profile_region *r = find_region(p, &info);
        r->n++;
        add_kernel(&r->kernel, &p->kernel[l]);
        r->bytes += p->bytes[l] / p->n_samples;
        for (int32_t s = 0; s < p->n_samples; s++) r->seconds[s] += *launch_seconds(p, s, l);
        if (other) add_plain(r, &info, other);
    }
    sum_up(p, other);
    qsort(p->regions, (size_t)p->n_regions, sizeof *p->regions, longer);
}

void profile_free(profile *p) {
    for (int32_t i = 0; i <= p->n_regions; i++) {
        profile_region *r = i < p->n_regions ? &p->regions[i] : &p->all;
        free(r->seconds);
        free(r->plain);
    }
    free(p->regions);
    free(p->launch);
    free(p->bytes);
    free(p->kernel);
}

/* ---- text ---- */

static void print_head(const profile *p) {
    char test[64];
    bool decode = p->phase == TN_PHASE_DECODE;
    bench_test_name(test, sizeof test, decode ? 0 : p->n_tokens, decode ? p->n_samples : 0, p->depth);
    printf("%s on %s, fuse %s: %d launches a step, plan %016" PRIx64 "\n", test, p->e->about.backend, p->fuse,
           p->n_launches, bench_plan_hash(&p->e->info, p->phase));
    printf(
        "a %s: %.3f ms in launches, %.3f ms before the first; %.3f ms in all when they are timed, %.3f ms when not\n",
        decode ? "token" : "prompt", 1e3 * p->all.mean, 1e3 * p->begin / p->n_samples, 1e3 * p->timed / p->n_samples,
        1e3 * p->untimed / p->n_samples);
    if (p->peak > 0)
        printf("the memory was measured at %.1f GB/s (* above that: a cache had a part, or the memory was busier "
               "when measured)\n",
               1e-9 * p->peak);
    putchar('\n');
}

/* Whether the device tells what kernels take: then there is a column for it. */
static bool has_occupancy(const profile *p) {
    return p->n_launches && p->kernel[0].occupancy > 0;
}

/* occupancy 0: not of one kernel */
static void print_row(const profile *p, const char *name, int32_t calls, double seconds, double bytes,
                      double occupancy) {
    char of_peak[20] = "", occupied[20] = "";
    double share = bytes / seconds / p->peak;
    if (p->peak > 0) snprintf(of_peak, sizeof of_peak, "%.1f %%%s", 100 * share, share > 1 ? " *" : "  ");
    printf("| %-52s | %5d | %10.1f | %6.2f %% | %10.3f | %8.2f | %10s |", name, calls, 1e6 * seconds,
           100 * seconds / p->all.mean, 1e-6 * bytes, 1e-9 * bytes / seconds, of_peak);
    if (occupancy > 0) snprintf(occupied, sizeof occupied, "%.0f %%", 100 * occupancy);
    if (has_occupancy(p)) printf(" %8s |", occupied);
    putchar('\n');
}

static void print_header(const profile *p, const char *first) {
    bool more = has_occupancy(p);
    printf("| %-52s | %5s | %10s | %8s | %10s | %8s | %10s |%s\n", first, "calls", "us", "share", "MB", "GB/s",
           "of peak", more ? " occupied |" : "");
    printf("| ---------------------------------------------------- | ----: | ---------: | -------: | ---------: | "
           "-------: | ---------: |%s\n",
           more ? " -------: |" : "");
}

/* Regions of one kind together. */
static void print_kinds(const profile *p) {
    putchar('\n');
    print_header(p, "by kind");
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
            seconds += r->mean;
            bytes += r->bytes;
        }
        print_row(p, kind, calls, seconds, bytes, 0);
    }
}

void profile_print(const profile *p) {
    print_head(p);
    print_header(p, "launch");
    for (int32_t i = 0; i < p->n_regions; i++) {
        const profile_region *r = &p->regions[i];
        print_row(p, r->name, r->n, r->mean, r->bytes, r->kernel.occupancy);
    }
    print_row(p, "all", p->n_launches, p->all.mean, p->all.bytes, 0);
    print_kinds(p);
}

static void print_pair(const profile *p, const profile_region *r) {
    const char *verdict = verdict_of(r);
    char change[20] = "-", chance[20] = "-";
    if (!isnan(r->change.ratio)) snprintf(change, sizeof change, "%+.1f %%", 100 * (r->change.ratio - 1));
    if (!isnan(r->change.p)) snprintf(chance, sizeof chance, "%.4f", r->change.p);
    printf("| %-52s | %5d | %10.1f | %5d | %10.1f | %9s | %8s | %-12s |\n", r->name, r->n_plain,
           1e6 * cli_spread_of(r->plain, (size_t)p->n_samples).mean, r->n, 1e6 * r->mean, change, chance,
           verdict ? verdict : "-");
}

void profile_print_comparison(const profile *p, const profile *plain) {
    printf("\n| %-52s | %5s | %10s | %5s | %10s | %9s | %8s | %-12s |\n", "region: its nodes one by one, and as here",
           "calls", "plain us", "calls", "fused us", "change", "p (Holm)", "fused is");
    puts("| ---------------------------------------------------- | ----: | ---------: | ----: | ---------: | "
         "--------: | -------: | ------------ |");
    for (int32_t i = 0; i < p->n_regions; i++) print_pair(p, &p->regions[i]);
    print_pair(p, &p->all);
    printf("\na step, launches not timed: %.3f ms plain, %.3f ms fused\n", 1e3 * plain->untimed / p->n_samples,
           1e3 * p->untimed / p->n_samples);
}

/* ---- JSON ---- */

static json_t *json_spread(const double *v, int32_t n) {
    return bench_json_spread(cli_spread_of(v, (size_t)n));
}

static json_t *json_region(const profile *p, const profile_region *r, bool compared) {
    double rate = r->bytes / r->mean;
    json_t *j = json_pack("{s:s, s:s, s:i, s:o, s:o, s:f, s:o, s:o}", "launch", r->name, "kind", r->kind, "calls",
                          r->n, "seconds", json_spread(r->seconds, p->n_samples), "share",
                          bench_json_real(r->mean / p->all.mean), "bytes", r->bytes, "bytes_per_second",
                          bench_json_real(rate), "of_peak", bench_json_real(p->peak > 0 ? rate / p->peak : NAN));
    if (r->kernel.occupancy > 0) {
        json_object_set_new(j, "occupancy", json_real(r->kernel.occupancy));
        json_object_set_new(j, "registers", json_integer(r->kernel.registers));
        json_object_set_new(j, "shared_bytes", json_integer(r->kernel.shared_bytes));
    }
    if (!compared) return j;
    json_object_set_new(j, "plain_calls", json_integer(r->n_plain));
    json_object_set_new(j, "plain_seconds", json_spread(r->plain, p->n_samples));
    json_object_set_new(j, "change", bench_json_real(r->change.ratio - 1));
    json_object_set_new(j, "p", bench_json_real(r->change.p));
    json_object_set_new(j, "verdict", json_pack("s?", verdict_of(r)));
    return j;
}

json_t *profile_json(const profile *p, bool compared) {
    char hash[20];
    json_t *regions = json_array();
    for (int32_t i = 0; i < p->n_regions; i++)
        json_array_append_new(regions, json_region(p, &p->regions[i], compared));
    snprintf(hash, sizeof hash, "%016" PRIx64, bench_plan_hash(&p->e->info, p->phase));
    return json_pack("{s:s, s:o, s:o, s:s, s:o, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:o, s:o}",
                     "build_version", tn_version(), "model_type", bench_json_text(p->e->about.type), "device",
                     bench_json_text(p->e->about.backend), "phase", tn_phase_name(p->phase), "fuse",
                     bench_json_text(p->fuse), "plan_hash", hash, "n_tokens", p->n_tokens, "n_depth", p->depth,
                     "samples", p->n_samples, "launches", p->n_launches, "launch_seconds", p->all.mean,
                     "begin_seconds", p->begin / p->n_samples, "timed_seconds", p->timed / p->n_samples,
                     "untimed_seconds", p->untimed / p->n_samples, "peak_bytes_per_second",
                     bench_json_real(p->peak > 0 ? p->peak : NAN), "regions", regions);
}
