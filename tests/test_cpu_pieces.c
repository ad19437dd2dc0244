/* The row and element kernels against what they mean, in double: every instruction set this machine has, odd sizes,
 * hostile data, in place, and in any cuts with the same bits. */
#include "backend/cpu/kernels/pieces.h"
#include "base/half.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { MAX = 640 };
static const int32_t g_sizes[] = {1, 7, 15, 16, 17, 63, 64, 576, 600};

static uint32_t g_seed;
static uint32_t random_bits(void) {
    g_seed = g_seed * 1664525u + 1013904223u;
    return g_seed >> 8;
}
static float uniform(float low, float high) {
    return low + (high - low) * (float)random_bits() / 16777216.0f;
}

/* ---- data ---------------------------------------------------------------------------------------------------------- */

typedef enum kind { SMALL, WIDE, DENORMAL, HUGE_ONES, EQUAL, ZERO, KINDS } kind;

static void fill(float *x, int32_t n, kind k) {
    for (int32_t j = 0; j < n; j++) {
        float sign = random_bits() & 1 ? 1.0f : -1.0f;
        x[j] = k == SMALL       ? uniform(-4, 4)
               : k == WIDE      ? uniform(-110, 110)
               : k == DENORMAL  ? sign * tn_bits_float(random_bits() & 0x7fffff)
               : k == HUGE_ONES ? sign * uniform(1e29f, 1e30f)
               : k == EQUAL     ? -1.3125f
                                : sign * 0.0f;
    }
}

/* ---- what the ops mean; the error they may make, relative to the result and absolute ------------------------------- */

typedef struct bound {
    double relative, absolute;
} bound;

#define EXP_OVERFLOW 3e-37 /* e^-x is infinite from 88.7 on, where x / (1 + e^-x) is this small */
#define DENORMAL_ULP 3e-45

static double silu(double x, double c) {
    return x / (1 + exp(-c * x));
}

static double element_value(tn_piece_op op, double x, double y, double f, bound *b) {
    *b = (bound){3e-7, DENORMAL_ULP};
    switch (op) {
    case TN_PIECE_add: *b = (bound){FLT_EPSILON / 2, 0}; return x + y;
    case TN_PIECE_mul: *b = (bound){FLT_EPSILON / 2, DENORMAL_ULP / 4}; return x * y;
    case TN_PIECE_scale: *b = (bound){FLT_EPSILON / 2, DENORMAL_ULP / 4}; return x * f;
    case TN_PIECE_silu: b->absolute = EXP_OVERFLOW; return silu(x, 1);
    case TN_PIECE_sigmoid: b->absolute = EXP_OVERFLOW / 80; return 1 / (1 + exp(-x));
    /* these round the exponent: relative to x, where the result is tiny */
    case TN_PIECE_gelu_quick: b->absolute = 1e-7 * fabs(x) + DENORMAL_ULP; return silu(x, 1.702);
    case TN_PIECE_gelu:
        b->absolute = 1e-7 * fabs(x) + DENORMAL_ULP;
        return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case TN_PIECE_softplus: return x > 20 ? x : log1p(exp(x));
    case TN_PIECE_softcap:
        b->absolute = f * DENORMAL_ULP / 4; /* x / f rounds, and is multiplied by f */
        return f * tanh(x / f);
    default: fail(); return 0;
    }
}

static const tn_piece_op g_element_ops[] = {
    TN_PIECE_add,     TN_PIECE_mul,      TN_PIECE_silu,  TN_PIECE_gelu,    TN_PIECE_gelu_quick,
    TN_PIECE_sigmoid, TN_PIECE_softplus, TN_PIECE_scale, TN_PIECE_softcap,
};

static void check(const char *what, tn_isa isa, double got, double want, bound b) {
    double error = fabs(got - want), may = b.relative * fabs(want) + b.absolute;
    if (error <= may || got == want) return; /* infinities are equal */
    if (fabs(want) > (double)FLT_MAX && isinf(got) && got * want > 0) return;
    fail_msg("%s, isa %d: %.9g instead of %.9g: error %.3g, bound %.3g", what, (int)isa, got, want, error, may);
}

/* ---- element ops --------------------------------------------------------------------------------------------------- */

