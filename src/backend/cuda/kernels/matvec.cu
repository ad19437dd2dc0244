/* matvec: products with few tokens (T in a pass, blockIdx.z counts passes). [row ops, by every block for itself] the
 * products of a part [ops on their results]. Bound by reading weights: a lane takes a block of 32 columns of R rows, and
 * LOADS of 16 bytes are kept in flight, where there is one part from before the launch ahead has ended on. Code is kept small: a
 * block runs most of it once, and reads it first.
 * One token is multiplied with dp4a, several on the tensor cores (MMA), with the same bits.
 *
 * With EXPERTS, the number that a token chose (else 0), T is 1. The rows of a part of experts are those of each chosen one in turn; parts
 * of plain matrices may stand beside it (the expert that all tokens share).
 *
 * The host gives TOKENS (T), N_IN (K), X_INT8, X_CODE (operand), X_AT (offset of the staged activations in shared memory, floats),
 * X_ROW (bytes of one), X_ROWS (rows of a token: 1, or one for each expert), EXPERTS, CHOSEN (v[] of the experts' indices),
 * ROW_OPS, N_ROW_OPS, ROWS (R), LANES (that share rows), MMA, COUNT, PRODUCTS, FIRST_WEIGHT (in w), AFTER_OPS, PARTS, LOADS,
 * and the SHARED_BYTES that all that takes. */

constexpr int T = TOKENS, R = ROWS, K = N_IN, NB = (K + 31) / 32;
constexpr int STEPS = (NB + LANES - 1) / LANES, TILE = TN_K_THREADS / LANES * R;
constexpr int X_STRIDE = X_ROWS * X_ROW; /* bytes from token to token */
constexpr int LANES_AT = X_AT + T * X_STRIDE / 4, OUT_AT = LANES_AT + (MMA ? TN_K_THREADS * R * T : 0); /* as X_AT */
static_assert(4 * (OUT_AT + most_products() * T * TILE) <= SHARED_BYTES, "as the host counts");

/* ---- activations: to shared memory, int8 rows as they are, floats 36 words apart for each 32 (no bank conflicts) ---- */

/* Int8 rows of n tokens from memory, all at once. */
DEV void copy_int8(const tn_k_args &p, int row, char *x, int n) {
    constexpr int PIECE = NB % 2 ? 8 : 16, EACH = NB * 40 / PIECE;
#pragma unroll 2
    for (int i = threadIdx.x; i < n * X_ROWS * EACH; i += TN_K_THREADS) {
        int t = i / (X_ROWS * EACH), c = i % (X_ROWS * EACH);
        copy_async<PIECE>(x + t * X_STRIDE + c / EACH * X_ROW + c % EACH * PIECE,
                          value_at<const char>(p, -1 - X_CODE, row + t) + c * PIECE);
    }
    copies_done();
}

DEV void stage(const tn_k_args &p, const row_frame &f, char *x) {
    if constexpr (X_INT8) {
        if constexpr (X_CODE < 0) copy_int8(p, f.row, x, 1);
    } else {
        const float *from = row_source<X_CODE>(p, f, 0);
        for (int i = threadIdx.x; i < X_ROWS * NB * 32; i += TN_K_THREADS) {
            int row = i / (NB * 32), c = i % (NB * 32);
            ((float *)(x + row * X_ROW))[c / 32 * 36 + c % 32] = c < K ? from[row * K + c] : 0;
        }
    }
}

DEV void stage_all(const tn_k_args &p, float *smem, int t0, int n) {
    char *x = (char *)(smem + X_AT);
    if constexpr (X_INT8 && X_CODE < 0 && N_ROW_OPS == 0) {
        copy_int8(p, t0, x, n);
        __syncthreads();
    } else {
        for (int t = 0; t < n; t++) {
            row_frame f = {smem, x + t * X_STRIDE, t0 + t, 0, 1, blockIdx.x == 0};
            run_row(p, f);
            stage(p, f, x + t * X_STRIDE);
            __syncthreads();
        }
    }
}

/* ---- products ----
 * Which R rows of a tile, and which of LANES blocks, a lane takes. dp4a: LANES lanes have R rows and a block each. MMA: a warp
 * has all rows and four of 32 blocks; lane 4 g + t rows R g .. and the t-th of these. */

DEV int lane_rows() {
    return (MMA ? threadIdx.x % 32 / 4 : threadIdx.x / LANES) * R;
}
DEV int lane_block() {
    return MMA ? threadIdx.x / 32 * 4 + threadIdx.x % 4 : threadIdx.x % LANES;
}

