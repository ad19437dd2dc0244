/* Floats -> blocks of 256 elements, whose groups of 16 or 32 have scales of their own, and the IQ4 types. Any scales
 * would do for a file; the good ones are searched for: the range of a group is divided a little more coarsely and
 * finely than it asks for, the elements are rounded to the levels of each division, and weighted least squares tell
 * the best scale for these levels and what it leaves. Nothing is known of the activations, so an element counts the
 * more the larger it is. Values that are not finite give some block, never undefined behaviour. */
#include "base/half.h"
#include "quant/codec.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { N = 256 };

/* Below this a group is zeros: no f16 scale could hold it. */
#define TINY 1e-30f

/* d as f16 at p; returns what a decoder will read. */
static float store_f16(uint8_t *p, float d) {
    uint16_t h = tn_f32_to_f16(d);
    memcpy(p, &h, sizeof h);
    return tn_f16_to_f32(h);
}

static float inverse(float d) {
    return d != 0 ? 1 / d : 0;
}

/* Nearest integer in 0..top; a NaN is 0. */
static int level(float x, int top) {
    x += 0.5f;
    if (!(x > 0)) return 0;
    return x >= (float)top ? top : (int)x;
}

/* What an error of each element of a group counts: rms + |x|. */
static void weigh(const float *x, int n, float *w) {
    float squares = 0;
    for (int i = 0; i < n; i++) squares += x[i] * x[i];
    float rms = sqrtf(squares / (float)n);
    for (int i = 0; i < n; i++) w[i] = rms + fabsf(x[i]);
}

/* ---- x ~ scale q + low, low <= 0: Q2_K, Q4_K, Q5_K ---- */

typedef struct affine {
    int group;     /* elements that share a scale and a low */
    int top;       /* q is 0..top */
    int scale_top; /* scales and mins are stored as 0..scale_top */
    int tries;     /* the range is divided into top + first, top + first + 0.1, ... levels */
    float first;
} affine;

/* Minimises sum w (x - scale q - low)^2 over the divisions tried. With q fixed, scale and low solve
 *   scale sum(w q q) + low sum(w q) = sum(w q x)
 *   scale sum(w q)   + low sum(w)   = sum(w x)
 * and take scale sum(w q x) + low sum(w x) off sum(w x x). Each division starts at the best low so far. */
static void fit_affine(const affine *t, const float *x, const float *w, float *scale, float *low) {
    float min = x[0], max = x[0], sw = 0, swx = 0;
    for (int i = 0; i < t->group; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
        sw += w[i];
        swx += w[i] * x[i];
    }
    if (min > 0) min = 0;
    *low = min;
    *scale = (max - min) / (float)t->top;
    if (!(max - min > TINY)) {
        *scale = 0;
        return;
    }
    double best = -INFINITY;
    for (int k = 0; k < t->tries; k++) {
        float per_level = ((float)t->top + t->first + 0.1f * (float)k) / (max - *low), sq = 0, sqq = 0, sqx = 0;
        for (int i = 0; i < t->group; i++) {
            float q = (float)level((x[i] - *low) * per_level, t->top), wq = w[i] * q;
            sq += wq;
            sqq += wq * q;
            sqx += wq * x[i];
        }
        double det = (double)sw * sqq - (double)sq * sq;
        if (!(det > 1e-5 * sw * sqq)) continue; /* all but one level: the range itself says it best */
        double s = ((double)sw * sqx - (double)swx * sq) / det, l = ((double)sqq * swx - (double)sq * sqx) / det;
        if (l > 0) {
            l = 0;
            s = sqx / sqq;
        }
        double gain = s * sqx + l * swx;
        if (gain > best) {
            best = gain;
            *scale = (float)s;
            *low = (float)l;
        }
    }
}

/* A block's levels, and scales and mins in units of the f16s at `d` and `d + 2`. */
static void affine_block(const affine *t, const float *x, uint8_t *q, uint8_t *scales, uint8_t *mins, uint8_t *d) {
    float scale[16], low[16], w[32], top_scale = 0, top_min = 0;
    for (int g = 0; g < N / t->group; g++) {
        const float *group = x + g * t->group;
        weigh(group, t->group, w);
        fit_affine(t, group, w, &scale[g], &low[g]);
        if (scale[g] > top_scale) top_scale = scale[g];
        if (-low[g] > top_min) top_min = -low[g];
    }
    float unit = store_f16(d, top_scale / (float)t->scale_top),
          unit_min = store_f16(d + 2, top_min / (float)t->scale_top);
    for (int g = 0; g < N / t->group; g++) {
        scales[g] = (uint8_t)level(scale[g] * inverse(unit), t->scale_top);
        mins[g] = (uint8_t)level(-low[g] * inverse(unit_min), t->scale_top);
        float per_level = inverse(unit * (float)scales[g]), min = unit_min * (float)mins[g];
        for (int i = g * t->group; i < (g + 1) * t->group; i++)
            q[i] = (uint8_t)level((x[i] + min) * per_level, t->top);
    }
}

