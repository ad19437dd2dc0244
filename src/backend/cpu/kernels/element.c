/* Element kernels: what they are, in the C library's functions. */
#include "backend/cpu/kernels/element.h"

#include "backend/cpu/kernels/pieces.h"

#include <math.h>

TN_BINARY(tn_add__ref, x + y)
TN_BINARY(tn_mul__ref, x *y)
TN_UNARY(tn_silu__ref, x / (1.0f + expf(-x)))
TN_UNARY(tn_gelu__ref, 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x))))
TN_UNARY(tn_gelu_quick__ref, x / (1.0f + expf(-1.702f * x)))
TN_UNARY(tn_sigmoid__ref, 1.0f / (1.0f + expf(-x)))
TN_UNARY(tn_softplus__ref, x > 20.0f ? x : log1pf(expf(x)))
TN_UNARY(tn_scale__ref, f *x)
TN_UNARY(tn_softcap__ref, f *tanhf(x / f))
