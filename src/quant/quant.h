/* Block types: layout, decode, encode. One row per type in types.def.
 * A row of n elements is n / block blocks, each of `bytes` bytes, one after the other. */
#ifndef TN_QUANT_H
#define TN_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum tn_type {
#define TYPE(name, id, block, bytes) TN_TYPE_##name = id,
#include "quant/types.def"
#undef TYPE
    TN_TYPE_LIMIT = 64, /* ids in files above this are unknown */
} tn_type;

typedef struct tn_type_info {
    const char *name; /* NULL: not a type this build knows */
    int32_t block;    /* elements in a block */
    int32_t bytes;    /* bytes in a block */
    /* Decode n elements (a multiple of block) of a row. */
    void (*decode)(const void *src, float *dst, size_t n);
    /* Encode n elements, likewise. */
    void (*encode)(const float *src, void *dst, size_t n);
} tn_type_info;

/* NULL when the type is not known. */
const tn_type_info *tn_type_get(uint32_t type);
/* The name of any ggml type id, known to tenon or not ("IQ2_XXS"); "type 77" style names are the caller's affair: NULL. */
const char *tn_type_name(uint32_t type);
/* The type with this name; -1 when there is none. */
int tn_type_find(const char *name);
/* Bytes of a row of n elements; 0 when n is not a multiple of the block. */
size_t tn_type_row_bytes(tn_type type, size_t n);

/* The int8 activation row: n elements (a multiple of 32) as three planes, one after the other:
 *   int8_t q[n]          x ~ d * q, q in -127..127
 *   float  d[n / 32]     max|x| / 127 of each block of 32
 *   int16_t s[n / 16]    sum of q over each half block of 16
 * 40 bytes for 32 elements. Rounding is to nearest, ties to even; a block of zeros has d = 0. */
static inline size_t tn_q8_row_bytes(size_t n) {
    return n / 32 * 40;
}
typedef struct tn_q8_row {
    int8_t *q;
    float *d;
    int16_t *s;
} tn_q8_row;
static inline tn_q8_row tn_q8_row_at(void *p, size_t n) {
    tn_q8_row r = {(int8_t *)p, (float *)((char *)p + n), (int16_t *)((char *)p + n + n / 32 * 4)};
    return r;
}
/* Encodes elements [first, first + count) of a row of n; both multiples of 32. `x` points at element `first`. */
void tn_q8_encode(const float *x, void *row, size_t n, size_t first, size_t count);
void tn_q8_decode(const void *row, float *x, size_t n);

#endif
