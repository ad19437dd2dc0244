/* Running a program: all threads go through the launches together, with a barrier after each. Work is cut statically; how
 * it is cut never changes a bit of the result. */
#include "backend/cpu/cpu.h"
#include "base/clock.h"
#include "base/mem.h"

#include <string.h>

/* One thread in a step. */
typedef struct worker {
    const tn_step_input *step;
    char *scratch;
    float *parts; /* of all threads: see run_segments, run_matmuls */
    tn_pool *pool;
    int i, n;
    bool choice_only; /* nobody wants the logits */
} worker;

static int32_t rows_of(const tn_cpu_launch *l, const tn_step_input *step) {
    return l->rows == TN_ROWS_OUTPUTS ? step->n_outputs : step->n_tokens;
}

static void run_rows(const tn_cpu_launch *l, const worker *w) {
    int32_t n = rows_of(l, w->step);
    int32_t begin = (int32_t)((int64_t)n * w->i / w->n), end = (int32_t)((int64_t)n * (w->i + 1) / w->n);
    for (int32_t row = begin; row < end; row++) {
        tn_cpu_frame f = {.step = w->step, .scratch = w->scratch, .row0 = row};
        for (int32_t k = 0; k < l->n_before; k++) l->before[k].run(&l->before[k], &f, row, 0, l->before[k].cols);
    }
}

/* Row ops before the products, by every thread for itself; what is stored of them, by the first. */
static void run_before(const tn_cpu_launch *l, const worker *w, const tn_cpu_frame *f) {
    int32_t rows = rows_of(l, w->step);
    for (int32_t row = 0; row < rows; row++)
        for (int32_t k = 0; k < l->n_before; k++) l->before[k].run(&l->before[k], f, row, 0, l->before[k].cols);
    for (int32_t row = 0; w->i == 0 && row < rows; row++)
        for (int32_t k = 0; k < l->n_copies; k++) l->copy[k].run(&l->copy[k], f, row, 0, l->copy[k].cols);
}

/* The best columns of a thread's, one for each of so many rows. */
static tn_cpu_top *tops_of(const worker *w, int thread, int32_t rows) {
    return (tn_cpu_top *)((char *)w->parts + tn_cpu_tops_bytes(rows) * (size_t)thread);
}

/* Threads have columns in order: of equal numbers the first thread's is the lowest. */
static void join_tops(const tn_cpu_part *part, const worker *w, int32_t rows) {
    const tn_cpu_frame whole = {.step = w->step, .scratch = w->scratch};
    for (int32_t row = 0; row < rows; row++) {
        tn_cpu_top best = tops_of(w, 0, rows)[row];
        for (int k = 1; k < w->n; k++) {
            tn_cpu_top top = tops_of(w, k, rows)[row];
            if (top.at >= 0 && (best.at < 0 || top.max > best.max)) best = top;
        }
        *(int32_t *)tn_cpu_at(&part->chosen, &whole, row, 0) = best.at < 0 ? 0 : best.at;
    }
}

/* Columns [c0, c0 + n) of all products of a part for tokens [t0, t0 + nt) of `rows`, and the ops on them. */
static void run_tile(const tn_cpu_part *part, const worker *w, int32_t c0, int32_t n, int32_t t0, int32_t nt,
                     int32_t rows) {
    const tn_cpu_frame whole = {.step = w->step, .scratch = w->scratch};
    int32_t padded = (int32_t)tn_align_up((size_t)n, TN_TILE_ROWS);
    tn_cpu_frame f = {.step = w->step, .scratch = w->scratch, .row0 = t0, .col0 = c0, .ld = padded};
    bool aside = w->choice_only && part->aside.where == TN_CPU_TILE;
    for (int32_t k = 0; k < part->n_products; k++) {
        const tn_cpu_product *p = &part->product[k];
        const tn_cpu_operand *dst = aside ? &part->aside : &p->dst;
        size_t ld = dst->where == TN_CPU_ARENA ? dst->stride / 4 : (size_t)padded;
        p->run(&p->weight->w, c0, padded, tn_cpu_at(&p->x, &whole, t0, 0), p->x.stride, nt,
               (float *)tn_cpu_at(dst, &f, t0, c0), ld);
    }
    for (int32_t k = 0; k < part->n_ops; k++) {
        const tn_cpu_op *op = &part->op[k];
        if (op->flat)
            op->run(op, &f, t0, c0, nt * padded); /* rows of a tile lie one after the other */
        else
            for (int32_t t = t0; t < t0 + nt; t++) op->run(op, &f, t, c0, n);
    }
    tn_cpu_top *tops = part->argmax ? tops_of(w, w->i, rows) : NULL;
    const tn_cpu_operand *scores = aside ? &part->aside : &part->scores;
    for (int32_t t = t0; tops && t < t0 + nt; t++)
        tn_cpu_top_of(&tops[t], (const float *)tn_cpu_at(scores, &f, t, c0), c0, n);
}

