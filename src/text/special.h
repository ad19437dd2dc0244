/* Finding the tokens that are recognised in a text before anything else: control and user-defined ones. Longer tokens
 * go first, wherever they stand; of one length, the lower id; of one token, the leftmost. Linear in the text but for a
 * logarithm, whatever the number of tokens. */
#ifndef TN_TEXT_SPECIAL_H
#define TN_TEXT_SPECIAL_H

#include "text/span.h"
#include "text/vocab.h"

typedef struct tn_special {
    int32_t *ids; /* of the tokens, sorted by text */
    size_t n;
    size_t first[257]; /* where in ids those begin whose first byte is at least this */
} tn_special;

tn_status tn_special_open(tn_special *s, const tn_vocab *v, tn_error *err);
void tn_special_close(tn_special *s);

/* Where control tokens may be recognised: nowhere, or everywhere but in spans that came from input. */
typedef struct tn_special_scope {
    bool control;
    const tn_span *spans; /* in order, covering the text; NULL: nothing came from input */
    size_t n_spans;
} tn_special_scope;

/* What a byte of a text belongs to. */
enum {
    TN_OWNER_TEXT = 0,
    TN_OWNER_INSIDE = -1,
    TN_OWNER_DROPPED = -2
}; /* else id + 1 of the token that begins here */

/* *owner: one for each byte, freed with tn_free; NULL where no token was found. */
tn_status tn_special_find(const tn_special *s, const tn_vocab *v, tn_str text, const tn_special_scope *scope,
                          int32_t **owner, tn_error *err);

#endif
