/* A CUDA driver and compiler without a device: its memory is the host's, copies are made as late as they may be, kernels do nothing.
 * It counts what lives, and a chosen call of it fails. */
#ifndef TN_TESTS_CUDA_FAKE_H
#define TN_TESTS_CUDA_FAKE_H

#include "backend/cuda/cuda.h"

typedef struct tn_cuda_fake {
    long calls;   /* that might have failed */
    long fail_at; /* this one does (the first is 1); 0: none */
    int error;    /* so, and all after it where it is one that stays with the context */
    int live;     /* memory, events, modules, graphs */
    bool capturing;
    int captured, launched; /* kernels of the last capture; graphs, ever */
} tn_cuda_fake;
extern tn_cuda_fake tn_fake;

enum { TN_FAKE_MEMORY = 2, TN_FAKE_ILLEGAL = 700 }; /* errors; only the second one stays */

/* An H200 with that driver; tn_backend_cuda.close() closes it. */
void tn_cuda_fake_open(tn_device **device, int threads);

#endif
