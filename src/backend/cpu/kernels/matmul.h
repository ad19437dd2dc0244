/* Finding the matmul kernel of a weight: the rows of matmul.def. */
#ifndef TN_CPU_MATMUL_H
#define TN_CPU_MATMUL_H

#include "backend/cpu/kernels/kernels.h"

typedef struct tn_matmul_kernel {
    tn_type type; /* TN_TYPE_LIMIT: any */
    tn_act_type act;
    tn_cpu_layout layout;
    tn_isa isa;
    tn_matmul_fn *run;
    const char *name;
} tn_matmul_kernel;

/* The best kernel that needs no more than `isa`; there is one for every type. Both activations of a type want the same
 * layout. */
const tn_matmul_kernel *tn_matmul_find(tn_type type, tn_act_type act, tn_isa isa);
/* What reads a row of a weight in this layout. */
tn_weight_row_fn *tn_weight_row_find(tn_cpu_layout layout);

#define MATMUL(type, act, layout, isa, fn) tn_matmul_fn fn;
#define WEIGHT_ROW(layout, fn)             tn_weight_row_fn fn;
#include "backend/cpu/kernels/matmul.def"

#endif
