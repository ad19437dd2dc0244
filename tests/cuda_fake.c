#include "cuda_fake.h"
#include "cuda_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

tn_cuda_fake tn_fake;

/* The result of a call that may fail. */
static int result(void) {
    tn_fake.calls++;
    bool stays = tn_fake.error == TN_FAKE_ILLEGAL;
    bool fails = tn_fake.fail_at && (stays ? tn_fake.calls >= tn_fake.fail_at : tn_fake.calls == tn_fake.fail_at);
    return fails ? tn_fake.error : 0;
}

/* ---- what lives: blocks of the host's memory ---- */

static int make(void **p, size_t bytes) {
    int failed = result();
    if (failed) return failed;
    *p = malloc(bytes ? bytes : 1);
    assert_non_null(*p);
    tn_fake.live++;
    return 0;
}
static int drop(void *p) {
    tn_fake.live--;
    free(p);
    return 0;
}

/* ---- copies: made when an event behind them is waited for, or there is no room ---- */

enum { ROOM = 64 };
static struct {
    void *to;
    const void *from;
    size_t bytes;
} g_copy[ROOM];
static int g_asked, g_done; /* copies, ever */

static void copy_until(int n) {
    for (; g_done < n; g_done++)
        memcpy(g_copy[g_done % ROOM].to, g_copy[g_done % ROOM].from, g_copy[g_done % ROOM].bytes);
}
static int copy(void *to, const void *from, size_t bytes) {
    int failed = result();
    if (failed) return failed;
    if (g_asked - g_done == ROOM) copy_until(g_done + 1);
    g_copy[g_asked % ROOM].to = to;
    g_copy[g_asked % ROOM].from = from;
    g_copy[g_asked++ % ROOM].bytes = bytes;
    return 0;
}
static int to_device_async(uint64_t to, const void *from, size_t bytes, void *stream) {
    (void)stream;
    return copy((void *)(uintptr_t)to, from, bytes);
}
static int to_host_async(void *to, uint64_t from, size_t bytes, void *stream) {
    (void)stream;
    return copy(to, (const void *)(uintptr_t)from, bytes);
}
static int set_bytes_async(uint64_t p, unsigned char value, size_t bytes, void *stream) {
    (void)stream;
    copy_until(g_asked);
    memset((void *)(uintptr_t)p, value, bytes);
    return result();
}

/* ---- the driver ---- */

static int error_string(int error, const char **text) {
    *text = error == TN_FAKE_MEMORY ? "out of memory" : "an illegal memory access";
    return 0;
}
static int context_set(void *context) {
    (void)context;
    return result();
}
static int context_release(int device) {
    (void)device;
    return 0;
}
static int mem_info(size_t *available, size_t *total) {
    *available = *total = 1 << 20;
    return result();
}
static int mem_alloc(uint64_t *p, size_t bytes) {
    void *block = NULL;
    int failed = make(&block, bytes);
    *p = (uint64_t)(uintptr_t)block;
    return failed;
}
static int mem_free(uint64_t p) {
    return drop((void *)(uintptr_t)p);
}
static int host_alloc(void **p, size_t bytes, unsigned flags) {
    (void)flags;
    return make(p, bytes);
}
static int stream_wait(void *stream) {
    (void)stream;
    assert_false(tn_fake.capturing);
    copy_until(g_asked);
    return result();
}
static int stream_hold(void *stream, uint64_t at, uint32_t value, unsigned flags) {
    (void)stream, (void)at, (void)value, (void)flags;
    return result();
}
static int event_create(void **event, unsigned flags) {
    (void)flags;
    int failed = make(event, sizeof(int));
    if (!failed) *(int *)*event = 0;
    return failed;
}
static int event_record(void *event, void *stream) {
    (void)stream;
    *(int *)event = g_asked;
    return result();
}
static int event_wait(void *event) {
    copy_until(*(int *)event);
    return result();
}
static int event_elapsed(float *milliseconds, void *start, void *end) {
    (void)start, (void)end;
    *milliseconds = 0;
    return result();
}
static int module_load(void **module, const void *image) {
    assert_non_null(image);
    return make(module, 1);
}
static int module_function(void **function, void *module, const char *name) {
    assert_non_null(name);
    *function = module;
    return result();
}
static int function_set(void *function, int attribute, int value) {
    (void)function, (void)attribute, (void)value;
    return result();
}
static int function_get(int *value, int attribute, void *function) {
    (void)attribute, (void)function;
    *value = 0;
    return result();
}
static int function_blocks(int *blocks, void *function, int threads, size_t shared_bytes) {
    (void)function, (void)threads, (void)shared_bytes;
    *blocks = 1;
    return result();
}
static int launch(const tn_cu_launch *config, void *function, void **arguments, void **extra) {
    (void)extra;
    assert_true(function && arguments && config->grid[0] && config->grid[1] && config->grid[2]);
    tn_fake.captured += tn_fake.capturing;
    return result();
}
static int capture_begin(void *stream, int mode) {
    (void)stream, (void)mode;
    assert_false(tn_fake.capturing);
    int failed = result();
    tn_fake.capturing = !failed;
    tn_fake.captured = 0;
    return failed;
}
static int capture_end(void *stream, void **graph) {
    (void)stream;
    assert_true(tn_fake.capturing);
    tn_fake.capturing = false;
    return make(graph, 1);
}
static int graph_instantiate(void **exec, void *graph, unsigned long long flags) {
    (void)flags;
    assert_non_null(graph);
    return make(exec, 1);
}
static int graph_launch(void *exec, void *stream) {
    (void)stream;
    assert_non_null(exec);
    tn_fake.launched++;
    return result();
}

