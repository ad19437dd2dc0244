/* The CPU as a device: its instruction set, its threads, its weights and caches. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/kernels/layout.h"
#include "backend/cpu/kernels/matmul.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* ---- open ---- */

static tn_status choose_isa(tn_device *d, const char *variant, tn_error *err) {
    char names[80] = "";
    d->isa = tn_isa_best();
    if (!variant) return TN_OK;
    for (tn_isa isa = TN_ISA_REF; isa < TN_ISA_COUNT; isa++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", tn_isa_name(isa));
        if (strcmp(variant, tn_isa_name(isa))) continue;
        if (!tn_isa_has(isa)) return tn_fail(err, TN_ERR_UNAVAILABLE, "this processor has no %s", variant);
        d->isa = isa;
        return TN_OK;
    }
    return tn_fail(err, TN_ERR_USAGE, "the cpu backend has no variant '%s'; there are: %s", variant, names);
}

static bool holds(tn_type type) {
    (void)type;
    return true;
}

static void fill_caps(tn_device *d) {
    tn_caps_add_types(&d->caps, holds);
    d->caps.align = 64;
    d->caps.ahead = 1;
    snprintf(d->caps.description, sizeof d->caps.description, "cpu (%s, %d thread%s)", tn_isa_name(d->isa),
             tn_pool_size(d->pool), tn_pool_size(d->pool) == 1 ? "" : "s");
}

static void device_close(tn_device **device) {
    tn_device *d = *device;
    if (!d) return;
    tn_pool_close(&d->pool);
    tn_free(d->weights);
    tn_free_pages(d->packed, d->packed_bytes);
    tn_free(d);
    *device = NULL;
}

static tn_status device_open(tn_device **device, const tn_device_options *options, tn_error *err) {
    *device = NULL;
    tn_device *d = tn_alloc_zero(1, sizeof *d);
    if (!d) return tn_fail_memory(err);
    tn_status status = choose_isa(d, options->variant, err);
    if (status == TN_OK) status = tn_pool_open(&d->pool, options->threads, err);
    if (status != TN_OK) {
        device_close(&d);
        return status;
    }
    fill_caps(d);
    *device = d;
    return TN_OK;
}

static const tn_caps *device_caps(const tn_device *d) {
    return &d->caps;
}

/* ---- weights ---- */

static int32_t expert_rows(const tn_weight *w) {
    return w->n_out / w->n_expert;
}
static int32_t tiles_of(int32_t rows) {
    return (rows + TN_TILE_ROWS - 1) / TN_TILE_ROWS;
}

/* Bytes an expert (or the whole weight) takes in the arena; 0: it is used where the file has it. */
static size_t expert_size(const tn_device *d, const tn_weight *w) {
    if (tn_cpu_layout_for(d, w) == TN_LAYOUT_TILE16)
        return tn_tile_bytes(w->type, w->n_in) * (size_t)tiles_of(expert_rows(w));
    bool copied = w->n_out == 1 || w->elements || w->block;
    return copied ? tn_align_up(w->bytes / (size_t)w->n_expert, 64) : 0;
}

static size_t packed_size(const tn_device *d, const tn_weight *w) {
    return expert_size(d, w) * (size_t)w->n_expert;
}

/* Whoever loads is told of every slice, so that the file's pages can go while the rest of a large weight is still to come. */
enum { SLICE = 16 << 20 };

typedef struct storing {
    tn_stored_fn *done;
    void *data;
    size_t total, at; /* bytes of the arena */
} storing;

static void tell(storing *s, int32_t weight, int32_t rows, size_t bytes) {
    s->at += bytes;
    if (s->done) s->done(s->data, weight, rows, s->total ? (double)s->at / (double)s->total : 1.0);
}

/* Tiles [begin, end) of a weight or an expert of it, its rows brought together where they are scattered in the file. */
typedef struct pack_call {
    const tn_weight *from;
    tn_cpu_weight rows;
    int32_t first; /* row of the weight */
    int32_t begin, end;
    char *to, *rows_buffer; /* room for the rows of an expert, NULL where they lie together */
} pack_call;

