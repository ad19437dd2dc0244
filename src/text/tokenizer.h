/* Text to ids and back, by the vocabulary in a GGUF file: byte-level BPE (tokenizer.ggml.model "gpt2", pre-tokenizer
 * by tokenizer.ggml.pre) and SentencePiece BPE ("llama"; "gemma4" is BPE over SentencePiece-style text). */
#ifndef TN_TEXT_TOKENIZER_H
#define TN_TEXT_TOKENIZER_H

#include "base/error.h"
#include "base/str.h"
#include "gguf/gguf.h"
#include "text/span.h"

typedef struct tn_tokenizer tn_tokenizer;

/* TN_ERR_INPUT where the file has no usable vocabulary, saying why. Views into g must stay valid: g outlives it. */
tn_status tn_tokenizer_open(tn_tokenizer **out, const tn_gguf *g, tn_error *err);
void tn_tokenizer_close(tn_tokenizer **t);

typedef struct tn_ids {
    int32_t *p; /* freed with tn_free */
    size_t n, cap;
} tn_ids;

typedef struct tn_encode_options {
    bool add_special;   /* BOS and EOS as the model's flags ask */
    bool parse_special; /* control tokens written in the text become their ids */
} tn_encode_options;

/* Appends to *ids. Invalid UTF-8 is encoded byte by byte. Linear time in len. */
tn_status tn_tokenizer_encode(const tn_tokenizer *t, tn_str text, tn_encode_options options, tn_ids *ids,
                              tn_error *err);
/* The same for a rendered template: spans, in order, cover the text; where they came from input, control tokens stay
 * text whatever the options. */
tn_status tn_tokenizer_encode_spans(const tn_tokenizer *t, tn_str text, const tn_span *spans, size_t n_spans,
                                    tn_encode_options options, tn_ids *ids, tn_error *err);
/* Appends the bytes of ids to *text; control tokens are written out when `special`, else left out. An id out of range
 * is TN_ERR_USAGE. The first token's leading space is removed where the tokenizer added one. */
tn_status tn_tokenizer_decode(const tn_tokenizer *t, const int32_t *ids, size_t n, bool special, tn_buf *text,
                              tn_error *err);

int32_t tn_tokenizer_n_vocab(const tn_tokenizer *t);
const char *tn_tokenizer_text(const tn_tokenizer *t, int32_t id); /* as in the vocabulary; NULL when out of range */
bool tn_tokenizer_ends(const tn_tokenizer *t, int32_t id);        /* ends a generation */
int32_t tn_tokenizer_bos(const tn_tokenizer *t);                  /* -1: none */
int32_t tn_tokenizer_eos(const tn_tokenizer *t);
bool tn_tokenizer_adds_bos(const tn_tokenizer *t);

#endif
