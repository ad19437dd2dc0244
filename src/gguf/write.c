/* Writing GGUF files (version 3). Keys are put into their final bytes as they come; tensors are remembered and
 * written one by one when the file is saved. A failure on the way is kept and reported by the save. */
#include "base/arena.h"
#include "base/mem.h"
#include "gguf/gguf.h"
#include "gguf/reader.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct entry {
    tn_gguf_tensor t; /* its name in the arena */
    tn_gguf_fill *fill;
    void *fill_data;
} entry;

struct tn_gguf_writer {
    tn_arena arena;
    tn_buf kvs;
    uint64_t n_kv;
    entry *entries;
    size_t n_entries, cap;
    tn_gguf_index keys, names; /* of what was put, to refuse a second one; numbers are not used */
    size_t alignment;
    tn_status status; /* of the puts */
    tn_error err;
};

tn_status tn_gguf_writer_open(tn_gguf_writer **out, tn_error *err) {
    *out = tn_alloc_zero(1, sizeof **out);
    if (!*out) return tn_fail_memory(err);
    (*out)->alignment = 32;
    return TN_OK;
}

void tn_gguf_writer_close(tn_gguf_writer **w) {
    if (!*w) return;
    tn_buf_free(&(*w)->kvs);
    tn_free((*w)->entries);
    tn_arena_free(&(*w)->arena);
    tn_free(*w);
    *w = NULL;
}

static void fail_memory(tn_gguf_writer *w) {
    w->status = tn_fail_memory(&w->err);
}

/* Remembers a name, in a zero-terminated copy; NULL when it was there already or memory ran out. */
static const char *new_name(tn_gguf_writer *w, tn_gguf_index *index, const char *what, tn_str name) {
    char *copy = tn_arena_alloc(&w->arena, name.n + 1);
    if (!copy || !tn_gguf_index_reserve(index, &w->arena, 1)) {
        fail_memory(w);
        return NULL;
    }
    memcpy(copy, name.p, name.n);
    if (tn_gguf_index_add(index, (tn_str){copy, name.n}, 0)) return copy;
    w->status = tn_fail(&w->err, TN_ERR_USAGE, "%s '%s' is written twice", what, copy);
    return NULL;
}

/* ---- keys ---- */

static void add_str(tn_buf *b, tn_str s) {
    uint64_t n = s.n;
    tn_buf_add(b, &n, sizeof n);
    tn_buf_add(b, s.p, s.n);
}

static void add_array(tn_buf *b, const tn_gguf_array *a) {
    uint32_t type = a->type;
    assert(type < TN_GGUF_TYPES && type != TN_GGUF_ARRAY);
    tn_buf_add(b, &type, sizeof type);
    tn_buf_add(b, &a->n, sizeof a->n);
    if (type != TN_GGUF_STR) {
        tn_buf_add(b, a->data, (size_t)a->n * tn_gguf_types[type].bytes);
        return;
    }
    for (uint64_t i = 0; i < a->n; i++) add_str(b, a->strs[i]);
}

static void add_value(tn_buf *b, const tn_gguf_kv *kv) {
    const tn_gguf_type_info *type = &tn_gguf_types[kv->type];
    float f;
    switch (type->kind) {
    case KIND_STR: add_str(b, kv->str); break;
    case KIND_ARRAY: add_array(b, &kv->array); break;
    case KIND_FLOAT:
        f = kv->type == TN_GGUF_F32 ? (float)kv->f : 0;
        tn_buf_add(b, kv->type == TN_GGUF_F32 ? (const void *)&f : &kv->f, type->bytes);
        break;
    case KIND_BOOL:
    case KIND_UNSIGNED:
    case KIND_SIGNED: tn_buf_add(b, &kv->u, type->bytes); break; /* little-endian: the low bytes come first */
    }
}

