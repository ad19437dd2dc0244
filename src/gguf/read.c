/* Reading GGUF files: finding and mapping them, one or the parts of a split model, and answering questions about what
 * parse.c found in them. */
#include "base/mem.h"
#include "gguf/reader.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- files ---- */

/* The path as errors show it: on one line, and only its end where it is long. */
static const char *label_of(tn_arena *arena, const char *path) {
    const size_t max = 200;
    size_t n = strlen(path);
    char *label = tn_arena_alloc(arena, max + 4);
    if (!label) return NULL;
    snprintf(label, max + 4, "%s%s", n > max ? "..." : "", n > max ? path + n - max : path);
    for (char *p = label; *p; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f) *p = '?';
    }
    return label;
}

static tn_status map_fd(tn_gguf_part *part, int fd, tn_error *err) {
    struct stat st;
    if (fstat(fd, &st)) return tn_gguf_bad(part, err, "%s", strerror(errno));
    if (S_ISDIR(st.st_mode)) return tn_gguf_bad(part, err, "is a directory");
    if (!S_ISREG(st.st_mode)) return tn_gguf_bad(part, err, "is not a file");
    if (st.st_size == 0) return tn_gguf_bad(part, err, "the file is empty");
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED && errno == ENOMEM) return tn_fail_memory(err);
    if (p == MAP_FAILED) return tn_gguf_bad(part, err, "cannot be mapped: %s", strerror(errno));
    part->data = p;
    part->bytes = (size_t)st.st_size;
    part->mapped = true;
    return TN_OK;
}

/* An empty part at the end of the list. */
static tn_gguf_part *new_part(tn_gguf *g) {
    tn_gguf_part **end = &g->parts;
    while (*end) end = &(*end)->next;
    return *end = tn_arena_alloc(&g->arena, sizeof **end);
}

static tn_status add_file(tn_gguf *g, const char *path, tn_gguf_part **out, tn_error *err) {
    tn_gguf_part *part = *out = new_part(g);
    if (!part || !(part->label = label_of(&g->arena, path))) return tn_fail_memory(err);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* not blocking: the path may be a pipe */
    if (fd < 0) return tn_gguf_bad(part, err, "%s", strerror(errno));
    tn_status status = map_fd(part, fd, err);
    close(fd);
    return status ? status : tn_gguf_parse(g, part, err);
}

/* ---- split models ---- */

static const tn_gguf_kv *find_kv(const tn_gguf_part *part, const char *key) {
    size_t i;
    return tn_gguf_index_find(&part->keys, tn_str_of(key), &i) ? &part->kvs[i] : NULL;
}

static bool get_u32(const tn_gguf_part *part, const char *key, uint32_t *out) {
    const tn_gguf_kv *kv = find_kv(part, key);
    if (!kv) return false;
    if (!tn_gguf_is_integer(kv->type)) return false;
    if (kv->u > UINT32_MAX) return false; /* a negative number is one of these, too */
    *out = (uint32_t)kv->u;
    return true;
}

/* What the keys say of a part: number `no` (from 0) of `count`; a file without them is the only one. */
static tn_status split_of(const tn_gguf_part *part, uint32_t *no, uint32_t *count, tn_error *err) {
    *no = 0;
    *count = 1;
    if (!find_kv(part, "split.count")) return TN_OK;
    if (!get_u32(part, "split.count", count)) return tn_gguf_bad(part, err, "key 'split.count' is not a count");
    if (*count <= 1) return TN_OK;
    if (!get_u32(part, "split.no", no)) return tn_gguf_bad(part, err, "key 'split.no' is missing or not a number");
    if (*no >= *count) return tn_gguf_bad(part, err, "it says that it is part %u of %u", *no + 1, *count);
    return TN_OK;
}

/* The suffix that all parts of a split model have in place of ".gguf". */
static void split_suffix(char out[40], uint32_t no, uint32_t count) {
    snprintf(out, 40, "-%05u-of-%05u.gguf", no + 1, count);
}

