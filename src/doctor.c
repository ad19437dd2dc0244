/* Which backends are here: their devices, limits and features; and for what is missing, the command that installs it. */
#include "backend/cuda/api.h"
#include "backend/webgpu/native.h"
#include "base/error.h"
#include "engine.h"

#include <dirent.h>
#include <dlfcn.h>
#include <jansson.h>
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

static const struct {
    const char *backend, *name, *install;
    bool (*found)(void);
} needs[] = {
    {"cuda", "NVIDIA's driver (libcuda.so.1)",
     "apt install nvidia-driver (Debian's non-free; not in a container: there the host's is passed in)", has_driver},
    {"cuda", "the compiler library NVRTC (libnvrtc.so.12 or .13)",
     "pip install nvidia-cuda-nvrtc-cu12, and its lib folder into LD_LIBRARY_PATH; or NVIDIA's CUDA toolkit",
     has_nvrtc},
    {"webgpu", "a WebGPU library (libwgpu_native.so)", "scripts/fetch-webgpu.sh", has_webgpu},
    {"webgpu", "Vulkan's loader (libvulkan.so.1)", "apt install libvulkan1", has_vulkan},
    {"webgpu", "a Vulkan driver", "apt install mesa-vulkan-drivers (several GPUs, and one in software)",
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

/* "name: value" lines, as text and as members of an object. */
static json_t *put_facts(report *r, const tn_buf *facts) {
    json_t *object = json_object();
    for (const char *p = facts->p ? facts->p : ""; *p;) {
        size_t n = strcspn(p, "\n"), name = strcspn(p, ":");
        if (name + 2 <= n) {
            tn_buf_printf(&r->text, "         %.*s: %.*s\n", (int)name, p, (int)(n - name - 2), p + name + 2);
            json_t *value = json_stringn(p + name + 2, n - name - 2);
            json_object_setn_new(object, p, name, value ? value : json_string("not UTF-8"));
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

static void put_backend(report *r, const tn_backend *b, const char *webgpu_lib) {
    tn_device *device = NULL;
    tn_device_options options = {.webgpu_lib = webgpu_lib};
    tn_error why = {0};
    tn_buf facts = {0};
    bool ready = b->open(&device, &options, &why) == TN_OK;
    const char *what = ready ? b->caps(device)->description : why.text;
    tn_buf_printf(&r->text, "%-8s %-5s %s\n", b->name, ready ? "ready" : "-", what);
    if (ready && b->facts) b->facts(device, &facts);
    if (ready) add_types(&facts, b->caps(device));
    json_t *object = put_facts(r, &facts), *list = put_needs(r, b->name, ready);
    json_array_append_new(r->list, json_pack("{ss sb ss so so}", "backend", b->name, "ready", ready, "text", what,
                                             "facts", object, "needs", list));
    r->text.failed |= facts.failed;
    tn_buf_free(&facts);
    if (ready) b->close(&device);
}

tn_status tn_doctor(const tn_doctor_options *options, tn_sink out, tn_error *err) {
    report r = {.list = json_array()};
    for (int i = 0; tn_backend_at(i); i++)
        if (!tn_backend_at(i)->hidden) put_backend(&r, tn_backend_at(i), options->webgpu_lib);
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
