/* Sessions: options, plans, memory and programs, all made at open; sequences. Steps are in step.c. */
#include "engine.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void tn_engine_log(const tn_model *m, tn_log_level level, const char *format, ...) {
    if (!m->log) return;
    char line[300];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    m->log(m->log_data, level, line);
}

/* ---- open ---- */

tn_plan_target tn_engine_target(const tn_backend *backend, const tn_device *device) {
    const tn_caps *caps = backend->caps(device);
    return (tn_plan_target){device, backend->find_kernel, caps->int8_types, caps->align};
}

tn_status tn_engine_plan(tn_plan *plan, tn_model *model, const tn_session_options *o, tn_phase phase, tn_error *err) {
    bool decode = phase == TN_PHASE_DECODE;
    int32_t few = model->backend->caps(model->device)->few;
    int32_t tokens = decode ? o->n_seq : phase == TN_PHASE_FEW ? few : o->n_ubatch;
    tn_phase_shape shape = {.max_tokens = tokens,
                            .max_outputs = decode || o->all_logits || tokens < o->n_seq ? tokens : o->n_seq,
                            .one_token = decode,
                            .all_outputs = decode || o->all_logits};
    tn_graph g;
    tn_status status = tn_model_build(&g, model->arch, &model->hp, model->file, &model->weights, &shape, err);
    if (status != TN_OK) return status;
    tn_plan_target target = tn_engine_target(model->backend, model->device);
    return tn_plan_make(plan, &g, o->act == TN_ACT_F32, o->fuse, &target, err);
}

static tn_status fill_options(tn_session *s, const tn_session_options *options, tn_error *err) {
    tn_session_options *o = &s->options;
    if (options) *o = *options;
    if (o->n_ctx < 0 || o->n_seq < 0 || o->n_ubatch < 0)
        return tn_fail(err, TN_ERR_USAGE, "sizes of a session cannot be negative");
    if (o->n_ctx == 0) o->n_ctx = s->model->hp.n_ctx_train < 4096 ? s->model->hp.n_ctx_train : 4096;
    if (o->n_seq == 0) o->n_seq = 1;
    if (o->n_ubatch == 0) o->n_ubatch = 512;
    if (o->n_ctx > 1 << 24 || o->n_seq > 1 << 16 || o->n_ubatch > 1 << 20)
        return tn_fail(err, TN_ERR_USAGE, "a session of %d x %d positions, %d a step, is beyond reason", o->n_seq,
                       o->n_ctx, o->n_ubatch);
    if ((int64_t)(o->n_ctx / TN_PAGE_TOKENS + 1) * o->n_seq > INT32_MAX)
        return tn_fail(err, TN_ERR_USAGE, "a session of %d x %d positions is beyond reason", o->n_seq, o->n_ctx);
    if (o->n_ubatch < o->n_seq) o->n_ubatch = o->n_seq;
    if (o->n_ctx > s->model->hp.n_ctx_train)
        tn_engine_log(s->model, TN_LOG_WARN, "a context of %d positions: the model was trained for %d", o->n_ctx,
                      s->model->hp.n_ctx_train);
    s->fuse = tn_strndup(o->fuse ? o->fuse : "all", strlen(o->fuse ? o->fuse : "all"));
    o->fuse = s->fuse;
    return s->fuse ? TN_OK : tn_fail_memory(err);
}

static tn_status alloc_tables(tn_session *s, tn_error *err) {
    const tn_session_options *o = &s->options;
    size_t n = (size_t)o->n_ubatch;
    s->max_pages = (o->n_ctx + TN_PAGE_TOKENS - 1) / TN_PAGE_TOKENS;
    s->n_free = s->max_pages * o->n_seq;
    s->seqs = tn_alloc_zero((size_t)o->n_seq, sizeof *s->seqs);
    s->pages = tn_alloc_zero((size_t)s->n_free, sizeof *s->pages);
    s->free_pages = tn_alloc_zero((size_t)s->n_free, sizeof *s->free_pages);
    s->ids = tn_alloc_zero(n, sizeof *s->ids);
    s->pos = tn_alloc_zero(n, sizeof *s->pos);
    s->seq = tn_alloc_zero(n, sizeof *s->seq);
    s->outputs = tn_alloc_zero(n, sizeof *s->outputs);
    s->runs = tn_alloc_zero(n, sizeof *s->runs);
    if (!s->seqs || !s->pages || !s->free_pages || !s->ids || !s->pos || !s->seq || !s->outputs || !s->runs)
        return tn_fail_memory(err);
    for (int32_t i = 0; i < s->n_free; i++) s->free_pages[i] = s->n_free - 1 - i; /* page 0 is taken first */
    return TN_OK;
}

