/* Tokenizers: ids of known texts as llama.cpp gives them, the texts back, control tokens, flags, linear time, files
 * that make no sense, memory that runs out. */
#include "text_data.h"

#include "failing.h"
#include "gguf/gguf.h"

#include <time.h>
#include <unistd.h>

/* ---- known texts ---- */

/* Vocabularies, the pre-tokenizer they are read with where it is not their own, and the files of cases. */
static const struct {
    const char *vocab, *pre, *suite;
    const char *ends; /* texts of the tokens that end a generation, by id */
} suites[] = {
    {"gpt-2", NULL, "gpt-2", "<|endoftext|>"},
    {"llama-bpe", NULL, "llama-bpe", "<|end_of_text|> <|eot_id|>"},
    {"llama-spm", NULL, "llama-spm", "</s>"},
    {"phi-3", NULL, "phi-3", "</s> <|endoftext|> <|end|>"},
    {"qwen2", NULL, "qwen2", "</s> <|endoftext|> <|im_end|>"},
    {"qwen2", "qwen35", "qwen35", "</s> <|endoftext|> <|im_end|>"},
    {"gemma-4", NULL, "gemma-4", "<eos> <|tool_response> <turn|>"},
};

/* A line of ids against the ids of a text. */
static bool same_line(const char *line, const tn_ids *ids) {
    size_t n = 0;
    for (char *end;; line = end, n++) {
        long id = strtol(line, &end, 10);
        if (end == line) return n == ids->n;
        if (n >= ids->n || ids->p[n] != id) return false;
    }
}

/* Texts with a separator between, and a line of ids for each. */
static int check_lines(const tn_tokenizer *t, const char *suite, int *n_checks) {
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char path[500];
    size_t n_texts, n_lines;
    snprintf(path, sizeof path, TEXT_DATA "suites/%s.inp", suite);
    char *texts = read_file(path, &n_texts);
    snprintf(path, sizeof path, TEXT_DATA "suites/%s.out", suite);
    char *lines = read_file(path, &n_lines), *line = lines, *text = texts;
    int bad = 0;
    while (*line) {
        char *newline = strchr(line, '\n'), *end = strstr(text, separator);
        assert_non_null(newline);
        *newline = 0;
        tn_str s = {text, end ? (size_t)(end - text) : strlen(text)};
        tn_ids ids = encode(t, s, false, false);
        tn_buf back = decode(t, &ids, true);
        if (!same_line(line, &ids) || !tn_str_eq((tn_str){back.p, back.n}, s)) {
            fprintf(stderr, "%s: text %d: '%.*s'\n    want: %s\n", suite, *n_checks, (int)s.n, s.p, line);
            print_ids("got", &ids);
            bad++;
        }
        ++*n_checks;
        tn_buf_free(&back);
        tn_free(ids.p);
        line = newline + 1;
        text = end ? end + sizeof separator - 1 : text + s.n;
    }
    assert_int_equal(text - texts, n_texts); /* as many texts as lines */
    free(texts);
    free(lines);
    return bad;
}

static void check_ends(const tn_tokenizer *t, const char *expected) {
    tn_buf b = {0};
    for (int32_t i = 0; i < tn_tokenizer_n_vocab(t); i++) {
        if (tn_tokenizer_ends(t, i)) tn_buf_printf(&b, "%s%s", b.n ? " " : "", tn_tokenizer_text(t, i));
    }
    assert_string_equal(b.p, expected);
    tn_buf_free(&b);
}

static void known_texts(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof suites / sizeof *suites; i++) {
        vocab_file v = open_vocab(suites[i].vocab, suites[i].pre);
        char path[500];
        int strings = 0, lines = 0, bad;
        snprintf(path, sizeof path, TEXT_DATA "suites/%s.json", suites[i].suite);
        bad = check_strings(v.t, path, &strings) + check_lines(v.t, suites[i].suite, &lines);
        if (bad) fail_msg("%s: %d differ", suites[i].suite, bad);
        assert_int_equal(strings, 184);
        assert_int_equal(lines, strcmp(suites[i].suite, "qwen35") == 0 ? 50 : 46);
        check_ends(v.t, suites[i].ends);
        close_vocab(&v);
    }
}