static const tn_cu g_cu = {
    .error_string = error_string,
    .context_set = context_set,
    .context_release = context_release,
    .mem_info = mem_info,
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .host_alloc = host_alloc,
    .host_free = drop,
    .to_device_async = to_device_async,
    .to_host_async = to_host_async,
    .set_bytes_async = set_bytes_async,
    .stream_wait = stream_wait,
    .stream_hold = stream_hold,
    .event_create = event_create,
    .event_destroy = drop,
    .event_record = event_record,
    .event_wait = event_wait,
    .event_elapsed = event_elapsed,
    .module_load = module_load,
    .module_unload = drop,
    .module_function = module_function,
    .function_set = function_set,
    .function_get = function_get,
    .function_blocks = function_blocks,
    .launch = launch,
    .capture_begin = capture_begin,
    .capture_end = capture_end,
    .graph_instantiate = graph_instantiate,
    .graph_launch = graph_launch,
    .graph_destroy = drop,
    .graph_exec_destroy = drop,
};

/* ---- the compiler: any source is one byte of code ---- */

static int rtc_version(int *major, int *minor) {
    *major = *minor = 0;
    return 0;
}
static int rtc_create(void **program, const char *source, const char *name, int n_headers, const char *const *headers,
                      const char *const *header_names) {
    (void)source, (void)name, (void)n_headers, (void)headers, (void)header_names;
    *program = malloc(1);
    return 0;
}
static int rtc_compile(void *program, int n_options, const char *const *options) {
    (void)program, (void)n_options, (void)options;
    return 0;
}
static int rtc_cubin_size(void *program, size_t *bytes) {
    (void)program;
    *bytes = 1;
    return 0;
}
static int rtc_cubin(void *program, char *cubin) {
    (void)program;
    *cubin = 0;
    return 0;
}
static int rtc_destroy(void **program) {
    free(*program);
    return 0;
}

void tn_cuda_fake_open(tn_device **device, int threads) {
    tn_error err = {0};
    g_asked = g_done = 0;
    tn_fake = (tn_cuda_fake){0};
    assert_int_equal(tn_backend_cuda.open(device, &(tn_device_options){.variant = "plan"}, &err), TN_OK);
    tn_device *d = *device;
    assert_int_equal(tn_pool_open(&d->pool, threads, &err), TN_OK);
    d->sm_threads = 2048;
    d->cu = g_cu;
    d->rtc = (tn_rtc){.version = rtc_version,
                      .create = rtc_create,
                      .compile = rtc_compile,
                      .cubin_size = rtc_cubin_size,
                      .cubin = rtc_cubin,
                      .destroy = rtc_destroy};
    d->context = d; /* that makes it a real one */
}
