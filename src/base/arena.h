/* A bump allocator: many small things with one end of life. */
#ifndef TN_BASE_ARENA_H
#define TN_BASE_ARENA_H

#include <stddef.h>

typedef struct tn_arena_block tn_arena_block;

/* Zero is empty. */
typedef struct tn_arena {
    tn_arena_block *blocks;
} tn_arena;

/* Zeroed memory, aligned to 16 bytes; NULL when there is none. */
void *tn_arena_alloc(tn_arena *a, size_t bytes);
const char *tn_arena_printf(tn_arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
void tn_arena_free(tn_arena *a);

#endif