static void test_element_ops_are_right(void **state) {
    (void)state;
    float x[MAX], y[MAX], got[MAX + 1];
    for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
        for (size_t o = 0; o < COUNT(g_element_ops); o++) {
            tn_piece_fn *fn = tn_piece_find(g_element_ops[o], isa);
            for (size_t s = 0; s < COUNT(g_sizes); s++) {
                for (kind k = 0; k < KINDS; k++) {
                    int32_t n = g_sizes[s];
                    fill(x, n, k);
                    fill(y, n, k);
                    got[n] = 12345;
                    tn_piece p = {.dst = got, .src = {x, y}, .n = n, .n_row = n, .f = {30}};
                    fn(&p);
                    assert_true(got[n] == 12345);
                    for (int32_t j = 0; j < n; j++) {
                        bound b;
                        double want = element_value(g_element_ops[o], (double)x[j], (double)y[j], 30, &b);
                        check(tn_piece_name(g_element_ops[o]), isa, (double)got[j], want, b);
                    }
                }
            }
        }
    }
}

/* All exponents, both signs: one float in 2^13 of them all. */
static void test_activations_over_all_floats(void **state) {
    (void)state;
    enum { N = 512 };
    float x[N], got[N];
    for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
        for (size_t o = 0; o < COUNT(g_element_ops); o++) {
            tn_piece p = {.dst = got, .src = {x, x}, .n = N, .n_row = N, .f = {30}};
            for (uint32_t high = 0; high < 0x80000; high += N) {
                for (uint32_t j = 0; j < N; j++) {
                    x[j] = tn_bits_float((high + j) << 13 | (random_bits() & 0x1fff));
                    if (!isfinite(x[j])) x[j] = 0;
                }
                tn_piece_find(g_element_ops[o], isa)(&p);
                for (uint32_t j = 0; j < N; j++) {
                    bound b;
                    double want = element_value(g_element_ops[o], (double)x[j], (double)x[j], 30, &b);
                    if (g_element_ops[o] == TN_PIECE_gelu && fabs((double)x[j]) > 1e12) want = fmax((double)x[j], 0);
                    check(tn_piece_name(g_element_ops[o]), isa, (double)got[j], want, b);
                }
            }
        }
    }
}

static void test_nan_stays(void **state) {
    (void)state;
    float x[19], got[19];
    for (int j = 0; j < 19; j++) x[j] = NAN;
    for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
        for (size_t o = 0; o < COUNT(g_element_ops); o++) {
            tn_piece p = {.dst = got, .src = {x, x}, .n = 19, .n_row = 19, .f = {30}};
            tn_piece_find(g_element_ops[o], isa)(&p);
            for (int j = 0; j < 19; j++) assert_true(isnan(got[j]));
        }
    }
}

/* Any cuts, any alignment, in place: the bits of the whole row. */
static void test_element_ops_in_cuts(void **state) {
    (void)state;
    float x[MAX], y[MAX], whole[MAX], cut[MAX], room[MAX + 16];
    int32_t n = 577;
    for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
        for (size_t o = 0; o < COUNT(g_element_ops); o++) {
            tn_piece_fn *fn = tn_piece_find(g_element_ops[o], isa);
            for (int round = 0; round < 30; round++) {
                fill(x, n, round % 2 ? SMALL : WIDE);
                fill(y, n, SMALL);
                tn_piece p = {.dst = whole, .src = {x, y}, .n = n, .n_row = n, .f = {30}};
                fn(&p);
                for (int32_t j = 0, m; j < n; j += m) {
                    m = 1 + (int32_t)(random_bits() % 70);
                    if (m > n - j) m = n - j;
                    float *at = room + random_bits() % 16;
                    memcpy(at, x + j, (size_t)m * sizeof *x);
                    fn(&(tn_piece){.dst = at, .src = {at, y + j}, .n = m, .first = j, .n_row = n, .f = {30}});
                    memcpy(cut + j, at, (size_t)m * sizeof *x);
                }
                assert_memory_equal(whole, cut, (size_t)n * sizeof *x);
            }
        }
    }
}

