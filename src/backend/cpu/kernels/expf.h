/* exp and what is made of it, as straight-line code that a compiler turns into vector code: no tables, no branches,
 * explicit fused multiply-adds. One element gets the same bits in the body of a vector loop and in its tail.
 *
 *   exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, exp(r) = 1 + r + r^2 q(r)
 *
 * The polynomials were fitted by exchange (Remez) for the relative error of the function: 3e-9 for exp, 8e-10 for
 * log. */
#ifndef TN_CPU_EXPF_H
#define TN_CPU_EXPF_H

#include "base/half.h"

#include <stdint.h>

#define TN_LN2_HIGH 0x1.62e43p-1f
#define TN_LN2_LOW  -0x1.05c61p-29f

static inline float tn_fma(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}

/* exp(r) - 1 and n of x, |x| < 2^21. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits. */
static inline float tn_exp_split(float x, int32_t *n) {
    float shifted = tn_fma(x, 0x1.715476p+0f, 0x1.8p23f), whole = shifted - 0x1.8p23f;
    *n = (int32_t)(tn_float_bits(shifted) - 0x4b400000u);
    float r = tn_fma(whole, -TN_LN2_LOW, tn_fma(whole, -TN_LN2_HIGH, x));
    float q = tn_fma(r, 0x1.6a2456p-10f, 0x1.1239e2p-7f);
    q = tn_fma(q, r, 0x1.5558f2p-5f);
    q = tn_fma(q, r, 0x1.555492p-3f);
    q = tn_fma(q, r, 0x1.fffffcp-2f);
    return tn_fma(q, r * r, r);
}

/* 2^n for n in [-126, 127] */
static inline float tn_exp2i(int32_t n) {
    return tn_bits_float(((uint32_t)n + 127u) << 23);
}

/* All floats: 0 below -104, infinity above 88.72, denormals between, nan for nan. 2^n goes in by halves, since it may
 * not be a float itself. */
static inline float tn_expf(float x) {
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    int32_t n;
    float e = tn_exp_split(x, &n) + 1.0f;
    return e * tn_exp2i(n >> 1) * tn_exp2i(n - (n >> 1));
}

/* The same for x <= 0 in fewer steps; below -87 it is e^-87 (1.6e-38) all the way: a position that is hidden weighs that, not 0,
 * beside a sum of at least 1. */
static inline float tn_expf_weight(float x) {
    x = x < -87.0f ? -87.0f : x;
    int32_t n;
    float e = tn_exp_split(x, &n) + 1.0f;
    return e * tn_exp2i(n);
}

static inline float tn_sigmoidf(float x) {
    return 1.0f / (1.0f + tn_expf(-x));
}

/* tanh |x| = -e / (e + 2), e = exp(-2 |x|) - 1; 1 from |x| = 10 on */
static inline float tn_tanhf(float x) {
    float a = -2.0f * tn_bits_float(tn_float_bits(x) & 0x7fffffff);
    a = a < -20.0f ? -20.0f : a;
    int32_t n;
    float e = tn_exp_split(a, &n), scale = tn_exp2i(n);
    e = tn_fma(e, scale, scale - 1.0f);
    return tn_bits_float(tn_float_bits(-e / (e + 2.0f)) | (tn_float_bits(x) & 0x80000000));
}

/* log(1 + u), 0 <= u < 2^30. 1 + u = 2^k m, m in [sqrt 1/2, sqrt 2); what rounding took from 1 + u is put back into
 * f = m - 1; log m = 2 s + s^3 R(s^2), s = f / (2 + f). */
static inline float tn_log1pf(float u) {
    float sum = 1.0f + u, got = sum - 1.0f, lost = (1.0f - (sum - got)) + (u - got);
    int32_t k = (int32_t)(tn_float_bits(sum) - 0x3f3504f3u) >> 23;
    float m = tn_bits_float(tn_float_bits(sum) - ((uint32_t)k << 23));
    float f = tn_fma(lost, tn_exp2i(-k), m - 1.0f);
    float s = f / (2.0f + f), z = s * s;
    float R = tn_fma(tn_fma(0x1.31e67ap-2f, z, 0x1.995e9cp-2f), z, 0x1.55557ap-1f);
    float tail = tn_fma((float)k, TN_LN2_LOW, s * z * R);
    return tn_fma((float)k, TN_LN2_HIGH, tn_fma(2.0f, s, tail));
}

#endif
