/* What the parts of the template interpreter share: tokens (jinja_lex.c), the tree (jinja_parse.c), values
 * (jinja_value.c), and the state of one rendering (jinja_eval.c, jinja_filters.c, jinja_tests.c, jinja_methods.c).
 * Semantics are Jinja2's, with trim_blocks and lstrip_blocks on.
 *
 * Errors are sticky: the first failure is kept in tn_jinja.status and everything after it does nothing and yields
 * `undefined`, so that code may run on to a place where checking is natural. */
#ifndef TN_TEXT_JINJA_H
#define TN_TEXT_JINJA_H

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"

typedef struct tn_jnode tn_jnode;
typedef struct tn_jinja tn_jinja;

/* ---- values: small, copied freely; what they point to lives in the arena of the rendering ---- */

typedef enum tn_jkind {
    TN_J_UNDEFINED, /* p names what was looked for */
    TN_J_NONE,
    TN_J_BOOL,
    TN_J_INT,
    TN_J_FLOAT,
    TN_J_STR,
    TN_J_LIST,
    TN_J_TUPLE, /* a list that prints with ( ) */
    TN_J_DICT,
    TN_J_NAMESPACE, /* a dict whose attributes may be set */
    TN_J_LOOP,
    TN_J_MACRO,
    TN_J_METHOD, /* a function bound to its object, or a global function */
} tn_jkind;

typedef struct tn_jlist tn_jlist;
typedef struct tn_jdict tn_jdict;
typedef struct tn_jloop tn_jloop;
typedef struct tn_jmacro tn_jmacro;
typedef struct tn_jmethod tn_jmethod;

typedef struct tn_jval {
    tn_jkind kind;
    union {
        bool b;
        int64_t i;
        double f;
        size_t n; /* bytes of p */
    };
    union {
        const char *p;
        tn_jlist *list;
        tn_jdict *dict;
        tn_jloop *loop;
        const tn_jmacro *macro;
        const tn_jmethod *method;
    };
    const unsigned char *mark; /* one byte for each of p: whether it came from input; NULL: none did */
} tn_jval;

struct tn_jlist {
    tn_jval *v;
    size_t n, cap;
};

typedef struct tn_jentry {
    tn_jval key, value;
} tn_jentry;

/* In order of insertion; looked up by walking, since objects in chats are small. */
struct tn_jdict {
    tn_jentry *v;
    size_t n, cap;
};

struct tn_jloop {
    const tn_jlist *items;
    size_t index;
    int depth;
    const tn_jnode *recursive; /* the for statement, where it may call itself */
    struct tn_jscope *scope;   /* around it */
};

struct tn_jmacro {
    const tn_jnode *node; /* TN_JN_MACRO or TN_JN_CALL_BLOCK */
    struct tn_jscope *scope;
};

typedef struct tn_jargs {
    tn_jval *v; /* by position */
    size_t n;
    tn_jentry *kw; /* by name */
    size_t n_kw;
} tn_jargs;

typedef tn_jval tn_jfunction(tn_jinja *c, tn_jval self, const tn_jargs *a);

/* A row of a table of filters, tests, methods or global functions. */
typedef struct tn_jbuiltin {
    const char *name;
    tn_jfunction *fn;
    int min_args, max_args; /* without self, those by name included */
} tn_jbuiltin;

struct tn_jmethod {
    const tn_jbuiltin *builtin;
    tn_jval self;
};

/* ---- the tree ---- */

typedef enum tn_jnode_kind {
    /* expressions */
    TN_JN_CONST,   /* value */
    TN_JN_NAME,    /* text */
    TN_JN_LIST,    /* list: items */
    TN_JN_TUPLE,   /* list: items */
    TN_JN_DICT,    /* list: key, value, key, value ... */
    TN_JN_ATTR,    /* a.text */
    TN_JN_ITEM,    /* a[b] */
    TN_JN_SLICE,   /* a[b:c:d], each may be NULL */
    TN_JN_CALL,    /* a(list) */
    TN_JN_FILTER,  /* a | text(list); a is NULL in a filter block */
    TN_JN_TEST,    /* a is text(list) */
    TN_JN_NOT,     /* a */
    TN_JN_NEGATE,  /* a */
    TN_JN_PLUS,    /* a */
    TN_JN_BINARY,  /* a op b, op one of + - * / % and f (floor division), p (power), ~ */
    TN_JN_COMPARE, /* a, then list of TN_JN_OPERAND */
    TN_JN_OPERAND, /* op a, op one of == != < <= > >= in, not in */
    TN_JN_AND,     /* a, b */
    TN_JN_OR,      /* a, b */
    TN_JN_COND,    /* a if b else c; c may be NULL */
    TN_JN_KEYWORD, /* text=a, in arguments and parameters */
    /* statements; `list` is the body */
    TN_JN_DATA,       /* text */
    TN_JN_OUTPUT,     /* a */
    TN_JN_IF,         /* list: branches */
    TN_JN_BRANCH,     /* a: condition, NULL for else; list */
    TN_JN_FOR,        /* a: target, b: what to walk, c: condition or NULL, d: else branch or NULL, flag: recursive */
    TN_JN_SET,        /* a: target, b: value */
    TN_JN_SET_BLOCK,  /* a: target, b: filters or NULL, list */
    TN_JN_MACRO,      /* text, params, list */
    TN_JN_CALL_BLOCK, /* a: call, params, list */
    TN_JN_FILTER_BLOCK, /* a: filters, list */
    TN_JN_WITH,         /* params: assignments, list */
    TN_JN_BREAK,
    TN_JN_CONTINUE,
    TN_JN_BODY, /* list */
} tn_jnode_kind;

