/* The header of one GGUF file -> keys and tensors. Nothing in a file is trusted: every length is compared with the
 * bytes that are left before it is used, so that memory and time stay in proportion to the file whatever its counts
 * say, and every error names the key or tensor and the byte. */
#include "base/mem.h"
#include "gguf/reader.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const tn_gguf_type_info tn_gguf_types[TN_GGUF_TYPES] = {
    [TN_GGUF_U8] = {KIND_UNSIGNED, 1},  [TN_GGUF_U16] = {KIND_UNSIGNED, 2}, [TN_GGUF_U32] = {KIND_UNSIGNED, 4},
    [TN_GGUF_U64] = {KIND_UNSIGNED, 8}, [TN_GGUF_I8] = {KIND_SIGNED, 1},    [TN_GGUF_I16] = {KIND_SIGNED, 2},
    [TN_GGUF_I32] = {KIND_SIGNED, 4},   [TN_GGUF_I64] = {KIND_SIGNED, 8},   [TN_GGUF_F32] = {KIND_FLOAT, 4},
    [TN_GGUF_F64] = {KIND_FLOAT, 8},    [TN_GGUF_BOOL] = {KIND_BOOL, 1},    [TN_GGUF_STR] = {KIND_STR, 0},
    [TN_GGUF_ARRAY] = {KIND_ARRAY, 0},
};

enum {
    MAX_NAME = 65535, /* bytes in the name of a key (the specification's limit) or tensor */
    MAX_KEYS = 1 << 16,
    MAX_TENSORS = 1 << 18,
    MAX_STRINGS = 1 << 24,              /* in one array */
    MIN_KEY = 8 + 1 + 4 + 1,            /* bytes in the file: name, type, value */
    MIN_TENSOR = 8 + 1 + 4 + 8 + 4 + 8, /* name, dimensions, size, type, offset */
    MIN_STRING = 8,
    DEFAULT_ALIGNMENT = 32,
    MIN_ALIGNMENT = 8, /* the specification asks for a multiple of 8 */
};

/* Where we are, and what an error should call it. */
typedef struct cursor {
    const tn_gguf_part *part;
    tn_arena *arena;
    size_t pos;
    const char *what; /* "key", "tensor", or "header" */
    tn_str name;      /* of that key or tensor; empty while it is not known */
    size_t number;
    tn_status status; /* once a function has returned false */
    tn_error *err;
} cursor;

/* ---- errors ---- */

tn_status tn_gguf_bad(const tn_gguf_part *part, tn_error *err, const char *format, ...) {
    char text[sizeof err->text];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char *label = part->label ? part->label : "GGUF data";
    return tn_fail(err, TN_ERR_INPUT, "%s: %s", label, text);
}

/* The name of what is read now, fit for one line: clipped, and whatever is not plain text is a '?'. */
static void show_name(const cursor *c, char *out, size_t size) {
    if (strcmp(c->what, "header") == 0) {
        snprintf(out, size, "header");
        return;
    }
    if (!c->name.n) {
        snprintf(out, size, "%s %zu", c->what, c->number + 1);
        return;
    }
    char clean[72];
    size_t n = c->name.n < sizeof clean - 1 ? c->name.n : sizeof clean - 1;
    for (size_t i = 0; i < n; i++) clean[i] = c->name.p[i] >= ' ' && c->name.p[i] <= '~' ? c->name.p[i] : '?';
    clean[n] = 0;
    snprintf(out, size, "%s '%s%s'", c->what, clean, n < c->name.n ? "..." : "");
}

__attribute__((format(printf, 3, 4))) static bool bad(cursor *c, size_t at, const char *format, ...) {
    char text[300], name[100];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    show_name(c, name, sizeof name);
    c->status = tn_gguf_bad(c->part, c->err, "%s at byte %zu: %s", name, at, text);
    return false;
}

static bool no_memory(cursor *c) {
    c->status = tn_fail_memory(c->err);
    return false;
}

/* `count` zeroed items of `size` bytes in the reader's arena. */
static bool new_items(cursor *c, void *out, size_t count, size_t size) {
    size_t bytes;
    void *p = tn_mul_size(count, size, &bytes) ? tn_arena_alloc(c->arena, bytes) : NULL;
    if (!p) return no_memory(c);
    memcpy(out, &p, sizeof p);
    return true;
}

/* ---- bytes ---- */

static size_t left(const cursor *c) {
    return c->part->bytes - c->pos;
}

