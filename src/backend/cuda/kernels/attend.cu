/* attend: [ops on the heads of q and k, cache write] attention [ops on its result]. Block (token, kv head, split): all query
 * heads of a kv head over a share of the context, in units of UNIT positions. How many shares there are follows from the
 * position, on the device. Where there are several, each leaves its sums in `partial`, and the block that comes last puts
 * them together, always in the order of the shares.
 * Two cores: MMA, with the tensor cores, for caches of halves and up to 8 query heads; the other for everything.
 * The host gives GROUP (query heads of a kv head), Q_CODE, KV_*, WINDOW, FACTOR, SOFTCAP, SPLITS, MIN_UNITS (of a share), MMA,
 * ROW_OPS, N_ROW_OPS, AFTER_OPS, N_AFTER_OPS, CORE_STORE, WORK_AT (offset of this kernel's own shared memory, floats). */

constexpr int UNIT = MMA ? 16 : TN_K_PAGE;
constexpr int OUT = GROUP * KV_V_DIM, Q_COLS = GROUP * KV_K_DIM;
DEV constexpr int whole_fours(int n) {
    return (n + 3) / 4 * 4;
}

/* Shared memory of the core, in floats. AT_SCORE: 64 for each head; AT_RED: the core's own. */
constexpr int AT_Q = 0, AT_SCORE = AT_Q + whole_fours(Q_COLS), AT_MAX = AT_SCORE + GROUP * TN_K_PAGE;
constexpr int AT_SUM = AT_MAX + GROUP, AT_SHRINK = AT_SUM + GROUP, AT_OUT = whole_fours(AT_SHRINK + GROUP);
constexpr int AT_RED = AT_OUT + whole_fours(OUT);

/* The share of a block: units [begin, end) of a token's context, positions lowest .. pos. */
struct share {
    const int *pages;
    int token, head, begin, end, lowest, pos;
};

#if MMA
/* ---- on the tensor cores (mma m16n8k16 of halves) ----
 * Eight query heads are the upper half of a tile of 16 rows, what rounding to halves leaves of them is the lower half: the sum
 * of both is exact to 22 bits. A warp takes 16 positions at a time. Keys and values go from memory to the registers that the tensor
 * cores read: the dimensions are put in whatever order makes a lane's 16 bytes contiguous. g = lane / 4, t = lane % 4:
 *   keys    lane has dimensions 32 i + 8 t .. + 7 of position 8 j + g
 *   values  lane has dimensions 64 i + 8 g .. + 7 of positions 2 t, 2 t + 1, 2 t + 8, 2 t + 9 */

constexpr int K_PARTS = KV_K_DIM / 32, V_PARTS = KV_V_DIM / 64;

/* Which of the row ops writes the cache; -1: none does, an earlier launch did. */
DEV constexpr int writing_op() {
    for (int i = 0; i < N_ROW_OPS; i++)
        if (row_ops[i].op == OP_KV_WRITE) return i;
    return -1;
}

DEV uint4 eight_halves(const float *x) {
    u32 w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = to_half(x[2 * i]) | (u32)to_half(x[2 * i + 1]) << 16;
    return make_uint4(w[0], w[1], w[2], w[3]);
}

struct walker {
    uint4 k[2][K_PARTS], v[V_PARTS][4];
    u32 q[2 * K_PARTS][4];
    float acc[V_PARTS][8][4], max, sum; /* of head g; `sum` of the positions that the lane saw */