/* ---- long texts ---- */

static const char *const units[] = {
    "a",
    "  ",
    "\n",
    " \n",
    "7",
    "\xcc\x81",
    "\xff",
    "\x80",
    "\xe4\xbd\xa0",
    "hello world ",
    "<",
    "<s>",
    "!",
    "\t",
    "\n\t",
    "'",
    " a1",
    "\r\n",
    "<unused1",
    "\xf0\x9f\x98\x80",
    "e\xcc\x81",
    ".",
    "\xe2\x96\x81",
    "<|im_start|>",
    "\xf0\x9f",
    "A",
    "\xe3\x80\x80",
};

/* Seconds to encode n bytes of a repeated unit with an x at the end, which must come back from the ids. */
static double encode_long(const tn_tokenizer *t, const char *unit, size_t n, bool exact) {
    char *text = malloc(n);
    assert_non_null(text);
    for (size_t i = 0, k = strlen(unit); i < n; i++) text[i] = unit[i % k];
    text[n - 1] = 'x';
    clock_t begin = clock();
    tn_ids ids = encode(t, (tn_str){text, n}, false, true);
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    tn_buf back = decode(t, &ids, true);
    if (exact && !tn_str_eq((tn_str){back.p, back.n}, (tn_str){text, n})) fail_msg("'%s' does not come back", unit);
    tn_buf_free(&back);
    tn_free(ids.p);
    free(text);
    return seconds;
}

/* What comes back is the text, but for spaces that SentencePiece adds after control tokens and for U+2581. */
static bool comes_back(const char *vocab, const char *unit) {
    bool blanks = strcmp(vocab, "gpt-2") != 0 && strcmp(vocab, "llama-bpe") != 0 && strcmp(vocab, "qwen2") != 0;
    return !(blanks && (strcmp(unit, "<s>") == 0 || strcmp(unit, "\xe2\x96\x81") == 0));
}

static void long_texts(void **state) {
    (void)state;
    static const struct {
        const char *vocab, *pre;
    } all[] = {{"gpt-2", NULL},      {"gpt-2", "deepseek-llm"}, {"gpt-2", "falcon"},         {"gpt-2", "command-r"},
               {"gpt-2", "default"}, {"gpt-2", "deepseek-v3"},  {"gpt-2", "deepseek-coder"}, {"gpt-2", "llama-bpe"},
               {"gpt-2", "qwen35"},  {"llama-bpe", NULL},       {"llama-spm", NULL},         {"phi-3", NULL},
               {"gemma-4", NULL}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        vocab_file v = open_vocab(all[i].vocab, all[i].pre);
        for (size_t k = 0; k < sizeof units / sizeof *units; k++) {
            double s = encode_long(v.t, units[k], 64 << 10, comes_back(all[i].vocab, units[k]));
            if (s > 1) fail_msg("%s, %s: 64 KiB of '%s' take %.1f s", all[i].vocab, all[i].pre, units[k], s);
        }
        close_vocab(&v);
    }
}

/* A megabyte takes little more than twice what half of it does, through every tokenizer, whatever it holds. The
 * time is the process's own, and the best of four tries counts. */
static void check_linear(const tn_tokenizer *t, const char *name, const char *pre, const char *unit, bool exact) {
    double half = 0, whole = 0;
    for (int tries = 0; tries < 4; tries++) {
        half = encode_long(t, unit, 1 << 19, exact);
        whole = encode_long(t, unit, 1 << 20, exact);
        if (whole <= 3 * half + 0.05) return;
    }
    fail_msg("%s, %s: '%s': %.3f s for half a megabyte, %.3f s for all", name, pre ? pre : "", unit, half, whole);
}

