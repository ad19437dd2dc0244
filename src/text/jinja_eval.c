/* Walking the tree: expressions to values, statements to output. */
#include "text/jinja.h"

#include <math.h>

static tn_jval eval(tn_jinja *c, const tn_jnode *n);

/* ---- variables ---- */

static tn_jvar *find_here(tn_jinja *c, const tn_jscope *s, tn_str name) {
    size_t passed = 0;
    tn_jvar *v = s->vars;
    for (; v && !tn_str_eq(v->name, name); v = v->next) passed++;
    tn_jinja_work(c, passed / 16);
    return v;
}

static void set_var(tn_jinja *c, tn_str name, tn_jval value) {
    tn_jvar *v = c->status ? NULL : find_here(c, c->scope, name);
    if (!v && (v = tn_jinja_alloc(c, 1, sizeof *v))) {
        *v = (tn_jvar){.name = name, .next = c->scope->vars};
        c->scope->vars = v;
    }
    if (v) v->value = value;
}

static tn_jval get_var(tn_jinja *c, tn_str name) {
    for (const tn_jscope *s = c->scope; s; s = s->parent) {
        const tn_jvar *v = find_here(c, s, name);
        if (v) return v->value;
    }
    const tn_jbuiltin *f = tn_jinja_global_find(name);
    tn_jmethod *m = f ? tn_jinja_alloc(c, 1, sizeof *m) : NULL;
    if (!m) return (tn_jval){TN_J_UNDEFINED, .n = name.n, .p = name.p};
    m->builtin = f;
    return (tn_jval){TN_J_METHOD, .method = m};
}

/* A new scope inside `parent`; returns the one to go back to. */
static tn_jscope *push_scope(tn_jinja *c, tn_jscope *parent) {
    tn_jscope *old = c->scope, *s = tn_jinja_alloc(c, 1, sizeof *s);
    if (s) {
        s->parent = parent;
        c->scope = s;
    }
    return old;
}

static tn_jval undefined_error(tn_jinja *c, tn_jval v) {
    return tn_jinja_fail(c, "'%.*s' is undefined", (int)(v.n < 100 ? v.n : 100), v.p ? v.p : "");
}

/* ---- attributes and items ---- */

static tn_jval loop_attr(tn_jinja *c, tn_jloop *l, tn_str name) {
    size_t n = l->items->n, i = l->index;
    const struct {
        const char *name;
        tn_jval value;
    } attrs[] = {{"index", tn_jinja_int((int64_t)i + 1)},
                 {"index0", tn_jinja_int((int64_t)i)},
                 {"revindex", tn_jinja_int((int64_t)(n - i))},
                 {"revindex0", tn_jinja_int((int64_t)(n - i) - 1)},
                 {"first", tn_jinja_bool(i == 0)},
                 {"last", tn_jinja_bool(i + 1 == n)},
                 {"length", tn_jinja_int((int64_t)n)},
                 {"depth", tn_jinja_int(l->depth + 1)},
                 {"depth0", tn_jinja_int(l->depth)},
                 {"previtem", i ? l->items->v[i - 1] : tn_jinja_undefined},
                 {"nextitem", i + 1 < n ? l->items->v[i + 1] : tn_jinja_undefined}};
    for (size_t k = 0; k < sizeof attrs / sizeof *attrs; k++) {
        if (tn_str_is(name, attrs[k].name)) return attrs[k].value;
    }
    (void)c;
    return (tn_jval){TN_J_UNDEFINED, .n = name.n, .p = name.p};
}

