/* Template text -> tokens. White space control happens here: '-' and '+' beside a tag, the newline after a block
 * (trim_blocks) and the blanks before one on its line (lstrip_blocks). */
#include "text/jinja.h"

#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>

typedef struct lexer {
    tn_jsource *s;
    const char *p, *end;
    int line;
    bool line_start; /* nothing but what was cut away stands before p on its line */
    int nesting;     /* open ( [ { inside a tag */
    tn_error *err;
} lexer;

static const char *const operators[] = {"**", "//", "==", "!=", "<=", ">=", "+", "-", "/", "*", "%", "~", "[",
                                        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

static bool is_space(char ch) {
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}
static bool is_digit(char ch) {
    return ch >= '0' && ch <= '9';
}
static bool is_name(char ch) {
    return ch == '_' || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || is_digit(ch) ||
           (unsigned char)ch >= 0x80;
}
static bool at(const lexer *l, const char *z) {
    size_t n = strlen(z);
    return (size_t)(l->end - l->p) >= n && memcmp(l->p, z, n) == 0;
}

static tn_status fail(lexer *l, const char *what) {
    return tn_fail(l->err, TN_ERR_INPUT, "template, line %d: %s", l->line, what);
}

/* Moves to `to`, counting lines. */
static void advance(lexer *l, const char *to) {
    for (; l->p < to; l->p++) l->line += *l->p == '\n';
}

static tn_status add(lexer *l, tn_jtoken t) {
    tn_jsource *s = l->s;
    if (s->n_tokens == s->cap_tokens) {
        size_t cap = s->cap_tokens ? s->cap_tokens * 2 : 256;
        tn_jtoken *tokens = tn_realloc(s->tokens, cap * sizeof *tokens);
        if (!tokens) return tn_fail_memory(l->err);
        s->tokens = tokens;
        s->cap_tokens = cap;
    }
    if (!t.line) t.line = l->line;
    s->tokens[s->n_tokens++] = t;
    return TN_OK;
}

static tn_status add_data(lexer *l, const char *begin, const char *end, int line) {
    if (begin == end) return TN_OK;
    return add(l, (tn_jtoken){.kind = TN_JT_DATA, .line = line, .text = {begin, (size_t)(end - begin)}});
}

/* What remains of data before a tag: '-' takes all white space, lstrip_blocks the blanks of the tag's own line. */
static const char *trim_before(const lexer *l, const char *begin, const char *end, char sign, bool block) {
    if (sign == '-') {
        while (end > begin && is_space(end[-1])) end--;
    } else if (block && sign != '+') {
        const char *q = end;
        while (q > begin && (q[-1] == ' ' || q[-1] == '\t')) q--;
        if (q > begin ? q[-1] == '\n' : l->line_start) end = q;
    }
    return end;
}

/* Passes the end of a tag, with what its sign and trim_blocks take after it. */
static void pass_end(lexer *l, char sign, bool trim_newline) {
    const char *q = l->p + (sign ? 3 : 2);
    if (sign == '-') {
        while (q < l->end && is_space(*q)) q++;
    } else if (trim_newline && sign != '+' && q < l->end && *q == '\n') {
        q++;
    }
    advance(l, q);
    l->line_start = q[-1] == '\n';
}

static unsigned hex_value(const char *p, int n, bool *ok) {
    unsigned v = 0;
    for (int i = 0; i < n; i++) {
        char ch = p[i];
        int d = is_digit(ch)             ? ch - '0'
                : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
                : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                         : -1;
        if (d < 0) *ok = false;
        v = v * 16 + (unsigned)(d & 15);
    }
    return v;
}

static size_t put_utf8(char *p, unsigned cp) {
    if (cp < 0x80) return *p = (char)cp, 1;
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n; --i > 0; cp >>= 6) p[i] = (char)(0x80 | (cp & 0x3f));
    p[0] = (char)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | cp);
    return n;
}

/* Resolves the escape after a backslash at p (p[0] is the letter). Returns how many bytes it took, 0: not an escape.
 */
static size_t escape(const char *p, const char *end, char *out, size_t *n_out) {
    static const char letters[] = "n\nt\tr\r\\\\'\'\"\"b\bf\fv\va\a";
    *n_out = 1;
    for (const char *l = letters; *l; l += 2) {
        if (*p == *l) return *out = l[1], 1;
    }
    if (*p >= '0' && *p <= '7') {
        unsigned v = 0;
        size_t n = 0;
        while (n < 3 && p + n < end && p[n] >= '0' && p[n] <= '7') v = v * 8 + (unsigned)(p[n++] - '0');
        *n_out = put_utf8(out, v);
        return n;
    }
    int digits = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0;
    bool ok = digits && end - p > digits;
    unsigned v = ok ? hex_value(p + 1, digits, &ok) : 0;
    if (!ok || v > 0x10ffff) return 0;
    *n_out = put_utf8(out, v);
    return 1 + (size_t)digits;
}

