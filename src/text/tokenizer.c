/* Opening a tokenizer from a file's metadata, and the ways from text to ids and back. */
#include "text/tokenizer.h"

#include "base/mem.h"
#include "text/end_tokens.h"
#include "text/merge.h"
#include "text/pretokenize.h"
#include "text/special.h"
#include "text/utf8.h"

#include <ctype.h>

struct tn_tokenizer {
    tn_vocab vocab;
    tn_merges merges;
    tn_special special;
    tn_pre *pre; /* NULL: text is not cut into words */
    bool add_bos, add_eos, add_space;
};

static const tn_str blank = {"\xe2\x96\x81", 3}; /* U+2581, a space in vocabularies over characters */

/* ---- opening ---- */

typedef enum kind { STRING, INTEGER, TRUTH, STRINGS, NUMBERS } kind;

/* What the keys are that are read here and in the parts; those of tokens that end something are in end_tokens.c. */
static const struct {
    const char *name;
    kind kind;
} keys[] = {
    {"tokenizer.chat_template", STRING},      {"tokenizer.ggml.model", STRING},
    {"tokenizer.ggml.pre", STRING},           {"tokenizer.ggml.tokens", STRINGS},
    {"tokenizer.ggml.merges", STRINGS},       {"tokenizer.ggml.token_type", NUMBERS},
    {"tokenizer.ggml.scores", NUMBERS},       {"tokenizer.ggml.add_bos_token", TRUTH},
    {"tokenizer.ggml.add_eos_token", TRUTH},  {"tokenizer.ggml.add_space_prefix", TRUTH},
    {"tokenizer.ggml.bos_token_id", INTEGER}, {"tokenizer.ggml.unknown_token_id", INTEGER},
};

static bool is_kind(const tn_gguf_kv *kv, kind k) {
    switch (k) {
    case STRING: return kv->type == TN_GGUF_STR;
    case INTEGER: return tn_gguf_is_integer(kv->type);
    case TRUTH: return kv->type == TN_GGUF_BOOL;
    case STRINGS: return kv->type == TN_GGUF_ARRAY && kv->array.type == TN_GGUF_STR;
    default: return kv->type == TN_GGUF_ARRAY && kv->array.type != TN_GGUF_STR && kv->array.type != TN_GGUF_BOOL;
    }
}

static tn_status check_key(const tn_gguf *g, const char *name, kind k, tn_error *err) {
    static const char *const words[] = {[STRING] = "a string",
                                        [INTEGER] = "an integer",
                                        [TRUTH] = "a bool",
                                        [STRINGS] = "an array of strings",
                                        [NUMBERS] = "an array of numbers"};
    const tn_gguf_kv *kv = tn_gguf_find(g, name);
    return kv && !is_kind(kv, k) ? tn_gguf_wrong_type(kv, words[k], err) : TN_OK;
}

/* One of the wrong type is not taken for an absent one. */
static tn_status check_keys(const tn_gguf *g, tn_error *err) {
    tn_status status = TN_OK;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && status == TN_OK; i++)
        status = check_key(g, keys[i].name, keys[i].kind, err);
    for (size_t i = 0; tn_end_token_key(i) && status == TN_OK; i++)
        status = check_key(g, tn_end_token_key(i), INTEGER, err);
    return status;
}

/* By tokenizer.ggml.model; ids are what holds where the file says nothing. */
static const struct model {
    const char *name;
    tn_vocab_kind kind;
    const char *pre; /* instead of what the file says; NULL: the file's */
    int32_t bos, eos, unknown;
    bool add_bos, add_space;
} models[] = {
    {"gpt2", TN_VOCAB_BYTES, NULL, 11, 11, -1, false, false},
    {"gemma4", TN_VOCAB_CHARS, "gemma4", -1, -1, -1, true, false},
    {"llama", TN_VOCAB_SPM, NULL, 1, 2, 0, true, true},
};

