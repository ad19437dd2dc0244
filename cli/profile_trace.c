/* The trace of profile in the format of Chrome's tracing, which Perfetto opens. The host's steps and the device's launches stand on
 * one axis, the host's clock (see tn_launch_time). Times are whole nanoseconds: slices of a track must nest. */
#include "out.h"
#include "profile.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HOST = 1, DEVICE = 2, STEPS = 1, LAYERS = 1, LAUNCHES = 2 }; /* processes and their threads */

struct profile_trace {
    FILE *f;
    char *path;
    double begin;      /* host's clock at the first step */
    int64_t device_ns; /* where the last launch ended */
    int32_t n_events, n_steps;
    bool failed;
};

/* Fifteen digits: microseconds to the nanosecond, for days. */
static void add(profile_trace *t, json_t *event) {
    fputs(t->n_events++ ? ",\n" : "", t->f);
    t->failed |= !event || json_dumpf(event, t->f, JSON_COMPACT | JSON_REAL_PRECISION(15));
    json_decref(event);
}

static int64_t ns_of(const profile_trace *t, double seconds) {
    return llround(1e9 * (seconds - t->begin));
}

static double us_of(int64_t ns) {
    return (double)ns / 1000;
}

static void name_track(profile_trace *t, int pid, int tid, const char *process, const char *thread) {
    if (process)
        add(t, json_pack("{s:s, s:s, s:i, s:{s:s}}", "ph", "M", "name", "process_name", "pid", pid, "args", "name",
                         process));
    add(t, json_pack("{s:s, s:s, s:i, s:i, s:{s:s}}", "ph", "M", "name", "thread_name", "pid", pid, "tid", tid,
                     "args", "name", thread));
}

tn_status profile_trace_open(profile_trace **t, const char *path, tn_error *err) {
    *t = NULL;
    if (!path) return TN_OK;
    FILE *f = fopen(path, "w");
    if (!f) return cli_fail(err, TN_ERR_INPUT, "%s: %s", path, strerror(errno));
    *t = cli_realloc(NULL, sizeof **t);
    **t = (profile_trace){.f = f, .path = strcpy(cli_realloc(NULL, strlen(path) + 1), path), .begin = -1};
    fputs("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n", f);
    name_track(*t, HOST, STEPS, "host", "steps");
    name_track(*t, DEVICE, LAYERS, "device", "layers");
    name_track(*t, DEVICE, LAUNCHES, NULL, "launches");
    return TN_OK;
}

/* Takes over args. */
static void slice(profile_trace *t, const char *name, int pid, int tid, int64_t begin, int64_t end, json_t *args) {
    add(t, json_pack("{s:s, s:s, s:i, s:i, s:f, s:f, s:o}", "ph", "X", "name", name, "pid", pid, "tid", tid, "ts",
                     us_of(begin), "dur", us_of(end - begin), "args", args));
}

/* The names of a launch's nodes, "l0.attn_norm, l0.q". */
static json_t *node_names(const profile *p, const tn_launch_info *info) {
    char text[2000] = "";
    for (int32_t i = 0; i < info->n_nodes; i++) {
        tn_node_info node = {0};
        size_t n = strlen(text);
        tn_node_get_info(p->e->session, p->phase, info->nodes[i], &node);
        snprintf(text + n, sizeof text - n, "%s%s (%s)", n ? ", " : "", node.name, node.op);
    }
    return json_string(text);
}

/* Where a launch is on the axis. One that began before the one ahead had ended is shown from there. */
typedef struct span {
    int64_t begin, end;
} span;

static span place(profile_trace *t, double begin, const tn_launch_time *time) {
    span s = {ns_of(t, begin + time->start), ns_of(t, begin + time->end)};
    if (s.begin < t->device_ns) s.begin = t->device_ns;
    if (s.end < s.begin) s.end = s.begin;
    t->device_ns = s.end;
    return s;
}