static void megabytes(void **state) {
    (void)state;
    static const struct {
        const char *vocab, *pre;
    } all[] = {{"gpt-2", NULL},           {"gpt-2", "smollm"},         {"gpt-2", "qwen2"},     {"gpt-2", "qwen35"},
               {"gpt-2", "deepseek-llm"}, {"gpt-2", "falcon"},         {"gpt-2", "command-r"}, {"gpt-2", "dbrx"},
               {"gpt-2", "deepseek-v3"},  {"gpt-2", "deepseek-coder"}, {"gpt-2", "default"},   {"llama-bpe", NULL},
               {"qwen2", NULL},           {"gemma-4", NULL},           {"llama-spm", NULL},    {"phi-3", NULL}};
    static const char *const hard[] = {"a", " ", "\n", "7", "\xcc\x81", "\xff"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        vocab_file v = open_vocab(all[i].vocab, all[i].pre);
        for (size_t k = 0; k < sizeof hard / sizeof *hard; k++)
            check_linear(v.t, all[i].vocab, all[i].pre, hard[k], comes_back(all[i].vocab, hard[k]));
        close_vocab(&v);
    }
}

/* Every pre-tokenizer gives the words in order and without loss. */
static void every_pre_tokenizer(void **state) {
    (void)state;
    static const char *const names[] = {"gpt-2",          "llama-bpe",   "llama3",           "dbrx",   "smollm",
                                        "command-r",      "qwen2",       "deepseek-r1-qwen", "qwen35", "deepseek-llm",
                                        "deepseek-coder", "deepseek-v3", "falcon",           "default"};
    static const char text[] =
        "Hello, wOrld! it's 1234567 o'clock\r\n\r\n\t x  y\xc2\xa0z \xe3\x80\x82\xe4\xbd\xa0\xe5\xa5\xbd"
        "\xd0\x9f\xd1\x80 e\xcc\x81 \xf0\x9f\x98\x80\xff\xc3 <|x|> ''''``  ";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        vocab_file v = open_vocab("gpt-2", names[i]);
        tn_ids ids = encode(v.t, (tn_str){text, sizeof text - 1}, false, false);
        tn_buf back = decode(v.t, &ids, false);
        assert_int_equal(back.n, sizeof text - 1);
        assert_memory_equal(back.p, text, back.n);
        tn_buf_free(&back);
        tn_free(ids.p);
        close_vocab(&v);
    }
}

