/* The loops of the element kernels, around an expression of one element. Operands may be the same memory as the
 * result, element on element, which is no reason not to vectorise. */
#ifndef TN_CPU_ELEMENT_H
#define TN_CPU_ELEMENT_H

#ifdef __clang__
#define TN_VECTORISE _Pragma("clang loop vectorize(assume_safety)")
#else
#define TN_VECTORISE _Pragma("GCC ivdep")
#endif

/* `value` is of x, the element, and f, the piece's first number. */
#define TN_UNARY(name, value)                                                                                        \
    void name(const tn_piece *p) {                                                                                   \
        float *dst = p->dst, f = p->f[0];                                                                            \
        const float *src = p->src[0];                                                                                \
        int32_t n = p->n;                                                                                            \
        (void)f;                                                                                                     \
        TN_VECTORISE                                                                                                 \
        for (int32_t j = 0; j < n; j++) {                                                                            \
            float x = src[j];                                                                                        \
            dst[j] = value;                                                                                          \
        }                                                                                                            \
    }

/* `value` is of x and y, the elements of the two operands. The second one may repeat along the row: then it is taken
 * in stretches from `first` up to the end of a period. */
#define TN_BINARY(name, value)                                                                                       \
    void name(const tn_piece *p) {                                                                                   \
        float *dst = p->dst;                                                                                         \
        const float *a = p->src[0], *b = p->src[1];                                                                  \
        int32_t period = p->i[0], n = p->n,                                                                          \
                step = period != 1; /* a period of 1 is one long stretch of one number */                            \
        int32_t at = period ? p->first % period : 0;                                                                 \
        for (int32_t j = 0, stretch; j < n; j += stretch, at = 0) {                                                  \
            stretch = period > 1 && period - at < n - j ? period - at : n - j;                                       \
            if (step) {                                                                                              \
                TN_VECTORISE                                                                                         \
                for (int32_t k = 0; k < stretch; k++) {                                                              \
                    float x = a[j + k], y = b[at + k];                                                               \
                    dst[j + k] = value;                                                                              \
                }                                                                                                    \
            } else {                                                                                                 \
                float y = b[0];                                                                                      \
                TN_VECTORISE                                                                                         \
                for (int32_t k = 0; k < stretch; k++) {                                                              \
                    float x = a[j + k];                                                                              \
                    dst[j + k] = value;                                                                              \
                }                                                                                                    \
            }                                                                                                        \
        }                                                                                                            \
    }

#endif
