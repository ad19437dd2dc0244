/* tenon profile: where the time of a step goes, launch by launch. Prompts and generated tokens are run with every launch timed
 * by the device; with --compare, sample by sample in turn with the same nodes run one by one. */
#include "profile.h"
#include "bench.h"
#include "out.h"
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TRACED = 16 }; /* samples of a phase: a trace shall stay readable */

/* A measurement of one phase, by one session or two in turn. */
typedef struct measurement {
    const cli_options *o;
    profile_trace *trace;
    const int32_t *ids;
    tn_launch_time *times; /* of a step */
    profile *p[2];
    int32_t n;
} measurement;

/* The tokens of step i of a sample; 0: there is none. */
static int32_t step_tokens(const profile *p, int32_t i) {
    int32_t left = p->n_tokens - i * p->e->info.n_ubatch;
    return left < p->e->info.n_ubatch ? left : p->e->info.n_ubatch;
}

/* Where sample number `sample` begins: prompts begin anew, tokens go on. */
static int32_t past_of(const profile *p, int32_t sample) {
    return p->depth + (p->phase == TN_PHASE_DECODE ? sample : 0);
}

static tn_status prepare(const profile *p, const int32_t *ids, int32_t past, tn_error *err) {
    cli_engine *e = (cli_engine *)p->e;
    return bench_set_depth(e, ids, past, err);
}

/* One sample with its launches timed. */
static tn_status time_sample(measurement *m, profile *p, int32_t sample, tn_error *err) {
    double *to = p->launch + (size_t)sample * (size_t)p->n_launches;
    int32_t past = past_of(p, sample), n;
    tn_status status = prepare(p, m->ids, past, err);
    for (int32_t i = 0; !status && (n = step_tokens(p, i)) > 0; i++, past += n) {
        tn_batch batch = {.ids = m->ids + past, .n_tokens = n};
        double begin = cli_seconds();
        status = tn_step_timed(p->e->session, &batch, m->times, err);
        double end = cli_seconds();
        p->timed += end - begin;
        p->begin += m->times[0].start;
        for (int32_t l = 0; l < p->n_launches && !status; l++) {
            to[l] += m->times[l].end - m->times[l].start;
            p->kernel[l] = m->times[l];
            p->bytes[l] += (double)tn_launch_bytes(p->e->session, p->phase, l, n, past);
        }
        if (!status && sample < MAX_TRACED) profile_trace_step(m->trace, p, begin, end, m->times, n, past);
    }
    return status;
}

/* The same without timing: what the timing itself costs. */
static tn_status run_sample(const measurement *m, profile *p, int32_t sample, tn_error *err) {
    int32_t past = past_of(p, sample);
    tn_status status = prepare(p, m->ids, past, err);
    double begin = cli_seconds();
    if (!status)
        status = cli_feed((cli_engine *)p->e, m->ids + past, (size_t)p->n_tokens, TN_WANT_CHOSEN | TN_WANT_BEST, err);
    p->untimed += cli_seconds() - begin;
    return status;
}

/* The most that the memory gave so far, for both. */
static tn_status measure_peak(measurement *m, tn_error *err) {
    double peak;
    tn_status status = tn_peak_bandwidth(m->p[0]->e->model, &peak, err);
    for (int32_t k = 0; k < m->n && !status; k++)
        if (peak > m->p[k]->peak) m->p[k]->peak = peak;
    return status;
}

/* All samples, timed or not, after one to warm up; with two sessions, the first of a pair in turn. */
static tn_status run_samples(measurement *m, bool timed, tn_error *err) {
    const char *what = m->p[0]->phase == TN_PHASE_DECODE ? "generation" : "prompt";
    tn_status status = TN_OK;
    int32_t n = m->p[0]->n_samples;
    for (int32_t k = 0; k < m->n && !status; k++) {
        status = run_sample(m, m->p[k], 0, err);
        m->p[k]->untimed = 0;
    }
    for (int32_t i = 0; i < n; i++)
        for (int32_t turn = 0; turn < m->n && !status; turn++) {
            profile *p = m->p[(turn + i) % m->n];
            cli_show_progress(m->o, what, (timed ? 0.0 : 0.5) + 0.5 * i / n);
            status = timed ? time_sample(m, p, i, err) : run_sample(m, p, i, err);
        }
    return status;
}

/* The memory is measured right before and right after the samples that are held against it. */
static tn_status measure(measurement *m, tn_error *err) {
    tn_status status = measure_peak(m, err);
    if (!status) status = run_samples(m, true, err);
    if (!status) status = measure_peak(m, err);
    if (!status) status = run_samples(m, false, err);
    cli_show_progress(m->o, "", 1);
    return status;
}

static void init(profile *p, const cli_engine *e, tn_phase phase, const char *fuse) {
    const cli_options *o = e->o;
    bool decode = phase == TN_PHASE_DECODE;
    *p = (profile){.e = e,
                   .phase = phase,
                   .fuse = fuse,
                   .depth = o->depth,
                   .n_tokens = decode ? 1 : o->n_prompt,
                   .n_samples = decode ? o->n_predict : o->repetitions,
                   .n_launches = tn_launch_count(e->session, phase)};
    size_t n = (size_t)p->n_samples * (size_t)p->n_launches;
    p->launch = memset(cli_realloc(NULL, n * sizeof *p->launch), 0, n * sizeof *p->launch);
    n = (size_t)p->n_launches;
    p->bytes = memset(cli_realloc(NULL, n * sizeof *p->bytes), 0, n * sizeof *p->bytes);
    p->kernel = memset(cli_realloc(NULL, n * sizeof *p->kernel), 0, n * sizeof *p->kernel);
}

