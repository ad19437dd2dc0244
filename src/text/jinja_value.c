/* Values of the template language: making, comparing and printing them. Everything follows Python where a template
 * could tell the difference. */

#include "text/jinja.h"

#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const tn_jval tn_jinja_undefined = {.kind = TN_J_UNDEFINED}, tn_jinja_none = {.kind = TN_J_NONE};

/* ---- failing, memory, limits ---- */

tn_jval tn_jinja_fail(tn_jinja *c, const char *format, ...) {
    if (c->status) return tn_jinja_undefined;
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *p = text; *p; p++) {
        if (*p == '\n' || *p == '\r') *p = ' '; /* an error is one line */
    }
    c->status = tn_fail(c->err, TN_ERR_INPUT, "template, line %d: %s", c->line, text);
    return tn_jinja_undefined;
}

void *tn_jinja_alloc(tn_jinja *c, size_t count, size_t size) {
    size_t bytes;
    if (c->status) return NULL;
    if (!tn_mul_size(count, size, &bytes) || bytes > TN_JINJA_MAX_BYTES - c->bytes) {
        tn_jinja_fail(c, "it uses too much memory");
        return NULL;
    }
    c->bytes += bytes;
    void *p = tn_arena_alloc(&c->arena, bytes);
    if (!p) c->status = tn_fail_memory(c->err);
    return p;
}

bool tn_jinja_work(tn_jinja *c, size_t items) {
    if (c->status) return false;
    if (items > TN_JINJA_MAX_STEPS - c->steps) return tn_jinja_fail(c, "it takes too many steps"), false;
    c->steps += items;
    return true;
}

bool tn_jinja_enter(tn_jinja *c) {
    c->depth++;
    if (c->depth > TN_JINJA_MAX_DEPTH) tn_jinja_fail(c, "nested too deeply");
    return tn_jinja_work(c, 1);
}

/* ---- making ---- */

tn_jval tn_jinja_bool(bool b) {
    return (tn_jval){TN_J_BOOL, .b = b};
}
tn_jval tn_jinja_int(int64_t i) {
    return (tn_jval){TN_J_INT, .i = i};
}
tn_jval tn_jinja_float(double f) {
    return (tn_jval){TN_J_FLOAT, .f = f};
}
tn_jval tn_jinja_str(tn_str s) {
    return (tn_jval){TN_J_STR, .n = s.n, .p = s.p};
}

tn_jval tn_jinja_sub(tn_jval s, size_t begin, size_t end) {
    return (tn_jval){TN_J_STR, .n = end - begin, .p = s.p + begin, .mark = s.mark ? s.mark + begin : NULL};
}

tn_jval tn_jinja_new(tn_jinja *c, tn_jkind kind) {
    bool dict = kind == TN_J_DICT || kind == TN_J_NAMESPACE;
    tn_jval v = {.kind = kind};
    if (dict) {
        v.dict = tn_jinja_alloc(c, 1, sizeof *v.dict);
    } else {
        v.list = tn_jinja_alloc(c, 1, sizeof *v.list);
    }
    return c->status ? tn_jinja_undefined : v;
}

/* Room for one more of `size` bytes. */
static void *grow(tn_jinja *c, void *v, size_t n, size_t *cap, size_t size) {
    if (n < *cap) return v;
    size_t more = *cap ? *cap * 2 : 4;
    void *p = tn_jinja_alloc(c, more, size);
    if (!p) return NULL;
    if (n) memcpy(p, v, n * size);
    *cap = more;
    return p;
}

void tn_jinja_push(tn_jinja *c, tn_jval list, tn_jval item) {
    if (!tn_jinja_is_list(list)) return; /* making it had failed */
    tn_jlist *l = list.list;
    tn_jval *v = c->status ? NULL : grow(c, l->v, l->n, &l->cap, sizeof *v);
    if (!v) return;
    l->v = v;
    l->v[l->n++] = item;
}

void tn_jinja_put(tn_jinja *c, tn_jval dict, tn_jval key, tn_jval value) {
    if (c->status || (dict.kind != TN_J_DICT && dict.kind != TN_J_NAMESPACE)) return;
    tn_jdict *d = dict.dict;
    tn_jval *old = (tn_jval *)tn_jinja_find(c, d, key);
    if (old) {
        *old = value;
        return;
    }
    tn_jentry *v = grow(c, d->v, d->n, &d->cap, sizeof *v);
    if (!v) return;
    d->v = v;
    d->v[d->n++] = (tn_jentry){key, value};
}

const tn_jval *tn_jinja_find(tn_jinja *c, const tn_jdict *d, tn_jval key) {
    if (key.kind == TN_J_STR) return tn_jinja_find_str(c, d, tn_jinja_view(key));
    for (size_t i = 0; i < d->n && tn_jinja_work(c, 1); i++) {
        if (tn_jinja_equal(c, d->v[i].key, key)) return &d->v[i].value;
    }
    return NULL;
}