static bool take(cursor *c, uint64_t n, const void **p) {
    if (n > left(c)) return bad(c, c->pos, "the file ends in the middle of it, at byte %zu", c->part->bytes);
    *p = c->part->data + c->pos;
    c->pos += (size_t)n;
    return true;
}

static bool get(cursor *c, void *value, size_t bytes) {
    const void *p = NULL;
    if (!take(c, bytes, &p)) return false;
    memcpy(value, p, bytes);
    return true;
}

static bool get_str(cursor *c, tn_str *s) {
    uint64_t n;
    size_t at = c->pos;
    const void *p;
    if (!get(c, &n, sizeof n)) return false;
    if (n > left(c)) return bad(c, at, "a string of %" PRIu64 " bytes runs past the end of the file", n);
    if (!take(c, n, &p)) return false;
    *s = (tn_str){p, (size_t)n};
    return true;
}

/* The name of a key or tensor: from here on errors use it. */
static bool get_name(cursor *c, const char *what, size_t number) {
    size_t at = c->pos;
    tn_str name;
    c->what = what;
    c->number = number;
    c->name = (tn_str){0};
    if (!get_str(c, &name)) return false;
    if (name.n == 0) return bad(c, at, "its name is empty");
    if (name.n > MAX_NAME) return bad(c, at, "its name has %zu bytes", name.n);
    if (memchr(name.p, 0, name.n)) return bad(c, at, "its name holds a zero byte");
    c->name = name;
    return true;
}

/* ---- the index of names ---- */

static bool index_reserve(cursor *c, tn_gguf_index *index, size_t more) {
    return tn_gguf_index_reserve(index, c->arena, more) || no_memory(c);
}

static bool index_add(cursor *c, tn_gguf_index *index, tn_str name, size_t number, size_t at) {
    return tn_gguf_index_add(index, name, number) || bad(c, at, "there is another one of this name");
}

/* ---- keys ---- */

#define LOAD(type, field)                                                                                            \
    {                                                                                                                \
        type v;                                                                                                      \
        memcpy(&v, p, sizeof v);                                                                                     \
        kv->field = v;                                                                                               \
        break;                                                                                                       \
    }
void tn_gguf_load_number(tn_gguf_type type, const void *p, tn_gguf_kv *kv) {
    switch (type) {
    case TN_GGUF_U8:
    case TN_GGUF_BOOL: LOAD(uint8_t, u)
    case TN_GGUF_U16: LOAD(uint16_t, u)
    case TN_GGUF_U32: LOAD(uint32_t, u)
    case TN_GGUF_U64: LOAD(uint64_t, u)
    case TN_GGUF_I8: LOAD(int8_t, i)
    case TN_GGUF_I16: LOAD(int16_t, i)
    case TN_GGUF_I32: LOAD(int32_t, i)
    case TN_GGUF_I64: LOAD(int64_t, i)
    case TN_GGUF_F32: LOAD(float, f)
    case TN_GGUF_F64: LOAD(double, f)
    case TN_GGUF_STR:
    case TN_GGUF_ARRAY: break;
    }
}

static bool get_bools(cursor *c, const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] > 1) return bad(c, (size_t)(p - c->part->data) + i, "a boolean has the value %d", p[i]);
    }
    return true;
}

static bool get_strs(cursor *c, tn_gguf_array *a, size_t at) {
    if (a->n > left(c) / MIN_STRING) return bad(c, at, "%" PRIu64 " strings run past the end of the file", a->n);
    if (a->n > MAX_STRINGS) return bad(c, at, "%" PRIu64 " strings are too many", a->n);
    tn_str *strs;
    if (!new_items(c, &strs, (size_t)a->n, sizeof *strs)) return false;
    for (uint64_t i = 0; i < a->n; i++) {
        if (!get_str(c, &strs[i])) return false;
    }
    a->strs = strs;
    return true;
}

static bool get_array(cursor *c, tn_gguf_array *a) {
    uint32_t type;
    size_t at = c->pos;
    if (!get(c, &type, sizeof type) || !get(c, &a->n, sizeof a->n)) return false;
    if (type >= TN_GGUF_TYPES) return bad(c, at, "an array of unknown type %" PRIu32, type);
    if (type == TN_GGUF_ARRAY) return bad(c, at, "arrays of arrays are not supported");
    a->type = (tn_gguf_type)type;
    if (type == TN_GGUF_STR) return get_strs(c, a, at);
    size_t bytes = tn_gguf_types[type].bytes;
    if (a->n > left(c) / bytes) return bad(c, at, "%" PRIu64 " elements run past the end of the file", a->n);
    if (!take(c, a->n * bytes, &a->data)) return false;
    return type != TN_GGUF_BOOL || get_bools(c, a->data, (size_t)a->n);
}

