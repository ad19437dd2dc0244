#include "base/str.h"

#include "base/mem.h"
#include "tenon.h"

#include <stdarg.h>
#include <stdio.h>

/* Makes room for n more bytes and the final zero. */
static bool reserve(tn_buf *b, size_t n) {
    if (b->failed) return false;
    size_t need;
    if (!tn_add_size(b->n, n, &need) || !tn_add_size(need, 1, &need)) return !(b->failed = true);
    if (need <= b->cap) return true;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need) {
        if (!tn_mul_size(cap, 2, &cap)) return !(b->failed = true);
    }
    char *p = tn_realloc(b->p, cap);
    if (!p) return !(b->failed = true);
    b->p = p;
    b->cap = cap;
    return true;
}

void tn_buf_add(tn_buf *b, const void *bytes, size_t n) {
    if (!reserve(b, n)) return;
    if (n) memcpy(b->p + b->n, bytes, n);
    b->n += n;
    b->p[b->n] = 0;
}

void tn_buf_str(tn_buf *b, const char *z) {
    tn_buf_add(b, z, strlen(z));
}
void tn_buf_char(tn_buf *b, char c) {
    tn_buf_add(b, &c, 1);
}

void tn_buf_printf(tn_buf *b, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n >= 0 && reserve(b, (size_t)n)) {
        vsnprintf(b->p + b->n, (size_t)n + 1, format, again);
        b->n += (size_t)n;
    } else {
        b->failed = true;
    }
    va_end(again);
}

void tn_buf_free(tn_buf *b) {
    tn_free(b->p);
    *b = (tn_buf){0};
}
