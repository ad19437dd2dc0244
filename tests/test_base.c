/* The ground floor: half floats, buffers, arenas, memory, errors. */
#include "base/arena.h"
#include "base/error.h"
#include "base/half.h"
#include "base/mem.h"
#include "base/str.h"
#include "failing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- half floats: all of them, and the floats around each point where rounding turns -------------------------- */

/* What the bits mean, by the book. */
static double f16_value(uint16_t h) {
    int e = h >> 10 & 31, m = h & 1023;
    double v = e == 0 ? ldexp(m, -24) : e == 31 ? (m ? (double)NAN : (double)INFINITY) : ldexp(1024 + m, e - 25);
    return h & 0x8000 ? -v : v;
}

static double bf16_value(uint16_t h) {
    int e = h >> 7 & 255, m = h & 127;
    double v = e == 0 ? ldexp(m, -133) : e == 255 ? (m ? (double)NAN : (double)INFINITY) : ldexp(128 + m, e - 134);
    return h & 0x8000 ? -v : v;
}

static void test_f16_to_f32(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = tn_f16_to_f32((uint16_t)h);
        double want = f16_value((uint16_t)h);
        if (isnan(want)) {
            assert_true(isnan(f));
            assert_true((tn_f32_to_f16(f) & 0x7fff) > 0x7c00); /* stays one */
        } else {
            assert_true((double)f == want && !signbit(f) == !(h & 0x8000));
            assert_int_equal(tn_f32_to_f16(f), h);
        }
    }
}

static void test_bf16_to_f32(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = tn_bf16_to_f32((uint16_t)h);
        double want = bf16_value((uint16_t)h);
        if (isnan(want)) {
            assert_true(isnan(f));
            assert_true((tn_f32_to_bf16(f) & 0x7fff) > 0x7f80);
        } else {
            assert_true((double)f == want && !signbit(f) == !(h & 0x8000));
            assert_int_equal(tn_f32_to_bf16(f), h);
        }
    }
}

/* Between neighbours h and h + 1: below the middle goes down, above goes up, the middle itself to the even one. */
static void check_rounding(uint16_t (*from_f32)(float), uint32_t h, double below, double above) {
    float middle = (float)((below + above) / 2);
    assert_true((double)middle == (below + above) / 2);
    assert_int_equal(from_f32(middle), h + (h & 1));
    assert_int_equal(from_f32(nextafterf(middle, 0)), h);
    assert_int_equal(from_f32(nextafterf(middle, INFINITY)), h + 1);
    assert_int_equal(from_f32(-middle), (h + (h & 1)) | 0x8000);
    assert_int_equal(from_f32(-nextafterf(middle, 0)), h | 0x8000);
    assert_int_equal(from_f32(-nextafterf(middle, INFINITY)), (h + 1) | 0x8000);
}

/* Infinity follows the largest number as 2^16 (2^128) would. */
static void test_f32_to_f16(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        check_rounding(tn_f32_to_f16, h, f16_value((uint16_t)h), h == 0x7bff ? 65536 : f16_value((uint16_t)(h + 1)));
    }
    assert_int_equal(tn_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(tn_f32_to_f16(-3e38f), 0xfc00);
    assert_int_equal(tn_f32_to_f16(1e-45f), 0);
    assert_int_equal(tn_f32_to_f16(-0.0f), 0x8000);
}

static void test_f32_to_bf16(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7f80; h++) {
        double above = h == 0x7f7f ? 0x1p128 : bf16_value((uint16_t)(h + 1));
        check_rounding(tn_f32_to_bf16, h, bf16_value((uint16_t)h), above);
    }
    for (uint32_t low = 1; low < 0x10000; low += 17) { /* nan whose payload is in the half that is cut off */
        assert_true((tn_f32_to_bf16(tn_bits_float(0x7f800000 | low)) & 0x7fff) > 0x7f80);
    }
}

/* ---- buffers ----------------------------------------------------------------------------------------------------
 */

static void fill(tn_buf *b) {
    for (int i = 0; i < 500; i++) {
        tn_buf_printf(b, "%d,", i);
        tn_buf_str(b, "ab");
        tn_buf_char(b, ';');
        tn_buf_add(b, "\0x", 2);
    }
}

static void test_buf(void **state) {
    (void)state;
    tn_buf b = {0};
    tn_buf_add(&b, NULL, 0);
    assert_true(b.n == 0 && b.p && b.p[0] == 0);
    fill(&b);
    assert_false(b.failed);
    assert_int_equal(b.n, 10 * 7 + 90 * 8 + 400 * 9);
    assert_memory_equal(b.p, "0,ab;\0x1,ab;", 13);
    assert_memory_equal(b.p + b.n - 9, "499,ab;\0x", 10); /* and the final zero */
    tn_buf_free(&b);
    assert_true(b.p == NULL && b.n == 0 && b.cap == 0);
    tn_buf_free(&b);
}

static void test_buf_out_of_memory(void **state) {
    (void)state;
    for (tn_failing f = {0}; !f.done;) {
        tn_buf b = {0};
        tn_failing_start(&f);
        fill(&b);
        assert_int_equal(b.failed, tn_failing_stop(&f));
        if (b.p) assert_true(b.n < b.cap && b.p[b.n] == 0);
        size_t before = b.n;
        if (b.failed) tn_buf_char(&b, 'x'); /* stays as it is */
        assert_int_equal(b.n, before);
        tn_buf_free(&b);
        assert_true(f.n < 100);
    }
    tn_buf huge = {0};
    tn_buf_add(&huge, "x", SIZE_MAX);
    assert_true(huge.failed && huge.n == 0);
    tn_buf_free(&huge);
}