void tn_gguf_put(tn_gguf_writer *w, const tn_gguf_kv *kv) {
    uint32_t type = kv->type;
    assert(type < TN_GGUF_TYPES && kv->key.n > 0);
    if (w->status || !new_name(w, &w->keys, "key", kv->key)) return;
    if (tn_str_is(kv->key, "general.alignment")) {
        if (type != TN_GGUF_U32 || kv->u < 8 || kv->u > UINT32_MAX || (kv->u & (kv->u - 1))) {
            w->status = tn_fail(&w->err, TN_ERR_USAGE, "general.alignment must be a u32, a power of two from 8 on");
            return;
        }
        w->alignment = (size_t)kv->u;
    }
    add_str(&w->kvs, kv->key);
    tn_buf_add(&w->kvs, &type, sizeof type);
    add_value(&w->kvs, kv);
    if (w->kvs.failed) fail_memory(w);
    w->n_kv++;
}

void tn_gguf_put_u32(tn_gguf_writer *w, const char *key, uint32_t v) {
    tn_gguf_put(w, &(tn_gguf_kv){.key = tn_str_of(key), .type = TN_GGUF_U32, .u = v});
}

void tn_gguf_put_f32(tn_gguf_writer *w, const char *key, float v) {
    tn_gguf_put(w, &(tn_gguf_kv){.key = tn_str_of(key), .type = TN_GGUF_F32, .f = v});
}

void tn_gguf_put_bool(tn_gguf_writer *w, const char *key, bool v) {
    tn_gguf_put(w, &(tn_gguf_kv){.key = tn_str_of(key), .type = TN_GGUF_BOOL, .u = v});
}

void tn_gguf_put_str(tn_gguf_writer *w, const char *key, const char *v) {
    tn_gguf_put(w, &(tn_gguf_kv){.key = tn_str_of(key), .type = TN_GGUF_STR, .str = tn_str_of(v)});
}

/* ---- tensors ---- */

/* The bytes of a tensor's data, from its type and sizes; false when they make no sense. */
static bool tensor_bytes(const tn_gguf_tensor *t, size_t *bytes) {
    const tn_type_info *type = tn_type_get(t->type);
    size_t elements = 1;
    if (!type || t->n_dims < 1 || t->n_dims > 4) return false;
    for (int i = 0; i < t->n_dims; i++) {
        if (t->ne[i] < 1 || !tn_mul_size(elements, (size_t)t->ne[i], &elements)) return false;
    }
    if (t->ne[0] % type->block || elements > INT64_MAX) return false;
    return tn_mul_size(elements / (size_t)type->block, (size_t)type->bytes, bytes);
}

static bool reserve_entry(tn_gguf_writer *w) {
    if (w->n_entries < w->cap) return true;
    size_t cap = w->cap ? 2 * w->cap : 64, bytes;
    if (!tn_mul_size(cap, sizeof *w->entries, &bytes)) return false;
    entry *entries = tn_realloc(w->entries, bytes);
    if (!entries) return false;
    w->entries = entries;
    w->cap = cap;
    return true;
}

void tn_gguf_put_tensor(tn_gguf_writer *w, const tn_gguf_tensor *t, tn_gguf_fill *fill, void *fill_data) {
    entry e = {.t = *t, .fill = fill, .fill_data = fill_data};
    assert(t->name[0]);
    if (w->status) return;
    if (!tensor_bytes(t, &e.t.bytes) || (!fill && !t->data)) {
        w->status = tn_fail(&w->err, TN_ERR_USAGE, "tensor '%s' cannot be written: its type or sizes", t->name);
    } else if (!reserve_entry(w)) {
        fail_memory(w);
    } else if ((e.t.name = new_name(w, &w->names, "tensor", tn_str_of(t->name)))) {
        w->entries[w->n_entries++] = e;
    }
}

/* ---- saving ---- */

/* The file that is being written. */
typedef struct output {
    const char *path;
    FILE *f;
    void *room; /* for the largest tensor that comes from a fill function */
    tn_error *err;
} output;

