/* Methods of strings, lists, dictionaries and loops, and the global functions. */
#include "text/jinja.h"

#include <time.h>
#include <utf8proc.h>

static tn_jval expect_str(tn_jinja *c, tn_jval v) {
    if (v.kind == TN_J_STR) return v;
    tn_jinja_fail(c, "expected a string, not '%s'", tn_jinja_type_name(v));
    return tn_jinja_str((tn_str){"", 0});
}
static tn_jval str_arg(tn_jinja *c, const tn_jargs *a, size_t i, const char *name) {
    return expect_str(c, tn_jinja_arg(a, i, name, tn_jinja_undefined));
}

/* ---- strings ---- */

static tn_jval strip(tn_jinja *c, tn_jval s, const tn_jargs *a, bool left, bool right) {
    return tn_jinja_strip(c, s, tn_jinja_arg(a, 0, "chars", tn_jinja_none), left, right);
}
static tn_jval str_strip(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return strip(c, s, a, true, true);
}
static tn_jval str_lstrip(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return strip(c, s, a, true, false);
}
static tn_jval str_rstrip(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return strip(c, s, a, false, true);
}
static tn_jval str_upper(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return (void)a, tn_jinja_case(c, s, TN_JCASE_UPPER);
}
static tn_jval str_lower(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return (void)a, tn_jinja_case(c, s, TN_JCASE_LOWER);
}
static tn_jval str_title(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return (void)a, tn_jinja_case(c, s, TN_JCASE_TITLE);
}
static tn_jval str_capitalize(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return (void)a, tn_jinja_case(c, s, TN_JCASE_CAPITALIZE);
}

/* On white space: runs of it count once, and none at the ends (but at the end of what a limit leaves whole). */
static tn_jval split_space(tn_jinja *c, tn_jval s, int64_t limit) {
    tn_jval list = tn_jinja_new(c, TN_J_LIST);
    if (!tn_jinja_work(c, s.n / 2)) return tn_jinja_undefined;
    s = tn_jinja_strip(c, s, tn_jinja_none, true, false);
    while (s.n && tn_jinja_work(c, 1)) {
        tn_jval rest = tn_jinja_sub(s, s.n, s.n);
        size_t end = limit-- > 0 ? 0 : s.n;
        for (; end < s.n; end += tn_utf8_step(s.p + end, s.n - end)) {
            rest = tn_jinja_strip(c, tn_jinja_sub(s, end, s.n), tn_jinja_none, true, false);
            if (rest.n < s.n - end) break;
        }
        tn_jinja_push(c, list, tn_jinja_sub(s, 0, end));
        if (end == s.n) break;
        s = rest;
    }
    return list;
}

static tn_jval str_split(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    tn_jval sep = tn_jinja_arg(a, 0, "sep", tn_jinja_none);
    int64_t limit = tn_jinja_int_arg(c, a, 1, "maxsplit", -1);
    if (limit < 0) limit = INT64_MAX;
    if (sep.kind == TN_J_NONE) return split_space(c, s, limit);
    if (expect_str(c, sep).n == 0) return tn_jinja_fail(c, "split needs a separator that is not empty");
    tn_jval list = tn_jinja_new(c, TN_J_LIST);
    size_t done = 0, hit;
    while (limit-- > 0 && (hit = tn_jinja_search(c, tn_jinja_view(s), tn_jinja_view(sep), done)) != SIZE_MAX) {
        tn_jinja_push(c, list, tn_jinja_sub(s, done, hit));
        done = hit + sep.n;
        if (!tn_jinja_work(c, 1)) break;
    }
    tn_jinja_push(c, list, tn_jinja_sub(s, done, s.n));
    return list;
}