/* A quoted string at p. An escape never gets longer than it was written. */
static tn_status lex_string(lexer *l) {
    char quote = *l->p;
    const char *q = l->p + 1;
    while (q < l->end && *q != quote) q += *q == '\\' && q + 1 < l->end ? 2 : 1;
    if (q >= l->end) return fail(l, "a string is not closed");
    char *text = tn_arena_alloc(&l->s->arena, (size_t)(q - l->p));
    if (!text) return tn_fail_memory(l->err);
    size_t n = 0;
    for (const char *r = l->p + 1; r < q;) {
        size_t made, took;
        if (*r == '\\' && r + 1 < q && r[1] == '\n') {
            r += 2; /* a line continued */
        } else if (*r == '\\' && r + 1 < q && (took = escape(r + 1, q, text + n, &made))) {
            r += 1 + took;
            n += made;
        } else {
            text[n++] = *r++;
        }
    }
    tn_status st = add(l, (tn_jtoken){.kind = TN_JT_STR, .text = {text, n}});
    advance(l, q + 1);
    return st;
}

static tn_status lex_number(lexer *l) {
    char digits[64];
    size_t n = 0;
    const char *q = l->p;
    bool real = false, prefixed = *q == '0' && q + 1 < l->end && memchr("xXoObB", q[1], 6);
    int base = !prefixed ? 10 : (q[1] | 32) == 'x' ? 16 : (q[1] | 32) == 'o' ? 8 : 2;
    if (prefixed) q += 2;
    for (; q < l->end; q++) {
        bool dot = *q == '.' && !real && !prefixed && q + 1 < l->end && is_digit(q[1]);
        bool sign = (*q == '+' || *q == '-') && n && digits[n - 1] == 'e';
        bool exponent =
            (*q | 32) == 'e' && !prefixed && q + 1 < l->end && (is_digit(q[1]) || q[1] == '-' || q[1] == '+');
        if (*q == '_') continue;
        if (!(is_digit(*q) || dot || sign || exponent || (base == 16 && is_name(*q)))) break;
        real |= dot || exponent;
        if (n + 1 == sizeof digits) return fail(l, "a number is too long");
        digits[n++] = exponent ? 'e' : *q;
    }
    digits[n] = 0;
    char *rest;
    tn_jtoken t = {.kind = real ? TN_JT_FLOAT : TN_JT_INT, .text = {l->p, (size_t)(q - l->p)}};
    errno = 0;
    if (real) {
        t.f = strtod(digits, &rest);
    } else {
        t.i = strtoll(digits, &rest, base);
    }
    if (*rest || n == 0 || (!real && errno)) return fail(l, "a number cannot be read");
    l->p = q;
    return add(l, t);
}

static tn_status lex_operator(lexer *l) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!at(l, operators[i])) continue;
        char ch = *l->p;
        if (ch == '(' || ch == '[' || ch == '{') l->nesting++;
        if (ch == ')' || ch == ']' || ch == '}') l->nesting--;
        if (l->nesting < 0) return fail(l, "a bracket is closed that was not opened");
        tn_str text = tn_str_of(operators[i]);
        l->p += text.n;
        return add(l, (tn_jtoken){.kind = TN_JT_OP, .text = text});
    }
    if ((unsigned char)*l->p < 32) return fail(l, "unexpected control character");
    return tn_fail(l->err, TN_ERR_INPUT, "template, line %d: unexpected character '%.*s'", l->line,
                   (int)tn_utf8_step(l->p, (size_t)(l->end - l->p)), l->p);
}

/* The inside of {{ }} or {% %}, p after its begin, up to and with its end. */
static tn_status lex_tag(lexer *l, bool block) {
    const char *closing = block ? "%}" : "}}";
    l->nesting = 0;
    for (;;) {
        while (l->p < l->end && is_space(*l->p)) advance(l, l->p + 1);
        if (l->p >= l->end) return fail(l, block ? "the file ends inside {% %}" : "the file ends inside {{ }}");
        if (l->nesting == 0) {
            char sign = *l->p == '-' || (*l->p == '+' && block) ? *l->p : 0;
            if (sign) l->p++;
            bool closes = at(l, closing);
            if (sign) l->p--;
            if (closes) {
                tn_status st = add(l, (tn_jtoken){.kind = block ? TN_JT_BLOCK_END : TN_JT_PRINT_END});
                pass_end(l, sign, block);
                return st;
            }
        }
        tn_status st;
        if (*l->p == '"' || *l->p == '\'') {
            st = lex_string(l);
        } else if (is_digit(*l->p)) {
            st = lex_number(l);
        } else if (is_name(*l->p)) {
            const char *q = l->p;
            while (q < l->end && is_name(*q)) q++;
            st = add(l, (tn_jtoken){.kind = TN_JT_NAME, .text = {l->p, (size_t)(q - l->p)}});
            l->p = q;
        } else {
            st = lex_operator(l);
        }
        if (st) return st;
    }
}