tn_jval tn_jinja_attr(tn_jinja *c, tn_jval v, tn_str name) {
    if (v.kind == TN_J_UNDEFINED) return undefined_error(c, v);
    const tn_jbuiltin *f = tn_jinja_method_find(v.kind, name);
    if (f) {
        tn_jmethod *m = tn_jinja_alloc(c, 1, sizeof *m);
        if (!m) return tn_jinja_undefined;
        *m = (tn_jmethod){f, v};
        return (tn_jval){TN_J_METHOD, .method = m};
    }
    if (v.kind == TN_J_LOOP) return loop_attr(c, v.loop, name);
    if (v.kind == TN_J_MACRO && tn_str_is(name, "name")) return tn_jinja_str(v.macro->node->text);
    if (v.kind == TN_J_DICT || v.kind == TN_J_NAMESPACE) {
        const tn_jval *found = tn_jinja_find_str(c, v.dict, name);
        if (found) return *found;
    }
    return (tn_jval){TN_J_UNDEFINED, .n = name.n, .p = name.p};
}

/* Byte offset of character i of a string (i may be its length). */
static size_t char_offset(tn_jval s, size_t i) {
    size_t at = 0;
    while (i-- && at < s.n) at += tn_utf8_step(s.p + at, s.n - at);
    return at;
}

static tn_jval index_value(tn_jinja *c, tn_jval v, int64_t i) {
    int64_t n = (int64_t)tn_jinja_length(c, v);
    if (i < 0) i += n;
    if (i < 0 || i >= n) return (tn_jval){TN_J_UNDEFINED, .n = 12, .p = "list element"};
    if (v.kind != TN_J_STR) return v.list->v[i];
    size_t at = char_offset(v, (size_t)i);
    return tn_jinja_sub(v, at, at + tn_utf8_step(v.p + at, v.n - at));
}

tn_jval tn_jinja_item(tn_jinja *c, tn_jval v, tn_jval key) {
    if (c->status) return tn_jinja_undefined;
    if (v.kind == TN_J_UNDEFINED) return undefined_error(c, v);
    if (key.kind == TN_J_INT && (tn_jinja_is_list(v) || v.kind == TN_J_STR)) return index_value(c, v, key.i);
    if (v.kind == TN_J_DICT) {
        const tn_jval *found = tn_jinja_find(c, v.dict, key);
        if (found) return *found;
    }
    if (key.kind == TN_J_STR) return tn_jinja_attr(c, v, tn_jinja_view(key));
    return (tn_jval){TN_J_UNDEFINED, .n = 4, .p = "item"};
}

/* Clamps a slice bound as Python does; `missing` where it was not given. */
static int64_t bound(tn_jinja *c, const tn_jnode *n, int64_t length, bool down, int64_t missing) {
    tn_jval v = n ? eval(c, n) : tn_jinja_none;
    if (v.kind == TN_J_NONE || c->status) return missing;
    if (v.kind != TN_J_INT) return tn_jinja_fail(c, "a slice needs integers, not '%s'", tn_jinja_type_name(v)), 0;
    int64_t i = v.i < 0 ? v.i + length : v.i, low = down ? -1 : 0, high = down ? length - 1 : length;
    return i < low ? low : i > high ? high : i;
}

static tn_jval eval_slice(tn_jinja *c, const tn_jnode *n) {
    tn_jval v = eval(c, n->a), step = n->d ? eval(c, n->d) : tn_jinja_int(1);
    if (step.kind == TN_J_NONE) step = tn_jinja_int(1);
    if (c->status) return tn_jinja_undefined;
    if (v.kind == TN_J_UNDEFINED) return undefined_error(c, v);
    if (!tn_jinja_is_list(v) && v.kind != TN_J_STR)
        return tn_jinja_fail(c, "'%s' cannot be sliced", tn_jinja_type_name(v));
    if (step.kind != TN_J_INT || step.i == 0) return tn_jinja_fail(c, "the step of a slice is a number other than 0");
    int64_t length = (int64_t)tn_jinja_length(c, v);
    bool down = step.i < 0;
    int64_t begin = bound(c, n->b, length, down, down ? length - 1 : 0),
            end = bound(c, n->c, length, down, down ? -1 : length);
    if (c->status) return tn_jinja_undefined;
    if (v.kind == TN_J_STR && step.i == 1 && tn_jinja_work(c, v.n / 8)) {
        if (end < begin) end = begin;
        return tn_jinja_sub(v, char_offset(v, (size_t)begin), char_offset(v, (size_t)end));
    }
    tn_jval items = tn_jinja_items(c, v), list = tn_jinja_new(c, v.kind == TN_J_TUPLE ? TN_J_TUPLE : TN_J_LIST);
    for (int64_t i = begin; (down ? i > end : i < end) && tn_jinja_work(c, 1);) {
        tn_jinja_push(c, list, items.list->v[i]);
        if (__builtin_add_overflow(i, step.i, &i)) break;
    }
    return v.kind == TN_J_STR ? tn_jinja_join(c, list, tn_jinja_str((tn_str){"", 0})) : list;
}

