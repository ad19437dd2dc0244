/* Every allocation of the library goes through here, so that a test can make the N-th one fail. */
#ifndef TN_BASE_MEM_H
#define TN_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

void *tn_alloc(size_t bytes); /* NULL on failure; 0 bytes is a valid request */
void *tn_alloc_zero(size_t count, size_t size);
void *tn_realloc(void *p, size_t bytes);     /* p stays valid on failure */
char *tn_strndup(const char *s, size_t len); /* zero-terminated copy */
/* freed with tn_free() of tenon.h */

/* Large memory for weights, caches and arenas: 64-byte aligned (2 MiB where it is large, with huge pages asked for),
 * zeroed, committed on first touch. NULL also where it were, with all that is in use, more than the machine's memory. */
void *tn_alloc_pages(size_t bytes);
void tn_free_pages(void *p, size_t bytes);

/* For tests: let `n` more allocations succeed, then fail one, and every later one or no other; negative: none fails. */
void tn_alloc_fail_after(long n);
void tn_alloc_fail_once(long n);
bool tn_alloc_failed(void); /* whether one did since */

/* Overflow-safe arithmetic on sizes that come from files: false (and *out untouched) on overflow. */
static inline bool tn_mul_size(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}
static inline bool tn_add_size(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

static inline size_t tn_align_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

#endif
