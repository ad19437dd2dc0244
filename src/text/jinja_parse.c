/* Tokens -> tree, by recursive descent; precedence is Jinja2's. A bad tag is a sticky error, told with its line. */
#include "text/jinja.h"

#include <stdlib.h>

typedef struct parser {
    tn_jsource *s;
    const tn_jtoken *t; /* the token at hand */
    int nesting;
    tn_status status;
    tn_error *err;
    tn_jnode *nothing; /* what failed parsing returns, so that nobody meets NULL */
} parser;

static tn_jnode *parse_expr(parser *p);
static tn_jnode *parse_unary(parser *p, bool with_filters);
static tn_jnode *parse_primary(parser *p);
static tn_jnode *parse_postfix(parser *p, tn_jnode *n);
static tn_jnode *parse_body(parser *p, const char *const *ends);

static tn_jnode *fail(parser *p, const char *what) {
    if (p->status) return p->nothing;
    tn_str at = p->t->text;
    if (p->t->kind == TN_JT_END) {
        p->status = tn_fail(p->err, TN_ERR_INPUT, "template, line %d: %s at the end of the file", p->t->line, what);
    } else if (at.n && p->t->kind != TN_JT_DATA && p->t->kind != TN_JT_STR) {
        p->status = tn_fail(p->err, TN_ERR_INPUT, "template, line %d: %s at '%.*s'", p->t->line, what,
                            (int)(at.n < 60 ? at.n : 60), at.p);
    } else {
        p->status = tn_fail(p->err, TN_ERR_INPUT, "template, line %d: %s", p->t->line, what);
    }
    /* From here on everybody sees the end of the file. */
    while (p->t->kind != TN_JT_END) p->t++;
    return p->nothing;
}

static tn_jnode *node(parser *p, tn_jnode_kind kind) {
    tn_jnode *n = p->status ? NULL : tn_arena_alloc(&p->s->arena, sizeof *n);
    if (!n) {
        if (!p->status) {
            p->status = tn_fail_memory(p->err);
            while (p->t->kind != TN_JT_END) p->t++;
        }
        return p->nothing;
    }
    n->kind = kind;
    n->line = p->t->line;
    return n;
}

static bool enter(parser *p) {
    if (++p->nesting > TN_JINJA_MAX_NESTING) fail(p, "nested too deeply");
    return !p->status;
}

static bool is_op(const parser *p, const char *z) {
    return p->t->kind == TN_JT_OP && tn_str_is(p->t->text, z);
}
static bool is_word(const parser *p, const char *z) {
    return p->t->kind == TN_JT_NAME && tn_str_is(p->t->text, z);
}
static bool take_op(parser *p, const char *z) {
    return is_op(p, z) ? p->t++, true : false;
}
static bool take_word(parser *p, const char *z) {
    return is_word(p, z) ? p->t++, true : false;
}
static void expect_op(parser *p, const char *z) {
    char what[32] = "expected '?'";
    what[10] = *z;
    if (!take_op(p, z)) fail(p, what);
}

static tn_str expect_name(parser *p) {
    if (p->t->kind != TN_JT_NAME) {
        fail(p, "expected a name");
        return (tn_str){"", 0};
    }
    return p->t++->text;
}

/* Appends n to the list whose last link is *link; returns the new last link. */
static tn_jnode **append(parser *p, tn_jnode **link, tn_jnode *n) {
    if (p->status) return link;
    *link = n;
    return &n->next;
}

static tn_jnode *binary(parser *p, tn_jnode_kind kind, tn_jop op, tn_jnode *a, tn_jnode *b) {
    tn_jnode *n = node(p, kind);
    n->op = op;
    n->a = a;
    n->b = b;
    if (!p->status) n->line = a->line;
    return n;
}

/* ---- expressions ---- */

