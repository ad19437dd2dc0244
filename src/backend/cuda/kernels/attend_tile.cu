/* attend_tile: attention of many tokens [ops on its result], with the tensor cores (mma m16n8k16 of halves), for caches of halves.
 * Block (tile, kv head): all query heads of a kv head for TOKENS tokens are the rows of a tile, 16 a warp; the cache passes by
 * in shared memory, AT_ONCE positions at work, the next on their way. What rounding to halves leaves of queries and weights
 * is multiplied as well: the sum of both is exact to 22 bits. Queries are kept in registers, those of wide heads, which would
 * fill them, in shared memory; where there is little of that, a tile has fewer rows, and warps without any only bring the cache.
 * The host gives GROUP (query heads of a kv head), Q_CODE, KV_*, WINDOW, FACTOR, SOFTCAP, AFTER_OPS, N_AFTER_OPS, CORE_STORE; WIDE,
 * ROWS, AT_ONCE and the SHARED_BYTES that they take. */

constexpr int TOKENS = ROWS / GROUP, DK = KV_K_DIM, DV = KV_V_DIM;
constexpr int K_LD = DK + 8, V_LD = DV + 8, OUT_LD = DV + 4; /* of rows in shared memory: no bank conflicts */
constexpr int STAGE = AT_ONCE * (K_LD + V_LD);               /* halves */
static_assert((WIDE ? 4 * ROWS * K_LD : 0) + 4 * STAGE <= SHARED_BYTES && 4 * ROWS * OUT_LD <= SHARED_BYTES, "as the host counts");
static_assert(ROWS % 16 == 0 && ROWS <= 16 * TN_K_WARPS && TN_K_PAGE % AT_ONCE == 0, "rows of whole warps, stages of one page");

DEV float power_of_2(float x) {
    asm("ex2.approx.ftz.f32 %0, %0;" : "+f"(x));
    return x;
}

/* Tokens [begin, end) of the step are of one sequence: positions lowest .. highest are what they see. */
struct span {
    const int *pages;
    int begin, end, lowest, highest;
};

DEV span span_at(const tn_k_args &p, int begin, int end) {
    const int *seq = (const int *)p.step.seq, *pos = (const int *)p.step.pos;
    if (seq[end - 1] != seq[begin])
        for (int t = begin + 1; t < end; t++)
            if (seq[t] != seq[begin]) end = t;
    int from = pos[begin] + 1;
    return {(const int *)p.step.pages + (u64)seq[begin] * step_count(p, 2), begin, end, WINDOW && from > WINDOW ? from - WINDOW : 0,
            pos[end - 1]};
}

