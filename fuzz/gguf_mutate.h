/* Changes to GGUF files that keep them readable: a number of a key, a size or the type of a tensor. */
#ifndef TN_FUZZ_GGUF_MUTATE_H
#define TN_FUZZ_GGUF_MUTATE_H

#include "fuzz.h"

/* Where half of the time libFuzzer's own mutations are used. */
size_t tn_fuzz_mutate_gguf(uint8_t *data, size_t n, size_t max, unsigned seed);

#endif