/* Arguments after '(' up to and with ')': expressions and name=expression. */
static tn_jnode *parse_args(parser *p) {
    tn_jnode *first = NULL, **link = &first;
    bool named = false;
    while (!p->status && !take_op(p, ")")) {
        if (first) {
            expect_op(p, ",");
            if (take_op(p, ")")) break;
        }
        if (is_op(p, "*") || is_op(p, "**")) fail(p, "unpacked arguments are not supported");
        if (p->t->kind == TN_JT_NAME && p->t[1].kind == TN_JT_OP && tn_str_is(p->t[1].text, "=")) {
            tn_jnode *n = node(p, TN_JN_KEYWORD);
            n->text = expect_name(p);
            expect_op(p, "=");
            n->a = parse_expr(p);
            link = append(p, link, n);
            named = true;
        } else {
            if (named) fail(p, "an argument by position after one by name");
            tn_jnode *n = parse_expr(p);
            link = append(p, link, n);
        }
    }
    return first;
}

/* Items up to and with `end`. */
static tn_jnode *parse_items(parser *p, tn_jnode_kind kind, const char *end) {
    tn_jnode *n = node(p, kind), **link = &n->list;
    while (!p->status && !take_op(p, end)) {
        if (n->list) {
            expect_op(p, ",");
            if (take_op(p, end)) break;
        }
        link = append(p, link, parse_expr(p));
        if (kind == TN_JN_DICT) {
            expect_op(p, ":");
            link = append(p, link, parse_expr(p));
        }
    }
    return n;
}

/* After '(': an expression in parentheses, or a tuple. */
static tn_jnode *parse_paren(parser *p) {
    tn_jnode *tuple = node(p, TN_JN_TUPLE), **link = &tuple->list;
    if (take_op(p, ")")) return tuple;
    tn_jnode *first = parse_expr(p);
    if (take_op(p, ")")) return first;
    link = append(p, link, first);
    while (!p->status && !take_op(p, ")")) {
        expect_op(p, ",");
        if (take_op(p, ")")) break;
        link = append(p, link, parse_expr(p));
    }
    return tuple;
}

static tn_jnode *constant(parser *p, tn_jval value) {
    tn_jnode *n = node(p, TN_JN_CONST);
    n->value = value;
    p->t += p->t->kind != TN_JT_END;
    return n;
}

static tn_jnode *parse_string(parser *p) {
    tn_str text = p->t->text;
    if (p->t[1].kind == TN_JT_STR) { /* neighbours are one */
        size_t n = 0;
        for (const tn_jtoken *t = p->t; t->kind == TN_JT_STR; t++) n += t->text.n;
        char *joined = tn_arena_alloc(&p->s->arena, n);
        if (!joined) {
            p->status = tn_fail_memory(p->err);
            return p->nothing;
        }
        text = (tn_str){joined, n};
        for (; p->t[1].kind == TN_JT_STR; p->t++) {
            memcpy(joined, p->t->text.p, p->t->text.n);
            joined += p->t->text.n;
        }
        memcpy(joined, p->t->text.p, p->t->text.n);
    }
    return constant(p, tn_jinja_str(text));
}

static tn_jnode *parse_name(parser *p) {
    static const struct {
        const char *word;
        tn_jval value;
    } words[] = {{"true", {TN_J_BOOL, .b = true}}, {"false", {TN_J_BOOL, .b = false}}, {"none", {.kind = TN_J_NONE}},
                 {"True", {TN_J_BOOL, .b = true}}, {"False", {TN_J_BOOL, .b = false}}, {"None", {.kind = TN_J_NONE}}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (is_word(p, words[i].word)) return constant(p, words[i].value);
    }
    tn_jnode *n = node(p, TN_JN_NAME);
    n->text = p->t++->text;
    return n;
}

static tn_jnode *parse_primary(parser *p) {
    switch (p->t->kind) {
    case TN_JT_NAME: return parse_name(p);
    case TN_JT_STR: return parse_string(p);
    case TN_JT_INT: return constant(p, tn_jinja_int(p->t->i));
    case TN_JT_FLOAT: return constant(p, tn_jinja_float(p->t->f));
    default: break;
    }
    if (take_op(p, "(")) return parse_paren(p);
    if (take_op(p, "[")) return parse_items(p, TN_JN_LIST, "]");
    if (take_op(p, "{")) return parse_items(p, TN_JN_DICT, "}");
    return fail(p, "expected an expression");
}

