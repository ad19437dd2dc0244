/* matmul: products with many tokens. A block computes TILE_ROWS rows of the weights, those of all products of its part
 * together, for TILE_TOKENS tokens; int8 activations on the tensor cores (mma m16n8k32, k16 where scales are of 16), floats by
 * plain multiply-adds. Blocks of a part are its tiles (blockIdx.y); blocks of other tokens (blockIdx.x) follow at once, so
 * that the rows are read from memory once.
 * The host gives N_IN (K), X_INT8, X_CODE, COUNT, PRODUCTS, AFTER_OPS, PARTS as for matvec, TILE_ROWS, TILE_TOKENS and the SHARED_BYTES that they
 * take. */

constexpr int K = N_IN, NB = (K + 31) / 32, R = TILE_ROWS, T = TILE_TOKENS;
constexpr int LD = R + 4;                      /* of results in shared memory: no bank conflicts */
constexpr int RESIDENT = R * T > 4096 ? 2 : 3; /* blocks on a multiprocessor */

template <int W> struct encoding {
    static constexpr int value = W;
};

/* Calls f with the encoding of a part's product. */
template <int PART, int I = 0, class F> DEV void by_encoding(int product, F f) {
    constexpr part t_ = parts[PART];
    if constexpr (I + 1 < t_.products && !one_type<PART>()) {
        if (product != I) return by_encoding<PART, I + 1>(product, f);
    }
    f(encoding<products[t_.first_product + I].traits>());
}

/* Which row of which weight row `row` of a tile is; those beyond the matrix are its last one, which is padding or not used. */
template <int PART> struct place {
    static constexpr int EACH = R / parts[PART].products, LAST = (parts[PART].cols + 31) / 32 * 32 - 1;
    int product, row;
    __device__ __forceinline__ place(int tile, int i) {
        product = i / EACH;
        row = tile * EACH + i % EACH;
        row = row < LAST ? row : LAST;
    }
};

#if X_INT8
/* ---- int8: two stages of BLOCKS blocks of 32 columns; while one is multiplied, the next is on its way ---- */

constexpr int BLOCKS = 4, STEPS = (NB + BLOCKS - 1) / BLOCKS;
constexpr int ROW = 32 * BLOCKS + 16;                                         /* bytes between rows: no bank conflicts */
constexpr int W_UNITS = R * BLOCKS / TN_K_THREADS, X_UNITS = T * BLOCKS / TN_K_THREADS; /* blocks a thread brings */
constexpr int M_TILES = R / 64, N_TILES = T / 16;                             /* of a warp: 16 rows, 8 tokens */

DEV constexpr bool any_wide() {
    for (int i = 0; i < TN_K_MAX_WEIGHTS; i++)
        if (TN_K_SCALE(products[i].traits) == TN_K_K16M) return true;
    return false;
}
constexpr int NUMBERS = any_wide() ? 4 : 2;

/* w_scale: s, m, or s of both halves (then m of both); x_scale: d, d * sum (of the halves one by one where NUMBERS is 4) */
struct stage {
    u8 w[R][ROW], x[T][ROW];
    float w_scale[BLOCKS][R + 4][NUMBERS], x_scale[BLOCKS][T + 4][NUMBERS];
};

template <int W> DEV void put_block(stage *st, const raw<W> &q, int row, int b, bool there) {
    u32 v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = centred(q, i / 4, i % 4);
    uint4 *to = (uint4 *)&st->w[row][32 * b];
    to[0] = make_uint4(v[0], v[1], v[2], v[3]);
    to[1] = make_uint4(v[4], v[5], v[6], v[7]);
    scales s = scales_of(q);
    float2 *scale = (float2 *)st->w_scale[b][row];
    bool halves = by_16<W>();
    scale[0] = there ? make_float2(s.s[0], halves ? s.s[1] : s.m[0]) : make_float2(0, 0);
    if (NUMBERS == 4) scale[NUMBERS / 4] = there ? make_float2(s.m[0], s.m[1]) : make_float2(0, 0);
}

/* What a thread brings of a step, from the call of fetch to that of put: the blocks of its units in registers, the elements
 * of the tokens straight to shared memory. */