static void add_launch(profile_trace *t, const profile *p, int32_t launch, span at, double bytes) {
    tn_launch_info info;
    char nodes[80], name[120];
    tn_launch_get_info(p->e->session, p->phase, launch, &info);
    profile_launch_name(p->e, p->phase, &info, nodes, sizeof nodes);
    snprintf(name, sizeof name, "%.30s %.80s", info.kind, nodes);
    json_t *args =
        json_pack("{s:i, s:i, s:o, s:s, s:s, s:f}", "launch", launch, "layer", info.layer, "nodes",
                  node_names(p, &info), "kernel", info.kernel, "rules", info.rules ? info.rules : "", "bytes", bytes);
    if (at.end > at.begin) json_object_set_new(args, "GB/s", json_real(bytes / (double)(at.end - at.begin)));
    slice(t, name, DEVICE, LAUNCHES, at.begin, at.end, args);
}

/* Launches of one layer, one after the other, as one slice. */
static void add_layers(profile_trace *t, const profile *p, const span *at) {
    for (int32_t first = 0, last; first < p->n_launches; first = last + 1) {
        tn_launch_info info, next;
        char name[32];
        tn_launch_get_info(p->e->session, p->phase, first, &info);
        for (last = first; last + 1 < p->n_launches; last++) {
            tn_launch_get_info(p->e->session, p->phase, last + 1, &next);
            if (next.layer != info.layer) break;
        }
        if (info.layer < 0) continue;
        snprintf(name, sizeof name, "layer %d", info.layer);
        slice(t, name, DEVICE, LAYERS, at[first].begin, at[last].end,
              json_pack("{s:i, s:i}", "layer", info.layer, "launches", last - first + 1));
    }
}

/* The host's step, and within it what came before the device's first launch, the wait for the last, and what came after. */
static void add_host(profile_trace *t, const profile *p, span step, span device, int32_t n_tokens, int32_t n_past) {
    char name[100];
    snprintf(name, sizeof name, "%s of %d at %d, fuse %.40s", tn_phase_name(p->phase), n_tokens, n_past, p->fuse);
    slice(t, name, HOST, STEPS, step.begin, step.end,
          json_pack("{s:i, s:i, s:s}", "tokens", n_tokens, "past", n_past, "fuse", p->fuse));
    int64_t begin = device.begin < step.end ? device.begin : step.end,
            end = device.end < step.end ? device.end : step.end;
    slice(t, "prepare and submit", HOST, STEPS, step.begin, begin, json_object());
    slice(t, "wait", HOST, STEPS, begin, end, json_object());
    slice(t, "read back", HOST, STEPS, end, step.end, json_object());
}

void profile_trace_step(profile_trace *t, const profile *p, double begin, double end, const tn_launch_time *times,
                        int32_t n_tokens, int32_t n_past) {
    if (!t) return;
    if (t->begin < 0) t->begin = begin;
    span *at = cli_realloc(NULL, (size_t)p->n_launches * sizeof *at), step = {ns_of(t, begin), ns_of(t, end)};
    if (t->device_ns < step.begin) t->device_ns = step.begin;
    for (int32_t l = 0; l < p->n_launches; l++) at[l] = place(t, begin, &times[l]);
    add_host(t, p, step, (span){at[0].begin, at[p->n_launches - 1].end}, n_tokens, n_past);
    add_layers(t, p, at);
    for (int32_t l = 0; l < p->n_launches; l++)
        add_launch(t, p, l, at[l], (double)tn_launch_bytes(p->e->session, p->phase, l, n_tokens, n_past));
    /* an arrow from the host's step to the device's first launch */
    add(t, json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:f}", "ph", "s", "name", "step", "cat", "step", "id",
                     t->n_steps, "pid", HOST, "tid", STEPS, "ts", us_of(step.begin)));
    add(t, json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:f}", "ph", "f", "bp", "e", "name", "step", "cat", "step",
                     "id", t->n_steps++, "pid", DEVICE, "tid", LAUNCHES, "ts", us_of(at[0].begin)));
    free(at);
}

tn_status profile_trace_close(profile_trace **trace, tn_error *err) {
    profile_trace *t = *trace;
    tn_status status = TN_OK;
    if (!t) return TN_OK;
    fputs("\n]}\n", t->f);
    bool failed = t->failed || ferror(t->f);
    failed |= fclose(t->f) != 0;
    if (failed && err) status = cli_fail(err, TN_ERR_RESOURCES, "%s: cannot be written", t->path);
    free(t->path);
    free(t);
    *trace = NULL;
    return status;
}
