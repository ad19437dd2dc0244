/* Model files small enough to be damaged byte by byte: every architecture, random weights, a few kilobytes. */
#ifndef TN_TESTS_TINY_MODEL_H
#define TN_TESTS_TINY_MODEL_H

#include "gguf/gguf.h"

enum { TN_TINY_VOCAB = 12 };

typedef struct tn_tiny_options {
    const char *arch; /* as in general.architecture; gemma4moe: gemma4 with experts */
    tn_type type;     /* of the matrices */
    int32_t width;    /* of activations: a multiple of the type's block, and of 8 */
    bool vocab;       /* with a vocabulary of letters */
} tn_tiny_options;

/* The i-th architecture's name; NULL at the end. */
const char *tn_tiny_arch(int i);
/* The same options always give the same bytes. */
tn_status tn_tiny_write(const tn_tiny_options *o, const char *path, tn_error *err);
/* The bytes of such a file, freed with tn_free; NULL on failure. It goes by way of a temporary file. */
void *tn_tiny_bytes(const tn_tiny_options *o, size_t *n, tn_error *err);

#endif