/* From the right; without a limit the same as split. */
static tn_jval str_rsplit(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    int64_t limit = tn_jinja_int_arg(c, a, 1, "maxsplit", -1);
    tn_jargs only_sep = *a;
    if (only_sep.n > 1) only_sep.n = 1;
    only_sep.n_kw = 0;
    tn_jval all = str_split(c, s, &only_sep);
    if (c->status || limit < 0 || (int64_t)all.list->n <= limit + 1) return all;
    tn_jval list = tn_jinja_new(c, TN_J_LIST);
    size_t joined = all.list->n - (size_t)limit; /* the first so many pieces stay one */
    tn_jval last = all.list->v[joined - 1];
    tn_jinja_push(c, list, tn_jinja_sub(s, 0, (size_t)(last.p + last.n - s.p)));
    for (size_t i = joined; i < all.list->n; i++) tn_jinja_push(c, list, all.list->v[i]);
    return list;
}

static tn_jval str_splitlines(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    tn_jval list = tn_jinja_new(c, TN_J_LIST);
    bool keep = tn_jinja_truth(tn_jinja_arg(a, 0, "keepends", tn_jinja_bool(false)));
    for (size_t begin = 0; begin < s.n && tn_jinja_work(c, 1);) {
        size_t end = begin;
        while (end < s.n && s.p[end] != '\n' && s.p[end] != '\r') end++;
        size_t next = end + (end < s.n);
        if (next < s.n && s.p[end] == '\r' && s.p[next] == '\n') next++;
        tn_jinja_push(c, list, tn_jinja_sub(s, begin, keep ? next : end));
        begin = next;
    }
    return list;
}

static bool has_affix(tn_jval s, tn_jval affix, bool at_end) {
    if (affix.kind != TN_J_STR || affix.n > s.n) return false;
    return affix.n == 0 || memcmp(at_end ? s.p + s.n - affix.n : s.p, affix.p, affix.n) == 0;
}
static tn_jval any_affix(tn_jinja *c, tn_jval s, const tn_jargs *a, bool at_end) {
    tn_jval affix = tn_jinja_arg(a, 0, "prefix", tn_jinja_undefined);
    if (affix.kind != TN_J_TUPLE) return tn_jinja_bool(has_affix(s, expect_str(c, affix), at_end));
    for (size_t i = 0; i < affix.list->n; i++) {
        if (has_affix(s, affix.list->v[i], at_end)) return tn_jinja_bool(true);
    }
    return tn_jinja_bool(false);
}
static tn_jval str_startswith(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return any_affix(c, s, a, false);
}
static tn_jval str_endswith(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return any_affix(c, s, a, true);
}
static tn_jval str_removeprefix(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    tn_jval affix = str_arg(c, a, 0, "prefix");
    return has_affix(s, affix, false) ? tn_jinja_sub(s, affix.n, s.n) : s;
}
static tn_jval str_removesuffix(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    tn_jval affix = str_arg(c, a, 0, "suffix");
    return has_affix(s, affix, true) ? tn_jinja_sub(s, 0, s.n - affix.n) : s;
}

static tn_jval str_replace(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    tn_jval from = str_arg(c, a, 0, "old"), to = str_arg(c, a, 1, "new");
    return tn_jinja_replace(c, s, from, to, tn_jinja_int_arg(c, a, 2, "count", -1));
}

static tn_jval str_find(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    size_t hit = tn_jinja_search(c, tn_jinja_view(s), tn_jinja_view(str_arg(c, a, 0, "sub")), 0);
    return tn_jinja_int(hit == SIZE_MAX ? -1 : (int64_t)tn_utf8_count(s.p, hit));
}
static tn_jval str_rfind(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    tn_str what = tn_jinja_view(str_arg(c, a, 0, "sub"));
    size_t last = SIZE_MAX, hit = 0;
    while (tn_jinja_work(c, 1) && (hit = tn_jinja_search(c, tn_jinja_view(s), what, hit)) != SIZE_MAX) last = hit++;
    return tn_jinja_int(last == SIZE_MAX ? -1 : (int64_t)tn_utf8_count(s.p, last));
}
static tn_jval str_count(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    tn_str what = tn_jinja_view(str_arg(c, a, 0, "sub"));
    if (what.n == 0) return tn_jinja_int((int64_t)tn_jinja_length(c, s) + 1);
    int64_t count = 0;
    for (size_t hit = 0; (hit = tn_jinja_search(c, tn_jinja_view(s), what, hit)) != SIZE_MAX && tn_jinja_work(c, 1);
         count++) {
        hit += what.n;
    }
    return tn_jinja_int(count);
}
static tn_jval str_join(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return tn_jinja_join(c, tn_jinja_items(c, tn_jinja_arg(a, 0, "iterable", tn_jinja_undefined)), s);
}