    /* Unit u: positions below `high`; what lies outside reads as zero. */
    __device__ __forceinline__ const uint4 *row_of(const tn_k_args &p, const share &s, bool values, int pos, int dim) const {
        int page = s.pages[pos / TN_K_PAGE];
        const char *block = values ? kv_values(p, page, s.head) : kv_keys(p, page, s.head);
        return (const uint4 *)(block + (pos % TN_K_PAGE * (values ? KV_V_DIM : KV_K_DIM) + dim) * 2);
    }
    __device__ __forceinline__ void fetch_keys(const tn_k_args &p, const share &s, int u, int high) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int pos = u * UNIT + 8 * j + lane / 4;
            bool seen = pos >= s.lowest && pos < high;
            const uint4 *from = row_of(p, s, false, seen ? pos : s.lowest, lane % 4 * 8);
#pragma unroll
            for (int i = 0; i < K_PARTS; i++) k[j][i] = seen ? from[4 * i] : make_uint4(0, 0, 0, 0);
        }
    }
    __device__ __forceinline__ void fetch_values(const tn_k_args &p, const share &s, int u, int high) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int pos = u * UNIT + lane % 4 * 2 + j % 2 + j / 2 * 8;
            bool seen = pos >= s.lowest && pos < high;
            const uint4 *from = row_of(p, s, true, seen ? pos : s.lowest, lane / 4 * 8);
