/* What the host tells a kernel at run time, and the codes of what it tells it at compile time. Plain C of fixed sizes: the
 * host's compiler reads it as a header, NVRTC as the first part of every kernel's source. Addresses are of the device. */
#ifndef TN_CUDA_PARAMS_H
#define TN_CUDA_PARAMS_H

enum { TN_K_THREADS = 256, TN_K_WARPS = 8, TN_K_MAX_VALUES = 40, TN_K_MAX_WEIGHTS = 10, TN_K_PAGE = 64 };

/* Row r of a value begins at p + r * stride bytes; a weight vector has stride 0. */
typedef struct tn_k_value {
    unsigned long long p;
    long long stride;
} tn_k_value;

/* The planes of a packed matrix; see pack.h. */
typedef struct tn_k_weight {
    unsigned long long low, high, scale, super;
} tn_k_weight;

/* The step's inputs. counts: tokens, outputs, pages in a page table. ids: below 0 it is what the step before chose in that row. */
typedef struct tn_k_step {
    unsigned long long counts, ids, pos, seq, outputs, pages, chosen;
} tn_k_step;

typedef struct tn_k_args {
    tn_k_step step;
    unsigned long long cache;             /* pages of the layer's keys and values */
    unsigned long long partial, counters; /* attention split over the context */
    tn_k_value v[TN_K_MAX_VALUES];        /* operands and results that lie in device memory */
    tn_k_weight w[TN_K_MAX_WEIGHTS];      /* of the products, or of the embedding */
} tn_k_args;

/* How a packed matrix is encoded, as one number: bits in the low plane (4, 8: integers; 16, 32: floats), bits in the high
 * plane, kind of scales, and what is subtracted from an integer. */
#define TN_K_TRAITS(low, high, scale, off) ((low) | (high) << 8 | (scale) << 12 | (off) << 16)
#define TN_K_LOW(t)                        ((t)&255)
#define TN_K_HIGH(t)                       ((t) >> 8 & 15)
#define TN_K_SCALE(t)                      ((t) >> 12 & 15)
#define TN_K_OFF(t)                        ((t) >> 16)

/* Scales of 32 elements: value = s (q - off) + m; K.., those with a half2 (d, dmin) for each 256, have two bytes a, b. */
enum {
    TN_K_NONE, /* plain floats */
    TN_K_BF16, /* plain floats, 16 bits in the low plane */
    TN_K_D,    /* half s */
    TN_K_DM,   /* half s, m */
    TN_K_KM,   /* s = d a, m = -(dmin b) */
    TN_K_K16,  /* s = d a for the first 16, d b for the rest, both signed */
    TN_K_K16M  /* likewise, low nibbles times d are s, high nibbles times -dmin are m */
};

#endif
