/* Which backends are here: their devices, limits and features; and for what is missing, the command that installs it. */
#include "backend/cuda/api.h"
#include "backend/webgpu/native.h"
#include "base/error.h"
#include "engine.h"

#include <dirent.h>
#include <dlfcn.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what backends need ---- */

static bool has_driver(void) {
    tn_cu cu;
    if (tn_cu_load(&cu, NULL) != TN_OK) return false;
    tn_cu_unload(&cu);
    return true;
}

static bool has_nvrtc(void) {
    tn_rtc rtc;
    if (tn_rtc_load(&rtc, NULL) != TN_OK) return false;
    tn_rtc_unload(&rtc);
    return true;
}

static bool has_webgpu(void) {
    tn_webgpu_library lib; /* nothing of it is ever unloaded */
    return tn_webgpu_library_open(&lib, NULL, NULL) == TN_OK;
}

/* Never unloaded: drivers keep threads of their own. */
static bool has_vulkan(void) {
    return dlopen("libvulkan.so.1", RTLD_LAZY | RTLD_LOCAL) != NULL;
}

/* A description of a driver in one of the folders where Vulkan's loader looks. */
static bool has_vulkan_driver(void) {
    static const char *const folders[] = {"/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d",
                                          "/usr/local/share/vulkan/icd.d"};
    bool found = false;
    for (size_t i = 0; i < sizeof folders / sizeof *folders && !found; i++) {
        DIR *dir = opendir(folders[i]);
        for (struct dirent *e; dir && !found && (e = readdir(dir));) found = strstr(e->d_name, ".json") != NULL;
        if (dir) closedir(dir);
    }
    return found;
}

/* What to install is a line for a shell. */
static const struct {
    const char *backend, *name, *install;
    bool (*found)(void);
} needs[] = {
    {"cuda", "NVIDIA's driver (libcuda.so.1)",
     "apt install nvidia-driver  # of Debian's non-free; in a container the host's driver is passed in", has_driver},
    {"cuda", "the compiler library NVRTC (libnvrtc.so.12 or .13)",
     "python3 -m pip install --target \"$HOME/.local/nvrtc\" nvidia-cuda-nvrtc-cu12 && export "
     "LD_LIBRARY_PATH=\"$HOME/.local/nvrtc/nvidia/cuda_nvrtc/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\"  "
     "# or NVIDIA's CUDA toolkit",
     has_nvrtc},
    {"webgpu", "a WebGPU library (libwgpu_native.so)", "scripts/fetch-webgpu.sh", has_webgpu},
    {"webgpu", "Vulkan's loader (libvulkan.so.1)", "apt install libvulkan1", has_vulkan},
    {"webgpu", "a Vulkan driver", "apt install mesa-vulkan-drivers  # for several makes of GPU, and one in software",
     has_vulkan_driver},
};

/* ---- the report ---- */

typedef struct report {
    tn_buf text;
    json_t *list;
} report;

/* The block types that weights may have. */
static void add_types(tn_buf *facts, const tn_caps *caps) {
    tn_buf_str(facts, "weights:");
    for (uint32_t i = 0; i < TN_TYPE_LIMIT; i++)
        if (caps->weight_types >> i & 1 && tn_type_get(i)) tn_buf_printf(facts, " %s", tn_type_get(i)->name);
    tn_buf_char(facts, '\n');
}

/* A whole number, or text. */
static json_t *fact_value(const char *p, size_t n) {
    char *end;
    long long number = strtoll(p, &end, 10);
    if (end == p + n && n) return json_integer(number);
    json_t *value = json_stringn(p, n);
    return value ? value : json_string("not UTF-8");
}

/* "name: value" lines, as text and as members of an object. */
static json_t *put_facts(report *r, const tn_buf *facts) {
    json_t *object = json_object();
    for (const char *p = facts->p ? facts->p : ""; *p;) {
        size_t n = strcspn(p, "\n"), name = strcspn(p, ":");
        if (name + 2 <= n) {
            tn_buf_printf(&r->text, "         %.*s: %.*s\n", (int)name, p, (int)(n - name - 2), p + name + 2);
            json_object_setn_new(object, p, name, fact_value(p + name + 2, n - name - 2));
        }
        p += n + (p[n] == '\n');
    }
    return object;
}

static json_t *put_needs(report *r, const char *backend, bool ready) {
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
        if (strcmp(needs[i].backend, backend)) continue;
        bool found = needs[i].found();
        json_array_append_new(
            list, json_pack("{ss sb ss}", "name", needs[i].name, "found", found, "install", needs[i].install));
        if (ready) continue;
        tn_buf_printf(&r->text, "         %s: %s\n", needs[i].name, found ? "found" : "missing");
        if (!found) tn_buf_printf(&r->text, "             %s\n", needs[i].install);
    }
    return list;
}

/* A device, its number being 0 for the backend's own choice. */
static void put_device(report *r, const tn_backend *b, int number, const char *webgpu_lib) {
    char variant[12], name[40];
    tn_device *device = NULL;
    tn_device_options options = {.webgpu_lib = webgpu_lib, .variant = number ? variant : NULL};
    tn_error why = {0};
    tn_buf facts = {0};
    snprintf(variant, sizeof variant, "%d", number);
    snprintf(name, sizeof name, "%s%s%s", b->name, number ? ":" : "", number ? variant : "");
    bool ready = b->open(&device, &options, &why) == TN_OK;
    const char *what = ready ? b->caps(device)->description : why.text;
    tn_buf_printf(&r->text, "%-8s %-5s %s\n", name, ready ? "ready" : "-", what);
    if (ready && b->facts) b->facts(device, &facts);
    if (ready) add_types(&facts, b->caps(device));
    json_t *object = put_facts(r, &facts), *list = put_needs(r, b->name, ready);
    json_array_append_new(r->list, json_pack("{ss sb ss so so}", "backend", name, "ready", ready, "text", what,
                                             "facts", object, "needs", list));
    r->text.failed |= facts.failed;
    tn_buf_free(&facts);
    if (ready) b->close(&device);
}

tn_status tn_doctor(const tn_doctor_options *options, tn_sink out, tn_error *err) {
    report r = {.list = json_array()};
    for (int i = 0; tn_backend_at(i); i++) {
        const tn_backend *b = tn_backend_at(i);
        if (b->hidden) continue;
        put_device(&r, b, 0, options->webgpu_lib); /* where there is none, why */
        for (int number = 1, n = b->count ? b->count() : 1; number < n; number++)
            put_device(&r, b, number, options->webgpu_lib);
    }
    char *text = options->json ? json_dumps(r.list, JSON_INDENT(1)) : NULL;
    bool failed = r.text.failed || (options->json && !text);
    if (!failed && options->json) {
        out.write(out.data, text, strlen(text));
        out.write(out.data, "\n", 1);
    } else if (!failed) {
        out.write(out.data, r.text.p, r.text.n);
    }
    free(text);
    json_decref(r.list);
    tn_buf_free(&r.text);
    return failed ? tn_fail_memory(err) : TN_OK;
}
