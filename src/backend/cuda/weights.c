/* A model's weights: packed by all threads, a slab at a time, while slabs before it are on their way to the device. Matrices lie
 * one behind the other there, in the order of execution; a slab holds several of them or, of one that is larger, some rows. */
#include "backend/cuda/cuda.h"
#include "backend/cuda/pack.h"
#include "base/mem.h"

#include <string.h>

enum { SLABS = 3, MAX_PIECES = 256 };
#define SLAB_BYTES ((size_t)16 << 20) /* or one vector, or 32 rows, where that is more */

/* What lies in a slab: a vector, or rows of one expert's matrix as a matrix of their own. */
typedef struct piece {
    const tn_weight *w;
    tn_cuda_rows rows;
    size_t at, bytes; /* in the slab */
} piece;

typedef struct upload {
    tn_device *device;
    char *slab[SLABS]; /* pinned */
    void *sent[SLABS]; /* when its copy is done */
    size_t slab_bytes;
    int now;          /* the slab being filled */
    int32_t n_packed; /* weights that are packed as a whole */
    int32_t weight;   /* the one in hand */
    piece piece[MAX_PIECES];
    int32_t n;
    size_t bytes;
    uint64_t to; /* where the slab's first byte goes */
} upload;

static size_t piece_bytes(const tn_weight *w, int32_t rows) {
    return w->elements ? tn_align_up(w->bytes, 256) : tn_cuda_planes_of(tn_cuda_traits(w->type), rows, w->n_in).bytes;
}

static size_t weight_bytes_of(const tn_weight *w) {
    return piece_bytes(w, w->n_out / w->n_expert) * (size_t)(w->elements ? 1 : w->n_expert);
}

/* ---- packing ---- */

static void pack_share(void *arg, int i, int n) {
    const upload *u = arg;
    char *slab = u->slab[u->now];
    size_t begin = u->bytes * (size_t)i / (size_t)n, end = u->bytes * (size_t)(i + 1) / (size_t)n;
    memset(slab + begin, 0, end - begin); /* what pads rows and planes */
    tn_pool_barrier(u->device->pool, i);
    for (int32_t k = 0; k < u->n; k++) {
        const piece *p = &u->piece[k];
        int32_t fours = (p->rows.n + 3) / 4;
        if (!p->w->elements) {
            tn_cuda_pack(p->w, &p->rows, (int32_t)((int64_t)fours * i / n), (int32_t)((int64_t)fours * (i + 1) / n),
                         slab + p->at);
        } else if (k % n == i) {
            size_t row = p->w->bytes / (size_t)p->w->n_out;
            for (int32_t r = 0; r < p->w->n_out; r++)
                memcpy(slab + p->at + (size_t)r * row, tn_weight_row(p->w, r), row);
        }
    }
}

/* ---- sending ---- */

/* Rows of a matrix that begins at u->to: their planes are parts of its own. */
static int send_rows(const upload *u, const piece *p) {
    const tn_weight *w = p->w;
    int traits = tn_cuda_traits(w->type);
    tn_cuda_planes row = tn_cuda_row_planes(traits, w->n_in), from = tn_cuda_planes_of(traits, p->rows.n, w->n_in),
                   to = tn_cuda_planes_of(traits, w->n_out / w->n_expert, w->n_in);
    const size_t plane[4][3] = {{row.low, from.low, to.low},
                                {row.high, from.high, to.high},
                                {row.scale, from.scale, to.scale},
                                {row.super, from.super, to.super}};
    size_t rows = tn_align_up((size_t)p->rows.n, 32);
    int result = 0;
    for (int i = 0; i < 4 && result == 0; i++)
        if (plane[i][0])
            result =
                u->device->cu.to_device_async(u->to + plane[i][2] + (size_t)p->rows.first * plane[i][0],
                                              u->slab[u->now] + plane[i][1], rows * plane[i][0], u->device->stream);
    return result;
}

/* Packs what was collected and begins to send it; the next slab is free after that. */
static int flush(upload *u) {
    const tn_cu *cu = &u->device->cu;
    const piece *p = u->piece;
    if (u->n == 0) return 0;
    tn_pool_run(u->device->pool, pack_share, u);
    bool part = !p->w->elements && p->rows.n < p->w->n_out / p->w->n_expert;
    int result = part ? send_rows(u, p) : cu->to_device_async(u->to, u->slab[u->now], u->bytes, u->device->stream);
    if (result == 0) result = cu->event_record(u->sent[u->now], u->device->stream);
    if (!part) u->to += u->bytes;
    u->now = (u->now + 1) % SLABS;
    u->n = 0;
    u->bytes = 0;
    u->n_packed = u->weight;
    return result ? result : cu->event_wait(u->sent[u->now]);
}

static int add_piece(upload *u, const tn_weight *w, tn_cuda_rows rows) {
    size_t bytes = piece_bytes(w, rows.n);
    int result = u->n == MAX_PIECES || u->bytes + bytes > u->slab_bytes ? flush(u) : 0;
    u->piece[u->n++] = (piece){w, rows, u->bytes, bytes};
    u->bytes += bytes;
    return result;
}