/* Whether there are characters and each is of a class. */
static tn_jval all_of(tn_jval s, bool (*is)(utf8proc_int32_t cp)) {
    for (size_t i = 0, n; i < s.n; i += n) {
        utf8proc_int32_t cp = 0;
        n = tn_utf8_step(s.p + i, s.n - i);
        if (utf8proc_iterate((const utf8proc_uint8_t *)s.p + i, (utf8proc_ssize_t)n, &cp) <= 0 || !is(cp)) {
            return tn_jinja_bool(false);
        }
    }
    return tn_jinja_bool(s.n > 0);
}
static bool is_digit(utf8proc_int32_t cp) {
    return utf8proc_category(cp) == UTF8PROC_CATEGORY_ND;
}
static bool is_alpha(utf8proc_int32_t cp) {
    utf8proc_category_t cat = utf8proc_category(cp);
    return cat >= UTF8PROC_CATEGORY_LU && cat <= UTF8PROC_CATEGORY_LO;
}
static bool is_alnum(utf8proc_int32_t cp) {
    utf8proc_category_t cat = utf8proc_category(cp);
    return is_alpha(cp) || (cat >= UTF8PROC_CATEGORY_ND && cat <= UTF8PROC_CATEGORY_NO);
}
static tn_jval str_isdigit(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return (void)c, (void)a, all_of(s, is_digit);
}
static tn_jval str_isalpha(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return (void)c, (void)a, all_of(s, is_alpha);
}
static tn_jval str_isalnum(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return (void)c, (void)a, all_of(s, is_alnum);
}
static tn_jval str_isspace(tn_jinja *c, tn_jval s, const tn_jargs *a) {
    return (void)a, tn_jinja_bool(s.n && tn_jinja_strip(c, s, tn_jinja_none, true, false).n == 0);
}

/* ---- lists and dictionaries ---- */

static tn_jval list_append(tn_jinja *c, tn_jval l, const tn_jargs *a) {
    tn_jinja_push(c, l, tn_jinja_arg(a, 0, "object", tn_jinja_undefined));
    return tn_jinja_none;
}
static tn_jval list_index(tn_jinja *c, tn_jval l, const tn_jargs *a) {
    for (size_t i = 0; i < l.list->n && tn_jinja_work(c, 1); i++) {
        if (tn_jinja_equal(c, l.list->v[i], tn_jinja_arg(a, 0, "value", tn_jinja_undefined)))
            return tn_jinja_int((int64_t)i);
    }
    return tn_jinja_fail(c, "index: the value is not in the list");
}
static tn_jval list_count(tn_jinja *c, tn_jval l, const tn_jargs *a) {
    int64_t count = 0;
    for (size_t i = 0; i < l.list->n && tn_jinja_work(c, 1); i++) {
        count += tn_jinja_equal(c, l.list->v[i], tn_jinja_arg(a, 0, "value", tn_jinja_undefined));
    }
    return tn_jinja_int(count);
}

