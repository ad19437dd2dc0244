/* Damaged and malicious GGUF files: whatever the bytes are, opening gives an error that says where, or a model of
 * which every byte may be touched. Never a crash, a hang or an allocation that the file does not justify. */
#include "base/mem.h"
#include "gguf/gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- a file with every kind of key, arrays of each, and tensors of several types ---- */

typedef struct bytes {
    uint8_t *p;
    size_t n;
} bytes;

static bytes g_good;

static int read_good(void **state) {
    (void)state;
    FILE *f = fopen(TESTS_DIR "/data/gguf/all.gguf", "rb");
    if (!f) return -1;
    g_good.p = malloc(1 << 16);
    g_good.n = fread(g_good.p, 1, 1 << 16, f);
    fclose(f);
    return 0;
}

static int free_good(void **state) {
    (void)state;
    free(g_good.p);
    return 0;
}

/* ---- the one check ---- */

static uint64_t g_sink; /* what was read, so that reading is not optimised away */

static bool inside(const void *p, size_t n, bytes file) {
    const uint8_t *q = p;
    return n == 0 || (q >= file.p && n <= file.n && (size_t)(q - file.p) <= file.n - n);
}

static void touch(const void *p, size_t n, bytes file) {
    assert_true(inside(p, n, file));
    for (size_t i = 0; i < n; i++) g_sink += ((const uint8_t *)p)[i];
}

static void walk_kv(const tn_gguf *g, const tn_gguf_kv *kv, bytes file) {
    char *key = tn_strndup(kv->key.p, kv->key.n);
    assert_ptr_equal(tn_gguf_find(g, key), kv);
    tn_free(key);
    touch(kv->key.p, kv->key.n, file);
    if (kv->type == TN_GGUF_STR) touch(kv->str.p, kv->str.n, file);
    if (kv->type == TN_GGUF_BOOL) assert_true(kv->u <= 1);
    if (kv->type != TN_GGUF_ARRAY) return;
    assert_true(kv->array.type != TN_GGUF_ARRAY && kv->array.n <= file.n);
    for (uint64_t i = 0; i < kv->array.n; i++) {
        if (kv->array.strs) {
            touch(kv->array.strs[i].p, kv->array.strs[i].n, file);
        } else {
            assert_true(inside(kv->array.data, 1, file));
            g_sink += tn_gguf_array_number(&kv->array, i) > 0;
        }
    }
}

static void walk_tensor(const tn_gguf *g, const tn_gguf_tensor *t, bytes file) {
    assert_ptr_equal(tn_gguf_tensor_find(g, t->name), t);
    assert_true(t->n_dims >= 1 && t->n_dims <= 4);
    for (int i = 0; i < 4; i++) assert_true(t->ne[i] >= 1 && (i < t->n_dims || t->ne[i] == 1));
    const tn_type_info *type = tn_type_get(t->type);
    if (!type) {
        assert_true(!t->data && t->bytes == 0);
        return;
    }
    size_t row = tn_type_row_bytes((tn_type)t->type, (size_t)t->ne[0]);
    assert_int_equal(t->ne[0] % type->block, 0);
    assert_int_equal(t->bytes, row * (size_t)(t->ne[1] * t->ne[2] * t->ne[3]));
    touch(t->data, t->bytes, file);
}

static void walk(const tn_gguf *g, bytes file) {
    for (size_t i = 0; i < tn_gguf_n_kv(g); i++) walk_kv(g, tn_gguf_kv_at(g, i), file);
    for (size_t i = 0; i < tn_gguf_n_tensors(g); i++) walk_tensor(g, tn_gguf_tensor_at(g, i), file);
}

/* Opens a copy in a block of just its size, so that a sanitizer sees any byte too far. */
static tn_status try_open(const void *data, size_t n, tn_error *err) {
    bytes file = {malloc(n ? n : 1), n};
    assert_non_null(file.p);
    memcpy(file.p, data, n);
    tn_gguf *g = (tn_gguf *)&file;
    *err = (tn_error){0};
    tn_status status = tn_gguf_open_memory(&g, file.p, n, err);
    if (status) {
        assert_null(g);
        assert_int_equal(status, TN_ERR_INPUT); /* not: out of memory */
        assert_int_equal(err->code, status);
        for (const char *p = err->text; *p; p++) assert_in_range((uint8_t)*p, ' ', '~');
        assert_in_range(strlen(err->text), 10, sizeof err->text - 1);
    } else {
        walk(g, file);
        tn_gguf_close(&g);
    }
    free(file.p);
    return status;
}