#pragma unroll
            for (int i = 0; i < V_PARTS; i++) v[i][j] = seen ? from[8 * i] : make_uint4(0, 0, 0, 0);
        }
    }
    /* The next units of a warp, into L2. */
    __device__ __forceinline__ void prefetch(const tn_k_args &p, const share &s, int u, int high) const {
        constexpr int ROWS = 128 / (KV_K_DIM * 2 < 128 ? KV_K_DIM * 2 : 128), PARTS_ = KV_K_DIM * 2 / 128 > 0 ? KV_K_DIM * 2 / 128 : 1;
        for (int i = threadIdx.x % 32; i < UNIT / ROWS * PARTS_; i += 32) {
            int pos = u * UNIT + i / PARTS_ * ROWS;
            if (pos < s.lowest || pos >= high) continue;
            asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)row_of(p, s, false, pos, 0) + i % PARTS_ * 128));
            asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)row_of(p, s, true, pos, 0) + i % PARTS_ * 128));
        }
    }

    /* The token's own key and value, as the cache has them, without the way through memory. */
    __device__ __forceinline__ void put_own(const share &s, int u, const float *key, const float *value) {
        int lane = threadIdx.x % 32, slot = s.pos - u * UNIT;
#pragma unroll
        for (int j = 0; j < 2; j++)
            if (8 * j + lane / 4 == slot)
#pragma unroll
                for (int i = 0; i < K_PARTS; i++) k[j][i] = eight_halves(key + 32 * i + lane % 4 * 8);
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (lane % 4 * 2 + j % 2 + j / 2 * 8 == slot)
#pragma unroll
                for (int i = 0; i < V_PARTS; i++) v[i][j] = eight_halves(value + 64 * i + lane / 4 * 8);
    }

    /* q in shared memory, heads one behind the other */
    __device__ __forceinline__ void take_query(const float *from) {
        int lane = threadIdx.x % 32, g = lane / 4;
#pragma unroll
        for (int i = 0; i < 2 * K_PARTS; i++) {
            float4 x = make_float4(0, 0, 0, 0);
            if (g < GROUP) x = *(const float4 *)(from + g * KV_K_DIM + i / 2 * 32 + lane % 4 * 8 + i % 2 * 4);
            split_halves(x.x, x.y, q[i][0], q[i][1]);
            split_halves(x.z, x.w, q[i][2], q[i][3]);
        }
    }

    __device__ __forceinline__ void begin() {
        max = NOTHING;
        sum = 0;
#pragma unroll
        for (int i = 0; i < V_PARTS * 32; i++) acc[i / 32][i / 4 % 8][i % 4] = 0;
    }

    /* Scores of the keys: of head g, positions 8 j + 2 t + i */
    __device__ __forceinline__ void score(const share &s, int u, float (*w)[2]) {
        int t = threadIdx.x % 4;
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float c[4] = {0, 0, 0, 0};
#pragma unroll
            for (int i = 0; i < K_PARTS; i++) {
                mma_halves(c, q[2 * i], k[j][i].x, k[j][i].y);
                mma_halves(c, q[2 * i + 1], k[j][i].z, k[j][i].w);
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int pos = u * UNIT + 8 * j + 2 * t + i;
                float x = (c[i] + c[i + 2]) * FACTOR;
                if (SOFTCAP != 0) x = SOFTCAP * tanhf(x / SOFTCAP);
                w[j][i] = pos >= s.lowest && pos <= s.pos ? x : NOTHING;
            }
        }
    }

    /* Scores -> weights; the maximum may grow: what was summed shrinks to it. */
    __device__ __forceinline__ void soften(float (*w)[2]) {
        float top = fmaxf(fmaxf(w[0][0], w[0][1]), fmaxf(w[1][0], w[1][1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(max, fmaxf(top, __shfl_xor_sync(~0u, top, 2)));
        float shrink = expf(max - top);
        max = top;
#pragma unroll
        for (int i = 0; i < 4; i++) w[i / 2][i % 2] = expf(w[i / 2][i % 2] - top);
        sum = sum * shrink + ((w[0][0] + w[0][1]) + (w[1][0] + w[1][1]));
#pragma unroll
        for (int i = 0; i < V_PARTS * 32; i++) acc[i / 32][i / 4 % 8][i % 4] *= shrink;
    }

    __device__ __forceinline__ void add_values(float (*w)[2]) {
        u32 a[4];
        split_halves(w[0][0], w[0][1], a[0], a[1]);
        split_halves(w[1][0], w[1][1], a[2], a[3]);
#pragma unroll
        for (int i = 0; i < V_PARTS; i++) {
            const u32 *v0 = (const u32 *)&v[i][0], *v1 = (const u32 *)&v[i][1];
            const u32 *v2 = (const u32 *)&v[i][2], *v3 = (const u32 *)&v[i][3];
#pragma unroll
            for (int j = 0; j < 8; j++) {
                u32 pick = j % 2 ? 0x7632 : 0x5410;
                mma_halves(acc[i][j], a, __byte_perm(v0[j / 2], v1[j / 2], pick), __byte_perm(v2[j / 2], v3[j / 2], pick));
            }
        }
    }
};

/* What the warps saw, put together in smem[AT_OUT], maxima and sums of weights beside. */
DEV void join_warps(float *smem, const walker &w) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    float *red = smem + AT_RED, *max = smem + AT_SCORE, *sum = max + TN_K_WARPS * GROUP;
    float all = w.sum + __shfl_xor_sync(~0u, w.sum, 1);
    all += __shfl_xor_sync(~0u, all, 2);
    if (g < GROUP) {
        if (t == 0) max[warp * GROUP + g] = w.max, sum[warp * GROUP + g] = all;
#pragma unroll
        for (int i = 0; i < V_PARTS; i++)
#pragma unroll
            for (int j = 0; j < 16; j += 4) { /* 8 dimensions of column 2 t, 8 of column 2 t + 1 */
                float x[4];
#pragma unroll
                for (int k = 0; k < 4; k++) x[k] = w.acc[i][(j + k) % 8][j / 8] + w.acc[i][(j + k) % 8][2 + j / 8];
                *(float4 *)(red + warp * OUT + g * KV_V_DIM + 64 * i + 16 * t + j) = make_float4(x[0], x[1], x[2], x[3]);
            }
    }
    __syncthreads();
    for (int c = threadIdx.x; c < OUT; c += TN_K_THREADS) {
        int h = c / KV_V_DIM;
        float top = max[h], y = 0, total = 0;
#pragma unroll
        for (int i = 1; i < TN_K_WARPS; i++) top = fmaxf(top, max[i * GROUP + h]);
#pragma unroll
        for (int i = 0; i < TN_K_WARPS; i++) {
            float shrink = expf(max[i * GROUP + h] - top);
            y = fmaf(shrink, red[i * OUT + c], y);
            total = fmaf(shrink, sum[i * GROUP + h], total);
        }
        smem[AT_OUT + c] = y;
        if (c % KV_V_DIM == 0) smem[AT_MAX + h] = top, smem[AT_SUM + h] = total;
    }
    __syncthreads();
}

/* Positions below `old` were there before this step: their first units may come while the launch ahead still runs. */
struct core {
    walker w;
    int first, old;

    __device__ __forceinline__ void prepare(const tn_k_args &p, const share &s) {
        first = s.begin + threadIdx.x / 32;
        old = writing_op() >= 0 ? s.pos : s.pos - s.token; /* tokens of a step stand behind those of their sequence in it */
        if (first >= s.end) return;
        w.fetch_keys(p, s, first, old);
        w.fetch_values(p, s, first, old);
        for (int u = first + TN_K_WARPS; u < s.end && u <= first + 4 * TN_K_WARPS; u += TN_K_WARPS) w.prefetch(p, s, u, old);
    }
    /* What the first unit still lacks. */
    template <int WRITE> __device__ __forceinline__ void complete(const tn_k_args &p, const row_frame &f, const share &s) {
        if (first >= s.end || (first + 1) * UNIT <= old) return;
        if constexpr (WRITE >= 0) {
            constexpr row_op o = row_ops[WRITE];
            int k = s.head * KV_K_DIM, v = s.head * KV_V_DIM;
            w.put_own(s, first, row_source<o.a>(p, f, k) + k, row_source<o.b>(p, f, v) + v);
        } else {
            w.fetch_keys(p, s, first, s.pos + 1);
            w.fetch_values(p, s, first, s.pos + 1);
        }
    }
    __device__ __forceinline__ void run(const tn_k_args &p, const row_frame &f, float *smem, const float *q, const share &s) {
        w.begin();
        w.take_query(q);
        complete<writing_op()>(p, f, s);
#pragma unroll 1
        for (int u = first; u < s.end; u += TN_K_WARPS) {
            float x[2][2];
            bool more = u + TN_K_WARPS < s.end;
            w.score(s, u, x);
            if (more) w.fetch_keys(p, s, u + TN_K_WARPS, s.pos + 1);
            w.soften(x);
            w.add_values(x);
            if (more) w.fetch_values(p, s, u + TN_K_WARPS, s.pos + 1);
        }
        join_warps(smem, w);
    }
};

#else
/* ---- for any cache: by multiply-adds, a page at a time ---- */

constexpr int EACH = KV_TYPE == 0 ? 8 : KV_TYPE == 1 ? 16 : 4; /* elements in 16 bytes */
constexpr int K_PIECES = KV_K_DIM / EACH, K_LOADS = (K_PIECES + 7) / 8;
constexpr int V_PIECES = KV_V_DIM / EACH;
constexpr int V_GROUPS = TN_K_THREADS / V_PIECES < 16 ? TN_K_THREADS / V_PIECES : 16; /* positions worked on at once */
constexpr int V_LOADS = (TN_K_PAGE + V_GROUPS - 1) / V_GROUPS;

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
            if (l == 0) score[g * TN_K_PAGE + slot] = slot >= low && slot < high ? s : NOTHING;
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

/* Sums of weighted values into smem[AT_OUT], maxima and sums of weights beside. */
DEV void attend_pages(const tn_k_args &p, float *smem, const float *q, const share &s) {
    int piece = threadIdx.x % V_PIECES, group = threadIdx.x / V_PIECES;
    bool works = group < V_GROUPS;
    float acc[GROUP][EACH];
#pragma unroll
    for (int g = 0; g < GROUP; g++)
#pragma unroll
        for (int i = 0; i < EACH; i++) acc[g][i] = 0;
    if (threadIdx.x < GROUP) {
        smem[AT_MAX + threadIdx.x] = NOTHING;
        smem[AT_SUM + threadIdx.x] = 0;
    }
    __syncthreads();
#pragma unroll 1
    for (int page = s.begin; page < s.end; page++) {
        int first = page * TN_K_PAGE, low = s.lowest > first ? s.lowest - first : 0;
        int high = s.pos - first + 1 < TN_K_PAGE ? s.pos - first + 1 : TN_K_PAGE;
        const char *keys = kv_keys(p, s.pages[page], s.head), *values = kv_values(p, s.pages[page], s.head);
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

/* The keys and values of positions before this step's own, into L2 while the launch ahead still runs. */
struct core {
    __device__ __forceinline__ void prepare(const tn_k_args &p, const share &s) {
        constexpr int BYTES = kv_block_bytes<KV_K_DIM>() + kv_block_bytes<KV_V_DIM>();
        if (SPLITS == 1) return;
        for (int page = s.begin; page < s.end && page < s.begin + 4; page++) {
            const char *from = kv_keys(p, s.pages[page], s.head);
            for (int at = threadIdx.x * 128; at < BYTES; at += TN_K_THREADS * 128)
                asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
        }
    }
    __device__ __forceinline__ void run(const tn_k_args &p, const row_frame &, float *smem, const float *q, const share &s) {
        attend_pages(p, smem, q, s);
    }
};
#endif

/* ---- several shares ---- */

constexpr int SHARE = whole_fours(OUT + 2 * GROUP), FOURS = OUT / 4; /* floats a share leaves: sums, maxima, sums of weights */
constexpr int SIDE = FOURS < TN_K_THREADS ? TN_K_THREADS / FOURS : 1;  /* shares put together side by side */
static_assert(OUT % 4 == 0, "sums are moved in fours");

DEV float *shares_of(const tn_k_args &p, int token, int head) {
    return (float *)p.partial + ((u64)token * KV_HEADS + head) * SPLITS * SHARE;
}

/* Leaves this share's sums; true in the block that comes last. */
DEV bool leave(const tn_k_args &p, const float *smem, int token, int head, int split, int n) {
    float *mine = shares_of(p, token, head) + split * SHARE;
#pragma unroll 1
    for (int c = threadIdx.x; c < FOURS; c += TN_K_THREADS) __stcg((float4 *)mine + c, ((const float4 *)(smem + AT_OUT))[c]);
    if (threadIdx.x < GROUP) {
        __stcg(mine + OUT + threadIdx.x, smem[AT_MAX + threadIdx.x]);
        __stcg(mine + OUT + GROUP + threadIdx.x, smem[AT_SUM + threadIdx.x]);
    }
    return leaves_last((u32 *)p.counters + token * KV_HEADS + head, (u32)n);
}

/* How much each share counts, to weight[32 head + share]: SPLITS <= 32, so a head's shares are a warp's lanes. */
DEV void weigh(const float *all, float *weight, int n) {
    for (int g = threadIdx.x / 32; g < GROUP; g += TN_K_WARPS) {
        int s = threadIdx.x % 32;
        float max = s < n ? __ldcg(all + s * SHARE + OUT + g) : NOTHING;
        float sum = s < n ? __ldcg(all + s * SHARE + OUT + GROUP + g) : 0;
        float shrink = expf(max - warp_max(max));
        float total = warp_sum(shrink * sum);
        weight[g * 32 + s] = shrink / total;
    }
}

/* All shares put together in smem[AT_OUT]. A thread's first sums are on their way while the shares are weighed. */
DEV void put_together(const tn_k_args &p, float *smem, int token, int head, int n) {
    constexpr int EARLY = 8;
    const float *all = shares_of(p, token, head);
    float *weight = smem + AT_SCORE;
    float4 early[EARLY], *red = (float4 *)(smem + AT_RED);
#pragma unroll
    for (int k = 0; k < EARLY; k++) {
        int s = threadIdx.x / FOURS + k * SIDE;
        bool there = threadIdx.x < FOURS * SIDE && s < n;
        early[k] = there ? __ldcg((const float4 *)(all + s * SHARE) + threadIdx.x % FOURS) : make_float4(0, 0, 0, 0);
    }
    weigh(all, weight, n);
    __syncthreads();
#pragma unroll 1
    for (int i = threadIdx.x; i < FOURS * SIDE; i += TN_K_THREADS) {
        int c = i % FOURS, s = i / FOURS;
        const float *w = weight + c * 4 / KV_V_DIM * 32;
        float4 sum = make_float4(0, 0, 0, 0);
        auto add = [&](const float4 &x) {
            sum.x = fmaf(w[s], x.x, sum.x);
            sum.y = fmaf(w[s], x.y, sum.y);
            sum.z = fmaf(w[s], x.z, sum.z);
            sum.w = fmaf(w[s], x.w, sum.w);
            s += SIDE;
        };
        if (i == (int)threadIdx.x) {
#pragma unroll
            for (int k = 0; k < EARLY; k++)
                if (s < n) add(early[k]);
        }
#pragma unroll 4
        while (s < n) add(__ldcg((const float4 *)(all + s * SHARE) + c));
        red[i] = sum;
    }
    __syncthreads();
    for (int c = threadIdx.x; c < OUT; c += TN_K_THREADS) {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < SIDE; k++) sum += ((const float *)red)[k * OUT + c];
        smem[AT_OUT + c] = sum;
    }
    __syncthreads();
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

/* ---- the operands of the row ops, on their way to L1 all at once: the ops themselves ask for them one after the other ---- */

template <int CODE> DEV u32 touch(const tn_k_args &p, int token, int first, int n) {
    int c = threadIdx.x * 8; /* 32 bytes: what a load brings */
    if constexpr (CODE < 0)
        if (c < n) return __float_as_uint(value_at<const float>(p, -1 - CODE, token)[first + c]);
    return 0;
}
template <int I> DEV u32 touch_operands(const tn_k_args &p, int token, int head) {
    if constexpr (I < N_ROW_OPS) {
        constexpr row_op o = row_ops[I];
        constexpr int cols = o.cols / KV_HEADS;
        u32 sum = touch<o.a>(p, token, head * cols, cols);
        if constexpr (o.op == OP_ROPE) sum += touch<o.b>(p, token, 0, o.i1);
        if constexpr (o.op == OP_KV_WRITE) sum += touch<o.b>(p, token, head * KV_V_DIM, KV_V_DIM);
        if constexpr (is_binary(o.op)) sum += o.period ? touch<o.b>(p, token, 0, o.period) : touch<o.b>(p, token, head * cols, cols);
        return sum + touch_operands<I + 1>(p, token, head);
    }
    return 0;
}

extern "C" __global__ void __launch_bounds__(TN_K_THREADS) attend(const __grid_constant__ tn_k_args p) {
    extern __shared__ __align__(16) float shared[];
    let_next_start();
    int token = blockIdx.x, head = blockIdx.y, split = blockIdx.z;
    if (token >= step_count(p, 0)) return wait_for_last();
    int pos = ((const int *)p.step.pos)[token], lowest = WINDOW && pos + 1 > WINDOW ? pos + 1 - WINDOW : 0;
    int first = lowest / UNIT, units = pos / UNIT + 1 - first;
    int n = (units + MIN_UNITS - 1) / MIN_UNITS;
    if (n > SPLITS) n = SPLITS;
    int each = (units + n - 1) / n, begin = first + split * each;
    n = (units + each - 1) / each;
    if (split >= n) return wait_for_last();
    const int *pages = (const int *)p.step.pages + (u64)((const int *)p.step.seq)[token] * step_count(p, 2);
    share s = {pages, token, head, begin, split < n - 1 ? begin + each : first + units, lowest, pos};
    core c;
    c.prepare(p, s);
    wait_for_last();
    u32 touched = touch_operands<0>(p, token, head);
    row_frame f = {shared, nullptr, token, head, KV_HEADS, split == n - 1};
    run_row_ops<0>(p, f);
    if (pos < 0) *(u32 *)p.counters = touched; /* never, but the compiler does not know: it must load */
    float *smem = shared + WORK_AT;
    const float *q = row_source<Q_CODE>(p, f, head * Q_COLS) + head * Q_COLS;
    if (Q_CODE < 0) {
        for (int i = threadIdx.x; i < Q_COLS; i += TN_K_THREADS) smem[AT_Q + i] = q[i];
        q = smem + AT_Q;
        __syncthreads();
    }
    c.run(p, f, smem, q, s);
    if (n > 1) {
        if (!leave(p, smem, token, head, split, n)) return;
        put_together(p, smem, token, head, n);
    } else {
        for (int i = threadIdx.x; i < OUT; i += TN_K_THREADS) smem[AT_OUT + i] /= smem[AT_SUM + i / KV_V_DIM];
        __syncthreads();
    }
    finish(p, smem + AT_OUT, token, head);
}