template <int PART> struct carrier {
    const tn_k_args &p;
    int tile, t0, n;
    u32 q[W_UNITS][12];
    float d[X_UNITS];
    short2 sum[X_UNITS];

    __device__ __forceinline__ void fetch_weights(int step) {
#pragma unroll
        for (int u = 0; u < W_UNITS; u++) {
            int i = threadIdx.x + u * TN_K_THREADS, block = step * BLOCKS + i % BLOCKS;
            place<PART> at(tile, i / BLOCKS);
            if (block >= NB) block = NB - 1;
            by_encoding<PART>(at.product, [&](auto e) {
                using T_ = raw<decltype(e)::value>;
                T_ one[1];
                load_rows<decltype(e)::value, 1, NB>(one, p.w[FIRST_WEIGHT + parts[PART].first_product + at.product], at.row, block);
#pragma unroll
                for (int k = 0; k < T_::LOW; k++) q[u][k] = one[0].low[k];
#pragma unroll
                for (int k = 0; k < T_::HIGH; k++) q[u][8 + k] = one[0].high[k];
                q[u][10] = one[0].scale;
                if (T_::SUPER) q[u][11] = one[0].super;
            });
        }
    }

    __device__ __forceinline__ void fetch_tokens(stage *st, int step) {
        constexpr int PIECE = NB % 2 ? 8 : 16, PIECES = 32 * BLOCKS / PIECE;
#pragma unroll
        for (int i = threadIdx.x; i < T * PIECES; i += TN_K_THREADS) {
            int t = i / PIECES, c = i % PIECES * PIECE, col = step * BLOCKS * 32 + c;
            const char *row = value_at<const char>(p, -1 - X_CODE, t0 + (t < n ? t : n - 1));
            if (col < 32 * NB) copy_async<PIECE>(&st->x[t][c], row + col);
        }
#pragma unroll
        for (int u = 0; u < X_UNITS; u++) {
            int i = threadIdx.x + u * TN_K_THREADS, t = i / BLOCKS, block = step * BLOCKS + i % BLOCKS;
            const char *row = value_at<const char>(p, -1 - X_CODE, t0 + (t < n ? t : n - 1));
            d[u] = block < NB ? ((const float *)(row + 32 * NB))[block] : 0;
            sum[u] = block < NB ? ((const short2 *)(row + 36 * NB))[block] : make_short2(0, 0);
        }
    }

    __device__ __forceinline__ void put(stage *st, int step) {
#pragma unroll
        for (int u = 0; u < W_UNITS; u++) {
            int i = threadIdx.x + u * TN_K_THREADS, b = i % BLOCKS;
            by_encoding<PART>(place<PART>(tile, i / BLOCKS).product, [&](auto e) {
                using T_ = raw<decltype(e)::value>;
                T_ one;
#pragma unroll
                for (int k = 0; k < T_::LOW; k++) one.low[k] = q[u][k];
#pragma unroll
                for (int k = 0; k < T_::HIGH; k++) one.high[k] = q[u][8 + k];
                one.scale = q[u][10];
                if (T_::SUPER) one.super = q[u][11];
                put_block(st, one, i / BLOCKS, b, step * BLOCKS + b < NB);
            });
        }
#pragma unroll
        for (int u = 0; u < X_UNITS; u++) {
            int i = threadIdx.x + u * TN_K_THREADS;
            float *to = st->x_scale[i % BLOCKS][i / BLOCKS];
            to[0] = d[u];
            to[1] = d[u] * (float)(NUMBERS == 4 ? sum[u].x : sum[u].x + sum[u].y);
            if (NUMBERS == 4) to[NUMBERS / 2] = d[u] * (float)sum[u].y;
        }
        copies_done();
    }
};

/* ---- the tensor cores ---- */

/* Sums of 16 rows x 8 tokens of a block, scaled and added to acc. s: scales of rows g and g + 8; x: of tokens 2 t and 2 t + 1 */
template <int W> DEV void add_block(float *acc, const u32 *a, const u32 *b, const float (*s)[NUMBERS], const float (*x)[NUMBERS]) {
    int c[4], e[4];
    multiply_block<W>(c, e, a, b);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float *w = s[i / 2], *t = x[i % 2];
        float v = from_magic(c[i]);
        if constexpr (by_16<W>()) {
            acc[i] = fmaf(t[0], fmaf(w[1], from_magic(e[i]), w[0] * v), acc[i]);
            if constexpr (has_min<W>()) acc[i] = fmaf(w[2], t[1], fmaf(w[3], t[2], acc[i]));
        } else {
            acc[i] = fmaf(w[0] * t[0], v, acc[i]);
            if constexpr (has_min<W>()) acc[i] = fmaf(w[1], t[1], acc[i]);
        }
    }
}

/* Warp (i, j) of 4 x 2: R / 4 rows, T / 2 tokens. acc[m][n]: rows g, g + 8 x tokens 2 t, 2 t + 1 */
template <int W> DEV void multiply(const stage *st, float (*acc)[N_TILES][4]) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int row = warp % 4 * (R / 4), token = warp / 4 * (T / 2);
#pragma unroll 1
    for (int b = 0; b < BLOCKS; b++) {
        u32 a[M_TILES][4];
        float s[M_TILES][2][NUMBERS];
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            load_matrices<false>(a[m], &st->w[row + 16 * m + lane % 16][32 * b + lane / 16 * 16]);
#pragma unroll
            for (int i = 0; i < 2 * NUMBERS; i += 2)
                *(float2 *)&s[m][i / NUMBERS][i % NUMBERS] =
                    *(const float2 *)&st->w_scale[b][row + 16 * m + g + i / NUMBERS * 8][i % NUMBERS];
        }
