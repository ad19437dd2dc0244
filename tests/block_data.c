#include "block_data.h"
#include "base/half.h"

#include <string.h>

const tn_type tn_all_types[TN_N_TYPES] = {
#define TYPE(name, id, block, bytes) TN_TYPE_##name,
#include "quant/types.def"
#undef TYPE
};

uint32_t tn_random(void) {
    static uint64_t seed = 1;
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

float tn_random_float(void) {
    return (float)(tn_random() & 0xffff) / 32768.0f - 1.0f;
}

void tn_set_scales(tn_type type, uint8_t *block, const float what[2]) {
    static const struct {
        tn_type type;
        int d, m; /* -1: none */
    } at[] = {{TN_TYPE_Q2_K, 80, 82}, {TN_TYPE_Q3_K, 108, -1}, {TN_TYPE_Q6_K, 208, -1}, {TN_TYPE_Q4_1, 0, 2},
              {TN_TYPE_Q5_1, 0, 2},   {TN_TYPE_Q4_K, 0, 2},    {TN_TYPE_Q5_K, 0, 2}};
    int d = 0, m = -1;
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        if (at[i].type == type) d = at[i].d, m = at[i].m;
    uint16_t half = tn_f32_to_f16(what[0]);
    memcpy(block + d, &half, 2);
    half = tn_f32_to_f16(what[1]);
    if (m >= 0) memcpy(block + m, &half, 2);
}
