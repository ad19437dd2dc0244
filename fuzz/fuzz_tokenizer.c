/* Any bytes as text, through tokenizers of every kind over small vocabularies: ids of the vocabulary, and the same bytes back.
 * Byte 0 chooses the tokenizer, byte 1 the options. */
#include "base/mem.h"
#include "fuzz.h"
#include "text/tokenizer.h"

#include <string.h>
#include <unistd.h>

/* A model and the way it cuts text. */
static const struct {
    const char *model, *pre;
} kinds[] = {
    {"llama", NULL},    {"gpt2", "gpt-2"}, {"gpt2", "llama-bpe"},    {"gpt2", "smollm"}, {"gpt2", "qwen2"},
    {"gpt2", "qwen35"}, {"gemma4", NULL},  {"gpt2", "deepseek-llm"}, {"gpt2", "falcon"}, {"gpt2", "command-r"},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds, MAX_TOKENS = 400 };

static const char *const specials[] = {"<unk>", "<s>", "</s>", "<|im_end|>"};
static const char *const words[] = {"th", "he", "the", "in", "er", "an", "re", "the re", "  ", "    ", "\n\n", "12"};
/* Pairs that byte-level merges join, in the alphabet of such vocabularies. */
static const char *const merges[] = {
    "t h", "h e", "th e", "i n", "e r", "a n", "\xc4\xa0 t", "\xc4\xa0t he", "\xc4\xa0 \xc4\xa0", "1 2"};

typedef struct vocab {
    char text[MAX_TOKENS][16];
    tn_str view[MAX_TOKENS];
    float score[MAX_TOKENS];
    int32_t type[MAX_TOKENS];
    int n;
} vocab;

static void add(vocab *v, const char *text, int32_t type) {
    for (int i = 0; i < v->n; i++)
        if (!strcmp(v->text[i], text)) return;
    snprintf(v->text[v->n], sizeof v->text[0], "%s", text);
    v->view[v->n] = tn_str_of(v->text[v->n]);
    v->score[v->n] = (float)-v->n;
    v->type[v->n++] = type;
}

/* The character that stands for a byte in byte-level vocabularies. */
static void byte_char(unsigned b, char out[3]) {
    unsigned cp = 0x100;
    bool plain = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    for (unsigned i = 0; i < b; i++) cp += !((i >= '!' && i <= '~') || (i >= 0xa1 && i <= 0xac) || i >= 0xae);
    if (plain) cp = b;
    snprintf(out, 3, cp < 0x80 ? "%c" : "%c%c", cp < 0x80 ? (int)cp : (int)(0xc0 | cp >> 6),
             (int)(0x80 | (cp & 0x3f)));
}

static void fill(vocab *v, bool bytes) {
    char text[16];
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) add(v, specials[i], i ? 3 : 2);
    add(v, "<user>", 4);
    for (unsigned b = 0; b < 256; b++) {
        if (bytes)
            byte_char(b, text);
        else
            snprintf(text, sizeof text, "<0x%02X>", b);
        add(v, text, bytes ? 1 : 6);
    }
    for (unsigned b = ' ' + 1; b < 127 && !bytes; b++) add(v, (char[2]){(char)b}, 1);
    add(v, bytes ? "\xc4\xa0" : "\xe2\x96\x81", 1);
    for (size_t i = 0; i < sizeof words / sizeof *words && !bytes; i++) add(v, words[i], 1);
    if (!bytes) add(v, "\xe2\x96\x81t", 1), add(v, "\xe2\x96\x81the", 1), add(v, "\xe2\x96\x81\xe2\x96\x81", 1);
    for (size_t i = 0; i < sizeof merges / sizeof *merges && bytes; i++) {
        const char *space = strchr(merges[i], ' ');
        snprintf(text, sizeof text, "%.*s%s", (int)(space - merges[i]), merges[i], space + 1);
        add(v, text, 1);
    }
}

static void put_array(tn_gguf_writer *w, const char *key, tn_gguf_array a) {
    tn_gguf_put(w, &(tn_gguf_kv){.key = tn_str_of(key), .type = TN_GGUF_ARRAY, .array = a});
}

