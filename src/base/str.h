/* Strings with a length, and a growing buffer of bytes. */
#ifndef TN_BASE_STR_H
#define TN_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* A view of bytes that somebody else owns; not zero-terminated. */
typedef struct tn_str {
    const char *p;
    size_t n;
} tn_str;

static inline tn_str tn_str_of(const char *z) {
    return (tn_str){z, strlen(z)};
}
static inline bool tn_str_eq(tn_str a, tn_str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool tn_str_is(tn_str a, const char *z) {
    return tn_str_eq(a, tn_str_of(z));
}

/* A growing buffer. Zero is empty. A failed allocation sets `failed` and later writes do nothing, so that a caller may
 * check once, at the end. `p` is always zero-terminated when not NULL. */
typedef struct tn_buf {
    char *p;
    size_t n, cap;
    bool failed;
} tn_buf;

void tn_buf_add(tn_buf *b, const void *bytes, size_t n);
void tn_buf_str(tn_buf *b, const char *z);
void tn_buf_char(tn_buf *b, char c);
void tn_buf_printf(tn_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void tn_buf_free(tn_buf *b);

#endif
