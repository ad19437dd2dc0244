/* What is to be known of the GPU as WebGPU shows it: for doctor. */
#include "backend/webgpu/webgpu.h"

void tn_webgpu_facts(const tn_device *d, tn_buf *b) {
    const WGPULimits *l = &d->limits;
    tn_buf_printf(b, "library: %s\n", d->lib.DevicePoll ? "wgpu-native" : "by the standard only");
    tn_buf_printf(b, "features: f16 %s, subgroups %s", d->f16 ? "yes" : "no", d->subgroup ? "of " : "no");
    if (d->subgroup) tn_buf_printf(b, "%d", d->subgroup);
    tn_buf_printf(b, ", int8 dot products %s\n", d->packed_dot ? "yes" : "no");
    tn_buf_printf(b, "one buffer: %.1f MiB; a shader sees %.1f of it\n", (double)l->maxBufferSize / (1 << 20),
                  (double)d->max_binding / (1 << 20));
    tn_buf_printf(b, "storage buffers: %u a shader\n", l->maxStorageBuffersPerShaderStage);
    tn_buf_printf(b, "workgroup: %u invocations, %u KiB of memory\n", l->maxComputeInvocationsPerWorkgroup,
                  l->maxComputeWorkgroupStorageSize >> 10);
    tn_buf_printf(b, "workgroups: %u in a dimension\n", l->maxComputeWorkgroupsPerDimension);
}
