/* Element kernels as vector loops. */
#include "backend/cpu/kernels/element.h"

#include "backend/cpu/kernels/expf.h"
#include "backend/cpu/kernels/isa.h"
#include "backend/cpu/kernels/pieces.h"

/* (1 + tanh u) / 2 = sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
static inline float gelu(float x) {
    return x * tn_sigmoidf(1.5957691216f * (x + 0.044715f * x * x * x));
}

/* log(1 + e^x) is above x, and is x in float from 20 on */
static inline float softplus(float x) {
    float y = tn_log1pf(tn_expf(x > 20.0f ? 20.0f : x));
    return x > y ? x : y;
}

TN_BINARY(TN_ISA_NAME(tn_add), x + y)
TN_BINARY(TN_ISA_NAME(tn_mul), x *y)
TN_UNARY(TN_ISA_NAME(tn_silu), x / (1.0f + tn_expf(-x)))
TN_UNARY(TN_ISA_NAME(tn_gelu), gelu(x))
TN_UNARY(TN_ISA_NAME(tn_gelu_quick), x / (1.0f + tn_expf(-1.702f * x)))
TN_UNARY(TN_ISA_NAME(tn_sigmoid), tn_sigmoidf(x))
TN_UNARY(TN_ISA_NAME(tn_softplus), softplus(x))
TN_UNARY(TN_ISA_NAME(tn_scale), f *x)
TN_UNARY(TN_ISA_NAME(tn_softcap), f *tn_tanhf(x / f))