/* Four of 2 bits a byte: 32 bytes hold 128 elements, byte l those that are 32 apart from element l on. */
static void store_crumbs(const uint8_t *q, uint8_t *b) {
    for (int i = 0; i < N; i += 128, b += 32)
        for (int l = 0; l < 32; l++)
            b[l] = (uint8_t)((q[i + l] & 3) | (q[i + l + 32] & 3) << 2 | (q[i + l + 64] & 3) << 4 |
                             (q[i + l + 96] & 3) << 6);
}

static void block_Q2_K(const float *x, uint8_t *b) {
    static const affine type = {.group = 16, .top = 3, .scale_top = 15, .tries = 16, .first = -0.5f};
    uint8_t q[N], mins[16];
    affine_block(&type, x, q, b, mins, b + 80);
    for (int g = 0; g < 16; g++) b[g] |= (uint8_t)(mins[g] << 4);
    store_crumbs(q, b + 16);
}

/* 8 scales and 8 mins of 6 bits in 12 bytes: the first four of each in bytes 0..3 and 4..7, the low nibbles of the
 * last four in bytes 8..11, their high 2 bits on top of bytes 0..7. */
static void store_six_bits(const uint8_t *scales, const uint8_t *mins, uint8_t *b) {
    for (int i = 0; i < 4; i++) {
        b[i] = (uint8_t)(scales[i] | scales[i + 4] >> 4 << 6);
        b[i + 4] = (uint8_t)(mins[i] | mins[i + 4] >> 4 << 6);
        b[i + 8] = (uint8_t)((scales[i + 4] & 15) | (mins[i + 4] & 15) << 4);
    }
}

/* 32 bytes hold the low 4 bits of 64 elements. */
static void store_nibbles(const uint8_t *q, uint8_t *b) {
    for (int i = 0; i < N; i += 64, b += 32)
        for (int l = 0; l < 32; l++) b[l] = (uint8_t)((q[i + l] & 15) | (q[i + l + 32] & 15) << 4);
}

static void block_Q4_K(const float *x, uint8_t *b) {
    static const affine type = {.group = 32, .top = 15, .scale_top = 63, .tries = 21, .first = -1};
    uint8_t q[N], scales[8], mins[8];
    affine_block(&type, x, q, scales, mins, b);
    store_six_bits(scales, mins, b + 4);
    store_nibbles(q, b + 16);
}

static void block_Q5_K(const float *x, uint8_t *b) {
    static const affine type = {.group = 32, .top = 31, .scale_top = 63, .tries = 16, .first = -0.5f};
    uint8_t q[N], scales[8], mins[8], *high = b + 16;
    affine_block(&type, x, q, scales, mins, b);
    store_six_bits(scales, mins, b + 4);
    memset(high, 0, 32);
    for (int i = 0; i < N; i++) high[i % 32] |= (uint8_t)(q[i] >> 4 << (i / 32));
    store_nibbles(q, b + 48);
}

/* ---- x ~ scale value(q), values of both signs: Q3_K, Q6_K, IQ4_NL, IQ4_XS ---- */

typedef struct grid {
    const int8_t *values; /* ascending; NULL: -n / 2 .. n / 2 - 1 */
    int n;
    int group;
    int tries; /* the largest element is taken for the first value and `step` times -tries..tries beyond it */
    float step;
    int scale_low; /* scales are stored as scale_low..-scale_low - 1 */
} grid;

static float value(const grid *t, int q) {
    return (float)(t->values ? t->values[q] : q - t->n / 2);
}

/* The q whose value is nearest. */
static int nearest(const grid *t, float x) {
    if (!t->values) return level(x + (float)(t->n / 2), t->n - 1);
    int low = 0, high = t->n - 1; /* values[low] <= x < values[high], but for the ends */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (x < (float)t->values[middle])
            high = middle;
        else
            low = middle;
    }
    return x - (float)t->values[low] < (float)t->values[high] - x ? low : high;
}

/* Maximises sum(w x v)^2 / sum(w v v) over the divisions tried: what is left is the least then. */
static float fit_grid(const grid *t, const float *x) {
    float extreme = 0, w[32];
    for (int i = 0; i < t->group; i++)
        if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
    if (!(fabsf(extreme) > TINY)) return 0;
    weigh(x, t->group, w);
    float best = 0, scale = 0;
    for (int k = -t->tries; k <= t->tries; k++) {
        float per_level = (value(t, 0) + (float)k * t->step) / extreme, sxv = 0, svv = 0;
        for (int i = 0; i < t->group; i++) {
            float v = value(t, nearest(t, x[i] * per_level)), wv = w[i] * v;
            sxv += wv * x[i];
            svv += wv * v;
        }
        if (svv > 0 && sxv * sxv > best * svv) {
            best = sxv * sxv / svv;
            scale = sxv / svv;
        }
    }
    return scale;
}