/* ---- experts: the rows that chose one are brought together, so that its weights are read once ---- */

/* (token, slot) pairs of a step, ordered by expert: pair = token * n_used + slot. */
typedef struct pairs {
    int32_t *count, *start, *pair;
    int32_t active; /* experts that somebody chose */
} pairs;

static pairs list_pairs(const tn_cpu_part *part, const worker *w, int32_t rows) {
    const tn_cpu_frame whole = {.step = w->step, .scratch = w->scratch};
    int32_t *room = (int32_t *)(w->scratch + part->lists), n = part->n_used;
    pairs p = {room, room + part->n_expert, room + 2 * part->n_expert, 0};
    memset(p.count, 0, (size_t)part->n_expert * sizeof *p.count);
    for (int32_t t = 0; t < rows; t++)
        for (int32_t j = 0; j < n; j++) p.count[((const int32_t *)tn_cpu_at(&part->ids, &whole, t, 0))[j]]++;
    for (int32_t e = 0, at = 0; e < part->n_expert; at += p.count[e++]) {
        p.start[e] = at;
        p.active += p.count[e] > 0;
    }
    for (int32_t t = 0; t < rows; t++)
        for (int32_t j = 0; j < n; j++) {
            int32_t e = ((const int32_t *)tn_cpu_at(&part->ids, &whole, t, 0))[j];
            p.pair[p.start[e]++] = t * n + j;
        }
    for (int32_t e = 0; e < part->n_expert; e++) p.start[e] -= p.count[e];
    return p;
}

static const char *gather_rows(const tn_cpu_part *part, const tn_cpu_product *p, const worker *w, const int32_t *pair,
                               int32_t n) {
    const tn_cpu_frame whole = {.step = w->step, .scratch = w->scratch};
    char *to = w->scratch + p->gather;
    for (int32_t i = 0; i < n; i++) {
        const char *row = tn_cpu_at(&p->x, &whole, pair[i] / part->n_used, 0);
        memcpy(to + p->row * (size_t)i, row + p->slot * (size_t)(pair[i] % part->n_used), p->row);
    }
    return to;
}

/* Columns [c0, c0 + n) of one expert for up to TN_CPU_TOKEN_CHUNK pairs. */
static void run_expert_tile(const tn_cpu_part *part, const worker *w, int32_t expert, const int32_t *pair,
                            int32_t n_pairs, int32_t c0, int32_t n) {
    int32_t padded = (int32_t)tn_align_up((size_t)n, TN_TILE_ROWS);
    tn_cpu_frame f = {.step = w->step, .scratch = w->scratch, .ld = padded};
    for (int32_t k = 0; k < part->n_products; k++) {
        const tn_cpu_product *p = &part->product[k];
        tn_cpu_weight weight = p->weight->w;
        weight.data = (const char *)weight.data + p->weight->expert_stride * (size_t)expert;
        p->run(&weight, c0, padded, gather_rows(part, p, w, pair, n_pairs), p->row, n_pairs,
               (float *)tn_cpu_at(&p->dst, &f, 0, 0), (size_t)padded);
    }
    for (int32_t k = 0; k < part->n_ops; k++) {
        const tn_cpu_op *op = &part->op[k];
        if (op->flat) {
            op->run(op, &f, 0, 0, n_pairs * padded);
            continue;
        }
        for (int32_t i = 0; i < n_pairs; i++) {
            int32_t t = pair[i] / part->n_used, c = pair[i] % part->n_used * part->cols + c0;
            tn_cpu_frame own = {.step = w->step, .scratch = w->scratch, .row0 = t - i, .col0 = c, .ld = padded};
            op->run(op, &own, t, c, n);
        }
    }
}

