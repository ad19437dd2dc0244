/* Loading an implementation of webgpu.h at run time. The one file that knows that implementations differ: wgpu-native waits
 * with a poll of its own, where the standard processes events; it can leave out loop counters. */
#include "backend/webgpu/native.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#ifndef TN_WEBGPU_DIR
#define TN_WEBGPU_DIR "third_party/webgpu" /* where scripts/fetch-webgpu.sh puts it; the build gives the full path */
#endif

static const char *const names[] = {"libwgpu_native.so", "libwgpu_native-release.so", "libwebgpu_dawn.so",
                                    "libwebgpu.so"};

/* The folder that holds this code, as a library or a program: BIN/../lib is searched below it. */
static void own_folder(char *path, size_t size) {
    Dl_info info;
    snprintf(path, size, ".");
    if (!dladdr((void *)(uintptr_t)&tn_webgpu_library_open, &info) || !info.dli_fname) return;
    snprintf(path, size, "%s", info.dli_fname);
    char *slash = strrchr(path, '/');
    if (slash)
        *slash = 0;
    else
        snprintf(path, size, ".");
}

/* Nothing is ever unloaded: implementations keep threads of their own. */
static void *search(void) {
    char own[512], path[768];
    own_folder(own, sizeof own);
    const char *const folders[] = {own, "/../lib/", TN_WEBGPU_DIR, "/", "", ""};
    for (size_t f = 0; f < sizeof folders / sizeof *folders; f += 2)
        for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
            snprintf(path, sizeof path, "%s%s%s", folders[f], folders[f + 1], names[n]);
            void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            if (handle) return handle;
        }
    return NULL;
}

static bool load(void *handle, const char *name, void *out) {
    char symbol[80];
    snprintf(symbol, sizeof symbol, "wgpu%s", name);
    void *p = dlsym(handle, symbol);
    memcpy(out, &p, sizeof p); /* ISO C has no conversion from an object to a function pointer */
    return p != NULL;
}

tn_status tn_webgpu_library_open(tn_webgpu_library *lib, const char *path, tn_error *err) {
    *lib = (tn_webgpu_library){0};
    lib->handle = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : search();
    if (!lib->handle && path) return tn_fail(err, TN_ERR_UNAVAILABLE, "cannot load %.200s: %.200s", path, dlerror());
    if (!lib->handle)
        return tn_fail(err, TN_ERR_UNAVAILABLE,
                       "no WebGPU library was found (libwgpu_native.so): not in ../lib, not in %.200s, not on the "
                       "loader's path; scripts/fetch-webgpu.sh fetches one",
                       TN_WEBGPU_DIR);
    const char *missing = NULL;
#define FN(result, name, params)                                                                                     \
    if (!load(lib->handle, #name, &lib->name)) missing = #name;
    TN_WEBGPU_FUNCTIONS(FN)
#undef FN
    load(lib->handle, "DevicePoll", &lib->DevicePoll);
    load(lib->handle, "DeviceCreateShaderModuleTrusted", &lib->DeviceCreateShaderModuleTrusted);
    load(lib->handle, "QueueSubmitForIndex", &lib->QueueSubmitForIndex);
    load(lib->handle, "QueueGetTimestampPeriod", &lib->QueueGetTimestampPeriod);
    if (missing) return tn_fail(err, TN_ERR_UNAVAILABLE, "the WebGPU library is too old: it has no wgpu%s", missing);
    return TN_OK;
}

WGPUEnum tn_webgpu_subgroup_feature(const tn_webgpu_library *lib, WGPUAdapter adapter) {
    enum { NATIVE_SUBGROUP = 0x00030021 }; /* wgpu-native's, from before there was a standard one */
    if (lib->AdapterHasFeature(adapter, WGPUFeatureName_Subgroups)) return WGPUFeatureName_Subgroups;
    return lib->DevicePoll && lib->AdapterHasFeature(adapter, NATIVE_SUBGROUP) ? NATIVE_SUBGROUP : 0;
}

/* wgpu-native's own options; of these only the first is of use: it leaves out OpenGL, which is too weak for us, and whose
 * search for a window system prints to the terminal. */
typedef struct instance_extras {
    WGPUChainedStruct chain;
    WGPUFlags backends, flags;
    WGPUEnum compiler, gles, fence;
    WGPUStringView dxc;
    WGPUEnum shader_model, presentation;
    const uint8_t *budget_creation, *budget_loss;
    struct {
        WGPUEnum type;
        void *handle[2];
    } display;
} instance_extras;

/* One instance for each library, which stays: drivers that are unloaded with the last instance and loaded again lose track of
 * what they allocated. */
WGPUInstance tn_webgpu_instance(const tn_webgpu_library *lib) {
    enum { EXTRAS = 0x00030006, PRIMARY = 1 << 0 | 1 << 2 | 1 << 3, MOST = 8 };
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct {
        void *handle;
        WGPUInstance instance;
    } kept[MOST];
    instance_extras extras = {.chain.sType = EXTRAS, .backends = PRIMARY};
    WGPUInstanceDescriptor desc = {.nextInChain = lib->DevicePoll ? &extras.chain : NULL};
    int i = 0;
    pthread_mutex_lock(&lock);
    while (i < MOST - 1 && kept[i].handle && kept[i].handle != lib->handle) i++;
    if (kept[i].handle != lib->handle || !kept[i].instance) kept[i].instance = lib->CreateInstance(&desc);
    kept[i].handle = lib->handle;
    WGPUInstance instance = kept[i].instance;
    pthread_mutex_unlock(&lock);
    return instance;
}

void tn_webgpu_poll(const tn_webgpu_library *lib, WGPUInstance instance, WGPUDevice device,
                    const uint64_t *submission) {
    if (lib->DevicePoll && device) {
        lib->DevicePoll(device, submission != NULL, submission && *submission ? submission : NULL);
        return;
    }
    lib->InstanceProcessEvents(instance);
    if (submission) nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
}

void tn_webgpu_tell_loss(const tn_webgpu_library *lib, WGPUInstance instance, WGPUDevice device) {
    WGPUCommandEncoder encoder = lib->DeviceCreateCommandEncoder(device, NULL);
    if (encoder) lib->CommandEncoderRelease(encoder);
    lib->InstanceProcessEvents(instance);
}

bool tn_webgpu_no_memory(WGPUEnum type, const char *message) {
    return type == WGPUErrorType_OutOfMemory || strstr(message, "Not enough memory left");
}

uint64_t tn_webgpu_submit_commands(const tn_webgpu_library *lib, WGPUQueue queue, WGPUCommandBuffer commands) {
    if (lib->QueueSubmitForIndex) return lib->QueueSubmitForIndex(queue, 1, &commands);
    lib->QueueSubmit(queue, 1, &commands);
    return 0;
}

WGPUShaderModule tn_webgpu_module(const tn_webgpu_library *lib, WGPUDevice device,
                                  const WGPUShaderModuleDescriptor *desc) {
    enum { BOUNDS_CHECKS = 1 };
    if (lib->DeviceCreateShaderModuleTrusted)
        return lib->DeviceCreateShaderModuleTrusted(device, desc, BOUNDS_CHECKS);
    return lib->DeviceCreateShaderModule(device, desc);
}

double tn_webgpu_tick_seconds(const tn_webgpu_library *lib, WGPUQueue queue) {
    /* the standard's are nanoseconds, wgpu-native's the device's own ticks */
    return lib->QueueGetTimestampPeriod ? (double)lib->QueueGetTimestampPeriod(queue) * 1e-9 : 1e-9;
}
