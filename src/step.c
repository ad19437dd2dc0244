/* Steps: a batch becomes the inputs of one step or several; what comes of them is kept. Nothing is allocated, matched or hashed
 * on the way of a token but for the growth of a batch's own bookkeeping. */
#include "base/mem.h"
#include "engine.h"

#include <string.h>

/* Gives a sequence the pages for n tokens in all. There are pages for every sequence at full length. */
static void take_pages(tn_session *s, int32_t seq, int32_t n) {
    tn_sequence *q = &s->seqs[seq];
    int32_t pages = (n + TN_PAGE_TOKENS - 1) / TN_PAGE_TOKENS;
    while (q->n_pages < pages)
        s->pages[(size_t)seq * (size_t)s->max_pages + (size_t)q->n_pages++] = s->free_pages[--s->n_free];
}

/* ---- batches ---- */

static int32_t seq_of(const tn_batch *b, int32_t i) {
    return b->seqs ? b->seqs[i] : 0;
}

/* What is wanted of a batch. */
static int want_of(const tn_batch *b) {
    return b->want ? b->want : TN_WANT_LOGITS;
}

static tn_status check_batch(const tn_session *s, const tn_batch *b, tn_error *err) {
    if (b->want & ~(TN_WANT_LOGITS | TN_WANT_CHOSEN | TN_WANT_BEST))
        return tn_fail(err, TN_ERR_USAGE, "a batch wants what there is not (%#x)", (unsigned)b->want);
    if (b->want & TN_WANT_BEST && s->options.all_logits)
        return tn_fail(err, TN_ERR_USAGE, "a session of all logits does not tell the best of them");
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
        if (!grow((void **)&s->rows, (size_t)rows, sizeof *s->rows) ||
            !grow((void **)&s->chosen, (size_t)rows, sizeof *s->chosen))
            return tn_fail_memory(err);
        size_t best = s->options.all_logits ? 0 : (size_t)rows * TN_N_BEST; /* all logits and the best: not both */
        if (best && (!grow((void **)&s->best_ids, best, sizeof *s->best_ids) ||
                     !grow((void **)&s->best_logits, best, sizeof *s->best_logits)))
            return tn_fail_memory(err);
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

/* ---- results ---- */

static void keep_best(tn_session *s, int32_t row, int32_t at, const tn_candidates *best) {
    size_t n = (size_t)best->n, to = (size_t)row * n, from = (size_t)at * n;
    s->n_best = best->n;
    if (n == 0) return;
    memcpy(s->best_ids + to, best->ids + from, n * sizeof *s->best_ids);
    memcpy(s->best_logits + to, best->logits + from, n * sizeof *s->best_logits);
}

/* Remembers what came of a step: where its logits are (those of steps before a batch's last one are copied), its choices, its best. */
static void keep_rows(tn_session *s, int32_t first, const tn_step_input *in, const tn_result *result, tn_phase phase,
                      bool last) {
    const tn_graph *g = &s->plan[phase].graph;
    bool every = g->nodes[g->output].out[0].rows == TN_ROWS_TOKENS; /* a row of each token, wanted or not */
    size_t n_vocab = (size_t)s->model->hp.n_vocab;
    for (int32_t k = 0; k < in->n_outputs; k++) {
        int32_t t = in->outputs[k], row = s->row_of[s->order[first + t]], at = every ? t : k;
        const float *from = result->logits ? result->logits + (size_t)at * n_vocab : NULL;
        s->chosen[row] = result->ids ? result->ids[at] : -1;
        keep_best(s, row, at, &result->best);
        float *kept = from && !last ? s->kept + (size_t)row * n_vocab : NULL;
        if (kept) memcpy(kept, from, n_vocab * sizeof *kept);
        s->rows[row] = kept ? kept : from;
    }
}

/* A failed step may have written half of a batch: its tokens are taken back. A recurrent state cannot be taken back: such
 * sequences are cleared. */
static void take_back(tn_session *s, int32_t seq) {
    int32_t n = s->seqs[seq].n;
    if (n > 0) tn_sequence_cut(s, seq, s->recurrent ? 0 : n - 1, NULL);
    s->n_rows = 0;
}

/* ---- steps ---- */

/* Room for a batch, its order, its rows: what must be known before anything is appended. */
static tn_status begin_batch(tn_session *s, const tn_batch *b, tn_error *err) {
    int32_t n_rows;
    if (!s->memory) return tn_fail(err, TN_ERR_USAGE, "the model was opened for its plans only");
    tn_status status = check_batch(s, b, err);
    if (status == TN_OK) status = grow_batch(s, b->n_tokens, err);
    if (status == TN_OK) status = order_batch(s, b, &n_rows, err);
    if (status != TN_OK) return status;
    size_t want = (size_t)n_rows * (size_t)s->model->hp.n_vocab;
    if (want_of(b) & TN_WANT_LOGITS && b->n_tokens > s->options.n_ubatch && want > s->kept_cap) {
        if (!grow((void **)&s->kept, want, sizeof *s->kept)) return tn_fail_memory(err);
        s->kept_cap = want;
    }
    s->n_rows = n_rows;
    s->n_best = 0;
    return TN_OK;
}

static tn_phase phase_of(const tn_session *s, int32_t n_tokens, int32_t n_runs) {
    if (n_runs == n_tokens && n_tokens <= s->options.n_seq) return TN_PHASE_DECODE;
    return n_tokens <= s->few ? TN_PHASE_FEW : TN_PHASE_PREFILL;
}

tn_phase tn_phase_of(const tn_session *s, int32_t n_tokens) {
    return phase_of(s, n_tokens, 1);
}

tn_status tn_step(tn_session *s, const tn_batch *b, tn_error *err) {
    const tn_backend *backend = s->model->backend;
    tn_status status = begin_batch(s, b, err);
    for (int32_t first = 0, n; status == TN_OK && first < b->n_tokens; first += n) {
        int32_t left = b->n_tokens - first;
        n = left < s->options.n_ubatch ? left : s->options.n_ubatch;
        tn_step_input in = fill_step(s, b, first, n);
        tn_phase phase = phase_of(s, in.n_tokens, in.n_runs);
        tn_result result;
        status = backend->submit(s->program[phase], &in, in.n_outputs ? want_of(b) : 0, err);
        if (status == TN_OK) status = backend->wait(s->program[phase], &result, err);
        if (status == TN_OK) keep_rows(s, first, &in, &result, phase, left == n);
        for (int32_t t = 0; status != TN_OK && t < first + n; t++) take_back(s, seq_of(b, s->order[t]));
    }
    return status;
}

tn_status tn_step_timed(tn_session *s, const tn_batch *b, tn_launch_time *times, tn_error *err) {
    const tn_backend *backend = s->model->backend;
    if (!backend->profile) return tn_fail(err, TN_ERR_UNAVAILABLE, "%s: launches cannot be timed", backend->name);
    if (b->n_tokens > s->options.n_ubatch)
        return tn_fail(err, TN_ERR_USAGE, "%d tokens are more than one step of %d", b->n_tokens, s->options.n_ubatch);
    tn_status status = begin_batch(s, b, err);
    if (status != TN_OK) return status;
    tn_step_input in = fill_step(s, b, 0, b->n_tokens);
    tn_phase phase = phase_of(s, in.n_tokens, in.n_runs);
    memset(times, 0, (size_t)s->plan[phase].partition.n * sizeof *times);
    status = backend->profile(s->program[phase], &in, times, err);
    for (int32_t t = 0; status != TN_OK && t < b->n_tokens; t++) take_back(s, seq_of(b, s->order[t]));
    s->n_rows = 0;
    return status;
}

/* ---- greedy ---- */

static tn_status feed_one(tn_session *s, int32_t seq, int32_t id, tn_error *err) {
    tn_batch b = {.ids = &id, .seqs = &seq, .n_tokens = 1};
    s->order[0] = s->row_of[0] = 0;
    tn_step_input in = fill_step(s, &b, 0, 1);
    return s->model->backend->submit(s->program[TN_PHASE_DECODE], &in, TN_WANT_CHOSEN, err);
}

static tn_status take_one(tn_session *s, int32_t *id, tn_error *err) {
    tn_result result;
    tn_status status = s->model->backend->wait(s->program[TN_PHASE_DECODE], &result, err);
    if (status == TN_OK) *id = result.ids[0];
    return status;
}

/* A step failed: what is under way is waited for and, like the failed one, not counted. */
static void give_up(tn_session *s, int32_t seq, int32_t lost) {
    int32_t unseen;
    tn_error unheard;
    for (int32_t i = 1; i < lost; i++) take_one(s, &unseen, &unheard);
    for (int32_t i = 0; i < lost; i++) take_back(s, seq);
}

tn_status tn_step_greedy(tn_session *s, const tn_greedy *o, tn_error *err) {
    tn_batch b = {.ids = &o->id, .seqs = &o->seq, .n_tokens = 1};
    tn_status status = begin_batch(s, &b, err);
    if (status != TN_OK) return status;
    s->n_rows = 0;
    int32_t ahead = s->model->backend->caps(s->model->device)->ahead, fed = 0, found = 0, id = o->id;
    bool on = o->n > 0;
    while (status == TN_OK && (on || fed > found)) {
        bool more = on && fed < o->n && s->seqs[o->seq].n < s->options.n_ctx;
        if (more && (fed == found || fed - found < ahead)) {
            status = feed_one(s, o->seq, fed == found ? id : TN_ID_CHOSEN, err);
            fed++;
        } else if (fed > found) {
            status = take_one(s, &id, err);
            if (status != TN_OK) break;
            found++;
            on = on && o->each(o->data, id);
        } else {
            break;
        }
    }
    if (status != TN_OK) give_up(s, o->seq, fed - found);
    return status;
}

const float *tn_logits(const tn_session *s, int32_t row) {
    return row >= 0 && row < s->n_rows ? s->rows[row] : NULL;
}
int32_t tn_logits_rows(const tn_session *s) {
    return s->n_rows;
}
int32_t tn_chosen(const tn_session *s, int32_t row) {
    return row >= 0 && row < s->n_rows ? s->chosen[row] : -1;
}

tn_candidates tn_best(const tn_session *s, int32_t row) {
    if (row < 0 || row >= s->n_rows || s->n_best == 0) return (tn_candidates){0};
    size_t at = (size_t)row * (size_t)s->n_best;
    return (tn_candidates){s->best_ids + at, s->best_logits + at, s->n_best};
}
