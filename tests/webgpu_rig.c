#include "webgpu_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const tn_webgpu_sets[TN_WEBGPU_SETS] = {"webgpu:none", "webgpu:f16", "webgpu:subgroups", "webgpu:both"};

int tn_webgpu_set(const char *name) {
    for (int i = 0; i < TN_WEBGPU_SETS; i++)
        if (!strcmp(strchr(tn_webgpu_sets[i], ':') + 1, name)) return i;
    return -1;
}

void tn_webgpu_skip(const char *why) {
    const char *require = getenv("TENON_REQUIRE_WEBGPU");
    if (require && *require && strcmp(require, "0")) fail_msg("required here: %s", why);
    print_message("skipped: %s\n", why);
    skip();
}

void tn_webgpu_open_rig(tn_rig *rig, const char *name) {
    tn_error err = {0};
    tn_status status = tn_rig_open(rig, name, 1, &err);
    if (status == TN_ERR_UNAVAILABLE) tn_webgpu_skip(err.text);
    if (status != TN_OK) fail_msg("%s", err.text);
}

void tn_webgpu_need(const char *name) {
    tn_rig rig;
    tn_webgpu_open_rig(&rig, name);
    tn_rig_close(&rig);
}

tn_model *tn_webgpu_open_model(const char *name, const char *backend) {
    char path[600];
    tn_error err = {0};
    tn_model *m;
    snprintf(path, sizeof path, "%s/reference/%s.gguf", TESTS_DATA_BUILD, name);
    tn_status status = tn_model_open(&m, path, &(tn_model_options){.backend = backend}, &err);
    if (status == TN_ERR_UNAVAILABLE) tn_webgpu_skip(err.text);
    if (status != TN_OK) fail_msg("%s", err.text);
    return m;
}
