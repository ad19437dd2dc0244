/* The implementation of WebGPU that was found, and what differs between implementations. */
#ifndef TN_WEBGPU_NATIVE_H
#define TN_WEBGPU_NATIVE_H

#include "backend/webgpu/api.h"
#include "base/error.h"

#include <stdbool.h>

typedef struct tn_webgpu_library {
    void *handle;
#define FN(result, name, params) result(*name) params;
    TN_WEBGPU_FUNCTIONS(FN)
#undef FN
    /* wgpu-native's own; NULL elsewhere */
    WGPUBool (*DevicePoll)(WGPUDevice, WGPUBool wait, const uint64_t *submission);
    WGPUShaderModule (*DeviceCreateShaderModuleTrusted)(WGPUDevice, const WGPUShaderModuleDescriptor *,
                                                        WGPUFlags checks);
    uint64_t (*QueueSubmitForIndex)(WGPUQueue, size_t, const WGPUCommandBuffer *);
    float (*QueueGetTimestampPeriod)(WGPUQueue);
} tn_webgpu_library;

/* Finds and opens a library: `path`, or where path is NULL the usual places. TN_ERR_UNAVAILABLE says where it looked. */
tn_status tn_webgpu_library_open(tn_webgpu_library *lib, const char *path, tn_error *err);

/* The number of the feature that gives subgroups, 0 where the adapter has none. */
WGPUEnum tn_webgpu_subgroup_feature(const tn_webgpu_library *lib, WGPUAdapter adapter);

/* The library's instance; it is never released. */
WGPUInstance tn_webgpu_instance(const tn_webgpu_library *lib);

/* Lets callbacks run. With a submission: it must be done when this returns, 0 meaning all (where the implementation can wait;
 * callers ask again until their callback has run). */
void tn_webgpu_poll(const tn_webgpu_library *lib, WGPUInstance instance, WGPUDevice device,
                    const uint64_t *submission);
/* Lets a loss of the device that the implementation knows of be told to its callback: wgpu-native does when an encoder is asked
 * for, others when events are processed. */
void tn_webgpu_tell_loss(const tn_webgpu_library *lib, WGPUInstance instance, WGPUDevice device);
/* Whether an error is one of memory that is not there: wgpu-native gives it the type of an invalid call. */
bool tn_webgpu_no_memory(WGPUEnum type, const char *message);
/* Submits; its number to wait for, 0 where there are none. */
uint64_t tn_webgpu_submit_commands(const tn_webgpu_library *lib, WGPUQueue queue, WGPUCommandBuffer commands);

/* A shader module: with bounds checks on every buffer access, but without counters in every loop where that can be asked
 * for: our loops end. */
WGPUShaderModule tn_webgpu_module(const tn_webgpu_library *lib, WGPUDevice device,
                                  const WGPUShaderModuleDescriptor *desc);

/* Seconds of a unit of timestamps. */
double tn_webgpu_tick_seconds(const tn_webgpu_library *lib, WGPUQueue queue);

#endif
