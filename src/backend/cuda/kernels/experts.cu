/* experts: products with the experts that many tokens chose. Block (tile, expert): R rows of the expert's matrices for the tokens that
 * chose it, T at a time, on the tensor cores (mma m16n8k32, k16 where scales are of 16). The list of these tokens every block
 * makes for itself: that costs less than a launch, and needs no room.
 * The host gives N_IN (K), X_CODE, X_ROWS, EXPERTS, CHOSEN, COUNT, PRODUCTS, AFTER_OPS, PARTS as for matvec; blocks of a part are the
 * tiles of one expert; MAX_ROWS (tokens at most); SHARED_BYTES. */

constexpr int K = N_IN, NB = (K + 31) / 32, R = 64, T = 32;
constexpr int LD = R + 1;             /* of results in shared memory */
constexpr int BLOCKS = 4;             /* of 32 columns in a step */
constexpr int ROW = 32 * BLOCKS + 16; /* bytes between rows of a step: no bank conflicts */

/* A step's operands: R rows of the weight, T tokens. */
struct stage {
    u8 w[R][ROW], x[T][ROW];
    float2 s[R][BLOCKS], m[R][BLOCKS];
    float d[T][BLOCKS];
    short2 sum[T][BLOCKS];
};

/* ---- who chose the expert: pairs token * EXPERTS + place, in order ---- */

DEV int list_pairs(const tn_k_args &p, int expert, int *pairs) {
    __shared__ int found[TN_K_WARPS];
    int rows = step_count(p, COUNT), n = 0, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int first = 0; first < rows; first += TN_K_THREADS) {
        int t = first + threadIdx.x, place = -1;
        if (t < rows) {
            const int *chosen = value_at<const int>(p, CHOSEN, t);
#pragma unroll
            for (int i = 0; i < EXPERTS; i++)
                if (chosen[i] == expert) place = i;
        }
        u32 mask = __ballot_sync(~0u, place >= 0);
        if (lane == 0) found[warp] = __popc(mask);
        __syncthreads();
        int at = n + __popc(mask & ((1u << lane) - 1));
        for (int w = 0; w < TN_K_WARPS; w++) {
            at += w < warp ? found[w] : 0;
            n += found[w];
        }
        if (place >= 0) pairs[at] = t * EXPERTS + place;
        __syncthreads();
    }
    return n;
}

/* ---- a step's operands: on their way in registers while the last step is multiplied ---- */

/* A thread brings a block of 32 of a row and, the first T * BLOCKS of them, one of a token. Behind the matrix' LAST row comes what is
 * not its own: the last one is read in its place. */
template <int W, int LAST> struct carrier {
    raw<W> q[1];
    uint2 x[4];
    float d;
    short2 sum;
    bool inside;

    __device__ __forceinline__ void fetch(const tn_k_args &p, const tn_k_weight &w, int row0, const int *pairs, int n, int step) {
        int i = threadIdx.x / BLOCKS, block = step * BLOCKS + threadIdx.x % BLOCKS;
        inside = block < NB;
        if (inside) load_rows<W, 1, NB>(q, w, row0 + i < LAST ? row0 + i : LAST, block);
        d = 0, sum = make_short2(0, 0);
#pragma unroll
        for (int k = 0; k < 4; k++) x[k] = make_uint2(0, 0);
        if (i >= n || !inside) return;
        const char *from = value_at<const char>(p, -1 - X_CODE, pairs[i] / EXPERTS);
        if (X_ROWS > 1) from = q8_row<K>((char *)from, pairs[i] % EXPERTS * K);
#pragma unroll
        for (int k = 0; k < 4; k++) x[k] = ((const uint2 *)(from + 32 * block))[k];
        d = ((const float *)(from + 32 * NB))[block];
        sum = ((const short2 *)(from + 36 * NB))[block];
    }

    __device__ __forceinline__ void put(stage *st) {
        int i = threadIdx.x / BLOCKS, b = threadIdx.x % BLOCKS;
        u32 *to = (u32 *)&st->w[i][32 * b];
        scales s = {{0, 0}, {0, 0}};
        if (inside) s = scales_of(q[0]);
#pragma unroll
        for (int k = 0; k < 8; k++) to[k] = inside ? centred(q[0], k / 4, k % 4) : 0;
        st->s[i][b] = make_float2(s.s[0], s.s[1]);
        st->m[i][b] = make_float2(s.m[0], s.m[1]);
        if (i >= T) return;
#pragma unroll
        for (int k = 0; k < 4; k++) ((uint2 *)&st->x[i][32 * b])[k] = x[k];
        st->d[i][b] = d;
        st->sum[i][b] = sum;
    }
};

/* ---- the tensor cores ---- */

