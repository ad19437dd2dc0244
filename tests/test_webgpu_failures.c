/* The WebGPU backend when things go wrong: a device that is lost at every point of a step, memory that is not there, shaders that do
 * not compile, features and libraries that are missing. Each is an error with a message, nothing is leaked or used after it is gone
 * (the sanitizers look), and the device can be opened again. */
#include "tenon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "engine.h"
#include "failing.h"
#include "webgpu_rig.h"

/* ---- opening ---- */

static void test_variants(void **state) {
    (void)state;
    tn_rig rig;
    tn_error err = {0};
    tn_webgpu_need("webgpu");
    assert_int_equal(tn_rig_open(&rig, "webgpu:fast", 1, &err), TN_ERR_USAGE);
    assert_non_null(strstr(err.text, "subgroups"));
    assert_null(rig.device);
}

/* A set of features is used as it is named, no less and no more: in what the device was asked for and in what shaders say. */
static void test_sets(void **state) {
    (void)state;
    static const bool f16[] = {false, true, false, true}, subgroups[] = {false, false, true, true};
    for (int i = 0; i < TN_WEBGPU_SETS; i++) {
        tn_rig rig;
        tn_webgpu_open_rig(&rig, tn_webgpu_sets[i]);
        tn_device *d = rig.device;
        WGPUBool (*has)(WGPUDevice, WGPUEnum) =
            (WGPUBool(*)(WGPUDevice, WGPUEnum))dlsym(d->lib.handle, "wgpuDeviceHasFeature");
        assert_non_null(has);
        assert_int_equal(has(d->device, WGPUFeatureName_ShaderF16), f16[i]);
        assert_int_equal(has(d->device, tn_webgpu_subgroup_feature(&d->lib, d->adapter)), subgroups[i]);
        if (i == 0) assert_false(has(d->device, WGPUFeatureName_TimestampQuery));
        assert_int_equal(d->f16, f16[i]);
        assert_int_equal(d->subgroup > 0, subgroups[i]);
        assert_int_equal(strstr(d->enable, "f16") != NULL, f16[i]);
        WGPUComputePipeline pipeline;
        tn_error err = {0};
        static const char uses_f16[] = "enable f16;\n@compute @workgroup_size(1) fn main() { var x = f16(1.0); }\n";
        tn_status status = tn_webgpu_pipeline_get(d, uses_f16, 0, &pipeline, &err);
        assert_int_equal(status, f16[i] ? TN_OK : TN_ERR_INTERNAL); /* the implementation holds us to it */
        tn_rig_close(&rig);
    }
}

/* A device that lacks what a set names: an error, not silently less. */
static void test_missing_features(void **state) {
    (void)state;
    tn_webgpu_need("webgpu");
#ifdef TN_WEBGPU_POOR
    for (int i = 0; i < TN_WEBGPU_SETS; i++) {
        tn_rig rig;
        tn_error err = {0};
        tn_device_options options = {.webgpu_lib = TN_WEBGPU_POOR};
        tn_status status = tn_rig_open_with(&rig, tn_webgpu_sets[i], &options, &err);
        if (i == 0) {
            assert_int_equal(status, TN_OK);
            tn_rig_close(&rig);
        } else {
            assert_int_equal(status, TN_ERR_UNAVAILABLE);
            assert_non_null(strstr(err.text, i == 2 ? "subgroups" : "f16"));
            assert_null(rig.device);
        }
    }
    tn_rig rig;
    tn_error err = {0};
    assert_int_equal(tn_rig_open_with(&rig, "webgpu", &(tn_device_options){.webgpu_lib = TN_WEBGPU_POOR}, &err),
                     TN_OK);
    assert_false(rig.device->f16 || rig.device->subgroup || rig.device->timestamps);
    tn_rig_close(&rig);
#else
    tn_webgpu_skip("the library was not there when the tests were built");
#endif
}

/* A library by its path: one that is not there, one that is another. */
static void test_library(void **state) {
    (void)state;
    tn_rig rig;
    tn_error err = {0};
    tn_device_options options = {.webgpu_lib = "/nowhere/libwebgpu.so"};
    assert_int_equal(tn_rig_open_with(&rig, "webgpu", &options, &err), TN_ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, "/nowhere/libwebgpu.so"));
    options.webgpu_lib = "libm.so.6";
    assert_int_equal(tn_rig_open_with(&rig, "webgpu", &options, &err), TN_ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, "has no wgpu"));
    tn_webgpu_need("webgpu");
}