const tn_jval *tn_jinja_find_str(tn_jinja *c, const tn_jdict *d, tn_str key) {
    if (!tn_jinja_work(c, d->n / 8)) return NULL;
    for (size_t i = 0; i < d->n; i++) {
        if (d->v[i].key.kind == TN_J_STR && tn_str_eq(tn_jinja_view(d->v[i].key), key)) return &d->v[i].value;
    }
    return NULL;
}

/* ---- building strings ---- */

void tn_jinja_emit(tn_jinja *c, const char *p, const unsigned char *mark, size_t n) {
    if (n == 0 || !tn_jinja_work(c, n / 256)) return;
    if (n > TN_JINJA_MAX_TEXT - c->text.n) {
        tn_jinja_fail(c, "the text gets too long");
        return;
    }
    static const unsigned char zeros[256];
    tn_buf_add(&c->text, p, n);
    if (mark) tn_buf_add(&c->mark, mark, n);
    for (size_t left = mark ? 0 : n; left;) {
        size_t some = left < sizeof zeros ? left : sizeof zeros;
        tn_buf_add(&c->mark, zeros, some);
        left -= some;
    }
    if (c->text.failed || c->mark.failed) c->status = tn_fail_memory(c->err);
}

tn_jval tn_jinja_take(tn_jinja *c, size_t at) {
    size_t n = c->text.n - at;
    char *p = tn_jinja_alloc(c, n, 1);
    unsigned char *mark = NULL;
    bool marked = p && n && memchr(c->mark.p + at, 1, n);
    if (marked) mark = tn_jinja_alloc(c, n, 1);
    if (c->status) return tn_jinja_undefined;
    if (n) memcpy(p, c->text.p + at, n);
    if (marked) memcpy(mark, c->mark.p + at, n);
    c->text.n = c->mark.n = at;
    return (tn_jval){TN_J_STR, .n = n, .p = p, .mark = mark};
}

static void emit_z(tn_jinja *c, const char *z) {
    tn_jinja_emit(c, z, NULL, strlen(z));
}

