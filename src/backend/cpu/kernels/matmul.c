/* The scalar matmuls, which define what the others compute, and the choice of a kernel. */
#include "backend/cpu/kernels/matmul.h"

#include "backend/cpu/kernels/layout.h"

/* Sums are double and in order of columns. A row's blocks are decoded once for SHARE tokens. */
enum { SHARE = 64, STEP = 256 };

/* Columns [c, c + n) of activation row t as floats. */
typedef void decode_fn(const uint8_t *row, int32_t n_in, int32_t c, int32_t n, float *dst);

static void decode_f32(const uint8_t *row, int32_t n_in, int32_t c, int32_t n, float *dst) {
    (void)n_in;
    for (int32_t i = 0; i < n; i++) dst[i] = ((const float *)row)[c + i];
}
static void decode_q8(const uint8_t *row, int32_t n_in, int32_t c, int32_t n, float *dst) {
    const float *d = (const float *)(row + n_in);
    for (int32_t i = 0; i < n; i++) dst[i] = d[(c + i) / 32] * (float)((const int8_t *)row)[c + i];
}

/* A row past the last one is padding, as in a tile: zeros. */
static void matmul_ref(const tn_cpu_weight *w, int32_t r, decode_fn *decode, const uint8_t *x, size_t x_stride,
                       int32_t n_tokens, float *dst, size_t ld) {
    const tn_type_info *type = tn_type_get(w->type);
    double sum[SHARE] = {0};
    float wf[STEP], xf[STEP];
    for (int32_t c = 0; r < w->n_out && c < w->n_in; c += STEP) {
        int32_t n = w->n_in - c < STEP ? w->n_in - c : STEP;
        const uint8_t *row = (const uint8_t *)w->data + (size_t)r * w->stride;
        type->decode(row + (size_t)(c / type->block) * (size_t)type->bytes, wf, (size_t)n);
        for (int32_t t = 0; t < n_tokens; t++) {
            decode(x + (size_t)t * x_stride, w->n_in, c, n, xf);
            for (int32_t i = 0; i < n; i++) sum[t] += (double)wf[i] * (double)xf[i];
        }
    }
    for (int32_t t = 0; t < n_tokens; t++) dst[(size_t)t * ld] = (float)sum[t];
}

static void matmul_rows_ref(const tn_cpu_weight *w, int32_t r0, int32_t n_rows, decode_fn *decode, const uint8_t *x,
                            size_t x_stride, int32_t n_tokens, float *dst, size_t ld) {
    for (int32_t t = 0; t < n_tokens; t += SHARE) {
        int32_t n = n_tokens - t < SHARE ? n_tokens - t : SHARE;
        for (int32_t i = 0; i < n_rows; i++)
            matmul_ref(w, r0 + i, decode, x + (size_t)t * x_stride, x_stride, n, dst + (size_t)t * ld + i, ld);
    }
}

void tn_matmul_q8__ref(const tn_cpu_weight *w, int32_t r0, int32_t n_rows, const void *x, size_t x_stride,
                       int32_t n_tokens, float *dst, size_t ld) {
    matmul_rows_ref(w, r0, n_rows, decode_q8, x, x_stride, n_tokens, dst, ld);
}

void tn_matmul_f32__ref(const tn_cpu_weight *w, int32_t r0, int32_t n_rows, const void *x, size_t x_stride,
                        int32_t n_tokens, float *dst, size_t ld) {
    matmul_rows_ref(w, r0, n_rows, decode_f32, x, x_stride, n_tokens, dst, ld);
}

void tn_weight_row__ref(const tn_cpu_weight *w, int32_t r, float *dst) {
    tn_type_get(w->type)->decode((const uint8_t *)w->data + (size_t)r * w->stride, dst, (size_t)w->n_in);
}

#define TN_TYPE_ANY TN_TYPE_LIMIT

static const tn_matmul_kernel g_kernels[] = {
#define MATMUL(type, act, layout, isa, fn) {TN_TYPE_##type, TN_ACT_##act, TN_LAYOUT_##layout, TN_ISA_##isa, fn, #fn},
#include "backend/cpu/kernels/matmul.def"
};

static tn_weight_row_fn *const g_rows[] = {
#define WEIGHT_ROW(layout, fn) [TN_LAYOUT_##layout] = fn,
#include "backend/cpu/kernels/matmul.def"
};

const tn_matmul_kernel *tn_matmul_find(tn_type type, tn_act_type act, tn_isa isa) {
    const tn_matmul_kernel *k = g_kernels; /* the last rows take everything */
    while (k->act != act || k->isa > isa || (k->type != type && k->type != TN_TYPE_ANY)) k++;
    return k;
}

tn_weight_row_fn *tn_weight_row_find(tn_cpu_layout layout) {
    return g_rows[layout];
}
