/* Filters: value | name(arguments). */
#include "text/jinja.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

tn_jval tn_jinja_arg(const tn_jargs *a, size_t i, const char *name, tn_jval missing) {
    if (i < a->n) return a->v[i];
    for (size_t k = 0; k < a->n_kw; k++) {
        if (tn_str_is(tn_jinja_view(a->kw[k].key), name)) return a->kw[k].value;
    }
    return missing;
}

int64_t tn_jinja_int_arg(tn_jinja *c, const tn_jargs *a, size_t i, const char *name, int64_t missing) {
    tn_jval v = tn_jinja_arg(a, i, name, tn_jinja_int(missing));
    if (v.kind == TN_J_INT) return v.i;
    if (v.kind == TN_J_BOOL) return v.b;
    tn_jinja_fail(c, "expected an integer, not '%s'", tn_jinja_type_name(v));
    return 0;
}

tn_jval tn_jinja_apply(tn_jinja *c, const tn_jbuiltin *f, const char *what, tn_jval self, const tn_jargs *a) {
    size_t n = a->n + a->n_kw;
    if (c->status) return tn_jinja_undefined;
    if (n < (size_t)f->min_args || n > (size_t)f->max_args) {
        return tn_jinja_fail(c, "%s'%s' got %zu arguments", what, f->name, n);
    }
    bool go_on = tn_jinja_enter(c) && tn_jinja_work(c, self.kind == TN_J_STR ? self.n / 8 : 0);
    tn_jval v = go_on ? f->fn(c, self, a) : tn_jinja_undefined;
    c->depth--;
    return c->status ? tn_jinja_undefined : v;
}

/* ---- strings ---- */

static tn_jval filter_trim(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    tn_jval chars = tn_jinja_arg(a, 0, "chars", tn_jinja_none);
    return tn_jinja_strip(c, tn_jinja_to_str(c, v), chars, true, true);
}
static tn_jval filter_upper(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return (void)a, tn_jinja_case(c, tn_jinja_to_str(c, v), TN_JCASE_UPPER);
}
static tn_jval filter_lower(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return (void)a, tn_jinja_case(c, tn_jinja_to_str(c, v), TN_JCASE_LOWER);
}
static tn_jval filter_capitalize(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return (void)a, tn_jinja_case(c, tn_jinja_to_str(c, v), TN_JCASE_CAPITALIZE);
}

/* A word starts after white space or one of -([{< here, unlike in the method of that name. */
static tn_jval filter_title(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    tn_jval s = tn_jinja_to_str(c, v);
    size_t begin = 0, at = c->text.n;
    (void)a;
    for (size_t i = 0; i <= s.n && !c->status; i++) {
        if (i < s.n && !strchr("-([{< \t\n\r\f\v", s.p[i])) continue;
        size_t end = i < s.n ? i + 1 : i, here = c->text.n;
        tn_jval word = tn_jinja_case(c, tn_jinja_sub(s, begin, end), TN_JCASE_CAPITALIZE);
        if (c->text.n == here) tn_jinja_emit_value(c, word);
        begin = end;
    }
    return tn_jinja_take(c, at);
}

static tn_jval filter_replace(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    tn_jval from = tn_jinja_to_str(c, tn_jinja_arg(a, 0, "old", tn_jinja_undefined));
    tn_jval to = tn_jinja_to_str(c, tn_jinja_arg(a, 1, "new", tn_jinja_undefined));
    tn_jval count = tn_jinja_arg(a, 2, "count", tn_jinja_none);
    return tn_jinja_replace(c, tn_jinja_to_str(c, v), from, to, count.kind == TN_J_INT ? count.i : -1);
}

static tn_jval filter_indent(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    tn_jval s = tn_jinja_to_str(c, v), width = tn_jinja_arg(a, 0, "width", tn_jinja_int(4));
    bool first = tn_jinja_truth(tn_jinja_arg(a, 1, "first", tn_jinja_bool(false)));
    bool blank = tn_jinja_truth(tn_jinja_arg(a, 2, "blank", tn_jinja_bool(false)));
    size_t at = c->text.n;
    for (size_t begin = 0; begin <= s.n && !c->status;) {
        size_t end = begin;
        while (end < s.n && s.p[end] != '\n') end++;
        if ((begin ? true : first) && (end > begin || blank || begin == 0)) {
            if (width.kind == TN_J_STR) tn_jinja_emit(c, width.p, width.mark, width.n);
            for (int64_t i = 0; width.kind == TN_J_INT && i < width.i && !c->status; i++)
                tn_jinja_emit(c, " ", NULL, 1);
        }
        tn_jinja_emit(c, s.p + begin, s.mark ? s.mark + begin : NULL, end - begin + (end < s.n));
        begin = end + 1;
    }
    return tn_jinja_take(c, at);
}

