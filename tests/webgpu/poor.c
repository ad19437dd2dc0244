/* An implementation of WebGPU like the one it is linked with, whose adapters have none of the optional features. */
#include "backend/webgpu/api.h"

WGPUBool wgpuAdapterHasFeature(WGPUAdapter adapter, WGPUEnum feature);

WGPUBool wgpuAdapterHasFeature(WGPUAdapter adapter, WGPUEnum feature) {
    (void)adapter, (void)feature;
    return 0;
}