/* ---- operators ---- */

static tn_jval concat(tn_jinja *c, tn_jval a, tn_jval b) {
    size_t at = c->text.n;
    tn_jinja_emit_value(c, a);
    tn_jinja_emit_value(c, b);
    return tn_jinja_take(c, at);
}

static tn_jval join_lists(tn_jinja *c, tn_jval a, tn_jval b) {
    tn_jval list = tn_jinja_new(c, a.kind);
    for (size_t i = 0; i < a.list->n && tn_jinja_work(c, 1); i++) tn_jinja_push(c, list, a.list->v[i]);
    for (size_t i = 0; i < b.list->n && tn_jinja_work(c, 1); i++) tn_jinja_push(c, list, b.list->v[i]);
    return list;
}

static tn_jval repeat(tn_jinja *c, tn_jval v, int64_t times) {
    tn_jval list = v.kind == TN_J_STR ? tn_jinja_undefined : tn_jinja_new(c, v.kind);
    size_t at = c->text.n;
    for (int64_t i = 0; i < times && tn_jinja_work(c, 1); i++) {
        if (v.kind == TN_J_STR) tn_jinja_emit(c, v.p, v.mark, v.n);
        for (size_t k = 0; v.kind != TN_J_STR && k < v.list->n && tn_jinja_work(c, 1); k++) {
            tn_jinja_push(c, list, v.list->v[k]);
        }
    }
    return v.kind == TN_J_STR ? tn_jinja_take(c, at) : list;
}

static bool int_power(int64_t base, int64_t exponent, int64_t *out) {
    int64_t r = 1;
    for (; exponent > 0; exponent >>= 1) {
        if ((exponent & 1) && __builtin_mul_overflow(r, base, &r)) return false;
        if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return false;
    }
    *out = r;
    return true;
}

static tn_jval int_math(tn_jinja *c, tn_jop op, int64_t a, int64_t b) {
    int64_t r = 0;
    bool ok = true;
    switch (op) {
    case TN_JOP_ADD: ok = !__builtin_add_overflow(a, b, &r); break;
    case TN_JOP_SUB: ok = !__builtin_sub_overflow(a, b, &r); break;
    case TN_JOP_MUL: ok = !__builtin_mul_overflow(a, b, &r); break;
    case TN_JOP_POW: ok = int_power(a, b, &r); break;
    case TN_JOP_FLOORDIV:
        ok = b != -1 || a != INT64_MIN;
        if (ok) r = a / b - (a % b != 0 && (a % b < 0) != (b < 0));
        break;
    default: r = b == -1 ? 0 : a % b + (a % b != 0 && (a % b < 0) != (b < 0) ? b : 0);
    }
    return ok ? tn_jinja_int(r) : tn_jinja_fail(c, "an integer gets too large");
}