/* {% raw %} at p? Then q is what follows it. */
static bool match_word_tag(const lexer *l, const char *p, const char *word, const char **q, char *sign,
                           char *end_sign) {
    size_t n = strlen(word);
    if (l->end - p < 2 || p[0] != '{' || p[1] != '%') return false;
    p += 2;
    *sign = p < l->end && (*p == '-' || *p == '+') ? *p++ : 0;
    while (p < l->end && is_space(*p)) p++;
    if ((size_t)(l->end - p) < n || memcmp(p, word, n) != 0) return false;
    p += n;
    while (p < l->end && is_space(*p)) p++;
    *end_sign = p < l->end && (*p == '-' || *p == '+') ? *p++ : 0;
    if (l->end - p < 2 || p[0] != '%' || p[1] != '}') return false;
    *q = p + 2;
    return true;
}

static tn_status lex_raw(lexer *l, const char *body, char begin_sign) {
    advance(l, body);
    if (begin_sign == '-') {
        while (l->p < l->end && is_space(*l->p)) advance(l, l->p + 1);
    }
    int line = l->line;
    l->line_start = false;
    for (const char *p = l->p; p < l->end; p++) {
        const char *q;
        char sign, end_sign;
        if (*p != '{' || !match_word_tag(l, p, "endraw", &q, &sign, &end_sign)) continue;
        tn_status st = add_data(l, l->p, trim_before(l, l->p, p, sign, true), line);
        advance(l, q - (end_sign ? 3 : 2));
        pass_end(l, end_sign, true);
        return st;
    }
    return fail(l, "{% raw %} is not closed");
}

static tn_status lex_comment(lexer *l) {
    const char *p = l->p + 2;
    while (l->end - p >= 2 && !(p[0] == '#' && p[1] == '}')) p++;
    if (l->end - p < 2) return fail(l, "a comment is not closed");
    char sign = p > l->p + 2 && (p[-1] == '-' || p[-1] == '+') ? p[-1] : 0;
    advance(l, sign ? p - 1 : p);
    pass_end(l, sign, true);
    return TN_OK;
}

/* One piece of data and the tag after it. */
static tn_status lex_piece(lexer *l) {
    const char *begin = l->p, *p = begin;
    while (p < l->end && !(*p == '{' && p + 1 < l->end && memchr("{%#", p[1], 3))) p++;
    int line = l->line;
    if (p == l->end) {
        tn_status st = add_data(l, begin, p, line);
        advance(l, p);
        return st;
    }
    char kind = p[1], sign = p + 2 < l->end && (p[2] == '-' || p[2] == '+') ? p[2] : 0;
    const char *q;
    char raw_sign, raw_end_sign;
    tn_status st = add_data(l, begin, trim_before(l, begin, p, sign, kind != '{'), line);
    if (st) return st;
    advance(l, p);
    if (kind == '#') return lex_comment(l);
    if (match_word_tag(l, p, "raw", &q, &raw_sign, &raw_end_sign)) return lex_raw(l, q, raw_end_sign);
    st = add(l, (tn_jtoken){.kind = kind == '%' ? TN_JT_BLOCK_BEGIN : TN_JT_PRINT_BEGIN});
    l->p += sign ? 3 : 2;
    return st ? st : lex_tag(l, kind == '%');
}

/* Newlines become \n; one at the end of the file is not part of the template. */
static char *normalize(tn_jsource *s, tn_str text, size_t *n) {
    char *copy = tn_arena_alloc(&s->arena, text.n + 1);
    if (!copy) return NULL;
    *n = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '\r' && i + 1 < text.n && text.p[i + 1] == '\n') continue;
        copy[(*n)++] = text.p[i] == '\r' ? '\n' : text.p[i];
    }
    if (*n && copy[*n - 1] == '\n') --*n;
    return copy;
}

tn_status tn_jinja_lex(tn_jsource *s, tn_str text, tn_error *err) {
    size_t n;
    char *copy = normalize(s, text, &n);
    if (!copy) return tn_fail_memory(err);
    lexer l = {.s = s, .p = copy, .end = copy + n, .line = 1, .line_start = true, .err = err};
    while (l.p < l.end) {
        tn_status st = lex_piece(&l);
        if (st) return st;
    }
    return add(&l, (tn_jtoken){.kind = TN_JT_END});
}
