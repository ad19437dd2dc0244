/* attend: [ops on the heads of q and k, cache write] attention [ops on its result]. Block (token, kv head, split): all query
 * heads of a kv head over a share of the context's pages. Where there are several shares, each leaves its sums in
 * `partial`, and the block that comes last puts them together, always in the order of the shares.
 * The host gives GROUP (query heads of a kv head), Q_CODE, KV_*, WINDOW, FACTOR, SOFTCAP, SPLITS, MIN_PAGES (of a share), ROW_OPS, N_ROW_OPS,
 * AFTER_OPS, N_AFTER_OPS, CORE_STORE, WORK_AT (offset of this kernel's own shared memory, floats). */

constexpr int EACH = KV_TYPE == 0 ? 8 : KV_TYPE == 1 ? 16 : 4; /* elements in 16 bytes */
constexpr int K_PIECES = KV_K_DIM / EACH, K_LOADS = (K_PIECES + 7) / 8;
constexpr int V_PIECES = KV_V_DIM / EACH;
constexpr int V_GROUPS = TN_K_THREADS / V_PIECES < 16 ? TN_K_THREADS / V_PIECES : 16; /* positions worked on at once */
constexpr int V_LOADS = (TN_K_PAGE + V_GROUPS - 1) / V_GROUPS;
constexpr int OUT = GROUP * KV_V_DIM, Q_COLS = GROUP * KV_K_DIM;

/* Shared memory of the core, in floats. */
constexpr int AT_Q = 0, AT_SCORE = AT_Q + (Q_COLS + 3) / 4 * 4, AT_MAX = AT_SCORE + GROUP * TN_K_PAGE;
constexpr int AT_SUM = AT_MAX + GROUP, AT_SHRINK = AT_SUM + GROUP, AT_OUT = (AT_SHRINK + GROUP + 3) / 4 * 4;
constexpr int AT_RED = AT_OUT + (OUT + 3) / 4 * 4;

/* 16 bytes of a row of the cache as floats. */
DEV void unpack(const uint4 &piece, float scale, float *y) {
    const u32 *w = (const u32 *)&piece;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if constexpr (KV_TYPE == 0) y[i] = from_half(w[i / 2] >> (i % 2 * 16) & 0xffff);
        if constexpr (KV_TYPE == 1) y[i] = scale * (float)(int)(i8)(w[i / 4] >> (i % 4 * 8) & 255);
        if constexpr (KV_TYPE == 2) y[i] = __uint_as_float(w[i]);
    }
}
template <int DIM> DEV float scale_of(const char *block, int slot, int piece) {
    if constexpr (KV_TYPE != 1) return 1;
    return from_half(((const u16 *)(block + kv_scales_at<DIM>()))[slot * (DIM / 32) + piece / 2]);
}

/* Scores of a page: eight lanes a position, two positions a lane. */
DEV void score_page(const char *keys, const float *q, float *score, int low, int high) {
    int l = threadIdx.x % 8, slot0 = threadIdx.x / 8;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int slot = slot0 + 32 * half;
        float sum[GROUP];
#pragma unroll
        for (int g = 0; g < GROUP; g++) sum[g] = 0;
#pragma unroll
        for (int j = 0; j < K_LOADS; j++) {
            int piece = 8 * j + l;
            if (piece >= K_PIECES || slot < low || slot >= high) continue;
            float k[EACH];
            unpack(((const uint4 *)keys)[slot * K_PIECES + piece], scale_of<KV_K_DIM>(keys, slot, piece), k);
#pragma unroll
            for (int g = 0; g < GROUP; g++) {
                const float4 *from = (const float4 *)(q + g * KV_K_DIM + piece * EACH);
#pragma unroll
                for (int i = 0; i < EACH / 4; i++) {
                    float4 v = from[i];
                    sum[g] = fmaf(v.x, k[4 * i], sum[g]);
                    sum[g] = fmaf(v.y, k[4 * i + 1], sum[g]);
                    sum[g] = fmaf(v.z, k[4 * i + 2], sum[g]);
                    sum[g] = fmaf(v.w, k[4 * i + 3], sum[g]);
                }
            }
        }
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
#pragma unroll
            for (int i = 4; i > 0; i >>= 1) sum[g] += __shfl_xor_sync(~0u, sum[g], i);
            float s = sum[g] * FACTOR;
            if (SOFTCAP != 0) s = SOFTCAP * tanhf(s / SOFTCAP);
            if (l == 0) score[g * TN_K_PAGE + slot] = slot >= low && slot < high ? s : __int_as_float(0xff800000);
        }
    }
}

