/* GGUF files: reading (nothing in a file is trusted) and writing. Format: the GGUF specification, versions 2 and 3,
 * little-endian. A reader maps the file; strings and arrays are views into it, valid while it is open. */
#ifndef TN_GGUF_H
#define TN_GGUF_H

#include "base/error.h"
#include "base/str.h"
#include "quant/quant.h"

typedef struct tn_gguf tn_gguf;

typedef enum tn_gguf_type {
    TN_GGUF_U8 = 0,
    TN_GGUF_I8,
    TN_GGUF_U16,
    TN_GGUF_I16,
    TN_GGUF_U32,
    TN_GGUF_I32,
    TN_GGUF_F32,
    TN_GGUF_BOOL,
    TN_GGUF_STR,
    TN_GGUF_ARRAY,
    TN_GGUF_U64,
    TN_GGUF_I64,
    TN_GGUF_F64,
} tn_gguf_type;

typedef struct tn_gguf_array {
    tn_gguf_type type; /* of the elements; arrays of arrays are refused at open */
    uint64_t n;
    const void *data;   /* numbers, unaligned, as in the file; NULL for strings */
    const tn_str *strs; /* strings; NULL for numbers */
} tn_gguf_array;

typedef struct tn_gguf_kv {
    tn_str key;
    tn_gguf_type type;
    union {
        uint64_t u; /* U8..U64, BOOL */
        int64_t i;  /* I8..I64 */
        double f;   /* F32, F64 */
        tn_str str;
        tn_gguf_array array;
    };
} tn_gguf_kv;

typedef struct tn_gguf_tensor {
    const char *name; /* zero-terminated */
    uint32_t type;    /* a tn_type when known: see tn_type_get */
    int n_dims;       /* 1..4 */
    int64_t ne[4];    /* elements in each dimension, ne[0] is the row; unused ones are 1 */
    const void *data; /* in the mapped file; NULL when the type is unknown */
    size_t bytes;     /* 0 when the type is unknown */
} tn_gguf_tensor;

/* Opens a file, or the first part of a split one (NAME-00001-of-0000N.gguf: the others are opened beside it).
 * Every count, offset, type, size and string is checked; errors name the key or tensor and the byte offset. A tensor
 * of an unknown type is an entry like any other, so that `inspect` can show it. */
tn_status tn_gguf_open(tn_gguf **out, const char *path, tn_error *err);
/* The same from memory, which must outlive the reader. */
tn_status tn_gguf_open_memory(tn_gguf **out, const void *data, size_t bytes, tn_error *err);
void tn_gguf_close(tn_gguf **g);

uint32_t tn_gguf_version(const tn_gguf *g);
uint64_t tn_gguf_file_bytes(const tn_gguf *g); /* all parts */
size_t tn_gguf_n_kv(const tn_gguf *g);
const tn_gguf_kv *tn_gguf_kv_at(const tn_gguf *g, size_t i);
size_t tn_gguf_n_tensors(const tn_gguf *g);
const tn_gguf_tensor *tn_gguf_tensor_at(const tn_gguf *g, size_t i);
/* "u32"; whether integers are of this type (booleans are not). */
const char *tn_gguf_type_name(tn_gguf_type type);
bool tn_gguf_is_integer(tn_gguf_type type);
/* Fails: the key, by its name, has another type than the one that is wanted ("an integer"). */
tn_status tn_gguf_wrong_type(const tn_gguf_kv *kv, const char *wanted, tn_error *err);
/* NULL when there is none. */
const tn_gguf_tensor *tn_gguf_tensor_find(const tn_gguf *g, const char *name);
const tn_gguf_kv *tn_gguf_find(const tn_gguf *g, const char *key);

/* Typed lookups: false, and *out untouched, when the key is absent or of another kind. Integers convert between
 * widths when the value fits; floats between f32 and f64. */
bool tn_gguf_get_u32(const tn_gguf *g, const char *key, uint32_t *out);
bool tn_gguf_get_f32(const tn_gguf *g, const char *key, float *out);
bool tn_gguf_get_bool(const tn_gguf *g, const char *key, bool *out);
bool tn_gguf_get_str(const tn_gguf *g, const char *key, tn_str *out);
bool tn_gguf_get_array(const tn_gguf *g, const char *key, tn_gguf_type type, tn_gguf_array *out);
/* Element i (< n) of an array of numbers or booleans, converted. */
double tn_gguf_array_number(const tn_gguf_array *a, uint64_t i);

/* Gives pages of the tensors' data back to the system (they are read again from the file if touched). */
void tn_gguf_drop_pages(const tn_gguf *g, const void *data, size_t bytes);

/* ---- writing: collect, then write ---- */
typedef struct tn_gguf_writer tn_gguf_writer;
tn_status tn_gguf_writer_open(tn_gguf_writer **out, tn_error *err);
void tn_gguf_writer_close(tn_gguf_writer **w);
/* Keys and strings are copied; tensor data is only pointed to until tn_gguf_writer_save, or comes from `fill`. */
void tn_gguf_put(tn_gguf_writer *w, const tn_gguf_kv *kv);
void tn_gguf_put_u32(tn_gguf_writer *w, const char *key, uint32_t v);
void tn_gguf_put_f32(tn_gguf_writer *w, const char *key, float v);
void tn_gguf_put_bool(tn_gguf_writer *w, const char *key, bool v);
void tn_gguf_put_str(tn_gguf_writer *w, const char *key, const char *v);
/* Writes a tensor's `bytes` bytes when its turn comes, so that a model larger than memory can be written. */
typedef tn_status tn_gguf_fill(void *data, const tn_gguf_tensor *t, void *dst, tn_error *err);
void tn_gguf_put_tensor(tn_gguf_writer *w, const tn_gguf_tensor *t, tn_gguf_fill *fill, void *fill_data);
/* Writes PATH by way of PATH.tmp and a rename, so that a failure leaves no half file. Reports earlier failures too.
 */
tn_status tn_gguf_writer_save(tn_gguf_writer *w, const char *path, tn_error *err);

#endif
