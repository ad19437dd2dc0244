/* Which tokens end a generation, by the file's keys and by texts that models are known to use. */
#ifndef TN_TEXT_END_TOKENS_H
#define TN_TEXT_END_TOKENS_H

#include "text/vocab.h"

/* Sets TN_TOKEN_ENDS, and makes well-known control tokens control tokens where the file forgot to. */
void tn_vocab_mark_ends(tn_vocab *v, const tn_gguf *g);
/* The i-th key that is read for that, of an id; NULL: there are no more. */
const char *tn_end_token_key(size_t i);

#endif
