/* What the tests of whole small models share: recorded logits, and our own to compare with them. */
#ifndef TN_TESTS_RECORDED_H
#define TN_TESTS_RECORDED_H

#include "tenon.h"

/* n floats of data/reference/NAME.exact, which has no more and no less; else NULL. To be freed with free(). */
float *tn_read_exact(const char *name, size_t n);

typedef struct tn_run_as {
    bool f32; /* activations and cache; else int8 and f16 */
    const char *fuse;
    int32_t chunk; /* tokens fed at once */
} tn_run_as;

/* The logits of all tokens; a failure ends the test. To be freed with free(). launches: of a decode step, NULL: not asked for. */
float *tn_run_tokens(tn_model *m, const int32_t *ids, int32_t n_tokens, int32_t n_vocab, tn_run_as as,
                     int32_t *launches);

#endif