/* ---- a lost device ---- */

static const char model_name[] = "llama-q.Q4_K-pure";
enum { N_FIRST = 3 };

static tn_session *open_session(tn_model *m) {
    tn_session *s;
    tn_error err = {0};
    if (tn_session_open(&s, m, &(tn_session_options){.n_ctx = 48}, &err) != TN_OK) fail_msg("%s", err.text);
    return s;
}

static tn_status feed(tn_session *s, tn_error *err) {
    static const int32_t ids[N_FIRST] = {5, 9, 44};
    return tn_step(s, &(tn_batch){.ids = ids, .n_tokens = N_FIRST}, err);
}

/* The logits after the first tokens, from a model opened for that. */
static float *logits_of(const char *backend, int32_t *n) {
    tn_error err = {0};
    tn_model_info info;
    tn_model *m = tn_webgpu_open_model(model_name, backend);
    tn_session *s = open_session(m);
    if (feed(s, &err) != TN_OK) fail_msg("%s", err.text);
    tn_model_get_info(m, &info);
    *n = info.n_vocab;
    float *logits = malloc((size_t)*n * sizeof *logits);
    assert_non_null(logits);
    memcpy(logits, tn_logits(s, 0), (size_t)*n * sizeof *logits);
    tn_session_close(&s);
    tn_model_close(&m);
    return logits;
}

static void assert_lost(tn_status status, tn_error *err) {
    if (status != TN_ERR_RESOURCES || !strstr(err->text, "the device was lost"))
        fail_msg("status %d: %s", (int)status, err->text);
    *err = (tn_error){0};
}

static void lose(tn_device *d) {
    d->lib.DeviceDestroy(d->device);
}

/* Whatever is asked of a lost device is refused, each time with the reason. */
static void use_lost(tn_session *s) {
    tn_error err = {0};
    tn_device *d = s->model->device;
    WGPUBuffer buffer;
    tn_session *other;
    double rate;
    for (int i = 0; i < 2; i++) {
        assert_lost(feed(s, &err), &err);
        assert_lost(tn_webgpu_buffer(d, &buffer, 64, WGPUBufferUsage_Storage, "values", &err), &err);
        assert_null(buffer);
        assert_lost(tn_session_open(&other, s->model, &(tn_session_options){.n_ctx = 48}, &err), &err);
        assert_lost(tn_webgpu_peak(d, &rate, &err), &err);
    }
}

typedef void (*how_lost)(tn_session *s);

/* A session whose device is lost in some way, then a new one, which computes what it should. */
static void check_loss(how_lost how) {
    int32_t n;
    float *want = logits_of("webgpu", &n);
    tn_model *m = tn_webgpu_open_model(model_name, "webgpu");
    tn_session *s = open_session(m);
    how(s);
    use_lost(s);
    tn_session_close(&s);
    tn_model_close(&m);
    float *got = logits_of("webgpu", &n);
    assert_memory_equal(got, want, (size_t)n * sizeof *got);
    free(want);
    free(got);
}

static void before_submit(tn_session *s) {
    lose(s->model->device);
}
static void test_lost_before_submit(void **state) {
    (void)state;
    tn_webgpu_need("webgpu");
    check_loss(before_submit);
}

/* While the host has one token and the device works on the next. */
static bool lose_at_third(void *data, int32_t id) {
    (void)id;
    tn_session *s = data;
    if (tn_sequence_length(s, 0) == 3 + N_FIRST) lose(s->model->device);
    return true;
}
static void in_greedy(tn_session *s) {
    tn_error err = {0};
    assert_int_equal(feed(s, &err), TN_OK);
    tn_greedy greedy = {.id = 5, .n = 20, .each = lose_at_third, .data = s};
    assert_lost(tn_step_greedy(s, &greedy, &err), &err);
}
static void test_lost_in_greedy(void **state) {
    (void)state;
    tn_webgpu_need("webgpu");
    check_loss(in_greedy);
}