/* Positions first .. first + AT_ONCE of a kv head on their way to shared memory; what nobody wrote yet reads as zero. */
DEV void copy_stage(const tn_k_args &p, const span &s, u16 *to, int first, int head) {
    int page = s.pages[first / TN_K_PAGE], in_page = first % TN_K_PAGE;
    const char *keys = kv_keys(p, page, head) + in_page * DK * 2, *values = kv_values(p, page, head) + in_page * DV * 2;
    constexpr int K8 = DK / 8, V8 = DV / 8;
#pragma unroll 4
    for (int i = threadIdx.x; i < AT_ONCE * (K8 + V8); i += TN_K_THREADS) {
        bool key = i < AT_ONCE * K8;
        int j = key ? i : i - AT_ONCE * K8, slot = key ? j / K8 : j / V8, c = (key ? j % K8 : j % V8) * 8;
        u16 *at = to + (key ? slot * K_LD : AT_ONCE * K_LD + slot * V_LD) + c;
        const char *from = (key ? keys + slot * DK * 2 : values + slot * DV * 2) + c * 2;
        int bytes = first + slot <= s.highest ? 16 : 0;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((u32)__cvta_generic_to_shared(at)), "l"(from), "r"(bytes)
                     : "memory");
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* A query as halves and what is left of them, 16 x 16 matrices of a warp's rows, in its registers. */
struct queries_in_registers {
    u32 high[DK / 16][4], low[DK / 16][4];

    __device__ __forceinline__ void put(u16 *, int k, int i, float2 x) {
        split_halves(x.x, x.y, high[k / 2][k % 2 * 2 + i], low[k / 2][k % 2 * 2 + i]);
    }
    __device__ __forceinline__ void get(const u16 *, int k, u32 *h, u32 *l) const {
#pragma unroll
        for (int i = 0; i < 4; i++) h[i] = high[k][i], l[i] = low[k][i];
    }
};

/* The same in shared memory: rows of K_LD halves, then as many of what is left of them. A warp reads what it wrote. */
struct queries_in_shared {
    __device__ __forceinline__ void put(u16 *all, int k, int i, float2 x) {
        int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * i;
        u32 *at = (u32 *)(all + row * K_LD + 8 * k) + threadIdx.x % 4;
        split_halves(x.x, x.y, at[0], at[ROWS * K_LD / 2]);
    }
    __device__ __forceinline__ void get(const u16 *all, int k, u32 *h, u32 *l) const {
        int lane = threadIdx.x % 32;
        const u16 *at = all + (threadIdx.x / 32 * 16 + lane % 16) * K_LD + 16 * k + lane / 16 * 8;
        load_matrices<false>(h, at);
        load_matrices<false>(l, at + ROWS * K_LD);
    }
};

template <bool> struct queries_of { typedef queries_in_registers type; };
template <> struct queries_of<true> { typedef queries_in_shared type; };

/* The rows of a warp. A lane has rows g and g + 8 (i = 0, 1), of each 8 columns 2 t and 2 t + 1. */
struct rows_of_warp {
    queries_of<WIDE>::type queries;
    float acc[DV / 8][4], max[2], sum[2];
    int pos[2]; /* of the rows; -1: sees nothing */

    __device__ __forceinline__ void begin(const tn_k_args &p, u16 *shared, int t0, int n, int head) {
        int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int r = row + 8 * i, token = r / GROUP;
            bool there = token < n && token < TOKENS;
            const float *q = value_at<const float>(p, -1 - Q_CODE, t0 + (there ? token : 0)) + (head * GROUP + r % GROUP) * DK + lane % 4 * 2;
#pragma unroll
            for (int k = 0; k < DK / 8; k++) queries.put(shared, k, i, *(const float2 *)(q + 8 * k));
            max[i] = NOTHING;
            sum[i] = 0;
        }
#pragma unroll
        for (int i = 0; i < DV / 2; i++) acc[i / 4][i % 4] = 0;
        __syncwarp();
    }

    __device__ __forceinline__ void enter(const tn_k_args &p, const span &s, int t0) {
        int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int r = row + 8 * i, token = t0 + r / GROUP;
            bool inside = r < TOKENS * GROUP && token >= s.begin && token < s.end;
            pos[i] = inside ? ((const int *)p.step.pos)[token] : -1;
        }
    }

    __device__ __forceinline__ void score(const u16 *shared, const u16 *keys, float (*s)[4]) const {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < AT_ONCE / 8; i++) s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0;
#pragma unroll
        for (int k = 0; k < DK / 16; k++) {
            u32 high[4], low[4];
            queries.get(shared, k, high, low);
#pragma unroll
            for (int j = 0; j < AT_ONCE / 16; j++) {
                u32 b[4];
                load_matrices<false>(b, keys + (16 * j + lane % 8 + lane / 16 * 8) * K_LD + 16 * k + lane / 8 % 2 * 8);
                mma_halves(s[2 * j], high, b[0], b[1]);
                mma_halves(s[2 * j + 1], high, b[2], b[3]);
                mma_halves(s[2 * j], low, b[0], b[1]);
                mma_halves(s[2 * j + 1], low, b[2], b[3]);
            }
        }
    }

    /* Scores -> weights, as powers of 2; the maxima may grow: what was summed shrinks to them. */
    __device__ __forceinline__ void soften(int first, float (*s)[4]) {
        constexpr float LOG2_E = 1.4426950408889634f;
        int t = threadIdx.x % 4;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float top = NOTHING;
#pragma unroll
            for (int j = 0; j < AT_ONCE / 4; j++) {
                float &x = s[j / 2][2 * i + j % 2];
                int at = first + 8 * (j / 2) + 2 * t + j % 2;
                if (SOFTCAP != 0) x = SOFTCAP * tanhf(x * FACTOR / SOFTCAP) * LOG2_E;
                else x *= FACTOR * LOG2_E;
                if (at > pos[i] || (WINDOW && at + WINDOW <= pos[i])) x = NOTHING;
                top = fmaxf(top, x);
            }
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(max[i], fmaxf(top, __shfl_xor_sync(~0u, top, 2)));
            float base = top == NOTHING ? 0 : top, shrink = power_of_2(max[i] - base), all = 0;
            max[i] = top;
#pragma unroll
            for (int j = 0; j < AT_ONCE / 4; j++) {
                float &x = s[j / 2][2 * i + j % 2];
                x = power_of_2(x - base);
                all += x;
            }
            sum[i] = sum[i] * shrink + all;
#pragma unroll
            for (int j = 0; j < DV / 8; j++) {
                acc[j][2 * i] *= shrink;
                acc[j][2 * i + 1] *= shrink;
            }
        }
    }

    __device__ __forceinline__ void add_values(const u16 *values, const float (*s)[4]) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int k = 0; k < AT_ONCE / 16; k++) {
            u32 h[4], l[4];
#pragma unroll
            for (int i = 0; i < 4; i++) split_halves(s[2 * k + i / 2][i % 2 * 2], s[2 * k + i / 2][i % 2 * 2 + 1], h[i], l[i]);
#pragma unroll
            for (int j = 0; j < DV / 16; j++) {
                u32 b[4];
                load_matrices<true>(b, values + (16 * k + lane % 16) * V_LD + 16 * j + lane / 16 * 8);
                mma_halves(acc[2 * j], h, b[0], b[1]);
                mma_halves(acc[2 * j + 1], h, b[2], b[3]);
                mma_halves(acc[2 * j], l, b[0], b[1]);
                mma_halves(acc[2 * j + 1], l, b[2], b[3]);
            }
        }
    }

    __device__ __forceinline__ void put(float *out) {
        int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float all = sum[i] + __shfl_xor_sync(~0u, sum[i], 1);
            all += __shfl_xor_sync(~0u, all, 2);
            float inverse = all > 0 ? 1.0f / all : 0;
#pragma unroll
            for (int j = 0; j < DV / 8; j++)
                *(float2 *)(out + (row + 8 * i) * OUT_LD + 8 * j + lane % 4 * 2) =
                    make_float2(acc[j][2 * i] * inverse, acc[j][2 * i + 1] * inverse);
        }
    }
};

