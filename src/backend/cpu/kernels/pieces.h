/* The row and element kernels, the cache writers and the attentions by what they do: the rows of pieces.def. */
#ifndef TN_CPU_PIECES_H
#define TN_CPU_PIECES_H

#include "backend/cpu/kernels/kernels.h"

/* The ops of a piece, as kernels.h describes them. */
/* clang-format off */
#define TN_PIECE_OPS(OP)                                                                   \
    OP(rms_norm) OP(l2_norm) OP(add) OP(mul)                                               \
    OP(silu) OP(gelu) OP(gelu_quick) OP(sigmoid) OP(softplus) OP(scale) OP(softcap)        \
    OP(softmax) OP(quantize) OP(rope) OP(rope_table)
/* clang-format on */

typedef enum tn_piece_op {
#define OP(name) TN_PIECE_##name,
    TN_PIECE_OPS(OP)
#undef OP
        TN_PIECE_COUNT
} tn_piece_op;

const char *tn_piece_name(tn_piece_op op);

/* The best kernel that needs no more than `isa`; there is one for every op and cache type. */
tn_piece_fn *tn_piece_find(tn_piece_op op, tn_isa isa);
tn_kv_write_fn *tn_kv_write_find(tn_kv_type type, tn_isa isa);
tn_attention_fn *tn_attention_find(tn_kv_type type, tn_isa isa);

#define PIECE(op, isa, fn)       tn_piece_fn fn;
#define KV_WRITE(type, isa, fn)  tn_kv_write_fn fn;
#define ATTENTION(type, isa, fn) tn_attention_fn fn;
#include "backend/cpu/kernels/pieces.def"

#endif