static tn_jval math(tn_jinja *c, tn_jop op, tn_jval a, tn_jval b) {
    double x = 0, y = 0;
    tn_jinja_number(a, &x);
    tn_jinja_number(b, &y);
    if ((op == TN_JOP_DIV || op == TN_JOP_FLOORDIV || op == TN_JOP_MOD) && y == 0) {
        return tn_jinja_fail(c, "division by zero");
    }
    bool ints = a.kind != TN_J_FLOAT && b.kind != TN_J_FLOAT;
    if (ints && op != TN_JOP_DIV && !(op == TN_JOP_POW && y < 0)) {
        return int_math(c, op, a.kind == TN_J_INT ? a.i : a.b, b.kind == TN_J_INT ? b.i : b.b);
    }
    switch (op) {
    case TN_JOP_ADD: return tn_jinja_float(x + y);
    case TN_JOP_SUB: return tn_jinja_float(x - y);
    case TN_JOP_MUL: return tn_jinja_float(x * y);
    case TN_JOP_DIV: return tn_jinja_float(x / y);
    case TN_JOP_FLOORDIV: return tn_jinja_float(floor(x / y));
    case TN_JOP_POW: return tn_jinja_float(pow(x, y));
    default: return tn_jinja_float(x - floor(x / y) * y);
    }
}

static tn_jval eval_binary(tn_jinja *c, const tn_jnode *n) {
    tn_jval a = eval(c, n->a), b = eval(c, n->b);
    double x, y;
    if (c->status) return tn_jinja_undefined;
    c->line = n->line;
    if (n->op == TN_JOP_CONCAT) return concat(c, a, b);
    if (tn_jinja_number(a, &x) && tn_jinja_number(b, &y)) return math(c, n->op, a, b);
    if (a.kind == TN_J_UNDEFINED) return undefined_error(c, a);
    if (b.kind == TN_J_UNDEFINED) return undefined_error(c, b);
    if (n->op == TN_JOP_ADD && a.kind == TN_J_STR && b.kind == TN_J_STR) return concat(c, a, b);
    if (n->op == TN_JOP_ADD && tn_jinja_is_list(a) && a.kind == b.kind) return join_lists(c, a, b);
    if (n->op == TN_JOP_MUL && (a.kind == TN_J_STR || tn_jinja_is_list(a)) && b.kind == TN_J_INT)
        return repeat(c, a, b.i);
    if (n->op == TN_JOP_MUL && (b.kind == TN_J_STR || tn_jinja_is_list(b)) && a.kind == TN_J_INT)
        return repeat(c, b, a.i);
    if (n->op == TN_JOP_MOD && a.kind == TN_J_STR) {
        tn_jargs args =
            b.kind == TN_J_TUPLE ? (tn_jargs){.v = b.list->v, .n = b.list->n} : (tn_jargs){.v = &b, .n = 1};
        return tn_jinja_format(c, a, &args);
    }
    return tn_jinja_fail(c, "'%s' and '%s' cannot be combined so", tn_jinja_type_name(a), tn_jinja_type_name(b));
}

static bool compare(tn_jinja *c, tn_jop op, tn_jval a, tn_jval b) {
    switch (op) {
    case TN_JOP_EQ: return tn_jinja_equal(c, a, b);
    case TN_JOP_NE: return !tn_jinja_equal(c, a, b);
    case TN_JOP_IN: return tn_jinja_contains(c, b, a);
    case TN_JOP_NOT_IN: return !tn_jinja_contains(c, b, a);
    default: break;
    }
    if (a.kind == TN_J_UNDEFINED || b.kind == TN_J_UNDEFINED) {
        undefined_error(c, a.kind == TN_J_UNDEFINED ? a : b);
        return false;
    }
    int order = tn_jinja_order(c, a, b);
    return op == TN_JOP_LT ? order < 0 : op == TN_JOP_LE ? order <= 0 : op == TN_JOP_GT ? order > 0 : order >= 0;
}

static tn_jval eval_compare(tn_jinja *c, const tn_jnode *n) {
    tn_jval a = eval(c, n->a);
    for (const tn_jnode *o = n->list; o && !c->status; o = o->next) {
        tn_jval b = eval(c, o->a);
        if (!c->status && !compare(c, o->op, a, b)) return tn_jinja_bool(false);
        a = b;
    }
    return tn_jinja_bool(true);
}