typedef enum tn_jop {
    TN_JOP_ADD,
    TN_JOP_SUB,
    TN_JOP_MUL,
    TN_JOP_DIV,
    TN_JOP_FLOORDIV,
    TN_JOP_MOD,
    TN_JOP_POW,
    TN_JOP_CONCAT,
    TN_JOP_EQ,
    TN_JOP_NE,
    TN_JOP_LT,
    TN_JOP_LE,
    TN_JOP_GT,
    TN_JOP_GE,
    TN_JOP_IN,
    TN_JOP_NOT_IN,
} tn_jop;

struct tn_jnode {
    tn_jnode_kind kind;
    tn_jop op;
    int line;
    bool flag;
    tn_str text;
    tn_jval value;
    const tn_jbuiltin *builtin; /* of a filter or test, found when parsing */
    tn_jnode *a, *b, *c, *d;
    tn_jnode *list, *params; /* first of */
    tn_jnode *next;          /* in the list this node is in */
};

/* ---- tokens ---- */

typedef enum tn_jtoken_kind {
    TN_JT_END,
    TN_JT_DATA,
    TN_JT_BLOCK_BEGIN,
    TN_JT_BLOCK_END,
    TN_JT_PRINT_BEGIN,
    TN_JT_PRINT_END,
    TN_JT_NAME,
    TN_JT_STR, /* escapes resolved */
    TN_JT_INT,
    TN_JT_FLOAT,
    TN_JT_OP, /* text is one of the operators */
} tn_jtoken_kind;

typedef struct tn_jtoken {
    tn_jtoken_kind kind;
    int line;
    tn_str text;
    int64_t i;
    double f;
} tn_jtoken;

/* Where parsing keeps what it makes. */
typedef struct tn_jsource {
    tn_arena arena;
    tn_jtoken *tokens; /* ends with TN_JT_END */
    size_t n_tokens, cap_tokens;
} tn_jsource;

tn_status tn_jinja_lex(tn_jsource *s, tn_str text, tn_error *err);
tn_status tn_jinja_parse(tn_jsource *s, tn_jnode **body, tn_error *err);

/* ---- one rendering ---- */

enum {
    TN_JINJA_MAX_STEPS = 20 << 20,  /* nodes visited, and long work on strings and lists by size */
    TN_JINJA_MAX_DEPTH = 800,       /* nodes inside nodes, calls included */
    TN_JINJA_MAX_NESTING = 500,     /* of the template's text */
    TN_JINJA_MAX_TEXT = 64 << 20,   /* bytes of output and of any one string */
    TN_JINJA_MAX_BYTES = 512 << 20, /* of values made on the way */
    TN_JINJA_MAX_RANGE = 100000,
};

typedef struct tn_jvar {
    tn_str name;
    tn_jval value;
    struct tn_jvar *next;
} tn_jvar;

typedef struct tn_jscope {
    tn_jvar *vars;
    struct tn_jscope *parent;
} tn_jscope;

struct tn_jinja {
    tn_arena arena;
    size_t bytes, steps;
    int depth, line;
    tn_jscope *scope;
    tn_buf text, mark; /* the output, and strings being built at its end; mark has a byte for each of text */
    enum { TN_JFLOW_ON, TN_JFLOW_BREAK, TN_JFLOW_CONTINUE } flow;
    tn_status status;
    tn_error *err;
};