/* The shortest digits that read back as f, laid out as Python does. */
static void emit_float(tn_jinja *c, double f) {
    if (!isfinite(f)) {
        emit_z(c, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    char s[40], out[64];
    int digits = 1;
    do {
        snprintf(s, sizeof s, "%.*e", digits - 1, f);
    } while (strtod(s, NULL) != f && ++digits <= 17);
    int exponent = atoi(strchr(s, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        *strchr(s, 'e') = 0;
        snprintf(out, sizeof out, "%se%c%02d", s, exponent < 0 ? '-' : '+', abs(exponent));
    } else {
        int after = digits - 1 - exponent;
        snprintf(out, sizeof out, "%.*f", after < 1 ? 1 : after, f);
    }
    emit_z(c, out);
}

static void emit_repr_str(tn_jinja *c, tn_jval s) {
    bool single = s.n && memchr(s.p, '\'', s.n), twice = s.n && memchr(s.p, '"', s.n);
    const char *quote = single && !twice ? "\"" : "'";
    emit_z(c, quote);
    for (size_t i = 0; i < s.n && !c->status; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        const unsigned char *mark = s.mark ? s.mark + i : NULL;
        char hex[8];
        if (ch == '\n' || ch == '\r' || ch == '\t' || ch == '\\') {
            emit_z(c, ch == '\n' ? "\\n" : ch == '\r' ? "\\r" : ch == '\t' ? "\\t" : "\\\\");
        } else if (ch == (unsigned char)*quote) {
            tn_jinja_emit(c, "\\", NULL, 1);
            tn_jinja_emit(c, s.p + i, mark, 1);
        } else if (ch < 32 || ch == 127) {
            snprintf(hex, sizeof hex, "\\x%02x", ch);
            emit_z(c, hex);
        } else {
            tn_jinja_emit(c, s.p + i, mark, 1);
        }
    }
    emit_z(c, quote);
}

static void emit_repr_list(tn_jinja *c, const tn_jlist *l, const char *open, const char *close) {
    emit_z(c, open);
    for (size_t i = 0; i < l->n && !c->status; i++) {
        if (i) emit_z(c, ", ");
        tn_jinja_emit_repr(c, l->v[i]);
    }
    emit_z(c, close);
}

static void emit_repr_dict(tn_jinja *c, const tn_jdict *d) {
    emit_z(c, "{");
    for (size_t i = 0; i < d->n && !c->status; i++) {
        if (i) emit_z(c, ", ");
        tn_jinja_emit_repr(c, d->v[i].key);
        emit_z(c, ": ");
        tn_jinja_emit_repr(c, d->v[i].value);
    }
    emit_z(c, "}");
}

void tn_jinja_emit_repr(tn_jinja *c, tn_jval v) {
    if (tn_jinja_enter(c)) {
        switch (v.kind) {
        case TN_J_UNDEFINED: emit_z(c, "Undefined"); break;
        case TN_J_STR: emit_repr_str(c, v); break;
        case TN_J_LIST: emit_repr_list(c, v.list, "[", "]"); break;
        case TN_J_TUPLE: emit_repr_list(c, v.list, "(", v.list->n == 1 ? ",)" : ")"); break;
        case TN_J_DICT: emit_repr_dict(c, v.dict); break;
        default: tn_jinja_emit_value(c, v);
        }
    }
    c->depth--;
}

void tn_jinja_emit_value(tn_jinja *c, tn_jval v) {
    char s[32];
    switch (v.kind) {
    case TN_J_UNDEFINED: break;
    case TN_J_NONE: emit_z(c, "None"); break;
    case TN_J_BOOL: emit_z(c, v.b ? "True" : "False"); break;
    case TN_J_INT:
        snprintf(s, sizeof s, "%lld", (long long)v.i);
        emit_z(c, s);
        break;
    case TN_J_FLOAT: emit_float(c, v.f); break;
    case TN_J_STR: tn_jinja_emit(c, v.p, v.mark, v.n); break;
    case TN_J_NAMESPACE: emit_z(c, "<Namespace>"); break;
    case TN_J_LOOP: emit_z(c, "<LoopContext>"); break;
    case TN_J_MACRO: emit_z(c, "<Macro>"); break;
    case TN_J_METHOD: emit_z(c, "<function>"); break;
    default: tn_jinja_emit_repr(c, v);
    }
}

tn_jval tn_jinja_to_str(tn_jinja *c, tn_jval v) {
    if (v.kind == TN_J_STR) return v;
    size_t at = c->text.n;
    tn_jinja_emit_value(c, v);
    return tn_jinja_take(c, at);
}

/* ---- asking ---- */

const char *tn_jinja_type_name(tn_jval v) {
    static const char *const names[] = {"Undefined",   "NoneType", "bool",    "int",  "float",
                                        "str",         "list",     "tuple",   "dict", "Namespace",
                                        "LoopContext", "Macro",    "function"};
    return names[v.kind];
}

bool tn_jinja_truth(tn_jval v) {
    switch (v.kind) {
    case TN_J_UNDEFINED:
    case TN_J_NONE: return false;
    case TN_J_BOOL: return v.b;
    case TN_J_INT: return v.i != 0;
    case TN_J_FLOAT: return v.f != 0;
    case TN_J_STR: return v.n != 0;
    case TN_J_LIST:
    case TN_J_TUPLE: return v.list->n != 0;
    case TN_J_DICT: return v.dict->n != 0;
    default: return true;
    }
}

bool tn_jinja_number(tn_jval v, double *out) {
    if (v.kind != TN_J_BOOL && v.kind != TN_J_INT && v.kind != TN_J_FLOAT) return false;
    *out = v.kind == TN_J_FLOAT ? v.f : v.kind == TN_J_INT ? (double)v.i : v.b;
    return true;
}

static bool equal_lists(tn_jinja *c, const tn_jlist *a, const tn_jlist *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n && !c->status; i++) {
        if (!tn_jinja_equal(c, a->v[i], b->v[i])) return false;
    }
    return true;
}

static bool equal_dicts(tn_jinja *c, const tn_jdict *a, const tn_jdict *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n && !c->status; i++) {
        const tn_jval *other = tn_jinja_find(c, b, a->v[i].key);
        if (!other || !tn_jinja_equal(c, a->v[i].value, *other)) return false;
    }
    return true;
}

static bool equal_same_kind(tn_jinja *c, tn_jval a, tn_jval b) {
    switch (a.kind) {
    case TN_J_UNDEFINED:
    case TN_J_NONE: return true;
    case TN_J_STR: return tn_jinja_work(c, a.n / 256) && tn_str_eq(tn_jinja_view(a), tn_jinja_view(b));
    case TN_J_LIST:
    case TN_J_TUPLE: return equal_lists(c, a.list, b.list);
    case TN_J_DICT: return equal_dicts(c, a.dict, b.dict);
    default: return a.p == b.p;
    }
}

bool tn_jinja_equal(tn_jinja *c, tn_jval a, tn_jval b) {
    double x, y;
    if (a.kind == TN_J_INT && b.kind == TN_J_INT) return a.i == b.i;
    if (tn_jinja_number(a, &x) && tn_jinja_number(b, &y)) return x == y;
    if (a.kind != b.kind) return false;
    bool same = tn_jinja_enter(c) && equal_same_kind(c, a, b);
    c->depth--;
    return same && !c->status;
}

int tn_jinja_order(tn_jinja *c, tn_jval a, tn_jval b) {
    double x, y;
    int order = 0;
    if (a.kind == TN_J_INT && b.kind == TN_J_INT) return a.i < b.i ? -1 : a.i > b.i;
    if (tn_jinja_number(a, &x) && tn_jinja_number(b, &y)) return x < y ? -1 : x > y;
    if (!tn_jinja_enter(c)) {
        /* failed */
    } else if (a.kind == TN_J_STR && b.kind == TN_J_STR) {
        size_t n = a.n < b.n ? a.n : b.n;
        order = tn_jinja_work(c, n / 256) && n ? memcmp(a.p, b.p, n) : 0;
        if (!order) order = a.n < b.n ? -1 : a.n > b.n;
    } else if (tn_jinja_is_list(a) && a.kind == b.kind) {
        for (size_t i = 0; !order && !c->status && i < a.list->n && i < b.list->n; i++) {
            if (!tn_jinja_equal(c, a.list->v[i], b.list->v[i])) order = tn_jinja_order(c, a.list->v[i], b.list->v[i]);
        }
        if (!order) order = a.list->n < b.list->n ? -1 : a.list->n > b.list->n;
    } else {
        tn_jinja_fail(c, "'%s' and '%s' cannot be ordered", tn_jinja_type_name(a), tn_jinja_type_name(b));
    }
    c->depth--;
    return order;
}

size_t tn_jinja_search(tn_jinja *c, tn_str s, tn_str what, size_t at) {
    if (what.n == 0) return at <= s.n ? at : SIZE_MAX;
    const char *hit = at < s.n ? memmem(s.p + at, s.n - at, what.p, what.n) : NULL;
    size_t looked = hit ? (size_t)(hit - s.p) - at : at < s.n ? s.n - at : 0;
    if (!tn_jinja_work(c, looked / 64)) return SIZE_MAX;
    return hit ? (size_t)(hit - s.p) : SIZE_MAX;
}

bool tn_jinja_contains(tn_jinja *c, tn_jval in, tn_jval what) {
    switch (in.kind) {
    case TN_J_UNDEFINED: return false;
    case TN_J_STR:
        if (what.kind != TN_J_STR) {
            tn_jinja_fail(c, "'in' a string needs a string, not '%s'", tn_jinja_type_name(what));
            return false;
        }
        return tn_jinja_search(c, tn_jinja_view(in), tn_jinja_view(what), 0) != SIZE_MAX;
    case TN_J_LIST:
    case TN_J_TUPLE:
        for (size_t i = 0; i < in.list->n && tn_jinja_work(c, 1); i++) {
            if (tn_jinja_equal(c, in.list->v[i], what)) return true;
        }
        return false;
    case TN_J_DICT: return tn_jinja_find(c, in.dict, what) != NULL;
    default: tn_jinja_fail(c, "'%s' cannot be searched with 'in'", tn_jinja_type_name(in)); return false;
    }
}

size_t tn_utf8_step(const char *p, size_t left) {
    unsigned char lead = (unsigned char)*p;
    size_t n = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4, i = 1;
    while (i < n && i < left && ((unsigned char)p[i] & 0xc0) == 0x80) i++;
    return i;
}

size_t tn_utf8_count(const char *p, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i += tn_utf8_step(p + i, n - i)) count++;
    return count;
}

