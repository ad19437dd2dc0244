/* matvec: products with few tokens (T in a pass, blockIdx.z counts passes). [row ops, by every block for itself] the
 * products of a part [ops on their results]. Bound by reading weights: a lane takes a block of 32 columns of R rows, so
 * that a warp's loads are 512 contiguous bytes each and UNROLL * R of them are in flight.
 *
 * The host gives TOKENS (T), N_IN (K), X_INT8, X_CODE (operand), X_AT (offset of the staged activations in shared memory, floats),
 * X_STRIDE (bytes of one), ROW_OPS, N_ROW_OPS, ROWS (R), COUNT, PRODUCTS, AFTER_OPS, PARTS. */

constexpr int T = TOKENS, R = ROWS, K = N_IN, NB = (K + 31) / 32, TILE = TN_K_WARPS * R;

/* ---- activations: to shared memory, int8 rows as they are, floats 36 words apart for each 32 (no bank conflicts) ---- */

DEV void stage(const tn_k_args &p, const row_frame &f, char *x) {
    if constexpr (X_INT8) {
        if constexpr (X_CODE < 0) {
            const uint2 *from = value_at<const uint2>(p, -1 - X_CODE, f.row);
            for (int i = threadIdx.x; i < NB * 5; i += TN_K_THREADS) ((uint2 *)x)[i] = from[i];
        }
    } else {
        const float *from = row_source<X_CODE>(p, f, 0);
        for (int i = threadIdx.x; i < NB * 32; i += TN_K_THREADS)
            ((float *)x)[i / 32 * 36 + i % 32] = i < K ? from[i] : 0;
    }
}

DEV void stage_all(const tn_k_args &p, float *smem, int t0, int n) {
    for (int t = 0; t < T; t++) {
        char *x = (char *)(smem + X_AT) + t * X_STRIDE;
        if (t < n) {
            row_frame f = {smem, x, t0 + t, 0, 1, blockIdx.x == 0};
            run_row_ops<0>(p, f);
            stage(p, f, x);
        } else {
            for (int i = threadIdx.x; i < X_STRIDE / 4; i += TN_K_THREADS) ((u32 *)x)[i] = 0;
        }
        __syncthreads();
    }
}

/* ---- products ---- */

template <int W> DEV void multiply(const raw<W> *q, const char *x, int block, float (*acc)[T]) {
    if constexpr (X_INT8) {
        scales s[R];
#pragma unroll
        for (int r = 0; r < R; r++) s[r] = scales_of(q[r]);
#pragma unroll
        for (int t = 0; t < T; t++) {
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

template <int W> DEV void multiply_rows(const tn_k_weight &w, int row, const char *x, float (*acc)[T]) {
    constexpr int UNROLL = R * TN_K_LOW(W) >= 32 ? 1 : 32 / (R * TN_K_LOW(W)), STEPS = (NB + 31) / 32;
    int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int i = 0; i < STEPS; i += UNROLL) {
        raw<W> q[UNROLL][R];
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (32 * (i + u) + lane < NB) load_rows<W, R, NB>(q[u], w, row, 32 * (i + u) + lane);
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (32 * (i + u) + lane < NB) multiply(q[u], x, 32 * (i + u) + lane, acc);
    }
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int t = 0; t < T; t++) acc[r][t] = warp_sum(acc[r][t]);
}

/* Product I of a part and those behind it: results of the tile to `out`, [product][token][TILE]. */
template <int PART, int I> DEV void run_products(const tn_k_args &p, int tile, const char *x, float *out) {
    constexpr part t_ = parts[PART];
    if constexpr (I < t_.products) {
        constexpr int index = t_.first_product + I;
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        float acc[R][T];
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int t = 0; t < T; t++) acc[r][t] = 0;
        multiply_rows<products[index].traits>(p.w[index], tile * TILE + warp * R, x, acc);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int t = 0; t < T; t++)
                if (lane == (r * T + t) % 32) out[(I * T + t) * TILE + warp * R + r] = acc[r][t];
        run_products<PART, I + 1>(p, tile, x, out);
    }
}

/* ---- a tile of results: stored, and the ops on them ---- */

template <int PART> DEV void finish(const tn_k_args &p, int tile, int t0, int n, const float *out) {
    constexpr part t_ = parts[PART];
    int lane = threadIdx.x % 32, col = tile * TILE + lane;
    bool inside = lane < TILE && col < t_.cols;
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

template <int PART> DEV void run_part(const tn_k_args &p, float *smem, int t0, int n) {
    constexpr part t_ = parts[PART];
    if constexpr (PART + 1 < N_PARTS) {
        if ((int)blockIdx.x >= t_.first_block + t_.blocks) return run_part<PART + 1>(p, smem, t0, n);
    }
    float *out = smem + X_AT + T * X_STRIDE / 4;
    for (int tile = blockIdx.x - t_.first_block; tile < (t_.cols + TILE - 1) / TILE; tile += t_.blocks) {
        run_products<PART, 0>(p, tile, (const char *)(smem + X_AT), out);
        __syncthreads();
        finish<PART>(p, tile, t0, n, out);
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(TN_K_THREADS, MIN_BLOCKS) matvec(const __grid_constant__ tn_k_args p) {
    extern __shared__ __align__(16) float smem[];
    let_next_start();
    wait_for_last();
    int t0 = blockIdx.z * T, n = step_count(p, COUNT) - t0;
    if (n <= 0) return;
    if (n > T) n = T;
    stage_all(p, smem, t0, n);
    run_part<0>(p, smem, t0, n);
}