static bool get_kv(cursor *c, tn_gguf_part *part, size_t number) {
    tn_gguf_kv *kv = &part->kvs[number];
    size_t at = c->pos;
    uint32_t type;
    const void *p = NULL;
    if (!get_name(c, "key", number)) return false;
    kv->key = c->name;
    if (!index_add(c, &part->keys, kv->key, number, at)) return false;
    at = c->pos;
    if (!get(c, &type, sizeof type)) return false;
    if (type >= TN_GGUF_TYPES) return bad(c, at, "unknown type %" PRIu32, type);
    kv->type = (tn_gguf_type)type;
    if (type == TN_GGUF_STR) return get_str(c, &kv->str);
    if (type == TN_GGUF_ARRAY) return get_array(c, &kv->array);
    if (!take(c, tn_gguf_types[type].bytes, &p)) return false;
    tn_gguf_load_number(kv->type, p, kv);
    return type != TN_GGUF_BOOL || get_bools(c, p, 1);
}

/* general.alignment, or its default: a power of two. */
static bool get_alignment(cursor *c, size_t *alignment) {
    tn_str key = tn_str_of("general.alignment");
    size_t i;
    *alignment = DEFAULT_ALIGNMENT;
    if (!tn_gguf_index_find(&c->part->keys, key, &i)) return true;
    const tn_gguf_kv *kv = &c->part->kvs[i];
    size_t at = (size_t)((const uint8_t *)kv->key.p - c->part->data);
    c->what = "key";
    c->name = key;
    if (kv->type != TN_GGUF_U32) return bad(c, at, "its type is not u32");
    if (kv->u < MIN_ALIGNMENT || (kv->u & (kv->u - 1))) {
        return bad(c, at, "%" PRIu64 " is not a power of two from %d on", kv->u, MIN_ALIGNMENT);
    }
    *alignment = (size_t)kv->u;
    return true;
}

/* ---- tensors ---- */

/* What the checks after the last header entry need of a tensor. */
typedef struct extent {
    tn_gguf_tensor *t;
    uint64_t offset; /* from the start of the data */
    size_t at;       /* of the header entry in the file */
} extent;

/* Sizes -> t->ne, and the number of elements. */
static bool get_dims(cursor *c, tn_gguf_tensor *t, size_t *elements) {
    uint32_t n_dims;
    size_t at = c->pos;
    if (!get(c, &n_dims, sizeof n_dims)) return false;
    if (n_dims < 1 || n_dims > 4) return bad(c, at, "%" PRIu32 " dimensions (1 to 4 are possible)", n_dims);
    t->n_dims = (int)n_dims;
    *elements = 1;
    for (int i = 0; i < 4; i++) {
        uint64_t ne = 1;
        at = c->pos;
        if (i < t->n_dims && !get(c, &ne, sizeof ne)) return false;
        if (ne < 1 || ne > INT64_MAX) return bad(c, at, "dimension %d has %" PRIu64 " elements", i, ne);
        if (!tn_mul_size(*elements, (size_t)ne, elements) || *elements > INT64_MAX) {
            return bad(c, at, "it has more elements than can be counted");
        }
        t->ne[i] = (int64_t)ne;
    }
    return true;
}

static bool get_tensor(cursor *c, tn_gguf *g, extent *e) {
    tn_gguf_tensor *t = e->t;
    size_t elements = 0, at;
    char *name;
    e->at = c->pos;
    if (!get_name(c, "tensor", c->number)) return false;
    if (!new_items(c, &name, c->name.n + 1, 1)) return false;
    memcpy(name, c->name.p, c->name.n);
    t->name = name;
    if (!index_add(c, &g->names, (tn_str){name, c->name.n}, (size_t)(t - g->tensors), e->at)) return false;
    if (!get_dims(c, t, &elements)) return false;
    at = c->pos;
    if (!get(c, &t->type, sizeof t->type) || !get(c, &e->offset, sizeof e->offset)) return false;
    const tn_type_info *type = tn_type_get(t->type);
    if (!type) return true;
    if (t->ne[0] % type->block) {
        return bad(c, at, "rows of %" PRId64 " elements are not whole blocks of %s, which have %d", t->ne[0],
                   type->name, type->block);
    }
    if (!tn_mul_size(elements / (size_t)type->block, (size_t)type->bytes, &t->bytes)) {
        return bad(c, at, "it has more bytes than can be counted");
    }
    return true;
}

