/* Source text -> machine code: NVRTC, several at a time, and a cache on disk keyed by everything the code depends on: the
 * whole source (ops, shapes and all), the architecture, the compiler's version and options. A file that is not as it was
 * written is compiled anew. */
#include "backend/cuda/cuda.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHARED(name) extern const char tn_cuda_source_##name[];
SHARED(params)
SHARED(tables)
SHARED(pieces)
SHARED(types)
SHARED(cache)
SHARED(rowops)
#undef SHARED

char *tn_cuda_source(const tn_cuda_kernel *kernel, const tn_buf *head) {
    const char *const parts[] = {tn_cuda_source_params, tn_cuda_source_tables, tn_cuda_source_pieces,
                                 tn_cuda_source_types,  tn_cuda_source_cache,  tn_cuda_source_rowops,
                                 kernel->source};
    tn_buf b = {0};
    tn_buf_add(&b, head->p, head->n);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) tn_buf_str(&b, parts[i]);
    if (!b.failed && !head->failed) return b.p;
    tn_buf_free(&b);
    return NULL;
}

/* ---- the cache ---- */

char *tn_cuda_cache_dir(void) {
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    tn_buf b = {0};
    if (base && base[0] == '/')
        tn_buf_printf(&b, "%s/tenon", base);
    else if (home && home[0] == '/')
        tn_buf_printf(&b, "%s/.cache/tenon", home);
    if (!b.failed) return b.p;
    tn_buf_free(&b);
    return NULL;
}

static const char *const options[] = {"--fmad=false", "--std=c++17", "--diag-suppress=39,177",
                                      "--device-as-default-execution-space"};
enum { N_OPTIONS = sizeof options / sizeof *options };

/* FNV-1a */
static uint64_t hash(uint64_t h, const void *data, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)data)[i]) * UINT64_C(0x100000001b3);
    return h;
}
static const uint64_t hash_begin = UINT64_C(0xcbf29ce484222325);

static uint64_t hash_code(uint64_t h, const tn_cuda_code *code) {
    for (int i = 0; i < N_OPTIONS; i++) h = hash(h, options[i], strlen(options[i]) + 1);
    return hash(h, code->source, strlen(code->source));
}

/* DIR/cuda-sm90-13.0-HASH.cubin; two hashes from different beginnings make 128 bits. */
static bool cache_path(const tn_device *d, const tn_cuda_code *code, char *path, size_t size) {
    int major = 0, minor = 0;
    if (!d->cache_dir || d->rtc.version(&major, &minor)) return false;
    uint64_t a = hash_code(hash_begin, code), b = hash_code(UINT64_C(0x9e3779b97f4a7c15), code);
    int n = snprintf(path, size, "%s/cuda-sm%d-%d.%d-%016llx%016llx.cubin", d->cache_dir, d->arch, major, minor,
                     (unsigned long long)a, (unsigned long long)b);
    return n > 0 && (size_t)n < size;
}

/* A file is the code and the hash of it. */
static bool read_cached(const char *path, tn_cuda_code *code) {
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    struct stat st;
    uint64_t sum = 0;
    bool ok = fstat(fileno(f), &st) == 0 && st.st_size > (off_t)sizeof sum;
    code->bytes = ok ? (size_t)st.st_size - sizeof sum : 0;
    if (ok) code->cubin = tn_alloc(code->bytes);
    ok = ok && code->cubin && fread(code->cubin, 1, code->bytes, f) == code->bytes;
    ok = ok && fread(&sum, sizeof sum, 1, f) == 1 && sum == hash(hash_begin, code->cubin, code->bytes);
    fclose(f);
    code->cached = ok;
    if (ok) return true;
    tn_free(code->cubin);
    code->cubin = NULL;
    return false;
}

/* A cache that cannot be written is no failure. */
static void write_cached(const char *path, const tn_cuda_code *code) {
    char part[1100];
    snprintf(part, sizeof part, "%s.%d.%p", path, (int)getpid(), (const void *)code);
    FILE *f = fopen(part, "wb");
    if (!f) return;
    uint64_t sum = hash(hash_begin, code->cubin, code->bytes);
    bool ok = fwrite(code->cubin, 1, code->bytes, f) == code->bytes && fwrite(&sum, sizeof sum, 1, f) == 1;
    ok = fclose(f) == 0 && ok;
    if (!ok || rename(part, path)) unlink(part);
}

/* The cache's folder, and the one it is in. */
static void make_cache_dir(const char *dir) {
    char parent[1024];
    snprintf(parent, sizeof parent, "%s", dir);
    char *slash = strrchr(parent, '/');
    if (slash) *slash = 0;
    mkdir(parent, 0755);
    mkdir(dir, 0755);
}

/* ---- NVRTC ---- */

/* The first lines of the compiler's log, in one. */
static void first_lines(const tn_rtc *rtc, void *program, char *text, size_t size) {
    size_t n = 0;
    text[0] = 0;
    if (rtc->log_size(program, &n) || n < 2) return;
    char *log = tn_alloc(n + 1);
    if (log && !rtc->log(program, log)) {
        log[n] = 0;
        snprintf(text, size, "%s", log);
        for (char *c = text; *c; c++)
            if (*c == '\n') *c = ' ';
    }
    tn_free(log);
}

static tn_status compile(const tn_device *d, tn_cuda_code *code) {
    const tn_rtc *rtc = &d->rtc;
    char arch[40], log[380];
    snprintf(arch, sizeof arch, "--gpu-architecture=sm_%d", d->arch);
    const char *all[N_OPTIONS + 1] = {arch};
    memcpy(all + 1, options, sizeof options);
    void *program = NULL;
    if (rtc->create(&program, code->source, code->name, 0, NULL, NULL)) return tn_fail_memory(&code->error);
    tn_status status = TN_OK;
    if (rtc->compile(program, N_OPTIONS + 1, all)) {
        first_lines(rtc, program, log, sizeof log);
        status = tn_fail(&code->error, TN_ERR_INTERNAL, "cuda: kernel %s does not compile for sm_%d: %s", code->name,
                         d->arch, log);
    } else if (rtc->cubin_size(program, &code->bytes) || !(code->cubin = tn_alloc(code->bytes))) {
        status = tn_fail_memory(&code->error);
    } else if (rtc->cubin(program, code->cubin)) {
        status = tn_fail(&code->error, TN_ERR_INTERNAL, "cuda: no machine code for kernel %s", code->name);
    }
    rtc->destroy(&program);
    return status;
}

typedef struct compile_call {
    const tn_device *device;
    tn_cuda_code *code;
    int32_t n;
} compile_call;

static void compile_share(void *arg, int i, int n) {
    const compile_call *call = arg;
    for (int32_t k = i; k < call->n; k += n) {
        tn_cuda_code *code = &call->code[k];
        char path[1024];
        bool cached = cache_path(call->device, code, path, sizeof path);
        if (cached && read_cached(path, code)) continue;
        code->status = compile(call->device, code);
        if (code->status == TN_OK && cached) write_cached(path, code);
    }
}

tn_status tn_cuda_compile_all(const tn_device *device, tn_cuda_code *code, int32_t n, tn_error *err) {
    if (device->cache_dir) make_cache_dir(device->cache_dir);
    compile_call call = {device, code, n};
    tn_pool_run(device->pool, compile_share, &call);
    for (int32_t i = 0; i < n; i++)
        if (code[i].status != TN_OK) return tn_fail(err, code[i].status, "%s", code[i].error.text);
    return TN_OK;
}