/* After '[': an index or a slice. */
static tn_jnode *parse_subscript(parser *p, tn_jnode *of) {
    tn_jnode *n = node(p, TN_JN_ITEM), **parts[] = {&n->b, &n->c, &n->d};
    n->a = of;
    for (int i = 0; !p->status && !take_op(p, "]"); i++) {
        if (!is_op(p, ":")) *parts[i] = parse_expr(p);
        if (is_op(p, "]")) continue;
        expect_op(p, ":");
        if (i == 2) fail(p, "a slice has three parts at most");
        if (!p->status) n->kind = TN_JN_SLICE;
    }
    if (!p->status && n->kind == TN_JN_ITEM && !n->b) fail(p, "expected an index");
    return n;
}

static tn_jnode *parse_postfix(parser *p, tn_jnode *n) {
    while (!p->status) {
        if (take_op(p, ".")) {
            bool index = p->t->kind == TN_JT_INT;
            tn_jnode *m = node(p, index ? TN_JN_ITEM : TN_JN_ATTR);
            m->a = n;
            if (index) {
                m->b = constant(p, tn_jinja_int(p->t->i));
            } else {
                m->text = expect_name(p);
            }
            n = m;
        } else if (take_op(p, "[")) {
            n = parse_subscript(p, n);
        } else if (take_op(p, "(")) {
            tn_jnode *m = node(p, TN_JN_CALL);
            m->a = n;
            m->list = parse_args(p);
            n = m;
        } else {
            break;
        }
    }
    return n;
}

static tn_jnode *parse_filter(parser *p, tn_jnode *in) {
    tn_jnode *n = node(p, TN_JN_FILTER);
    n->a = in;
    const tn_jtoken *name = p->t;
    n->text = expect_name(p);
    n->builtin = p->status ? NULL : tn_jinja_filter_find(n->text);
    if (!p->status && !n->builtin) {
        p->t = name;
        return fail(p, "there is no such filter");
    }
    if (take_op(p, "(")) n->list = parse_args(p);
    return n;
}

/* An argument of a test may stand without parentheses: `x is divisibleby 3`. */
static bool starts_test_arg(const parser *p) {
    if (p->t->kind == TN_JT_NAME)
        return !is_word(p, "else") && !is_word(p, "or") && !is_word(p, "and") && !is_word(p, "is") &&
               !is_word(p, "if") && !is_word(p, "not") && !is_word(p, "in");
    return p->t->kind == TN_JT_STR || p->t->kind == TN_JT_INT || p->t->kind == TN_JT_FLOAT || is_op(p, "[") ||
           is_op(p, "{");
}

static tn_jnode *parse_test(parser *p, tn_jnode *of) {
    bool negated = take_word(p, "not");
    tn_jnode *n = node(p, TN_JN_TEST);
    n->a = of;
    const tn_jtoken *name = p->t;
    n->text = expect_name(p);
    n->builtin = p->status ? NULL : tn_jinja_test_find(n->text);
    if (!p->status && !n->builtin) {
        p->t = name;
        return fail(p, "there is no such test");
    }
    if (take_op(p, "(")) {
        n->list = parse_args(p);
    } else if (starts_test_arg(p)) {
        n->list = parse_postfix(p, parse_primary(p));
    }
    if (!negated) return n;
    tn_jnode *not = node(p, TN_JN_NOT);
    not ->a = n;
    return not ;
}

static tn_jnode *parse_filters(parser *p, tn_jnode *n) {
    while (!p->status) {
        if (take_op(p, "|")) {
            n = parse_filter(p, n);
        } else if (take_word(p, "is")) {
            n = parse_test(p, n);
        } else if (take_op(p, "(")) {
            tn_jnode *m = node(p, TN_JN_CALL);
            m->a = n;
            m->list = parse_args(p);
            n = m;
        } else {
            break;
        }
    }
    return n;
}

