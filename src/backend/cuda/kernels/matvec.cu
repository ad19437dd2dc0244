/* matvec: products with few tokens (T in a pass, blockIdx.z counts passes). [row ops, by every block for itself] the
 * products of a part [ops on their results]. Bound by reading weights: a lane takes a block of 32 columns of R rows, so
 * that a warp's loads are 512 contiguous bytes each; LOADS of them are kept in flight, where there is one part
 * from before the launch ahead has ended on. Code is kept small: a block runs most of it once, and reads it first.
 *
 * With EXPERTS, the number that a token chose (else 0), a part's rows are those of each chosen expert in turn, and T is 1.
 *
 * The host gives TOKENS (T), N_IN (K), X_INT8, X_CODE (operand), X_AT (offset of the staged activations in shared memory, floats),
 * X_ROW (bytes of one), X_ROWS (rows of a token: 1, or one for each expert), EXPERTS, CHOSEN (v[] of the experts' indices), ROW_OPS, N_ROW_OPS, ROWS (R), COUNT, PRODUCTS, FIRST_WEIGHT (in w), AFTER_OPS, PARTS, LOADS. */

constexpr int T = TOKENS, R = ROWS, K = N_IN, NB = (K + 31) / 32, TILE = TN_K_WARPS * R;
constexpr int X_STRIDE = X_ROWS * X_ROW; /* bytes from token to token */

/* ---- activations: to shared memory, int8 rows as they are, floats 36 words apart for each 32 (no bank conflicts) ---- */

/* Int8 rows of n tokens from memory: eight loads are on their way before one is stored (the compiler cannot know that they
 * may be). */
DEV void copy_int8(const tn_k_args &p, int row, char *x, int n) {
    constexpr int N = X_ROWS * NB * 5, ALL = (T * N + TN_K_THREADS - 1) / TN_K_THREADS, EACH = ALL < 8 ? ALL : 8;
#pragma unroll 1
    for (int i = threadIdx.x; i < n * N; i += EACH * TN_K_THREADS) {
        uint2 v[EACH];
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            int at = i + k * TN_K_THREADS;
            if (at < n * N) v[k] = value_at<const uint2>(p, -1 - X_CODE, row + at / N)[at % N];
        }
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            int at = i + k * TN_K_THREADS, c = at % N;
            if (at < n * N) ((uint2 *)(x + at / N * X_STRIDE + c / (NB * 5) * X_ROW))[c % (NB * 5)] = v[k];
        }
    }
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

/* ---- products ---- */

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
            for (int r = 0; r < R; r++) acc[r][t] = fmaf(d, dot_q8(q[r], s[r], v, sum.x, sum.y), acc[r][t]);
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

constexpr int STEPS = (NB + 31) / 32;

/* Sums of the lanes; result (r, t) to out[t * TILE + r]. */
DEV void put_results(float (*acc)[T], int n, float *out) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int t = 0; t < T; t++) {
            if (t > 0 && t >= n) break;
            float sum = warp_sum(acc[r][t]);
            if (lane == (r * T + t) % 32) out[t * TILE + r] = sum;
        }
}

/* ---- tiles: those of the first chosen expert, of the second, ... ---- */

template <int PART> struct tiles {
    static constexpr int COLS = parts[PART].cols / (EXPERTS ? EXPERTS : 1); /* of one matrix */
    static constexpr int EACH = (COLS + TILE - 1) / TILE, ALL = EACH * (EXPERTS ? EXPERTS : 1);
};