/* Some rows at a time of a matrix that is larger than a slab. */
static int add_large(upload *u, const tn_weight *w, int32_t expert) {
    int32_t all = w->n_out / w->n_expert,
            step = (int32_t)(u->slab_bytes / (piece_bytes(w, 1024) / 1024 + 1)) / 32 * 32;
    int result = flush(u);
    if (step < 32) step = 32;
    for (int32_t row = 0; row < all && result == 0; row += step) {
        result = add_piece(u, w, (tn_cuda_rows){expert, row, all - row < step ? all - row : step});
        if (result == 0) result = flush(u);
    }
    u->to += piece_bytes(w, all);
    return result;
}

static int add_weight(upload *u, const tn_weight *w) {
    int32_t rows = w->n_out / w->n_expert;
    int result = 0;
    if (w->elements) return add_piece(u, w, (tn_cuda_rows){0, 0, rows});
    for (int32_t e = 0; e < w->n_expert && result == 0; e++)
        result =
            piece_bytes(w, rows) <= u->slab_bytes ? add_piece(u, w, (tn_cuda_rows){e, 0, rows}) : add_large(u, w, e);
    return result;
}

/* ---- all of them ---- */

static int open_upload(upload *u, const tn_weight *const *weights, int32_t n) {
    const tn_cu *cu = &u->device->cu;
    int result = 0;
    u->slab_bytes = SLAB_BYTES;
    for (int32_t i = 0; i < n; i++) {
        size_t least = piece_bytes(weights[i], 32);
        if (least > u->slab_bytes) u->slab_bytes = least;
    }
    for (int i = 0; i < SLABS && result == 0; i++) {
        result = cu->host_alloc((void **)&u->slab[i], u->slab_bytes, 0);
        if (result == 0) result = cu->event_create(&u->sent[i], TN_CU_EVENT_UNTIMED);
    }
    return result;
}

static void close_upload(upload *u) {
    const tn_cu *cu = &u->device->cu;
    cu->stream_wait(u->device->stream);
    for (int i = 0; i < SLABS; i++) {
        if (u->sent[i]) cu->event_destroy(u->sent[i]);
        if (u->slab[i]) cu->host_free(u->slab[i]);
    }
}

/* Where a weight lies. */
static tn_k_weight place(const tn_weight *w, uint64_t at) {
    if (w->elements) return (tn_k_weight){.low = at};
    tn_cuda_planes p = tn_cuda_planes_of(tn_cuda_traits(w->type), w->n_out / w->n_expert, w->n_in);
    return (tn_k_weight){at + p.low, at + p.high, at + p.scale, at + p.super};
}

static tn_status send_all(tn_device *d, const tn_weight *const *weights, int32_t n, tn_stored_fn *done, void *data,
                          tn_error *err) {
    upload *u = tn_alloc_zero(1, sizeof *u);
    if (!u) return tn_fail_memory(err);
    *u = (upload){.device = d, .to = d->packed};
    uint64_t at = d->packed;
    int32_t told = 0;
    int result = open_upload(u, weights, n);
    for (int32_t i = 0; i < n && result == 0; i++) {
        d->weights[i] = place(weights[i], at);
        at += weight_bytes_of(weights[i]);
        u->weight = i;
        result = add_weight(u, weights[i]);
        for (; done && told < u->n_packed; told++)
            done(data, told, weights[told]->n_out, (double)(u->to - d->packed) / (double)d->packed_bytes);
    }
    u->weight = n;
    if (result == 0) result = flush(u);
    for (; done && result == 0 && told < n; told++) done(data, told, weights[told]->n_out, 1);
    if (result == 0) result = d->cu.stream_wait(d->stream);
    close_upload(u);
    tn_free(u);
    return tn_cu_check(&d->cu, result, "copying weights", err);
}

tn_status tn_cuda_put_weights(tn_device *d, const tn_weight *const *weights, int32_t n, tn_stored_fn *done,
                              void *data, tn_error *err) {
    for (int32_t i = 0; i < n; i++) {
        if (tn_cuda_traits(weights[i]->type) < 0)
            return tn_fail(err, TN_ERR_INPUT, "cuda: no layout for the type of %s", weights[i]->name);
        d->packed_bytes += weight_bytes_of(weights[i]);
    }
    if (!tn_cuda_is_real(d)) return TN_OK;
    d->weights = tn_alloc_zero((size_t)n, sizeof *d->weights);
    d->n_weights = n;
    if (!d->weights) return tn_fail_memory(err);
    tn_status status = tn_cu_check(&d->cu, d->cu.context_set(d->context), "using the device", err);
    if (status == TN_OK) status = tn_cuda_alloc(d, d->packed_bytes, "the weights", &d->packed, err);
    return status == TN_OK ? send_all(d, weights, n, done, data, err) : status;
}
