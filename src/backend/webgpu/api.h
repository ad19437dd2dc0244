/* The part of the standard webgpu.h that tenon uses, declared here so that tenon builds where no implementation is
 * installed: the library is loaded at run time. Names, layouts and values are the standard's (webgpu-headers); what only one
 * implementation has is in native.c. */
#ifndef TN_WEBGPU_API_H
#define TN_WEBGPU_API_H

#include <stddef.h>
#include <stdint.h>

typedef struct WGPUInstanceImpl *WGPUInstance;
typedef struct WGPUAdapterImpl *WGPUAdapter;
typedef struct WGPUDeviceImpl *WGPUDevice;
typedef struct WGPUQueueImpl *WGPUQueue;
typedef struct WGPUBufferImpl *WGPUBuffer;
typedef struct WGPUShaderModuleImpl *WGPUShaderModule;
typedef struct WGPUBindGroupLayoutImpl *WGPUBindGroupLayout;
typedef struct WGPUPipelineLayoutImpl *WGPUPipelineLayout;
typedef struct WGPUComputePipelineImpl *WGPUComputePipeline;
typedef struct WGPUBindGroupImpl *WGPUBindGroup;
typedef struct WGPUCommandEncoderImpl *WGPUCommandEncoder;
typedef struct WGPUComputePassEncoderImpl *WGPUComputePassEncoder;
typedef struct WGPUCommandBufferImpl *WGPUCommandBuffer;
typedef struct WGPUQuerySetImpl *WGPUQuerySet;

typedef uint32_t WGPUBool;
typedef uint32_t WGPUEnum; /* every enumeration is 32 bits wide */
typedef uint64_t WGPUFlags;

enum {
    WGPUSType_ShaderSourceWGSL = 2,
    WGPUCallbackMode_AllowProcessEvents = 2,
    WGPUAdapterType_CPU = 3,
    WGPUFeatureLevel_Core = 2,
    WGPUPowerPreference_HighPerformance = 2,
    WGPUFeatureName_TimestampQuery = 9,
    WGPUFeatureName_ShaderF16 = 11,
    WGPUFeatureName_Subgroups = 18,
    WGPUErrorType_NoError = 1,
    WGPUErrorType_Validation = 2,
    WGPUErrorType_OutOfMemory = 3,
    WGPUStatus_Success = 1, /* of requests, maps and plain calls alike */
    WGPUQueryType_Timestamp = 2,
    WGPUBufferBindingType_Uniform = 2,
    WGPUBufferBindingType_Storage = 3,
    WGPUBufferBindingType_ReadOnlyStorage = 4,
};
enum {
    WGPUBufferUsage_MapRead = 0x1,
    WGPUBufferUsage_CopySrc = 0x4,
    WGPUBufferUsage_CopyDst = 0x8,
    WGPUBufferUsage_Uniform = 0x40,
    WGPUBufferUsage_Storage = 0x80,
    WGPUBufferUsage_QueryResolve = 0x200,
    WGPUMapMode_Read = 1,
    WGPUShaderStage_Compute = 4,
};

typedef struct WGPUStringView {
    const char *data;
    size_t length;
} WGPUStringView;
#define WGPU_STRLEN SIZE_MAX

typedef struct WGPUChainedStruct {
    struct WGPUChainedStruct *next;
    WGPUEnum sType;
} WGPUChainedStruct;

typedef struct WGPUFuture {
    uint64_t id;
} WGPUFuture;

typedef struct WGPULimits {
    WGPUChainedStruct *nextInChain;
    uint32_t maxTextureDimension1D, maxTextureDimension2D, maxTextureDimension3D, maxTextureArrayLayers;
    uint32_t maxBindGroups, maxBindGroupsPlusVertexBuffers, maxBindingsPerBindGroup;
    uint32_t maxDynamicUniformBuffersPerPipelineLayout, maxDynamicStorageBuffersPerPipelineLayout;
    uint32_t maxSampledTexturesPerShaderStage, maxSamplersPerShaderStage, maxStorageBuffersPerShaderStage;
    uint32_t maxStorageTexturesPerShaderStage, maxUniformBuffersPerShaderStage;
    uint64_t maxUniformBufferBindingSize, maxStorageBufferBindingSize;
    uint32_t minUniformBufferOffsetAlignment, minStorageBufferOffsetAlignment;
    uint32_t maxVertexBuffers;
    uint64_t maxBufferSize;
    uint32_t maxVertexAttributes, maxVertexBufferArrayStride, maxInterStageShaderVariables;
    uint32_t maxColorAttachments, maxColorAttachmentBytesPerSample;
    uint32_t maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup;
    uint32_t maxComputeWorkgroupSizeX, maxComputeWorkgroupSizeY, maxComputeWorkgroupSizeZ;
    uint32_t maxComputeWorkgroupsPerDimension, maxImmediateSize;
} WGPULimits;