static tn_jval eval_sign(tn_jinja *c, const tn_jnode *n) {
    tn_jval v = eval(c, n->a);
    if (v.kind == TN_J_BOOL) v = tn_jinja_int(v.b);
    if (v.kind == TN_J_INT) return n->kind == TN_JN_PLUS ? v : int_math(c, TN_JOP_SUB, 0, v.i);
    if (v.kind == TN_J_FLOAT) return tn_jinja_float(n->kind == TN_JN_PLUS ? v.f : -v.f);
    if (v.kind == TN_J_UNDEFINED) return undefined_error(c, v);
    return tn_jinja_fail(c, "'%s' has no sign", tn_jinja_type_name(v));
}

/* ---- calls ---- */

static tn_jargs eval_args(tn_jinja *c, const tn_jnode *first) {
    tn_jargs a = {0};
    size_t n = 0, n_kw = 0;
    for (const tn_jnode *n1 = first; n1; n1 = n1->next) n1->kind == TN_JN_KEYWORD ? n_kw++ : n++;
    a.v = n ? tn_jinja_alloc(c, n, sizeof *a.v) : NULL;
    a.kw = n_kw ? tn_jinja_alloc(c, n_kw, sizeof *a.kw) : NULL;
    for (const tn_jnode *arg = first; arg && !c->status; arg = arg->next) {
        if (arg->kind == TN_JN_KEYWORD) {
            a.kw[a.n_kw++] = (tn_jentry){tn_jinja_str(arg->text), eval(c, arg->a)};
        } else {
            a.v[a.n++] = eval(c, arg);
        }
    }
    return a;
}

/* Sets the parameters of a macro, in its new scope, from the arguments. */
static void bind(tn_jinja *c, const tn_jnode *macro, const tn_jargs *a) {
    size_t i = 0, used = 0;
    for (const tn_jnode *p = macro->params; p && !c->status; p = p->next, i++) {
        tn_jval v = {TN_J_UNDEFINED, .n = p->text.n, .p = p->text.p};
        bool given = i < a->n;
        if (given) v = a->v[i];
        for (size_t k = 0; k < a->n_kw; k++) {
            if (!tn_str_eq(tn_jinja_view(a->kw[k].key), p->text)) continue;
            if (given) tn_jinja_fail(c, "argument '%.*s' is given twice", (int)p->text.n, p->text.p);
            v = a->kw[k].value;
            given = true;
            used++;
        }
        if (!given && p->a) v = eval(c, p->a);
        set_var(c, p->text, v);
    }
    for (size_t k = 0; k < a->n_kw; k++) {
        if (!tn_str_is(tn_jinja_view(a->kw[k].key), "caller")) continue;
        set_var(c, tn_jinja_view(a->kw[k].key), a->kw[k].value);
        used++;
    }
    if (a->n > i || used < a->n_kw)
        tn_jinja_fail(c, "macro '%.*s' got an argument it does not take", (int)macro->text.n, macro->text.p);
}

static tn_jval call_macro(tn_jinja *c, const tn_jmacro *m, const tn_jargs *a) {
    tn_jval result = tn_jinja_undefined;
    int line = c->line;
    if (tn_jinja_enter(c)) {
        tn_jscope *old = push_scope(c, m->scope);
        size_t at = c->text.n;
        bind(c, m->node, a);
        tn_jinja_run(c, m->node->list);
        c->flow = TN_JFLOW_ON;
        result = tn_jinja_take(c, at);
        c->scope = old;
        c->line = c->status ? c->line : line;
    }
    c->depth--;
    return result;
}

static tn_jval run_for(tn_jinja *c, const tn_jnode *n, tn_jval over, int depth);

static tn_jval call_loop(tn_jinja *c, tn_jloop *l, const tn_jargs *a) {
    if (!l->recursive || a->n != 1)
        return tn_jinja_fail(c, "only the loop of a recursive for can be called, with one argument");
    tn_jscope *old = c->scope;
    size_t at = c->text.n;
    c->scope = l->scope;
    if (tn_jinja_enter(c)) run_for(c, l->recursive, a->v[0], l->depth + 1);
    c->depth--;
    c->scope = old;
    return tn_jinja_take(c, at);
}