static tn_tokenizer *open_kind(int kind) {
    static vocab v;
    char path[64];
    tn_str pairs[sizeof merges / sizeof *merges];
    tn_gguf_writer *w;
    static tn_gguf *files[N_KINDS]; /* tokenizers and their files live as long as the process */
    tn_tokenizer *t;
    tn_error err = {0};
    v.n = 0;
    fill(&v, !strcmp(kinds[kind].model, "gpt2"));
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) pairs[i] = tn_str_of(merges[i]);
    snprintf(path, sizeof path, "/tmp/tenon-fuzz-vocab-%d.gguf", (int)getpid());
    FUZZ_CHECK(tn_gguf_writer_open(&w, &err) == TN_OK);
    tn_gguf_put_str(w, "tokenizer.ggml.model", kinds[kind].model);
    if (kinds[kind].pre) tn_gguf_put_str(w, "tokenizer.ggml.pre", kinds[kind].pre);
    put_array(w, "tokenizer.ggml.tokens", (tn_gguf_array){TN_GGUF_STR, (uint64_t)v.n, NULL, v.view});
    put_array(w, "tokenizer.ggml.scores", (tn_gguf_array){TN_GGUF_F32, (uint64_t)v.n, v.score, NULL});
    put_array(w, "tokenizer.ggml.token_type", (tn_gguf_array){TN_GGUF_I32, (uint64_t)v.n, v.type, NULL});
    put_array(w, "tokenizer.ggml.merges", (tn_gguf_array){TN_GGUF_STR, sizeof merges / sizeof *merges, NULL, pairs});
    tn_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 1);
    tn_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", 2);
    tn_status status = tn_gguf_writer_save(w, path, &err);
    tn_gguf_writer_close(&w);
    if (status == TN_OK) status = tn_gguf_open(&files[kind], path, &err);
    if (status == TN_OK) status = tn_tokenizer_open(&t, files[kind], &err);
    unlink(path);
    if (status != TN_OK) fprintf(stderr, "%s\n", err.text);
    FUZZ_CHECK(status == TN_OK);
    return t;
}

/* Text that does not come back as it was: U+2581 is a space, and one is put before what follows a token of its own. */
static bool is_changed(const uint8_t *p, size_t n) {
    return memmem(p, n, "\xe2\x96\x81", 3) || memmem(p, n, "<user>", 6);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static tn_tokenizer *tokenizers[N_KINDS];
    if (n < 2) return 0;
    int kind = data[0] % N_KINDS;
    tn_encode_options how = {.add_special = data[1] & 1, .parse_special = data[1] >> 1 & 1};
    bool spans = data[1] >> 2 & 1;
    if (!tokenizers[kind]) tokenizers[kind] = open_kind(kind);
    const tn_tokenizer *t = tokenizers[kind];
    tn_str text = {(const char *)data + 2, n - 2};
    tn_ids ids = {0};
    tn_buf back = {0};
    tn_error err;
    tn_span span[2] = {{0, text.n / 2, false}, {text.n / 2, text.n, true}};
    tn_status status = spans ? tn_tokenizer_encode_spans(t, text, span, 2, how, &ids, &err)
                             : tn_tokenizer_encode(t, text, how, &ids, &err);
    FUZZ_CHECK(status == TN_OK);
    for (size_t i = 0; i < ids.n; i++) FUZZ_CHECK(ids.p[i] >= 0 && ids.p[i] < tn_tokenizer_n_vocab(t));
    FUZZ_CHECK(tn_tokenizer_decode(t, ids.p, ids.n, !how.add_special, &back, &err) == TN_OK && !back.failed);
    bool exact = !how.add_special && !how.parse_special && (kinds[kind].pre || !is_changed(data + 2, n - 2));
    if (exact && !spans) FUZZ_CHECK(tn_str_eq((tn_str){back.p, back.n}, text));
    tn_buf_free(&back);
    tn_free(ids.p);
    return 0;
}