static void run_experts(const tn_cpu_part *part, const worker *w, int32_t rows) {
    pairs p = list_pairs(part, w, rows);
    int32_t tiles = (part->cols + part->tile - 1) / part->tile, units = tiles * p.active;
    int32_t begin = (int32_t)((int64_t)units * w->i / w->n), end = (int32_t)((int64_t)units * (w->i + 1) / w->n);
    for (int32_t e = 0, first = 0; e < part->n_expert; e++) {
        if (!p.count[e]) continue;
        for (int32_t u = begin > first ? begin : first; u < end && u < first + tiles; u++) {
            int32_t c0 = (u - first) * part->tile, left = part->cols - c0;
            for (int32_t i = 0; i < p.count[e]; i += TN_CPU_TOKEN_CHUNK) {
                int32_t n = p.count[e] - i < TN_CPU_TOKEN_CHUNK ? p.count[e] - i : TN_CPU_TOKEN_CHUNK;
                run_expert_tile(part, w, e, p.pair + p.start[e] + i, n, c0, left < part->tile ? left : part->tile);
            }
        }
        first += tiles;
    }
}

/* Columns [c0, end) of a part for all rows. Few rows take many columns in a call, many rows as many as stay in the cache. */
static void run_columns(const tn_cpu_part *part, const worker *w, int32_t c0, int32_t end, int32_t rows) {
    int32_t width =
        rows <= TN_CPU_FEW_TOKENS ? TN_CPU_TILE_SIZE / TN_CPU_FEW_TOKENS : TN_CPU_TILE_SIZE / TN_CPU_TOKEN_CHUNK;
    for (int32_t n; c0 < end; c0 += n) {
        n = end - c0 < width ? end - c0 : width;
        for (int32_t t0 = 0; t0 < rows; t0 += TN_CPU_TOKEN_CHUNK)
            run_tile(part, w, c0, n, t0, rows - t0 < TN_CPU_TOKEN_CHUNK ? rows - t0 : TN_CPU_TOKEN_CHUNK, rows);
    }
}

/* The first column of a part whose weights lie `at` bytes or more behind the part's first. */
static int32_t column_at(const tn_cpu_part *part, int64_t at) {
    int64_t unit = at <= 0 ? 0 : (at + part->unit_bytes - 1) / part->unit_bytes;
    return unit < (part->cols + TN_CPU_UNIT - 1) / TN_CPU_UNIT ? (int32_t)unit * TN_CPU_UNIT : part->cols;
}

/* Every thread gets the same share of the bytes, in columns that lie together. */
static void run_matmuls(const tn_cpu_launch *l, const worker *w) {
    const tn_cpu_frame whole = {.step = w->step, .scratch = w->scratch};
    if (l->n_before) run_before(l, w, &whole);
    int32_t rows = rows_of(l, w->step);
    const tn_cpu_part *chooses = NULL;
    int64_t first = 0, begin = l->bytes * w->i / w->n, end = l->bytes * (w->i + 1) / w->n;
    for (int32_t k = 0; k < l->n_parts; k++) {
        const tn_cpu_part *part = &l->part[k];
        if (part->n_expert) {
            run_experts(part, w, rows);
            continue;
        }
        for (int32_t row = 0; part->argmax && row < rows; row++) tops_of(w, w->i, rows)[row].at = -1;
        run_columns(part, w, column_at(part, begin - first), column_at(part, end - first), rows);
        first += part->bytes;
        chooses = part->argmax ? part : chooses;
    }
    if (!chooses) return;
    tn_pool_barrier(w->pool, w->i);
    if (w->i == 0) join_tops(chooses, w, rows);
}

/* The columns of one kv head's share of an op. */
static void run_head_op(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t head, int32_t n_kv) {
    int32_t n = op->cols / n_kv;
    op->run(op, f, row, head * n, n);
}

static tn_cpu_attention attention_of(const tn_cpu_launch *l, const worker *w, const tn_run *run) {
    tn_cpu_attention a = l->attend.a;
    a.pages = w->step->pages + (size_t)run->seq * (size_t)w->step->max_pages;
    return a;
}

static void call_attention(const tn_cpu_launch *l, const worker *w, const tn_cpu_attention *a, const tn_run *run,
                           int32_t t0, int32_t nt, int32_t head) {
    tn_cpu_frame f = {.step = w->step, .scratch = w->scratch, .row0 = t0};
    l->attend.run(a, head, run->pos + t0 - run->first, nt, (const float *)tn_cpu_at(&l->attend.q, &f, t0, 0),
                  l->attend.q.stride / 4, (float *)tn_cpu_at(&l->attend.out, &f, t0, 0), l->attend.out.stride / 4,
                  w->scratch + l->attend.scratch);
}

