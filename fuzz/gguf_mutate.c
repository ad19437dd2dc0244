#include "gguf_mutate.h"

#include "gguf/gguf.h"

#include <string.h>

static uint32_t next(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Numbers near those where something changes. */
static uint64_t number(unsigned *seed) {
    static const uint32_t edges[] = {0,  1,  2,  3,  4,   7,   8,    12,   16,    24,
                                     31, 32, 33, 64, 255, 256, 1024, 4096, 65535, 1u << 24};
    uint32_t r = next(seed) % 10;
    if (r < 6) return edges[next(seed) % (sizeof edges / sizeof *edges)];
    if (r == 6) return next(seed) % 100;
    if (r == 7) return UINT32_MAX - next(seed) % 3;
    if (r == 8) return INT32_MAX - next(seed) % 2;
    return (uint64_t)next(seed) << 40;
}

static void put(uint8_t *data, size_t n, size_t at, const void *value, size_t bytes) {
    if (at <= n && bytes <= n - at) memcpy(data + at, value, bytes);
}

static void change_key(uint8_t *data, size_t n, const tn_gguf *g, unsigned *seed) {
    const tn_gguf_kv *kv = tn_gguf_kv_at(g, next(seed) % tn_gguf_n_kv(g));
    size_t at = (size_t)((const uint8_t *)kv->key.p - data) + kv->key.n;
    uint32_t type = next(seed) % 13;
    if (next(seed) % 20 == 0) put(data, n, at, &type, sizeof type);
    uint64_t value = number(seed);
    if (kv->type == TN_GGUF_ARRAY) at += 12;
    if (kv->type == TN_GGUF_ARRAY && kv->array.n) at += 4 * (next(seed) % (size_t)kv->array.n);
    put(data, n, at + 4, &value, kv->type >= TN_GGUF_U64 ? 8 : kv->type == TN_GGUF_BOOL ? 1 : 4);
}

static void change_tensor(uint8_t *data, size_t n, const tn_gguf *g, unsigned *seed) {
    const tn_gguf_tensor *t = tn_gguf_tensor_at(g, next(seed) % tn_gguf_n_tensors(g));
    const uint8_t *name = memmem(data, n, t->name, strlen(t->name));
    if (!name) return;
    size_t at = (size_t)(name - data) + strlen(t->name), dims = at + 4, type = dims + 8 * (size_t)t->n_dims;
    uint64_t value = number(seed);
    switch (next(seed) % 4) {
    case 0: put(data, n, dims + 8 * (next(seed) % (size_t)t->n_dims), &value, 8); break;
    case 1: /* the same number of elements, cut otherwise */
        if (t->n_dims < 2) break;
        put(data, n, dims, &t->ne[1], 8);
        put(data, n, dims + 8, &t->ne[0], 8);
        break;
    case 2:
        value %= 40;
        put(data, n, type, &value, 4);
        break;
    default: /* weights that are no numbers */
        if (t->data) {
            static const uint32_t odd[] = {0x7fc00000, 0x7f800000, 0xff800000, 0x7f7fffff, 0, 0x00000001};
            size_t from = (size_t)((const uint8_t *)t->data - data);
            put(data, n, from + next(seed) % t->bytes / 4 * 4, &odd[next(seed) % 6], 4);
        }
    }
}

size_t tn_fuzz_mutate_gguf(uint8_t *data, size_t n, size_t max, unsigned seed) {
    tn_gguf *g;
    next(&seed);
    if (next(&seed) % 4 == 0 || tn_gguf_open_memory(&g, data, n, NULL) != TN_OK)
        return LLVMFuzzerMutate(data, n, max);
    for (uint32_t k = 1 + next(&seed) % 3; k > 0; k--) {
        if (next(&seed) % 2 && tn_gguf_n_kv(g))
            change_key(data, n, g, &seed);
        else if (tn_gguf_n_tensors(g))
            change_tensor(data, n, g, &seed);
    }
    tn_gguf_close(&g);
    return n;
}
