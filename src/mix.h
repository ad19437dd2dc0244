/* The choice of a block type for each tensor of a file that is made: see mix.def. */
#ifndef TN_MIX_H
#define TN_MIX_H

#include "gguf/gguf.h"

typedef struct tn_file_type {
    const char *name;
    uint32_t number; /* general.file_type */
    tn_type type;
    const char *words; /* "Q4_K - Medium" */
} tn_file_type;

/* By name, in either case. Unknown names are an error that lists those there are. */
tn_status tn_file_type_find(const tn_file_type **out, const char *name, tn_error *err);

/* A value of general.file_type in llama.cpp's words. */
const char *tn_file_type_words(uint32_t number);

enum { TN_MIX_LAYERS = 4096 };

/* What the choice depends on. The first four are the caller's, the rest tn_mix_see's. */
typedef struct tn_mix {
    const tn_file_type *file_type;
    bool pure; /* one type for all matrices */
    int32_t n_layer, n_expert, n_head, n_kv;
    bool untied;                /* there is an output matrix beside the embedding table */
    bool attn_v[TN_MIX_LAYERS]; /* which layers have a matrix of values */
} tn_mix;

/* Tells it of every tensor of the model, before the first question. */
void tn_mix_see(tn_mix *m, const char *name);
/* The type for a tensor that has the type t->type now. *fell_back tells that its rows did not fit the type wanted. */
tn_type tn_mix_type(const tn_mix *m, const tn_gguf_tensor *t, bool *fell_back);

/* Whether values of a type have lost what F32, F16 and BF16 keep. */
bool tn_is_quantized(uint32_t type);

#endif
