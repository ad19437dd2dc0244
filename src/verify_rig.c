/* The rig of verification: small graphs, weights made in memory and steps made by hand, run on a device. */
#include "base/half.h"
#include "base/mem.h"
#include "engine.h"
#include "verify.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

/* ---- devices ---- */

bool tn_verify_exact(const char *backend) {
    return !backend || !strncmp(backend, "cpu", 3);
}

tn_status tn_rig_open(tn_rig *rig, const char *name, int threads, tn_error *err) {
    return tn_rig_open_with(rig, name, &(tn_device_options){.threads = threads}, err);
}

tn_status tn_rig_open_with(tn_rig *rig, const char *name, const tn_device_options *options, tn_error *err) {
    bool exact = tn_verify_exact(name);
    const char *variant;
    if (tn_backend_find(name, &variant) && variant && !strcmp(variant, "plan"))
        return tn_fail(err, TN_ERR_UNAVAILABLE, "%s only plans: it has no device to run on", name);
    *rig = (tn_rig){.exact = exact, .zero = exact ? FLT_MIN : 1e-33f};
    return tn_engine_open_device(&rig->backend, &rig->device, name, options, err);
}

void tn_rig_close(tn_rig *rig) {
    if (rig->device) rig->backend->close(&rig->device);
}

/* ---- weights ---- */

static uint32_t next(uint32_t *seed) { /* xorshift (Marsaglia 2003) */
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    return *seed ^= *seed << 5;
}

static float uniform(uint32_t *seed, float low, float high) {
    return low + (high - low) * (float)(next(seed) >> 8) / 16777216.0f;
}

/* Ranges of random values. Tables of inputs (as many rows as there are ids) are wide, matrices such that products stay
 * near 1. */
static void range_of(tn_fill fill, int32_t n_out, float *low, float *high) {
    *high = fill == TN_FILL_POSITIVE ? 1.5f : fill == TN_FILL_NEGATIVE ? -0.5f : fill == TN_FILL_SMALL ? 0.2f : 0.25f;
    *low = fill == TN_FILL_POSITIVE ? 0.5f : fill == TN_FILL_NEGATIVE ? -1.5f : -*high;
    if (fill == TN_FILL_RANDOM && n_out == TN_RIG_VOCAB) *high = 2, *low = -2;
}

const char *tn_fill_name(tn_fill fill) {
    static const char *const names[] = {
        [TN_FILL_TINY] = ", tiny", [TN_FILL_HUGE] = ", huge", [TN_FILL_EQUAL] = ", equal"};
    return fill >= TN_FILL_TINY ? names[fill] : "";
}

/* Element (r, c) of inputs that are hard. Products of two huge values are still finite. */
static float hard_value(tn_fill fill, int32_t r, int32_t c, uint32_t *seed) {
    float x = uniform(seed, -2, 2);
    int32_t block = c / 32 + r;
    if (fill == TN_FILL_EQUAL) return 0.75f;
    if (fill == TN_FILL_TINY) {
        static const float scale[] = {1, 1e-5f, 1e-30f, 0, 1e-12f, 1e-39f};
        return x * scale[block % 6];
    }
    bool huge = block % 4 == 2 || (block % 4 == 1 && c % 32 == block % 32);
    return x * (huge ? 1e9f : block % 4 == 3 ? 40 : 1);
}

/* The bytes of a weight; NULL when out of memory. */
static void *make_data(tn_arena *arena, const tn_weight *w, tn_fill fill, uint32_t seed) {
    const tn_type_info *t = tn_type_get(w->type);
    size_t row = tn_type_row_bytes(w->type, (size_t)w->n_in);
    uint8_t *data = tn_arena_alloc(arena, row * (size_t)w->n_out);
    float *x = tn_arena_alloc(arena, (size_t)w->n_in * sizeof *x), low, high;
    if (!data || !x || !row) return NULL;
    range_of(fill, w->n_out, &low, &high);
    for (int32_t r = 0; r < w->n_out; r++) {
        for (int32_t c = 0; c < w->n_in; c++)
            x[c] = fill >= TN_FILL_TINY       ? hard_value(fill, r, c, &seed)
                   : fill == TN_FILL_IDENTITY ? (float)(r == c)
                                              : uniform(&seed, low, high);
        t->encode(x, data + (size_t)r * row, (size_t)w->n_in);
    }
    return data;
}

