/* Models of data/reference that are F32 there, once more as Q8_0: for int8 activations in families that have no other. */
#ifndef TN_TESTS_QUANTIZED_H
#define TN_TESTS_QUANTIZED_H

#include "tenon.h"

/* Opens the F32 model `name` as Q8_0, by way of a temporary file; as tn_model_open. */
tn_status tn_open_quantized(tn_model **out, const char *name, const tn_model_options *options, tn_error *err);

#endif