/* Scores -> weights, by a warp for each head; the maximum so far may grow: what was summed shrinks to it. */
DEV void soften(float *smem) {
    int lane = threadIdx.x % 32;
    for (int g = threadIdx.x / 32; g < GROUP; g += TN_K_WARPS) {
        float *score = smem + AT_SCORE + g * TN_K_PAGE, a = score[lane], b = score[lane + 32];
        float before = smem[AT_MAX + g], max = fmaxf(before, warp_max(fmaxf(a, b)));
        a = expf(a - max);
        b = expf(b - max);
        score[lane] = a;
        score[lane + 32] = b;
        float sum = warp_sum(a + b), shrink = expf(before - max);
        __syncwarp();
        if (lane == 0) {
            smem[AT_MAX + g] = max;
            smem[AT_SHRINK + g] = shrink;
            smem[AT_SUM + g] = smem[AT_SUM + g] * shrink + sum;
        }
    }
}

/* Pages [begin, end): sums of weighted values into smem[AT_OUT], maxima and sums of weights beside. */
DEV void attend_pages(const tn_k_args &p, float *smem, const float *q, const int *pages, int head, int begin, int end, int lowest, int pos) {
    int piece = threadIdx.x % V_PIECES, group = threadIdx.x / V_PIECES;
    bool works = group < V_GROUPS;
    float acc[GROUP][EACH];
#pragma unroll
    for (int g = 0; g < GROUP; g++)
#pragma unroll
        for (int i = 0; i < EACH; i++) acc[g][i] = 0;
    if (threadIdx.x < GROUP) {
        smem[AT_MAX + threadIdx.x] = __int_as_float(0xff800000);
        smem[AT_SUM + threadIdx.x] = 0;
    }
    __syncthreads();
#pragma unroll 1
    for (int page = begin; page < end; page++) {
        int first = page * TN_K_PAGE, low = lowest > first ? lowest - first : 0;
        int high = pos - first + 1 < TN_K_PAGE ? pos - first + 1 : TN_K_PAGE;
        const char *keys = kv_keys(p, pages[page], head), *values = kv_values(p, pages[page], head);
        uint4 v[V_LOADS]; /* on their way while the scores are computed */
#pragma unroll
        for (int j = 0; j < V_LOADS; j++) {
            int slot = j * V_GROUPS + group;
            bool seen = works && slot >= low && slot < high;
            v[j] = seen ? ((const uint4 *)values)[slot * V_PIECES + piece] : make_uint4(0, 0, 0, 0);
        }
        score_page(keys, q, smem + AT_SCORE, low, high);
        __syncthreads();
        soften(smem);
        __syncthreads();
#pragma unroll
        for (int g = 0; g < GROUP; g++)
#pragma unroll
            for (int i = 0; i < EACH; i++) acc[g][i] *= smem[AT_SHRINK + g];
#pragma unroll
        for (int j = 0; j < V_LOADS; j++) {
            int slot = j * V_GROUPS + group;
            if (!works || slot < low || slot >= high) continue;
            float y[EACH];
            unpack(v[j], scale_of<KV_V_DIM>(values, slot, piece), y);
#pragma unroll
            for (int g = 0; g < GROUP; g++) {
                float weight = smem[AT_SCORE + g * TN_K_PAGE + slot];
#pragma unroll
                for (int i = 0; i < EACH; i++) acc[g][i] = fmaf(weight, y[i], acc[g][i]);
            }
        }
        __syncthreads();
    }
    float *red = smem + AT_RED;
#pragma unroll
    for (int g = 0; g < GROUP; g++) { /* all heads' registers, one head's room in shared memory */
        if (works)
#pragma unroll
            for (int i = 0; i < EACH; i++) red[group * KV_V_DIM + piece * EACH + i] = acc[g][i];
        __syncthreads();
        for (int c = threadIdx.x; c < KV_V_DIM; c += TN_K_THREADS) {
            float sum = 0;
#pragma unroll 4
            for (int i = 0; i < V_GROUPS; i++) sum += red[i * KV_V_DIM + c];
            smem[AT_OUT + g * KV_V_DIM + c] = sum;
        }
        __syncthreads();
    }
}