size_t tn_jinja_length(tn_jinja *c, tn_jval v) {
    switch (v.kind) {
    case TN_J_UNDEFINED: return 0;
    case TN_J_STR: return tn_jinja_work(c, v.n / 64) ? tn_utf8_count(v.p, v.n) : 0;
    case TN_J_LIST:
    case TN_J_TUPLE: return v.list->n;
    case TN_J_DICT: return v.dict->n;
    case TN_J_LOOP: return v.loop->items->n;
    default: tn_jinja_fail(c, "'%s' has no length", tn_jinja_type_name(v)); return 0;
    }
}

tn_jval tn_jinja_items(tn_jinja *c, tn_jval v) {
    if (tn_jinja_is_list(v)) return v;
    tn_jval list = tn_jinja_new(c, TN_J_LIST);
    switch (v.kind) {
    case TN_J_UNDEFINED: break;
    case TN_J_STR:
        for (size_t i = 0, n; i < v.n && !c->status; i += n) {
            n = tn_utf8_step(v.p + i, v.n - i);
            tn_jinja_push(c, list, tn_jinja_sub(v, i, i + n));
        }
        break;
    case TN_J_DICT:
        for (size_t i = 0; i < v.dict->n; i++) tn_jinja_push(c, list, v.dict->v[i].key);
        break;
    default: return tn_jinja_fail(c, "'%s' cannot be walked through", tn_jinja_type_name(v));
    }
    return c->status ? tn_jinja_undefined : list;
}