static void gather_rows(const pack_call *c, char *to, int32_t begin, int32_t end) {
    for (int32_t r = begin; r < end; r++)
        memcpy(to + (size_t)r * c->rows.stride, tn_weight_row(c->from, c->first + r), c->rows.stride);
}

static void pack_share(void *arg, int i, int n) {
    pack_call *c = arg;
    int32_t tiles = c->end - c->begin;
    int32_t begin = c->begin + (int32_t)((int64_t)tiles * i / n),
            end = c->begin + (int32_t)((int64_t)tiles * (i + 1) / n);
    int32_t r0 = begin * TN_TILE_ROWS, r1 = end * TN_TILE_ROWS < c->rows.n_out ? end * TN_TILE_ROWS : c->rows.n_out;
    tn_cpu_weight rows = c->rows;
    if (c->rows_buffer) {
        gather_rows(c, c->rows_buffer, r0, r1);
        rows.data = c->rows_buffer;
    }
    if (begin < end) tn_tile_pack(&rows, begin, end, c->to);
}

/* An expert in slices; what is left over is told of with the next one's. */
static void pack_slices(tn_device *d, pack_call *c, int32_t weight, size_t *untold, storing *s) {
    int32_t tiles = tiles_of(c->rows.n_out);
    size_t tile = tn_tile_bytes(c->rows.type, c->rows.n_in);
    int32_t step = tile < SLICE ? (int32_t)(SLICE / tile) : 1;
    for (c->begin = 0; c->begin < tiles; c->begin = c->end) {
        c->end = tiles - c->begin < step ? tiles : c->begin + step;
        tn_pool_run(d->pool, pack_share, c);
        *untold += tile * (size_t)(c->end - c->begin);
        if (*untold < SLICE) continue;
        int32_t rows = c->end < tiles ? c->end * TN_TILE_ROWS : c->rows.n_out;
        tell(s, weight, c->first + rows, *untold);
        *untold = 0;
    }
}

static tn_status put_weight(tn_device *d, const tn_weight *w, int32_t index, storing *s, tn_error *err) {
    size_t stride = w->bytes / (size_t)w->n_out, size = expert_size(d, w), untold = 0;
    int32_t rows = expert_rows(w);
    tn_cpu_matrix *to = &d->weights[index];
    to->w = (tn_cpu_weight){w->data, stride, w->type, rows, w->n_in};
    to->expert_stride = stride * (size_t)rows;
    if (!size) {
        tell(s, -1, 0, 0);
        return TN_OK;
    }
    bool tiles = tn_cpu_layout_for(d, w) == TN_LAYOUT_TILE16, scattered = w->block && w->block < rows;
    char *buffer = tiles && scattered ? tn_alloc(stride * (size_t)rows) : NULL, *at = d->packed + s->at;
    if (tiles && scattered && !buffer) return tn_fail_memory(err);
    for (int32_t e = 0; e < w->n_expert; e++) {
        pack_call c = {
            .from = w, .rows = to->w, .first = e * rows, .to = at + size * (size_t)e, .rows_buffer = buffer};
        c.rows.data = tn_weight_row(w, e * rows);
        if (tiles) {
            pack_slices(d, &c, index, &untold, s);
            continue;
        }
        gather_rows(&c, c.to, 0, rows);
        untold += size;
    }
    tn_free(buffer);
    to->w.data = at;
    to->expert_stride = size;
    if (tiles) to->w.stride = tn_tile_bytes(w->type, w->n_in);
    tell(s, index, w->n_out, untold);
    return TN_OK;
}

static tn_status put_weights(tn_device *d, const tn_weight *const *weights, int32_t n, tn_stored_fn *done, void *data,
                             tn_error *err) {
    storing s = {.done = done, .data = data};
    for (int32_t i = 0; i < n; i++) s.total += packed_size(d, weights[i]);
    d->weights = tn_alloc_zero((size_t)n, sizeof *d->weights);
    d->packed = s.total ? tn_alloc_pages(s.total) : NULL;
    d->packed_bytes = d->packed ? s.total : 0;
    if (!d->weights || (s.total && !d->packed))
        return tn_fail(err, TN_ERR_RESOURCES, "out of memory: the weights need %.1f MiB",
                       (double)s.total / (1 << 20));
    d->n_weights = n;
    tn_status status = TN_OK;
    for (int32_t i = 0; i < n && status == TN_OK; i++) status = put_weight(d, weights[i], i, &s, err);
    return status;
}