static int32_t add_weight(tn_rig_weights *t, const tn_weight *w) {
    if (t->n == t->cap) {
        int32_t cap = t->cap ? 2 * t->cap : 64;
        const tn_weight **p = tn_realloc(t->p, (size_t)cap * sizeof *p);
        if (!p) return -1;
        t->p = p;
        t->cap = cap;
    }
    tn_weight *copy = tn_arena_alloc(&t->arena, sizeof *copy);
    if (!copy) return -1;
    *copy = *w;
    t->p[t->n] = copy;
    return t->n++;
}

tn_val tn_rig_weight(tn_rig_weights *t, tn_graph *g, const tn_weight *like, tn_fill fill, int32_t number) {
    char name[80];
    tn_weight w = *like;
    w.n_expert = w.n_expert ? w.n_expert : 1;
    w.bytes = tn_type_row_bytes(w.type, (size_t)w.n_in) * (size_t)w.n_out;
    snprintf(name, sizeof name, "w%d.%d.%s.%dx%dx%d%s", number, (int)fill, tn_type_get(w.type)->name, w.n_out, w.n_in,
             w.n_expert, w.elements ? ".elements" : "");
    int32_t i = 0;
    while (i < t->n && strcmp(t->p[i]->name, name)) i++;
    if (i == t->n) {
        uint32_t seed = 2463534242u + 7919u * (uint32_t)number + 104729u * (uint32_t)(w.n_in + w.n_out) + w.type;
        w.name = tn_arena_printf(&t->arena, "%s", name);
        w.data = make_data(&t->arena, &w, fill, seed);
        i = w.name && w.data ? add_weight(t, &w) : -1;
    }
    t->failed |= i < 0;
    g->failed |= i < 0;
    g->weights = t->p;
    g->n_weights = t->n;
    return i < 0 ? (tn_val){.cols = w.n_in} : tn_g_weight(g, i, t->p[i]);
}

void tn_rig_weights_free(tn_rig_weights *t) {
    tn_arena_free(&t->arena);
    tn_free(t->p);
    *t = (tn_rig_weights){0};
}

/* ---- steps ---- */

/* Tokens of each sequence in each step. A sequence may be absent, and may begin later than another. */
static const int32_t decode_steps[][TN_RIG_SEQS] = {{1, 0, 0}, {1, 1, 1}, {0, 1, 1}, {1, 0, 1}};
static const int32_t short_steps[][TN_RIG_SEQS] = {{1, 0, 0}, {4, 0, 3}, {1, 2, 1}};
static const int32_t long_steps[][TN_RIG_SEQS] = {{1, 0, 0}, {66, 3, 1}, {2, 17, 0}};
enum { N_DECODE = 4, N_PREFILL = 3, LONG = 70, MAX_PAGES = 2, MAX_STATES = 4 };

/* One step's inputs and what they point at. */
typedef struct step {
    tn_step_input in;
    int32_t ids[LONG], pos[LONG], seq[LONG], outputs[LONG], pages[TN_RIG_SEQS * MAX_PAGES];
    tn_run runs[TN_RIG_SEQS];
    int32_t length[TN_RIG_SEQS]; /* of the sequences so far */
} step;

static void fill_step(step *s, const int32_t *counts) {
    s->in = (tn_step_input){.ids = s->ids,
                            .pos = s->pos,
                            .seq = s->seq,
                            .outputs = s->outputs,
                            .runs = s->runs,
                            .pages = s->pages,
                            .max_pages = MAX_PAGES};
    for (int32_t i = 0; i < TN_RIG_SEQS * MAX_PAGES; i++) s->pages[i] = TN_RIG_SEQS * MAX_PAGES - 1 - i;
    int32_t t = 0;
    for (int32_t q = 0; q < TN_RIG_SEQS; q++) {
        if (counts[q]) s->runs[s->in.n_runs++] = (tn_run){t, counts[q], s->length[q], q};
        for (int32_t k = 0; k < counts[q]; k++, t++) {
            s->pos[t] = s->length[q]++;
            s->ids[t] = (5 + 7 * s->pos[t] + 11 * q) % TN_RIG_VOCAB;
            s->seq[t] = q;
            s->outputs[t] = t;
        }
    }
    s->in.n_tokens = s->in.n_outputs = t;
}