typedef struct WGPUAdapterInfo {
    WGPUChainedStruct *nextInChain;
    WGPUStringView vendor, architecture, device, description;
    WGPUEnum backendType, adapterType;
    uint32_t vendorID, deviceID, subgroupMinSize, subgroupMaxSize;
} WGPUAdapterInfo;

typedef struct WGPUInstanceDescriptor {
    WGPUChainedStruct *nextInChain;
    size_t requiredFeatureCount;
    const WGPUEnum *requiredFeatures;
    const void *requiredLimits;
} WGPUInstanceDescriptor;

typedef struct WGPURequestAdapterOptions {
    WGPUChainedStruct *nextInChain;
    WGPUEnum featureLevel, powerPreference;
    WGPUBool forceFallbackAdapter;
    WGPUEnum backendType;
    void *compatibleSurface;
} WGPURequestAdapterOptions;

/* What every asynchronous call takes: whom to call back, and when. */
#define WGPU_CALLBACK(Name, ...)                                                                                     \
    typedef void (*WGPU##Name##Callback)(__VA_ARGS__, void *userdata1, void *userdata2);                             \
    typedef struct WGPU##Name##CallbackInfo {                                                                        \
        WGPUChainedStruct *nextInChain;                                                                              \
        WGPUEnum mode;                                                                                               \
        WGPU##Name##Callback callback;                                                                               \
        void *userdata1, *userdata2;                                                                                 \
    } WGPU##Name##CallbackInfo
WGPU_CALLBACK(RequestAdapter, WGPUEnum status, WGPUAdapter adapter, WGPUStringView message);
WGPU_CALLBACK(RequestDevice, WGPUEnum status, WGPUDevice device, WGPUStringView message);
WGPU_CALLBACK(DeviceLost, const WGPUDevice *device, WGPUEnum reason, WGPUStringView message);
WGPU_CALLBACK(BufferMap, WGPUEnum status, WGPUStringView message);

typedef struct WGPUUncapturedErrorCallbackInfo { /* the one without a mode */
    WGPUChainedStruct *nextInChain;
    void (*callback)(const WGPUDevice *device, WGPUEnum type, WGPUStringView message, void *userdata1,
                     void *userdata2);
    void *userdata1, *userdata2;
} WGPUUncapturedErrorCallbackInfo;

typedef struct WGPUQueueDescriptor {
    WGPUChainedStruct *nextInChain;
    WGPUStringView label;
} WGPUQueueDescriptor;

typedef struct WGPUDeviceDescriptor {
    WGPUChainedStruct *nextInChain;
    WGPUStringView label;
    size_t requiredFeatureCount;
    const WGPUEnum *requiredFeatures;
    const WGPULimits *requiredLimits;
    WGPUQueueDescriptor defaultQueue;
    WGPUDeviceLostCallbackInfo deviceLostCallbackInfo;
    WGPUUncapturedErrorCallbackInfo uncapturedErrorCallbackInfo;
} WGPUDeviceDescriptor;

typedef struct WGPUBufferDescriptor {
    WGPUChainedStruct *nextInChain;
    WGPUStringView label;
    WGPUFlags usage;
    uint64_t size;
    WGPUBool mappedAtCreation;
} WGPUBufferDescriptor;

typedef struct WGPUShaderModuleDescriptor {
    WGPUChainedStruct *nextInChain;
    WGPUStringView label;
} WGPUShaderModuleDescriptor;

typedef struct WGPUShaderSourceWGSL {
    WGPUChainedStruct chain;
    WGPUStringView code;
} WGPUShaderSourceWGSL;

