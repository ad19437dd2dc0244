/* Finding the CUDA libraries. */
#include "backend/cuda/api.h"

#include <dlfcn.h>
#include <string.h>

typedef struct symbol {
    const char *name;
    size_t at;
} symbol;

static const symbol cu_symbols[] = {
#define CU(name, symbol, arguments) {symbol, offsetof(tn_cu, name)},
#define RTC(name, symbol, arguments)
#include "backend/cuda/api.def"
#undef CU
#undef RTC
};

static const symbol rtc_symbols[] = {
#define CU(name, symbol, arguments)
#define RTC(name, symbol, arguments) {symbol, offsetof(tn_rtc, name)},
#include "backend/cuda/api.def"
#undef CU
#undef RTC
};

/* Newest first. The toolkit's own folder comes last, for machines where it is not on the loader's path. */
static const char *const cu_names[] = {"libcuda.so.1", "libcuda.so", NULL};
static const char *const rtc_names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so",
                                        "/usr/local/cuda/lib64/libnvrtc.so", NULL};

static void *open_first(const char *const *names) {
    void *library = NULL;
    for (int i = 0; !library && names[i]; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

/* The first symbol that is missing, or NULL. */
static const char *resolve(void *library, void *table, const symbol *symbols, size_t n) {
    for (size_t i = 0; i < n; i++) {
        void *p = dlsym(library, symbols[i].name);
        if (!p) return symbols[i].name;
        memcpy((char *)table + symbols[i].at, &p, sizeof p);
    }
    return NULL;
}

tn_status tn_cu_load(tn_cu *cu, tn_error *err) {
    *cu = (tn_cu){.library = open_first(cu_names)};
    if (!cu->library)
        return tn_fail(err, TN_ERR_UNAVAILABLE, "cuda: no NVIDIA driver here (libcuda.so.1 was not found)");
    const char *missing = resolve(cu->library, cu, cu_symbols, sizeof cu_symbols / sizeof *cu_symbols);
    if (!missing) return TN_OK;
    tn_cu_unload(cu);
    return tn_fail(err, TN_ERR_UNAVAILABLE, "cuda: the NVIDIA driver is too old: it has no %s", missing);
}

tn_status tn_rtc_load(tn_rtc *rtc, tn_error *err) {
    *rtc = (tn_rtc){.library = open_first(rtc_names)};
    if (!rtc->library)
        return tn_fail(err, TN_ERR_UNAVAILABLE,
                       "cuda: the compiler library NVRTC was not found (libnvrtc.so.13 or .12 of the CUDA toolkit)");
    const char *missing = resolve(rtc->library, rtc, rtc_symbols, sizeof rtc_symbols / sizeof *rtc_symbols);
    if (!missing) return TN_OK;
    tn_rtc_unload(rtc);
    return tn_fail(err, TN_ERR_UNAVAILABLE, "cuda: NVRTC is too old: it has no %s", missing);
}

void tn_cu_unload(tn_cu *cu) {
    if (cu->library) dlclose(cu->library);
    *cu = (tn_cu){0};
}

/* NVRTC stays loaded until the process ends: it keeps memory of its own, which each unloading would leak. */
void tn_rtc_unload(tn_rtc *rtc) {
    *rtc = (tn_rtc){0};
}

tn_status tn_cu_check(const tn_cu *cu, int result, const char *what, tn_error *err) {
    if (result == 0) return TN_OK;
    const char *text = NULL;
    cu->error_string(result, &text);
    return tn_fail(err, TN_ERR_RESOURCES, "cuda: %s failed: %s (error %d)", what, text ? text : "unknown error",
                   result);
}