/* ---- damage ---- */

static void test_good(void **state) {
    (void)state;
    tn_error err;
    assert_int_equal(try_open(g_good.p, g_good.n, &err), TN_OK);
}

/* Where the last tensor's data end; what follows is padding. */
static size_t good_end(void) {
    tn_gguf *g;
    size_t end = 0;
    assert_int_equal(tn_gguf_open_memory(&g, g_good.p, g_good.n, NULL), TN_OK);
    for (size_t i = 0; i < tn_gguf_n_tensors(g); i++) {
        const tn_gguf_tensor *t = tn_gguf_tensor_at(g, i);
        size_t e = (size_t)((const uint8_t *)t->data - g_good.p) + t->bytes;
        if (e > end) end = e;
    }
    tn_gguf_close(&g);
    return end;
}

static void test_truncated(void **state) {
    (void)state;
    tn_error err;
    size_t end = good_end();
    assert_in_range(end, g_good.n - 31, g_good.n);
    for (size_t n = 0; n <= g_good.n; n++) {
        assert_int_equal(try_open(g_good.p, n, &err), n < end ? TN_ERR_INPUT : TN_OK);
    }
}

static void test_flipped(void **state) {
    (void)state;
    tn_error err;
    for (size_t i = 0; i < g_good.n; i++) {
        uint8_t was = g_good.p[i];
        for (int k = 0; k < 10; k++) {
            g_good.p[i] = k == 8 ? 0 : k == 9 ? 0xff : (uint8_t)(was ^ 1 << k);
            try_open(g_good.p, g_good.n, &err);
        }
        g_good.p[i] = was;
    }
}

/* The ends of every integer's range at every byte: whichever count, length, size, type or offset is there, and with
 * the bytes around it. */
static void test_boundaries(void **state) {
    (void)state;
    tn_error err;
    const uint64_t values[] = {0,          1,         INT32_MAX,         (uint64_t)INT32_MAX + 1,
                               UINT32_MAX, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 31,
                               UINT64_MAX, g_good.n,  g_good.n / 8,      UINT64_C(1) << 61};
    for (size_t i = 0; i < g_good.n; i++) {
        for (size_t k = 0; k < 2 * COUNT(values); k++) {
            uint8_t was[8];
            size_t width = k % 2 ? 8 : 4;
            if (width > g_good.n - i) continue;
            memcpy(was, g_good.p + i, width);
            memcpy(g_good.p + i, &values[k / 2], width);
            try_open(g_good.p, g_good.n, &err);
            memcpy(g_good.p + i, was, width);
        }
    }
}

/* Several bytes at once, and pieces moved about. The sequence is always the same. */
static void test_scrambled(void **state) {
    (void)state;
    tn_error err;
    uint64_t r = 1;
    uint8_t *p = malloc(g_good.n);
    assert_non_null(p);
    for (int round = 0; round < 20000; round++) {
        memcpy(p, g_good.p, g_good.n);
        for (int k = 0; k <= round % 4; k++) {
            r = r * 6364136223846793005 + 1442695040888963407;
            size_t i = (size_t)(r >> 33) % g_good.n, j = (size_t)(r >> 13) % g_good.n, n = (size_t)(r >> 50) % 40;
            if (n > g_good.n - i) n = g_good.n - i;
            if (n > g_good.n - j) n = g_good.n - j;
            if (round % 2) {
                memmove(p + i, p + j, n);
            } else {
                p[i] = (uint8_t)(r >> 25);
            }
        }
        try_open(p, g_good.n, &err);
    }
    free(p);
}

/* ---- what an error says: files made by hand, each with one fault ---- */

static void u32(tn_buf *b, uint32_t v) {
    tn_buf_add(b, &v, sizeof v);
}
static void u64(tn_buf *b, uint64_t v) {
    tn_buf_add(b, &v, sizeof v);
}
static void str(tn_buf *b, const char *z) {
    u64(b, strlen(z));
    tn_buf_str(b, z);
}
static void header(tn_buf *b, uint64_t n_tensors, uint64_t n_kv) {
    tn_buf_str(b, "GGUF");
    u32(b, 3);
    u64(b, n_tensors);
    u64(b, n_kv);
}
static void key(tn_buf *b, const char *name, uint32_t type) {
    str(b, name);
    u32(b, type);
}
static void tensor(tn_buf *b, const char *name, uint64_t n, uint32_t type, uint64_t offset) {
    str(b, name);
    u32(b, 1);
    u64(b, n);
    u32(b, type);
    u64(b, offset);
}
static void zeros(tn_buf *b, size_t n) {
    while (n--) tn_buf_char(b, 0);
}
static void pad(tn_buf *b) {
    while (b->n % 32) tn_buf_char(b, 0);
}

