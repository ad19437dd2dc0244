#include "base/arena.h"

#include "base/mem.h"
#include "tenon.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct tn_arena_block {
    _Alignas(16) tn_arena_block *next;
    size_t used, size; /* of the bytes that follow */
};

enum { BLOCK_BYTES = 64 << 10 };

void *tn_arena_alloc(tn_arena *a, size_t bytes) {
    size_t need;
    if (!tn_add_size(bytes, 15, &need)) return NULL;
    need &= ~(size_t)15;
    tn_arena_block *b = a->blocks;
    if (!b || b->size - b->used < need) {
        size_t size = need > BLOCK_BYTES ? need : BLOCK_BYTES, total;
        if (!tn_add_size(size, sizeof *b, &total)) return NULL;
        b = tn_alloc(total);
        if (!b) return NULL;
        *b = (tn_arena_block){.next = a->blocks, .size = size};
        a->blocks = b;
    }
    void *p = (char *)(b + 1) + b->used;
    b->used += need;
    memset(p, 0, need);
    return p;
}

const char *tn_arena_printf(tn_arena *a, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *p = n < 0 ? NULL : tn_arena_alloc(a, (size_t)n + 1);
    if (p) vsnprintf(p, (size_t)n + 1, format, again);
    va_end(again);
    return p;
}

void tn_arena_free(tn_arena *a) {
    for (tn_arena_block *b = a->blocks; b;) {
        tn_arena_block *next = b->next;
        tn_free(b);
        b = next;
    }
    a->blocks = NULL;
}