/* ---- all of it ---- */

typedef struct job {
    const cli_options *o;
    cli_engine e[2]; /* one model; the second session runs node by node */
    int32_t n;
    int32_t *ids;
    profile_trace *trace;
    json_t *list; /* with --json */
    bool any;
} job;

static tn_status show(job *j, profile *p, tn_error *err) {
    profile_make_regions(&p[0], j->n > 1 ? &p[1] : NULL);
    if (j->n > 1) profile_make_regions(&p[1], NULL);
    if (j->o->json) {
        for (int32_t k = 0; k < j->n; k++)
            if (json_array_append_new(j->list, profile_json(&p[k], k == 0 && j->n > 1)))
                return cli_fail(err, TN_ERR_INTERNAL, "the profile cannot be written as JSON");
        return TN_OK;
    }
    if (j->any) putchar('\n');
    j->any = true;
    profile_print(&p[0]);
    if (j->n > 1) profile_print_comparison(&p[0], &p[1]);
    fflush(stdout);
    return TN_OK;
}

static tn_status run_phase(job *j, tn_phase phase, tn_error *err) {
    profile p[2];
    int32_t launches = 0;
    for (int32_t k = 0; k < j->n; k++) {
        init(&p[k], &j->e[k], phase, k ? "none" : j->o->fuse ? j->o->fuse : "all");
        launches = p[k].n_launches > launches ? p[k].n_launches : launches;
    }
    measurement m = {.o = j->o, .trace = j->trace, .ids = j->ids, .p = {&p[0], &p[1]}, .n = j->n};
    m.times = cli_realloc(NULL, (size_t)launches * sizeof *m.times);
    tn_status status = measure(&m, err);
    if (!status) status = show(j, p, err);
    for (int32_t k = 0; k < j->n; k++) profile_free(&p[k]);
    free(m.times);
    return status;
}

static tn_status open_sessions(job *j, tn_error *err) {
    const cli_options *o = j->o;
    int32_t longest = o->n_prompt > o->n_predict ? o->n_prompt : o->n_predict;
    cli_session_wish wish = cli_default_wish(o);
    if (!wish.n_ctx) wish.n_ctx = o->depth + longest;
    j->n = o->compare ? 2 : 1;
    tn_status status = cli_open_model(&j->e[0], o, &wish, err);
    if (status) return status;
    j->e[1] = j->e[0];
    for (int32_t k = 0; k < j->n && !status; k++) {
        if (k) wish.fuse = "none";
        status = cli_open_session(&j->e[k], &wish, err);
    }
    if (!status) j->ids = bench_random_ids((size_t)(o->depth + longest), j->e[0].about.n_vocab);
    return status;
}

static tn_status check(const cli_options *o, tn_error *err) {
    if (!o->n_prompt && !o->n_predict) return cli_fail(err, TN_ERR_USAGE, "nothing to measure: -p and -n are both 0");
    return TN_OK;
}

/* The plan that runs a prompt; its last step may not be another's. */
static tn_status prompt_phase(const cli_engine *e, int32_t n_prompt, tn_phase *phase, tn_error *err) {
    int32_t n_ubatch = e->info.n_ubatch, left = n_prompt % n_ubatch;
    *phase = tn_phase_of(e->session, n_prompt < n_ubatch ? n_prompt : n_ubatch);
    if (*phase != TN_PHASE_DECODE && (!left || tn_phase_of(e->session, left) == *phase)) return TN_OK;
    return cli_fail(err, TN_ERR_USAGE,
                    left == 1 ? "-p %d leaves a step with one token"
                              : "-p %d leaves a step with %d tokens, which another plan runs",
                    n_prompt, left);
}

tn_status cli_profile(const cli_options *given, tn_error *err) {
    cli_options o = *given;
    if (o.n_predict < 0) o.n_predict = 32;
    if (o.n_prompt < 0) o.n_prompt = 512;
    job j = {.o = &o, .list = json_array()};
    tn_status status = check(&o, err);
    if (!status) status = open_sessions(&j, err);
    if (!status) status = profile_trace_open(&j.trace, o.trace, err);
    tn_phase phase = TN_PHASE_PREFILL;
    if (!status && o.n_prompt) status = prompt_phase(&j.e[0], o.n_prompt, &phase, err);
    if (!status && o.n_prompt) status = run_phase(&j, phase, err);
    if (!status && o.n_predict) status = run_phase(&j, TN_PHASE_DECODE, err);
    if (!status) status = profile_trace_close(&j.trace, err);
    if (!status && o.json) cli_out_json(json_incref(j.list));
    json_decref(j.list);
    profile_trace_close(&j.trace, NULL);
    tn_session_close(&j.e[1].session);
    cli_close(&j.e[0]);
    free(j.ids);
    return status;
}