static void many_keys(tn_buf *b) {
    header(b, 0, UINT64_MAX);
}
static void many_tensors(tn_buf *b) {
    header(b, UINT64_C(1) << 60, 0);
}
static void a_hundred_thousand_keys(tn_buf *b) {
    header(b, 0, 100000);
    zeros(b, 100000 * 14);
}
static void no_name(tn_buf *b) {
    header(b, 0, 1);
    key(b, "", TN_GGUF_U32);
    zeros(b, 20);
}
static void zero_in_name(tn_buf *b) {
    header(b, 0, 1);
    u64(b, 3);
    tn_buf_add(b, "a\0b", 3);
    zeros(b, 20);
}
static void long_name(tn_buf *b) {
    header(b, 0, 1);
    u64(b, 65536);
    for (int i = 0; i < 65536; i++) tn_buf_char(b, 'x');
    u32(b, TN_GGUF_U32);
    u32(b, 1);
}
static void strange_name(tn_buf *b) {
    header(b, 0, 1);
    key(b, "a\n\x1b[31m\xff", 13);
    zeros(b, 20);
}
static void clipped_name(tn_buf *b) {
    header(b, 0, 1);
    u64(b, 400);
    for (int i = 0; i < 400; i++) tn_buf_char(b, 'k');
    u32(b, 13);
    zeros(b, 20);
}
static void unknown_key_type(tn_buf *b) {
    header(b, 0, 1);
    key(b, "some.key", 13);
    zeros(b, 20);
}
static void same_keys(tn_buf *b) {
    header(b, 0, 2);
    key(b, "twin", TN_GGUF_U32);
    u32(b, 1);
    key(b, "twin", TN_GGUF_U8);
    zeros(b, 20);
}
static void long_string(tn_buf *b) {
    header(b, 0, 1);
    key(b, "some.key", TN_GGUF_STR);
    u64(b, UINT64_MAX);
}
static void long_array(tn_buf *b) {
    header(b, 0, 1);
    key(b, "some.key", TN_GGUF_ARRAY);
    u32(b, TN_GGUF_F64);
    u64(b, (UINT64_C(1) << 61) + 1); /* times 8 is 8 again */
    zeros(b, 8);
}
static void many_strings(tn_buf *b) {
    header(b, 0, 1);
    key(b, "some.key", TN_GGUF_ARRAY);
    u32(b, TN_GGUF_STR);
    u64(b, 3);
    zeros(b, 16);
}
static void nested_array(tn_buf *b) {
    header(b, 0, 1);
    key(b, "some.key", TN_GGUF_ARRAY);
    u32(b, TN_GGUF_ARRAY);
    u64(b, 0);
}
static void unknown_array_type(tn_buf *b) {
    header(b, 0, 1);
    key(b, "some.key", TN_GGUF_ARRAY);
    u32(b, 77);
    u64(b, 0);
}
static void neither_true_nor_false(tn_buf *b) {
    header(b, 0, 1);
    key(b, "some.key", TN_GGUF_BOOL);
    tn_buf_char(b, 2);
}
static void neither_in_array(tn_buf *b) {
    header(b, 0, 1);
    key(b, "some.key", TN_GGUF_ARRAY);
    u32(b, TN_GGUF_BOOL);
    u64(b, 3);
    tn_buf_add(b, "\0\1\2", 3);
}
static void aligned_to(tn_buf *b, uint32_t type, uint32_t alignment) {
    header(b, 1, 1);
    key(b, "general.alignment", type);
    u32(b, alignment);
    tensor(b, "x", 1, TN_TYPE_F32, 0);
    zeros(b, 100);
}
static void aligned_to_0(tn_buf *b) {
    aligned_to(b, TN_GGUF_U32, 0);
}
static void aligned_to_4(tn_buf *b) {
    aligned_to(b, TN_GGUF_U32, 4);
}
static void aligned_to_48(tn_buf *b) {
    aligned_to(b, TN_GGUF_U32, 48);
}
static void aligned_far(tn_buf *b) {
    aligned_to(b, TN_GGUF_U32, UINT32_C(1) << 31);
}
static void alignment_of_other_type(tn_buf *b) {
    aligned_to(b, TN_GGUF_F32, 32);
}

