/* Weights to the device: each is cut into segments that one binding can hold, segments lie one after the other in slabs, in
 * the order of execution, so that what one launch reads is mostly within one binding. */
#include "backend/webgpu/webgpu.h"
#include "base/mem.h"

#include <string.h>

enum { SEGMENT_ALIGN = 256, UPLOAD = 8 << 20 };

static const tn_webgpu_type *held_as(const tn_weight *w) {
    return tn_webgpu_type_of(w->n_out == 1 ? TN_TYPE_F32 : w->type);
}

static int32_t blocks_of(const tn_weight *w) {
    return (w->n_in + 31) / 32;
}

/* Bytes of n rows in a plane; in a segment planes begin at multiples of 16. */
static uint64_t exact_bytes(const tn_webgpu_type *t, int plane, int32_t blocks, int32_t rows) {
    uint64_t n = (uint64_t)blocks * (uint64_t)rows;
    switch (plane) {
    case 0: return n * (uint64_t)t->quants * 4;
    case 1: return n * (uint64_t)t->high * 4;
    case 2: return n * (uint64_t)t->scale_bytes;
    default: return t->super ? n / 8 * 4 : 0;
    }
}

static uint64_t plane_bytes(const tn_webgpu_type *t, int plane, int32_t blocks, int32_t rows) {
    return tn_align_up(exact_bytes(t, plane, blocks, rows), 16);
}

static uint64_t segment_bytes(const tn_webgpu_type *t, int32_t blocks, int32_t rows) {
    uint64_t bytes = 0;
    for (int p = 0; p < TN_WEBGPU_PLANES; p++) bytes += plane_bytes(t, p, blocks, rows);
    return tn_align_up(bytes, SEGMENT_ALIGN);
}

/* Rows of a segment: all, or as many blocks of 32 as one binding holds; at least 32. */
static int32_t rows_of_segment(const tn_device *d, const tn_weight *w) {
    const tn_webgpu_type *t = held_as(w);
    if (segment_bytes(t, blocks_of(w), w->n_out) <= d->max_window) return w->n_out;
    int32_t rows = w->n_out;
    while (rows > 32 && segment_bytes(t, blocks_of(w), rows) > d->max_window) rows = (rows / 2 + 31) / 32 * 32;
    return rows;
}

int32_t tn_webgpu_segments(const tn_device *d, const tn_weight *w) {
    int32_t rows = rows_of_segment(d, w);
    return (w->n_out + rows - 1) / rows;
}

/* ---- where everything goes ---- */

/* The end of what is placed so far. */
typedef struct place_end {
    int32_t slabs; /* begun */
    uint64_t at;   /* in the last one */
} place_end;

static tn_status place(tn_device *d, const tn_weight *w, tn_webgpu_weight *to, place_end *end, tn_error *err) {
    int32_t rows = rows_of_segment(d, w);
    uint64_t slab_bytes = d->limits.maxBufferSize < UINT64_C(1) << 30 ? d->limits.maxBufferSize : UINT64_C(1) << 30;
    if (slab_bytes < d->max_window) slab_bytes = d->max_window;
    *to = (tn_webgpu_weight){held_as(w), w->n_out, w->n_in, blocks_of(w), NULL, tn_webgpu_segments(d, w)};
    to->segment = tn_alloc_zero((size_t)to->n_segments, sizeof *to->segment);
    if (!to->segment) return tn_fail_memory(err);
    for (int32_t i = 0; i < to->n_segments; i++) {
        tn_webgpu_segment *s = &to->segment[i];
        s->row = i * rows;
        s->n_rows = w->n_out - s->row < rows ? w->n_out - s->row : rows;
        for (int p = 0; p + 1 < TN_WEBGPU_PLANES; p++)
            s->plane[p + 1] = s->plane[p] + plane_bytes(to->type, p, to->n_blocks, s->n_rows);
        s->bytes = segment_bytes(to->type, to->n_blocks, s->n_rows);
        if (s->bytes > d->max_binding)
            return tn_fail(err, TN_ERR_RESOURCES, "webgpu: 32 rows of %s do not fit into one binding", w->name);
        if (end->slabs == 0 || end->at + s->bytes > slab_bytes) {
            end->slabs++;
            end->at = 0;
        }
        s->slab = end->slabs - 1;
        s->offset = end->at;
        end->at += s->bytes;
        d->weight_bytes += s->bytes;
    }
    return TN_OK;
}

static tn_status make_slabs(tn_device *d, tn_error *err) {
    const tn_webgpu_weight *last = d->n_weights ? &d->weights[d->n_weights - 1] : NULL;
    int32_t n = last ? last->segment[last->n_segments - 1].slab + 1 : 0;
    d->slabs = tn_alloc_zero((size_t)n, sizeof *d->slabs);
    uint64_t *bytes = tn_alloc_zero((size_t)n, sizeof *bytes);
    tn_status status = d->slabs && bytes ? TN_OK : tn_fail_memory(err);
    for (int32_t i = 0; i < d->n_weights && status == TN_OK; i++)
        for (int32_t k = 0; k < d->weights[i].n_segments; k++) {
            const tn_webgpu_segment *s = &d->weights[i].segment[k];
            if (s->offset + s->bytes > bytes[s->slab]) bytes[s->slab] = s->offset + s->bytes;
        }
    for (int32_t i = 0; i < n && status == TN_OK; i++) {
        status = tn_webgpu_buffer(d, &d->slabs[i], bytes[i], WGPUBufferUsage_Storage | WGPUBufferUsage_CopyDst,
                                  "the weights", err);
        d->n_slabs += status == TN_OK;
    }
    tn_free(bytes);
    return status;
}