static tn_status find_model(const tn_gguf *g, const struct model **out, tn_error *err) {
    tn_str name;
    if (!tn_gguf_get_str(g, "tokenizer.ggml.model", &name)) {
        return tn_fail(err, TN_ERR_INPUT, "the file has no tokenizer (tokenizer.ggml.model)");
    }
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (tn_str_is(name, models[i].name)) return *out = &models[i], TN_OK;
    }
    return tn_fail(err, TN_ERR_INPUT, "tokenizer '%.*s' (tokenizer.ggml.model) is not supported",
                   (int)(name.n < 100 ? name.n : 100), name.p);
}

static int32_t get_id(const tn_vocab *v, const tn_gguf *g, const char *key, int32_t missing) {
    uint32_t id;
    if (tn_gguf_get_u32(g, key, &id) && id < (uint32_t)v->n) return (int32_t)id;
    return missing < v->n ? missing : -1;
}

static tn_status read_flags(tn_tokenizer *t, const tn_gguf *g, const struct model *m, tn_error *err) {
    tn_vocab *v = &t->vocab;
    v->bos = get_id(v, g, "tokenizer.ggml.bos_token_id", m->bos);
    v->eos = get_id(v, g, "tokenizer.ggml.eos_token_id", m->eos);
    v->unknown = get_id(v, g, "tokenizer.ggml.unknown_token_id", m->unknown);
    t->add_bos = m->add_bos || (t->pre && tn_pre_flags(t->pre) & TN_PRE_ADDS_BOS);
    t->add_space = m->add_space;
    tn_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos);
    tn_gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &t->add_eos);
    if (m->kind == TN_VOCAB_SPM) tn_gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &t->add_space);
    if (v->kind == TN_VOCAB_CHARS) t->add_bos = true; /* there are files that deny it */
    if (t->add_bos && v->bos < 0) return tn_fail(err, TN_ERR_INPUT, "the tokenizer adds a BOS token, but has none");
    if (t->add_eos && v->eos < 0) return tn_fail(err, TN_ERR_INPUT, "the tokenizer adds an EOS token, but has none");
    return TN_OK;
}

/* Of the models of this family the special tokens take the spaces after them; no key says so. */
static void mark_phi3(tn_vocab *v, const tn_gguf *g) {
    static const char *const keep[] = {"<unk>", "<s>", "<|endoftext|>"};
    tn_str name;
    bool phi3 = false;
    if (!tn_gguf_get_str(g, "general.name", &name)) return;
    for (size_t i = 0; i + 4 <= name.n; i++) {
        const char *p = name.p + i;
        if (tolower((unsigned char)p[0]) != 'p' || tolower((unsigned char)p[1]) != 'h' ||
            tolower((unsigned char)p[2]) != 'i')
            continue;
        phi3 |= p[3] == '3' || (p[3] == '-' && i + 5 <= name.n && p[4] == '3');
    }
    for (int32_t i = 0; phi3 && i < v->n; i++) {
        bool special =
            v->type[i] == TN_TOKEN_CONTROL || v->type[i] == TN_TOKEN_USER || v->type[i] == TN_TOKEN_UNKNOWN;
        for (size_t k = 0; k < sizeof keep / sizeof *keep; k++) special &= !tn_str_is(v->text[i], keep[k]);
        if (special || tn_str_is(v->text[i], "</s>")) v->flags[i] |= TN_TOKEN_STRIPS_RIGHT;
    }
}

static tn_status open_parts(tn_tokenizer *t, const tn_gguf *g, tn_error *err) {
    const struct model *m = NULL;
    tn_status st = check_keys(g, err);
    if (!st) st = find_model(g, &m, err);
    if (st) return st;
    tn_str pre = tn_str_of("default");
    tn_gguf_get_str(g, "tokenizer.ggml.pre", &pre);
    if (m->pre) pre = tn_str_of(m->pre);
    t->vocab.kind = m->kind;
    if (m->kind != TN_VOCAB_SPM) {
        st = tn_pre_open(&t->pre, pre, err);
        if (!st && tn_pre_flags(t->pre) & TN_PRE_CHARS) t->vocab.kind = TN_VOCAB_CHARS;
    }
    if (!st) st = tn_vocab_open(&t->vocab, g, err);
    if (!st && m->kind != TN_VOCAB_SPM) st = tn_merges_open(&t->merges, &t->vocab, g, err);
    if (!st) st = read_flags(t, g, m, err);
    if (st) return st;
    tn_vocab_mark_ends(&t->vocab, g);
    mark_phi3(&t->vocab, g);
    return tn_special_open(&t->special, &t->vocab, err);
}

