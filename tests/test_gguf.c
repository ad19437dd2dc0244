/* GGUF files: reading those of another writer (data/gguf), writing and reading back, split models, files that are not
 * GGUF at all, memory that runs out. What damaged files do is in test_gguf_hostile.c. */
#include "base/mem.h"
#include "failing.h"
#include "gguf/gguf.h"
#include "temp_dir.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define DATA     TESTS_DIR "/data/gguf/"

static uint8_t *read_bytes(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    uint8_t *p = malloc(*n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

static void write_bytes(const char *path, const void *p, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static tn_gguf *open_ok(const char *path) {
    tn_error err = {0};
    tn_gguf *g;
    if (tn_gguf_open(&g, path, &err)) fail_msg("%s", err.text);
    return g;
}

/* Opening fails with TN_ERR_INPUT and a message that holds `message`. */
static void assert_refused(const char *path, const char *message) {
    tn_error err = {0};
    tn_gguf *g = (tn_gguf *)&err;
    assert_int_equal(tn_gguf_open(&g, path, &err), TN_ERR_INPUT);
    assert_int_equal(err.code, TN_ERR_INPUT);
    assert_null(g);
    if (!strstr(err.text, message)) fail_msg("'%s' is not in '%s'", message, err.text);
    assert_null(strchr(err.text, '\n'));
}

/* ---- a file of another writer ---- */

static const struct {
    const char *name;
    tn_gguf_type type;
    uint64_t u;
    int64_t i;
    double f;
} scalars[] = {
    {"u8", TN_GGUF_U8, .u = 200},          {"i8", TN_GGUF_I8, .i = -100},
    {"u16", TN_GGUF_U16, .u = 60000},      {"i16", TN_GGUF_I16, .i = -30000},
    {"u32", TN_GGUF_U32, .u = 4000000000}, {"i32", TN_GGUF_I32, .i = -2000000000},
    {"u64", TN_GGUF_U64, .u = UINT64_MAX}, {"i64", TN_GGUF_I64, .i = INT64_MIN},
    {"f32", TN_GGUF_F32, .f = 0.5},        {"f64", TN_GGUF_F64, .f = 1e300},
    {"bool", TN_GGUF_BOOL, .u = 1},
};

static bool is_signed(tn_gguf_type t) {
    return t == TN_GGUF_I8 || t == TN_GGUF_I16 || t == TN_GGUF_I32 || t == TN_GGUF_I64;
}
static bool is_float(tn_gguf_type t) {
    return t == TN_GGUF_F32 || t == TN_GGUF_F64;
}

static void test_scalars(void **state) {
    (void)state;
    tn_gguf *g = open_ok(DATA "all.gguf");
    assert_int_equal(tn_gguf_version(g), 3);
    assert_int_equal(tn_gguf_file_bytes(g), 1504);
    assert_int_equal(tn_gguf_n_kv(g), 25);
    for (size_t k = 0; k < COUNT(scalars); k++) {
        char key[40];
        snprintf(key, sizeof key, "test.%s", scalars[k].name);
        const tn_gguf_kv *kv = tn_gguf_find(g, key);
        assert_non_null(kv);
        assert_true(tn_str_is(kv->key, key));
        assert_int_equal(kv->type, scalars[k].type);
        if (is_float(kv->type)) {
            assert_true(kv->f == scalars[k].f);
        } else if (is_signed(kv->type)) {
            assert_true(kv->i == scalars[k].i);
        } else {
            assert_true(kv->u == scalars[k].u);
        }
    }
    assert_null(tn_gguf_find(g, "test.u3"));
    assert_null(tn_gguf_find(g, "test.u322"));
    assert_null(tn_gguf_find(g, ""));
    tn_gguf_close(&g);
    assert_null(g);
    tn_gguf_close(&g);
}

static void test_arrays(void **state) {
    (void)state;
    tn_gguf *g = open_ok(DATA "all.gguf");
    for (size_t k = 0; k < COUNT(scalars); k++) {
        char key[40];
        tn_gguf_array a;
        tn_gguf_type type = scalars[k].type;
        snprintf(key, sizeof key, "test.array.%s", scalars[k].name);
        assert_false(tn_gguf_get_array(g, key, TN_GGUF_STR, &a));
        assert_true(tn_gguf_get_array(g, key, type, &a));
        assert_int_equal(a.n, 3);
        assert_null(a.strs);
        double want = is_float(type) ? scalars[k].f : is_signed(type) ? (double)scalars[k].i : (double)scalars[k].u;
        assert_true(tn_gguf_array_number(&a, 0) == want);
        assert_true(tn_gguf_array_number(&a, 1) == (type == TN_GGUF_BOOL ? 0 : 1));
        assert_true(tn_gguf_array_number(&a, 2) == want);
    }
    tn_gguf_array a;
    assert_true(tn_gguf_get_array(g, "test.array.str", TN_GGUF_STR, &a));
    assert_null(a.data);
    assert_int_equal(a.n, 3);
    assert_true(tn_str_is(a.strs[0], "h\xc3\xa9llo") && tn_str_is(a.strs[1], "") && tn_str_eq(a.strs[0], a.strs[2]));
    assert_false(tn_gguf_get_array(g, "test.u32", TN_GGUF_U32, &a));
    assert_false(tn_gguf_get_array(g, "none", TN_GGUF_U32, &a));
    tn_gguf_close(&g);
}

static void test_lookups(void **state) {
    (void)state;
    tn_gguf *g = open_ok(DATA "all.gguf");
    uint32_t u = 7;
    float f = 7;
    bool b = false;
    tn_str s = {0};
    assert_true(tn_gguf_get_u32(g, "test.u8", &u) && u == 200);
    assert_true(tn_gguf_get_u32(g, "test.u32", &u) && u == 4000000000);
    u = 7;
    const char *const not_u32[] = {"test.u64", "test.i8", "test.i64", "test.bool", "test.f32", "test.str", "none"};
    for (size_t i = 0; i < COUNT(not_u32); i++) assert_false(tn_gguf_get_u32(g, not_u32[i], &u));
    assert_int_equal(u, 7);
    assert_false(tn_gguf_get_f32(g, "test.u32", &f));
    assert_true(f == 7);
    assert_true(tn_gguf_get_f32(g, "test.f32", &f) && f == 0.5f);
    assert_true(tn_gguf_get_bool(g, "test.bool", &b) && b);
    assert_false(tn_gguf_get_bool(g, "test.u8", &b));
    assert_true(tn_gguf_get_str(g, "test.str", &s) && tn_str_is(s, "h\xc3\xa9llo"));
    assert_false(tn_gguf_get_str(g, "test.array.str", &s));
    tn_gguf_close(&g);
}

/* What data/gguf/make.py put into the tensors. */
static float ramp(int i) {
    return (float)(i - 64) / 8;
}

static void test_tensors(void **state) {
    (void)state;
    static const struct {
        const char *name;
        tn_type type;
        int n_dims;
        int64_t ne[4];
        int n;
        float tolerance;
    } want[] = {
        {"one", TN_TYPE_F32, 1, {3, 1, 1, 1}, 3, 0},
        {"two.weight", TN_TYPE_F16, 2, {4, 2, 1, 1}, 8, 0},
        {"three", TN_TYPE_Q8_0, 3, {64, 1, 2, 1}, 128, 8.0f / 127},
        {"four", TN_TYPE_Q4_0, 4, {32, 2, 1, 2}, 128, 1.01f},
    };
    tn_gguf *g = open_ok(DATA "all.gguf");
    assert_int_equal(tn_gguf_n_tensors(g), COUNT(want));
    for (size_t i = 0; i < COUNT(want); i++) {
        float x[128];
        const tn_gguf_tensor *t = tn_gguf_tensor_at(g, i);
        assert_ptr_equal(tn_gguf_tensor_find(g, want[i].name), t);
        assert_string_equal(t->name, want[i].name);
        assert_int_equal(t->type, want[i].type);
        assert_int_equal(t->n_dims, want[i].n_dims);
        assert_memory_equal(t->ne, want[i].ne, sizeof t->ne);
        assert_int_equal(t->bytes, tn_type_row_bytes(want[i].type, (size_t)want[i].n));
        assert_int_equal((uintptr_t)t->data % 32, 0);
        for (int again = 0; again < 2; again++) { /* a dropped page comes back */
            tn_type_get(t->type)->decode(t->data, x, (size_t)want[i].n);
            for (int k = 0; k < want[i].n; k++) assert_float_equal(x[k], ramp(k), want[i].tolerance);
            tn_gguf_drop_pages(g, t->data, t->bytes);
        }
    }
    assert_null(tn_gguf_tensor_find(g, "two"));
    tn_gguf_close(&g);
}

/* From memory nothing may be dropped; an older version reads the same. */
static void test_memory_and_version_2(void **state) {
    (void)state;
    size_t n;
    uint8_t *bytes = read_bytes(DATA "all.gguf", &n);
    bytes[4] = 2;
    tn_gguf *g;
    assert_int_equal(tn_gguf_open_memory(&g, bytes, n, NULL), TN_OK);
    assert_int_equal(tn_gguf_version(g), 2);
    assert_int_equal(tn_gguf_file_bytes(g), n);
    const tn_gguf_tensor *t = tn_gguf_tensor_find(g, "one");
    tn_gguf_drop_pages(g, t->data, t->bytes);
    float x;
    memcpy(&x, t->data, sizeof x);
    assert_true(x == -8);
    tn_gguf_close(&g);
    free(bytes);
}

/* A type that this build cannot decode is an entry like any other, without data. */
static void test_unknown_type(void **state) {
    (void)state;
    size_t n;
    uint8_t *bytes = read_bytes(DATA "all.gguf", &n);
    const uint8_t name[] = {3, 0, 0, 0, 0, 0, 0, 0, 'o', 'n', 'e', 1};
    uint8_t *at = memmem(bytes, n, name, sizeof name);
    assert_non_null(at);
    at += 11 + 4 + 8; /* its name, number of dimensions and size */
    const uint32_t types[] = {16, 63, 64, 1000000, UINT32_MAX};
    for (size_t i = 0; i < COUNT(types); i++) {
        tn_gguf *g;
        memcpy(at, &types[i], 4);
        assert_int_equal(tn_gguf_open_memory(&g, bytes, n, NULL), TN_OK);
        const tn_gguf_tensor *t = tn_gguf_tensor_find(g, "one");
        assert_true(t->type == types[i] && t->ne[0] == 3 && !t->data && t->bytes == 0);
        tn_gguf_drop_pages(g, t->data, t->bytes);
        tn_gguf_close(&g);
    }
    free(bytes);
}

/* ---- split models ---- */

static void copy(const char *from, const char *to) {
    size_t n;
    uint8_t *bytes = read_bytes(from, &n);
    write_bytes(to, bytes, n);
    free(bytes);
}

static void test_split(void **state) {
    (void)state;
    tn_gguf *g = open_ok(DATA "split-00001-of-00003.gguf");
    assert_int_equal(tn_gguf_n_tensors(g), 5);
    assert_int_equal(tn_gguf_n_kv(g), 4);
    assert_int_equal(tn_gguf_file_bytes(g), 320 + 256 + 192);
    for (int i = 0; i < 5; i++) {
        char name[16];
        float x[4];
        snprintf(name, sizeof name, "t%d", i);
        const tn_gguf_tensor *t = tn_gguf_tensor_find(g, name);
        assert_ptr_equal(t, tn_gguf_tensor_at(g, (size_t)i));
        memcpy(x, t->data, sizeof x);
        assert_true(x[0] == (float)i && x[3] == (float)i);
        tn_gguf_drop_pages(g, t->data, t->bytes);
    }
    tn_gguf_close(&g);
}

static void test_split_refused(void **state) {
    (void)state;
    const char *first = temp("m-00001-of-00003.gguf"), *second = temp("m-00002-of-00003.gguf");
    const char *third = temp("m-00003-of-00003.gguf");
    assert_refused(DATA "split-00002-of-00003.gguf", "part 2 of 3 of a model: open the first");
    copy(DATA "split-00001-of-00003.gguf", first);
    assert_refused(first, "m-00002-of-00003.gguf: No such file");
    copy(DATA "split-00002-of-00003.gguf", second);
    copy(DATA "split-00002-of-00003.gguf", third);
    assert_refused(first, "tensor 't2' at byte");
    copy(DATA "all.gguf", third);
    assert_refused(first, "m-00003-of-00003.gguf: it says that it is part 1 of 1");
    copy(DATA "split-00003-of-00003.gguf", third);
    tn_gguf *g = open_ok(first);
    tn_gguf_close(&g);
    size_t n;
    uint8_t *bytes = read_bytes(first, &n);
    uint8_t *total = memmem(bytes, n, "split.tensors.count", 19);
    assert_non_null(total);
    total[19 + 4] = 6;
    write_bytes(first, bytes, n);
    assert_refused(first, "its 3 parts have 5 tensors instead of 6");
    free(bytes);
    unlink(second);
    unlink(third);
    const char *other = temp("model.gguf");
    rename(first, other);
    assert_refused(other, "is not called NAME-00001-of-00003.gguf");
    unlink(other);
}

/* ---- not GGUF ---- */

static void test_not_gguf(void **state) {
    (void)state;
    const char *path = temp("file");
    assert_refused(g_dir, ": is a directory");
    assert_refused(path, ": No such file or directory");
    assert_refused("", ": No such file or directory");
    assert_refused("/dev/null", "is not a file");
    write_bytes(path, "", 0);
    assert_refused(path, "the file is empty");
    write_bytes(path, "GGU", 3);
    assert_refused(path, "not a GGUF file");
    write_bytes(path, "Dear diary,\n", 12);
    assert_refused(path, "not a GGUF file");
    write_bytes(path, "version https://git-lfs.github.com/spec/v1\n", 43);
    assert_refused(path, "Git LFS");
    write_bytes(path, "GGUF\0\0\0\3", 8);
    assert_refused(path, "big-endian");
    write_bytes(path, "GGUF\1\0\0\0", 8);
    assert_refused(path, "version 1 is not supported");
    write_bytes(path, "GGUF\4\0\0\0", 8);
    assert_refused(path, "version 4 is not supported");
    write_bytes(path, "GGUF\3\0\0\0", 8);
    assert_refused(path, "header at byte 8");
    unlink(path);
    mkfifo(path, 0600);
    assert_refused(path, "is not a file");
    unlink(path);
    char longest[3000];
    memset(longest, 'x', sizeof longest);
    longest[10] = '\n';
    longest[sizeof longest - 1] = 0;
    assert_refused(longest, "File name too long");
    write_bytes(temp("new\nline"), "x", 1);
    assert_refused(temp("new\nline"), "new?line: not a GGUF file");
    unlink(temp("new\nline"));
}

/* ---- writing ---- */

static tn_status fill_tensor(void *data, const tn_gguf_tensor *t, void *dst, tn_error *err) {
    const tn_gguf *g = data;
    if (!g) return tn_fail(err, TN_ERR_CHECK, "no %s today", t->name);
    const tn_gguf_tensor *from = tn_gguf_tensor_find(g, t->name);
    assert_int_equal(from->bytes, t->bytes);
    memcpy(dst, from->data, t->bytes);
    return TN_OK;
}

/* A file of the other writer, read and written again, is the same to the byte. */
static void test_rewrite(void **state) {
    (void)state;
    const char *path = temp("again.gguf");
    tn_gguf *g = open_ok(DATA "all.gguf");
    tn_gguf_writer *w;
    assert_int_equal(tn_gguf_writer_open(&w, NULL), TN_OK);
    for (size_t i = 0; i < tn_gguf_n_kv(g); i++) tn_gguf_put(w, tn_gguf_kv_at(g, i));
    for (size_t i = 0; i < tn_gguf_n_tensors(g); i++) {
        tn_gguf_tensor t = *tn_gguf_tensor_at(g, i);
        if (i % 2) t.data = NULL;
        tn_gguf_put_tensor(w, &t, i % 2 ? fill_tensor : NULL, g);
    }
    for (int again = 0; again < 2; again++) assert_int_equal(tn_gguf_writer_save(w, path, NULL), TN_OK);
    tn_gguf_writer_close(&w);
    assert_null(w);
    tn_gguf_close(&g);
    size_t n, m;
    uint8_t *a = read_bytes(DATA "all.gguf", &n), *b = read_bytes(path, &m);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    free(a);
    free(b);
    unlink(path);
}

static void test_write(void **state) {
    (void)state;
    const char *path = temp("new.gguf");
    char key[] = "a.key", name[] = "w";
    float data[6] = {1, 2, 3, 4, 5, 6};
    tn_gguf_writer *w;
    assert_int_equal(tn_gguf_writer_open(&w, NULL), TN_OK);
    tn_gguf_put_u32(w, "general.alignment", 128);
    tn_gguf_put_str(w, key, "text");
    tn_gguf_put_f32(w, "f", 0.1f);
    tn_gguf_put_bool(w, "b", true);
    tn_gguf_put(w, &(tn_gguf_kv){.key = tn_str_of("none"), .type = TN_GGUF_ARRAY, .array = {.type = TN_GGUF_STR}});
    tn_gguf_put_tensor(w, &(tn_gguf_tensor){.name = name, .n_dims = 2, .ne = {3, 2, 1, 1}, .data = data}, NULL, NULL);
    key[0] = name[0] = '?'; /* names were copied */
    tn_gguf_put_tensor(w, &(tn_gguf_tensor){.name = "v", .n_dims = 1, .ne = {2, 9, 9, 9}, .data = data}, NULL, NULL);
    assert_int_equal(tn_gguf_writer_save(w, path, NULL), TN_OK);
    tn_gguf_writer_close(&w);
    tn_gguf *g = open_ok(path);
    float f;
    bool b;
    tn_str s;
    tn_gguf_array a;
    assert_true(tn_gguf_get_str(g, "a.key", &s) && tn_str_is(s, "text"));
    assert_true(tn_gguf_get_f32(g, "f", &f) && f == 0.1f);
    assert_true(tn_gguf_get_bool(g, "b", &b) && b);
    assert_true(tn_gguf_get_array(g, "none", TN_GGUF_STR, &a) && a.n == 0);
    assert_int_equal(tn_gguf_n_kv(g), 5);
    const tn_gguf_tensor *t = tn_gguf_tensor_find(g, "w"), *v = tn_gguf_tensor_find(g, "v");
    assert_true(t && t->bytes == 24 && t->ne[1] == 2 && v && v->bytes == 8 && v->ne[1] == 1);
    assert_memory_equal(t->data, data, sizeof data);
    assert_int_equal((const char *)v->data - (const char *)t->data, 128);
    tn_gguf_close(&g);
    unlink(path);
}

/* Fails to save, and leaves nothing behind (remove_dir would fail). */
static void assert_not_saved(tn_gguf_writer *w, const char *path, tn_status status, const char *message) {
    tn_error err = {0};
    assert_int_equal(tn_gguf_writer_save(w, path, &err), status);
    if (!strstr(err.text, message)) fail_msg("'%s' is not in '%s'", message, err.text);
    assert_int_equal(access(path, F_OK), strcmp(path, g_dir) == 0 ? 0 : -1);
    tn_gguf_writer_close(&w);
}

static tn_gguf_writer *new_writer(void) {
    tn_gguf_writer *w;
    assert_int_equal(tn_gguf_writer_open(&w, NULL), TN_OK);
    return w;
}

static void test_write_refused(void **state) {
    (void)state;
    const char *path = temp("bad.gguf");
    float data[64] = {0};
    tn_gguf_tensor t = {.name = "x", .n_dims = 1, .ne = {32, 1, 1, 1}, .data = data};
    tn_gguf_writer *w = new_writer();
    tn_gguf_put_u32(w, "k", 1);
    tn_gguf_put_bool(w, "k", true);
    assert_not_saved(w, path, TN_ERR_USAGE, "key 'k' is written twice");
    w = new_writer();
    tn_gguf_put_u32(w, "general.alignment", 24);
    assert_not_saved(w, path, TN_ERR_USAGE, "general.alignment");
    w = new_writer();
    tn_gguf_put_tensor(w, &t, NULL, NULL);
    tn_gguf_put_tensor(w, &t, NULL, NULL);
    assert_not_saved(w, path, TN_ERR_USAGE, "tensor 'x' is written twice");
    const tn_gguf_tensor bad[] = {
        {.name = "x", .n_dims = 1, .ne = {32, 1, 1, 1}},                                     /* no data */
        {.name = "x", .n_dims = 1, .ne = {32, 1, 1, 1}, .data = data, .type = 16},           /* unknown type */
        {.name = "x", .n_dims = 1, .ne = {33, 1, 1, 1}, .data = data, .type = TN_TYPE_Q8_0}, /* half a block */
        {.name = "x", .n_dims = 1, .ne = {0, 1, 1, 1}, .data = data},                        /* nothing */
        {.name = "x", .n_dims = 0, .ne = {1, 1, 1, 1}, .data = data},                        /* no dimensions */
        {.name = "x", .n_dims = 3, .ne = {1 << 30, 1 << 30, 1 << 30, 1}, .data = data},      /* overflows */
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        w = new_writer();
        tn_gguf_put_tensor(w, &bad[i], NULL, NULL);
        assert_not_saved(w, path, TN_ERR_USAGE, "tensor 'x' cannot be written");
    }
    w = new_writer();
    tn_gguf_put_tensor(w, &t, fill_tensor, NULL);
    assert_not_saved(w, path, TN_ERR_CHECK, "no x today");
    assert_not_saved(new_writer(), "/nonexistent/x.gguf", TN_ERR_INPUT, "cannot be created");
    assert_not_saved(new_writer(), g_dir, TN_ERR_INPUT, "is not a file");
}

/* Seconds of the process for a writer to take n keys and n tensors, the last of which it has already. */
static double seconds_to_put(size_t n) {
    static float data[1];
    tn_gguf_tensor t = {.n_dims = 1, .ne = {1, 1, 1, 1}, .data = data};
    tn_gguf_writer *w = new_writer();
    char name[32];
    clock_t begin = clock();
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "name.%zu", i % (n - 1));
        t.name = name;
        if (i < n - 1) tn_gguf_put_u32(w, name, 1);
        tn_gguf_put_tensor(w, &t, NULL, NULL);
    }
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    assert_not_saved(w, temp("many.gguf"), TN_ERR_USAGE, "tensor 'name.0' is written twice");
    return seconds;
}

/* Ten times as many names take some ten times as long. The best of four tries counts. */
static void test_write_many(void **state) {
    (void)state;
    double few = 0, many = 0;
    for (int tries = 0; tries < 4; tries++) {
        few = seconds_to_put(3000);
        many = seconds_to_put(30000);
        if (many < 20 * few + 0.05) return;
    }
    fail_msg("3000 names: %.3f s, 30000: %.3f s", few, many);
}

/* The disk is full: here, a limit on the size of files. */
static void test_write_fails(void **state) {
    (void)state;
    static float data[1 << 16];
    struct rlimit was, small = {.rlim_cur = 1000};
    tn_gguf_tensor t = {.name = "x", .n_dims = 1, .ne = {1 << 16, 1, 1, 1}, .data = data};
    tn_gguf_writer *w = new_writer();
    tn_gguf_put_tensor(w, &t, NULL, NULL);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small.rlim_max = was.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_not_saved(w, temp("large.gguf"), TN_ERR_RESOURCES, "large.gguf: cannot be written: File too large");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    signal(SIGXFSZ, SIG_DFL);
}

/* ---- memory that runs out ---- */

/* Keys, strings and tensors enough that every kind of allocation happens more than once. */
static tn_status write_big(const char *path, tn_error *err) {
    enum { STRINGS = 5000, TENSORS = 100 };
    static tn_str strs[STRINGS];
    static float data[4];
    tn_gguf_writer *w;
    tn_status status = tn_gguf_writer_open(&w, err);
    if (status) return status;
    for (int i = 0; i < STRINGS; i++) strs[i] = tn_str_of("token");
    tn_gguf_array array = {.type = TN_GGUF_STR, .n = STRINGS, .strs = strs};
    tn_gguf_put(w, &(tn_gguf_kv){.key = tn_str_of("tokens"), .type = TN_GGUF_ARRAY, .array = array});
    for (int i = 0; i < TENSORS; i++) {
        char name[1000];
        snprintf(name, sizeof name, "%0999d", i);
        tn_gguf_tensor t = {.name = name, .n_dims = 1, .ne = {4, 1, 1, 1}, .data = data};
        tn_gguf_put_tensor(w, &t, NULL, NULL);
    }
    status = tn_gguf_writer_save(w, path, err);
    tn_gguf_writer_close(&w);
    return status;
}

static void test_no_memory_to_write(void **state) {
    (void)state;
    const char *path = temp("w.gguf");
    tn_failing f = {0};
    while (!f.done) {
        tn_error err = {0};
        tn_failing_start(&f);
        tn_status status = write_big(path, &err);
        assert_int_equal(status, tn_failing_stop(&f) ? TN_ERR_RESOURCES : TN_OK);
        assert_int_equal(err.code, status);
        assert_int_equal(access(path, F_OK), status ? -1 : 0);
        unlink(path);
    }
    assert_true(f.n > 10);
}

/* Opens `path` with each allocation failing; returns how many it takes. */
static long count_allocations(const char *path) {
    tn_failing f = {0};
    while (!f.done) {
        tn_error err = {0};
        tn_gguf *g = (tn_gguf *)&err;
        tn_failing_start(&f);
        tn_status status = tn_gguf_open(&g, path, &err);
        assert_int_equal(status, tn_failing_stop(&f) ? TN_ERR_RESOURCES : TN_OK);
        assert_int_equal(err.code, status);
        assert_int_equal(g != NULL, status == TN_OK);
        tn_gguf_close(&g);
    }
    return f.n;
}

static void test_no_memory_to_read(void **state) {
    (void)state;
    const char *path = temp("r.gguf");
    assert_int_equal(write_big(path, NULL), TN_OK);
    assert_true(count_allocations(path) >= 4);
    unlink(path);
    assert_true(count_allocations(DATA "all.gguf") >= 2);
    assert_true(count_allocations(DATA "split-00001-of-00003.gguf") >= 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_lookups),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_memory_and_version_2),
        cmocka_unit_test(test_unknown_type),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_split_refused),
        cmocka_unit_test(test_not_gguf),
        cmocka_unit_test(test_rewrite),
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_write_refused),
        cmocka_unit_test(test_write_many),
        cmocka_unit_test(test_write_fails),
        cmocka_unit_test(test_no_memory_to_write),
        cmocka_unit_test(test_no_memory_to_read),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