static void run_attend_unit(const tn_cpu_launch *l, const worker *w, const tn_run *run, int32_t t0, int32_t nt,
                            int32_t head) {
    tn_cpu_attention a = attention_of(l, w, run);
    tn_cpu_frame f = {.step = w->step, .scratch = w->scratch, .row0 = t0};
    for (int32_t t = t0; t < t0 + nt; t++)
        for (int32_t k = 0; k < l->n_before; k++) run_head_op(&l->before[k], &f, t, head, a.kv.n_kv);
    call_attention(l, w, &a, run, t0, nt, head);
    for (int32_t t = t0; t < t0 + nt; t++)
        for (int32_t k = 0; k < l->n_after; k++) run_head_op(&l->after[k], &f, t, head, a.kv.n_kv);
}

/* ---- a long context of few tokens: its segments are done apart, then joined ---- */

/* Segments that a run of one token sees: [first, first + n). */
typedef struct segments {
    int32_t first, n;
} segments;

static segments segments_of(const tn_cpu_attention *a, const tn_run *run) {
    int32_t low = a->window && run->pos >= a->window ? run->pos - a->window + 1 : 0;
    int32_t first = low / TN_PAGE / TN_SEGMENT;
    return (segments){first, run->pos / TN_PAGE / TN_SEGMENT - first + 1};
}

/* Where the parts of a kv head's segments begin; the next segment's are part_stride floats on. */
static float *part_at(const tn_cpu_launch *l, const worker *w, int32_t slot, int32_t head) {
    const tn_cpu_attention *a = &l->attend.a;
    return w->parts + (size_t)slot * l->attend.part_stride +
           (size_t)(head * (a->n_head / a->kv.n_kv)) * (size_t)(a->kv.v_dim + 2);
}

/* The cache is written where it is read: in the last segment. */
static void run_segment(const tn_cpu_launch *l, const worker *w, const tn_run *run, int32_t segment, int32_t head,
                        float *part) {
    tn_cpu_attention a = attention_of(l, w, run);
    tn_cpu_frame f = {.step = w->step, .scratch = w->scratch, .row0 = run->first};
    bool last = segment == run->pos / TN_PAGE / TN_SEGMENT;
    for (int32_t k = 0; k < l->n_before; k++)
        if (last || !l->before[k].kv) run_head_op(&l->before[k], &f, run->first, head, a.kv.n_kv);
    a.part = part;
    a.segment = segment;
    call_attention(l, w, &a, run, run->first, 1, head);
}

static void join_segments(const tn_cpu_launch *l, const worker *w, const tn_run *run, int32_t n, int32_t head,
                          const float *part) {
    const tn_cpu_attention *a = &l->attend.a;
    tn_cpu_frame f = {.step = w->step, .scratch = w->scratch, .row0 = run->first};
    int32_t group = a->n_head / a->kv.n_kv, v_dim = a->kv.v_dim;
    for (int32_t i = 0; i < group; i++)
        tn_attention_join(part + i * (v_dim + 2), n, l->attend.part_stride, v_dim,
                          (float *)tn_cpu_at(&l->attend.out, &f, run->first, (head * group + i) * v_dim));
    for (int32_t k = 0; k < l->n_after; k++) run_head_op(&l->after[k], &f, run->first, head, a->kv.n_kv);
}

/* Whether it pays: some context has several segments, and there is room for the parts of all. */
static bool in_segments(const tn_cpu_launch *l, const worker *w) {
    int32_t slots = 0;
    for (int32_t r = 0; r < w->step->n_runs; r++) slots += segments_of(&l->attend.a, &w->step->runs[r]).n;
    return w->n > 1 && slots > w->step->n_runs && slots <= l->attend.slots;
}

/* Pages of segment s of a run. */
static int32_t pages_in(const tn_run *run, int32_t segment) {
    int32_t left = run->pos / TN_PAGE + 1 - segment * TN_SEGMENT;
    return left < TN_SEGMENT ? left : TN_SEGMENT;
}

/* Every thread gets about the same number of pages, and a head's one after the other; what a window hides of its first segment
 * counts, though nobody reads it. */