static void test_str(void **state) {
    (void)state;
    assert_true(tn_str_is(tn_str_of("ab"), "ab"));
    assert_false(tn_str_is(tn_str_of("ab"), "abc"));
    assert_false(tn_str_is(tn_str_of("ab"), "ac"));
    assert_true(tn_str_eq((tn_str){NULL, 0}, tn_str_of("")));
    assert_false(tn_str_is((tn_str){"a\0b", 3}, "a"));
}

/* ---- arenas and memory -------------------------------------------------------------------------------------------
 */

static void test_arena(void **state) {
    (void)state;
    tn_arena a = {0};
    unsigned char *p[400];
    for (size_t i = 0; i < 400; i++) {
        size_t n = i * i % 1000 + (i % 50 == 0 ? 100000 : 0);
        p[i] = tn_arena_alloc(&a, n);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        for (size_t k = 0; k < n; k++) assert_int_equal(p[i][k], 0);
        memset(p[i], (int)(i & 255), n);
    }
    for (size_t i = 0; i < 400; i++) {
        size_t n = i * i % 1000 + (i % 50 == 0 ? 100000 : 0);
        for (size_t k = 0; k < n; k++) assert_int_equal(p[i][k], i & 255);
    }
    assert_string_equal(tn_arena_printf(&a, "%s %d", "layer", 12), "layer 12");
    assert_null(tn_arena_alloc(&a, SIZE_MAX));
    assert_null(tn_arena_alloc(&a, SIZE_MAX - 20));
    tn_arena_free(&a);
    assert_null(a.blocks);
    tn_alloc_fail_after(0);
    void *none = tn_arena_alloc(&a, 8);
    const char *no_text = tn_arena_printf(&a, "x");
    tn_alloc_fail_after(-1);
    assert_null(none);
    assert_null(no_text);
    tn_arena_free(&a);
}

static void test_alloc(void **state) {
    (void)state;
    void *p = tn_alloc(0), *q = tn_alloc_zero(0, 8);
    assert_true(p && q);
    tn_free(p);
    tn_free(q);
    tn_free(NULL);
    char *s = tn_strndup("hello", 4);
    assert_string_equal(s, "hell");
#ifndef __SANITIZE_ADDRESS__ /* which ends the program here */
    assert_null(tn_alloc_zero(SIZE_MAX / 2, 4));
#endif
    tn_alloc_fail_after(2);
    void *one = tn_alloc(1), *two = tn_alloc_zero(1, 1), *three = tn_alloc(1), *four = tn_strndup("x", 1);
    void *moved = tn_realloc(s, 100), *pages = tn_alloc_pages(100);
    tn_alloc_fail_after(-1);
    assert_true(one && two && !three && !four && !moved && !pages);
    assert_string_equal(s, "hell"); /* a failed realloc leaves it */
    tn_free(one);
    tn_free(two);
    tn_free(s);
}

static void test_sizes(void **state) {
    (void)state;
    size_t r = 7;
    assert_true(tn_mul_size(SIZE_MAX / 3, 3, &r));
    assert_int_equal(r, SIZE_MAX / 3 * 3);
    r = 7;
    assert_false(tn_mul_size(SIZE_MAX / 2 + 1, 2, &r));
    assert_false(tn_add_size(SIZE_MAX, 1, &r));
    assert_int_equal(r, 7);
    assert_true(tn_add_size(SIZE_MAX - 1, 1, &r));
    assert_int_equal(r, SIZE_MAX);
    assert_int_equal(tn_align_up(0, 16), 0);
    assert_int_equal(tn_align_up(17, 16), 32);
}

static long mapped_pages(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld", &pages), 1);
    fclose(f);
    return pages;
}

/* Sizes on both sides of a huge page, whole pages and not: aligned, zeroed, usable to the last byte, given back. */
static void test_alloc_pages(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 4096, 5000, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, (5 << 20) + 12345};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        long before = 0;
        for (int again = 0; again < 50; again++) {
            unsigned char *p = tn_alloc_pages(sizes[i]);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % (sizes[i] >= 2 << 20 ? 2 << 20 : 64), 0);
            if (sizes[i]) {
                assert_int_equal(p[0] | p[sizes[i] / 2] | p[sizes[i] - 1], 0);
                p[0] = p[sizes[i] - 1] = 1;
            }
            tn_free_pages(p, sizes[i]);
            if (again == 0) before = mapped_pages();
        }
        assert_true(mapped_pages() - before < 256); /* 1 MiB: nothing of the 49 others is left */
    }
    tn_free_pages(NULL, 100);
    assert_null(tn_alloc_pages(SIZE_MAX - 100));
}

static void test_errors(void **state) {
    (void)state;
    tn_error err = {0};
    assert_int_equal(tn_fail(&err, TN_ERR_INPUT, "tensor %s: %d", "x", 3), TN_ERR_INPUT);
    assert_int_equal(err.code, TN_ERR_INPUT);
    assert_string_equal(err.text, "tensor x: 3");
    assert_int_equal(tn_fail(NULL, TN_ERR_USAGE, "nobody listens"), TN_ERR_USAGE);
    assert_int_equal(tn_fail(&err, TN_ERR_USAGE, "%0600d", 1), TN_ERR_USAGE);
    assert_int_equal(strlen(err.text), sizeof err.text - 1); /* cut, and still a string */
    assert_int_equal(tn_fail_memory(&err), TN_ERR_RESOURCES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16_to_f32),  cmocka_unit_test(test_bf16_to_f32),
        cmocka_unit_test(test_f32_to_f16),  cmocka_unit_test(test_f32_to_bf16),
        cmocka_unit_test(test_buf),         cmocka_unit_test(test_buf_out_of_memory),
        cmocka_unit_test(test_str),         cmocka_unit_test(test_arena),
        cmocka_unit_test(test_alloc),       cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_alloc_pages), cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