#if MMA
/* Sums over a lane's own block in two rows, for two tokens: c[2 row + token]; of its halves in c and e, where scales are of 16.
 * A product on the tensor cores takes a word of each half of four blocks, those of lanes t = 0 .. 3, at a time. Column 2 t + token of
 * the right matrix holds that token's block t and zeros for the others: so nothing mixes, and the sums come to the lane
 * that has the weights and the scales. */
template <int W> DEV void multiply_pair(int *c, int *e, const u32 (*a)[8], const u32 *x) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        c[i] = MAGIC;
        e[i] = by_16<W>() ? MAGIC : 0;
    }
#pragma unroll
    for (int w = 0; w < 4; w++) {
        if constexpr (by_16<W>()) {
            mma_k16(c, a[0][w], a[1][w], x[w], c);
            mma_k16(e, a[0][4 + w], a[1][4 + w], x[4 + w], e);
        } else {
            u32 four[4] = {a[0][w], a[1][w], a[0][4 + w], a[1][4 + w]}, two[2] = {x[w], x[4 + w]};
            mma_k32(c, four, two, c);
        }
    }
}

/* Of the T tokens that there is room for, n are there. All lanes come here, with a block or without. Two rows at a time: that spares
 * registers, and shared memory has the bandwidth. */
template <int W> DEV void multiply(const raw<W> *q, const char *x, int block, int n, float (*acc)[T]) {
    int lane = threadIdx.x % 32;
    bool inside = NB % LANES == 0 || block < NB, mine = inside && lane / 8 == lane % 4;
#pragma unroll
    for (int r = 0; r < R; r += 2) {
        scales s[2] = {scales_of(q[r]), scales_of(q[r + 1])};
        u32 a[2][8];
#pragma unroll
        for (int i = 0; i < 16; i++) a[i / 8][i % 8] = bytes_of(q[r + i / 8], i / 4 % 2, i % 4);
#pragma unroll
        for (int t = 0; t < T; t += 2) {
            if (t > 0 && t >= n) break;
            u32 words[8] = {};
            float d[2];
            short2 sum[2];
            if (mine) {
                const uint4 *from = (const uint4 *)(x + (t + lane / 4 % 2) * X_STRIDE) + 2 * block;
                *(uint4 *)words = from[0];
                *(uint4 *)(words + 4) = from[1];
            }
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const char *row = x + (t + k) * X_STRIDE + 32 * NB;
                d[k] = ((const float *)row)[block];
                sum[k] = ((const short2 *)(row + 4 * NB))[block];
            }
            int c[4], e[4];
            multiply_pair<W>(c, e, a, words);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float v = scale_dots<W>(s[i / 2], c[i], e[i], sum[i % 2]), *to = &acc[r + i / 2][t + i % 2];
                if (inside) *to = fmaf(d[i % 2], v, *to);
            }
        }
    }
}

/* Sums of the lanes in the order of warp_sum: lane 4 w + t of its 32 is here lane t of warp w. */
DEV void put_results(float (*acc)[T], int n, float *smem, float *out) {
    float *lanes = smem + LANES_AT + threadIdx.x % 32;
    int warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < R * T; i++)
        if (i % T < n) lanes[(warp * R * T + i) * 32] = acc[i / T][i % T];
    __syncthreads();