static uint64_t weight_bytes(const tn_device *d) {
    uint64_t bytes = d->packed_bytes;
    for (int32_t i = 0; i < d->n_weights; i++) {
        const tn_cpu_weight *w = &d->weights[i].w;
        const char *p = w->data;
        bool packed = p >= d->packed && p < d->packed + d->packed_bytes;
        if (!packed) bytes += w->stride * (uint64_t)w->n_out;
    }
    return bytes;
}

/* ---- a session's memory ---- */

static size_t state_bytes(const tn_device *d, const tn_state_desc *s, const tn_memory_desc *desc) {
    (void)d;
    if (s->size) return (size_t)s->size * sizeof(float) * (size_t)desc->n_seq;
    return tn_kv_page_bytes(desc->kv_type, s->n_kv, s->k_dim, s->v_dim) * (size_t)desc->n_pages;
}

static void free_memory(tn_device *d, tn_memory **memory) {
    (void)d;
    tn_memory *m = *memory;
    if (!m) return;
    for (int32_t i = 0; i < m->n_states && m->states; i++) {
        tn_free_pages(m->states[i].kv.base, m->states[i].bytes);
        tn_free_pages(m->states[i].floats, m->states[i].bytes);
    }
    tn_free(m->states);
    tn_free_pages(m->arena, m->arena_bytes);
    tn_free(m);
    *memory = NULL;
}

static bool make_state(tn_cpu_state *state, const tn_device *d, const tn_state_desc *s, const tn_memory_desc *desc) {
    state->bytes = state_bytes(d, s, desc);
    state->size = (size_t)s->size;
    void *p = tn_alloc_pages(state->bytes);
    if (s->size)
        state->floats = p;
    else
        state->kv = (tn_cpu_kv){.base = p,
                                .page_bytes = tn_kv_page_bytes(desc->kv_type, s->n_kv, s->k_dim, s->v_dim),
                                .type = desc->kv_type,
                                .n_kv = s->n_kv,
                                .k_dim = s->k_dim,
                                .v_dim = s->v_dim};
    return p != NULL;
}

static tn_status make_memory(tn_device *d, const tn_memory_desc *desc, tn_memory **memory, tn_error *err) {
    *memory = NULL;
    tn_memory *m = tn_alloc_zero(1, sizeof *m);
    if (!m) return tn_fail_memory(err);
    m->n_states = desc->n_states;
    m->kv_type = desc->kv_type;
    m->arena_bytes = desc->arena_bytes;
    m->states = tn_alloc_zero((size_t)desc->n_states, sizeof *m->states);
    m->arena = tn_alloc_pages(desc->arena_bytes);
    bool ok = m->states && m->arena;
    for (int32_t i = 0; ok && i < desc->n_states; i++) ok = make_state(&m->states[i], d, &desc->states[i], desc);
    if (!ok) {
        free_memory(d, &m);
        return tn_fail(err, TN_ERR_RESOURCES, "out of memory for the caches and activations of a session");
    }
    *memory = m;
    return TN_OK;
}

const tn_backend tn_backend_cpu = {
    .name = "cpu",
    .open = device_open,
    .close = device_close,
    .caps = device_caps,
    .facts = tn_cpu_facts,
    .find_kernel = tn_cpu_find_kernel,
    .put_weights = put_weights,
    .weight_bytes = weight_bytes,
    .state_bytes = state_bytes,
    .make_memory = make_memory,
    .free_memory = free_memory,
    .compile = tn_cpu_compile,
    .free_program = tn_cpu_free_program,
    .submit = tn_cpu_submit,
    .wait = tn_cpu_wait,
    .profile = tn_cpu_profile,
    .peak = tn_cpu_read_rate,
};