/* ---- conversion ---- */

/* A row in the file's layout, as whole blocks: rows whose last block is short, and vectors, go through floats. */
static const uint8_t *row_of(const tn_weight *w, const tn_webgpu_weight *to, int32_t row, float *scratch) {
    const tn_type_info *info = tn_type_get(w->type);
    const uint8_t *from = tn_weight_row(w, row);
    if (w->type == to->type->type && w->n_in % 32 == 0) return from;
    memset(scratch, 0, (size_t)to->n_blocks * 128);
    if (w->type == to->type->type)
        memcpy(scratch, from, (size_t)w->n_in * (size_t)info->bytes); /* only plain floats have short rows */
    else
        info->decode(from, scratch, (size_t)w->n_in);
    return (const uint8_t *)scratch;
}

/* Rows [row, row + n) of a segment into the planes at `out`, each plane by itself at at[]. */
static void pack_rows(const tn_weight *w, const tn_webgpu_weight *to, int32_t row, int32_t n, char *const *at,
                      float *scratch) {
    const tn_webgpu_type *t = to->type;
    for (int32_t r = 0; r < n; r++) {
        const uint8_t *from = row_of(w, to, row + r, scratch);
        for (int32_t b = 0; b < to->n_blocks; b++) {
            uint32_t quants[32] = {0}, high[2] = {0}, scale = 0, super = 0;
            size_t i = (size_t)r * (size_t)to->n_blocks + (size_t)b;
            t->pack(from, b * 32, quants, high, &scale, &super);
            memcpy(at[0] + i * (size_t)t->quants * 4, quants, (size_t)t->quants * 4);
            if (t->high) memcpy(at[1] + i * (size_t)t->high * 4, high, (size_t)t->high * 4);
            if (t->scale_bytes) memcpy(at[2] + i * (size_t)t->scale_bytes, &scale, (size_t)t->scale_bytes);
            if (t->super && b % 8 == 0) memcpy(at[3] + i / 8 * 4, &super, 4);
        }
    }
}

/* Rows that are packed at once: planes must begin at multiples of 4 bytes, so an even number. */
static int32_t rows_at_once(const tn_webgpu_weight *w) {
    int64_t rows = UPLOAD / ((int64_t)w->n_blocks * (w->type->quants * 4 + 16)) / 2 * 2;
    return rows < 2 ? 2 : (int32_t)rows;
}

static tn_status put_segment(tn_device *d, const tn_weight *w, const tn_webgpu_weight *to, const tn_webgpu_segment *s,
                             tn_error *err) {
    int32_t rows = rows_at_once(to);
    if (rows > s->n_rows) rows = s->n_rows;
    char *at[TN_WEBGPU_PLANES] = {0};
    float *scratch = tn_alloc_zero((size_t)to->n_blocks, 128);
    bool ok = scratch != NULL;
    for (int p = 0; p < TN_WEBGPU_PLANES && ok; p++)
        ok = (at[p] = tn_alloc_zero(1, plane_bytes(to->type, p, to->n_blocks, rows) + 16)) != NULL;
    for (int32_t r = 0; r < s->n_rows && ok; r += rows) {
        int32_t n = s->n_rows - r < rows ? s->n_rows - r : rows;
        pack_rows(w, to, s->row + r, n, at, scratch);
        for (int p = 0; p < TN_WEBGPU_PLANES; p++) {
            uint64_t bytes = tn_align_up(exact_bytes(to->type, p, to->n_blocks, n), 4);
            uint64_t first = s->offset + s->plane[p] + exact_bytes(to->type, p, to->n_blocks, r);
            if (bytes) d->lib.QueueWriteBuffer(d->queue, d->slabs[s->slab], first, at[p], bytes);
        }
    }
    d->lib.QueueSubmit(d->queue, 0, NULL); /* what was written need not be kept for later */
    tn_webgpu_poll(&d->lib, d->instance, d->device, NULL);
    for (int p = 0; p < TN_WEBGPU_PLANES; p++) tn_free(at[p]);
    tn_free(scratch);
    return ok ? tn_webgpu_check(d, "writing weights", err) : tn_fail_memory(err);
}

tn_status tn_webgpu_place_weights(tn_device *d, const tn_weight *const *weights, int32_t n, tn_error *err) {
    place_end end = {0};
    d->weights = tn_alloc_zero((size_t)n, sizeof *d->weights);
    if (!d->weights) return tn_fail_memory(err);
    tn_status status = TN_OK;
    for (int32_t i = 0; i < n && status == TN_OK; i++) {
        if (!held_as(weights[i]))
            return tn_fail(err, TN_ERR_UNAVAILABLE, "webgpu: no layout for the type of %s", weights[i]->name);
        status = place(d, weights[i], &d->weights[i], &end, err);
        d->n_weights = i + 1;
    }
    return status;
}

tn_status tn_webgpu_put_weights(tn_device *d, const tn_weight *const *weights, int32_t n, tn_stored_fn *done,
                                void *data, tn_error *err) {
    uint64_t stored = 0;
    tn_status status = tn_webgpu_place_weights(d, weights, n, err);
    if (!d->device) return status; /* it only plans */
    if (status == TN_OK) status = make_slabs(d, err);
    for (int32_t i = 0; i < n && status == TN_OK; i++) {
        for (int32_t k = 0; k < d->weights[i].n_segments && status == TN_OK; k++) {
            status = put_segment(d, weights[i], &d->weights[i], &d->weights[i].segment[k], err);
            stored += d->weights[i].segment[k].bytes;
        }
        if (done && status == TN_OK) done(data, i, weights[i]->n_out, (double)stored / (double)d->weight_bytes);
    }
    return status;
}