tn_jval tn_jinja_call(tn_jinja *c, tn_jval callee, const tn_jargs *a) {
    if (c->status) return tn_jinja_undefined;
    switch (callee.kind) {
    case TN_J_MACRO: return call_macro(c, callee.macro, a);
    case TN_J_LOOP: return call_loop(c, callee.loop, a);
    case TN_J_METHOD: return tn_jinja_apply(c, callee.method->builtin, "", callee.method->self, a);
    case TN_J_UNDEFINED: return undefined_error(c, callee);
    default: return tn_jinja_fail(c, "'%s' cannot be called", tn_jinja_type_name(callee));
    }
}

static tn_jval eval_apply(tn_jinja *c, const tn_jnode *n, tn_jval in, const char *what) {
    tn_jargs a = eval_args(c, n->list);
    c->line = c->status ? c->line : n->line;
    return c->status ? tn_jinja_undefined : tn_jinja_apply(c, n->builtin, what, in, &a);
}

/* A chain of filters whose innermost input is `in` (of a filter block or a block set). */
static tn_jval eval_filters(tn_jinja *c, const tn_jnode *n, tn_jval in) {
    if (!n) return in;
    if (!tn_jinja_enter(c)) in = tn_jinja_undefined;
    if (n->kind == TN_JN_FILTER) {
        in = eval_apply(c, n, eval_filters(c, n->a, in), "filter ");
    } else {
        in = tn_jinja_fail(c, "only filters can stand here");
    }
    c->depth--;
    return in;
}

/* ---- expressions ---- */

static tn_jval eval_sequence(tn_jinja *c, const tn_jnode *n) {
    tn_jkind kind = n->kind == TN_JN_LIST ? TN_J_LIST : n->kind == TN_JN_TUPLE ? TN_J_TUPLE : TN_J_DICT;
    tn_jval v = tn_jinja_new(c, kind);
    for (const tn_jnode *item = n->list; item && !c->status; item = item->next) {
        if (kind == TN_J_DICT) {
            tn_jval key = eval(c, item);
            item = item->next;
            tn_jinja_put(c, v, key, eval(c, item));
        } else {
            tn_jinja_push(c, v, eval(c, item));
        }
    }
    return v;
}

static tn_jval eval_logic(tn_jinja *c, const tn_jnode *n) {
    tn_jval a = eval(c, n->a);
    switch (n->kind) {
    case TN_JN_NOT: return tn_jinja_bool(!tn_jinja_truth(a));
    case TN_JN_AND: return tn_jinja_truth(a) ? eval(c, n->b) : a;
    default: return tn_jinja_truth(a) ? a : eval(c, n->b);
    }
}

static tn_jval eval_call(tn_jinja *c, const tn_jnode *n) {
    tn_jval callee = eval(c, n->a);
    tn_jargs a = eval_args(c, n->list);
    c->line = c->status ? c->line : n->line;
    return tn_jinja_call(c, callee, &a);
}

