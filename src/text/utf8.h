/* UTF-8: which bytes at a place are one character. */
#ifndef TN_TEXT_UTF8_H
#define TN_TEXT_UTF8_H

#include <stddef.h>

/* Bytes of the well-formed character at p (shortest form, no surrogates), 0 where there is none. */
static inline size_t tn_utf8_char(const char *p, size_t left) {
    const unsigned char *u = (const unsigned char *)p;
    if (left == 0) return 0;
    if (u[0] < 0x80) return 1;
    size_t n = u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : u[0] < 0xf5 ? 4 : 0;
    if (n == 0 || n > left) return 0;
    for (size_t i = 1; i < n; i++) {
        if ((u[i] & 0xc0) != 0x80) return 0;
    }
    if (u[0] == 0xe0 && u[1] < 0xa0) return 0;
    if (u[0] == 0xed && u[1] > 0x9f) return 0;
    if (u[0] == 0xf0 && u[1] < 0x90) return 0;
    if (u[0] == 0xf4 && u[1] > 0x8f) return 0;
    return n;
}

#endif