static tn_status add_other_part(tn_gguf *g, tn_str stem, uint32_t no, uint32_t count, tn_error *err) {
    char suffix[40];
    tn_gguf_part *part;
    uint32_t its_no, its_count;
    split_suffix(suffix, no, count);
    const char *path = tn_arena_printf(&g->arena, "%.*s%s", (int)stem.n, stem.p, suffix);
    if (!path) return tn_fail_memory(err);
    tn_status status = add_file(g, path, &part, err);
    if (!status) status = split_of(part, &its_no, &its_count, err);
    if (status) return status;
    if (its_no != no || its_count != count) {
        return tn_gguf_bad(part, err, "it says that it is part %u of %u", its_no + 1, its_count);
    }
    return TN_OK;
}

/* Opens the parts beside the first one, where it says that there are some. */
static tn_status add_other_parts(tn_gguf *g, const char *path, tn_error *err) {
    const tn_gguf_part *first = g->parts;
    uint32_t no, count, n_tensors;
    char suffix[40];
    tn_status status = split_of(first, &no, &count, err);
    if (status || count <= 1) return status;
    if (!path) return tn_gguf_bad(first, err, "split models cannot be read from memory");
    if (no) return tn_gguf_bad(first, err, "this is part %u of %u of a model: open the first", no + 1, count);
    split_suffix(suffix, no, count);
    tn_str stem = tn_str_of(path);
    if (stem.n < strlen(suffix) || strcmp(path + stem.n - strlen(suffix), suffix) != 0) {
        return tn_gguf_bad(first, err, "this is part 1 of %u of a model, but is not called NAME%s", count, suffix);
    }
    stem.n -= strlen(suffix);
    for (no = 1; no < count; no++) {
        if ((status = add_other_part(g, stem, no, count, err))) return status;
    }
    if (get_u32(first, "split.tensors.count", &n_tensors) && n_tensors != g->n_tensors) {
        return tn_gguf_bad(first, err, "its %u parts have %zu tensors instead of %u", count, g->n_tensors, n_tensors);
    }
    return TN_OK;
}

/* ---- open, close ---- */

tn_status tn_gguf_open(tn_gguf **out, const char *path, tn_error *err) {
    tn_gguf_part *first;
    *out = NULL;
    tn_gguf *g = tn_alloc_zero(1, sizeof *g);
    if (!g) return tn_fail_memory(err);
    tn_status status = add_file(g, path, &first, err);
    if (!status) status = add_other_parts(g, path, err);
    if (status) tn_gguf_close(&g);
    *out = g;
    return status;
}

tn_status tn_gguf_open_memory(tn_gguf **out, const void *data, size_t bytes, tn_error *err) {
    *out = NULL;
    tn_gguf *g = tn_alloc_zero(1, sizeof *g);
    if (!g) return tn_fail_memory(err);
    tn_gguf_part *part = new_part(g);
    tn_status status = part ? TN_OK : tn_fail_memory(err);
    if (!status) {
        part->data = data;
        part->bytes = bytes;
        status = tn_gguf_parse(g, part, err);
    }
    if (!status) status = add_other_parts(g, NULL, err);
    if (status) tn_gguf_close(&g);
    *out = g;
    return status;
}

void tn_gguf_close(tn_gguf **g) {
    if (!*g) return;
    for (tn_gguf_part *p = (*g)->parts; p; p = p->next) {
        if (p->mapped) munmap((void *)p->data, p->bytes);
    }
    tn_arena_free(&(*g)->arena);
    tn_free(*g);
    *g = NULL;
}

void tn_gguf_drop_pages(const tn_gguf *g, const void *of, size_t bytes) {
    const uint8_t *data = of;
    for (const tn_gguf_part *p = g->parts; p; p = p->next) {
        if (!p->mapped || !data || data < p->data || data >= p->data + p->bytes) continue;
        size_t page = (size_t)sysconf(_SC_PAGESIZE), from = (size_t)(data - p->data) / page * page;
        size_t to = (size_t)(data - p->data) + bytes;
        madvise((void *)(p->data + from), to - from, MADV_DONTNEED); /* a hint: failing does no harm */
    }
}

/* ---- questions ---- */