static tn_jval dict_get(tn_jinja *c, tn_jval d, const tn_jargs *a) {
    const tn_jval *v = tn_jinja_find(c, d.dict, tn_jinja_arg(a, 0, "key", tn_jinja_undefined));
    return v ? *v : tn_jinja_arg(a, 1, "default", tn_jinja_none);
}
static tn_jval dict_list(tn_jinja *c, tn_jval d, bool keys, bool values) {
    tn_jval list = tn_jinja_new(c, TN_J_LIST);
    for (size_t i = 0; i < d.dict->n && tn_jinja_work(c, 1); i++) {
        tn_jval pair = keys && values ? tn_jinja_new(c, TN_J_TUPLE) : keys ? d.dict->v[i].key : d.dict->v[i].value;
        if (keys && values) {
            tn_jinja_push(c, pair, d.dict->v[i].key);
            tn_jinja_push(c, pair, d.dict->v[i].value);
        }
        tn_jinja_push(c, list, pair);
    }
    return list;
}
static tn_jval dict_items(tn_jinja *c, tn_jval d, const tn_jargs *a) {
    return (void)a, dict_list(c, d, true, true);
}
static tn_jval dict_keys(tn_jinja *c, tn_jval d, const tn_jargs *a) {
    return (void)a, dict_list(c, d, true, false);
}
static tn_jval dict_values(tn_jinja *c, tn_jval d, const tn_jargs *a) {
    return (void)a, dict_list(c, d, false, true);
}

static tn_jval loop_cycle(tn_jinja *c, tn_jval l, const tn_jargs *a) {
    return a->n ? a->v[l.loop->index % a->n] : tn_jinja_fail(c, "cycle needs values");
}

/* ---- global functions ---- */

static tn_jval global_range(tn_jinja *c, tn_jval self, const tn_jargs *a) {
    (void)self;
    int64_t first = tn_jinja_int_arg(c, a, 0, "", 0), end = tn_jinja_int_arg(c, a, 1, "", 0);
    int64_t step = tn_jinja_int_arg(c, a, 2, "", 1);
    if (a->n < 2) end = first, first = 0;
    if (step == 0) return tn_jinja_fail(c, "the step of a range is a number other than 0");
    tn_jval list = tn_jinja_new(c, TN_J_LIST);
    for (int64_t i = first; (step > 0 ? i < end : i > end) && tn_jinja_work(c, 1);) {
        if (list.list->n == TN_JINJA_MAX_RANGE)
            return tn_jinja_fail(c, "a range has more than %d items", TN_JINJA_MAX_RANGE);
        tn_jinja_push(c, list, tn_jinja_int(i));
        if (__builtin_add_overflow(i, step, &i)) break;
    }
    return list;
}

static tn_jval new_dict(tn_jinja *c, tn_jkind kind, const tn_jargs *a) {
    tn_jval d = tn_jinja_new(c, kind);
    for (size_t i = 0; i < a->n && !c->status; i++) {
        if (a->v[i].kind != TN_J_DICT)
            return tn_jinja_fail(c, "expected a dictionary, not '%s'", tn_jinja_type_name(a->v[i]));
        const tn_jdict *from = a->v[i].dict;
        for (size_t k = 0; k < from->n && tn_jinja_work(c, 1); k++)
            tn_jinja_put(c, d, from->v[k].key, from->v[k].value);
    }
    for (size_t i = 0; i < a->n_kw; i++) tn_jinja_put(c, d, a->kw[i].key, a->kw[i].value);
    return d;
}
static tn_jval global_dict(tn_jinja *c, tn_jval self, const tn_jargs *a) {
    return (void)self, new_dict(c, TN_J_DICT, a);
}
static tn_jval global_namespace(tn_jinja *c, tn_jval self, const tn_jargs *a) {
    return (void)self, new_dict(c, TN_J_NAMESPACE, a);
}

static tn_jval global_raise(tn_jinja *c, tn_jval self, const tn_jargs *a) {
    (void)self;
    tn_jval text = tn_jinja_to_str(c, tn_jinja_arg(a, 0, "message", tn_jinja_undefined));
    return tn_jinja_fail(c, "it refuses: %.*s", (int)(text.n < 300 ? text.n : 300), text.p ? text.p : "");
}