/* Where the patterns differ, by the tokens of GPT-2's vocabulary. */
static void patterns_differ(void **state) {
    (void)state;
    static const struct {
        const char *pre, *text, *tokens; /* texts of the tokens with a bar between */
    } cases[] = {
        {"gpt-2", "1000", "1000"},
        {"falcon", "1000", "100|0"},
        {"smollm", "2024", "2|0|2|4"},
        {"qwen2", "2024", "2|0|2|4"},
        {"llama-bpe", "20240", "202|40"},
        {"default", "20240", "202|40"},
        {"falcon", "20240", "202|40"},
        {"falcon", "a`b", "a|`|b"},
        {"deepseek-llm", "a\n\nb", "a|\xc4\x8a|\xc4\x8a|b"},
        {"gpt-2", "a\n\nb", "a|\xc4\x8a|\xc4\x8a|b"},
        {"llama-bpe", "a\n\nb", "a|\xc4\x8a\xc4\x8a|b"},
        {"gpt-2", "I'LL", "I|'|LL"},
        {"llama-bpe", "I'LL", "I|'|LL"},
        {"gpt-2", "(th", "(|th"},
        {"llama-bpe", "$th", "$|th"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vocab_file v = open_vocab("gpt-2", cases[i].pre);
        tn_ids ids = encode(v.t, tn_str_of(cases[i].text), false, false);
        tn_buf b = {0};
        for (size_t k = 0; k < ids.n; k++) tn_buf_printf(&b, "%s%s", k ? "|" : "", tn_tokenizer_text(v.t, ids.p[k]));
        if (strcmp(b.p, cases[i].tokens) != 0) fail_msg("%s: '%s' is %s", cases[i].pre, cases[i].text, b.p);
        tn_buf_free(&b);
        tn_free(ids.p);
        close_vocab(&v);
    }
}

/* ---- small vocabularies, made here ---- */

typedef struct small {
    const char *model, *pre, *name;
    const char *const *tokens; /* texts, the last NULL; a leading digit is the type, '.' is normal */
    const char *const *merges;
    int bos, eos;         /* -1: no key */
    int add_bos, add_eos; /* -1: no key */
} small;

static char g_path[] = "/tmp/tenon-test-XXXXXX.gguf";

static void put_array(tn_gguf_writer *w, const char *key, tn_gguf_type type, uint64_t n, const void *data,
                      const tn_str *strs) {
    tn_gguf_kv kv = {.key = tn_str_of(key), .type = TN_GGUF_ARRAY};
    kv.array = (tn_gguf_array){.type = type, .n = n, .data = data, .strs = strs};
    tn_gguf_put(w, &kv);
}

/* The file's bytes. A token's score falls with its place. */
static char *make_small(const small *s, size_t *n_bytes) {
    tn_gguf_writer *w = NULL;
    tn_error err = {0};
    tn_str texts[400], merges[400];
    int32_t types[400];
    float scores[400];
    size_t n = 0, n_merges = 0;
    assert_int_equal(tn_gguf_writer_open(&w, &err), TN_OK);
    for (; s->tokens[n]; n++) {
        char type = s->tokens[n][0];
        texts[n] = tn_str_of(s->tokens[n] + 1);
        types[n] = type == '.' ? 1 : type - '0';
        scores[n] = -(float)n;
    }
    for (; s->merges && s->merges[n_merges]; n_merges++) merges[n_merges] = tn_str_of(s->merges[n_merges]);
    tn_gguf_put_str(w, "tokenizer.ggml.model", s->model);
    if (s->pre) tn_gguf_put_str(w, "tokenizer.ggml.pre", s->pre);
    if (s->name) tn_gguf_put_str(w, "general.name", s->name);
    put_array(w, "tokenizer.ggml.tokens", TN_GGUF_STR, n, NULL, texts);
    put_array(w, "tokenizer.ggml.token_type", TN_GGUF_I32, n, types, NULL);
    put_array(w, "tokenizer.ggml.scores", TN_GGUF_F32, n, scores, NULL);
    if (s->merges) put_array(w, "tokenizer.ggml.merges", TN_GGUF_STR, n_merges, NULL, merges);
    if (s->bos >= 0) tn_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)s->bos);
    if (s->eos >= 0) tn_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)s->eos);
    if (s->add_bos >= 0) tn_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", s->add_bos);
    if (s->add_eos >= 0) tn_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", s->add_eos);
    if (tn_gguf_writer_save(w, g_path, &err)) fail_msg("%s", err.text);
    tn_gguf_writer_close(&w);
    char *bytes = read_file(g_path, n_bytes);
    unlink(g_path);
    return bytes;
}

static tn_status open_small(const small *s, vocab_file *v, tn_error *err) {
    size_t n;
    *v = (vocab_file){.bytes = make_small(s, &n)};
    if (tn_gguf_open_memory(&v->gguf, v->bytes, n, err)) fail_msg("%s", err->text);
    return tn_tokenizer_open(&v->t, v->gguf, err);
}

/* Ids of a text as "1 2 3". */
static void check_ids(const tn_tokenizer *t, const char *text, bool add, bool parse, const char *expected) {
    tn_ids ids = encode(t, tn_str_of(text), add, parse);
    tn_buf b = {0};
    tn_buf_add(&b, "", 0);
    for (size_t i = 0; i < ids.n; i++) tn_buf_printf(&b, "%s%d", i ? " " : "", ids.p[i]);
    if (strcmp(b.p, expected) != 0) fail_msg("'%s' is %s, not %s", text, b.p, expected);
    tn_buf_free(&b);
    tn_free(ids.p);
}

static const char *const bytes_tokens[] = {".a",        ".b",     ".c",    ".ab",      ".abc",
                                           ".\xc4\xa0", "3<s>",   "3</s>", "4<think>", "4ab<",
                                           "3<s>a",     "2<unk>", ".<",    ".d",       NULL};
static const char *const bytes_merges[] = {"a b", "ab c", "c d", NULL}; /* cd is no token */
static const small bytes_vocab = {"gpt2", "gpt-2", NULL, bytes_tokens, bytes_merges, 6, 7, 1, 1};