tn_status tn_tokenizer_open(tn_tokenizer **out, const tn_gguf *g, tn_error *err) {
    *out = NULL;
    tn_tokenizer *t = tn_alloc_zero(1, sizeof *t);
    if (!t) return tn_fail_memory(err);
    tn_status st = open_parts(t, g, err);
    if (st) {
        tn_tokenizer_close(&t);
    } else {
        *out = t;
    }
    return st;
}

void tn_tokenizer_close(tn_tokenizer **t) {
    if (!*t) return;
    tn_special_close(&(*t)->special);
    tn_merges_close(&(*t)->merges);
    tn_pre_close(&(*t)->pre);
    tn_vocab_close(&(*t)->vocab);
    tn_free(*t);
    *t = NULL;
}

/* ---- text to ids ---- */

typedef struct encoder {
    const tn_tokenizer *t;
    tn_ids *ids;
    tn_merger merger;
    tn_buf escaped; /* a piece of text with its spaces rewritten; a word in the characters of the vocabulary */
    tn_error *err;
} encoder;

static tn_status push(encoder *e, int32_t id) {
    tn_ids *ids = e->ids;
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 64;
        int32_t *p = tn_realloc(ids->p, cap * sizeof *p);
        if (!p) return tn_fail_memory(e->err);
        ids->p = p;
        ids->cap = cap;
    }
    ids->p[ids->n++] = id;
    return TN_OK;
}

/* Bytes that no token holds together. One that has no token of its own is the unknown token in SentencePiece, elsewhere
 * nothing: there the unknown token often is one that ends a generation. */
static tn_status push_bytes(encoder *e, const char *p, size_t n) {
    const tn_vocab *v = &e->t->vocab;
    tn_status st = TN_OK;
    for (size_t i = 0; i < n && !st; i++) {
        int32_t id = v->byte_id[(unsigned char)p[i]];
        if (id < 0 && v->kind == TN_VOCAB_SPM) id = v->unknown;
        if (id >= 0) st = push(e, id);
    }
    return st;
}

/* Cuts text into its first symbols: bytes, or characters. */
static void add_symbols(encoder *e, tn_str text) {
    const tn_vocab *v = &e->t->vocab;
    e->merger.n_symbols = 0;
    for (size_t i = 0, n; i < text.n; i += n) {
        n = v->kind == TN_VOCAB_BYTES ? 1 : tn_utf8_char(text.p + i, text.n - i);
        if (n == 0) n = 1;
        int32_t id = v->kind == TN_VOCAB_BYTES ? v->byte_id[(unsigned char)text.p[i]]
                                               : tn_vocab_find(v, (tn_str){text.p + i, n});
        tn_merger_add(&e->merger, id, i, n);
    }
}

static tn_status merge_text(encoder *e, tn_str text) {
    tn_merger *w = &e->merger;
    add_symbols(e, text);
    tn_merger_run(w, text.p);
    if (w->failed) return tn_fail_memory(e->err);
    tn_status st = TN_OK;
    for (int32_t i = w->n_symbols ? 0 : -1; i >= 0 && !st; i = w->symbols[i].next) {
        const tn_symbol *s = &w->symbols[i];
        bool token = s->id >= 0 && s->id < e->t->vocab.n;
        st = token ? push(e, s->id) : push_bytes(e, text.p + s->begin, s->n);
    }
    return st;
}

/* The token that a whole word is, -1: none. */
static int32_t whole_word(encoder *e, tn_str word) {
    const tn_vocab *v = &e->t->vocab;
    if (word.n > v->longest) return -1;
    if (v->kind == TN_VOCAB_CHARS) return tn_vocab_find(v, word);
    e->escaped.n = 0;
    for (size_t i = 0; i < word.n; i++) {
        uint32_t cp = tn_vocab_byte_char((unsigned char)word.p[i]);
        char two[2] = {(char)(0xc0 | cp >> 6), (char)(0x80 | (cp & 0x3f))};
        if (cp < 0x80) {
            tn_buf_char(&e->escaped, (char)cp);
        } else {
            tn_buf_add(&e->escaped, two, 2);
        }
    }
    return tn_vocab_find(v, (tn_str){e->escaped.p, e->escaped.n});
}