static void test_second_operand(void **state) {
    (void)state;
    static const int32_t periods[] = {1, 2, 5, 16, 48, 100, 576, 1000};
    float x[MAX], y[1000], got[MAX];
    int32_t n = 576;
    fill(x, n, SMALL);
    fill(y, 1000, SMALL);
    for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
        for (int is_mul = 0; is_mul < 2; is_mul++) {
            tn_piece_fn *fn = tn_piece_find(is_mul ? TN_PIECE_mul : TN_PIECE_add, isa);
            for (size_t k = 0; k < COUNT(periods); k++) {
                for (int32_t j = 0, m; j < n; j += m) {
                    m = 1 + (int32_t)(random_bits() % 150);
                    if (m > n - j) m = n - j;
                    fn(&(tn_piece){
                        .dst = got + j, .src = {x + j, y}, .n = m, .first = j, .n_row = n, .i = {periods[k]}});
                }
                for (int32_t j = 0; j < n; j++) {
                    float b = y[j % periods[k]];
                    assert_true(got[j] == (is_mul ? x[j] * b : x[j] + b));
                }
            }
            memcpy(got, y, sizeof got); /* the result over the second operand */
            fn(&(tn_piece){.dst = got, .src = {x, got}, .n = n, .n_row = n});
            for (int32_t j = 0; j < n; j++) assert_true(got[j] == (is_mul ? x[j] * y[j] : x[j] + y[j]));
        }
    }
}

/* ---- norms and softmax --------------------------------------------------------------------------------------------- */

static void check_norm(tn_piece_op op, tn_isa isa, const float *x, const float *got, int32_t group, double eps) {
    double sum = 0;
    for (int32_t j = 0; j < group; j++) sum += (double)x[j] * (double)x[j];
    double divisor = op == TN_PIECE_rms_norm ? sqrt(sum / group + eps) : fmax(sqrt(sum), eps);
    for (int32_t j = 0; j < group; j++) {
        check(tn_piece_name(op), isa, (double)got[j], (double)x[j] / divisor, (bound){2.5e-7, DENORMAL_ULP});
    }
}

static void test_norms(void **state) {
    (void)state;
    static const tn_piece_op ops[] = {TN_PIECE_rms_norm, TN_PIECE_l2_norm};
    float x[3 * MAX], got[3 * MAX], ref[3 * MAX];
    for (size_t o = 0; o < COUNT(ops); o++) {
        for (size_t s = 0; s < COUNT(g_sizes); s++) {
            for (kind k = 0; k < KINDS; k++) {
                int32_t group = g_sizes[s], n = 3 * group;
                float eps = ops[o] == TN_PIECE_rms_norm ? 1e-5f : 1e-12f;
                for (int g = 0; g < 3; g++) fill(x + g * group, group, g == 1 ? k : SMALL);
                for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
                    tn_piece_fn *fn = tn_piece_find(ops[o], isa);
                    fn(&(tn_piece){.dst = got, .src = {x}, .n = n, .n_row = n, .i = {group}, .f = {eps}});
                    for (int32_t j = 0; j < n; j += group)
                        check_norm(ops[o], isa, x + j, got + j, group, (double)eps);
                    if (isa == TN_ISA_REF) memcpy(ref, got, sizeof ref);
                    assert_memory_equal(ref, got, (size_t)n * sizeof *x); /* every set gives the same bits */
                    memcpy(got, x, sizeof got);                           /* in place, and one group by itself */
                    fn(&(tn_piece){.dst = got, .src = {got}, .n = n, .n_row = n, .i = {group}, .f = {eps}});
                    assert_memory_equal(ref, got, (size_t)n * sizeof *x);
                    fn(&(tn_piece){.dst = got, .src = {x + group}, .n = group, .n_row = n, .i = {group}, .f = {eps}});
                    assert_memory_equal(ref + group, got, (size_t)group * sizeof *x);
                }
            }
        }
    }
}

/* A sum of many: the place where a float would lose digits. */
static void test_norm_of_a_long_row(void **state) {
    (void)state;
    enum { N = 16384 };
    static float x[N], got[N];
    for (int j = 0; j < N; j++) x[j] = j % 3 ? uniform(0.9f, 1.0f) : uniform(-300, 300);
    for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
        tn_piece p = {.dst = got, .src = {x}, .n = N, .n_row = N, .i = {N}, .f = {1e-6f}};
        tn_piece_find(TN_PIECE_rms_norm, isa)(&p);
        check_norm(TN_PIECE_rms_norm, isa, x, got, N, (double)1e-6f);
    }
}