#pragma unroll 1
    for (int i = warp; i < R * T; i += TN_K_WARPS) {
        if (i % T >= n) continue;
        float v[TN_K_WARPS];
#pragma unroll
        for (int k = 0; k < TN_K_WARPS; k++) v[k] = lanes[(k * R * T + i) * 32];
#pragma unroll
        for (int k = TN_K_WARPS / 2; k > 0; k /= 2)
#pragma unroll
            for (int j = 0; j < k; j++) v[j] += v[j + k];
        v[0] += __shfl_xor_sync(~0u, v[0], 2);
        v[0] += __shfl_xor_sync(~0u, v[0], 1);
        if (threadIdx.x % 4 == 0) out[i % T * TILE + lane_rows() + i / T] = v[0];
    }
    __syncthreads();
}
#else
/* Of the T tokens that there is room for, n are there. */
template <int W> DEV void multiply(const raw<W> *q, const char *x, int block, int n, float (*acc)[T]) {
    if constexpr (X_INT8) {
        scales s[R];
#pragma unroll
        for (int r = 0; r < R; r++) s[r] = scales_of(q[r]);
#pragma unroll
        for (int t = 0; t < T; t++) {
            if (t > 0 && t >= n) break;
            const char *row = x + t * X_STRIDE;
            u32 v[8];
            *(uint4 *)v = ((const uint4 *)row)[2 * block];
            *(uint4 *)(v + 4) = ((const uint4 *)row)[2 * block + 1];
            float d = ((const float *)(row + 32 * NB))[block];
            short2 sum = ((const short2 *)(row + 36 * NB))[block];
#pragma unroll
            for (int r = 0; r < R; r++) acc[r][t] = fmaf(d, dot_q8(q[r], s[r], v, sum), acc[r][t]);
        }
    } else {
#pragma unroll
        for (int r = 0; r < R; r++) {
            float w[32];
            decode(q[r], w);
#pragma unroll
            for (int t = 0; t < T; t++) {
                if (t > 0 && t >= n) break;
                const float4 *row = (const float4 *)(x + t * X_STRIDE + block * 144);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    float4 v = row[i];
                    acc[r][t] = fmaf(w[4 * i], v.x, acc[r][t]);
                    acc[r][t] = fmaf(w[4 * i + 1], v.y, acc[r][t]);
                    acc[r][t] = fmaf(w[4 * i + 2], v.z, acc[r][t]);
                    acc[r][t] = fmaf(w[4 * i + 3], v.w, acc[r][t]);
                }
            }
        }
    }
}

/* As warp_sum, where lanes without a block would have given 0. */
DEV float sum_of_row(float x) {
#pragma unroll
    for (int i = LANES / 2; i > 0; i >>= 1) x += __shfl_xor_sync(~0u, x, i);
    return LANES < 32 ? x + 0.0f : x;
}

/* Sums of the lanes; of row r of the tile and token t to out[t * TILE + r]. */
DEV void put_results(float (*acc)[T], int n, float *smem, float *out) {
    int lane = threadIdx.x % LANES;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int t = 0; t < T; t++) {
            if (t > 0 && t >= n) break;
            float sum = sum_of_row(acc[r][t]);
            if (lane == (r * T + t) % LANES) out[t * TILE + lane_rows() + r] = sum;
        }
}
#endif

/* ---- tiles: those of the first chosen expert, of the second, ... ---- */

template <int PART> struct tiles {
    static constexpr int MATRICES = parts[PART].experts ? parts[PART].experts : 1;
    static constexpr int COLS = parts[PART].cols / MATRICES; /* of one */
    static constexpr int EACH = (COLS + TILE - 1) / TILE, ALL = EACH * MATRICES;
};

/* Which chosen expert a tile is of, and its first row in the matrix. */
template <int PART> DEV int slot_of(int tile) {
    return parts[PART].experts ? tile / tiles<PART>::EACH : 0;
}
template <int PART> DEV int row_of(int tile) {
    return (parts[PART].experts ? tile % tiles<PART>::EACH : tile) * TILE;
}

__shared__ int chosen[EXPERTS + 1];

DEV void read_chosen(const tn_k_args &p, int t) {
    if constexpr (EXPERTS > 0) {
        if ((int)threadIdx.x < EXPERTS) chosen[threadIdx.x] = value_at<const int>(p, CHOSEN, t)[threadIdx.x];
        __syncthreads();
    }
}

template <int PART> DEV tn_k_weight matrix_of(const tn_k_args &p, int product, int tile) {
    tn_k_weight w = p.w[FIRST_WEIGHT + parts[PART].first_product + product];
    if constexpr (parts[PART].experts > 0) {
        u64 by = chosen[slot_of<PART>(tile)] * products[parts[PART].first_product + product].expert_bytes;
        w.low += by, w.high += by, w.scale += by, w.super += by;
    }
    return w;
}

/* ---- a tile of results: stored, and the ops on them ---- */

template <int PART> DEV void finish(const tn_k_args &p, int tile, int t0, int n, const float *out) {
    constexpr part t_ = parts[PART];
    int lane = threadIdx.x % 32, at = row_of<PART>(tile) + lane, col = slot_of<PART>(tile) * tiles<PART>::COLS + at;
    bool inside = lane < TILE && at < tiles<PART>::COLS;
    for (int t = threadIdx.x / 32; t < n; t += TN_K_WARPS) {
        float values[t_.products + t_.afters];
#pragma unroll
        for (int i = 0; i < t_.products; i++) {
            values[i] = lane < TILE ? out[(i * T + t) * TILE + lane] : 0;
            int store = products[t_.first_product + i].store;
            if (store >= 0 && inside) value_at<float>(p, store, t0 + t)[col] = values[i];
        }
        run_after<t_.first_after, t_.products, t_.afters, 0>(p, values, t0 + t, col, inside);
    }
}

