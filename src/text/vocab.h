/* The vocabulary of a file: texts, types and scores of the tokens, and the ids that have a meaning of their own. */
#ifndef TN_TEXT_VOCAB_H
#define TN_TEXT_VOCAB_H

#include "base/arena.h"
#include "gguf/gguf.h"

typedef enum tn_token_type {
    TN_TOKEN_NORMAL = 1,
    TN_TOKEN_UNKNOWN,
    TN_TOKEN_CONTROL,
    TN_TOKEN_USER, /* recognised in any text, before everything else */
    TN_TOKEN_UNUSED,
    TN_TOKEN_BYTE, /* <0xNN> */
} tn_token_type;

/* How text becomes tokens. */
typedef enum tn_vocab_kind {
    TN_VOCAB_BYTES, /* "gpt2": merges by rank over bytes, each written as a printable character */
    TN_VOCAB_CHARS, /* "gemma4": merges by rank over characters, spaces written as U+2581 */
    TN_VOCAB_SPM,   /* "llama": merges by score over characters, spaces written as U+2581 */
} tn_vocab_kind;

enum {
    TN_TOKEN_ENDS = 1,
    TN_TOKEN_STRIPS_RIGHT = 2
}; /* flags of a token: ends a generation; takes the spaces after it */

typedef struct tn_vocab {
    tn_vocab_kind kind;
    int32_t n;       /* tokens */
    int32_t n_texts; /* tokens, then texts that occur in merges only */
    int32_t cap_texts;
    tn_str *text; /* zero-terminated where a token's */
    uint8_t *type, *flags;
    float *score;
    size_t longest;       /* bytes */
    char *pool;           /* the bytes of the tokens */
    tn_arena arena;       /* the other texts */
    int32_t *slots;       /* hash of texts: id + 1; 0 is empty */
    size_t n_slots;       /* a power of two */
    int32_t byte_id[256]; /* the token for a byte alone, -1: none */
    int32_t bos, eos, unknown;
} tn_vocab;

/* The table of tokens and their hash; `kind` is set before, and the types of the keys are checked. */
tn_status tn_vocab_open(tn_vocab *v, const tn_gguf *g, tn_error *err);
void tn_vocab_close(tn_vocab *v);

/* The text's index (below n: a token), -1: not there. */
int32_t tn_vocab_find(const tn_vocab *v, tn_str text);
/* The same, added where it is not there; -1: out of memory. */
int32_t tn_vocab_intern(tn_vocab *v, tn_str text);

/* The byte that a character of byte-level vocabularies stands for, and back; -1: none. */
int tn_vocab_char_byte(uint32_t cp);
uint32_t tn_vocab_byte_char(unsigned byte);

#endif
