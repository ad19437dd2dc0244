/* Random blocks of every type, for tests of kernels: what stands in a block may be any bits, but for its half floats. */
#ifndef TN_TESTS_BLOCK_DATA_H
#define TN_TESTS_BLOCK_DATA_H

#include "quant/quant.h"

enum {
#define TYPE(name, id, block, bytes) TN_PLACE_##name,
#include "quant/types.def"
#undef TYPE
    TN_N_TYPES
};
extern const tn_type tn_all_types[TN_N_TYPES];

/* The same sequence in every run of a program. */
uint32_t tn_random(void);
float tn_random_float(void); /* from -1 to 1 */

/* Writes the half floats of a block: the first with what[0], the second, if the type has one, with what[1]. */
void tn_set_scales(tn_type type, uint8_t *block, const float what[2]);

#endif