/* ---- the way of a block: tiles, their products, their steps of 32 blocks of columns ---- */

struct cursor {
    int tile, product, step;
};

template <int PART> DEV void advance(cursor &c) {
    if (++c.step < STEPS) return;
    c.step = 0;
    if (++c.product < parts[PART].products) return;
    c.product = 0;
    c.tile += parts[PART].blocks;
}

template <int PART, int W> DEV void fetch(const tn_k_args &p, raw<W> *q, const cursor &c) {
    int block = LANES * c.step + lane_block(), row = row_of<PART>(c.tile) + lane_rows();
    if (NB % LANES == 0 || block < NB) load_rows<W, R, NB>(q, matrix_of<PART>(p, c.product, c.tile), row, block);
}

/* Steps in flight: as many as LOADS allow; rather a divisor of STEPS, then a unit ends in one place of the code only. */
template <int W> DEV constexpr int depth() {
    int fit = 4 * LOADS / (R * TN_K_LOW(W)), best = 1;
    for (int d = 1; d <= fit && d <= STEPS; d++)
        if (STEPS % d == 0) best = d;
    return fit < 2 || 2 * best > fit || fit > STEPS ? best : fit;
}

/* A part whose products are of one encoding: DEPTH steps are on their way while one is computed. */
template <int PART, int W> struct stream {
    static constexpr int DEPTH = depth<W>(), TILES = tiles<PART>::ALL;
    raw<W> q[DEPTH][R];
    cursor ahead;

    __device__ __forceinline__ void begin(const tn_k_args &p) {
        ahead = {(int)blockIdx.x - parts[PART].first_block, 0, 0};
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            if (ahead.tile < TILES) fetch<PART>(p, q[d], ahead);
            advance<PART>(ahead);
        }
    }

    __device__ __forceinline__ void run(const tn_k_args &p, float *smem, int t0, int n) {
        constexpr part t_ = parts[PART];
        const char *x = (const char *)(smem + X_AT);
        float *out = smem + OUT_AT, acc[R][T] = {};
        cursor now = {(int)blockIdx.x - t_.first_block, 0, 0};
#pragma unroll 1
        while (now.tile < TILES) {
#pragma unroll
            for (int d = 0; d < DEPTH; d++) {
                if (STEPS % DEPTH != 0 && now.tile >= TILES) break;
                int block = LANES * now.step + lane_block();
                const char *row = X_ROWS > 1 ? x + slot_of<PART>(now.tile) * X_ROW : x;
                if (MMA || NB % LANES == 0 || block < NB) multiply(q[d], row, block, n, acc);
                if (ahead.tile < TILES) fetch<PART>(p, q[d], ahead);
                advance<PART>(ahead);
                if ((STEPS % DEPTH != 0 || d == DEPTH - 1) && now.step == STEPS - 1) {
                    put_results(acc, n, smem, out + now.product * T * TILE);
#pragma unroll
                    for (int i = 0; i < R * T; i++) acc[i / T][i % T] = 0;
                    if (now.product == t_.products - 1) {
                        __syncthreads();
                        finish<PART>(p, now.tile, t0, n, out);
                        __syncthreads();
                    }
                }
                advance<PART>(now);
            }
        }
    }
};

/* Products of several encodings: one after the other. */
template <int PART, int I> DEV void run_mixed(const tn_k_args &p, float *smem, int tile, int n) {
    constexpr part t_ = parts[PART];
    if constexpr (I < t_.products) {
        constexpr int W = products[t_.first_product + I].traits;
        float acc[R][T] = {};
        const char *x = (const char *)(smem + X_AT) + (X_ROWS > 1 ? slot_of<PART>(tile) * X_ROW : 0);
        tn_k_weight w = matrix_of<PART>(p, I, tile);
#pragma unroll 1
        for (int step = 0; step < STEPS; step++) {
            int block = LANES * step + lane_block();
            bool inside = NB % LANES == 0 || block < NB;
            raw<W> q[R];
            if (inside) load_rows<W, R, NB>(q, w, row_of<PART>(tile) + lane_rows(), block);
            if (MMA || inside) multiply(q, x, block, n, acc);
        }
        put_results(acc, n, smem, smem + OUT_AT + I * T * TILE);
        run_mixed<PART, I + 1>(p, smem, tile, n);
    }
}