const char *tn_gguf_type_name(tn_gguf_type type) {
    static const char *const names[TN_GGUF_TYPES] = {"u8",   "i8",  "u16",   "i16", "u32", "i32", "f32",
                                                     "bool", "str", "array", "u64", "i64", "f64"};
    return names[type];
}

bool tn_gguf_is_integer(tn_gguf_type type) {
    return tn_gguf_types[type].kind == KIND_UNSIGNED || tn_gguf_types[type].kind == KIND_SIGNED;
}

tn_status tn_gguf_wrong_type(const tn_gguf_kv *kv, const char *wanted, tn_error *err) {
    bool array = kv->type == TN_GGUF_ARRAY;
    return tn_fail(err, TN_ERR_INPUT, "%.*s is of type %s%s: %s was expected", (int)kv->key.n, kv->key.p,
                   array ? "array of " : "", tn_gguf_type_name(array ? kv->array.type : kv->type), wanted);
}

uint32_t tn_gguf_version(const tn_gguf *g) {
    return g->parts->version;
}

uint64_t tn_gguf_file_bytes(const tn_gguf *g) {
    uint64_t sum = 0;
    for (const tn_gguf_part *p = g->parts; p; p = p->next) sum += p->bytes;
    return sum;
}

size_t tn_gguf_n_kv(const tn_gguf *g) {
    return g->parts->n_kv;
}

const tn_gguf_kv *tn_gguf_kv_at(const tn_gguf *g, size_t i) {
    assert(i < g->parts->n_kv);
    return &g->parts->kvs[i];
}

size_t tn_gguf_n_tensors(const tn_gguf *g) {
    return g->n_tensors;
}

const tn_gguf_tensor *tn_gguf_tensor_at(const tn_gguf *g, size_t i) {
    assert(i < g->n_tensors);
    return &g->tensors[i];
}

const tn_gguf_tensor *tn_gguf_tensor_find(const tn_gguf *g, const char *name) {
    size_t i;
    return tn_gguf_index_find(&g->names, tn_str_of(name), &i) ? &g->tensors[i] : NULL;
}

const tn_gguf_kv *tn_gguf_find(const tn_gguf *g, const char *key) {
    return find_kv(g->parts, key);
}

bool tn_gguf_get_u32(const tn_gguf *g, const char *key, uint32_t *out) {
    return get_u32(g->parts, key, out);
}

bool tn_gguf_get_f32(const tn_gguf *g, const char *key, float *out) {
    const tn_gguf_kv *kv = tn_gguf_find(g, key);
    if (!kv || tn_gguf_types[kv->type].kind != KIND_FLOAT) return false;
    *out = (float)kv->f;
    return true;
}

bool tn_gguf_get_bool(const tn_gguf *g, const char *key, bool *out) {
    const tn_gguf_kv *kv = tn_gguf_find(g, key);
    if (!kv || kv->type != TN_GGUF_BOOL) return false;
    *out = kv->u != 0;
    return true;
}

bool tn_gguf_get_str(const tn_gguf *g, const char *key, tn_str *out) {
    const tn_gguf_kv *kv = tn_gguf_find(g, key);
    if (!kv || kv->type != TN_GGUF_STR) return false;
    *out = kv->str;
    return true;
}

bool tn_gguf_get_array(const tn_gguf *g, const char *key, tn_gguf_type type, tn_gguf_array *out) {
    const tn_gguf_kv *kv = tn_gguf_find(g, key);
    if (!kv || kv->type != TN_GGUF_ARRAY || kv->array.type != type) return false;
    *out = kv->array;
    return true;
}

double tn_gguf_array_number(const tn_gguf_array *a, uint64_t i) {
    assert(i < a->n && a->data);
    const tn_gguf_type_info *type = &tn_gguf_types[a->type];
    tn_gguf_kv v;
    tn_gguf_load_number(a->type, (const uint8_t *)a->data + i * type->bytes, &v);
    if (type->kind == KIND_FLOAT) return v.f;
    return type->kind == KIND_SIGNED ? (double)v.i : (double)v.u;
}
