/* Sessions: plan and compile at open, then steps. Nothing is allocated, matched or hashed on the way of a token but for
 * the growth of a batch's own bookkeeping. */
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
    int32_t tokens = decode ? o->n_seq : o->n_ubatch;
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
    tn_status status = s->model->backend->make_memory(s->model->device, &desc, &s->memory, err);
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
    void *owned[] = {s->fuse, s->seqs,    s->pages, s->free_pages, s->ids,  s->pos,         s->seq,
                     s->runs, s->outputs, s->order, s->row_of,     s->kept, (void *)s->rows};
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
    for (int i = 0; i < TN_N_PHASES && status == TN_OK; i++)
        status = tn_engine_plan(&s->plan[i], model, &s->options, (tn_phase)i, err);
    if (status == TN_OK) status = make_memory(s, err);
    for (int i = 0; i < TN_N_PHASES && status == TN_OK; i++)
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
                              .plan_hash = decode->hash ^ (prefill->hash << 1 | prefill->hash >> 63)};
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

/* Gives a sequence the pages for n tokens in all. There are pages for every sequence at full length. */
static void take_pages(tn_session *s, int32_t seq, int32_t n) {
    tn_sequence *q = &s->seqs[seq];
    int32_t pages = (n + TN_PAGE_TOKENS - 1) / TN_PAGE_TOKENS;
    while (q->n_pages < pages)
        s->pages[(size_t)seq * (size_t)s->max_pages + (size_t)q->n_pages++] = s->free_pages[--s->n_free];
}

/* ---- steps ---- */

static int32_t seq_of(const tn_batch *b, int32_t i) {
    return b->seqs ? b->seqs[i] : 0;
}

static tn_status check_batch(const tn_session *s, const tn_batch *b, tn_error *err) {
    if (b->n_tokens < 1) return tn_fail(err, TN_ERR_USAGE, "a batch needs at least one token");
    for (int32_t i = 0; i < b->n_tokens; i++) {
        if (b->ids[i] < 0 || b->ids[i] >= s->model->hp.n_vocab)
            return tn_fail(err, TN_ERR_USAGE, "token id %d is not in the vocabulary of %d", b->ids[i],
                           s->model->hp.n_vocab);
        if (seq_of(b, i) < 0 || seq_of(b, i) >= s->options.n_seq)
            return tn_fail(err, TN_ERR_USAGE, "there is no sequence %d: the session holds %d", seq_of(b, i),
                           s->options.n_seq);
    }
    return TN_OK;
}

static bool grow(void **p, size_t n, size_t size) {
    void *q = tn_realloc(*p, n * size);
    if (q) *p = q;
    return q != NULL;
}

static tn_status grow_batch(tn_session *s, int32_t n, tn_error *err) {
    if (n > s->batch_cap) {
        if (!grow((void **)&s->order, (size_t)n, sizeof *s->order) ||
            !grow((void **)&s->row_of, (size_t)n, sizeof *s->row_of))
            return tn_fail_memory(err);
        s->batch_cap = n;
    }
    int32_t rows = s->options.all_logits ? n : n < s->options.n_seq ? n : s->options.n_seq;
    if (rows > s->rows_cap) {
        if (!grow((void **)&s->rows, (size_t)rows, sizeof *s->rows)) return tn_fail_memory(err);
        s->rows_cap = rows;
    }
    return TN_OK;
}

/* Orders the batch by sequence, sequences by first appearance; gives every token that wants logits its row. What the last
 * step left is not touched: a batch that does not fit changes nothing. */
static tn_status order_batch(tn_session *s, const tn_batch *b, int32_t *n_rows, tn_error *err) {
    int32_t n = 0;
    *n_rows = 0;
    for (int32_t i = 0; i < b->n_tokens; i++) s->row_of[i] = -1;
    for (int32_t i = 0; i < b->n_tokens; i++) {
        if (s->row_of[i] != -1) continue; /* its sequence is done */
        int32_t seq = seq_of(b, i), count = 0, last = i;
        for (int32_t j = i; j < b->n_tokens; j++) {
            if (seq_of(b, j) != seq) continue;
            s->order[n + count++] = j;
            s->row_of[last = j] = -2;
        }
        if (s->seqs[seq].n + count > s->options.n_ctx)
            return tn_fail(err, TN_ERR_INPUT, "%d tokens and %d more do not fit into a context of %d", s->seqs[seq].n,
                           count, s->options.n_ctx);
        if (!s->options.all_logits) s->row_of[last] = (*n_rows)++;
        n += count;
    }
    if (!s->options.all_logits) return TN_OK;
    for (int32_t i = 0; i < b->n_tokens; i++) s->row_of[i] = i;
    *n_rows = b->n_tokens;
    return TN_OK;
}