static tn_jval eval_node(tn_jinja *c, const tn_jnode *n) {
    switch (n->kind) {
    case TN_JN_CONST: return n->value;
    case TN_JN_NAME: return get_var(c, n->text);
    case TN_JN_LIST:
    case TN_JN_TUPLE:
    case TN_JN_DICT: return eval_sequence(c, n);
    case TN_JN_ATTR: return tn_jinja_attr(c, eval(c, n->a), n->text);
    case TN_JN_ITEM: {
        tn_jval of = eval(c, n->a);
        return tn_jinja_item(c, of, eval(c, n->b));
    }
    case TN_JN_SLICE: return eval_slice(c, n);
    case TN_JN_CALL: return eval_call(c, n);
    case TN_JN_FILTER: return eval_apply(c, n, eval(c, n->a), "filter ");
    case TN_JN_TEST: return eval_apply(c, n, eval(c, n->a), "test ");
    case TN_JN_NEGATE:
    case TN_JN_PLUS: return eval_sign(c, n);
    case TN_JN_BINARY: return eval_binary(c, n);
    case TN_JN_COMPARE: return eval_compare(c, n);
    case TN_JN_NOT:
    case TN_JN_AND:
    case TN_JN_OR: return eval_logic(c, n);
    case TN_JN_COND:
        if (tn_jinja_truth(eval(c, n->b))) return eval(c, n->a);
        return n->c ? eval(c, n->c) : tn_jinja_undefined;
    default: return tn_jinja_fail(c, "this is not an expression");
    }
}

static tn_jval eval(tn_jinja *c, const tn_jnode *n) {
    tn_jval v = tn_jinja_undefined;
    if (tn_jinja_enter(c)) {
        c->line = n->line;
        v = eval_node(c, n);
    }
    c->depth--;
    return c->status ? tn_jinja_undefined : v;
}

/* ---- statements ---- */

static void assign(tn_jinja *c, const tn_jnode *target, tn_jval value) {
    if (c->status) return;
    if (target->kind == TN_JN_NAME) {
        set_var(c, target->text, value);
    } else if (target->kind == TN_JN_ATTR) {
        tn_jval of = get_var(c, target->a->text);
        if (of.kind == TN_J_NAMESPACE) {
            tn_jinja_put(c, of, tn_jinja_str(target->text), value);
        } else {
            tn_jinja_fail(c, "only attributes of a namespace can be set");
        }
    } else {
        tn_jval items = tn_jinja_items(c, value);
        size_t i = 0;
        for (const tn_jnode *t = target->list; t && !c->status; t = t->next, i++) {
            if (i == items.list->n) tn_jinja_fail(c, "there are too few values to unpack");
            if (!c->status) assign(c, t, items.list->v[i]);
        }
        if (!c->status && i < items.list->n) tn_jinja_fail(c, "there are too many values to unpack");
    }
}

/* The items of `over` that pass the loop's condition. */
static tn_jval filter_items(tn_jinja *c, const tn_jnode *n, tn_jval over) {
    tn_jval items = tn_jinja_items(c, over);
    if (!n->c || c->status) return items;
    tn_jval list = tn_jinja_new(c, TN_J_LIST);
    for (size_t i = 0; i < items.list->n && !c->status; i++) {
        tn_jscope *old = push_scope(c, c->scope);
        assign(c, n->a, items.list->v[i]);
        if (tn_jinja_truth(eval(c, n->c))) tn_jinja_push(c, list, items.list->v[i]);
        c->scope = old;
    }
    return list;
}

static tn_jval run_for(tn_jinja *c, const tn_jnode *n, tn_jval over, int depth) {
    if (over.kind == TN_J_LIST) { /* what is appended to it meanwhile is not walked */
        tn_jlist *copy = tn_jinja_alloc(c, 1, sizeof *copy);
        if (copy) over = (*copy = *over.list, (tn_jval){TN_J_LIST, .list = copy});
    }
    tn_jval items = filter_items(c, n, over);
    tn_jloop *l = tn_jinja_alloc(c, 1, sizeof *l);
    if (c->status) return tn_jinja_undefined;
    *l = (tn_jloop){items.list, 0, depth, n->flag ? n : NULL, c->scope};
    for (; l->index < items.list->n && !c->status; l->index++) {
        tn_jscope *old = push_scope(c, c->scope);
        set_var(c, tn_str_of("loop"), (tn_jval){TN_J_LOOP, .loop = l});
        assign(c, n->a, items.list->v[l->index]);
        tn_jinja_run(c, n->list);
        c->scope = old;
        bool stop = c->flow == TN_JFLOW_BREAK;
        c->flow = TN_JFLOW_ON;
        if (stop) break;
    }
    if (items.list->n == 0 && n->d) tn_jinja_run(c, n->d->list);
    return tn_jinja_undefined;
}