/* Warp (i, j) of 4 x 2: 16 rows, 16 tokens in two tiles of 8. acc[tile]: rows g, g + 8 x tokens 2 t, 2 t + 1 */
template <int W> DEV void multiply(const stage *st, int n_tokens, float (*acc)[4]) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int row = warp % 4 * 16 + g, token = warp / 4 * 16;
    if (token >= n_tokens) return;
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
        u32 a[4];
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = *(const u32 *)&st->w[row + i % 2 * 8][32 * b + i / 2 * 16 + 4 * t];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            u32 x[2];
            x[0] = *(const u32 *)&st->x[token + 8 * j + g][32 * b + 4 * t];
            x[1] = *(const u32 *)&st->x[token + 8 * j + g][32 * b + 16 + 4 * t];
            int c[4], e[4];
            multiply_block<W>(c, e, a, x);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int n = token + 8 * j + 2 * t + i % 2;
                float2 s = st->s[row + i / 2 * 8][b], m = st->m[row + i / 2 * 8][b];
                float v = s.x * from_magic(c[i]);
                if constexpr (by_16<W>()) v = fmaf(s.y, from_magic(e[i]), v);
                short2 sum = st->sum[n][b];
                if constexpr (has_min<W>() && by_16<W>()) v = fmaf(m.x, (float)sum.x, fmaf(m.y, (float)sum.y, v));
                else if constexpr (has_min<W>()) v = fmaf(m.x, (float)(sum.x + sum.y), v);
                acc[j][i] = fmaf(st->d[n][b], v, acc[j][i]);
            }
        }
    }
}

/* Rows from row0 on for n pairs to out[pair * LD + row]. */
template <int W, int LAST> DEV void run_tile(const tn_k_args &p, const tn_k_weight &w, stage *st, float *out, int row0, const int *pairs, int n) {
    constexpr int STEPS = (NB + BLOCKS - 1) / BLOCKS;
    float acc[2][4] = {};
    carrier<W, LAST> c;
    c.fetch(p, w, row0, pairs, n, 0);
#pragma unroll 1
    for (int step = 0; step < STEPS; step++) {
        c.put(st);
        __syncthreads();
        if (step + 1 < STEPS) c.fetch(p, w, row0, pairs, n, step + 1);
        multiply<W>(st, n, acc);
        __syncthreads();
    }
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp % 4 * 16 + lane / 4, t = warp / 4 * 16 + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) out[(t + 8 * j + i % 2) * LD + row + i / 2 * 8] = acc[j][i];
}

/* ---- a part ---- */

template <int PART, int I> DEV void run_products(const tn_k_args &p, stage *st, float *out, int row0, int expert, const int *pairs, int n) {
    constexpr part t_ = parts[PART];
    if constexpr (I < t_.products) {
        constexpr product o = products[t_.first_product + I];
        tn_k_weight w = p.w[FIRST_WEIGHT + t_.first_product + I];
        u64 by = expert * o.expert_bytes;
        w.low += by, w.high += by, w.scale += by, w.super += by;
        run_tile<o.traits, (t_.cols / EXPERTS + 31) / 32 * 32 - 1>(p, w, st, out + I * T * LD, row0, pairs, n);
        run_products<PART, I + 1>(p, st, out, row0, expert, pairs, n);
    }
}

template <int PART> DEV void finish(const tn_k_args &p, int row0, const int *pairs, int n, const float *out) {
    constexpr part t_ = parts[PART];
    constexpr int COLS = t_.cols / EXPERTS;
    for (int i = threadIdx.x / 32; i < 2 * n; i += TN_K_WARPS) {
        int pair = pairs[i / 2], at = i % 2 * 32 + threadIdx.x % 32, col = pair % EXPERTS * COLS + row0 + at;
        bool inside = row0 + at < COLS;
        float values[t_.products + t_.afters];
#pragma unroll
        for (int k = 0; k < t_.products; k++) {
            values[k] = out[(k * T + i / 2) * LD + at];
            int store = products[t_.first_product + k].store;
            if (store >= 0 && inside) value_at<float>(p, store, pair / EXPERTS)[col] = values[k];
        }
        run_after<t_.first_after, t_.products, t_.afters, 0>(p, values, pair / EXPERTS, col, inside);
    }
}

template <int PART> DEV void run_part(const tn_k_args &p, stage *st, float *out, const int *pairs, int n) {
    constexpr part t_ = parts[PART];
    if constexpr (PART + 1 < N_PARTS) {
        if ((int)blockIdx.x >= t_.first_block + t_.blocks) return run_part<PART + 1>(p, st, out, pairs, n);
    }
    int row0 = (blockIdx.x - t_.first_block) * R;
#pragma unroll 1
    for (int first = 0; first < n; first += T) {
        int some = n - first < T ? n - first : T;
        run_products<PART, 0>(p, st, out, row0, blockIdx.y, pairs + first, some);
        __syncthreads();
        finish<PART>(p, row0, pairs + first, some, out);
        __syncthreads();
    }
}

static_assert(sizeof(stage) + (MAX_ROWS + 3) / 4 * 16 + most_products() * T * LD * 4 <= SHARED_BYTES, "as the host counts");

extern "C" __global__ void __launch_bounds__(TN_K_THREADS, 2) experts(const __grid_constant__ tn_k_args p) {
    extern __shared__ __align__(16) char smem[];
    stage *st = (stage *)smem;
    int *pairs = (int *)(smem + sizeof(stage));
    let_next_start();
    wait_for_last();
    int n = list_pairs(p, blockIdx.y, pairs);
    run_part<0>(p, st, (float *)(pairs + (MAX_ROWS + 3) / 4 * 4), pairs, n);
}