#pragma unroll
        for (int n = 0; n < N_TILES; n += 2) {
            u32 x[4];
            load_matrices<false>(x, &st->x[token + 8 * n + lane / 16 * 8 + lane % 8][32 * b + lane / 8 % 2 * 16]);
#pragma unroll
            for (int k = 0; k < 2; k++) {
                float d[2][NUMBERS];
#pragma unroll
                for (int i = 0; i < 2 * NUMBERS; i += 4)
                    *(float4 *)&d[0][i] = *(const float4 *)&st->x_scale[b][token + 8 * (n + k) + 2 * t][i];
#pragma unroll
                for (int m = 0; m < M_TILES; m++) add_block<W>(acc[m][n + k], a[m], x + 2 * k, s[m], d);
            }
        }
    }
}

/* A tile's sums to out[token * LD + row]; `out` takes the place of the stages. */
template <int PART> DEV void run_tile(const tn_k_args &p, char *smem, float *out, int tile, int t0, int n) {
    stage *st = (stage *)smem;
    float acc[M_TILES][N_TILES][4] = {};
    carrier<PART> c = {p, tile, t0, n};
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp % 4 * (R / 4), token = warp / 4 * (T / 2);
    c.fetch_weights(0);
    wait_for_last();
    c.fetch_tokens(st, 0);
    c.put(st, 0);
    __syncthreads();
#pragma unroll 1
    for (int step = 0; step < STEPS; step++) {
        stage *next = st + (step + 1) % 2;
        if (step + 1 < STEPS) {
            c.fetch_tokens(next, step + 1);
            c.fetch_weights(step + 1);
        }
        by_encoding<PART>(row / place<PART>::EACH, [&](auto e) { multiply<decltype(e)::value>(st + step % 2, acc); });
        if (step + 1 < STEPS) c.put(next, step + 1);
        __syncthreads();
    }
    row += lane / 4;
    token += lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int k = 0; k < N_TILES; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) out[(token + 8 * k + i % 2) * LD + row + 16 * m + i / 2 * 8] = acc[m][k][i];
}

#else
/* ---- floats: 32 columns in a step, four rows of four tokens a thread ---- */

struct stage {
    float w[32][R + 4], x[32][T + 4];
};
static_assert(R == 64 && T == 64, "a thread has 4 x 4 results");

template <int PART> DEV void run_tile(const tn_k_args &p, char *smem, float *out, int tile, int t0, int n) {
    stage *st = (stage *)smem;
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    float acc[4][4] = {};
    wait_for_last();
    for (int block = 0; block < NB; block++) {
        if (threadIdx.x < R) {
            place<PART> at(tile, threadIdx.x);
            by_encoding<PART>(at.product, [&](auto e) {
                raw<decltype(e)::value> q[1];
                float y[32];
                load_rows<decltype(e)::value, 1, NB>(q, p.w[FIRST_WEIGHT + parts[PART].first_product + at.product], at.row, block);
                decode(q[0], y);
#pragma unroll
                for (int i = 0; i < 32; i++) st->w[i][threadIdx.x] = y[i];
            });
        }
        for (int i = threadIdx.x; i < T * 32; i += TN_K_THREADS) {
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
#endif

/* ---- results: stored, and the ops on them ---- */

template <int PART> DEV void finish(const tn_k_args &p, int tile, int t0, int n, const float *out) {
    constexpr part t_ = parts[PART];
    constexpr int EACH = place<PART>::EACH, GROUPS = EACH / 32;
#pragma unroll 2
    for (int i = threadIdx.x / 32; i < GROUPS * n; i += TN_K_WARPS) {
        int t = i / GROUPS, at = i % GROUPS * 32 + threadIdx.x % 32, col = tile * EACH + at;
        bool inside = col < t_.cols;
        float values[t_.products + t_.afters];
#pragma unroll
        for (int k = 0; k < t_.products; k++) {
            values[k] = out[t * LD + k * EACH + at];
            int store = products[t_.first_product + k].store;
            if (store >= 0 && inside) value_at<float>(p, store, t0 + t)[col] = values[k];
        }
        run_after<t_.first_after, t_.products, t_.afters, 0>(p, values, t0 + t, col, inside);
    }
}

template <int PART> DEV void run_part(const tn_k_args &p, char *smem, int t0, int n) {
    constexpr part t_ = parts[PART];
    if constexpr (PART + 1 < N_PARTS) {
        if ((int)blockIdx.y >= t_.first_block + t_.blocks) return run_part<PART + 1>(p, smem, t0, n);
    }
    int tile = blockIdx.y - t_.first_block;
    float *out = (float *)smem;
    run_tile<PART>(p, smem, out, tile, t0, n);
    __syncthreads();
    finish<PART>(p, tile, t0, n, out);
}

static_assert((X_INT8 ? 2 : 1) * sizeof(stage) <= SHARED_BYTES && T * LD * 4 <= SHARED_BYTES, "as the host counts");

extern "C" __global__ void __launch_bounds__(TN_K_THREADS, RESIDENT) matmul(const __grid_constant__ tn_k_args p) {
    extern __shared__ __align__(16) char smem[];
    let_next_start();
    int t0 = blockIdx.x * T, n = step_count(p, COUNT) - t0;
    if (n <= 0) return wait_for_last();
    run_part<0>(p, smem, t0, n < T ? n : T);
}