static tn_jval filter_escape(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    static const struct {
        char from;
        const char *to;
    } table[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
    tn_jval s = tn_jinja_to_str(c, v);
    size_t at = c->text.n;
    (void)a;
    for (size_t i = 0; i < s.n && !c->status; i++) {
        size_t k = 0;
        while (k < 5 && table[k].from != s.p[i]) k++;
        if (k < 5) {
            tn_jinja_emit(c, table[k].to, NULL, strlen(table[k].to));
        } else {
            tn_jinja_emit(c, s.p + i, s.mark ? s.mark + i : NULL, 1);
        }
    }
    return tn_jinja_take(c, at);
}

static tn_jval filter_string(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return (void)a, tn_jinja_to_str(c, v);
}
static tn_jval filter_format(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return tn_jinja_format(c, tn_jinja_to_str(c, v), a);
}

static tn_jval filter_tojson(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    tn_jval indent = tn_jinja_arg(a, 0, "indent", tn_jinja_none);
    tn_jval separators = tn_jinja_arg(a, 99, "separators", tn_jinja_none);
    tn_json_style style = {.indent = -1, .between_items = {", ", 2}, .after_key = {": ", 2}};
    style.sort_keys = tn_jinja_truth(tn_jinja_arg(a, 99, "sort_keys", tn_jinja_bool(false)));
    style.ascii = tn_jinja_truth(tn_jinja_arg(a, 99, "ensure_ascii", tn_jinja_bool(false)));
    if (indent.kind == TN_J_INT) {
        style.indent = indent.i < 0 ? 0 : indent.i > 64 ? 64 : (int)indent.i;
        style.between_items.n = 1; /* no space before a newline */
    }
    if (tn_jinja_is_list(separators) && separators.list->n == 2) {
        style.between_items = tn_jinja_view(tn_jinja_to_str(c, separators.list->v[0]));
        style.after_key = tn_jinja_view(tn_jinja_to_str(c, separators.list->v[1]));
    }
    size_t at = c->text.n;
    tn_jinja_emit_json(c, v, &style, 0);
    return tn_jinja_take(c, at);
}

/* ---- numbers ---- */

static tn_jval filter_int(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    int64_t missing = tn_jinja_int_arg(c, a, 0, "default", 0), base = tn_jinja_int_arg(c, a, 1, "base", 10);
    if (v.kind == TN_J_STR) {
        tn_jval s = tn_jinja_strip(c, v, tn_jinja_none, true, true);
        char text[64], *rest;
        if (s.n == 0 || s.n >= sizeof text || base < 2 || base > 36) return tn_jinja_int(missing);
        memcpy(text, s.p, s.n);
        text[s.n] = 0;
        long long i = strtoll(text, &rest, (int)base);
        if (rest == text + s.n) return tn_jinja_int(i);
        double f = strtod(text, &rest);
        v = rest == text + s.n ? tn_jinja_float(f) : tn_jinja_none;
    }
    double f;
    if (v.kind == TN_J_INT) return v;
    return tn_jinja_number(v, &f) && fabs(f) < 9e18 ? tn_jinja_int((int64_t)f) : tn_jinja_int(missing);
}

static tn_jval filter_float(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    tn_jval missing = tn_jinja_arg(a, 0, "default", tn_jinja_float(0));
    double f;
    (void)c;
    if (v.kind == TN_J_STR) {
        tn_jval s = tn_jinja_strip(c, v, tn_jinja_none, true, true);
        char text[64], *rest;
        if (s.n == 0 || s.n >= sizeof text) return missing;
        memcpy(text, s.p, s.n);
        text[s.n] = 0;
        f = strtod(text, &rest);
        return rest == text + s.n ? tn_jinja_float(f) : missing;
    }
    return tn_jinja_number(v, &f) ? tn_jinja_float(f) : missing;
}

static tn_jval filter_abs(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    (void)a;
    if (v.kind == TN_J_INT && v.i != INT64_MIN) return tn_jinja_int(v.i < 0 ? -v.i : v.i);
    if (v.kind == TN_J_FLOAT) return tn_jinja_float(fabs(v.f));
    return tn_jinja_fail(c, "abs needs a number, not '%s'", tn_jinja_type_name(v));
}

static tn_jval filter_round(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    int64_t digits = tn_jinja_int_arg(c, a, 0, "precision", 0);
    tn_jval method = tn_jinja_arg(a, 1, "method", tn_jinja_str(tn_str_of("common")));
    double f, scale = pow(10, (double)digits);
    if (!tn_jinja_number(v, &f)) return tn_jinja_fail(c, "round needs a number, not '%s'", tn_jinja_type_name(v));
    if (digits > 300 || digits < -300) return tn_jinja_fail(c, "round is asked for too many digits");
    if (method.kind == TN_J_STR && tn_str_is(tn_jinja_view(method), "ceil"))
        return tn_jinja_float(ceil(f * scale) / scale);
    if (method.kind == TN_J_STR && tn_str_is(tn_jinja_view(method), "floor"))
        return tn_jinja_float(floor(f * scale) / scale);
    return tn_jinja_float(isfinite(f * scale) ? nearbyint(f * scale) / scale : f);
}

/* ---- sequences ---- */

static tn_jval filter_length(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return (void)a, tn_jinja_int((int64_t)tn_jinja_length(c, v));
}
static tn_jval filter_list(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    (void)a;
    tn_jval items = tn_jinja_items(c, v), list = tn_jinja_new(c, TN_J_LIST);
    for (size_t i = 0; !c->status && i < items.list->n; i++) tn_jinja_push(c, list, items.list->v[i]);
    return list;
}
static tn_jval end_item(tn_jinja *c, tn_jval v, bool last) {
    tn_jval items = tn_jinja_items(c, v);
    if (c->status || items.list->n == 0) return (tn_jval){TN_J_UNDEFINED, .n = 13, .p = "item of empty"};
    return items.list->v[last ? items.list->n - 1 : 0];
}
static tn_jval filter_first(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return (void)a, end_item(c, v, false);
}
static tn_jval filter_last(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return (void)a, end_item(c, v, true);
}

static tn_jval filter_reverse(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    (void)a;
    tn_jval items = tn_jinja_items(c, v), list = tn_jinja_new(c, TN_J_LIST);
    for (size_t i = c->status ? 0 : items.list->n; i-- > 0;) tn_jinja_push(c, list, items.list->v[i]);
    return v.kind == TN_J_STR ? tn_jinja_join(c, list, tn_jinja_str((tn_str){"", 0})) : list;
}

/* v.a.b[0] for "a.b.0", or v[attribute] for a number. */
static tn_jval attribute(tn_jinja *c, tn_jval v, tn_jval path) {
    if (path.kind != TN_J_STR) return tn_jinja_item(c, v, path);
    for (size_t begin = 0; begin <= path.n && !c->status;) {
        size_t end = begin;
        bool digits = true;
        while (end < path.n && path.p[end] != '.') digits &= path.p[end] >= '0' && path.p[end] <= '9', end++;
        tn_jval key = tn_jinja_sub(path, begin, end);
        v = tn_jinja_item(c, v, digits && key.n && key.n < 10 ? tn_jinja_int(strtol(key.p, NULL, 10)) : key);
        begin = end + 1;
    }
    return v;
}

/* What sort, unique, min and the like compare: the item or an attribute of it, letters of one case unless asked. */
static tn_jval sort_key(tn_jinja *c, tn_jval item, const tn_jargs *a, size_t first_arg) {
    tn_jval path = tn_jinja_arg(a, first_arg + 1, "attribute", tn_jinja_none);
    if (path.kind != TN_J_NONE) item = attribute(c, item, path);
    bool exact = tn_jinja_truth(tn_jinja_arg(a, first_arg, "case_sensitive", tn_jinja_bool(false)));
    return exact || item.kind != TN_J_STR ? item : tn_jinja_case(c, item, TN_JCASE_LOWER);
}

/* Merges the sorted halves [from, middle) and [middle, to) of pairs (key, item) into out; equal keys keep their
 * order. */
static void merge(tn_jinja *c, const tn_jentry *v, tn_jentry *out, size_t from, size_t middle, size_t to, bool down) {
    for (size_t i = from, k = middle, n = from; n < to && tn_jinja_work(c, 1); n++) {
        bool right = i == middle;
        if (!right && k < to) {
            int order = tn_jinja_order(c, v[k].key, v[i].key);
            right = down ? order > 0 : order < 0;
        }
        out[n] = right ? v[k++] : v[i++];
    }
}

/* A new list of the values of n entries, sorted by their keys. */
static tn_jval sorted(tn_jinja *c, tn_jentry *v, size_t n, bool down) {
    tn_jval list = tn_jinja_new(c, TN_J_LIST);
    tn_jentry *other = tn_jinja_alloc(c, n, sizeof *other);
    for (size_t width = 1; width < n && !c->status; width *= 2) {
        for (size_t i = 0; i < n && !c->status; i += 2 * width) {
            size_t middle = i + width < n ? i + width : n, to = i + 2 * width < n ? i + 2 * width : n;
            merge(c, v, other, i, middle, to, down);
        }
        tn_jentry *swap = v;
        v = other;
        other = swap;
    }
    for (size_t i = 0; i < n && !c->status; i++) tn_jinja_push(c, list, v[i].value);
    return list;
}

static tn_jval filter_sort(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    bool down = tn_jinja_truth(tn_jinja_arg(a, 0, "reverse", tn_jinja_bool(false)));
    tn_jval items = tn_jinja_items(c, v);
    size_t n = c->status ? 0 : items.list->n;
    tn_jentry *entries = tn_jinja_alloc(c, n, sizeof *entries);
    for (size_t i = 0; i < n && !c->status; i++) {
        entries[i] = (tn_jentry){sort_key(c, items.list->v[i], a, 1), items.list->v[i]};
    }
    return sorted(c, entries, n, down);
}

static tn_jval filter_dictsort(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    bool exact = tn_jinja_truth(tn_jinja_arg(a, 0, "case_sensitive", tn_jinja_bool(false)));
    tn_jval by = tn_jinja_arg(a, 1, "by", tn_jinja_str(tn_str_of("key")));
    bool down = tn_jinja_truth(tn_jinja_arg(a, 2, "reverse", tn_jinja_bool(false)));
    bool by_value = by.kind == TN_J_STR && tn_str_is(tn_jinja_view(by), "value");
    if (v.kind != TN_J_DICT) return tn_jinja_fail(c, "dictsort needs a dictionary, not '%s'", tn_jinja_type_name(v));
    tn_jentry *entries = tn_jinja_alloc(c, v.dict->n, sizeof *entries);
    for (size_t i = 0; i < v.dict->n && !c->status; i++) {
        tn_jentry e = v.dict->v[i];
        tn_jval pair = tn_jinja_new(c, TN_J_TUPLE), key = by_value ? e.value : e.key;
        tn_jinja_push(c, pair, e.key);
        tn_jinja_push(c, pair, e.value);
        if (key.kind == TN_J_STR && !exact) key = tn_jinja_case(c, key, TN_JCASE_LOWER);
        entries[i] = (tn_jentry){key, pair};
    }
    return sorted(c, entries, v.dict->n, down);
}

static tn_jval filter_unique(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    tn_jval items = tn_jinja_items(c, v), seen = tn_jinja_new(c, TN_J_LIST), list = tn_jinja_new(c, TN_J_LIST);
    for (size_t i = 0; !c->status && i < items.list->n; i++) {
        tn_jval key = sort_key(c, items.list->v[i], a, 0);
        if (tn_jinja_contains(c, seen, key)) continue;
        tn_jinja_push(c, seen, key);
        tn_jinja_push(c, list, items.list->v[i]);
    }
    return list;
}

static tn_jval extreme(tn_jinja *c, tn_jval v, const tn_jargs *a, int sign) {
    tn_jval items = tn_jinja_items(c, v), best = (tn_jval){TN_J_UNDEFINED, .n = 13, .p = "item of empty"},
            best_key = best;
    for (size_t i = 0; !c->status && i < items.list->n; i++) {
        tn_jval key = sort_key(c, items.list->v[i], a, 0);
        if (i && tn_jinja_order(c, key, best_key) * sign <= 0) continue;
        best_key = key;
        best = items.list->v[i];
    }
    return best;
}
static tn_jval filter_min(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return extreme(c, v, a, -1);
}
static tn_jval filter_max(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return extreme(c, v, a, 1);
}

static tn_jval filter_sum(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    tn_jval items = tn_jinja_items(c, v), path = tn_jinja_arg(a, 0, "attribute", tn_jinja_none);
    int64_t ints = 0;
    double floats = 0, f;
    bool real = false;
    for (size_t i = 0; !c->status && i < items.list->n; i++) {
        tn_jval x = path.kind == TN_J_NONE ? items.list->v[i] : attribute(c, items.list->v[i], path);
        if (!tn_jinja_number(x, &f)) return tn_jinja_fail(c, "sum needs numbers, not '%s'", tn_jinja_type_name(x));
        real |= x.kind == TN_J_FLOAT;
        floats += f;
        if (x.kind != TN_J_FLOAT && __builtin_add_overflow(ints, (int64_t)f, &ints)) real = true;
    }
    return real ? tn_jinja_float(floats) : tn_jinja_int(ints);
}

static tn_jval filter_join(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    tn_jval between = tn_jinja_arg(a, 0, "d", tn_jinja_str((tn_str){"", 0}));
    tn_jval path = tn_jinja_arg(a, 1, "attribute", tn_jinja_none), items = tn_jinja_items(c, v);
    if (path.kind == TN_J_NONE || c->status) return tn_jinja_join(c, items, between);
    tn_jval list = tn_jinja_new(c, TN_J_LIST);
    for (size_t i = 0; i < items.list->n && !c->status; i++)
        tn_jinja_push(c, list, attribute(c, items.list->v[i], path));
    return tn_jinja_join(c, list, between);
}

static tn_jval filter_items(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    (void)a;
    if (v.kind == TN_J_UNDEFINED) return tn_jinja_new(c, TN_J_LIST);
    if (v.kind != TN_J_DICT) return tn_jinja_fail(c, "items needs a dictionary, not '%s'", tn_jinja_type_name(v));
    return tn_jinja_apply(c, tn_jinja_method_find(TN_J_DICT, tn_str_of("items")), "", v, &(tn_jargs){0});
}

/* ---- filters that take the name of a filter or test ---- */

static tn_jargs rest_of(const tn_jargs *a, size_t skip) {
    tn_jargs rest = *a;
    rest.v = a->n > skip ? a->v + skip : NULL;
    rest.n = a->n > skip ? a->n - skip : 0;
    return rest;
}

static tn_jval filter_map(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    tn_jval items = tn_jinja_items(c, v), list = tn_jinja_new(c, TN_J_LIST);
    tn_jval path = tn_jinja_arg(a, 99, "attribute", tn_jinja_none),
            missing = tn_jinja_arg(a, 99, "default", tn_jinja_undefined);
    tn_jval name = tn_jinja_arg(a, 0, "", tn_jinja_undefined);
    const tn_jbuiltin *f = name.kind == TN_J_STR ? tn_jinja_filter_find(tn_jinja_view(name)) : NULL;
    tn_jargs rest = rest_of(a, 1);
    if (path.kind == TN_J_NONE && !f) return tn_jinja_fail(c, "map needs the name of a filter, or attribute=");
    for (size_t i = 0; !c->status && i < items.list->n; i++) {
        tn_jval x = items.list->v[i];
        x = f ? tn_jinja_apply(c, f, "filter ", x, &rest) : attribute(c, x, path);
        tn_jinja_push(c, list, x.kind == TN_J_UNDEFINED && missing.kind != TN_J_UNDEFINED ? missing : x);
    }
    return list;
}

/* Items that pass (or, `negated`, fail) a test, of themselves or of an attribute named first; no test: of truth. */
static tn_jval choose(tn_jinja *c, tn_jval v, const tn_jargs *a, bool by_attribute, bool negated) {
    tn_jval items = tn_jinja_items(c, v), list = tn_jinja_new(c, TN_J_LIST);
    tn_jval path = by_attribute ? tn_jinja_arg(a, 0, "", tn_jinja_undefined) : tn_jinja_undefined;
    tn_jval name = tn_jinja_arg(a, by_attribute, "", tn_jinja_undefined);
    const tn_jbuiltin *f = name.kind == TN_J_STR ? tn_jinja_test_find(tn_jinja_view(name)) : NULL;
    tn_jargs rest = rest_of(a, by_attribute ? 2 : 1);
    if (a->n > by_attribute && !f) return tn_jinja_fail(c, "there is no such test");
    for (size_t i = 0; !c->status && i < items.list->n; i++) {
        tn_jval x = by_attribute ? attribute(c, items.list->v[i], path) : items.list->v[i];
        if (f) x = tn_jinja_apply(c, f, "test ", x, &rest);
        if (tn_jinja_truth(x) != negated) tn_jinja_push(c, list, items.list->v[i]);
    }
    return list;
}
static tn_jval filter_select(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return choose(c, v, a, false, false);
}
static tn_jval filter_reject(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return choose(c, v, a, false, true);
}
static tn_jval filter_selectattr(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return choose(c, v, a, true, false);
}
static tn_jval filter_rejectattr(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return choose(c, v, a, true, true);
}

static tn_jval filter_default(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    (void)c;
    bool also_false = tn_jinja_truth(tn_jinja_arg(a, 1, "boolean", tn_jinja_bool(false)));
    if (v.kind != TN_J_UNDEFINED && !(also_false && !tn_jinja_truth(v))) return v;
    return tn_jinja_arg(a, 0, "default_value", tn_jinja_str((tn_str){"", 0}));
}
static tn_jval filter_safe(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return (void)a, tn_jinja_to_str(c, v);
}
static tn_jval filter_attr(tn_jinja *c, tn_jval v, const tn_jargs *a) {
    return tn_jinja_attr(c, v, tn_jinja_view(tn_jinja_to_str(c, tn_jinja_arg(a, 0, "name", tn_jinja_undefined))));
}

const tn_jbuiltin *tn_jinja_filter_find(tn_str name) {
    static const tn_jbuiltin table[] = {{"abs", filter_abs, 0, 0},
                                        {"attr", filter_attr, 1, 1},
                                        {"capitalize", filter_capitalize, 0, 0},
                                        {"count", filter_length, 0, 0},
                                        {"d", filter_default, 0, 2},
                                        {"default", filter_default, 0, 2},
                                        {"dictsort", filter_dictsort, 0, 3},
                                        {"e", filter_escape, 0, 0},
                                        {"escape", filter_escape, 0, 0},
                                        {"first", filter_first, 0, 0},
                                        {"float", filter_float, 0, 1},
                                        {"format", filter_format, 0, 100},
                                        {"indent", filter_indent, 0, 3},
                                        {"int", filter_int, 0, 2},
                                        {"items", filter_items, 0, 0},
                                        {"join", filter_join, 0, 2},
                                        {"last", filter_last, 0, 0},
                                        {"length", filter_length, 0, 0},
                                        {"list", filter_list, 0, 0},
                                        {"lower", filter_lower, 0, 0},
                                        {"map", filter_map, 1, 10},
                                        {"max", filter_max, 0, 2},
                                        {"min", filter_min, 0, 2},
                                        {"reject", filter_reject, 0, 10},
                                        {"rejectattr", filter_rejectattr, 1, 10},
                                        {"replace", filter_replace, 2, 3},
                                        {"reverse", filter_reverse, 0, 0},
                                        {"round", filter_round, 0, 2},
                                        {"safe", filter_safe, 0, 0},
                                        {"select", filter_select, 0, 10},
                                        {"selectattr", filter_selectattr, 1, 10},
                                        {"sort", filter_sort, 0, 3},
                                        {"string", filter_string, 0, 0},
                                        {"sum", filter_sum, 0, 1},
                                        {"title", filter_title, 0, 0},
                                        {"tojson", filter_tojson, 0, 5},
                                        {"trim", filter_trim, 0, 1},
                                        {"unique", filter_unique, 0, 2},
                                        {"upper", filter_upper, 0, 0}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (tn_str_is(name, table[i].name)) return &table[i];
    }
    return NULL;
}
