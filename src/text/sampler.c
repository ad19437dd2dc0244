#include "text/sampler.h"

#include "base/best.h"
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

/* ---- opening and closing ---- */

struct tn_sampler {
    tn_sampler_options options; /* without logit_bias */
    int32_t n_vocab;
    uint64_t draws;
    float *bias;     /* of each token; NULL: none */
    int32_t first;   /* the first token that no bias forbids */
    float *logits;   /* of each token, as biases and penalties leave them */
    int32_t *ids;    /* n_vocab: the candidates */
    int32_t *recent; /* the last tokens, a ring of repeat_last_n */
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
    if (!isfinite(o->frequency_penalty)) return tn_fail(err, TN_ERR_USAGE, "the frequency penalty is not finite");
    if (!isfinite(o->presence_penalty)) return tn_fail(err, TN_ERR_USAGE, "the presence penalty is not finite");
    if (o->repeat_last_n < 0) return tn_fail(err, TN_ERR_USAGE, "the repeat window is 0 or more");
    for (size_t i = 0; i < o->n_logit_bias; i++) {
        tn_logit_bias b = o->logit_bias[i];
        if (b.id < 0 || b.id >= n_vocab)
            return tn_fail(err, TN_ERR_USAGE, "a logit bias names token %d of a vocabulary of %d", b.id, n_vocab);
        if (isnan(b.bias) || b.bias == INFINITY)
            return tn_fail(err, TN_ERR_USAGE, "the logit bias of token %d is not a number", b.id);
    }
    return TN_OK;
}

/* The list of biases as an array over the vocabulary. */
static tn_status spread_biases(tn_sampler *s, const tn_logit_bias *list, size_t n, tn_error *err) {
    if (!n) return TN_OK;
    s->bias = tn_alloc_zero((size_t)s->n_vocab, sizeof *s->bias);
    if (!s->bias) return tn_fail_memory(err);
    for (size_t i = 0; i < n; i++) s->bias[list[i].id] += list[i].bias;
    while (s->first < s->n_vocab && !(s->bias[s->first] > -INFINITY)) s->first++;
    if (s->first == s->n_vocab) return tn_fail(err, TN_ERR_USAGE, "the logit biases forbid every token");
    return TN_OK;
}

tn_status tn_sampler_open(tn_sampler **out, const tn_sampler_options *options, int32_t n_vocab, tn_error *err) {
    *out = NULL;
    tn_status st = check_options(options, n_vocab, err);
    if (st) return st;
    tn_sampler *s = tn_alloc_zero(1, sizeof *s);
    if (!s) return tn_fail_memory(err);
    s->options = *options;
    s->options.logit_bias = NULL; /* the caller's */
    s->n_vocab = n_vocab;
    s->logits = tn_alloc_zero((size_t)n_vocab, sizeof *s->logits);
    s->ids = tn_alloc_zero((size_t)n_vocab, sizeof *s->ids);
    s->count = tn_alloc_zero((size_t)n_vocab, sizeof *s->count);
    s->recent = tn_alloc_zero((size_t)options->repeat_last_n, sizeof *s->recent);
    if (!s->logits || !s->ids || !s->count || !s->recent)
        st = tn_fail_memory(err);
    else
        st = spread_biases(s, options->logit_bias, options->n_logit_bias, err);
    if (st)
        tn_sampler_close(&s);
    else
        *out = s;
    return st;
}

void tn_sampler_close(tn_sampler **s) {
    if (!*s) return;
    tn_free((*s)->bias);
    tn_free((*s)->logits);
    tn_free((*s)->ids);
    tn_free((*s)->count);
    tn_free((*s)->recent);
    tn_free(*s);
    *s = NULL;
}

/* ---- picking ---- */

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

static float penalised(const tn_sampler_options *o, float logit, int32_t count) {
    logit = logit <= 0 ? logit * o->repeat_penalty : logit / o->repeat_penalty;
    return logit - ((float)count * o->frequency_penalty + o->presence_penalty);
}

/* Biases and penalties; what is not a number cannot be chosen. Returns the best token: where none can be chosen, the
 * first that is not forbidden. */
static int32_t fill(tn_sampler *s, const float *logits) {
    int32_t best = s->first;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        float l = logits[i];
        if (s->bias) l += s->bias[i];
        if (s->count[i]) l = penalised(&s->options, l, s->count[i]);
        s->logits[i] = isnan(l) ? -INFINITY : l;
        s->ids[i] = i;
    }
    for (int32_t i = best; i < s->n_vocab; i++)
        if (s->logits[i] > s->logits[best]) best = i;
    return best;
}