static tn_status make_memory(tn_session *s, tn_error *err) {
    const tn_graph *g = &s->plan[0].graph;
    tn_state_desc *states = tn_alloc_zero((size_t)g->n_states, sizeof *states);
    if (!states) return tn_fail_memory(err);
    tn_memory_desc desc = {.states = states,
                           .n_states = g->n_states,
                           .n_pages = s->n_free,
                           .n_seq = s->options.n_seq,
                           .kv_type = s->options.kv_type};
    for (int32_t i = 0; i < g->n; i++) {
        const tn_attr *a = &g->nodes[i].attr;
        if (g->nodes[i].op != TN_OP_STATE) continue;
        s->recurrent |= a->state_size > 0;
        states[a->index] = (tn_state_desc){a->n_kv, a->head_dim, a->v_dim, a->state_size};
        if (desc.kv_type != TN_KV_Q8_0 || (a->head_dim % 32 == 0 && a->v_dim % 32 == 0)) continue;
        tn_free(states);
        return tn_fail(err, TN_ERR_USAGE, "a cache of q8_0 needs heads of whole blocks of 32 elements: not %d and %d",
                       a->head_dim, a->v_dim);
    }
    for (int i = 0; i < TN_N_PHASES; i++)
        if (s->plan[i].arena_bytes > desc.arena_bytes) desc.arena_bytes = s->plan[i].arena_bytes;
    for (int32_t i = 0; i < g->n_states; i++)
        s->kv_bytes += s->model->backend->state_bytes(s->model->device, &states[i], &desc);
    tn_status status = TN_OK;
    if (!s->model->plan_only) status = s->model->backend->make_memory(s->model->device, &desc, &s->memory, err);
    tn_free(states);
    return status;
}

void tn_session_close(tn_session **session) {
    tn_session *s = *session;
    if (!s) return;
    const tn_backend *b = s->model->backend;
    for (int i = 0; i < TN_N_PHASES; i++) {
        if (s->program[i]) b->free_program(s->model->device, &s->program[i]);
        tn_plan_free(&s->plan[i]);
    }
    if (s->memory) b->free_memory(s->model->device, &s->memory);
    void *owned[] = {s->fuse,         s->seqs,   s->pages,    s->free_pages, s->ids,    s->pos,
                     s->seq,          s->runs,   s->outputs,  s->order,      s->row_of, s->kept,
                     (void *)s->rows, s->chosen, s->best_ids, s->best_logits};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) tn_free(owned[i]);
    tn_free(s);
    *session = NULL;
}

tn_status tn_session_open(tn_session **session, tn_model *model, const tn_session_options *options, tn_error *err) {
    *session = NULL;
    if (!model->device) return tn_fail(err, TN_ERR_USAGE, "the model was opened for its vocabulary only");
    tn_session *s = tn_alloc_zero(1, sizeof *s);
    if (!s) return tn_fail_memory(err);
    s->model = model;
    tn_status status = fill_options(s, options, err);
    if (status == TN_OK) status = alloc_tables(s, err);
    int32_t few = status == TN_OK ? model->backend->caps(model->device)->few : 0;
    if (few < s->options.n_ubatch) s->few = few;
    int n_phases = s->few ? TN_N_PHASES : TN_PHASE_FEW;
    for (int i = 0; i < n_phases && status == TN_OK; i++)
        status = tn_engine_plan(&s->plan[i], model, &s->options, (tn_phase)i, err);
    if (status == TN_OK) status = make_memory(s, err);
    for (int i = 0; i < n_phases && status == TN_OK && !model->plan_only; i++)
        status = model->backend->compile(model->device, &s->plan[i], s->memory, &s->program[i], err);
    if (status != TN_OK) {
        tn_session_close(&s);
        return status;
    }
    *session = s;
    return TN_OK;
}

void tn_session_get_info(const tn_session *s, tn_session_info *info) {
    const tn_plan *decode = &s->plan[TN_PHASE_DECODE], *prefill = &s->plan[TN_PHASE_PREFILL];
    uint64_t few = s->plan[TN_PHASE_FEW].hash; /* 0: there is none */
    const tn_plan *larger = decode->arena_bytes > prefill->arena_bytes ? decode : prefill;
    *info = (tn_session_info){.n_ctx = s->options.n_ctx,
                              .n_seq = s->options.n_seq,
                              .n_ubatch = s->options.n_ubatch,
                              .launches_decode = decode->partition.n,
                              .launches_prefill = prefill->partition.n,
                              .kv_bytes = s->kv_bytes,
                              .arena_bytes = larger->arena_bytes,
                              .arena_naive_bytes = larger->naive_bytes,
                              .decode_bytes = decode->read_bytes,
                              .decode_hash = decode->hash,
                              .prefill_hash = prefill->hash,
                              .few_hash = few,
                              .plan_hash =
                                  decode->hash ^ (prefill->hash << 1 | prefill->hash >> 63) ^ (few << 2 | few >> 62)};
}

/* ---- sequences ---- */

int32_t tn_sequence_length(const tn_session *s, int32_t seq) {
    return seq >= 0 && seq < s->options.n_seq ? s->seqs[seq].n : 0;
}

tn_status tn_sequence_cut(tn_session *s, int32_t seq, int32_t keep, tn_error *err) {
    if (seq < 0 || seq >= s->options.n_seq) return tn_fail(err, TN_ERR_USAGE, "there is no sequence %d", seq);
    tn_sequence *q = &s->seqs[seq];
    if (keep < 0 || keep > q->n)
        return tn_fail(err, TN_ERR_USAGE, "sequence %d has %d tokens: cannot keep %d", seq, q->n, keep);
    if (keep > 0 && keep < q->n && s->recurrent)
        return tn_fail(err, TN_ERR_USAGE,
                       "this model's state cannot be cut back: clear the sequence and feed it again");
    q->n = keep;
    int32_t pages = (keep + TN_PAGE_TOKENS - 1) / TN_PAGE_TOKENS;
    while (q->n_pages > pages)
        s->free_pages[s->n_free++] = s->pages[(size_t)seq * (size_t)s->max_pages + (size_t)--q->n_pages];
    return TN_OK;
}