static void one_tensor(tn_buf *b, uint64_t n, uint32_t type, uint64_t offset) {
    header(b, 1, 0);
    tensor(b, "some.tensor", n, type, offset);
    pad(b);
    zeros(b, 64);
}
static void empty_dimension(tn_buf *b) {
    one_tensor(b, 0, TN_TYPE_F32, 0);
}
static void negative_dimension(tn_buf *b) {
    one_tensor(b, UINT64_MAX, TN_TYPE_F32, 0);
}
static void size_overflows(tn_buf *b) {
    one_tensor(b, INT64_MAX, TN_TYPE_F32, 0);
}
static void half_a_block(tn_buf *b) {
    one_tensor(b, 48, TN_TYPE_Q4_0, 0);
}
static void data_too_long(tn_buf *b) {
    one_tensor(b, 17, TN_TYPE_F32, 0);
}
static void data_too_far(tn_buf *b) {
    one_tensor(b, 9, TN_TYPE_F32, 32);
}
static void offset_overflows(tn_buf *b) {
    one_tensor(b, 16, TN_TYPE_F32, UINT64_MAX - 31);
}
static void offset_not_aligned(tn_buf *b) {
    one_tensor(b, 4, TN_TYPE_F32, 4);
}
static void no_dimensions(tn_buf *b) {
    header(b, 1, 0);
    str(b, "some.tensor");
    u32(b, 0);
    zeros(b, 64);
}
static void five_dimensions(tn_buf *b) {
    header(b, 1, 0);
    str(b, "some.tensor");
    u32(b, 5);
    zeros(b, 64);
}
static void product_overflows(tn_buf *b) {
    header(b, 1, 0);
    str(b, "some.tensor");
    u32(b, 4);
    for (int i = 0; i < 4; i++) u64(b, 65536 * 32); /* 2^84: wraps to 2^20, and the first three to the sign */
    u32(b, TN_TYPE_Q8_0);
    u64(b, 0);
    zeros(b, 64);
}
static void same_tensors(tn_buf *b) {
    header(b, 2, 0);
    tensor(b, "twin", 1, TN_TYPE_F32, 0);
    tensor(b, "twin", 1, TN_TYPE_F32, 32);
    zeros(b, 100);
}
static void overlapping(tn_buf *b) {
    header(b, 2, 0);
    tensor(b, "second", 1, TN_TYPE_F32, 32);
    tensor(b, "first", 9, TN_TYPE_F32, 0);
    zeros(b, 200);
}
static void split_count(tn_buf *b) {
    header(b, 0, 2);
    key(b, "split.no", TN_GGUF_U16);
    tn_buf_add(b, "\0", 2);
    key(b, "split.count", TN_GGUF_U16);
    tn_buf_add(b, "\xff\xff", 2);
}
static void split_without_number(tn_buf *b) {
    header(b, 0, 1);
    key(b, "split.count", TN_GGUF_U32);
    u32(b, UINT32_MAX);
}
static void split_of_text(tn_buf *b) {
    header(b, 0, 1);
    key(b, "split.count", TN_GGUF_STR);
    str(b, "two");
}

