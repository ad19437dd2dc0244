/* What the tests of the WebGPU backend share: a device, or the test is skipped; with TENON_REQUIRE_WEBGPU=1 in the environment
 * (where one must be, as in CI) it fails instead. */
#ifndef TN_TESTS_WEBGPU_RIG_H
#define TN_TESTS_WEBGPU_RIG_H

#include "backend/webgpu/webgpu.h"
#include "verify.h"

enum { TN_WEBGPU_SETS = 4 };
/* Backends with each set of features: "webgpu:none", "webgpu:f16", "webgpu:subgroups", "webgpu:both". */
extern const char *const tn_webgpu_sets[TN_WEBGPU_SETS];
/* The place in it of a set as a test's argument names it ("f16"); -1: there is none. */
int tn_webgpu_set(const char *name);

/* Ends a test that cannot be run, for the reason given. */
void tn_webgpu_skip(const char *why);
/* Skips the test where there is no device with that name, before it holds anything. */
void tn_webgpu_need(const char *name);
void tn_webgpu_open_rig(tn_rig *rig, const char *name);
/* A small model of tests/data/reference. */
tn_model *tn_webgpu_open_model(const char *name, const char *backend);

#endif
