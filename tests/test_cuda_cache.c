/* The cache of compiled CUDA code on disk, and what goes wrong while compiling: all without a device, through NVRTC. */
#include "backend/cuda/cuda.h"
#include "base/mem.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

extern const tn_backend tn_backend_cuda;

static const char g_tiny[] = "extern \"C\" __global__ void tiny(int *x) { x[threadIdx.x] = 7; }\n";

static tn_status compile_tiny(const tn_device *d, const char *source, tn_cuda_code *code, tn_error *err) {
    *code = (tn_cuda_code){.source = source, .name = "tiny"};
    return tn_cuda_compile_all(d, code, 1, err);
}

/* The only file of a folder. */
static void only_file(const char *folder, char *path, size_t size) {
    DIR *dir = opendir(folder);
    int n = 0;
    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir))
        if (e->d_name[0] != '.') n++, snprintf(path, size, "%s/%s", folder, e->d_name);
    closedir(dir);
    assert_int_equal(n, 1);
}

static void damage(const char *path, int how) {
    struct stat st;
    FILE *f = fopen(path, "r+b");
    assert_true(f && fstat(fileno(f), &st) == 0);
    long at = (long)st.st_size / 2;
    if (how == 0) {
        fseek(f, at, SEEK_SET);
        int c = fgetc(f);
        fseek(f, at, SEEK_SET);
        fputc(c ^ 1, f);
    }
    fclose(f);
    if (how == 1) assert_int_equal(truncate(path, at), 0);
    if (how == 2) assert_int_equal(truncate(path, 0), 0);
}

static void test_cache(void **state) {
    (void)state;
    char folder[] = "/tmp/tenon-cuda-XXXXXX", path[400];
    tn_device *d;
    tn_cuda_code first, code;
    tn_error err = {0};
    if (tn_cuda_open_offline(&d, 90, &err) == TN_ERR_UNAVAILABLE) skip();
    assert_non_null(mkdtemp(folder));
    d->cache_dir = tn_strndup(folder, strlen(folder));
    assert_int_equal(compile_tiny(d, g_tiny, &first, &err), TN_OK);
    assert_false(first.cached);
    for (int how = 0; how < 3; how++) {
        assert_int_equal(compile_tiny(d, g_tiny, &code, &err), TN_OK);
        assert_true(code.cached && code.bytes == first.bytes && !memcmp(code.cubin, first.cubin, first.bytes));
        tn_free(code.cubin);
        only_file(folder, path, sizeof path);
        damage(path, how);
        assert_int_equal(compile_tiny(d, g_tiny, &code, &err), TN_OK);
        assert_false(code.cached);
        tn_free(code.cubin);
    }
    assert_int_equal(compile_tiny(d, "extern \"C\" __global__ void tiny() { nonsense; }\n", &code, &err),
                     TN_ERR_INTERNAL);
    assert_non_null(strstr(err.text, "tiny does not compile for sm_90"));
    assert_non_null(strstr(err.text, "nonsense"));
    tn_free(first.cubin);
    unlink(path);
    rmdir(folder);
    assert_int_equal(compile_tiny(d, g_tiny, &code, &err), TN_OK); /* the folder is made anew */
    tn_free(code.cubin);
    unlink(path);
    rmdir(folder);
    tn_backend_cuda.close(&d);
}

static void test_architectures(void **state) {
    (void)state;
    tn_device *d;
    tn_error err = {0};
    if (tn_cuda_open_offline(&d, 90, &err) == TN_ERR_UNAVAILABLE) skip();
    tn_backend_cuda.close(&d);
    assert_int_equal(tn_cuda_open_offline(&d, 75, &err), TN_ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, "sm_75 is too old"));
    assert_null(d);
    assert_int_equal(tn_cuda_open_offline(&d, 999, &err), TN_ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, "has no sm_999"));
    assert_null(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_architectures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
