/* Cutting text into words before merging, by the patterns that tokenizer.ggml.pre names. */
#ifndef TN_TEXT_PRETOKENIZE_H
#define TN_TEXT_PRETOKENIZE_H

#include "base/error.h"
#include "base/str.h"

enum { TN_PRE_MAX_PATTERNS = 6 };

enum {
    TN_PRE_WHOLE_WORDS = 1, /* a word that is a token is not merged */
    TN_PRE_ADDS_BOS = 2,    /* unless the file says otherwise */
    TN_PRE_CHARS = 4,       /* for vocabularies over characters, not bytes */
};

typedef struct tn_pre tn_pre;

/* TN_ERR_INPUT where this build does not know the name. */
tn_status tn_pre_open(tn_pre **out, tn_str name, tn_error *err);
void tn_pre_close(tn_pre **p);
int tn_pre_flags(const tn_pre *p);

/* Calls `word` for each word of the text, in order; together they are the text. The text is well-formed UTF-8. */
typedef tn_status tn_pre_word(void *data, tn_str word, tn_error *err);
tn_status tn_pre_split(const tn_pre *p, tn_str text, tn_pre_word *word, void *data, tn_error *err);

#endif