/* Two decode steps on their way, of one sequence. */
static tn_status submit_two(tn_session *s, tn_error *err) {
    const tn_backend *b = s->model->backend;
    tn_status status = TN_OK;
    for (int32_t i = 0; i < 2 && status == TN_OK; i++) {
        int32_t id = i ? TN_ID_CHOSEN : 5, pos = N_FIRST + i, zero = 0;
        tn_run run = {.first = 0, .n = 1, .pos = pos, .seq = 0};
        tn_step_input in = {.n_tokens = 1,
                            .n_outputs = 1,
                            .n_runs = 1,
                            .ids = &id,
                            .pos = &pos,
                            .seq = &zero,
                            .outputs = &zero,
                            .runs = &run,
                            .pages = s->pages,
                            .max_pages = s->max_pages};
        status =
            b->submit(s->program[TN_PHASE_DECODE], &in, i ? TN_WANT_CHOSEN | TN_WANT_LOGITS : TN_WANT_CHOSEN, err);
    }
    return status;
}
static void with_two_outstanding(tn_session *s) {
    tn_error err = {0};
    tn_result result;
    assert_int_equal(feed(s, &err), TN_OK);
    if (submit_two(s, &err) != TN_OK) fail_msg("%s", err.text);
    lose(s->model->device);
    for (int i = 0; i < 2; i++) { /* the device may have been done with a step before */
        tn_status status = s->model->backend->wait(s->program[TN_PHASE_DECODE], &result, &err);
        assert_int_equal(result.ids != NULL, status == TN_OK);
        assert_int_equal(result.logits != NULL, i == 1 && status == TN_OK);
        if (status != TN_OK) assert_lost(status, &err);
    }
}
static void and_never_waited_for(tn_session *s) {
    tn_error err = {0};
    assert_int_equal(feed(s, &err), TN_OK);
    if (submit_two(s, &err) != TN_OK) fail_msg("%s", err.text);
    lose(s->model->device);
}
static void test_lost_with_steps_outstanding(void **state) {
    (void)state;
    tn_webgpu_need("webgpu");
    check_loss(with_two_outstanding);
    check_loss(and_never_waited_for);
}

/* The device goes between a submission and the request for its results. */
static uint64_t (*real_submit)(WGPUQueue, size_t, const WGPUCommandBuffer *);
static tn_device *victim;
static uint64_t submit_and_lose(WGPUQueue queue, size_t n, const WGPUCommandBuffer *commands) {
    uint64_t submission = real_submit(queue, n, commands);
    lose(victim);
    return submission;
}
static void in_mapping(tn_session *s) {
    tn_error err = {0};
    victim = s->model->device;
    real_submit = victim->lib.QueueSubmitForIndex;
    assert_non_null(real_submit);
    victim->lib.QueueSubmitForIndex = submit_and_lose;
    assert_lost(feed(s, &err), &err);
}
static void test_lost_in_mapping(void **state) {
    (void)state;
    tn_webgpu_need("webgpu");
    check_loss(in_mapping);
}

/* An implementation may tell of a buffer after its device was lost and everything closed. */
static WGPUBufferMapCallbackInfo kept[8];
static int n_kept;
static WGPUFuture keep_callback(WGPUBuffer buffer, WGPUFlags mode, size_t offset, size_t size,
                                WGPUBufferMapCallbackInfo info) {
    (void)buffer, (void)mode, (void)offset, (void)size;
    assert_true(n_kept < 8);
    kept[n_kept++] = info;
    return (WGPUFuture){0};
}
static void keeping_callbacks(tn_session *s) {
    tn_error err = {0};
    tn_device *d = s->model->device;
    assert_int_equal(feed(s, &err), TN_OK);
    d->lib.BufferMapAsync = keep_callback;
    if (submit_two(s, &err) != TN_OK) fail_msg("%s", err.text);
    lose(d);
    tn_webgpu_tell_loss(&d->lib, d->instance, d->device); /* as nothing is mapped here, nobody may wait for that */
}
static void test_late_callbacks(void **state) {
    (void)state;
    tn_webgpu_need("webgpu");
    n_kept = 0;
    check_loss(keeping_callbacks);
    assert_int_equal(n_kept, 3); /* the ids of two steps, logits of one */
    for (int i = 0; i < n_kept; i++)
        kept[i].callback(i % 2 ? WGPUStatus_Success : 4, (WGPUStringView){0}, kept[i].userdata1, kept[i].userdata2);
}