DEV void attend_span(const tn_k_args &p, const span &s, rows_of_warp &w, u16 *queries, u16 *stages, int t0, int head) {
    int first = s.lowest / AT_ONCE, last = s.highest / AT_ONCE;
    w.enter(p, s, t0);
    int newest = __reduce_max_sync(~0u, w.pos[0] > w.pos[1] ? w.pos[0] : w.pos[1]);
    copy_stage(p, s, stages, first * AT_ONCE, head);
#pragma unroll 1
    for (int at = first; at <= last; at++) {
        u16 *keys = stages + (at - first) % 2 * STAGE;
        float x[AT_ONCE / 8][4];
        if (at < last) {
            copy_stage(p, s, stages + (at + 1 - first) % 2 * STAGE, (at + 1) * AT_ONCE, head);
            asm volatile("cp.async.wait_group 1;" ::: "memory");
        } else {
            asm volatile("cp.async.wait_group 0;" ::: "memory");
        }
        __syncthreads();
        if (at * AT_ONCE <= newest) { /* a warp whose rows all lie before these positions rests */
            w.score(queries, keys, x);
            w.soften(at * AT_ONCE, x);
            w.add_values(keys + AT_ONCE * K_LD, x);
        }
        __syncthreads();
    }
}

DEV void finish(const tn_k_args &p, const float *out, int t0, int n, int head) {
    constexpr int COLS = GROUP * DV, GROUPS = (COLS + 31) / 32;
#pragma unroll 2
    for (int i = threadIdx.x / 32; i < n * GROUPS; i += TN_K_WARPS) {
        int token = i / GROUPS, c = i % GROUPS * 32 + threadIdx.x % 32, col = head * COLS + c;
        bool inside = c < COLS;
        float values[1 + N_AFTER_OPS];
        values[0] = inside ? out[(token * GROUP + c / DV) * OUT_LD + c % DV] : 0;
        if (CORE_STORE >= 0 && inside) value_at<float>(p, CORE_STORE, t0 + token)[col] = values[0];
        run_after<0, 1, N_AFTER_OPS, 0>(p, values, t0 + token, col, inside);
    }
}

extern "C" __global__ void __launch_bounds__(TN_K_THREADS) attend_tile(const __grid_constant__ tn_k_args p) {
    extern __shared__ __align__(16) char smem[];
    let_next_start();
    int count = step_count(p, 0), tiles = (count + TOKENS - 1) / TOKENS;
    int tile = tiles - 1 - (int)blockIdx.x, head = blockIdx.y, t0 = tile * TOKENS; /* those that see most begin first */
    wait_for_last();
    if (tile < 0) return;
    int n = count - t0 < TOKENS ? count - t0 : TOKENS;
    rows_of_warp w;
    u16 *queries = (u16 *)smem, *stages = queries + (WIDE ? 2 * ROWS * K_LD : 0);
    bool has_rows = ROWS == 16 * TN_K_WARPS || threadIdx.x / 32 < ROWS / 16;
    if (has_rows) w.begin(p, queries, t0, n, head);
    for (int t = t0; t < t0 + n;) {
        span s = span_at(p, t, t0 + n);
        attend_span(p, s, w, queries, stages, t0, head);
        t = s.end;
    }
    if (has_rows) w.put((float *)smem);
    __syncthreads();
    finish(p, (const float *)smem, t0, n, head);
}
