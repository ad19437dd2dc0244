/* best: the BEST greatest of a row with their indices, in order, of equal ones the lowest index first; what is not a number counts as
 * -infinity. Block (share, row): a share is EACH columns. Where there are several, each leaves its best in `partial`, and the block
 * that comes last looks through them. A number and its index are one key, the greater the better: no two are equal, so that
 * neither the order of threads nor that of blocks matters.
 * The host gives COLS, EACH, SHARES, BEST, INPUT, IDS and NUMBERS (v[]; -1: not stored), COUNT. */

constexpr int OWN = (EACH + TN_K_THREADS - 1) / TN_K_THREADS;           /* keys of a thread: of its share .. */
constexpr int LEFT = (SHARES * BEST + TN_K_THREADS - 1) / TN_K_THREADS; /* .. and of what the shares left */

/* Above 0, which is no key. */
DEV u64 key_of(float x, int at) {
    u32 bits = x != x ? 0xff800000u : x == 0 ? 0 : __float_as_uint(x);
    return (u64)(bits >> 31 ? ~bits : bits | 0x80000000u) << 32 | ~(u32)at;
}

/* How many of the block's keys are not below the limit. The parts of one count are read until the next but one is made. */
template <int N> DEV int count(const u64 (&key)[N], u64 limit, int *part) {
    int n = 0;
#pragma unroll
    for (int i = 0; i < N; i++) n += key[i] >= limit;
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) n += __shfl_xor_sync(~0u, n, i);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = n;
    __syncthreads();
    n = 0;
#pragma unroll
    for (int i = 0; i < TN_K_WARPS; i++) n += part[i];
    return n;
}

/* The best of the block's keys, in no order, the rest of found[] 0: those that reach the greatest limit which enough of them reach,
 * whose bits are found from the first on. */
template <int N> DEV void find(const u64 (&key)[N], u64 *found) {
    __shared__ int part[2][TN_K_WARPS], n_found;
    u64 limit = 1;
    if (threadIdx.x == 0) n_found = 0;
    if (threadIdx.x < BEST) found[threadIdx.x] = 0;
    for (int bit = 63; bit >= 0; bit--) {
        u64 higher = (limit & ~(u64)1) | (u64)1 << bit;
        int n = count(key, higher, part[bit & 1]);
        if (n >= BEST) limit = higher;
        if (n == BEST) break;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++)
        if (key[i] >= limit) found[atomicAdd(&n_found, 1)] = key[i];
    __syncthreads();
}

/* Leaves this share's best; true in the block that comes last. */
DEV bool leave(const tn_k_args &p, int row, const u64 *found) {
    if (threadIdx.x < BEST)
        __stcg((u64 *)p.partial + ((long long)row * SHARES + blockIdx.x) * BEST + threadIdx.x, found[threadIdx.x]);
    return leaves_last((u32 *)p.counters + row, SHARES);
}

extern "C" __global__ void __launch_bounds__(TN_K_THREADS) best(const __grid_constant__ tn_k_args p) {
    __shared__ u64 found[BEST];
    let_next_start();
    int row = blockIdx.y, first = blockIdx.x * EACH, end = first + EACH < COLS ? first + EACH : COLS;
    wait_for_last();
    if (row >= step_count(p, COUNT)) return;
    const float *x = value_at<const float>(p, INPUT, row);
    u64 own[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        int c = first + i * TN_K_THREADS + threadIdx.x;
        own[i] = c < end ? key_of(x[c], c) : 0;
    }
    find(own, found);
    if (SHARES > 1) {
        if (!leave(p, row, found)) return;
        u64 left[LEFT];
#pragma unroll
        for (int i = 0; i < LEFT; i++) {
            int k = i * TN_K_THREADS + threadIdx.x;
            left[i] = k < SHARES * BEST ? __ldcg((const u64 *)p.partial + (long long)row * SHARES * BEST + k) : 0;
        }
        find(left, found);
    }
    if (threadIdx.x >= BEST) return;
    u64 key = found[threadIdx.x];
    int place = 0, at = (int)~(u32)key;
    for (int i = 0; i < BEST; i++) place += found[i] > key;
    if (IDS >= 0) value_at<int>(p, IDS, row)[place] = at;
    if (NUMBERS >= 0) value_at<float>(p, NUMBERS, row)[place] = x[at] == x[at] ? x[at] : __int_as_float(0xff800000);
}