static void run_if(tn_jinja *c, const tn_jnode *n) {
    for (const tn_jnode *branch = n->list; branch && !c->status; branch = branch->next) {
        if (branch->a && !tn_jinja_truth(eval(c, branch->a))) continue;
        tn_jinja_run(c, branch->list);
        return;
    }
}

static tn_jval new_macro(tn_jinja *c, const tn_jnode *n) {
    tn_jmacro *m = tn_jinja_alloc(c, 1, sizeof *m);
    if (!m) return tn_jinja_undefined;
    *m = (tn_jmacro){n, c->scope};
    return (tn_jval){TN_J_MACRO, .macro = m};
}

/* The call, with the block as one more argument, `caller`. */
static void run_call_block(tn_jinja *c, const tn_jnode *n) {
    tn_jval callee = eval(c, n->a->a), caller = new_macro(c, n);
    tn_jargs a = eval_args(c, n->a->list);
    tn_jentry *kw = tn_jinja_alloc(c, a.n_kw + 1, sizeof *kw);
    if (!kw) return;
    if (a.n_kw) memcpy(kw, a.kw, a.n_kw * sizeof *kw);
    kw[a.n_kw++] = (tn_jentry){tn_jinja_str(tn_str_of("caller")), caller};
    a.kw = kw;
    tn_jinja_emit_value(c, tn_jinja_call(c, callee, &a));
}

/* Runs a body in a scope of its own, as a value. */
static tn_jval capture(tn_jinja *c, const tn_jnode *body) {
    size_t at = c->text.n;
    tn_jscope *old = push_scope(c, c->scope);
    tn_jinja_run(c, body);
    c->scope = old;
    return tn_jinja_take(c, at);
}

static void run_with(tn_jinja *c, const tn_jnode *n) {
    tn_jargs a = eval_args(c, n->params); /* none of them sees another */
    tn_jscope *old = push_scope(c, c->scope);
    for (size_t i = 0; i < a.n_kw; i++) set_var(c, tn_jinja_view(a.kw[i].key), a.kw[i].value);
    tn_jinja_run(c, n->list);
    c->scope = old;
}

static void run_node(tn_jinja *c, const tn_jnode *n) {
    switch (n->kind) {
    case TN_JN_DATA: tn_jinja_emit(c, n->text.p, NULL, n->text.n); break;
    case TN_JN_OUTPUT: {
        tn_jval v = eval(c, n->a);
        if (!c->status) tn_jinja_emit_value(c, v);
        break;
    }
    case TN_JN_IF: run_if(c, n); break;
    case TN_JN_FOR: run_for(c, n, eval(c, n->b), 0); break;
    case TN_JN_SET: assign(c, n->a, eval(c, n->b)); break;
    case TN_JN_SET_BLOCK: assign(c, n->a, eval_filters(c, n->b, capture(c, n->list))); break;
    case TN_JN_MACRO: set_var(c, n->text, new_macro(c, n)); break;
    case TN_JN_CALL_BLOCK: run_call_block(c, n); break;
    case TN_JN_FILTER_BLOCK: tn_jinja_emit_value(c, eval_filters(c, n->a, capture(c, n->list))); break;
    case TN_JN_WITH: run_with(c, n); break;
    case TN_JN_BREAK: c->flow = TN_JFLOW_BREAK; break;
    case TN_JN_CONTINUE: c->flow = TN_JFLOW_CONTINUE; break;
    default: tn_jinja_run(c, n->list);
    }
}

void tn_jinja_run(tn_jinja *c, const tn_jnode *list) {
    for (const tn_jnode *n = list; n && !c->status && c->flow == TN_JFLOW_ON; n = n->next) {
        if (tn_jinja_enter(c)) {
            c->line = n->line;
            run_node(c, n);
        }
        c->depth--;
    }
}
