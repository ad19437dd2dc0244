/* Choosing the next token from logits: the functions declared in tenon.h. The order of steps is llama.cpp's: biases,
 * penalties, top-k, top-p, min-p, temperature, then one draw. Random numbers are counter-based (Philox 4x32-10): draw
 * n of a seed is a function of (seed, n) alone. */
#ifndef TN_TEXT_SAMPLER_H
#define TN_TEXT_SAMPLER_H

#include "tenon.h"

/* The generator itself: ten rounds over a counter, with a key. */
void tn_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Draw `n` of stream `seed`: uniform in [0, 1). Philox 4x32-10 (Salmon et al., SC 2011). */
double tn_random_uniform(uint64_t seed, uint64_t n);

#endif
