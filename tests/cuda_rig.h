/* What the tests of the CUDA backend share: weights of every type, one device for all of a program's, and how far results are apart. */
#ifndef TN_TESTS_CUDA_RIG_H
#define TN_TESTS_CUDA_RIG_H

#include "backend/backend.h"
#include "block_data.h"

/* Of random bits; `data` is the caller's to free. */
tn_weight tn_make_weight(const char *name, tn_type type, int32_t n_out, int32_t n_in);

extern const tn_backend tn_backend_cuda;
extern tn_device *tn_cuda_held; /* so that its context is made once, not for every test */

/* Opens the device once. */
tn_status tn_cuda_find_device(tn_error *err);
/* Skips a test where there is none. */
void tn_cuda_need_device(void);

double tn_nmse(const float *got, const float *want, size_t n);

#endif