static tn_jval global_strftime(tn_jinja *c, tn_jval self, const tn_jargs *a) {
    (void)self;
    char format[128], out[256];
    tn_jval f = str_arg(c, a, 0, "format");
    if (f.n >= sizeof format) return tn_jinja_fail(c, "the time format is too long");
    if (f.n) memcpy(format, f.p, f.n);
    format[f.n] = 0;
    time_t now = time(NULL);
    struct tm tm;
    size_t n = localtime_r(&now, &tm) ? strftime(out, sizeof out, format, &tm) : 0, at = c->text.n;
    tn_jinja_emit(c, out, NULL, n);
    return tn_jinja_take(c, at);
}

/* ---- tables ---- */

static const tn_jbuiltin str_methods[] = {{"strip", str_strip, 0, 1},
                                          {"lstrip", str_lstrip, 0, 1},
                                          {"rstrip", str_rstrip, 0, 1},
                                          {"upper", str_upper, 0, 0},
                                          {"lower", str_lower, 0, 0},
                                          {"title", str_title, 0, 0},
                                          {"capitalize", str_capitalize, 0, 0},
                                          {"split", str_split, 0, 2},
                                          {"rsplit", str_rsplit, 0, 2},
                                          {"splitlines", str_splitlines, 0, 1},
                                          {"startswith", str_startswith, 1, 1},
                                          {"endswith", str_endswith, 1, 1},
                                          {"replace", str_replace, 2, 3},
                                          {"find", str_find, 1, 1},
                                          {"rfind", str_rfind, 1, 1},
                                          {"count", str_count, 1, 1},
                                          {"join", str_join, 1, 1},
                                          {"removeprefix", str_removeprefix, 1, 1},
                                          {"isdigit", str_isdigit, 0, 0},
                                          {"isalpha", str_isalpha, 0, 0},
                                          {"removesuffix", str_removesuffix, 1, 1},
                                          {"isalnum", str_isalnum, 0, 0},
                                          {"isspace", str_isspace, 0, 0},
                                          {0}};
static const tn_jbuiltin list_methods[] = {
    {"append", list_append, 1, 1}, {"index", list_index, 1, 1}, {"count", list_count, 1, 1}, {0}};
static const tn_jbuiltin tuple_methods[] = {{"index", list_index, 1, 1}, {"count", list_count, 1, 1}, {0}};
static const tn_jbuiltin dict_methods[] = {{"get", dict_get, 1, 2},
                                           {"items", dict_items, 0, 0},
                                           {"keys", dict_keys, 0, 0},
                                           {"values", dict_values, 0, 0},
                                           {0}};
static const tn_jbuiltin loop_methods[] = {{"cycle", loop_cycle, 1, 100}, {0}};
static const tn_jbuiltin globals[] = {{"range", global_range, 1, 3},
                                      {"dict", global_dict, 0, 1000},
                                      {"namespace", global_namespace, 0, 1000},
                                      {"raise_exception", global_raise, 0, 1},
                                      {"strftime_now", global_strftime, 1, 1},
                                      {0}};

static const tn_jbuiltin *find(const tn_jbuiltin *table, tn_str name) {
    while (table && table->name && !tn_str_is(name, table->name)) table++;
    return table && table->name ? table : NULL;
}

const tn_jbuiltin *tn_jinja_method_find(tn_jkind kind, tn_str name) {
    static const tn_jbuiltin *const tables[] = {
        [TN_J_STR] = str_methods,   [TN_J_LIST] = list_methods, [TN_J_TUPLE] = tuple_methods,
        [TN_J_DICT] = dict_methods, [TN_J_LOOP] = loop_methods, [TN_J_METHOD] = NULL};
    return find(tables[kind], name);
}

const tn_jbuiltin *tn_jinja_global_find(tn_str name) {
    return find(globals, name);
}