static void run_segments(const tn_cpu_launch *l, const worker *w) {
    int32_t n_kv = l->attend.a.kv.n_kv, unit = 0, slot = 0;
    int64_t total = 0, at = 0;
    for (int32_t r = 0; r < w->step->n_runs; r++) {
        const tn_run *run = &w->step->runs[r];
        segments s = segments_of(&l->attend.a, run);
        for (int32_t k = 0; k < s.n; k++) total += (int64_t)pages_in(run, s.first + k) * n_kv;
    }
    for (int32_t r = 0; r < w->step->n_runs; r++) {
        const tn_run *run = &w->step->runs[r];
        segments s = segments_of(&l->attend.a, run);
        for (int32_t head = 0; head < n_kv; head++)
            for (int32_t k = 0; k < s.n; k++) {
                int32_t pages = pages_in(run, s.first + k);
                bool mine = (2 * at + pages) * w->n / (2 * total) == w->i;
                if (mine) run_segment(l, w, run, s.first + k, head, part_at(l, w, slot + k, head));
                at += pages;
            }
        slot += s.n;
    }
    tn_pool_barrier(w->pool, w->i);
    slot = 0;
    for (int32_t r = 0; r < w->step->n_runs; r++) {
        segments s = segments_of(&l->attend.a, &w->step->runs[r]);
        for (int32_t head = 0; head < n_kv; head++)
            if (unit++ % w->n == w->i) join_segments(l, w, &w->step->runs[r], s.n, head, part_at(l, w, slot, head));
        slot += s.n;
    }
}

static void run_attend(const tn_cpu_launch *l, const worker *w) {
    int32_t unit = 0, n_kv = l->attend.a.kv.n_kv;
    if (in_segments(l, w)) {
        run_segments(l, w);
        return;
    }
    for (int32_t r = 0; r < w->step->n_runs; r++) {
        const tn_run *run = &w->step->runs[r];
        for (int32_t t = 0; t < run->n; t += l->attend.block)
            for (int32_t head = 0; head < n_kv; head++, unit++) { /* dealt out in turn: later blocks cost more */
                if (unit % w->n != w->i) continue;
                int32_t left = run->n - t;
                run_attend_unit(l, w, run, run->first + t, left < l->attend.block ? left : l->attend.block, head);
            }
    }
}

/* ---- recurrences: a thread takes a head (or some channels) of a sequence and goes through its tokens ---- */

/* Heads of k are shared by heads of v: head h of v goes with head h % n_kv of k. */
static void run_delta_op(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t head, const tn_attr *a) {
    bool of_k = op->cols == a->n_kv * a->head_dim && a->n_kv != a->n_head;
    int32_t n = op->cols / (of_k ? a->n_kv : a->n_head);
    op->run(op, f, row, (of_k ? head % a->n_kv : head) * n, n);
}

static void run_delta(const tn_cpu_launch *l, const worker *w, const tn_run *run, int32_t head) {
    const tn_attr *a = &l->scan.node->attr;
    size_t size = (size_t)a->head_dim * (size_t)a->v_dim;
    float *state = l->scan.state->floats + l->scan.state->size * (size_t)run->seq + size * (size_t)head;
    if (run->pos == 0) memset(state, 0, size * sizeof *state);
    for (int32_t t = run->first; t < run->first + run->n; t++) {
        tn_cpu_frame f = {.step = w->step, .scratch = w->scratch, .row0 = t};
        for (int32_t k = 0; k < l->n_before; k++) run_delta_op(&l->before[k], &f, t, head, a);
        const tn_cpu_operand *s = l->scan.src;
        int32_t k_col = head % a->n_kv * a->head_dim;
        l->scan.delta(
            state, (const float *)tn_cpu_at(&s[0], &f, t, k_col), (const float *)tn_cpu_at(&s[1], &f, t, k_col),
            (const float *)tn_cpu_at(&s[2], &f, t, head * a->v_dim), *(const float *)tn_cpu_at(&s[3], &f, t, head),
            *(const float *)tn_cpu_at(&s[4], &f, t, head), (float *)tn_cpu_at(&l->scan.out, &f, t, head * a->v_dim),
            a->head_dim, a->v_dim, (float *)(w->scratch + l->scan.scratch));
        for (int32_t k = 0; k < l->n_after; k++) run_delta_op(&l->after[k], &f, t, head, a);
    }
}

static void run_conv1d(const tn_cpu_launch *l, const worker *w, const tn_run *run, int32_t c0, int32_t n) {
    const tn_node *node = l->scan.node;
    int32_t cols = node->out[0].cols, taps = node->attr.kernel;
    float *state = l->scan.state->floats + l->scan.state->size * (size_t)run->seq;
    for (int32_t j = 0; run->pos == 0 && j < taps - 1; j++)
        memset(state + j * cols + c0, 0, (size_t)n * sizeof *state);
    for (int32_t t = run->first; t < run->first + run->n; t++) {
        tn_cpu_frame f = {.step = w->step, .scratch = w->scratch, .row0 = t};
        l->scan.conv1d(state, l->scan.taps, (const float *)tn_cpu_at(&l->scan.src[0], &f, t, c0),
                       (float *)tn_cpu_at(&l->scan.out, &f, t, c0), taps, cols, c0, n);
        for (int32_t k = 0; k < l->n_after; k++) l->after[k].run(&l->after[k], &f, t, c0, n);
    }
}