typedef struct WGPUBindGroupLayoutEntry {
    WGPUChainedStruct *nextInChain;
    uint32_t binding;
    WGPUFlags visibility;
    uint32_t bindingArraySize;
    struct {
        WGPUChainedStruct *nextInChain;
        WGPUEnum type;
        WGPUBool hasDynamicOffset;
        uint64_t minBindingSize;
    } buffer;
    struct {
        WGPUChainedStruct *nextInChain;
        WGPUEnum type;
    } sampler;
    struct {
        WGPUChainedStruct *nextInChain;
        WGPUEnum sampleType, viewDimension;
        WGPUBool multisampled;
    } texture;
    struct {
        WGPUChainedStruct *nextInChain;
        WGPUEnum access, format, viewDimension;
    } storageTexture;
} WGPUBindGroupLayoutEntry;

typedef struct WGPUBindGroupLayoutDescriptor {
    WGPUChainedStruct *nextInChain;
    WGPUStringView label;
    size_t entryCount;
    const WGPUBindGroupLayoutEntry *entries;
} WGPUBindGroupLayoutDescriptor;

typedef struct WGPUPipelineLayoutDescriptor {
    WGPUChainedStruct *nextInChain;
    WGPUStringView label;
    size_t bindGroupLayoutCount;
    const WGPUBindGroupLayout *bindGroupLayouts;
    uint32_t immediateSize;
} WGPUPipelineLayoutDescriptor;

typedef struct WGPUComputePipelineDescriptor {
    WGPUChainedStruct *nextInChain;
    WGPUStringView label;
    WGPUPipelineLayout layout;
    struct {
        WGPUChainedStruct *nextInChain;
        WGPUShaderModule module;
        WGPUStringView entryPoint;
        size_t constantCount;
        const void *constants;
    } compute;
} WGPUComputePipelineDescriptor;

typedef struct WGPUBindGroupEntry {
    WGPUChainedStruct *nextInChain;
    uint32_t binding;
    WGPUBuffer buffer;
    uint64_t offset, size;
    void *sampler, *textureView;
} WGPUBindGroupEntry;

typedef struct WGPUBindGroupDescriptor {
    WGPUChainedStruct *nextInChain;
    WGPUStringView label;
    WGPUBindGroupLayout layout;
    size_t entryCount;
    const WGPUBindGroupEntry *entries;
} WGPUBindGroupDescriptor;

typedef struct WGPUQuerySetDescriptor {
    WGPUChainedStruct *nextInChain;
    WGPUStringView label;
    WGPUEnum type;
    uint32_t count;
} WGPUQuerySetDescriptor;

typedef struct WGPUPassTimestampWrites {
    WGPUChainedStruct *nextInChain;
    WGPUQuerySet querySet;
    uint32_t beginningOfPassWriteIndex, endOfPassWriteIndex;
} WGPUPassTimestampWrites;

typedef struct WGPUComputePassDescriptor {
    WGPUChainedStruct *nextInChain;
    WGPUStringView label;
    const WGPUPassTimestampWrites *timestampWrites;
} WGPUComputePassDescriptor;

