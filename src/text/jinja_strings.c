/* String work that filters and methods share. Every piece of a result keeps the mark of where it came from. */
#include "text/jinja.h"

#include <stdio.h>
#include <utf8proc.h>

static size_t space_length(const char *p, size_t n) {
    utf8proc_int32_t cp;
    if (*p == ' ' || (*p >= '\t' && *p <= '\r') || (*p >= 0x1c && *p <= 0x1f)) return 1;
    if ((unsigned char)*p < 0x80) return 0;
    utf8proc_ssize_t len = utf8proc_iterate((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)n, &cp);
    if (len <= 0) return 0;
    utf8proc_category_t cat = utf8proc_category(cp);
    bool space =
        cp == 0x85 || cat == UTF8PROC_CATEGORY_ZS || cat == UTF8PROC_CATEGORY_ZL || cat == UTF8PROC_CATEGORY_ZP;
    return space ? (size_t)len : 0;
}

/* Length of the character at p when strip should take it, else 0. */
static size_t strip_length(const char *p, size_t n, const tn_str *chars) {
    if (!chars) return space_length(p, n);
    size_t len = tn_utf8_step(p, n);
    for (size_t i = 0; i < chars->n; i += tn_utf8_step(chars->p + i, chars->n - i)) {
        if (len == tn_utf8_step(chars->p + i, chars->n - i) && memcmp(p, chars->p + i, len) == 0) return len;
    }
    return 0;
}

tn_jval tn_jinja_strip(tn_jinja *c, tn_jval s, tn_jval chars, bool left, bool right) {
    tn_str view = tn_jinja_view(chars), *set = chars.kind == TN_J_STR ? &view : NULL;
    size_t begin = 0, end = s.n, n;
    if (set && !tn_jinja_work(c, s.n / 16 * set->n)) return tn_jinja_undefined;
    while (left && begin < end && (n = strip_length(s.p + begin, end - begin, set))) begin += n;
    while (right && begin < end) {
        size_t last = end - 1;
        while (last > begin && ((unsigned char)s.p[last] & 0xc0) == 0x80) last--;
        if (strip_length(s.p + last, end - last, set) != end - last) break;
        end = last;
    }
    return tn_jinja_sub(s, begin, end);
}

tn_jval tn_jinja_case(tn_jinja *c, tn_jval s, tn_jcase to) {
    size_t at = c->text.n;
    bool start = true; /* of a word, or of the string */
    for (size_t i = 0, n; i < s.n && !c->status; i += n) {
        utf8proc_int32_t cp = 0;
        utf8proc_uint8_t out[4];
        unsigned char mark[4];
        n = tn_utf8_step(s.p + i, s.n - i);
        if (utf8proc_iterate((const utf8proc_uint8_t *)s.p + i, (utf8proc_ssize_t)n, &cp) <= 0) {
            tn_jinja_emit(c, s.p + i, s.mark ? s.mark + i : NULL, n);
            continue;
        }
        bool up = to == TN_JCASE_UPPER || (start && to != TN_JCASE_LOWER);
        utf8proc_int32_t lower = utf8proc_tolower(cp), upper = utf8proc_toupper(cp);
        bool cased = lower != cp || upper != cp;
        /* a sharp s has no capital of one character */
        const char *two = cp == 0xdf && up ? (to == TN_JCASE_UPPER ? "SS" : "Ss") : NULL;
        size_t len = two ? 2 : (size_t)utf8proc_encode_char(up ? upper : lower, out);
        memset(mark, s.mark ? s.mark[i] : 0, sizeof mark);
        tn_jinja_emit(c, two ? two : (const char *)out, mark, len);
        start = to == TN_JCASE_TITLE ? !(cased || two) : false;
    }
    return tn_jinja_take(c, at);
}

tn_jval tn_jinja_replace(tn_jinja *c, tn_jval s, tn_jval from, tn_jval to, int64_t count) {
    size_t at = c->text.n, done = 0;
    while (count-- != 0 && !c->status && done <= s.n) {
        size_t hit = tn_jinja_search(c, tn_jinja_view(s), tn_jinja_view(from), done);
        if (hit == SIZE_MAX || !tn_jinja_work(c, 1)) break;
        tn_jinja_emit(c, s.p + done, s.mark ? s.mark + done : NULL, hit - done);
        tn_jinja_emit(c, to.p, to.mark, to.n);
        done = hit + from.n;
        if (from.n) continue;
        size_t n =
            done < s.n ? tn_utf8_step(s.p + done, s.n - done) : 0; /* an empty string is between all characters */
        tn_jinja_emit(c, s.p + done, s.mark ? s.mark + done : NULL, n);
        done += n ? n : 1;
    }
    if (done < s.n) tn_jinja_emit(c, s.p + done, s.mark ? s.mark + done : NULL, s.n - done);
    return tn_jinja_take(c, at);
}

tn_jval tn_jinja_join(tn_jinja *c, tn_jval items, tn_jval between) {
    size_t at = c->text.n;
    if (!tn_jinja_is_list(items)) return tn_jinja_undefined;
    for (size_t i = 0; i < items.list->n && tn_jinja_work(c, 1); i++) {
        if (i) tn_jinja_emit_value(c, between);
        tn_jinja_emit_value(c, items.list->v[i]);
    }
    return tn_jinja_take(c, at);
}

tn_jval tn_jinja_format(tn_jinja *c, tn_jval format, const tn_jargs *a) {
    size_t at = c->text.n, next = 0;
    for (size_t i = 0; i < format.n && !c->status; i++) {
        const unsigned char *mark = format.mark ? format.mark + i : NULL;
        if (format.p[i] != '%' || i + 1 == format.n) {
            tn_jinja_emit(c, format.p + i, mark, 1);
            continue;
        }
        char what = format.p[++i];
        if (what == '%') {
            tn_jinja_emit(c, "%", mark, 1);
        } else if ((what != 's' && what != 'd' && what != 'i') || next == a->n) {
            tn_jinja_fail(c, "the format needs %%s or %%d with a value for each");
        } else if (what == 's') {
            tn_jinja_emit_value(c, a->v[next++]);
        } else {
            double x;
            if (!tn_jinja_number(a->v[next], &x)) tn_jinja_fail(c, "%%d needs a number");
            tn_jval v = a->v[next++];
            tn_jinja_emit_value(c, v.kind == TN_J_INT ? v : tn_jinja_int((int64_t)(x > -1e18 && x < 1e18 ? x : 0)));
        }
    }
    return tn_jinja_take(c, at);
}
