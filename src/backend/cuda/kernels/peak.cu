/* peak: reads memory as fast as it goes; for the share of it that a launch reaches. Eight loads of 16 bytes in flight a thread;
 * the sum keeps the compiler from leaving them out. */
extern "C" __global__ void __launch_bounds__(256) peak(const uint4 *from, unsigned long long n, unsigned *sink) {
    constexpr int LOADS = 8;
    unsigned sum = 0;
    unsigned long long step = (unsigned long long)gridDim.x * 256 * LOADS;
    for (unsigned long long i = (unsigned long long)blockIdx.x * 256 * LOADS + threadIdx.x; i < n; i += step) {
        uint4 v[LOADS];
#pragma unroll
        for (int k = 0; k < LOADS; k++) v[k] = i + k * 256 < n ? from[i + k * 256] : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int k = 0; k < LOADS; k++) sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
    }
    if (sum == 1) *sink = sum;
}