static tn_jnode *parse_unary(parser *p, bool with_filters) {
    if (!enter(p)) return p->nothing;
    tn_jnode *n;
    if (is_op(p, "-") || is_op(p, "+")) {
        n = node(p, is_op(p, "-") ? TN_JN_NEGATE : TN_JN_PLUS);
        p->t++;
        n->a = parse_unary(p, false);
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    if (with_filters) n = parse_filters(p, n);
    p->nesting--;
    return n;
}

/* Binary operators that group to the left, loosest level first. */
static const struct {
    const char *text;
    tn_jop op;
    int level;
} infix[] = {{"+", TN_JOP_ADD, 0}, {"-", TN_JOP_SUB, 0},       {"~", TN_JOP_CONCAT, 1}, {"*", TN_JOP_MUL, 2},
             {"/", TN_JOP_DIV, 2}, {"//", TN_JOP_FLOORDIV, 2}, {"%", TN_JOP_MOD, 2},    {"**", TN_JOP_POW, 3}};
enum { N_INFIX = sizeof infix / sizeof *infix, N_LEVELS = 4 };

static tn_jnode *parse_math(parser *p, int level) {
    if (level == N_LEVELS) return parse_unary(p, true);
    tn_jnode *n = parse_math(p, level + 1);
    for (int i = 0; i < N_INFIX && !p->status;) {
        if (infix[i].level == level && take_op(p, infix[i].text)) {
            n = binary(p, TN_JN_BINARY, infix[i].op, n, parse_math(p, level + 1));
            i = 0;
        } else {
            i++;
        }
    }
    return n;
}

static bool take_comparison(parser *p, tn_jop *op) {
    static const char *const text[] = {"==", "!=", "<", "<=", ">", ">="};
    for (int i = 0; i < 6; i++) {
        if (take_op(p, text[i])) return *op = (tn_jop)(TN_JOP_EQ + i), true;
    }
    if (take_word(p, "in")) return *op = TN_JOP_IN, true;
    if (is_word(p, "not") && p->t[1].kind == TN_JT_NAME && tn_str_is(p->t[1].text, "in")) {
        p->t += 2;
        return *op = TN_JOP_NOT_IN, true;
    }
    return false;
}

static tn_jnode *parse_compare(parser *p) {
    tn_jnode *first = parse_math(p, 0), *n = NULL, **link = NULL;
    tn_jop op;
    while (!p->status && take_comparison(p, &op)) {
        if (!n) {
            n = node(p, TN_JN_COMPARE);
            n->a = first;
            link = &n->list;
        }
        tn_jnode *operand = node(p, TN_JN_OPERAND);
        operand->op = op;
        operand->a = parse_math(p, 0);
        link = append(p, link, operand);
    }
    return n ? n : first;
}

static tn_jnode *parse_not(parser *p) {
    if (!enter(p)) return p->nothing;
    tn_jnode *n;
    if (take_word(p, "not")) {
        n = node(p, TN_JN_NOT);
        n->a = parse_not(p);
    } else {
        n = parse_compare(p);
    }
    p->nesting--;
    return n;
}

static tn_jnode *parse_and(parser *p) {
    tn_jnode *n = parse_not(p);
    while (take_word(p, "and")) n = binary(p, TN_JN_AND, 0, n, parse_not(p));
    return n;
}

static tn_jnode *parse_or(parser *p) {
    tn_jnode *n = parse_and(p);
    while (take_word(p, "or")) n = binary(p, TN_JN_OR, 0, n, parse_and(p));
    return n;
}

static tn_jnode *parse_expr(parser *p) {
    if (!enter(p)) return p->nothing;
    tn_jnode *n = parse_or(p);
    while (!p->status && take_word(p, "if")) {
        tn_jnode *cond = node(p, TN_JN_COND);
        cond->a = n;
        cond->b = parse_or(p);
        if (take_word(p, "else")) cond->c = parse_expr(p);
        n = cond;
    }
    p->nesting--;
    return n;
}

/* Expressions with commas between are a tuple. */
static tn_jnode *parse_tuple(parser *p) {
    tn_jnode *first = parse_expr(p);
    if (!is_op(p, ",")) return first;
    tn_jnode *n = node(p, TN_JN_TUPLE), **link = append(p, &n->list, first);
    while (take_op(p, ",") && p->t->kind != TN_JT_BLOCK_END && p->t->kind != TN_JT_PRINT_END) {
        link = append(p, link, parse_expr(p));
    }
    return n;
}

/* ---- statements ---- */

static void end_block(parser *p) {
    if (p->t->kind == TN_JT_BLOCK_END) {
        p->t++;
    } else {
        fail(p, "expected the end of the tag");
    }
}

/* name, name.attribute, or several with commas (perhaps in parentheses). */
static tn_jnode *parse_target(parser *p, bool attributes) {
    tn_jnode *tuple = node(p, TN_JN_TUPLE), **link = &tuple->list;
    bool paren = take_op(p, "("), several = false;
    while (!p->status) {
        tn_jnode *n = node(p, TN_JN_NAME);
        n->text = expect_name(p);
        if (attributes && take_op(p, ".")) {
            tn_jnode *m = node(p, TN_JN_ATTR);
            m->a = n;
            m->text = expect_name(p);
            n = m;
        }
        link = append(p, link, n);
        if (!take_op(p, ",")) break;
        several = true;
        if (is_op(p, ")") || is_word(p, "in")) break;
    }
    if (paren) expect_op(p, ")");
    return several || p->status ? tuple : tuple->list;
}

static tn_jnode *parse_for(parser *p) {
    static const char *const ends[] = {"endfor", "else", NULL}, *const last[] = {"endfor", NULL};
    tn_jnode *n = node(p, TN_JN_FOR);
    n->a = parse_target(p, false);
    if (!take_word(p, "in")) fail(p, "expected 'in'");
    n->b = parse_or(p);
    if (is_op(p, ",")) { /* a tuple without parentheses */
        tn_jnode *tuple = node(p, TN_JN_TUPLE), **link = append(p, &tuple->list, n->b);
        while (take_op(p, ",")) link = append(p, link, parse_or(p));
        n->b = tuple;
    }
    if (take_word(p, "if")) n->c = parse_expr(p);
    if (!p->status) n->flag = take_word(p, "recursive");
    end_block(p);
    n->list = parse_body(p, ends);
    if (take_word(p, "else")) {
        end_block(p);
        n->d = node(p, TN_JN_BODY);
        n->d->list = parse_body(p, last);
    }
    take_word(p, "endfor");
    return n;
}

static tn_jnode *parse_if(parser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const last[] = {"endif", NULL};
    tn_jnode *n = node(p, TN_JN_IF), **link = &n->list;
    do {
        tn_jnode *branch = node(p, TN_JN_BRANCH);
        branch->a = parse_expr(p);
        end_block(p);
        branch->list = parse_body(p, ends);
        link = append(p, link, branch);
    } while (take_word(p, "elif"));
    if (take_word(p, "else")) {
        tn_jnode *branch = node(p, TN_JN_BRANCH);
        end_block(p);
        branch->list = parse_body(p, last);
        append(p, link, branch);
    }
    take_word(p, "endif");
    return n;
}

static tn_jnode *parse_set(parser *p) {
    static const char *const ends[] = {"endset", NULL};
    tn_jnode *target = parse_target(p, true);
    tn_jnode *n = node(p, is_op(p, "=") ? TN_JN_SET : TN_JN_SET_BLOCK);
    n->a = target;
    if (take_op(p, "=")) {
        n->b = parse_tuple(p);
        return n;
    }
    if (!p->status && target->kind == TN_JN_TUPLE) return fail(p, "expected '='");
    if (is_op(p, "|")) n->b = parse_filters(p, NULL);
    end_block(p);
    n->list = parse_body(p, ends);
    take_word(p, "endset");
    return n;
}

/* Parameters in parentheses, each a TN_JN_KEYWORD, `a` its default or NULL. */
static tn_jnode *parse_params(parser *p) {
    tn_jnode *first = NULL, **link = &first;
    expect_op(p, "(");
    while (!p->status && !take_op(p, ")")) {
        if (first) expect_op(p, ",");
        tn_jnode *n = node(p, TN_JN_KEYWORD);
        n->text = expect_name(p);
        if (take_op(p, "=")) n->a = parse_expr(p);
        link = append(p, link, n);
    }
    return first;
}

static tn_jnode *parse_macro(parser *p) {
    static const char *const ends[] = {"endmacro", NULL};
    tn_jnode *n = node(p, TN_JN_MACRO);
    n->text = expect_name(p);
    n->params = parse_params(p);
    end_block(p);
    n->list = parse_body(p, ends);
    take_word(p, "endmacro");
    return n;
}

static tn_jnode *parse_call_block(parser *p) {
    static const char *const ends[] = {"endcall", NULL};
    tn_jnode *n = node(p, TN_JN_CALL_BLOCK);
    if (is_op(p, "(")) n->params = parse_params(p);
    n->a = parse_expr(p);
    if (!p->status && n->a->kind != TN_JN_CALL) fail(p, "expected a call");
    end_block(p);
    n->list = parse_body(p, ends);
    take_word(p, "endcall");
    return n;
}

static tn_jnode *parse_filter_block(parser *p) {
    static const char *const ends[] = {"endfilter", NULL};
    tn_jnode *n = node(p, TN_JN_FILTER_BLOCK);
    n->a = parse_filters(p, parse_filter(p, NULL));
    end_block(p);
    n->list = parse_body(p, ends);
    take_word(p, "endfilter");
    return n;
}

static tn_jnode *parse_with(parser *p) {
    static const char *const ends[] = {"endwith", NULL};
    tn_jnode *n = node(p, TN_JN_WITH), **link = &n->params;
    while (!p->status && p->t->kind != TN_JT_BLOCK_END) {
        if (n->params) expect_op(p, ",");
        tn_jnode *m = node(p, TN_JN_KEYWORD);
        m->text = expect_name(p);
        expect_op(p, "=");
        m->a = parse_expr(p);
        link = append(p, link, m);
    }
    end_block(p);
    n->list = parse_body(p, ends);
    take_word(p, "endwith");
    return n;
}

/* Marks what an assistant says, for training; to us only its body matters. */
static tn_jnode *parse_generation(parser *p) {
    static const char *const ends[] = {"endgeneration", NULL};
    tn_jnode *n = node(p, TN_JN_BODY);
    end_block(p);
    n->list = parse_body(p, ends);
    take_word(p, "endgeneration");
    return n;
}

static tn_jnode *parse_break(parser *p) {
    return node(p, TN_JN_BREAK);
}
static tn_jnode *parse_continue(parser *p) {
    return node(p, TN_JN_CONTINUE);
}

static const struct {
    const char *word;
    tn_jnode *(*parse)(parser *p);
} statements[] = {{"for", parse_for},         {"if", parse_if},
                  {"set", parse_set},         {"macro", parse_macro},
                  {"call", parse_call_block}, {"filter", parse_filter_block},
                  {"with", parse_with},       {"generation", parse_generation},
                  {"break", parse_break},     {"continue", parse_continue}};

/* A tag, p after its begin. */
static tn_jnode *parse_statement(parser *p) {
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!take_word(p, statements[i].word)) continue;
        tn_jnode *n = statements[i].parse(p);
        end_block(p);
        return n;
    }
    return fail(p, "unknown or misplaced tag");
}