/* The functions: FN(result, name without "wgpu", parameters) */
#define TN_WEBGPU_FUNCTIONS(FN)                                                                                      \
    FN(WGPUInstance, CreateInstance, (const WGPUInstanceDescriptor *))                                               \
    FN(WGPUFuture, InstanceRequestAdapter,                                                                           \
       (WGPUInstance, const WGPURequestAdapterOptions *, WGPURequestAdapterCallbackInfo))                            \
    FN(void, InstanceProcessEvents, (WGPUInstance))                                                                  \
    FN(WGPUEnum, AdapterGetInfo, (WGPUAdapter, WGPUAdapterInfo *))                                                   \
    FN(void, AdapterInfoFreeMembers, (WGPUAdapterInfo))                                                              \
    FN(WGPUEnum, AdapterGetLimits, (WGPUAdapter, WGPULimits *))                                                      \
    FN(WGPUBool, AdapterHasFeature, (WGPUAdapter, WGPUEnum))                                                         \
    FN(WGPUFuture, AdapterRequestDevice, (WGPUAdapter, const WGPUDeviceDescriptor *, WGPURequestDeviceCallbackInfo)) \
    FN(void, AdapterRelease, (WGPUAdapter))                                                                          \
    FN(WGPUQueue, DeviceGetQueue, (WGPUDevice))                                                                      \
    FN(WGPUBuffer, DeviceCreateBuffer, (WGPUDevice, const WGPUBufferDescriptor *))                                   \
    FN(WGPUShaderModule, DeviceCreateShaderModule, (WGPUDevice, const WGPUShaderModuleDescriptor *))                 \
    FN(WGPUBindGroupLayout, DeviceCreateBindGroupLayout, (WGPUDevice, const WGPUBindGroupLayoutDescriptor *))        \
    FN(WGPUPipelineLayout, DeviceCreatePipelineLayout, (WGPUDevice, const WGPUPipelineLayoutDescriptor *))           \
    FN(WGPUComputePipeline, DeviceCreateComputePipeline, (WGPUDevice, const WGPUComputePipelineDescriptor *))        \
    FN(WGPUBindGroup, DeviceCreateBindGroup, (WGPUDevice, const WGPUBindGroupDescriptor *))                          \
    FN(WGPUCommandEncoder, DeviceCreateCommandEncoder, (WGPUDevice, const void *))                                   \
    FN(WGPUQuerySet, DeviceCreateQuerySet, (WGPUDevice, const WGPUQuerySetDescriptor *))                             \
    FN(void, QuerySetRelease, (WGPUQuerySet))                                                                        \
    FN(WGPUEnum, DeviceGetLimits, (WGPUDevice, WGPULimits *))                                                        \
    FN(void, DeviceDestroy, (WGPUDevice))                                                                            \
    FN(void, DeviceRelease, (WGPUDevice))                                                                            \
    FN(void, QueueRelease, (WGPUQueue))                                                                              \
    FN(void, QueueWriteBuffer, (WGPUQueue, WGPUBuffer, uint64_t, const void *, size_t))                              \
    FN(void, QueueSubmit, (WGPUQueue, size_t, const WGPUCommandBuffer *))                                            \
    FN(WGPUFuture, BufferMapAsync, (WGPUBuffer, WGPUFlags, size_t, size_t, WGPUBufferMapCallbackInfo))               \
    FN(const void *, BufferGetConstMappedRange, (WGPUBuffer, size_t, size_t))                                        \
    FN(void, BufferUnmap, (WGPUBuffer))                                                                              \
    FN(void, BufferDestroy, (WGPUBuffer))                                                                            \
    FN(void, BufferRelease, (WGPUBuffer))                                                                            \
    FN(void, ShaderModuleRelease, (WGPUShaderModule))                                                                \
    FN(void, BindGroupLayoutRelease, (WGPUBindGroupLayout))                                                          \
    FN(void, PipelineLayoutRelease, (WGPUPipelineLayout))                                                            \
    FN(void, ComputePipelineRelease, (WGPUComputePipeline))                                                          \
    FN(void, BindGroupRelease, (WGPUBindGroup))                                                                      \
    FN(WGPUComputePassEncoder, CommandEncoderBeginComputePass,                                                       \
       (WGPUCommandEncoder, const WGPUComputePassDescriptor *))                                                      \
    FN(void, CommandEncoderCopyBufferToBuffer,                                                                       \
       (WGPUCommandEncoder, WGPUBuffer, uint64_t, WGPUBuffer, uint64_t, uint64_t))                                   \
    FN(void, CommandEncoderResolveQuerySet,                                                                          \
       (WGPUCommandEncoder, WGPUQuerySet, uint32_t, uint32_t, WGPUBuffer, uint64_t))                                 \
    FN(WGPUCommandBuffer, CommandEncoderFinish, (WGPUCommandEncoder, const void *))                                  \
    FN(void, CommandEncoderRelease, (WGPUCommandEncoder))                                                            \
    FN(void, CommandBufferRelease, (WGPUCommandBuffer))                                                              \
    FN(void, ComputePassEncoderSetPipeline, (WGPUComputePassEncoder, WGPUComputePipeline))                           \
    FN(void, ComputePassEncoderSetBindGroup,                                                                         \
       (WGPUComputePassEncoder, uint32_t, WGPUBindGroup, size_t, const uint32_t *))                                  \
    FN(void, ComputePassEncoderDispatchWorkgroups, (WGPUComputePassEncoder, uint32_t, uint32_t, uint32_t))           \
    FN(void, ComputePassEncoderEnd, (WGPUComputePassEncoder))                                                        \
    FN(void, ComputePassEncoderRelease, (WGPUComputePassEncoder))

#endif