/* Keeps the first failure, with the line at hand; returns undefined. */
tn_jval tn_jinja_fail(tn_jinja *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *tn_jinja_alloc(tn_jinja *c, size_t count, size_t size); /* zeroed; NULL: failed */
bool tn_jinja_work(tn_jinja *c, size_t items);                /* counts steps; false: failed, now or before */
bool tn_jinja_enter(tn_jinja *c); /* one level deeper, undone by c->depth--; false: failed */

void tn_jinja_run(tn_jinja *c, const tn_jnode *list);
tn_jval tn_jinja_call(tn_jinja *c, tn_jval callee, const tn_jargs *a);
tn_jval tn_jinja_attr(tn_jinja *c, tn_jval v, tn_str name);
tn_jval tn_jinja_item(tn_jinja *c, tn_jval v, tn_jval key);

/* Strings are built at the end of the output: at = c->text.n; ... emit ...; v = tn_jinja_take(c, at). */
void tn_jinja_emit(tn_jinja *c, const char *p, const unsigned char *mark, size_t n);
void tn_jinja_emit_value(tn_jinja *c, tn_jval v); /* as {{ v }} prints it */
void tn_jinja_emit_repr(tn_jinja *c, tn_jval v);  /* as it is printed inside a list */
tn_jval tn_jinja_take(tn_jinja *c, size_t at);

typedef struct tn_json_style {
    int indent; /* -1: on one line */
    bool sort_keys, ascii;
    tn_str between_items, after_key;
} tn_json_style;
void tn_jinja_emit_json(tn_jinja *c, tn_jval v, const tn_json_style *style, int level);

extern const tn_jval tn_jinja_undefined, tn_jinja_none;
tn_jval tn_jinja_bool(bool b);
tn_jval tn_jinja_int(int64_t i);
tn_jval tn_jinja_float(double f);
tn_jval tn_jinja_str(tn_str s);                            /* a view */
tn_jval tn_jinja_sub(tn_jval s, size_t begin, size_t end); /* bytes of a string */
tn_jval tn_jinja_to_str(tn_jinja *c, tn_jval v);
tn_jval tn_jinja_new(tn_jinja *c, tn_jkind kind); /* an empty list, tuple, dict or namespace */
void tn_jinja_push(tn_jinja *c, tn_jval list, tn_jval item);
void tn_jinja_put(tn_jinja *c, tn_jval dict, tn_jval key, tn_jval value);
/* NULL: not there. */
const tn_jval *tn_jinja_find(tn_jinja *c, const tn_jdict *d, tn_jval key);
const tn_jval *tn_jinja_find_str(tn_jinja *c, const tn_jdict *d, tn_str key);

static inline tn_str tn_jinja_view(tn_jval s) {
    return (tn_str){s.p, s.n};
}
static inline bool tn_jinja_is_list(tn_jval v) {
    return v.kind == TN_J_LIST || v.kind == TN_J_TUPLE;
}
const char *tn_jinja_type_name(tn_jval v); /* as Python calls it */
bool tn_jinja_truth(tn_jval v);
bool tn_jinja_number(tn_jval v, double *out); /* of a bool, int or float */
bool tn_jinja_equal(tn_jinja *c, tn_jval a, tn_jval b);
int tn_jinja_order(tn_jinja *c, tn_jval a, tn_jval b); /* < 0, 0, > 0; fails where they have none */
bool tn_jinja_contains(tn_jinja *c, tn_jval in, tn_jval what);
/* The items that a loop over v walks, as a list; fails where v has none. */
tn_jval tn_jinja_items(tn_jinja *c, tn_jval v);
size_t tn_jinja_length(tn_jinja *c, tn_jval v); /* as len(): of a string, its characters */
/* Bytes of the UTF-8 character at p (at least 1, at most `left`), and how many characters n bytes are. */
size_t tn_utf8_step(const char *p, size_t left);
size_t tn_utf8_count(const char *p, size_t n);

/* Argument i, or the one called name; `missing` where neither was given. */
tn_jval tn_jinja_arg(const tn_jargs *a, size_t i, const char *name, tn_jval missing);
int64_t tn_jinja_int_arg(tn_jinja *c, const tn_jargs *a, size_t i, const char *name, int64_t missing);

const tn_jbuiltin *tn_jinja_filter_find(tn_str name);
const tn_jbuiltin *tn_jinja_test_find(tn_str name);
const tn_jbuiltin *tn_jinja_method_find(tn_jkind kind, tn_str name);
const tn_jbuiltin *tn_jinja_global_find(tn_str name);
/* Runs a builtin after checking how many arguments it gets. */
tn_jval tn_jinja_apply(tn_jinja *c, const tn_jbuiltin *f, const char *what, tn_jval self, const tn_jargs *a);

/* Pieces of string work that filters and methods share. */
/* Without white space at its ends, or without the characters of a string. */
tn_jval tn_jinja_strip(tn_jinja *c, tn_jval s, tn_jval chars, bool left, bool right);
typedef enum tn_jcase { TN_JCASE_UPPER, TN_JCASE_LOWER, TN_JCASE_TITLE, TN_JCASE_CAPITALIZE } tn_jcase;
tn_jval tn_jinja_case(tn_jinja *c, tn_jval s, tn_jcase to);
tn_jval tn_jinja_replace(tn_jinja *c, tn_jval s, tn_jval from, tn_jval to, int64_t count);
tn_jval tn_jinja_join(tn_jinja *c, tn_jval items, tn_jval between);
tn_jval tn_jinja_format(tn_jinja *c, tn_jval format, const tn_jargs *a); /* %s and %d */
/* Offset of `what` in s from `at` on, or SIZE_MAX. */
size_t tn_jinja_search(tn_jinja *c, tn_str s, tn_str what, size_t at);

#endif
