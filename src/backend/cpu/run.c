/* Running a program: all threads go through the launches together, with a barrier after each. Work is cut statically; how
 * it is cut never changes a bit of the result. */
#include "backend/cpu/cpu.h"
#include "base/mem.h"

/* One thread in a step. */
typedef struct worker {
    const tn_step_input *step;
    char *scratch;
    int i, n;
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

/* Columns [c0, c0 + n) of all products of a part for tokens [t0, t0 + nt), and the ops on them. */
static void run_tile(const tn_cpu_part *part, const worker *w, int32_t c0, int32_t n, int32_t t0, int32_t nt) {
    const tn_cpu_frame whole = {.step = w->step, .scratch = w->scratch};
    int32_t padded = (int32_t)tn_align_up((size_t)n, TN_TILE_ROWS);
    tn_cpu_frame f = {.step = w->step, .scratch = w->scratch, .row0 = t0, .col0 = c0, .ld = padded};
    for (int32_t k = 0; k < part->n_products; k++) {
        const tn_cpu_product *p = &part->product[k];
        size_t ld = p->dst.where == TN_CPU_ARENA ? p->dst.stride / 4 : (size_t)padded;
        p->run(p->weight, c0, padded, tn_cpu_at(&p->x, &whole, t0, 0), p->x.stride, nt,
               (float *)tn_cpu_at(&p->dst, &f, t0, c0), ld);
    }
    for (int32_t k = 0; k < part->n_ops; k++) {
        const tn_cpu_op *op = &part->op[k];
        if (op->flat)
            op->run(op, &f, t0, c0, nt * padded); /* rows of a tile lie one after the other */
        else
            for (int32_t t = t0; t < t0 + nt; t++) op->run(op, &f, t, c0, n);
    }
}

static void run_matmuls(const tn_cpu_launch *l, const worker *w) {
    const tn_cpu_frame whole = {.step = w->step, .scratch = w->scratch};
    if (l->n_before) run_before(l, w, &whole);
    int32_t rows = rows_of(l, w->step), units = 0;
    for (int32_t k = 0; k < l->n_parts; k++) units += (l->part[k].cols + l->part[k].tile - 1) / l->part[k].tile;
    int32_t begin = (int32_t)((int64_t)units * w->i / w->n), end = (int32_t)((int64_t)units * (w->i + 1) / w->n);
    for (int32_t k = 0, first = 0; k < l->n_parts; k++) {
        const tn_cpu_part *part = &l->part[k];
        int32_t tiles = (part->cols + part->tile - 1) / part->tile;
        for (int32_t u = begin > first ? begin : first; u < end && u < first + tiles; u++) {
            int32_t c0 = (u - first) * part->tile, left = part->cols - c0;
            for (int32_t t0 = 0; t0 < rows; t0 += TN_CPU_TOKEN_CHUNK)
                run_tile(part, w, c0, left < part->tile ? left : part->tile, t0,
                         rows - t0 < TN_CPU_TOKEN_CHUNK ? rows - t0 : TN_CPU_TOKEN_CHUNK);
        }
        first += tiles;
    }
}

/* The columns of one kv head's share of an op. */
static void run_head_op(const tn_cpu_op *op, const tn_cpu_frame *f, int32_t row, int32_t head, int32_t n_kv) {
    int32_t n = op->cols / n_kv;
    op->run(op, f, row, head * n, n);
}

static void run_attend_unit(const tn_cpu_launch *l, const worker *w, const tn_run *run, int32_t t0, int32_t nt,
                            int32_t head) {
    tn_cpu_attention a = l->attend.a;
    tn_cpu_frame f = {.step = w->step, .scratch = w->scratch, .row0 = t0};
    a.pages = w->step->pages + (size_t)run->seq * (size_t)w->step->max_pages;
    for (int32_t t = t0; t < t0 + nt; t++)
        for (int32_t k = 0; k < l->n_before; k++) run_head_op(&l->before[k], &f, t, head, a.kv.n_kv);
    l->attend.run(&a, head, run->pos + t0 - run->first, nt, (const float *)tn_cpu_at(&l->attend.q, &f, t0, 0),
                  l->attend.q.stride / 4, (float *)tn_cpu_at(&l->attend.out, &f, t0, 0), l->attend.out.stride / 4,
                  w->scratch + l->attend.scratch);
    for (int32_t t = t0; t < t0 + nt; t++)
        for (int32_t k = 0; k < l->n_after; k++) run_head_op(&l->after[k], &f, t, head, a.kv.n_kv);
}

static void run_attend(const tn_cpu_launch *l, const worker *w) {
    int32_t unit = 0, n_kv = l->attend.a.kv.n_kv;
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

typedef struct step_call {
    tn_program *program;
    const tn_step_input *step;
} step_call;

static void run_step(void *arg, int i, int n) {
    const step_call *call = arg;
    const tn_program *p = call->program;
    worker w = {call->step, p->scratch + p->scratch_bytes * (size_t)i, i, n};
    for (int32_t k = 0; k < p->n; k++) {
        const tn_cpu_launch *l = &p->launch[k];
        switch (l->form) {
        case TN_FORM_ROWS: run_rows(l, &w); break;
        case TN_FORM_MATMULS: run_matmuls(l, &w); break;
        case TN_FORM_ATTEND: run_attend(l, &w); break;
        }
        tn_pool_barrier(p->device->pool, i);
    }
}

tn_status tn_cpu_run(tn_program *program, const tn_step_input *step, const float **logits, tn_error *err) {
    (void)err;
    step_call call = {program, step};
    tn_pool_run(program->device->pool, run_step, &call);
    *logits = program->logits;
    return TN_OK;
}