/* Whether a block's code for what comes before the products is in its part's: then its first loads can come before that. With
 * several parts the row ops would be there for each. */
constexpr bool EARLY = N_PARTS == 1 || N_ROW_OPS == 0;

/* Rows of a block's first tile, of its products from the I-th on, on their way to L2 while the launch ahead still runs. Of one token
 * the quants are not: where registers hold the first of them already it was slower. */
template <int PART, int I> DEV void prefetch_tile(const tn_k_args &p) {
    constexpr part t_ = parts[PART];
    if constexpr (I < t_.products) {
        using T_ = raw<products[t_.first_product + I].traits>;
        int tile = blockIdx.x - t_.first_block;
        tn_k_weight w = matrix_of<PART>(p, I, tile);
        u64 row = row_of<PART>(tile);
        if (MMA || !EARLY) prefetch(w.low + row * (NB * T_::LOW * 4), TILE * NB * T_::LOW * 4);
        if (T_::HIGH) prefetch(w.high + row * (NB * T_::HIGH * 4), TILE * NB * T_::HIGH * 4);
        if (T_::SCALE_BYTES) prefetch(w.scale + row * (NB * T_::SCALE_BYTES), TILE * NB * T_::SCALE_BYTES);
        if (T_::SUPER) prefetch(w.super + row * (NB / 8 * 4), TILE * (NB / 8) * 4);
        prefetch_tile<PART, I + 1>(p);
    }
}

template <int PART> DEV void prefetch_part(const tn_k_args &p) {
    constexpr part t_ = parts[PART];
    if constexpr (PART + 1 < N_PARTS) {
        if ((int)blockIdx.x >= t_.first_block + t_.blocks) return prefetch_part<PART + 1>(p);
    }
    constexpr bool loaded = EARLY && one_type<PART>() && depth<products[t_.first_product].traits>() >= STEPS;
    prefetch_tile<PART, loaded ? 1 : 0>(p);
}

/* What the launch ahead has made: first, where weights are chosen, which. */
DEV void get_chosen(const tn_k_args &p, int t) {
    wait_for_last();
    read_chosen(p, t);
}
template <bool WAITED> DEV void get_activations(const tn_k_args &p, float *smem, int t0, int n) {
    if (!WAITED) wait_for_last();
    stage_all(p, smem, t0, n);
}

template <int PART> DEV void run_part(const tn_k_args &p, float *smem, int t0, int n) {
    constexpr part t_ = parts[PART];
    if constexpr (PART + 1 < N_PARTS) {
        if ((int)blockIdx.x >= t_.first_block + t_.blocks) return run_part<PART + 1>(p, smem, t0, n);
    }
    if constexpr (one_type<PART>()) {
        stream<PART, products[t_.first_product].traits> s;
        if (EARLY && t_.experts) get_chosen(p, t0);
        s.begin(p);
        if (EARLY) prefetch_part<PART>(p);
        if (EARLY) get_activations<(t_.experts > 0)>(p, smem, t0, n);
        s.run(p, smem, t0, n);
    } else {
        if (EARLY && t_.experts) get_chosen(p, t0);
        if (EARLY) prefetch_part<PART>(p);
        if (EARLY) get_activations<(t_.experts > 0)>(p, smem, t0, n);
        for (int tile = blockIdx.x - t_.first_block; tile < tiles<PART>::ALL; tile += t_.blocks) {
            run_mixed<PART, 0>(p, smem, tile, n);
            __syncthreads();
            finish<PART>(p, tile, t0, n, smem + OUT_AT);
            __syncthreads();
        }
    }
}

extern "C" __global__ void __launch_bounds__(TN_K_THREADS, MIN_BLOCKS) matvec(const __grid_constant__ tn_k_args p) {
    extern __shared__ __align__(16) float smem[];
    let_next_start();
    int t0 = blockIdx.z * T, n = step_count(p, COUNT) - t0;
    if (n <= 0) return wait_for_last();
    if (n > T) n = T;
    if (!EARLY) {
        if (EXPERTS) get_chosen(p, t0);
        prefetch_part<0>(p);
        get_activations<(EXPERTS > 0)>(p, smem, t0, n);
    }
    run_part<0>(p, smem, t0, n);
}