/* ---- wrong calls ---- */

/* Steps are refused that would start from a choice nobody made, or that come too early. */
static void test_wrong_steps(void **state) {
    (void)state;
    tn_error err = {0};
    tn_webgpu_need("webgpu");
    tn_model *m = tn_webgpu_open_model(model_name, "webgpu");
    tn_session *s = open_session(m);
    int32_t id = TN_ID_CHOSEN, zero = 0;
    tn_run run = {.n = 1};
    tn_step_input in = {.n_tokens = 1,
                        .n_outputs = 1,
                        .n_runs = 1,
                        .ids = &id,
                        .pos = &zero,
                        .seq = &zero,
                        .outputs = &zero,
                        .runs = &run,
                        .pages = s->pages,
                        .max_pages = s->max_pages};
    tn_program *p = s->program[TN_PHASE_DECODE];
    tn_result result;
    assert_int_equal(m->backend->submit(p, &in, TN_WANT_CHOSEN, &err), TN_ERR_INTERNAL);
    assert_non_null(strstr(err.text, "chose no token"));
    assert_int_equal(m->backend->wait(p, &result, &err), TN_ERR_INTERNAL);
    id = 5;
    assert_int_equal(m->backend->submit(p, &in, TN_WANT_LOGITS, &err), TN_OK);
    assert_int_equal(m->backend->submit(p, &in, TN_WANT_CHOSEN, &err), TN_ERR_INTERNAL); /* it would overwrite them */
    assert_int_equal(m->backend->wait(p, &result, &err), TN_OK);
    assert_non_null(result.logits);
    id = TN_ID_CHOSEN; /* that step chose nothing, as nobody wanted it */
    assert_int_equal(m->backend->submit(p, &in, TN_WANT_CHOSEN, &err), TN_ERR_INTERNAL);
    assert_non_null(strstr(err.text, "chose no token"));
    id = 5;
    assert_int_equal(m->backend->submit(p, &in, TN_WANT_CHOSEN, &err), TN_OK);
    assert_int_equal(m->backend->wait(p, &result, &err), TN_OK);
    id = TN_ID_CHOSEN;
    for (int i = 0; i < TN_WEBGPU_AHEAD; i++)
        assert_int_equal(m->backend->submit(p, &in, TN_WANT_CHOSEN, &err), TN_OK);
    assert_int_equal(m->backend->submit(p, &in, TN_WANT_CHOSEN, &err), TN_ERR_INTERNAL);
    for (int i = 0; i < TN_WEBGPU_AHEAD; i++) assert_int_equal(m->backend->wait(p, &result, &err), TN_OK);
    assert_non_null(result.ids);
    tn_session_close(&s);
    tn_model_close(&m);
}

static void test_bad_shader(void **state) {
    (void)state;
    tn_rig rig;
    tn_error err = {0};
    WGPUComputePipeline pipeline;
    tn_webgpu_open_rig(&rig, "webgpu");
    assert_int_equal(tn_webgpu_pipeline_get(rig.device, "fn main() {\n    let x = nothing;\n}\n", 0, &pipeline, &err),
                     TN_ERR_INTERNAL);
    assert_non_null(strstr(err.text, "let x = nothing;")); /* the line, with its number */
    assert_non_null(strstr(err.text, ":2:"));
    assert_int_equal(tn_webgpu_check(rig.device, "anything", &err), TN_OK); /* told once */
    static const char fine[] = "@compute @workgroup_size(1) fn main() { }\n";
    assert_int_equal(tn_webgpu_pipeline_get(rig.device, fine, 0, &pipeline, &err), TN_OK);
    tn_rig_close(&rig);
}

/* ---- no memory ---- */