enum { CHANNELS = 64 }; /* of a convolution, a unit of work */

static void run_scan(const tn_cpu_launch *l, const worker *w) {
    bool heads = l->scan.node->op == TN_OP_GATED_DELTA_NET;
    int32_t cols = l->scan.node->out[0].cols, unit = 0;
    int32_t units = heads ? l->scan.node->attr.n_head : (cols + CHANNELS - 1) / CHANNELS;
    for (int32_t r = 0; r < w->step->n_runs; r++)
        for (int32_t u = 0; u < units; u++, unit++) {
            if (unit % w->n != w->i) continue;
            int32_t c0 = u * CHANNELS, left = cols - c0;
            if (heads)
                run_delta(l, w, &w->step->runs[r], u);
            else
                run_conv1d(l, w, &w->step->runs[r], c0, left < CHANNELS ? left : CHANNELS);
        }
}

typedef struct step_call {
    tn_program *program;
    const tn_step_input *step;
    int want;
    tn_launch_time *times; /* of each launch; NULL: nobody asks */
    double start;
} step_call;

static void run_launch(const tn_cpu_launch *l, const worker *w) {
    switch (l->form) {
    case TN_FORM_ROWS: run_rows(l, w); break;
    case TN_FORM_MATMULS: run_matmuls(l, w); break;
    case TN_FORM_ATTEND: run_attend(l, w); break;
    case TN_FORM_SCAN: run_scan(l, w); break;
    }
}

static void run_step(void *arg, int i, int n) {
    const step_call *call = arg;
    const tn_program *p = call->program;
    worker w = {call->step,
                p->scratch + p->scratch_bytes * (size_t)i,
                p->parts,
                p->device->pool,
                i,
                n,
                call->want == TN_WANT_CHOSEN};
    if (call->times) tn_pool_barrier(p->device->pool, i); /* waking the threads is nobody's time */
    for (int32_t k = 0; k < p->n; k++) {
        bool timed = call->times && i == 0;
        if (!tn_launch_wanted(p->plan, k, call->want)) continue;
        if (timed) call->times[k].start = tn_seconds() - call->start;
        run_launch(&p->launch[k], &w);
        tn_pool_barrier(p->device->pool, i);
        if (timed) call->times[k].end = tn_seconds() - call->start;
    }
}

static int32_t n_choices(const tn_program *p, const tn_step_input *step) {
    const tn_graph *g = &p->plan->graph;
    return g->nodes[g->output].out[0].rows == TN_ROWS_OUTPUTS ? step->n_outputs : step->n_tokens;
}

static void run(tn_program *p, const tn_step_input *step, int want, tn_launch_time *times) {
    p->step = *step;
    p->want = want;
    p->step.ids = p->ids;
    for (int32_t t = 0; t < step->n_tokens; t++)
        p->ids[t] = step->ids[t] == TN_ID_CHOSEN ? p->memory->chosen[t] : step->ids[t];
    step_call call = {p, &p->step, want, times, times ? tn_seconds() : 0};
    tn_pool_run(p->device->pool, run_step, &call);
    if (!p->chosen || !(want & TN_WANT_CHOSEN)) return;
    memcpy(p->kept, p->chosen, (size_t)n_choices(p, step) * sizeof *p->kept);
    p->memory->chosen = p->kept;
}

/* The host is the device: a step is done when it has been submitted. */
tn_status tn_cpu_submit(tn_program *p, const tn_step_input *step, int want, tn_error *err) {
    (void)err;
    run(p, step, want, NULL);
    return TN_OK;
}

tn_status tn_cpu_wait(tn_program *p, tn_result *result, tn_error *err) {
    (void)err;
    *result = (tn_result){p->want & TN_WANT_LOGITS ? p->logits : NULL, p->want & TN_WANT_CHOSEN ? p->kept : NULL};
    if (p->want & TN_WANT_BEST) result->best = p->best;
    return TN_OK;
}

tn_status tn_cpu_profile(tn_program *p, const tn_step_input *step, tn_launch_time *times, tn_error *err) {
    (void)err;
    run(p, step, ~0, times);
    return TN_OK;
}