static void special_tokens(void **state) {
    (void)state;
    vocab_file v;
    tn_error err = {0};
    assert_int_equal(open_small(&bytes_vocab, &v, &err), TN_OK);
    check_ids(v.t, "", true, true, "6 7");
    check_ids(v.t, "abc", false, false, "4");
    check_ids(v.t, "abc", true, false, "6 4 7");
    check_ids(v.t, "cd", false, false, "2 13"); /* merged into what is no token: its bytes */
    check_ids(v.t, "c<s>b", false, true, "2 6 1");
    check_ids(v.t, "c<think>b", false, false, "2 8 1"); /* user-defined ones always */
    check_ids(v.t, "<unk>", false, true, "11");
    check_ids(v.t, "c<s>a<s>", false, true, "2 10 6"); /* the longest */
    check_ids(v.t, "ab<s>a", false, true, "3 10");     /* wherever it stands: not ab< */
    check_ids(v.t, "ab<", false, true, "9");
    check_ids(v.t, "ab<<s>", false, true, "9 6");
    check_ids(v.t, "z", false, false, ""); /* a byte without a token */
    assert_int_equal(tn_tokenizer_bos(v.t), 6);
    assert_int_equal(tn_tokenizer_eos(v.t), 7);
    assert_true(tn_tokenizer_adds_bos(v.t));
    assert_true(tn_tokenizer_ends(v.t, 7));
    assert_false(tn_tokenizer_ends(v.t, 6));
    assert_false(tn_tokenizer_ends(v.t, -1));
    assert_false(tn_tokenizer_ends(v.t, 14));
    assert_string_equal(tn_tokenizer_text(v.t, 4), "abc");
    assert_null(tn_tokenizer_text(v.t, -1));
    assert_null(tn_tokenizer_text(v.t, 14));
    close_vocab(&v);
}

static void input_is_not_control(void **state) {
    (void)state;
    vocab_file v;
    tn_error err = {0};
    tn_ids ids = {0};
    assert_int_equal(open_small(&bytes_vocab, &v, &err), TN_OK);
    /* <s>a from the template, <s> from input, <s from the template with > from input, <think> from input */
    tn_str text = tn_str_of("<s>a<s><s><think>");
    tn_span spans[] = {{0, 4, false}, {4, 7, true}, {7, 9, false}, {9, 17, true}};
    tn_encode_options options = {.parse_special = true};
    assert_int_equal(tn_tokenizer_encode_spans(v.t, text, spans, 4, options, &ids, &err), TN_OK);
    int32_t expected[] = {10, 12, 12, 8}; /* s and > have no tokens here */
    assert_int_equal(ids.n, 4);
    assert_memory_equal(ids.p, expected, sizeof expected);
    tn_free(ids.p);
    close_vocab(&v);
}

static const char *const spm_tokens[] = {"2<unk>",
                                         "3<s>",
                                         "3</s>",
                                         ".\xe2\x96\x81",
                                         ".a",
                                         ".b",
                                         ".\xe2\x96\x81"
                                         "a",
                                         ".ab",
                                         "6<0x63>",
                                         "4<|x|>",
                                         "4<|endoftext|>",
                                         "5unused",
                                         NULL};

