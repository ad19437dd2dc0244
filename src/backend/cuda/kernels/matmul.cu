/* matmul: products with many tokens. A block computes 64 columns (rows of the weight) of 64 tokens; int8 activations on the
 * tensor cores (mma m16n8k32, k16 where scales are of 16), floats by plain multiply-adds.
 * The host gives N_IN (K), X_INT8, X_CODE, COUNT, PRODUCTS, AFTER_OPS, PARTS as for matvec; blocks of a part are its tiles. */

constexpr int K = N_IN, NB = (K + 31) / 32, TILE = 64;
constexpr int LD = TILE + 1;   /* of results in shared memory */
constexpr int BLOCKS = 4;      /* of 32 columns in a step */
constexpr int ROW = 32 * BLOCKS + 16; /* bytes between rows of a step: no bank conflicts */

/* A step's operands: 64 rows of the weight, 64 tokens. */
struct stage_q8 {
    u8 w[TILE][ROW], x[TILE][ROW];
    float2 s[TILE][BLOCKS], m[TILE][BLOCKS];
    float d[TILE][BLOCKS];
    short2 sum[TILE][BLOCKS];
};
struct stage_f32 {
    float w[32][TILE + 4], x[32][TILE + 4];
};

/* q - off as signed bytes */
template <int W> DEV u32 centred(const raw<W> &q, int h, int w) {
    u32 v = bytes_of(q, h, w);
    if constexpr (raw<W>::OFF > 0) return ((v | 0x80808080) - raw<W>::OFF * 0x01010101) ^ 0x80808080;
    return v;
}

template <int W> DEV void stage_weights(const tn_k_weight &w, stage_q8 *st, int row0, int block0) {
    int row = threadIdx.x / BLOCKS, b = threadIdx.x % BLOCKS;
    u32 *to = (u32 *)&st->w[row][32 * b];
    scales s = {{0, 0}, {0, 0}};
    if (block0 + b < NB) {
        raw<W> q[1];
        load_rows<W, 1, NB>(q, w, row0 + row, block0 + b);
        s = scales_of(q[0]);
#pragma unroll
        for (int i = 0; i < 8; i++) to[i] = centred(q[0], i / 4, i % 4);
    } else {
        for (int i = 0; i < 8; i++) to[i] = 0;
    }
    st->s[row][b] = make_float2(s.s[0], s.s[1]);
    st->m[row][b] = make_float2(s.m[0], s.m[1]);
}

DEV void stage_tokens(const tn_k_args &p, stage_q8 *st, int t0, int n, int block0) {
    int t = threadIdx.x / BLOCKS, b = threadIdx.x % BLOCKS, block = block0 + b;
    bool inside = t < n && block < NB;
    const char *x = value_at<const char>(p, -1 - X_CODE, inside ? t0 + t : t0);
    const uint2 *from = (const uint2 *)(x + 32 * block);
    uint2 *to = (uint2 *)&st->x[t][32 * b];
    for (int i = 0; i < 4; i++) to[i] = inside ? from[i] : make_uint2(0, 0);
    st->d[t][b] = inside ? ((const float *)(x + 32 * NB))[block] : 0;
    st->sum[t][b] = inside ? ((const short2 *)(x + 36 * NB))[block] : make_short2(0, 0);
}

DEV void mma_k32(int *c, const u32 *a, const u32 *b) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEV void mma_k16(int *c, u32 a0, u32 a1, u32 b) {
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(b));
}

/* Warp (i, j) of 4 x 2: 16 rows of the weight, 32 tokens in four tiles of 8. acc[tile]: rows g, g + 8 x tokens 2 t, 2 t + 1 */
template <int W> DEV void multiply_q8(const stage_q8 *st, float (*acc)[4]) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int row = warp % 4 * 16 + g, token = warp / 4 * 32;
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
        u32 a[4];
        a[0] = *(const u32 *)&st->w[row][32 * b + 4 * t];
        a[1] = *(const u32 *)&st->w[row + 8][32 * b + 4 * t];
        a[2] = *(const u32 *)&st->w[row][32 * b + 16 + 4 * t];
        a[3] = *(const u32 *)&st->w[row + 8][32 * b + 16 + 4 * t];
        float2 s0 = st->s[row][b], s1 = st->s[row + 8][b], m0 = st->m[row][b], m1 = st->m[row + 8][b];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            u32 x[2];
            x[0] = *(const u32 *)&st->x[token + 8 * j + g][32 * b + 4 * t];
            x[1] = *(const u32 *)&st->x[token + 8 * j + g][32 * b + 16 + 4 * t];
            int c[4] = {0, 0, 0, 0}, e[4] = {0, 0, 0, 0};
            if constexpr (by_16<W>()) {
                mma_k16(c, a[0], a[1], x[0]);
                mma_k16(e, a[2], a[3], x[1]);
            } else {
                mma_k32(c, a, x);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int n = token + 8 * j + 2 * t + i % 2;
                float2 s = i < 2 ? s0 : s1, m = i < 2 ? m0 : m1;
                float v = s.x * (float)c[i];
                if constexpr (by_16<W>()) v = fmaf(s.y, (float)e[i], v);
                short2 sum = st->sum[n][b];
                if constexpr (has_min<W>() && by_16<W>()) v = fmaf(m.x, (float)sum.x, fmaf(m.y, (float)sum.y, v));
                else if constexpr (has_min<W>()) v = fmaf(m.x, (float)(sum.x + sum.y), v);
                acc[j][i] = fmaf(st->d[n][b], v, acc[j][i]);
            }
        }
    }
}

