/* What the tests of texts share: vocabularies, files of cases, comparing ids. */
#ifndef TESTS_TEXT_DATA_H
#define TESTS_TEXT_DATA_H

#include "base/mem.h"
#include "text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#define TEXT_DATA TESTS_DIR "/data/text/"

typedef struct vocab_file {
    char *bytes;
    tn_gguf *gguf;
    tn_tokenizer *t;
} vocab_file;

static inline char *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot open %s", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1000);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    memset(p + *n, 0, 1000);
    return p;
}

/* Writes another tokenizer.ggml.pre into a file in memory (with room behind it). */
static inline void patch_pre(char *bytes, size_t *n, const char *pre) {
    static const char key[] = "tokenizer.ggml.pre";
    char *p = memmem(bytes, *n, key, sizeof key - 1);
    assert_non_null(p);
    p += sizeof key - 1 + 4; /* at the length of the value */
    uint64_t old, len = strlen(pre);
    memcpy(&old, p, 8);
    memcpy(p, &len, 8);
    memmove(p + 8 + len, p + 8 + old, (size_t)(bytes + *n - (p + 8 + old)));
    memcpy(p + 8, pre, len);
    *n = *n - old + len;
}

/* A vocabulary of data/text/vocab, perhaps with another pre-tokenizer. */
static inline vocab_file open_vocab(const char *name, const char *pre) {
    char path[500];
    size_t n;
    tn_error err = {0};
    vocab_file v = {0};
    snprintf(path, sizeof path, "%s/text/vocab/%s.gguf", TESTS_DATA_BUILD, name);
    v.bytes = read_file(path, &n);
    if (pre) patch_pre(v.bytes, &n, pre);
    if (tn_gguf_open_memory(&v.gguf, v.bytes, n, &err) || tn_tokenizer_open(&v.t, v.gguf, &err)) {
        fail_msg("%s: %s", name, err.text);
    }
    return v;
}

static inline void close_vocab(vocab_file *v) {
    tn_tokenizer_close(&v->t);
    tn_gguf_close(&v->gguf);
    free(v->bytes);
}

static inline json_t *load_json(const char *path) {
    json_error_t e;
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, &e);
    if (!j) fail_msg("%s: %s", path, e.text);
    return j;
}

static inline tn_str json_view(const json_t *j) {
    return (tn_str){json_string_value(j), json_string_length(j)};
}

static inline bool same_ids(const tn_ids *ids, const json_t *expected) {
    if (json_array_size(expected) != ids->n) return false;
    for (size_t i = 0; i < ids->n; i++) {
        if (json_integer_value(json_array_get(expected, i)) != ids->p[i]) return false;
    }
    return true;
}

static inline void print_ids(const char *what, const tn_ids *ids) {
    fprintf(stderr, "    %s:", what);
    for (size_t i = 0; i < ids->n && i < 100; i++) fprintf(stderr, " %d", ids->p[i]);
    fprintf(stderr, "\n");
}

static inline tn_ids encode(const tn_tokenizer *t, tn_str text, bool add_special, bool parse_special) {
    tn_ids ids = {0};
    tn_error err = {0};
    if (tn_tokenizer_encode(t, text, (tn_encode_options){add_special, parse_special}, &ids, &err))
        fail_msg("%s", err.text);
    return ids;
}

static inline tn_buf decode(const tn_tokenizer *t, const tn_ids *ids, bool special) {
    tn_buf b = {0};
    tn_error err = {0};
    tn_buf_add(&b, "", 0);
    if (tn_tokenizer_decode(t, ids->p, ids->n, special, &b, &err)) fail_msg("%s", err.text);
    return b;
}

/* The items of a file of strings (see its note): every list of ids, and the text back. Returns how many differ. */
static inline int check_strings(const tn_tokenizer *t, const char *path, int *n_checks) {
    static const struct {
        const char *key;
        bool add, parse;
    } ways[] = {{"ids", false, true}, {"ids_add_special", true, true}, {"ids_no_parse_special", false, false}};
    json_t *file = load_json(path), *item;
    size_t i;
    int bad = 0;
    json_array_foreach(json_object_get(file, "items"), i, item) {
        tn_str text = json_view(json_object_get(item, "text"));
        for (int w = 0; w < 3; w++, ++*n_checks) {
            tn_ids ids = encode(t, text, ways[w].add, ways[w].parse);
            if (!same_ids(&ids, json_object_get(item, ways[w].key))) {
                fprintf(stderr, "%s: item %zu, %s: '%.*s'\n", path, i, ways[w].key, (int)text.n, text.p);
                print_ids("got", &ids);
                bad++;
            }
            if (w == 0) {
                tn_buf back = decode(t, &ids, true);
                bad += !tn_str_eq((tn_str){back.p, back.n}, json_view(json_object_get(item, "detok")));
                ++*n_checks;
                tn_buf_free(&back);
            }
            tn_free(ids.p);
        }
    }
    json_decref(file);
    return bad;
}

#endif