static void check_softmax(tn_isa isa, const float *x, int32_t n) {
    float got[MAX + 1], again[MAX];
    double max = -INFINITY, sum = 0;
    got[n] = 12345;
    tn_piece_fn *fn = tn_piece_find(TN_PIECE_softmax, isa);
    fn(&(tn_piece){.dst = got, .src = {x}, .n = n, .n_row = n});
    memcpy(again, x, (size_t)n * sizeof *x);
    fn(&(tn_piece){.dst = again, .src = {again}, .n = n, .n_row = n});
    assert_memory_equal(again, got, (size_t)n * sizeof *x);
    assert_true(got[n] == 12345);
    for (int32_t j = 0; j < n; j++) max = fmax(max, (double)x[j]);
    for (int32_t j = 0; j < n; j++) sum += exp((double)x[j] - max);
    for (int32_t j = 0; j < n; j++) {
        double below = max - (double)x[j]; /* its rounding goes into the exponent */
        if (isinf(x[j])) assert_true(got[j] == 0);
        bound b = {4e-7 + (below < 200 ? below * FLT_EPSILON / 2 : 0), DENORMAL_ULP};
        check("softmax", isa, (double)got[j], exp(-below) / sum, b);
    }
}

static void test_softmax(void **state) {
    (void)state;
    float x[MAX];
    for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
        for (size_t s = 0; s < COUNT(g_sizes); s++) {
            for (kind k = 0; k < KINDS; k++) {
                fill(x, g_sizes[s], k);
                check_softmax(isa, x, g_sizes[s]);
                for (int32_t j = 0; j < g_sizes[s]; j++) {
                    if (j % 3 != 0) x[j] = -INFINITY; /* masked */
                }
                check_softmax(isa, x, g_sizes[s]);
            }
        }
    }
}

/* ---- rope ---------------------------------------------------------------------------------------------------------- */

static void check_rope(int32_t head_dim, int32_t n_rot, bool neox) {
    float x[MAX], table[MAX], got[MAX], ref[MAX], room[MAX];
    int32_t n = 5 * head_dim;
    for (int32_t i = 0; i < n_rot / 2; i++) {
        float angle = uniform(0, 6.3f);
        table[2 * i] = cosf(angle);
        table[2 * i + 1] = sinf(angle);
    }
    fill(x, n, SMALL);
    for (tn_isa isa = TN_ISA_REF; isa <= tn_isa_best(); isa++) {
        tn_piece p = {.dst = got, .src = {x, table}, .n = n, .n_row = n, .i = {head_dim, n_rot, neox}};
        tn_piece_find(TN_PIECE_rope, isa)(&p);
        if (isa == TN_ISA_REF) memcpy(ref, got, sizeof ref);
        assert_memory_equal(ref, got, (size_t)n * sizeof *x);
        memcpy(room, x, sizeof room);
        p.dst = room;
        p.src[0] = room;
        tn_piece_find(TN_PIECE_rope, isa)(&p);
        assert_memory_equal(room, got, (size_t)n * sizeof *x);
    }
    for (int32_t j = 0; j < n; j++) {
        int32_t at = j % head_dim, head = j - at, pair = neox ? at % (n_rot / 2) : at / 2;
        if (at >= n_rot) {
            assert_true(got[j] == x[j]);
            continue;
        }
        bool second = neox ? at >= n_rot / 2 : at % 2;
        double a = (double)x[head + (neox ? pair : 2 * pair)], c = (double)table[2 * pair];
        double b = (double)x[head + (neox ? pair + n_rot / 2 : 2 * pair + 1)], s = (double)table[2 * pair + 1];
        check("rope", 0, (double)got[j], second ? a * s + b * c : a * c - b * s,
              (bound){0, 1.2e-7 * (fabs(a) + fabs(b))});
    }
}

static void test_rope(void **state) {
    (void)state;
    static const int32_t sizes[][2] = {{2, 2},   {8, 8},     {64, 64},  {80, 20},
                                       {96, 96}, {128, 128}, {128, 64}, {100, 34}};
    for (size_t k = 0; k < COUNT(sizes); k++) {
        check_rope(sizes[k][0], sizes[k][1], false);
        check_rope(sizes[k][0], sizes[k][1], true);
    }
}

