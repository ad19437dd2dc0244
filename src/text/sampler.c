#include "text/sampler.h"

#include "base/error.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

/* ---- random numbers ---- */

void tn_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t x[4] = {counter[0], counter[1], counter[2], counter[3]}, k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)x[0] * 0xd2511f53u, b = (uint64_t)x[2] * 0xcd9e8d57u;
        uint32_t y[4] = {(uint32_t)(b >> 32) ^ x[1] ^ k[0], (uint32_t)b, (uint32_t)(a >> 32) ^ x[3] ^ k[1],
                         (uint32_t)a};
        memcpy(x, y, sizeof x);
        k[0] += 0x9e3779b9u;
        k[1] += 0xbb67ae85u;
    }
    memcpy(out, x, sizeof x);
}

double tn_random_uniform(uint64_t seed, uint64_t n) {
    uint32_t counter[4] = {(uint32_t)n, (uint32_t)(n >> 32), 0, 0}, key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t r[4];
    tn_philox4x32(counter, key, r);
    return ((double)(r[0] >> 5) * 0x1p26 + (double)(r[1] >> 6)) * 0x1p-53;
}

/* ---- the sampler ---- */

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

struct tn_sampler {
    tn_sampler_options options;
    int32_t n_vocab;
    uint64_t draws;
    candidate *candidates; /* n_vocab */
    int32_t *recent;       /* the last tokens, a ring of repeat_last_n */
    int32_t n_recent, next_recent;
    int32_t *count; /* of each token among the recent ones */
};

tn_sampler_options tn_sampler_defaults(void) {
    return (tn_sampler_options){
        .temp = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1, .repeat_last_n = 64};
}

static tn_status check_options(const tn_sampler_options *o, int32_t n_vocab, tn_error *err) {
    if (n_vocab < 1) return tn_fail(err, TN_ERR_USAGE, "a sampler needs a vocabulary");
    if (!(o->temp >= 0) || isinf(o->temp)) return tn_fail(err, TN_ERR_USAGE, "the temperature is 0 or more");
    if (o->top_k < 0) return tn_fail(err, TN_ERR_USAGE, "top-k is 0 or more");
    if (!(o->top_p >= 0 && o->top_p <= 1)) return tn_fail(err, TN_ERR_USAGE, "top-p is between 0 and 1");
    if (!(o->min_p >= 0 && o->min_p <= 1)) return tn_fail(err, TN_ERR_USAGE, "min-p is between 0 and 1");
    if (!(o->repeat_penalty > 0) || isinf(o->repeat_penalty))
        return tn_fail(err, TN_ERR_USAGE, "the repeat penalty is more than 0");
    if (o->repeat_last_n < 0) return tn_fail(err, TN_ERR_USAGE, "the repeat window is 0 or more");
    return TN_OK;
}

tn_status tn_sampler_open(tn_sampler **out, const tn_sampler_options *options, int32_t n_vocab, tn_error *err) {
    *out = NULL;
    tn_status st = check_options(options, n_vocab, err);
    if (st) return st;
    tn_sampler *s = tn_alloc_zero(1, sizeof *s);
    if (!s) return tn_fail_memory(err);
    s->options = *options;
    s->n_vocab = n_vocab;
    s->candidates = tn_alloc_zero((size_t)n_vocab, sizeof *s->candidates);
    s->count = tn_alloc_zero((size_t)n_vocab, sizeof *s->count);
    s->recent = tn_alloc_zero((size_t)options->repeat_last_n, sizeof *s->recent);
    if (!s->candidates || !s->count || !s->recent) {
        tn_sampler_close(&s);
        return tn_fail_memory(err);
    }
    *out = s;
    return TN_OK;
}

void tn_sampler_close(tn_sampler **s) {
    if (!*s) return;
    tn_free((*s)->candidates);
    tn_free((*s)->count);
    tn_free((*s)->recent);
    tn_free(*s);
    *s = NULL;
}