static void sentencepiece(void **state) {
    (void)state;
    vocab_file v;
    tn_error err = {0};
    small s = {"llama", NULL, "My Phi-3 mini", spm_tokens, NULL, -1, -1, -1, -1};
    assert_int_equal(open_small(&s, &v, &err), TN_OK);
    check_ids(v.t, "ab", true, true, "1 6 5"); /* " a" has the better score */
    check_ids(v.t, "aab", false, true, "6 7");
    check_ids(v.t, "c", false, true, "3 8");             /* by its byte */
    check_ids(v.t, "d", false, true, "3 0");             /* no such byte: unknown */
    check_ids(v.t, "<|x|>  \n b", false, true, "9 3 5"); /* takes the spaces after it, as the name says phi-3 */
    check_ids(v.t, "<s> b", false, true, "1 3 3 5");     /* this one does not */
    check_ids(v.t, "<|endoftext|> b", false, true, "10 3 3 5");
    check_ids(v.t, "", true, true, "1");
    tn_ids ids = encode(v.t, tn_str_of("a b"), true, true);
    tn_buf text = decode(v.t, &ids, false);
    assert_string_equal(text.p, "a b"); /* the space that was added is gone, BOS left out */
    tn_buf_free(&text);
    ids.p[0] = 11;
    text = decode(v.t, &ids, true); /* an unused token says nothing */
    assert_string_equal(text.p, "a b");
    tn_buf_free(&text);
    ids.p[0] = 12;
    assert_int_equal(tn_tokenizer_decode(v.t, ids.p, ids.n, true, &text, &err), TN_ERR_USAGE);
    ids.p[0] = -1;
    assert_int_equal(tn_tokenizer_decode(v.t, ids.p, ids.n, true, &text, &err), TN_ERR_USAGE);
    tn_buf_free(&text);
    tn_free(ids.p);
    close_vocab(&v);
}

static const char *const end_tokens[] = {".x",          "3<|return|>",  "3<|call|>", "3<|end|>", "3<|channel|>",
                                         ".<|im_end|>", "3<|fim_pad|>", "3<PAD>",    NULL};

static void end_of_generation(void **state) {
    (void)state;
    vocab_file v;
    tn_error err = {0};
    static const char *const no_merges[] = {NULL};
    small s = {"gpt2", "gpt-2", NULL, end_tokens, no_merges, -1, 0, -1, -1};
    assert_int_equal(open_small(&s, &v, &err), TN_OK);
    check_ends(
        v.t,
        "x <|return|> <|call|> <|im_end|> <|fim_pad|>"); /* one padding token; <|end|> is plain beside <|call|> */
    check_ids(v.t, "<|im_end|>", false, false, "");      /* a control token, whatever its type in the file */
    check_ids(v.t, "<|channel|>", false, false, "4");    /* and this one is not */
    close_vocab(&v);
}

