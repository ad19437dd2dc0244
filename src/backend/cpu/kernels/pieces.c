/* Looks kernels up in pieces.def. */
#include "backend/cpu/kernels/pieces.h"

static const struct {
    tn_piece_op op;
    tn_isa isa;
    tn_piece_fn *fn;
} g_pieces[] = {
#define PIECE(name, need, function) {TN_PIECE_##name, TN_ISA_##need, function},
#include "backend/cpu/kernels/pieces.def"
};

static const struct {
    tn_kv_type type;
    tn_isa isa;
    tn_kv_write_fn *fn;
} g_kv_writes[] = {
#define KV_WRITE(kv, need, function) {TN_KV_##kv, TN_ISA_##need, function},
#include "backend/cpu/kernels/pieces.def"
};

static const struct {
    tn_kv_type type;
    tn_isa isa;
    tn_attention_fn *fn;
} g_attentions[] = {
#define ATTENTION(kv, need, function) {TN_KV_##kv, TN_ISA_##need, function},
#include "backend/cpu/kernels/pieces.def"
};

static const char *const g_names[] = {
#define OP(name) #name,
    TN_PIECE_OPS(OP)
#undef OP
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

const char *tn_piece_name(tn_piece_op op) {
    return g_names[op];
}

tn_piece_fn *tn_piece_find(tn_piece_op op, tn_isa isa) {
    for (size_t i = 0; i < COUNT(g_pieces); i++) {
        if (g_pieces[i].op == op && g_pieces[i].isa <= isa) return g_pieces[i].fn;
    }
    return NULL;
}

tn_kv_write_fn *tn_kv_write_find(tn_kv_type type, tn_isa isa) {
    for (size_t i = 0; i < COUNT(g_kv_writes); i++) {
        if (g_kv_writes[i].type == type && g_kv_writes[i].isa <= isa) return g_kv_writes[i].fn;
    }
    return NULL;
}

tn_attention_fn *tn_attention_find(tn_kv_type type, tn_isa isa) {
    for (size_t i = 0; i < COUNT(g_attentions); i++) {
        if (g_attentions[i].type == type && g_attentions[i].isa <= isa) return g_attentions[i].fn;
    }
    return NULL;
}
