/* Hashes for tables of what files hold. They start from the table's own address, which another run has elsewhere, so that no file
 * can be made whose names collide; every step mixes all bits, so that this holds whatever bits of the address are known. */
#ifndef TN_BASE_HASH_H
#define TN_BASE_HASH_H

#include "base/str.h"

#include <stdint.h>

#define TN_HASH_FACTOR UINT64_C(0x9e3779b97f4a7c15) /* 2^64 / golden ratio */

static inline uint64_t tn_hash_begin(const void *table) {
    uint64_t h = (uintptr_t)table * TN_HASH_FACTOR;
    return h ^ h >> 32;
}
static inline uint64_t tn_hash_add(uint64_t h, uint32_t v) {
    h = (h ^ v) * TN_HASH_FACTOR;
    return h ^ h >> 32;
}
static inline size_t tn_hash_str(const void *table, tn_str s) {
    uint64_t h = tn_hash_begin(table);
    for (size_t i = 0; i < s.n; i++) h = tn_hash_add(h, (unsigned char)s.p[i]);
    return (size_t)h;
}

#endif
