/* argmax: the index of the largest of a row, of equal ones the lowest; 0 where none is a number. Block (share, row): a share is EACH
 * columns. Where there are several, each leaves its best in `partial`, and the block that comes last looks through them: the
 * order does not matter.
 * The host gives COLS, EACH, SHARES, INPUT, OUTPUT (v[]), COUNT. */

constexpr int NONE = 0x7fffffff;

struct best {
    float x;
    int at;
    __device__ void see(float y, int where) {
        if (y > x || (y == x && where < at)) x = y, at = where; /* a NaN is neither */
    }
};

/* The best of the block's threads, in the first. */
DEV best of_block(best b) {
    __shared__ best part[TN_K_WARPS];
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) {
        float x = __shfl_xor_sync(~0u, b.x, i);
        int at = __shfl_xor_sync(~0u, b.at, i);
        b.see(x, at);
    }
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = b;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int i = 1; i < TN_K_WARPS; i++) b.see(part[i].x, part[i].at);
    __syncthreads();
    return b;
}

/* Leaves this share's best; true in the block that comes last. */
DEV bool leave(const tn_k_args &p, int row, best b) {
    if (threadIdx.x == 0) __stcg((float2 *)p.partial + row * SHARES + blockIdx.x, make_float2(b.x, __int_as_float(b.at)));
    return leaves_last((u32 *)p.counters + row, SHARES);
}

extern "C" __global__ void __launch_bounds__(TN_K_THREADS) argmax(const __grid_constant__ tn_k_args p) {
    let_next_start();
    int row = blockIdx.y, first = blockIdx.x * EACH, end = first + EACH < COLS ? first + EACH : COLS;
    best b = {__int_as_float(0xff800000), NONE}, none = b;
    wait_for_last();
    if (row >= step_count(p, COUNT)) return;
    const float *x = value_at<const float>(p, INPUT, row);
#pragma unroll 8
    for (int c = first + threadIdx.x; c < end; c += TN_K_THREADS) b.see(x[c], c);
    b = of_block(b);
    if (SHARES > 1) {
        if (!leave(p, row, b)) return;
        b = none;
        for (int i = threadIdx.x; i < SHARES; i += TN_K_THREADS) {
            float2 other = __ldcg((const float2 *)p.partial + row * SHARES + i);
            b.see(other.x, __float_as_int(other.y));
        }
        b = of_block(b);
    }
    if (threadIdx.x == 0) *value_at<int>(p, OUTPUT, row) = b.at == NONE ? 0 : b.at;
}