static tn_status encode_word(void *data, tn_str word, tn_error *err) {
    encoder *e = data;
    int32_t id = -1;
    (void)err;
    /* a run of newlines that is a token stays one: merges would cut it differently */
    bool newlines = e->t->vocab.kind == TN_VOCAB_CHARS && word.n && word.p[0] == '\n';
    if (newlines || tn_pre_flags(e->t->pre) & TN_PRE_WHOLE_WORDS) id = whole_word(e, word);
    if (e->escaped.failed) return tn_fail_memory(e->err);
    return id >= 0 && id < e->t->vocab.n ? push(e, id) : merge_text(e, word);
}

/* Words of the well-formed parts; other bytes one by one. */
static tn_status encode_words(encoder *e, tn_str text) {
    tn_status st = TN_OK;
    for (size_t begin = 0, end = 0, n; begin < text.n && !st; begin = end) {
        while (end < text.n && (n = tn_utf8_char(text.p + end, text.n - end))) end += n;
        if (end > begin) {
            st = tn_pre_split(e->t->pre, (tn_str){text.p + begin, end - begin}, encode_word, e, e->err);
        } else {
            st = push_bytes(e, text.p + end++, 1);
        }
    }
    return st;
}

/* Text without tokens of its own; `first`: nothing but such a token stands before it. */
static tn_status encode_text(encoder *e, tn_str text, bool first) {
    const tn_tokenizer *t = e->t;
    if (t->vocab.kind == TN_VOCAB_BYTES) return encode_words(e, text);
    tn_buf b = {0};
    if (t->add_space && first) tn_buf_add(&b, blank.p, blank.n);
    for (size_t i = 0, end; i < text.n; i = end) {
        const char *space = memchr(text.p + i, ' ', text.n - i);
        end = space ? (size_t)(space - text.p) : text.n;
        tn_buf_add(&b, text.p + i, end - i);
        for (; end < text.n && text.p[end] == ' '; end++) tn_buf_add(&b, blank.p, blank.n);
    }
    tn_str escaped = {b.p, b.n};
    tn_status st = b.failed ? tn_fail_memory(e->err) : t->pre ? encode_words(e, escaped) : merge_text(e, escaped);
    tn_buf_free(&b);
    return st;
}

/* Text with its special tokens, by what owns each byte. */
static tn_status encode_owned(encoder *e, tn_str text, const int32_t *owner) {
    tn_status st = TN_OK;
    bool first = true;
    for (size_t i = 0, end; i < text.n && !st; i = end) {
        end = i + 1;
        if (owner && owner[i] > 0) {
            st = push(e, owner[i] - 1);
            first = true;
        } else if (!owner || owner[i] == TN_OWNER_TEXT) {
            if (!owner) end = text.n;
            while (end < text.n && owner[end] == TN_OWNER_TEXT) end++;
            st = encode_text(e, (tn_str){text.p + i, end - i}, first);
            first = false;
        }
    }
    return st;
}

tn_status tn_tokenizer_encode_spans(const tn_tokenizer *t, tn_str text, const tn_span *spans, size_t n_spans,
                                    tn_encode_options options, tn_ids *ids, tn_error *err) {
    if (text.n > INT32_MAX / 4) return tn_fail(err, TN_ERR_INPUT, "the text is too long (%zu bytes)", text.n);
    encoder e = {.t = t, .ids = ids, .merger = {.vocab = &t->vocab}, .err = err};
    if (t->merges.slots) e.merger.merges = &t->merges;
    tn_special_scope scope = {options.parse_special, spans, n_spans};
    int32_t *owner = NULL;
    tn_status st = options.add_special && t->add_bos ? push(&e, t->vocab.bos) : TN_OK;
    if (!st) st = tn_special_find(&t->special, &t->vocab, text, &scope, &owner, err);
    if (!st) st = encode_owned(&e, text, owner);
    if (!st && options.add_special && t->add_eos) st = push(&e, t->vocab.eos);
    tn_free(owner);
    tn_merger_free(&e.merger);
    tn_buf_free(&e.escaped);
    return st;
}