/* A block's levels, and scales in units of the f16 at `d`. The scale of greatest magnitude becomes scale_low. */
static void grid_block(const grid *t, const float *x, uint8_t *q, int8_t *scales, uint8_t *d) {
    float scale[16], extreme = 0;
    for (int g = 0; g < N / t->group; g++) {
        scale[g] = fit_grid(t, x + g * t->group);
        if (fabsf(scale[g]) > fabsf(extreme)) extreme = scale[g];
    }
    float unit = store_f16(d, extreme / (float)t->scale_low);
    for (int g = 0; g < N / t->group; g++) {
        int s = level(scale[g] * inverse(unit) - (float)t->scale_low, -2 * t->scale_low - 1) + t->scale_low;
        float per_level = inverse(unit * (float)s);
        scales[g] = (int8_t)s;
        for (int i = g * t->group; i < (g + 1) * t->group; i++) q[i] = (uint8_t)nearest(t, x[i] * per_level);
    }
}

/* Scale s: its low 4 bits in byte s % 8, low nibbles first, its high 2 in bit pair s / 4 of byte 8 + s % 4. */
static void block_Q3_K(const float *x, uint8_t *b) {
    static const grid type = {.n = 8, .group = 16, .tries = 9, .step = 0.1f, .scale_low = -32};
    uint8_t q[N], *high = b, *scales = b + 96;
    int8_t s[16];
    grid_block(&type, x, q, s, b + 108);
    memset(high, 0, 32);
    for (int i = 0; i < N; i++) high[i % 32] |= (uint8_t)(q[i] >> 2 << (i / 32));
    store_crumbs(q, b + 32);
    memset(scales, 0, 12);
    for (int g = 0; g < 16; g++) {
        int stored = s[g] + 32;
        scales[g % 8] |= (uint8_t)((stored & 15) << (g / 8 * 4));
        scales[8 + g % 4] |= (uint8_t)(stored >> 4 << (g / 4 * 2));
    }
}

/* Each half block: 64 bytes of nibbles, element i in byte i % 64; 32 bytes of bit pairs, element i in byte i % 32. */
static void block_Q6_K(const float *x, uint8_t *b) {
    static const grid type = {.n = 64, .group = 16, .tries = 9, .step = 0.1f, .scale_low = -128};
    uint8_t q[N];
    int8_t s[16];
    grid_block(&type, x, q, s, b + 208);
    memset(b, 0, 192);
    for (int i = 0; i < N; i++) {
        int half = i / 128, j = i % 128;
        b[64 * half + j % 64] |= (uint8_t)((q[i] & 15) << (j / 64 * 4));
        b[128 + 32 * half + j % 32] |= (uint8_t)(q[i] >> 4 << (j / 32 * 2));
    }
    memcpy(b + 192, s, sizeof s);
}

/* 16 bytes: the low nibbles are elements 0..15 of 32. */
static void store_iq4_nibbles(const uint8_t *q, uint8_t *b) {
    for (int j = 0; j < 16; j++) b[j] = (uint8_t)(q[j] | q[j + 16] << 4);
}

static const grid iq4 = {.values = tn_iq4_levels, .n = 16, .group = 32, .tries = 7, .step = 1, .scale_low = -32};

static void block_IQ4_NL(const float *x, uint8_t *b) {
    uint8_t q[32];
    float per_level = inverse(store_f16(b, fit_grid(&iq4, x)));
    for (int i = 0; i < 32; i++) q[i] = (uint8_t)nearest(&iq4, x[i] * per_level);
    store_iq4_nibbles(q, b + 2);
}

static void block_IQ4_XS(const float *x, uint8_t *b) {
    uint8_t q[N];
    int8_t s[8];
    uint16_t high = 0;
    grid_block(&iq4, x, q, s, b);
    memset(b + 4, 0, 4);
    for (int g = 0; g < 8; g++) {
        int stored = s[g] + 32;
        b[4 + g / 2] |= (uint8_t)((stored & 15) << (g % 2 * 4));
        high |= (uint16_t)(stored >> 4 << (2 * g));
        store_iq4_nibbles(q + 32 * g, b + 8 + 16 * g);
    }
    memcpy(b + 2, &high, sizeof high);
}

/* ---- rows ---- */

#define ROW(name, block, bytes)                                                                                      \
    void tn_encode_##name(const float *src, void *dst, size_t n) {                                                   \
        uint8_t *b = dst;                                                                                            \
        for (size_t i = 0; i < n; i += block, b += bytes) block_##name(src + i, b);                                  \
    }
ROW(Q2_K, 256, 84)
ROW(Q3_K, 256, 110)
ROW(Q4_K, 256, 144)
ROW(Q5_K, 256, 176)
ROW(Q6_K, 256, 210)
ROW(IQ4_NL, 32, 18)
ROW(IQ4_XS, 256, 136)