/* The fewest candidates, best first, whose probabilities sum up to top_p: they end up at the end of ids. Returns how
 * many. */
static int32_t select_nucleus(const float *logits, int32_t *ids, int32_t n, float max, float top_p) {
    double sum = 0, have = 0;
    int32_t left = n;
    for (int32_t i = 0; i < n; i++) sum += exp((double)(logits[ids[i]] - max));
    tn_best_heap(logits, ids, n);
    do {
        tn_best_take(logits, ids, left--);
        have += exp((double)(logits[ids[left]] - max));
    } while (left && have < (double)top_p * sum);
    return n - left;
}

/* One of n candidates, each with probability ~ exp(logit / temp). */
static int32_t draw(const float *logits, const int32_t *ids, int32_t n, float max, float temp, double uniform) {
    double sum = 0, have = 0;
    for (int32_t i = 0; i < n; i++) sum += exp((double)(logits[ids[i]] - max) / (double)temp);
    for (int32_t i = 0; i < n; i++) {
        have += exp((double)(logits[ids[i]] - max) / (double)temp);
        if (have > uniform * sum) return ids[i];
    }
    return ids[n - 1];
}

/* One of the n candidates in s->ids, by s->logits, of which max is the greatest: all steps from top-p on. */
static int32_t pick_candidate(tn_sampler *s, int32_t n, float max) {
    const tn_sampler_options *o = &s->options;
    int32_t *ids = s->ids;
    if (o->top_p < 1) {
        int32_t kept = select_nucleus(s->logits, ids, n, max, o->top_p);
        ids += n - kept;
        n = kept;
    }
    int32_t kept = 0;
    float least = max + logf(o->min_p);
    for (int32_t i = 0; i < n; i++) { /* the best one always stays */
        float l = s->logits[ids[i]];
        if (l == max || l >= least) ids[kept++] = ids[i];
    }
    return draw(s->logits, ids, kept, max, o->temp, tn_random_uniform(o->seed, s->draws++));
}

/* With a temperature of 0 the best token is it; nothing is drawn where it is infinite: there is no distribution. */
static bool draws(const tn_sampler_options *o, float max) {
    return o->temp > 0 && !isinf(max);
}

int32_t tn_sampler_pick(tn_sampler *s, const float *logits) {
    const tn_sampler_options *o = &s->options;
    int32_t n = s->n_vocab, best = fill(s, logits);
    float max = s->logits[best];
    if (!draws(o, max)) return best;
    if (o->top_k > 0) {
        if (o->top_k < n) n = o->top_k;
        tn_select_best(s->logits, s->n_vocab, s->ids, n);
    }
    return pick_candidate(s, n, max);
}

int32_t tn_sampler_needs(const tn_sampler *s) {
    const tn_sampler_options *o = &s->options;
    bool penalties = o->repeat_penalty != 1 || o->frequency_penalty != 0 || o->presence_penalty != 0;
    if (s->bias || (penalties && o->repeat_last_n > 0)) return 0;
    int32_t k = o->temp == 0 ? 1 : o->top_k;
    return k < s->n_vocab ? k : s->n_vocab;
}

/* The candidates are numbered from the best on, so that they rank by logit and number as their tokens do by logit and id. */
int32_t tn_sampler_pick_from(tn_sampler *s, const tn_candidates *c) {
    int32_t n = tn_sampler_needs(s);
    if (n < 1 || n > c->n) return -1;
    for (int32_t i = 0; i < n; i++) {
        s->logits[i] = isnan(c->logits[i]) ? -INFINITY : c->logits[i];
        s->ids[i] = i;
    }
    return c->ids[draws(&s->options, s->logits[0]) ? pick_candidate(s, n, s->logits[0]) : 0];
}

/* ---- probabilities ---- */

/* How far a logit lies below the greatest; equal ones may be infinite. */
static double below(float logit, float max) {
    return logit == max ? 0 : (double)logit - (double)max;
}

int32_t tn_top_logprobs(const float *logits, int32_t n_vocab, int32_t k, int32_t *ids, float *logprobs) {
    if (k > n_vocab) k = n_vocab;
    if (k <= 0) return 0;
    tn_select_best(logits, n_vocab, ids, k);
    float max = logits[ids[0]];
    double sum = 0;
    for (int32_t i = 0; i < n_vocab; i++)
        if (logits[i] > -INFINITY) sum += exp(below(logits[i], max));
    for (int32_t i = 0; i < k; i++) {
        float l = logits[ids[i]];
        logprobs[i] = l > -INFINITY ? (float)(below(l, max) - log(sum)) : -INFINITY;
    }
    return k;
}
