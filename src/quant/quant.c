/* The table of block types: what types.def says of each, its codec, and the names of ggml's other types, so that an
 * error can call a type by its name. Also the int8 activation row. */
#include "quant/quant.h"

#include "base/half.h"
#include "quant/codec.h"

static const tn_type_info g_types[TN_TYPE_LIMIT] = {
#define TYPE(name, id, block, bytes) [id] = {#name, block, bytes, tn_decode_##name, tn_encode_##name},
#include "quant/types.def"
#undef TYPE
};

/* ggml's types that tenon does not know, and those that its files have not used for long. */
static const char *const g_foreign[TN_TYPE_LIMIT] = {
    [4] = "Q4_2",      [5] = "Q4_3",   [9] = "Q8_1",   [15] = "Q8_K",       [16] = "IQ2_XXS",    [17] = "IQ2_XS",
    [18] = "IQ3_XXS",  [19] = "IQ1_S", [21] = "IQ3_S", [22] = "IQ2_S",      [24] = "I8",         [25] = "I16",
    [26] = "I32",      [27] = "I64",   [28] = "F64",   [29] = "IQ1_M",      [31] = "Q4_0_4_4",   [32] = "Q4_0_4_8",
    [33] = "Q4_0_8_8", [34] = "TQ1_0", [35] = "TQ2_0", [36] = "IQ4_NL_4_4", [37] = "IQ4_NL_4_8", [38] = "IQ4_NL_8_8",
    [39] = "MXFP4",    [40] = "NVFP4", [41] = "Q1_0",
};

const tn_type_info *tn_type_get(uint32_t type) {
    return type < TN_TYPE_LIMIT && g_types[type].name ? &g_types[type] : NULL;
}

const char *tn_type_name(uint32_t type) {
    if (type >= TN_TYPE_LIMIT) return NULL;
    return g_types[type].name ? g_types[type].name : g_foreign[type];
}

int tn_type_find(const char *name) {
    for (int i = 0; i < TN_TYPE_LIMIT; i++) {
        if (g_types[i].name && strcmp(g_types[i].name, name) == 0) return i;
    }
    return -1;
}

size_t tn_type_row_bytes(tn_type type, size_t n) {
    const tn_type_info *t = tn_type_get(type);
    if (!t || n % (size_t)t->block) return 0;
    return n / (size_t)t->block * (size_t)t->bytes;
}

/* ---- the int8 activation row ---- */

/* Below this the inverse scale would overflow; such a block is as good as zeros. */
#define TINY 0x1p-120f

/* Nearest integer, ties to even, for |x| < 2^22: the sum's last bits are the integer. A NaN gives some byte. */
static int8_t round_int8(float x) {
    return (int8_t)(tn_float_bits(x + 0x1.8p23f) & 0xff);
}

/* q = round(x * (127 / max)), d = max / 127. Magnitudes are compared as integers, so that a NaN wins, makes d a NaN
 * and is not lost. */
static void q8_block(const float *x, int8_t *q, float *d, int16_t *s) {
    uint32_t top = 0;
    for (int i = 0; i < 32; i++) {
        uint32_t magnitude = tn_float_bits(x[i]) & 0x7fffffff;
        if (magnitude > top) top = magnitude;
    }
    float max = tn_bits_float(top);
    if (max < TINY) max = 0;
    float inverse = max == 0 ? 0 : 127 / max;
    *d = max / 127;
    for (int i = 0; i < 32; i++) q[i] = round_int8(x[i] * inverse);
    for (int half = 0; half < 2; half++) {
        int sum = 0;
        for (int i = 0; i < 16; i++) sum += q[16 * half + i];
        s[half] = (int16_t)sum;
    }
}

void tn_q8_encode(const float *x, void *row, size_t n, size_t first, size_t count) {
    tn_q8_row r = tn_q8_row_at(row, n);
    for (size_t i = first; i < first + count; i += 32) q8_block(x + (i - first), r.q + i, r.d + i / 32, r.s + i / 16);
}

void tn_q8_decode(const void *row, float *x, size_t n) {
    const int8_t *q = row;
    const float *d = (const float *)(q + n);
    for (size_t i = 0; i < n; i++) x[i] = d[i / 32] * q[i];
}