static void bad_files(void **state) {
    (void)state;
    static const char *const none[] = {NULL}, *const one[] = {".a", NULL};
    static const struct {
        small file;
        const char *says;
    } cases[] = {
        {{"gpt2", "gpt-2", NULL, none, none, -1, -1, -1, -1}, "no vocabulary"},
        {{"gpt2", "gpt-2", NULL, one, NULL, -1, -1, -1, -1}, "no merges"},
        {{"gpt2", "gpt-99", NULL, one, none, -1, -1, -1, -1}, "'gpt-99'"},
        {{"bert", "x", NULL, one, none, -1, -1, -1, -1}, "'bert'"},
        {{"gpt2", "gpt-2", NULL, one, none, -1, -1, 1, -1}, "BOS"},
        {{"gpt2", "gpt-2", NULL, one, none, 5, -1, 1, -1}, "BOS"},
        {{"gpt2", "gpt-2", NULL, one, none, -1, -1, -1, 1}, "EOS"},
        {{"llama", NULL, NULL, one, NULL, -1, -1, -1, -1}, "BOS"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vocab_file v;
        tn_error err = {0};
        assert_int_equal(open_small(&cases[i].file, &v, &err), TN_ERR_INPUT);
        assert_null(v.t);
        if (!strstr(err.text, cases[i].says)) fail_msg("'%s' does not say %s", err.text, cases[i].says);
        close_vocab(&v);
    }
}

/* Types and scores that are not one for each token. */
static void short_arrays(void **state) {
    (void)state;
    static const char *const keys[] = {"tokenizer.ggml.token_type", "tokenizer.ggml.scores"};
    static const tn_str texts[] = {{"a", 1}, {"b", 1}};
    static const int32_t number[] = {1, 1};
    for (int i = 0; i < 4; i++) {
        tn_gguf_writer *w = NULL;
        tn_error err = {0};
        assert_int_equal(tn_gguf_writer_open(&w, &err), TN_OK);
        tn_gguf_put_str(w, "tokenizer.ggml.model", "llama");
        put_array(w, "tokenizer.ggml.tokens", TN_GGUF_STR, 2, NULL, texts);
        if (i < 2) {
            put_array(w, keys[i], TN_GGUF_I32, 1, number, NULL);
        } else {
            put_array(w, keys[i - 2], TN_GGUF_STR, 2, NULL, texts);
        }
        assert_int_equal(tn_gguf_writer_save(w, g_path, &err), TN_OK);
        tn_gguf_writer_close(&w);
        size_t n;
        vocab_file v = {.bytes = read_file(g_path, &n)};
        unlink(g_path);
        assert_int_equal(tn_gguf_open_memory(&v.gguf, v.bytes, n, &err), TN_OK);
        assert_int_equal(tn_tokenizer_open(&v.t, v.gguf, &err), TN_ERR_INPUT);
        assert_non_null(strstr(err.text, keys[i % 2]));
        close_vocab(&v);
    }
}

/* ---- memory that runs out ---- */

static tn_status everything(const tn_gguf *g, tn_buf *text, tn_error *err) {
    tn_tokenizer *t = NULL;
    tn_ids ids = {0};
    tn_status st = tn_tokenizer_open(&t, g, err);
    tn_encode_options options = {true, true};
    if (!st)
        st = tn_tokenizer_encode(t, tn_str_of("ab abc <s>a \xff cd <think>ab ab ab ab ab ab ab ab ab ab ab ab"),
                                 options, &ids, err);
    if (!st) st = tn_tokenizer_decode(t, ids.p, ids.n, true, text, err);
    tn_free(ids.p);
    tn_tokenizer_close(&t);
    return st;
}

static void out_of_memory(void **state) {
    (void)state;
    const small files[] = {bytes_vocab,
                           {"llama", NULL, NULL, spm_tokens, NULL, -1, -1, -1, -1},
                           {"gemma4", NULL, NULL, bytes_tokens, bytes_merges, 6, 7, 1, 1}};
    for (size_t i = 0; i < 3; i++) {
        size_t n_bytes;
        char *bytes = make_small(&files[i], &n_bytes);
        tn_gguf *g = NULL;
        tn_error err = {0};
        tn_failing f = {0};
        tn_buf want = {0};
        assert_int_equal(tn_gguf_open_memory(&g, bytes, n_bytes, &err), TN_OK);
        assert_int_equal(everything(g, &want, &err), TN_OK);
        while (!f.done && f.n < 1000) {
            err = (tn_error){0};
            tn_buf text = {0};
            tn_failing_start(&f);
            tn_status st = everything(g, &text, &err);
            bool failed = tn_failing_stop(&f);
            if (st) assert_true(failed && st == TN_ERR_RESOURCES && !strcmp(err.text, "out of memory"));
            if (!st) assert_string_equal(text.p, want.p); /* a pattern's compiler can do without memory */
            tn_buf_free(&text);
        }
        tn_buf_free(&want);
        assert_in_range(f.n, 10, 999);
        tn_gguf_close(&g);
        free(bytes);
    }
}

/* ---- files made so that hashes without a seed would collide ---- */

enum { N_CRAFTED = 30000, SLOTS = 1 << 16, RUN = 64 /* slots that all of them would share */, N_PIECES = 8192 };

/* The n-th of many short texts. */
static tn_str short_text(char *p, uint32_t n) {
    size_t k = 0;
    for (n = n * 2654435761u; k < 6; n /= 64) p[k++] = (char)('0' + n % 64);
    return (tn_str){p, k};
}

/* The slots that tables would have which hash by FNV-1a or a product alone. */
static uint32_t slot_of_text(tn_str s) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < s.n; i++) h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3u;
    return (uint32_t)(h ^ h >> 29) % SLOTS;
}
static uint32_t slot_of_pair(uint32_t left, uint32_t right) {
    return (uint32_t)((((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u) >> 20) % SLOTS;
}

/* Seconds of the process to open such a tokenizer. */
static double open_seconds(const tn_str *texts, size_t n, const tn_str *merges, size_t n_merges) {
    tn_gguf_writer *w = NULL;
    vocab_file v = {0};
    tn_error err = {0};
    size_t bytes;
    assert_int_equal(tn_gguf_writer_open(&w, &err), TN_OK);
    tn_gguf_put_str(w, "tokenizer.ggml.model", "gpt2");
    put_array(w, "tokenizer.ggml.tokens", TN_GGUF_STR, n, NULL, texts);
    put_array(w, "tokenizer.ggml.merges", TN_GGUF_STR, n_merges, NULL, merges);
    if (tn_gguf_writer_save(w, g_path, &err)) fail_msg("%s", err.text);
    tn_gguf_writer_close(&w);
    v.bytes = read_file(g_path, &bytes);
    unlink(g_path);
    assert_int_equal(tn_gguf_open_memory(&v.gguf, v.bytes, bytes, &err), TN_OK);
    clock_t begin = clock();
    tn_status status = tn_tokenizer_open(&v.t, v.gguf, &err);
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    if (status) fail_msg("%s", err.text);
    close_vocab(&v);
    return seconds;
}

/* Texts, all of them or those of one run of slots. */
static void make_texts(tn_str *texts, char (*room)[8], size_t n, bool crafted) {
    size_t found = 0;
    for (uint32_t i = 0; found < n; i++) {
        tn_str s = short_text(room[found], i);
        if (crafted && slot_of_text(s) >= RUN) continue;
        texts[found++] = s;
    }
}

static void make_merges(tn_str *merges, char (*room)[16], const tn_str *texts, bool crafted) {
    size_t found = 0;
    for (uint32_t i = 0; found < N_CRAFTED; i++) {
        uint32_t left = i / N_PIECES % N_PIECES, right = crafted ? i % N_PIECES : i * 7919 % N_PIECES;
        if (crafted && slot_of_pair(left, right) >= RUN) continue;
        int n = snprintf(room[found], sizeof *room, "%.6s %.6s", texts[left].p, texts[right].p);
        merges[found] = (tn_str){room[found], (size_t)n};
        found++;
    }
}

/* The best of four tries counts. */
static void colliding_tables(void **state) {
    (void)state;
    static tn_str texts[2][N_CRAFTED], merges[2][N_CRAFTED];
    static char text_room[2][N_CRAFTED][8], merge_room[2][N_CRAFTED][16];
    for (int crafted = 0; crafted < 2; crafted++) make_texts(texts[crafted], text_room[crafted], N_CRAFTED, crafted);
    for (int crafted = 0; crafted < 2; crafted++)
        make_merges(merges[crafted], merge_room[crafted], texts[0], crafted);
    for (int what = 0; what < 2; what++) {
        double honest = 0, crafted = 0;
        bool fine = false;
        for (int tries = 0; tries < 4 && !fine; tries++) {
            honest = what ? open_seconds(texts[0], N_PIECES, merges[0], N_CRAFTED)
                          : open_seconds(texts[0], N_CRAFTED, NULL, 0);
            crafted = what ? open_seconds(texts[0], N_PIECES, merges[1], N_CRAFTED)
                           : open_seconds(texts[1], N_CRAFTED, NULL, 0);
            fine = crafted <= 3 * honest + 0.05;
        }
        if (!fine) fail_msg("%s: %.3f s, crafted ones %.3f s", what ? "merges" : "tokens", honest, crafted);
    }
}

int main(void) {
    int fd = mkstemps(g_path, 5);
    if (fd < 0 || close(fd)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_texts),
                                       cmocka_unit_test(long_texts),
                                       cmocka_unit_test(megabytes),
                                       cmocka_unit_test(every_pre_tokenizer),
                                       cmocka_unit_test(patterns_differ),
                                       cmocka_unit_test(special_tokens),
                                       cmocka_unit_test(input_is_not_control),
                                       cmocka_unit_test(sentencepiece),
                                       cmocka_unit_test(end_of_generation),
                                       cmocka_unit_test(bad_files),
                                       cmocka_unit_test(short_arrays),
                                       cmocka_unit_test(colliding_tables),
                                       cmocka_unit_test(out_of_memory)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(g_path);
    return failed;
}