template <int W> DEV void tile_q8(const tn_k_args &p, const tn_k_weight &w, char *smem, float *out, int row0, int t0, int n) {
    stage_q8 *st = (stage_q8 *)smem;
    float acc[4][4] = {};
    for (int block = 0; block < NB; block += BLOCKS) {
        stage_weights<W>(w, st, row0, block);
        stage_tokens(p, st, t0, n, block);
        __syncthreads();
        multiply_q8<W>(st, acc);
        __syncthreads();
    }
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp % 4 * 16 + lane / 4;
    int token = warp / 4 * 32 + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) out[(token + 8 * j + i % 2) * LD + row + i / 2 * 8] = acc[j][i];
}

template <int W> DEV void tile_f32(const tn_k_args &p, const tn_k_weight &w, char *smem, float *out, int row0, int t0, int n) {
    stage_f32 *st = (stage_f32 *)smem;
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    float acc[4][4] = {};
    for (int block = 0; block < NB; block++) {
        if (threadIdx.x < TILE) {
            raw<W> q[1];
            float y[32];
            load_rows<W, 1, NB>(q, w, row0 + threadIdx.x, block);
            decode(q[0], y);
#pragma unroll
            for (int i = 0; i < 32; i++) st->w[i][threadIdx.x] = y[i];
        }
        for (int i = threadIdx.x; i < TILE * 32; i += TN_K_THREADS) {
            int t = i / 32, k = 32 * block + i % 32;
            st->x[i % 32][t] = t < n && k < K ? value_at<const float>(p, -1 - X_CODE, t0 + t)[k] : 0;
        }
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < 32; k++) {
            float4 a = *(const float4 *)&st->w[k][4 * tx], b = *(const float4 *)&st->x[k][4 * ty];
            const float *av = (const float *)&a, *bv = (const float *)&b;
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) acc[i][j] = fmaf(av[i], bv[j], acc[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) out[(4 * ty + j) * LD + 4 * tx + i] = acc[i][j];
}

template <int PART, int I> DEV void run_products(const tn_k_args &p, char *smem, float *out, int tile, int t0, int n) {
    constexpr part t_ = parts[PART];
    if constexpr (I < t_.products) {
        constexpr int index = t_.first_product + I;
        if constexpr (X_INT8) tile_q8<products[index].traits>(p, p.w[FIRST_WEIGHT + index], smem, out + I * TILE * LD, tile * TILE, t0, n);
        else tile_f32<products[index].traits>(p, p.w[FIRST_WEIGHT + index], smem, out + I * TILE * LD, tile * TILE, t0, n);
        run_products<PART, I + 1>(p, smem, out, tile, t0, n);
    }
}

template <int PART> DEV void finish(const tn_k_args &p, int tile, int t0, int n, const float *out) {
    constexpr part t_ = parts[PART];
    for (int i = threadIdx.x / 32; i < 2 * n; i += TN_K_WARPS) {
        int t = i / 2, at = i % 2 * 32 + threadIdx.x % 32, col = tile * TILE + at;
        bool inside = col < t_.cols;
        float values[t_.products + t_.afters];
#pragma unroll
        for (int k = 0; k < t_.products; k++) {
            values[k] = out[(k * TILE + t) * LD + at];
            int store = products[t_.first_product + k].store;
            if (store >= 0 && inside) value_at<float>(p, store, t0 + t)[col] = values[k];
        }
        run_after<t_.first_after, t_.products, t_.afters, 0>(p, values, t0 + t, col, inside);
    }
}

template <int PART> DEV void run_part(const tn_k_args &p, char *smem, int t0, int n) {
    constexpr part t_ = parts[PART];
    if constexpr (PART + 1 < N_PARTS) {
        if ((int)blockIdx.x >= t_.first_block + t_.blocks) return run_part<PART + 1>(p, smem, t0, n);
    }
    float *out = (float *)(smem + (X_INT8 ? sizeof(stage_q8) : sizeof(stage_f32)));
    int tile = blockIdx.x - t_.first_block;
    run_products<PART, 0>(p, smem, out, tile, t0, n);
    __syncthreads();
    finish<PART>(p, tile, t0, n, out);
}

extern "C" __global__ void __launch_bounds__(TN_K_THREADS, 2) matmul(const __grid_constant__ tn_k_args p) {
    extern __shared__ __align__(16) char smem[];
    let_next_start();
    int t0 = blockIdx.y * TILE, n = step_count(p, COUNT) - t0;
    wait_for_last();
    if (n <= 0) return;
    run_part<0>(p, smem, t0, n < TILE ? n : TILE);
}