/* Which chosen expert a tile is of, and its first row in the matrix. */
template <int PART> DEV int slot_of(int tile) {
    return EXPERTS ? tile / tiles<PART>::EACH : 0;
}
template <int PART> DEV int row_of(int tile) {
    return (EXPERTS ? tile % tiles<PART>::EACH : tile) * TILE;
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
    if constexpr (EXPERTS > 0) {
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
    int block = 32 * c.step + threadIdx.x % 32, row = row_of<PART>(c.tile) + threadIdx.x / 32 * R;
    if (NB % 32 == 0 || block < NB) load_rows<W, R, NB>(q, matrix_of<PART>(p, c.product, c.tile), row, block);
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
        float *out = smem + X_AT + T * X_STRIDE / 4, acc[R][T] = {};
        int at = threadIdx.x / 32 * R;
        cursor now = {(int)blockIdx.x - t_.first_block, 0, 0};
#pragma unroll 1
        while (now.tile < TILES) {
#pragma unroll
            for (int d = 0; d < DEPTH; d++) {
                if (STEPS % DEPTH != 0 && now.tile >= TILES) break;
                int block = 32 * now.step + threadIdx.x % 32;
                const char *row = X_ROWS > 1 ? x + slot_of<PART>(now.tile) * X_ROW : x;
                if (NB % 32 == 0 || block < NB) multiply(q[d], row, block, n, acc);
                if (ahead.tile < TILES) fetch<PART>(p, q[d], ahead);
                advance<PART>(ahead);
                if ((STEPS % DEPTH != 0 || d == DEPTH - 1) && now.step == STEPS - 1) {
                    put_results(acc, n, out + now.product * T * TILE + at);
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
        int at = threadIdx.x / 32 * R;
        const char *x = (const char *)(smem + X_AT) + (X_ROWS > 1 ? slot_of<PART>(tile) * X_ROW : 0);
        tn_k_weight w = matrix_of<PART>(p, I, tile);
#pragma unroll 1
        for (int block = threadIdx.x % 32; block < NB; block += 32) {
            raw<W> q[R];
            load_rows<W, R, NB>(q, w, row_of<PART>(tile) + at, block);
            multiply(q, x, block, n, acc);
        }
        put_results(acc, n, smem + X_AT + T * X_STRIDE / 4 + I * T * TILE + at);
        run_mixed<PART, I + 1>(p, smem, tile, n);
    }
}

template <int PART> DEV constexpr bool one_type() {
    for (int i = 1; i < parts[PART].products; i++)
        if (products[parts[PART].first_product + i].traits != products[parts[PART].first_product].traits) return false;
    return true;
}

/* The first tile's rows on their way to L2 while the launch ahead still runs. */
template <int PART> DEV void prefetch_part(const tn_k_args &p) {
    constexpr part t_ = parts[PART];
    if constexpr (PART + 1 < N_PARTS) {
        if ((int)blockIdx.x >= t_.first_block + t_.blocks) return prefetch_part<PART + 1>(p);
    }
    constexpr int LINES = NB * TN_K_LOW(products[t_.first_product].traits) / 32; /* of 128 bytes in a row's low plane */
    int tile = blockIdx.x - t_.first_block;
    u64 from = matrix_of<PART>(p, 0, tile).low + (u64)row_of<PART>(tile) * (NB * TN_K_LOW(products[t_.first_product].traits) * 4);
    for (int i = threadIdx.x; i < TILE * LINES; i += TN_K_THREADS)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(from + (u64)i * 128));
}

template <int PART> DEV void run_part(const tn_k_args &p, float *smem, int t0, int n) {
    constexpr part t_ = parts[PART];
    if constexpr (PART + 1 < N_PARTS) {
        if ((int)blockIdx.x >= t_.first_block + t_.blocks) return run_part<PART + 1>(p, smem, t0, n);
    }
    if constexpr (one_type<PART>()) {
        stream<PART, products[t_.first_product].traits> s;
        s.begin(p);
        s.run(p, smem, t0, n);
    } else {
        for (int tile = blockIdx.x - t_.first_block; tile < tiles<PART>::ALL; tile += t_.blocks) {
            run_mixed<PART, 0>(p, smem, tile, n);
            __syncthreads();
            finish<PART>(p, tile, t0, n, smem + X_AT + T * X_STRIDE / 4);
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
    if constexpr (N_PARTS == 1 && one_type<0>()) { /* with several parts the code for the row ops would be there for each */
        stream<0, products[0].traits> s;
        if (!EXPERTS) s.begin(p);
        wait_for_last();
        read_chosen(p, t0);
        if (EXPERTS) s.begin(p);
        stage_all(p, smem, t0, n);
        s.run(p, smem, t0, n);
    } else {
        if (!EXPERTS) prefetch_part<0>(p);
        wait_for_last();
        read_chosen(p, t0);
        stage_all(p, smem, t0, n);
        run_part<0>(p, smem, t0, n);
    }
}