static int by_offset(const void *a, const void *b) {
    const extent *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Each tensor's data lies in the file, aligned, and no two share a byte. */
static bool place_tensors(cursor *c, extent *extents, size_t n, size_t alignment) {
    size_t start = tn_align_up(c->pos, alignment);
    size_t room = start < c->part->bytes ? c->part->bytes - start : 0;
    uint64_t end = 0;
    qsort(extents, n, sizeof *extents, by_offset);
    for (size_t i = 0; i < n; i++) {
        const extent *e = &extents[i];
        c->name = tn_str_of(e->t->name);
        if (e->offset % alignment) {
            return bad(c, e->at, "offset %" PRIu64 " is not a multiple of %zu", e->offset, alignment);
        }
        if (e->offset > room || e->t->bytes > room - e->offset) {
            return bad(c, e->at, "%zu bytes at offset %" PRIu64 " run past the end of the file", e->t->bytes,
                       e->offset);
        }
        if (!e->t->bytes) continue; /* of unknown type */
        if (e->offset < end) return bad(c, e->at, "its data overlap those of another tensor");
        end = e->offset + e->t->bytes;
        e->t->data = c->part->data + start + e->offset;
    }
    return true;
}

static bool get_tensors(cursor *c, tn_gguf *g, size_t n) {
    extent *extents;
    tn_gguf_tensor *tensors;
    size_t alignment, before = g->n_tensors;
    if (!get_alignment(c, &alignment)) return false;
    if (!new_items(c, &extents, n, sizeof *extents)) return false;
    if (!new_items(c, &tensors, before + n, sizeof *tensors)) return false;
    if (!index_reserve(c, &g->names, n)) return false;
    if (before) memcpy(tensors, g->tensors, before * sizeof *tensors);
    g->tensors = tensors;
    g->n_tensors += n;
    for (size_t i = 0; i < n; i++) {
        c->number = i;
        extents[i].t = &tensors[before + i];
        if (!get_tensor(c, g, &extents[i])) return false;
    }
    return place_tensors(c, extents, n, alignment);
}

/* ---- the file ---- */

static bool starts_with(const tn_gguf_part *part, const char *z) {
    return part->bytes >= strlen(z) && memcmp(part->data, z, strlen(z)) == 0;
}

static bool get_version(cursor *c, uint32_t *version) {
    const void *magic;
    if (!starts_with(c->part, "GGUF")) {
        const char *hint = starts_with(c->part, "version https://git-lfs") ? " but a Git LFS pointer to one" : "";
        c->status = tn_gguf_bad(c->part, c->err, "not a GGUF file%s", hint);
        return false;
    }
    if (!take(c, 4, &magic) || !get(c, version, sizeof *version)) return false;
    if (*version == 2 || *version == 3) return true;
    if (*version && !(*version & 0xffff)) return bad(c, 4, "big-endian files are not supported");
    return bad(c, 4, "version %" PRIu32 " is not supported (2 and 3 are)", *version);
}

static bool get_count(cursor *c, const char *of, size_t limit, size_t min_bytes, size_t *count) {
    uint64_t n = 0;
    size_t at = c->pos;
    if (!get(c, &n, sizeof n)) return false;
    if (n > left(c) / min_bytes) return bad(c, at, "%" PRIu64 " %s are more than the file can hold", n, of);
    if (n > limit) return bad(c, at, "%" PRIu64 " %s are too many", n, of);
    *count = (size_t)n;
    return true;
}

tn_status tn_gguf_parse(tn_gguf *g, tn_gguf_part *part, tn_error *err) {
    cursor c = {.part = part, .arena = &g->arena, .what = "header", .err = err};
    size_t n_tensors;
    if (!get_version(&c, &part->version)) return c.status;
    if (!get_count(&c, "tensors", MAX_TENSORS, MIN_TENSOR, &n_tensors)) return c.status;
    if (!get_count(&c, "keys", MAX_KEYS, MIN_KEY, &part->n_kv)) return c.status;
    if (!new_items(&c, &part->kvs, part->n_kv, sizeof *part->kvs)) return c.status;
    if (!index_reserve(&c, &part->keys, part->n_kv)) return c.status;
    for (size_t i = 0; i < part->n_kv; i++) {
        if (!get_kv(&c, part, i)) return c.status;
    }
    get_tensors(&c, g, n_tensors);
    return c.status;
}