static const struct {
    void (*make)(tn_buf *b);
    const char *message;
} faults[] = {
    {many_keys, "header at byte 16: 18446744073709551615 keys are more than the file can hold"},
    {many_tensors, "header at byte 8: 1152921504606846976 tensors are more than the file can hold"},
    {a_hundred_thousand_keys, "header at byte 16: 100000 keys are too many"},
    {no_name, "key 1 at byte 24: its name is empty"},
    {zero_in_name, "key 1 at byte 24: its name holds a zero byte"},
    {long_name, "key 1 at byte 24: its name has 65536 bytes"},
    {strange_name, "key 'a??[31m?' at byte 40: unknown type 13"},
    {clipped_name, "kkk...' at byte 432: unknown type 13"},
    {unknown_key_type, "key 'some.key' at byte 40: unknown type 13"},
    {same_keys, "key 'twin' at byte 44: there is another one of this name"},
    {long_string, "key 'some.key' at byte 44: a string of 18446744073709551615 bytes runs past the end of the file"},
    {long_array, "key 'some.key' at byte 44: 2305843009213693953 elements run past the end of the file"},
    {many_strings, "key 'some.key' at byte 44: 3 strings run past the end of the file"},
    {nested_array, "key 'some.key' at byte 44: arrays of arrays are not supported"},
    {unknown_array_type, "key 'some.key' at byte 44: an array of unknown type 77"},
    {neither_true_nor_false, "key 'some.key' at byte 44: a boolean has the value 2"},
    {neither_in_array, "key 'some.key' at byte 58: a boolean has the value 2"},
    {aligned_to_0, "key 'general.alignment' at byte 32: 0 is not a power of two"},
    {aligned_to_4, "key 'general.alignment' at byte 32: 4 is not a power of two"},
    {aligned_to_48, "key 'general.alignment' at byte 32: 48 is not a power of two"},
    {aligned_far, "tensor 'x' at byte 57: 4 bytes at offset 0 run past the end of the file"},
    {alignment_of_other_type, "key 'general.alignment' at byte 32: its type is not u32"},
    {empty_dimension, "tensor 'some.tensor' at byte 47: dimension 0 has 0 elements"},
    {negative_dimension, "tensor 'some.tensor' at byte 47: dimension 0 has 18446744073709551615 elements"},
    {size_overflows, "tensor 'some.tensor' at byte 55: it has more bytes than can be counted"},
    {half_a_block,
     "tensor 'some.tensor' at byte 55: rows of 48 elements are not whole blocks of Q4_0, which have 32"},
    {data_too_long, "tensor 'some.tensor' at byte 24: 68 bytes at offset 0 run past the end of the file"},
    {data_too_far, "tensor 'some.tensor' at byte 24: 36 bytes at offset 32 run past the end of the file"},
    {offset_overflows, "tensor 'some.tensor' at byte 24: 64 bytes at offset 18446744073709551584 run past the end"},
    {offset_not_aligned, "tensor 'some.tensor' at byte 24: offset 4 is not a multiple of 32"},
    {no_dimensions, "tensor 'some.tensor' at byte 43: 0 dimensions"},
    {five_dimensions, "tensor 'some.tensor' at byte 43: 5 dimensions"},
    {product_overflows, "tensor 'some.tensor' at byte 63: it has more elements than can be counted"},
    {same_tensors, "tensor 'twin' at byte 60: there is another one of this name"},
    {overlapping, "tensor 'second' at byte 24: its data overlap those of another tensor"},
    {split_count, "split models cannot be read from memory"},
    {split_without_number, "key 'split.no' is missing"},
    {split_of_text, "key 'split.count' is not a count"},
};

static void test_messages(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++) {
        tn_buf b = {0};
        tn_error err;
        faults[i].make(&b);
        assert_false(b.failed);
        assert_int_equal(try_open(b.p, b.n, &err), TN_ERR_INPUT);
        if (!strstr(err.text, faults[i].message)) fail_msg("'%s' is not in '%s'", faults[i].message, err.text);
        tn_buf_free(&b);
    }
}

/* What is unusual but right. */
static void unordered(tn_buf *b) {
    header(b, 2, 0);
    tensor(b, "second", 8, TN_TYPE_F32, 32);
    tensor(b, "first", 8, TN_TYPE_F32, 0);
    pad(b);
    zeros(b, 64);
}
static void nothing(tn_buf *b) {
    header(b, 0, 0);
}
static void exactly_full(tn_buf *b) {
    one_tensor(b, 16, TN_TYPE_F32, 0);
}
static void smallest_alignment(tn_buf *b) {
    aligned_to(b, TN_GGUF_U32, 8);
}
static void large_alignment(tn_buf *b) {
    aligned_to(b, TN_GGUF_U32, 4096);
    zeros(b, 8192);
}

static void test_unusual(void **state) {
    (void)state;
    void (*const make[])(tn_buf *) = {unordered, nothing, exactly_full, smallest_alignment, large_alignment};
    for (size_t i = 0; i < COUNT(make); i++) {
        tn_buf b = {0};
        tn_error err;
        make[i](&b);
        if (try_open(b.p, b.n, &err)) fail_msg("%zu: %s", i, err.text);
        tn_buf_free(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),       cmocka_unit_test(test_truncated), cmocka_unit_test(test_flipped),
        cmocka_unit_test(test_boundaries), cmocka_unit_test(test_scrambled), cmocka_unit_test(test_messages),
        cmocka_unit_test(test_unusual),
    };
    return cmocka_run_group_tests(tests, read_good, free_good);
}
