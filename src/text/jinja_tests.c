/* Tests: value is name(arguments). */
#include "text/jinja.h"

#include <utf8proc.h>

#define TEST(name, condition)                                                                                        \
    static tn_jval test_##name(tn_jinja *c, tn_jval v, const tn_jargs *a) {                                          \
        (void)c, (void)v, (void)a;                                                                                   \
        return tn_jinja_bool(condition);                                                                             \
    }

static tn_jval other(const tn_jargs *a) {
    return tn_jinja_arg(a, 0, "other", tn_jinja_undefined);
}

static bool is_countable(tn_jval v) {
    return v.kind == TN_J_STR || tn_jinja_is_list(v) || v.kind == TN_J_DICT || v.kind == TN_J_UNDEFINED;
}

static bool divides(tn_jinja *c, tn_jval v, int64_t by) {
    if (v.kind != TN_J_INT || by == 0) {
        tn_jinja_fail(c, "only an integer can be tested so");
        return false;
    }
    return by == -1 || v.i % by == 0;
}

/* Some letter has a case, and none has the other one. */
static bool all_case(tn_jinja *c, tn_jval v, bool upper) {
    if (v.kind != TN_J_STR) v = tn_jinja_to_str(c, v);
    bool some = false;
    for (size_t i = 0, n; i < v.n && !c->status; i += n) {
        utf8proc_int32_t cp = 0;
        n = tn_utf8_step(v.p + i, v.n - i);
        if (utf8proc_iterate((const utf8proc_uint8_t *)v.p + i, (utf8proc_ssize_t)n, &cp) <= 0) continue;
        bool is_upper = utf8proc_tolower(cp) != cp, is_lower = utf8proc_toupper(cp) != cp;
        if (upper ? is_lower : is_upper) return false;
        some |= is_upper || is_lower;
    }
    return some;
}

TEST(defined, v.kind != TN_J_UNDEFINED)
TEST(undefined, v.kind == TN_J_UNDEFINED)
TEST(none, v.kind == TN_J_NONE)
TEST(boolean, v.kind == TN_J_BOOL)
TEST(true, v.kind == TN_J_BOOL && v.b)
TEST(false, v.kind == TN_J_BOOL && !v.b)
TEST(integer, v.kind == TN_J_INT)
TEST(float, v.kind == TN_J_FLOAT)
TEST(number, v.kind == TN_J_INT || v.kind == TN_J_FLOAT || v.kind == TN_J_BOOL)
TEST(string, v.kind == TN_J_STR)
TEST(mapping, v.kind == TN_J_DICT)
TEST(sequence, is_countable(v))
TEST(iterable, is_countable(v) || v.kind == TN_J_LOOP)
TEST(callable, v.kind == TN_J_MACRO || v.kind == TN_J_METHOD || v.kind == TN_J_LOOP)
TEST(in, tn_jinja_contains(c, other(a), v))
TEST(eq, tn_jinja_equal(c, v, other(a)))
TEST(ne, !tn_jinja_equal(c, v, other(a)))
TEST(lt, tn_jinja_order(c, v, other(a)) < 0)
TEST(le, tn_jinja_order(c, v, other(a)) <= 0)
TEST(gt, tn_jinja_order(c, v, other(a)) > 0)
TEST(ge, tn_jinja_order(c, v, other(a)) >= 0)
TEST(odd, !divides(c, v, 2))
TEST(even, divides(c, v, 2))
TEST(divisibleby, divides(c, v, tn_jinja_int_arg(c, a, 0, "num", 0)))
TEST(upper, all_case(c, v, true))
TEST(lower, all_case(c, v, false))
TEST(sameas, v.kind == other(a).kind && tn_jinja_equal(c, v, other(a)))

const tn_jbuiltin *tn_jinja_test_find(tn_str name) {
    static const tn_jbuiltin table[] = {{"defined", test_defined, 0, 0},
                                        {"undefined", test_undefined, 0, 0},
                                        {"none", test_none, 0, 0},
                                        {"boolean", test_boolean, 0, 0},
                                        {"true", test_true, 0, 0},
                                        {"false", test_false, 0, 0},
                                        {"integer", test_integer, 0, 0},
                                        {"float", test_float, 0, 0},
                                        {"number", test_number, 0, 0},
                                        {"string", test_string, 0, 0},
                                        {"mapping", test_mapping, 0, 0},
                                        {"sequence", test_sequence, 0, 0},
                                        {"iterable", test_iterable, 0, 0},
                                        {"callable", test_callable, 0, 0},
                                        {"in", test_in, 1, 1},
                                        {"eq", test_eq, 1, 1},
                                        {"equalto", test_eq, 1, 1},
                                        {"==", test_eq, 1, 1},
                                        {"ne", test_ne, 1, 1},
                                        {"!=", test_ne, 1, 1},
                                        {"lt", test_lt, 1, 1},
                                        {"lessthan", test_lt, 1, 1},
                                        {"<", test_lt, 1, 1},
                                        {"le", test_le, 1, 1},
                                        {"<=", test_le, 1, 1},
                                        {"gt", test_gt, 1, 1},
                                        {"greaterthan", test_gt, 1, 1},
                                        {">", test_gt, 1, 1},
                                        {"ge", test_ge, 1, 1},
                                        {">=", test_ge, 1, 1},
                                        {"odd", test_odd, 0, 0},
                                        {"even", test_even, 0, 0},
                                        {"divisibleby", test_divisibleby, 1, 1},
                                        {"upper", test_upper, 0, 0},
                                        {"lower", test_lower, 0, 0},
                                        {"sameas", test_sameas, 1, 1}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (tn_str_is(name, table[i].name)) return &table[i];
    }
    return NULL;
}
