/* Merging: of all neighbours that may be one token, the best pair becomes one, until none is left. By rank (BPE) or by
 * the score of the result (SentencePiece); of equals, the leftmost. O(n log n). */
#ifndef TN_TEXT_MERGE_H
#define TN_TEXT_MERGE_H

#include "text/vocab.h"

/* Hash of (left, right) -> (rank, result), over indices of texts. */
typedef struct tn_merge_slot {
    int32_t left, right, result; /* left -1: empty */
    uint32_t rank;
} tn_merge_slot;

typedef struct tn_merges {
    tn_merge_slot *slots;
    size_t n_slots; /* a power of two */
} tn_merges;

/* Reads tokenizer.ggml.merges; what is not a token is interned in v. */
tn_status tn_merges_open(tn_merges *m, tn_vocab *v, const tn_gguf *g, tn_error *err);
void tn_merges_close(tn_merges *m);

typedef struct tn_symbol {
    int32_t id; /* index of its text in the vocabulary, -1: not there */
    int32_t prev, next;
    uint32_t begin, n; /* its bytes; n is 0 once it is part of another */
} tn_symbol;

typedef struct tn_pair {
    uint64_t key; /* what is merged first is least */
    int32_t right, result;
    uint32_t bytes; /* of both: another number tells that one of them has changed */
} tn_pair;

/* Scratch memory, kept from word to word. Zero is empty. */
typedef struct tn_merger {
    const tn_vocab *vocab;
    const tn_merges *merges; /* NULL: by score */
    tn_symbol *symbols;
    size_t n_symbols, cap_symbols;
    tn_pair *heap;
    size_t n_heap, cap_heap;
    bool failed; /* out of memory; sticky */
} tn_merger;

void tn_merger_free(tn_merger *w);
void tn_merger_add(tn_merger *w, int32_t id, size_t begin, size_t n);
/* Merges what was added, symbols of `text`. Those left are the ones from 0 along `next`, to -1. */
void tn_merger_run(tn_merger *w, const char *text);

#endif
