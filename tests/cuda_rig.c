#include "cuda_rig.h"
#include "base/half.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- weights ---- */

static void fill_block(tn_type type, uint8_t *b, int bytes) {
    float value = tn_random_float();
    uint16_t half = type == TN_TYPE_BF16 ? tn_f32_to_bf16(value) : tn_f32_to_f16(value);
    for (int i = 0; i < bytes; i++) b[i] = (uint8_t)tn_random();
    if (bytes == 4)
        memcpy(b, &value, 4);
    else if (bytes == 2)
        memcpy(b, &half, 2);
    else
        tn_set_scales(type, b, (float[]){value * 0.02f, tn_random_float() * 0.02f});
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
