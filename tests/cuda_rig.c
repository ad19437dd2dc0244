#include "cuda_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

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