tn_status tn_tokenizer_encode(const tn_tokenizer *t, tn_str text, tn_encode_options options, tn_ids *ids,
                              tn_error *err) {
    return tn_tokenizer_encode_spans(t, text, NULL, 0, options, ids, err);
}

/* ---- ids to text ---- */

static void decode_bytes(tn_str s, tn_buf *text) {
    for (size_t i = 0, n; i < s.n; i += n) {
        n = tn_utf8_char(s.p + i, s.n - i);
        if (n == 0) n = 1;
        const unsigned char *u = (const unsigned char *)s.p + i;
        int byte = n == 1   ? tn_vocab_char_byte(u[0])
                   : n == 2 ? tn_vocab_char_byte((u[0] & 0x1fu) << 6 | (u[1] & 0x3f))
                            : -1;
        if (byte >= 0) {
            tn_buf_char(text, (char)byte);
        } else {
            tn_buf_add(text, s.p + i, n); /* not of this alphabet: it stands for itself */
        }
    }
}

static void decode_blanks(tn_str s, tn_buf *text) {
    for (size_t i = 0, end; i < s.n; i = end) {
        const char *hit = memmem(s.p + i, s.n - i, blank.p, blank.n);
        end = hit ? (size_t)(hit - s.p) : s.n;
        tn_buf_add(text, s.p + i, end - i);
        if (!hit) break;
        tn_buf_char(text, ' ');
        end += blank.n;
    }
}

static int hex_digit(char ch) {
    return ch >= '0' && ch <= '9'   ? ch - '0'
           : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
           : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
                                    : 0;
}

static void decode_token(const tn_vocab *v, int32_t id, bool special, tn_buf *text) {
    tn_str s = v->text[id];
    switch (v->type[id]) {
    case TN_TOKEN_CONTROL:
    case TN_TOKEN_UNKNOWN:
        if (special) tn_buf_add(text, s.p, s.n);
        break;
    case TN_TOKEN_USER: tn_buf_add(text, s.p, s.n); break;
    case TN_TOKEN_BYTE:
        if (s.n == 6) tn_buf_char(text, (char)(hex_digit(s.p[3]) << 4 | hex_digit(s.p[4])));
        break;
    case TN_TOKEN_NORMAL:
        if (v->kind == TN_VOCAB_BYTES) {
            decode_bytes(s, text);
        } else {
            decode_blanks(s, text);
        }
        break;
    default: break; /* unused ones say nothing */
    }
}

tn_status tn_tokenizer_decode(const tn_tokenizer *t, const int32_t *ids, size_t n, bool special, tn_buf *text,
                              tn_error *err) {
    bool added_space = t->add_space;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->vocab.n) return tn_fail(err, TN_ERR_USAGE, "there is no token %d", ids[i]);
        size_t at = text->n;
        decode_token(&t->vocab, ids[i], special, text);
        if (text->n == at) continue;
        if (added_space && text->p[at] == ' ') {
            memmove(text->p + at, text->p + at + 1, text->n - at); /* with its zero */
            text->n--;
        }
        added_space = false;
    }
    return text->failed ? tn_fail_memory(err) : TN_OK;
}

/* ---- asking ---- */

int32_t tn_tokenizer_n_vocab(const tn_tokenizer *t) {
    return t->vocab.n;
}
const char *tn_tokenizer_text(const tn_tokenizer *t, int32_t id) {
    return id >= 0 && id < t->vocab.n ? t->vocab.text[id].p : NULL;
}
bool tn_tokenizer_ends(const tn_tokenizer *t, int32_t id) {
    return id >= 0 && id < t->vocab.n && t->vocab.flags[id] & TN_TOKEN_ENDS;
}
int32_t tn_tokenizer_bos(const tn_tokenizer *t) {
    return t->vocab.bos;
}
int32_t tn_tokenizer_eos(const tn_tokenizer *t) {
    return t->vocab.eos;
}
bool tn_tokenizer_adds_bos(const tn_tokenizer *t) {
    return t->add_bos;
}