/* Under the address sanitizer, too, no memory is an answer and not the end. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}

static void test_too_large(void **state) {
    (void)state;
    tn_rig rig;
    tn_error err = {0};
    tn_memory *memory;
    WGPUBuffer buffer;
    tn_webgpu_open_rig(&rig, "webgpu");
    tn_state_desc cache = {.n_kv = 8, .k_dim = 128, .v_dim = 128};
    tn_memory_desc desc = {.states = &cache, .n_states = 1, .n_pages = 1 << 24, .n_seq = 1, .arena_bytes = 4096};
    assert_int_equal(rig.backend->make_memory(rig.device, &desc, &memory, &err), TN_ERR_RESOURCES);
    assert_non_null(strstr(err.text, "caches"));
    assert_null(memory);
    assert_int_equal(
        tn_webgpu_buffer(rig.device, &buffer, UINT64_C(1) << 60, WGPUBufferUsage_Storage, "giants", &err),
        TN_ERR_RESOURCES);
    assert_non_null(strstr(err.text, "giants"));
    desc.n_pages = 1; /* and the device is as good as before */
    if (rig.backend->make_memory(rig.device, &desc, &memory, &err) != TN_OK) fail_msg("%s", err.text);
    rig.backend->free_memory(rig.device, &memory);
    tn_rig_close(&rig);
}

/* The driver itself finds no memory: this process may have no more of it (a software driver's is the process's). */
static void test_device_memory(void **state) {
    (void)state;
    tn_rig rig;
    tn_error err = {0};
    WGPUBuffer buffer;
    struct rlimit limit, small;
    unsigned long pages = 0;
    tn_webgpu_open_rig(&rig, "webgpu");
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%lu", &pages) != 1) pages = 0;
    if (f) fclose(f);
    uint64_t most =
        rig.device->limits.maxBufferSize < UINT64_C(1) << 30 ? rig.device->limits.maxBufferSize : UINT64_C(1) << 30;
    assert_int_equal(getrlimit(RLIMIT_AS, &limit), 0);
    small = limit;
    small.rlim_cur = (rlim_t)pages * 4096 + (64 << 20);
    assert_int_equal(setrlimit(RLIMIT_AS, &small), 0);
    tn_status status = tn_webgpu_buffer(rig.device, &buffer, most, WGPUBufferUsage_Storage, "giants", &err);
    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
    if (status == TN_OK) { /* a device with memory of its own */
        tn_webgpu_buffer_free(rig.device, &buffer);
        tn_rig_close(&rig);
        tn_webgpu_skip("this device has memory of its own");
    }
    assert_int_equal(status, TN_ERR_RESOURCES);
    assert_non_null(strstr(err.text, "out of device memory: giants need"));
    assert_null(buffer);
    assert_int_equal(tn_webgpu_buffer(rig.device, &buffer, 64, WGPUBufferUsage_Storage, "dwarfs", &err), TN_OK);
    tn_webgpu_buffer_free(rig.device, &buffer);
    tn_rig_close(&rig);
}

/* Allocations of opening a model and a session fail, all from one on and one alone. */
static void test_no_memory(void **state) {
    (void)state;
    char path[600];
    int failures = 0;
    tn_webgpu_need("webgpu");
    snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, model_name);
    for (tn_failing f = {.skip = 8}; !f.done;) {
        tn_model *m = NULL;
        tn_session *s = NULL;
        tn_error err = {0};
        tn_failing_start(&f);
        tn_status status = tn_model_open(&m, path, &(tn_model_options){.backend = "webgpu"}, &err);
        if (status == TN_OK) status = tn_session_open(&s, m, &(tn_session_options){.n_ctx = 48}, &err);
        bool failed = tn_failing_stop(&f);
        if (status == TN_OK && failed) status = feed(s, &err); /* an allocation that need not be; all is there */
        tn_session_close(&s);
        tn_model_close(&m);
        if (status != TN_OK && status != TN_ERR_RESOURCES) fail_msg("allocation %ld: %s", f.n, err.text);
        failures += status != TN_OK;
    }
    assert_true(failures > 40);
}

/* test_webgpu_failures [PATTERN] */
int main(int argc, char **argv) {
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variants),
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_missing_features),
        cmocka_unit_test(test_library),
        cmocka_unit_test(test_lost_before_submit),
        cmocka_unit_test(test_lost_in_greedy),
        cmocka_unit_test(test_lost_with_steps_outstanding),
        cmocka_unit_test(test_lost_in_mapping),
        cmocka_unit_test(test_late_callbacks),
        cmocka_unit_test(test_wrong_steps),
        cmocka_unit_test(test_bad_shader),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_device_memory),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("webgpu failures", tests, NULL, NULL);
}