/* Angles in extended precision. The bound is half a unit of the last place of 1, and what a double loses at 1e6. */
static void test_rope_table(void **state) {
    (void)state;
    static const float bases[] = {10000, 500000, 1000000};
    static const int32_t positions[] = {0, 1, 2, 1000, 4095, 131071, 999999, 1000000};
    float got[128], factors[64];
    for (int i = 0; i < 64; i++) factors[i] = 1 + (float)i / 8;
    for (size_t k = 0; k < COUNT(bases); k++) {
        for (size_t s = 0; s < COUNT(positions); s++) {
            for (int32_t n_rot = 2; n_rot <= 128; n_rot += 42) {
                for (int with = 0; with < 2; with++) {
                    float scale = with ? 0.25f : 1, attn = with ? 1.25f : 1;
                    tn_piece p = {.dst = got, .src = {with ? factors : NULL}, .n = n_rot, .n_row = n_rot};
                    p.i[0] = n_rot, p.i[1] = positions[s];
                    p.f[0] = bases[k], p.f[1] = scale, p.f[3] = attn;
                    tn_piece_find(TN_PIECE_rope_table, tn_isa_best())(&p);
                    for (int32_t i = 0; i < n_rot / 2; i++) {
                        long double angle = positions[s] * powl((long double)bases[k], -2.0L * i / n_rot) *
                                            (long double)scale / (with ? (long double)factors[i] : 1);
                        bound b = {6e-8, 2e-9};
                        check("rope_table", 0, (double)got[2 * i], (double)(cosl(angle) * (long double)attn), b);
                        check("rope_table", 0, (double)got[2 * i + 1], (double)(sinl(angle) * (long double)attn), b);
                    }
                }
            }
        }
    }
}

/* YaRN, its two ends found by counting turns: the last pair that turns at least beta_fast times within the original
 * context, the first that turns at most beta_slow times. */
static void test_rope_table_yarn(void **state) {
    (void)state;
    enum { N_ROT = 128, CONTEXT = 4096, POSITION = 30000 };
    float got[N_ROT];
    double base = 10000, s = 0.0625, low = 0, high = N_ROT - 1, mscale = 1 + 0.1 * log(1 / s);
    for (int i = 0; i < N_ROT; i++) {
        double turns = CONTEXT * pow(base, -2.0 * i / N_ROT) / 6.283185307179586477;
        if (turns >= 32) low = i;
        if (turns <= 1 && high == N_ROT - 1) high = i;
    }
    assert_true(low > 10 && low < high && high < N_ROT / 2); /* the example has all three regions */
    tn_piece p = {.dst = got, .n = N_ROT, .n_row = N_ROT, .i = {N_ROT, POSITION, CONTEXT}};
    p.f[0] = 10000, p.f[1] = 0.0625f, p.f[2] = 1, p.f[3] = 1, p.f[4] = 32, p.f[5] = 1;
    tn_piece_find(TN_PIECE_rope_table, tn_isa_best())(&p);
    for (int i = 0; i < N_ROT / 2; i++) {
        double frequency = pow(base, -2.0 * i / N_ROT), ramp = (i - low) / (high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        double angle = POSITION * (frequency * s * ramp + frequency * (1 - ramp));
        check("yarn", 0, (double)got[2 * i], cos(angle) * mscale, (bound){6e-8, 1e-9});
        check("yarn", 0, (double)got[2 * i + 1], sin(angle) * mscale, (bound){6e-8, 1e-9});
    }
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

static void test_find(void **state) {
    (void)state;
    for (tn_isa isa = TN_ISA_REF; isa < TN_ISA_COUNT; isa++) {
        for (tn_piece_op op = 0; op < TN_PIECE_COUNT; op++) assert_non_null(tn_piece_find(op, isa));
        for (tn_kv_type type = TN_KV_F16; type <= TN_KV_F32; type++) {
            assert_non_null(tn_kv_write_find(type, isa));
            assert_non_null(tn_attention_find(type, isa));
        }
    }
    assert_ptr_equal(tn_piece_find(TN_PIECE_silu, TN_ISA_REF), tn_silu__ref);
    assert_ptr_equal(tn_piece_find(TN_PIECE_rope_table, TN_ISA_COUNT - 1), tn_rope_table__ref);
    assert_string_equal(tn_piece_name(TN_PIECE_gelu_quick), "gelu_quick");
#ifdef __x86_64__
    assert_ptr_equal(tn_piece_find(TN_PIECE_silu, TN_ISA_AVX2), tn_silu__avx2);
    assert_ptr_equal(tn_piece_find(TN_PIECE_silu, TN_ISA_AVX512), tn_silu__avx512);
#elif defined(__aarch64__)
    assert_ptr_equal(tn_piece_find(TN_PIECE_silu, TN_ISA_NEON), tn_silu__neon);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_element_ops_are_right),
        cmocka_unit_test(test_activations_over_all_floats),
        cmocka_unit_test(test_nan_stays),
        cmocka_unit_test(test_element_ops_in_cuts),
        cmocka_unit_test(test_second_operand),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_norm_of_a_long_row),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_rope_table),
        cmocka_unit_test(test_rope_table_yarn),
        cmocka_unit_test(test_find),
    };
    return cmocka_run_group_tests_name("cpu_pieces", tests, NULL, NULL);
}