/* Leaves this share's sums; true in the block that comes last, with all shares put together in smem[AT_OUT]. */
DEV bool merge(const tn_k_args &p, float *smem, int token, int head, int split, int n) {
    constexpr int SIZE = OUT + 2 * GROUP;
    __shared__ int last;
    float *all = (float *)p.partial + ((u64)token * KV_HEADS + head) * SPLITS * SIZE, *mine = all + split * SIZE;
#pragma unroll 1
    for (int c = threadIdx.x; c < OUT; c += TN_K_THREADS) __stcg(mine + c, smem[AT_OUT + c]);
    if (threadIdx.x < GROUP) {
        __stcg(mine + OUT + threadIdx.x, smem[AT_MAX + threadIdx.x]);
        __stcg(mine + OUT + GROUP + threadIdx.x, smem[AT_SUM + threadIdx.x]);
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        u32 *counter = (u32 *)p.counters + token * KV_HEADS + head;
        last = atomicAdd(counter, 1) == (u32)n - 1;
        if (last) *counter = 0;
        __threadfence();
    }
    __syncthreads();
    if (!last) return false;
    /* how much each share counts: SPLITS <= 32, so a head's shares are a warp's lanes */
    float *weight = smem + AT_SCORE;
    for (int g = threadIdx.x / 32; g < GROUP; g += TN_K_WARPS) {
        int s = threadIdx.x % 32;
        float max = s < n ? __ldcg(all + s * SIZE + OUT + g) : __int_as_float(0xff800000);
        float sum = s < n ? __ldcg(all + s * SIZE + OUT + GROUP + g) : 0;
        float shrink = expf(max - warp_max(max));
        float total = warp_sum(shrink * sum);
        weight[g * 32 + s] = shrink / total;
    }
    __syncthreads();
#pragma unroll 1
    for (int c = threadIdx.x; c < OUT; c += TN_K_THREADS) {
        float sum = 0;
#pragma unroll 8
        for (int s = 0; s < n; s++) sum = fmaf(weight[c / KV_V_DIM * 32 + s], __ldcg(all + s * SIZE + c), sum);
        smem[AT_OUT + c] = sum;
    }
    __syncthreads();
    return true;
}

DEV void finish(const tn_k_args &p, const float *out, int token, int head) {
    for (int at = threadIdx.x / 32 * 32; at < OUT; at += TN_K_THREADS) {
        int c = at + threadIdx.x % 32, col = head * OUT + c;
        bool inside = c < OUT;
        float values[1 + N_AFTER_OPS];
        values[0] = inside ? out[c] : 0;
        if (CORE_STORE >= 0 && inside) value_at<float>(p, CORE_STORE, token)[col] = values[0];
        run_after<0, 1, N_AFTER_OPS, 0>(p, values, token, col, inside);
    }
}

/* The keys and values of positions before this step's own, into L2 while the launch ahead still runs. */
DEV void prefetch_pages(const tn_k_args &p, const int *pages, int head, int begin, int end) {
    constexpr int BYTES = kv_block_bytes<KV_K_DIM>() + kv_block_bytes<KV_V_DIM>();
    for (int page = begin; page < end && page < begin + 4; page++) {
        const char *from = kv_keys(p, pages[page], head);
        for (int at = threadIdx.x * 128; at < BYTES; at += TN_K_THREADS * 128)
            asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
    }
}

extern "C" __global__ void __launch_bounds__(TN_K_THREADS) attend(const __grid_constant__ tn_k_args p) {
    extern __shared__ __align__(16) float shared[];
    let_next_start();
    int token = blockIdx.x, head = blockIdx.y, split = blockIdx.z;
    if (token >= step_count(p, 0)) return wait_for_last();
    int pos = ((const int *)p.step.pos)[token], lowest = WINDOW && pos + 1 > WINDOW ? pos + 1 - WINDOW : 0;
    int first = lowest / TN_K_PAGE, n_pages = pos / TN_K_PAGE + 1 - first;
    int each = (n_pages + SPLITS - 1) / SPLITS;
    if (SPLITS > 1 && each < MIN_PAGES) each = MIN_PAGES;
    int n = (n_pages + each - 1) / each;
    if (split >= n) return wait_for_last();
    const int *pages = (const int *)p.step.pages + (u64)((const int *)p.step.seq)[token] * step_count(p, 2);
    int begin = first + split * each, end = begin + each < first + n_pages ? begin + each : first + n_pages;
    if (SPLITS > 1) prefetch_pages(p, pages, head, begin, end);
    wait_for_last();
    row_frame f = {shared, nullptr, token, head, KV_HEADS, split == n - 1};
    run_row_ops<0>(p, f);
    float *smem = shared + WORK_AT;
    const float *q = row_source<Q_CODE>(p, f, head * Q_COLS) + head * Q_COLS;
    if (Q_CODE < 0) {
        for (int c = threadIdx.x; c < Q_COLS; c += TN_K_THREADS) smem[AT_Q + c] = q[c];
        q = smem + AT_Q;
    }
    attend_pages(p, smem, q, pages, head, begin, end, lowest, pos);
    if (n > 1) {
        if (!merge(p, smem, token, head, split, n)) return;
    } else {
        for (int c = threadIdx.x; c < OUT; c += TN_K_THREADS) smem[AT_OUT + c] /= smem[AT_SUM + c / KV_V_DIM];
        __syncthreads();
    }
    finish(p, smem + AT_OUT, token, head);
}
