#include "text/vocab.h"

#include "base/hash.h"
#include "base/mem.h"
#include "text/utf8.h"

#include <stdio.h>

/* ---- bytes as characters: printable ones stand for themselves, the others follow from U+0100 on ---- */

static bool stands_for_itself(unsigned b) {
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
}

uint32_t tn_vocab_byte_char(unsigned byte) {
    uint32_t next = 0x100;
    if (stands_for_itself(byte)) return byte;
    for (unsigned b = 0; b < byte; b++) next += !stands_for_itself(b);
    return next;
}

int tn_vocab_char_byte(uint32_t cp) {
    if (cp < 0x100) return stands_for_itself(cp) ? (int)cp : -1;
    for (unsigned b = 0, next = 0x100; b < 256; b++) {
        if (!stands_for_itself(b) && next++ == cp) return (int)b;
    }
    return -1;
}

/* ---- the hash of texts ---- */

/* The slot of a text, or the empty one where it would go. */
static size_t find_slot(const tn_vocab *v, tn_str text) {
    size_t i = tn_hash_str(v->slots, text) & (v->n_slots - 1);
    while (v->slots[i] && !tn_str_eq(v->text[v->slots[i] - 1], text)) i = (i + 1) & (v->n_slots - 1);
    return i;
}

int32_t tn_vocab_find(const tn_vocab *v, tn_str text) {
    return v->slots[find_slot(v, text)] - 1;
}

/* Of two tokens with one text, the later is found. */
static bool rehash(tn_vocab *v) {
    size_t n_slots = 1024;
    while (n_slots < (size_t)v->cap_texts * 2) n_slots *= 2;
    int32_t *slots = tn_alloc_zero(n_slots, sizeof *slots);
    if (!slots) return false;
    tn_free(v->slots);
    v->slots = slots;
    v->n_slots = n_slots;
    for (int32_t i = 0; i < v->n_texts; i++) {
        if (v->text[i].n) v->slots[find_slot(v, v->text[i])] = i + 1;
    }
    return true;
}

int32_t tn_vocab_intern(tn_vocab *v, tn_str text) {
    size_t slot = find_slot(v, text);
    if (v->slots[slot]) return v->slots[slot] - 1;
    if (v->n_texts == v->cap_texts) {
        if (v->cap_texts > INT32_MAX / 2) return -1;
        int32_t cap = v->cap_texts * 2;
        tn_str *texts = tn_realloc(v->text, (size_t)cap * sizeof *texts);
        if (!texts) return -1;
        v->text = texts;
        v->cap_texts = cap;
        if (!rehash(v)) return -1;
        slot = find_slot(v, text);
    }
    char *copy = tn_arena_alloc(&v->arena, text.n);
    if (!copy) return -1;
    if (text.n) memcpy(copy, text.p, text.n);
    v->text[v->n_texts] = (tn_str){copy, text.n};
    v->slots[slot] = ++v->n_texts;
    return v->n_texts - 1;
}

/* ---- opening ---- */

static tn_status fill_texts(tn_vocab *v, const tn_gguf_array *tokens, tn_error *err) {
    size_t bytes = 0;
    for (uint64_t i = 0; i < tokens->n; i++) bytes += tokens->strs[i].n + 1; /* less than the file */
    v->pool = tn_alloc(bytes);
    if (!v->pool) return tn_fail_memory(err);
    char *p = v->pool;
    for (uint64_t i = 0; i < tokens->n; i++) {
        tn_str s = tokens->strs[i];
        if (s.n) memcpy(p, s.p, s.n);
        p[s.n] = 0;
        v->text[i] = (tn_str){p, s.n};
        p += s.n + 1;
        if (s.n > v->longest) v->longest = s.n;
    }
    return TN_OK;
}

/* An array of numbers, which the key is, with one for each token; NULL where it is absent. */
static tn_status get_numbers(const tn_vocab *v, const tn_gguf *g, const char *key, const tn_gguf_array **out,
                             tn_error *err) {
    const tn_gguf_kv *kv = tn_gguf_find(g, key);
    *out = NULL;
    if (!kv) return TN_OK;
    if (kv->array.n < (uint64_t)v->n) {
        return tn_fail(err, TN_ERR_INPUT, "%s is not a number for each of %d tokens", key, v->n);
    }
    *out = &kv->array;
    return TN_OK;
}

static tn_status fill_numbers(tn_vocab *v, const tn_gguf *g, tn_error *err) {
    const tn_gguf_array *types, *scores;
    tn_status st = get_numbers(v, g, "tokenizer.ggml.token_type", &types, err);
    if (!st) st = get_numbers(v, g, "tokenizer.ggml.scores", &scores, err);
    for (int32_t i = 0; !st && i < v->n; i++) {
        double type = types ? tn_gguf_array_number(types, (uint64_t)i) : TN_TOKEN_NORMAL;
        v->type[i] = type >= 1 && type <= 6 ? (uint8_t)type : TN_TOKEN_UNUSED;
        v->score[i] = scores ? (float)tn_gguf_array_number(scores, (uint64_t)i) : 0;
    }
    return st;
}

static void fill_byte_ids(tn_vocab *v) {
    for (unsigned b = 0; b < 256; b++) {
        char s[8] = {(char)b};
        tn_str raw = {s, 1};
        int32_t id = -1;
        if (v->kind == TN_VOCAB_BYTES) {
            uint32_t cp = tn_vocab_byte_char(b);
            char two[2] = {(char)(0xc0 | cp >> 6), (char)(0x80 | (cp & 0x3f))};
            id = cp < 0x80 ? tn_vocab_find(v, raw) : tn_vocab_find(v, (tn_str){two, 2});
        } else {
            char named[8];
            snprintf(named, sizeof named, "<0x%02X>", b);
            id = tn_vocab_find(v, tn_str_of(named));
            if (id < 0) id = tn_vocab_find(v, raw);
        }
        v->byte_id[b] = id;
    }
}

tn_status tn_vocab_open(tn_vocab *v, const tn_gguf *g, tn_error *err) {
    tn_gguf_array tokens;
    if (!tn_gguf_get_array(g, "tokenizer.ggml.tokens", TN_GGUF_STR, &tokens) || tokens.n == 0) {
        return tn_fail(err, TN_ERR_INPUT, "the file has no vocabulary (tokenizer.ggml.tokens)");
    }
    if (tokens.n > 1 << 28) return tn_fail(err, TN_ERR_INPUT, "tokenizer.ggml.tokens has too many tokens");
    size_t n = (size_t)tokens.n;
    v->n = v->n_texts = v->cap_texts = (int32_t)n;
    v->text = tn_alloc_zero(n, sizeof *v->text);
    v->type = tn_alloc_zero(n, sizeof *v->type);
    v->flags = tn_alloc_zero(n, sizeof *v->flags);
    v->score = tn_alloc_zero(n, sizeof *v->score);
    if (!v->text || !v->type || !v->flags || !v->score) return tn_fail_memory(err);
    tn_status st = fill_texts(v, &tokens, err);
    if (!st) st = fill_numbers(v, g, err);
    if (!st && !rehash(v)) st = tn_fail_memory(err);
    if (!st) fill_byte_ids(v);
    return st;
}

void tn_vocab_close(tn_vocab *v) {
    tn_free(v->text);
    tn_free(v->type);
    tn_free(v->flags);
    tn_free(v->score);
    tn_free(v->pool);
    tn_free(v->slots);
    tn_arena_free(&v->arena);
    *v = (tn_vocab){0};
}
