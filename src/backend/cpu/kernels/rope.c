/* Rotary position embedding: the rotation, and the table of cos and sin that a token's position gives. */
#include "backend/cpu/kernels/rope.h"

#include "backend/cpu/kernels/pieces.h"

#include <math.h>

void tn_rope__ref(const tn_piece *p) {
    tn_rope(p);
}

#define PI 3.14159265358979323846

/* YaRN (Peng et al. 2023), as its authors' code does it and models are trained with: pairs that turn more than
 * beta_fast times over the original context keep their frequency, those that turn less than beta_slow times get the
 * interpolated one, and between these two pairs (rounded outwards) the share falls in a straight line. */
typedef struct yarn {
    double low, high; /* pairs where the line begins and ends */
    double ext_factor;
} yarn;

/* The pair (fractional) that turns `turns` times in n_context positions: n_context base^(-2i/n_rot) = 2 pi turns */
static double pair_of_turns(double turns, double base, double n_rot, double n_context) {
    return n_rot * log(n_context / (turns * 2 * PI)) / (2 * log(base));
}

static yarn yarn_of(const tn_piece *p) {
    double n_rot = p->i[0], base = (double)p->f[0];
    double low = floor(pair_of_turns((double)p->f[4], base, n_rot, p->i[2]));
    double high = ceil(pair_of_turns((double)p->f[5], base, n_rot, p->i[2]));
    return (yarn){.low = fmax(low, 0), .high = fmin(high, n_rot - 1), .ext_factor = (double)p->f[2]};
}

/* How much of the original frequency pair i keeps. */
static double yarn_share(const yarn *y, int32_t i) {
    double line = (i - y->low) / fmax(y->high - y->low, 0.001);
    return (1 - fmin(fmax(line, 0), 1)) * y->ext_factor;
}

/* Angles in double: position * frequency has up to 20 bits before the point, of which a float would keep 4 behind. */
void tn_rope_table__ref(const tn_piece *p) {
    const float *factors = p->src[0];
    int32_t n_rot = p->i[0], position = p->i[1];
    double base = (double)p->f[0], freq_scale = (double)p->f[1], attn_factor = (double)p->f[3];
    bool is_yarn = p->f[2] != 0;
    yarn y = is_yarn ? yarn_of(p) : (yarn){0};
    if (is_yarn) attn_factor *= 1 + 0.1 * log(1 / freq_scale);
    float *dst = p->dst;
    for (int32_t i = 0; i < n_rot / 2; i++) {
        double frequency = pow(base, -2.0 * i / n_rot) / (factors ? (double)factors[i] : 1.0);
        double share = is_yarn ? yarn_share(&y, i) : 0;
        double angle = position * frequency * (freq_scale * (1 - share) + share);
        dst[2 * i] = (float)(cos(angle) * attn_factor);
        dst[2 * i + 1] = (float)(sin(angle) * attn_factor);
    }
}
