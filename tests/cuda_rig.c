#include "cuda_rig.h"
#include "base/half.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- weights ---- */

const tn_type tn_all_types[TN_N_TYPES] = {
#define TYPE(name, id, block, bytes) TN_TYPE_##name,
#include "quant/types.def"
#undef TYPE
};

static uint64_t g_seed = 1;
static uint32_t rnd(void) {
    g_seed = g_seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(g_seed >> 33);
}
static float uniform(void) {
    return (float)(rnd() & 0xffff) / 32768.0f - 1.0f;
}

/* Where a block's half floats are; the rest of it may be any bits. */
static void fill_block(tn_type type, uint8_t *b, int bytes) {
    static const struct {
        tn_type type;
        int d, m;
    } at[] = {{TN_TYPE_Q2_K, 80, 82}, {TN_TYPE_Q3_K, 108, -1}, {TN_TYPE_Q6_K, 208, -1}, {TN_TYPE_Q4_1, 0, 2},
              {TN_TYPE_Q5_1, 0, 2},   {TN_TYPE_Q4_K, 0, 2},    {TN_TYPE_Q5_K, 0, 2}};
    int d = 0, m = -1;
    float value = uniform();
    uint16_t half = type == TN_TYPE_BF16 ? tn_f32_to_bf16(value) : tn_f32_to_f16(value * (bytes > 2 ? 0.02f : 1.0f));
    for (int i = 0; i < bytes; i++) b[i] = (uint8_t)rnd();
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        if (at[i].type == type) d = at[i].d, m = at[i].m;
    if (bytes == 4) {
        memcpy(b, &value, 4);
        return;
    }
    memcpy(b + d, &half, 2);
    half = tn_f32_to_f16(uniform() * 0.02f);
    if (m >= 0) memcpy(b + m, &half, 2);
}

tn_weight tn_make_weight(const char *name, tn_type type, int32_t n_out, int32_t n_in) {
    const tn_type_info *info = tn_type_get(type);
    tn_weight w = {.name = name, .type = type, .n_out = n_out, .n_in = n_in, .n_expert = 1};
    w.bytes = tn_type_row_bytes(type, (size_t)n_in) * (size_t)n_out;
    uint8_t *data = malloc(w.bytes);
    assert_true(data && w.bytes);
    for (size_t i = 0; i < w.bytes; i += (size_t)info->bytes) fill_block(type, data + i, info->bytes);
    w.data = data;
    w.elements = n_out == 1;
    return w;
}

/* ---- a device ---- */

tn_device *tn_cuda_held;

tn_status tn_cuda_find_device(tn_error *err) {
    if (tn_cuda_held) return TN_OK;
    return tn_backend_cuda.open(&tn_cuda_held, &(tn_device_options){.threads = 2}, err);
}

void tn_cuda_need_device(void) {
    tn_error err;
    if (tn_cuda_find_device(&err) != TN_OK) skip();
}

double tn_nmse(const float *got, const float *want, size_t n) {
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        error += d * d;
        power += (double)want[i] * (double)want[i];
    }
    return error / (power > 0 ? power : 1);
}