/* Everything before the data, padded up to them. */
static void add_header(const tn_gguf_writer *w, tn_buf *b) {
    uint32_t version = 3;
    uint64_t n_tensors = w->n_entries, offset = 0;
    tn_buf_str(b, "GGUF");
    tn_buf_add(b, &version, sizeof version);
    tn_buf_add(b, &n_tensors, sizeof n_tensors);
    tn_buf_add(b, &w->n_kv, sizeof w->n_kv);
    tn_buf_add(b, w->kvs.p, w->kvs.n);
    for (size_t i = 0; i < w->n_entries; i++) {
        const tn_gguf_tensor *t = &w->entries[i].t;
        uint32_t n_dims = (uint32_t)t->n_dims;
        add_str(b, tn_str_of(t->name));
        tn_buf_add(b, &n_dims, sizeof n_dims);
        tn_buf_add(b, t->ne, n_dims * sizeof t->ne[0]);
        tn_buf_add(b, &t->type, sizeof t->type);
        tn_buf_add(b, &offset, sizeof offset);
        offset += tn_align_up(t->bytes, w->alignment);
    }
    while (b->n % w->alignment && !b->failed) tn_buf_char(b, 0);
}

static tn_status fail_write(const output *o) {
    return tn_fail(o->err, TN_ERR_RESOURCES, "%s: cannot be written: %s", o->path, strerror(errno));
}

/* A tensor's data and the padding after them. */
static tn_status write_tensor(const tn_gguf_writer *w, const entry *e, const output *o) {
    const void *data = e->t.data;
    if (e->fill) {
        tn_status status = e->fill(e->fill_data, &e->t, o->room, o->err);
        if (status) return status;
        data = o->room;
    }
    bool ok = fwrite(data, 1, e->t.bytes, o->f) == e->t.bytes;
    for (size_t n = e->t.bytes; n % w->alignment && ok; n++) ok = putc(0, o->f) != EOF;
    return ok ? TN_OK : fail_write(o);
}

static tn_status write_all(const tn_gguf_writer *w, output *o) {
    tn_status status = TN_OK;
    tn_buf header = {0};
    size_t room = 0;
    for (size_t i = 0; i < w->n_entries; i++) {
        if (w->entries[i].fill && w->entries[i].t.bytes > room) room = w->entries[i].t.bytes;
    }
    o->room = tn_alloc(room);
    add_header(w, &header);
    if (!o->room || header.failed) {
        status = tn_fail_memory(o->err);
    } else if (fwrite(header.p, 1, header.n, o->f) != header.n) {
        status = fail_write(o);
    }
    for (size_t i = 0; i < w->n_entries && !status; i++) status = write_tensor(w, &w->entries[i], o);
    if (!status && (fflush(o->f) || fsync(fileno(o->f)))) status = fail_write(o);
    tn_buf_free(&header);
    tn_free(o->room);
    return status;
}

tn_status tn_gguf_writer_save(tn_gguf_writer *w, const char *path, tn_error *err) {
    struct stat st;
    output o = {.path = path, .err = err};
    if (w->status) return tn_fail(err, w->status, "%s", w->err.text);
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) { /* the rename would put a file in place of, say, a device */
        return tn_fail(err, TN_ERR_INPUT, "%s: is not a file", path);
    }
    tn_buf tmp = {0};
    tn_buf_printf(&tmp, "%s.tmp", path);
    if (tmp.failed) {
        tn_buf_free(&tmp);
        return tn_fail_memory(err);
    }
    tn_status status = TN_OK;
    o.f = fopen(tmp.p, "wbe");
    if (!o.f) {
        status = tn_fail(err, TN_ERR_INPUT, "%s: cannot be created: %s", path, strerror(errno));
        goto end;
    }
    status = write_all(w, &o);
    if (fclose(o.f) && !status) status = fail_write(&o);
    if (!status && rename(tmp.p, path)) status = fail_write(&o);
    if (status) unlink(tmp.p);
end:
    tn_buf_free(&tmp);
    return status;
}