/* Data, prints and statements up to a tag that is one of `ends` (p then after {%, at the word; NULL: up to the end).
 */
static tn_jnode *parse_body(parser *p, const char *const *ends) {
    if (!enter(p)) return NULL;
    tn_jnode *first = NULL, **link = &first;
    while (!p->status) {
        if (p->t->kind == TN_JT_END) {
            if (ends) fail(p, "a tag is not closed");
            break;
        }
        tn_jnode *n;
        if (p->t->kind == TN_JT_DATA) {
            n = node(p, TN_JN_DATA);
            n->text = p->t++->text;
        } else if (p->t->kind == TN_JT_PRINT_BEGIN) {
            n = node(p, TN_JN_OUTPUT);
            p->t++;
            n->a = parse_tuple(p);
            if (p->t->kind == TN_JT_PRINT_END) {
                p->t++;
            } else {
                fail(p, "expected the end of the expression");
            }
        } else {
            p->t++;
            for (int i = 0; ends && ends[i]; i++) {
                if (is_word(p, ends[i])) return p->nesting--, first;
            }
            n = parse_statement(p);
        }
        link = append(p, link, n);
    }
    p->nesting--;
    return first;
}

tn_status tn_jinja_parse(tn_jsource *s, tn_jnode **body, tn_error *err) {
    parser p = {.s = s, .t = s->tokens, .err = err};
    p.nothing = tn_arena_alloc(&s->arena, sizeof *p.nothing);
    if (!p.nothing) return tn_fail_memory(err);
    *body = parse_body(&p, NULL);
    return p.status;
}