/* Fills the inputs of one step with ordered tokens [first, first + n). */
static tn_step_input fill_step(tn_session *s, const tn_batch *b, int32_t first, int32_t n) {
    tn_step_input in = {.ids = s->ids,
                        .pos = s->pos,
                        .seq = s->seq,
                        .outputs = s->outputs,
                        .runs = s->runs,
                        .pages = s->pages,
                        .max_pages = s->max_pages,
                        .n_tokens = n};
    for (int32_t t = 0; t < n; t++) {
        int32_t i = s->order[first + t], seq = seq_of(b, i);
        s->ids[t] = b->ids[i];
        s->seq[t] = seq;
        s->pos[t] = s->seqs[seq].n++;
        take_pages(s, seq, s->seqs[seq].n);
        if (s->row_of[i] >= 0) s->outputs[in.n_outputs++] = t;
        tn_run *run = in.n_runs ? &s->runs[in.n_runs - 1] : NULL;
        if (run && run->seq == seq)
            run->n++;
        else
            s->runs[in.n_runs++] = (tn_run){t, 1, s->pos[t], seq};
    }
    return in;
}

/* Remembers where the logits of a step's outputs are; those of steps before a batch's last one are copied. */
static void keep_rows(tn_session *s, int32_t first, const tn_step_input *in, const float *logits, tn_phase phase,
                      bool last) {
    const tn_graph *g = &s->plan[phase].graph;
    bool every = g->nodes[g->output].out[0].rows == TN_ROWS_TOKENS; /* a row of each token, wanted or not */
    size_t n_vocab = (size_t)s->model->hp.n_vocab;
    for (int32_t k = 0; k < in->n_outputs; k++) {
        int32_t t = in->outputs[k], row = s->row_of[s->order[first + t]];
        const float *from = logits + (size_t)(every ? t : k) * n_vocab;
        float *kept = last ? NULL : s->kept + (size_t)row * n_vocab;
        if (kept) memcpy(kept, from, n_vocab * sizeof *kept);
        s->rows[row] = kept ? kept : from;
    }
}

/* A failed step may have written half of a batch: its tokens are taken back. A recurrent state cannot be taken back: such
 * sequences are cleared. */
static void undo(tn_session *s, const tn_batch *b, int32_t done) {
    for (int32_t t = 0; t < done; t++) {
        int32_t seq = seq_of(b, s->order[t]), n = s->seqs[seq].n;
        if (n > 0) tn_sequence_cut(s, seq, s->recurrent ? 0 : n - 1, NULL);
    }
    s->n_rows = 0;
}

tn_status tn_step(tn_session *s, const tn_batch *b, tn_error *err) {
    int32_t n_rows;
    tn_status status = check_batch(s, b, err);
    if (status == TN_OK) status = grow_batch(s, b->n_tokens, err);
    if (status == TN_OK) status = order_batch(s, b, &n_rows, err);
    if (status != TN_OK) return status;
    size_t want = (size_t)n_rows * (size_t)s->model->hp.n_vocab;
    if (b->n_tokens > s->options.n_ubatch && want > s->kept_cap) {
        if (!grow((void **)&s->kept, want, sizeof *s->kept)) return tn_fail_memory(err);
        s->kept_cap = want;
    }
    s->n_rows = n_rows;
    for (int32_t first = 0; first < b->n_tokens;) {
        int32_t left = b->n_tokens - first, n = left < s->options.n_ubatch ? left : s->options.n_ubatch;
        tn_step_input in = fill_step(s, b, first, n);
        tn_phase phase = in.n_runs == n && n <= s->options.n_seq ? TN_PHASE_DECODE : TN_PHASE_PREFILL;
        const float *logits;
        status = s->model->backend->run(s->program[phase], &in, &logits, err);
        if (status != TN_OK) {
            undo(s, b, first + n);
            return status;
        }
        keep_rows(s, first, &in, logits, phase, first + n == b->n_tokens);
        first += n;
    }
    return TN_OK;
}

const float *tn_logits(const tn_session *s, int32_t row) {
    return row >= 0 && row < s->n_rows ? s->rows[row] : NULL;
}
int32_t tn_logits_rows(const tn_session *s) {
    return s->n_rows;
}
