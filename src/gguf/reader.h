/* What the two halves of the reader share: parse.c reads one file's header and trusts nothing in it; read.c finds and
 * maps the files and answers questions. All of it lives in one arena and dies with the reader. The index of names
 * (index.c) is the writer's, too. */
#ifndef TN_GGUF_READER_H
#define TN_GGUF_READER_H

#include "base/arena.h"
#include "gguf/gguf.h"

typedef enum tn_gguf_kind { KIND_UNSIGNED, KIND_SIGNED, KIND_FLOAT, KIND_BOOL, KIND_STR, KIND_ARRAY } tn_gguf_kind;

enum { TN_GGUF_TYPES = TN_GGUF_F64 + 1 };

/* By tn_gguf_type; bytes are 0 where a value has no fixed size. */
typedef struct tn_gguf_type_info {
    tn_gguf_kind kind;
    uint8_t bytes;
} tn_gguf_type_info;
extern const tn_gguf_type_info tn_gguf_types[TN_GGUF_TYPES];

/* A hash table from names to their numbers. */
typedef struct tn_gguf_slot {
    tn_str name; /* .p is NULL in a free slot */
    size_t number;
} tn_gguf_slot;
typedef struct tn_gguf_index {
    tn_gguf_slot *slots;
    size_t n_slots, used; /* n_slots is a power of two, or 0 */
} tn_gguf_index;

/* One file. */
typedef struct tn_gguf_part {
    struct tn_gguf_part *next;
    const char *label; /* the path, as errors show it; NULL for memory */
    const uint8_t *data;
    size_t bytes;
    bool mapped;
    uint32_t version;
    tn_gguf_kv *kvs;
    size_t n_kv;
    tn_gguf_index keys;
} tn_gguf_part;

struct tn_gguf {
    tn_arena arena;
    tn_gguf_part *parts; /* first to last; the first one's keys are the model's */
    tn_gguf_tensor *tensors;
    size_t n_tensors;
    tn_gguf_index names;
};

/* Reads the header of `part`: fills its keys and appends its tensors to those of `g`. */
tn_status tn_gguf_parse(tn_gguf *g, tn_gguf_part *part, tn_error *err);

/* The number of a name; false when it is not there. */
bool tn_gguf_index_find(const tn_gguf_index *index, tn_str name, size_t *number);
/* Makes room for `more` names, of which half of the slots stay free; false: out of memory. */
bool tn_gguf_index_reserve(tn_gguf_index *index, tn_arena *arena, size_t more);
/* Adds a name for which there is room, and which must outlive the index; false when it is there already. */
bool tn_gguf_index_add(tn_gguf_index *index, tn_str name, size_t number);

/* A number or boolean of the given type at p (unaligned) -> kv->u, i or f. */
void tn_gguf_load_number(tn_gguf_type type, const void *p, tn_gguf_kv *kv);

/* Fails with TN_ERR_INPUT and "PATH: message". */
tn_status tn_gguf_bad(const tn_gguf_part *part, tn_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
