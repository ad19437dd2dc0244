#include "text/pretokenize.h"

#include "base/mem.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

typedef struct pre_type {
    int flags;
    const char *names[17];
    const char *patterns[TN_PRE_MAX_PATTERNS];
} pre_type;

#define NAMES(...)                                                                                                   \
    { __VA_ARGS__ }
#define PATTERNS(...)                                                                                                \
    { __VA_ARGS__ }
#define PRE(flags, names, patterns) {flags, names, patterns},
static const pre_type types[] = {
#include "text/pretokenize.def"
};

struct tn_pre {
    const pre_type *type;
    pcre2_general_context *memory;
    pcre2_code *codes[TN_PRE_MAX_PATTERNS];
    int n;
};

static void *pcre_alloc(size_t n, void *data) {
    return (void)data, tn_alloc(n);
}
static void pcre_free(void *p, void *data) {
    return (void)data, tn_free(p);
}

static const pre_type *find_type(tn_str name) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        for (const char *const *known = types[i].names; *known; known++) {
            if (tn_str_is(name, *known)) return &types[i];
        }
    }
    return NULL;
}

static tn_status compile(tn_pre *p, const char *pattern, tn_error *err) {
    int code;
    size_t at;
    pcre2_compile_context *context = pcre2_compile_context_create(p->memory);
    if (!context) return tn_fail_memory(err);
    pcre2_code *c = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &code, &at, context);
    pcre2_compile_context_free(context);
    if (!c && code == PCRE2_ERROR_HEAP_FAILED) return tn_fail_memory(err);
    if (!c) return tn_fail(err, TN_ERR_INTERNAL, "pre-tokenizer '%s': error %d at %zu", p->type->names[0], code, at);
    p->codes[p->n++] = c;
    (void)pcre2_jit_compile(c, PCRE2_JIT_COMPLETE); /* without it, matching is slower and the same */
    return TN_OK;
}

tn_status tn_pre_open(tn_pre **out, tn_str name, tn_error *err) {
    *out = NULL;
    const pre_type *type = find_type(name);
    if (!type) {
        return tn_fail(err, TN_ERR_INPUT, "pre-tokenizer '%.*s' (tokenizer.ggml.pre) is not known to this build",
                       (int)(name.n < 100 ? name.n : 100), name.p);
    }
    tn_pre *p = tn_alloc_zero(1, sizeof *p);
    if (!p) return tn_fail_memory(err);
    p->type = type;
    p->memory = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    tn_status st = p->memory ? TN_OK : tn_fail_memory(err);
    for (int i = 0; !st && i < TN_PRE_MAX_PATTERNS && type->patterns[i]; i++) st = compile(p, type->patterns[i], err);
    if (st) {
        tn_pre_close(&p);
    } else {
        *out = p;
    }
    return st;
}

void tn_pre_close(tn_pre **p) {
    if (!*p) return;
    for (int i = 0; i < (*p)->n; i++) pcre2_code_free((*p)->codes[i]);
    pcre2_general_context_free((*p)->memory);
    tn_free(*p);
    *p = NULL;
}

int tn_pre_flags(const tn_pre *p) {
    return p->type->flags;
}

typedef struct splitter {
    const tn_pre *p;
    pcre2_match_data *match;
    pcre2_match_context *context;
    tn_pre_word *word;
    void *data;
    tn_error *err;
} splitter;

/* Cuts a piece by pattern `level` and all after it. */
static tn_status split(const splitter *s, tn_str text, int level) {
    if (text.n == 0) return TN_OK;
    if (level == s->p->n) return s->word(s->data, text, s->err);
    size_t done = 0;
    while (done < text.n) {
        int rc = pcre2_match(s->p->codes[level], (PCRE2_SPTR)text.p, text.n, done, PCRE2_NO_UTF_CHECK, s->match,
                             s->context);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc == PCRE2_ERROR_NOMEMORY || rc == PCRE2_ERROR_HEAPLIMIT) return tn_fail_memory(s->err);
        if (rc < 0) return tn_fail(s->err, TN_ERR_INTERNAL, "pre-tokenizer '%s': error %d", s->p->type->names[0], rc);
        const size_t *at = pcre2_get_ovector_pointer(s->match), begin = at[0], end = at[1];
        tn_status st = split(s, (tn_str){text.p + done, begin - done}, level + 1);
        if (!st) st = split(s, (tn_str){text.p + begin, end - begin}, level + 1);
        if (st) return st;
        done = end; /* no pattern matches nothing */
    }
    return split(s, (tn_str){text.p + done, text.n - done}, level + 1);
}

tn_status tn_pre_split(const tn_pre *p, tn_str text, tn_pre_word *word, void *data, tn_error *err) {
    splitter s = {.p = p, .word = word, .data = data, .err = err};
    s.match = pcre2_match_data_create(1, p->memory);
    s.context = s.match ? pcre2_match_context_create(p->memory) : NULL;
    tn_status st = TN_OK;
    if (!s.context) {
        st = tn_fail_memory(err);
    } else {
        /* Every pattern is linear; the limits are there to notice one that is not. */
        pcre2_set_match_limit(s.context, text.n < UINT32_MAX / 64 ? 1000000 + (uint32_t)text.n * 32 : UINT32_MAX);
        pcre2_set_heap_limit(s.context, 1 << 20); /* KiB */
        st = split(&s, text, 0);
    }
    pcre2_match_context_free(s.context);
    pcre2_match_data_free(s.match);
    return st;
}