/* ---- running ---- */

tn_status tn_rig_plan(const tn_rig *rig, tn_plan *plan, const tn_graph *g, const tn_rig_options *o, tn_error *err) {
    tn_graph copy;
    tn_status status = tn_lower_quantize(&copy, g, 0, err); /* with no types to lower: a copy */
    if (status != TN_OK) return status;
    tn_plan_target target = tn_engine_target(rig->backend, rig->device);
    return tn_plan_make(plan, &copy, o->act_f32, o->fuse, &target, err);
}

static tn_status make_memory(const tn_rig *rig, const tn_plan *plan, tn_kv_type kv, tn_memory **memory,
                             tn_error *err) {
    tn_state_desc states[MAX_STATES] = {0};
    const tn_graph *g = &plan->graph;
    if (g->n_states > MAX_STATES) return tn_fail(err, TN_ERR_INTERNAL, "verify: %d states in a pattern", g->n_states);
    for (int32_t i = 0; i < g->n; i++) {
        const tn_attr *a = &g->nodes[i].attr;
        if (g->nodes[i].op == TN_OP_STATE)
            states[a->index] = (tn_state_desc){a->n_kv, a->head_dim, a->v_dim, a->state_size};
    }
    tn_memory_desc desc = {.states = states,
                           .n_states = g->n_states,
                           .n_pages = TN_RIG_SEQS * MAX_PAGES,
                           .n_seq = TN_RIG_SEQS,
                           .kv_type = kv,
                           .arena_bytes = plan->arena_bytes};
    return rig->backend->make_memory(rig->device, &desc, memory, err);
}

static tn_status run_steps(const tn_rig *rig, tn_program *program, const tn_graph *g, tn_table *to, tn_error *err) {
    const int32_t(*counts)[TN_RIG_SEQS] = g->one_token           ? decode_steps
                                          : g->max_tokens < LONG ? short_steps
                                                                 : long_steps;
    step s = {0};
    for (int k = 0; k < (g->one_token ? N_DECODE : N_PREFILL); k++) {
        tn_result result;
        fill_step(&s, counts[k]);
        tn_status status = rig->backend->submit(program, &s.in, TN_WANT_LOGITS, err);
        if (status == TN_OK) status = rig->backend->wait(program, &result, err);
        if (status != TN_OK) return status;
        memcpy(to->p + (size_t)to->rows * (size_t)to->cols, result.logits,
               (size_t)s.in.n_tokens * (size_t)to->cols * sizeof(float));
        to->rows += s.in.n_tokens;
    }
    return TN_OK;
}

tn_status tn_rig_run(const tn_rig *rig, const tn_plan *plan, tn_kv_type kv, tn_table *result, tn_error *err) {
    tn_memory *memory = NULL;
    tn_program *program = NULL;
    *result = (tn_table){.cols = plan->graph.nodes[plan->graph.output].out[0].cols};
    result->p = tn_alloc_zero((size_t)2 * LONG * (size_t)result->cols, sizeof(float));
    if (!result->p) return tn_fail_memory(err);
    tn_status status = make_memory(rig, plan, kv, &memory, err);
    if (status == TN_OK) status = rig->backend->compile(rig->device, plan, memory, &program, err);
    if (status == TN_OK) status = run_steps(rig, program, &plan->graph, result, err);
    if (program) rig->backend->free_program(rig->device, &program);
    if (memory) rig->backend->free_memory(rig->device, &memory);
    if (status != TN_OK) {
        tn_free(result->p);
        *result = (tn_table){0};
    }
    return status;
}

tn_status tn_rig_measure(const tn_rig *rig, const tn_graph *g, const tn_rig_options *o, tn_table *result,
                         tn_error *err) {
    tn_plan plan;
    tn_status status = tn_rig_plan(rig, &plan, g, o, err);
    if (status != TN_OK) return status;
    status = tn_rig_run(rig, &plan, o->kv, result, err);
    tn_plan_free(&plan);
    return status;
}