void tn_sampler_accept(tn_sampler *s, int32_t id) {
    int32_t window = s->options.repeat_last_n;
    if (id < 0 || id >= s->n_vocab || window == 0) return;
    if (s->n_recent == window) {
        s->count[s->recent[s->next_recent]]--;
    } else {
        s->n_recent++;
    }
    s->recent[s->next_recent] = id;
    s->count[id]++;
    s->next_recent = (s->next_recent + 1) % window;
}

/* Greater logit first; of equal ones, the lower id. */
static bool better(candidate a, candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* All tokens, penalised; what is not a number can not be chosen. Returns where the best one is. */
static int32_t fill(tn_sampler *s, const float *logits) {
    float penalty = s->options.repeat_penalty;
    int32_t best = 0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        float l = isnan(logits[i]) ? -INFINITY : logits[i];
        if (s->count[i] && penalty != 1) l = l <= 0 ? l * penalty : l / penalty;
        s->candidates[i] = (candidate){l, i};
        if (l > s->candidates[best].logit) best = i;
    }
    return best;
}

/* Sinks v[i] in a heap whose top is the worst (worst_first) or the best. */
static void sift_down(candidate *v, int32_t n, int32_t i, bool worst_first) {
    candidate x = v[i];
    for (int32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && better(v[child], v[child + 1]) == worst_first) child++;
        if (better(x, v[child]) != worst_first) break;
        v[i] = v[child];
    }
    v[i] = x;
}

static void make_heap(candidate *v, int32_t n, bool worst_first) {
    for (int32_t i = n / 2; i-- > 0;) sift_down(v, n, i, worst_first);
}

/* Moves the k best to the front, in no order. */
static void select_best(candidate *v, int32_t n, int32_t k) {
    make_heap(v, k, true);
    for (int32_t i = k; i < n; i++) {
        if (!better(v[i], v[0])) continue;
        v[0] = v[i];
        sift_down(v, k, 0, true);
    }
}

/* The fewest candidates, best first, whose probabilities sum up to top_p: they end up at the end of v. Returns how many. */
static int32_t select_nucleus(candidate *v, int32_t n, float max, float top_p) {
    double sum = 0, have = 0;
    int32_t left = n;
    for (int32_t i = 0; i < n; i++) sum += exp((double)(v[i].logit - max));
    make_heap(v, n, false);
    do {
        candidate best = v[0];
        v[0] = v[--left];
        if (left) sift_down(v, left, 0, false);
        v[left] = best;
        have += exp((double)(best.logit - max));
    } while (left && have < (double)top_p * sum);
    return n - left;
}

/* One of n candidates, each with probability ~ exp(logit / temp). */
static int32_t draw(const candidate *v, int32_t n, float max, float temp, double uniform) {
    double sum = 0, have = 0;
    for (int32_t i = 0; i < n; i++) sum += exp((double)(v[i].logit - max) / (double)temp);
    for (int32_t i = 0; i < n; i++) {
        have += exp((double)(v[i].logit - max) / (double)temp);
        if (have > uniform * sum) return v[i].id;
    }
    return v[n - 1].id;
}

int32_t tn_sampler_pick(tn_sampler *s, const float *logits) {
    const tn_sampler_options *o = &s->options;
    candidate *v = s->candidates;
    int32_t n = s->n_vocab, best = fill(s, logits);
    float max = v[best].logit;
    if (o->temp == 0 || isinf(max)) return best; /* infinite: no distribution */
    if (o->top_k > 0 && o->top_k < n) {
        select_best(v, n, o->top_k);
        n = o->top_k;
    }
    if (o->top_p < 1) {
        int32_t kept = select_nucleus(v, n, max, o->top_p);
        v += n - kept;
        n = kept;
    }
    int32_t kept = 0;
    float least = max + logf(o->min_p);
    for (int32_t i = 0; i < n; i++) { /* the best one always stays */
        if (v[i].logit == max || v[i].logit >= least) v[kept++] = v[i];
    }
    return draw(v, kept, max, o->temp, tn_random_uniform(o->seed, s->draws++));
}
