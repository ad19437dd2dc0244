/* scan: a recurrence along a sequence, with the ops on its channel or head. Block (columns, tokens or head, run): a run is the
 * tokens of one sequence. A state reads as zero where the run begins at position 0.
 * The host gives CORE (OP_CONV1D or OP_GATED_DELTA_NET), ONE_TOKEN (every run has one), CHUNK (tokens worked on at once), CORE_STORE;
 * the rest below. */

struct run {
    int first, n, seq, pos;
};

/* Run i: token i where every run has one, else the tokens of sequence i. */
DEV run run_of(const tn_k_args &p, int i) {
    const int *seq = (const int *)p.step.seq, *pos = (const int *)p.step.pos;
    int n = step_count(p, 0);
    if (ONE_TOKEN) return i < n ? run{i, 1, seq[i], pos[i]} : run{0, 0, 0, 0};
    __shared__ int first, count;
    if (threadIdx.x == 0) first = n, count = 0;
    __syncthreads();
    for (int t = threadIdx.x; t < n; t += TN_K_THREADS)
        if (seq[t] == i) {
            atomicMin(&first, t);
            atomicAdd(&count, 1);
        }
    __syncthreads();
    return run{first, count, i, count ? pos[first] : 0};
}

#if CORE == OP_CONV1D

/* Block (256 channels, CHUNK tokens of the run): a channel a thread. Only the block of a run's first tokens touches the state: the
 * TAPS - 1 inputs before the run, channel by channel.
 * The host gives COLS, TAPS, INPUT, WEIGHTS (v[]), AFTER_OPS, N_AFTER_OPS. */
constexpr int BACK = TAPS - 1;

/* Input c of token t of the run; those before it are in the state. */
DEV float input(const tn_k_args &p, const run &r, const float *state, int t, int c) {
    if (t >= 0) return value_at<const float>(p, INPUT, r.first + t)[c];
    return r.pos == 0 ? 0 : state[(BACK + t) * COLS + c];
}

extern "C" __global__ void __launch_bounds__(TN_K_THREADS) scan(const __grid_constant__ tn_k_args p) {
    let_next_start();
    run r = run_of(p, blockIdx.z);
    int c = blockIdx.x * TN_K_THREADS + threadIdx.x, t0 = blockIdx.y * CHUNK;
    bool inside = c < COLS;
    float *state = (float *)p.cache + (u64)r.seq * BACK * COLS, w[TAPS], x[BACK + CHUNK];
    for (int j = 0; j < TAPS; j++) w[j] = inside ? value_at<const float>(p, WEIGHTS, 0)[c * TAPS + j] : 0;
    wait_for_last();
    if (t0 >= r.n) return;
#pragma unroll
    for (int j = 0; j < BACK + CHUNK; j++) x[j] = inside && t0 + j < BACK + r.n ? input(p, r, state, t0 + j - BACK, c) : 0;
#pragma unroll
    for (int t = 0; t < CHUNK; t++) {
        if (t0 + t >= r.n) break;
        float values[1 + N_AFTER_OPS] = {0};
#pragma unroll
        for (int j = 0; j < TAPS; j++) values[0] = fmaf(w[j], x[t + j], values[0]);
        int row = r.first + t0 + t;
        if (CORE_STORE >= 0 && inside) value_at<float>(p, CORE_STORE, row)[c] = values[0];
        run_after<0, 1, N_AFTER_OPS, 0>(p, values, row, c, inside);
    }
    if (t0 > 0 || !inside) return;
#pragma unroll
    for (int j = 0; j < BACK; j++) x[j] = input(p, r, state, r.n - BACK + j, c);
#pragma unroll
    for (int j = 0; j < BACK; j++) state[j * COLS + c] = x[j];
}

#else

/* Block (COLUMNS columns of v, head): its part of the head's state stays in registers along the run. A column is shared by SPLIT
 * neighbouring lanes, each with every SPLIT-th four of its rows; in memory [head][row / 4][column][row % 4].
 * The host gives HEADS, K_HEADS (head h of v goes with h % K_HEADS of k), K_DIM, V_DIM, COLUMNS, Q_CODE, K_CODE, V_CODE, G_CODE, B_CODE
 * (operands), ROW_OPS with N_BEFORE of them on q and k, the others on the result of the whole head; CORE_DST (offset of that in shared
 * memory, -1: nowhere), WORK_AT (offset of this kernel's own shared memory, floats), STAGE (floats of it a token). */
DEV constexpr int split() {
    int n = 1;
    while (n < 32 && 2 * n * COLUMNS <= TN_K_THREADS) n *= 2;
    return n;
}
constexpr int SPLIT = split(), FOURS = (K_DIM / 4 + SPLIT - 1) / SPLIT;
constexpr int AT_K = 0, AT_Q = K_DIM, AT_V = 2 * K_DIM, AT_DECAY = AT_V + COLUMNS, AT_BETA = AT_DECAY + 1;

/* The inputs of n tokens from `row` on to shared memory, all on their way at once. f: of the first. */
DEV void stage(const tn_k_args &p, row_frame f, int n, int head, int col0) {
    constexpr int EACH = 2 * K_DIM + COLUMNS, LOADS = (CHUNK * EACH + TN_K_THREADS - 1) / TN_K_THREADS;
    int k_at = head % K_HEADS * K_DIM, v_at = head * V_DIM + col0, row = f.row;
    float *to = f.smem + WORK_AT, x[LOADS];
#pragma unroll
    for (int j = 0; j < LOADS; j++) {
        int at = threadIdx.x + j * TN_K_THREADS, i = at % EACH;
        if (at >= n * EACH) continue;
        f.row = row + at / EACH;
        if (i < AT_Q) x[j] = row_source<K_CODE>(p, f, k_at)[k_at + i];
        else if (i < AT_V) x[j] = row_source<Q_CODE>(p, f, k_at)[k_at + i - AT_Q];
        else x[j] = row_source<V_CODE>(p, f, v_at)[v_at + i - AT_V];
    }
#pragma unroll
    for (int j = 0; j < LOADS; j++) {
        int at = threadIdx.x + j * TN_K_THREADS;
        if (at < n * EACH) to[at / EACH * STAGE + at % EACH] = x[j];
    }
    if ((int)threadIdx.x < n) {
        f.row = row + threadIdx.x;
        to[threadIdx.x * STAGE + AT_DECAY] = expf(row_source<G_CODE>(p, f, 0)[head]);
        to[threadIdx.x * STAGE + AT_BETA] = row_source<B_CODE>(p, f, 0)[head];
    }
}

DEV float over_column(float4 x) {
    float sum = (x.x + x.y) + (x.z + x.w);
#pragma unroll
    for (int i = SPLIT / 2; i > 0; i >>= 1) sum += __shfl_xor_sync(~0u, sum, i);
    return sum;
}

DEV float4 multiply_add(float4 a, float4 b, float4 c) {
    return make_float4(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y), fmaf(a.z, b.z, c.z), fmaf(a.w, b.w, c.w));
}

/* S = decay S; S += beta k (v - k^T S)^T; returns q^T S / sqrt(K_DIM), for the lane's column */
DEV float advance(float4 *s, const float *in, int column, int part) {
    const float4 *k = (const float4 *)(in + AT_K), *q = (const float4 *)(in + AT_Q);
    float decay = in[AT_DECAY];
    float4 zero = make_float4(0, 0, 0, 0), sum = zero;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        int at = i * SPLIT + part;
        s[i] = make_float4(s[i].x * decay, s[i].y * decay, s[i].z * decay, s[i].w * decay);
        if (4 * SPLIT * FOURS == K_DIM || at < K_DIM / 4) sum = multiply_add(k[at], s[i], sum);
    }
    float d = in[AT_BETA] * (in[AT_V + column] - over_column(sum));
    sum = zero;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        int at = i * SPLIT + part;
        if (4 * SPLIT * FOURS != K_DIM && at >= K_DIM / 4) continue;
        s[i] = multiply_add(k[at], make_float4(d, d, d, d), s[i]);
        sum = multiply_add(q[at], s[i], sum);
    }
    return over_column(sum) * (1.0f / sqrtf((float)K_DIM));
}

extern "C" __global__ void __launch_bounds__(TN_K_THREADS) scan(const __grid_constant__ tn_k_args p) {
    extern __shared__ __align__(16) float smem[];
    let_next_start();
    run r = run_of(p, blockIdx.z);
    int head = blockIdx.y, col0 = blockIdx.x * COLUMNS, part = threadIdx.x % SPLIT;
    bool works = (int)threadIdx.x < COLUMNS * SPLIT;
    int column = works ? threadIdx.x / SPLIT : 0;
    float4 s[FOURS], *state = (float4 *)p.cache + ((u64)r.seq * HEADS + head) * (K_DIM / 4 * V_DIM) + col0 + column;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        bool mine = i * SPLIT + part < K_DIM / 4 && r.pos > 0;
        s[i] = mine ? state[(i * SPLIT + part) * V_DIM] : make_float4(0, 0, 0, 0);
    }
    wait_for_last();
#pragma unroll 1
    for (int t0 = 0; t0 < r.n; t0 += CHUNK) {
        int n = r.n - t0 < CHUNK ? r.n - t0 : CHUNK;
        row_frame f = {smem, nullptr, r.first + t0, head % K_HEADS, K_HEADS, head < K_HEADS && blockIdx.x == 0};
        run_row_ops<0, N_BEFORE>(p, f); /* there are some only where CHUNK is 1 */
        stage(p, f, n, head, col0);
        __syncthreads();
#pragma unroll 1
        for (int t = 0; t < n; t++) {
            int row = r.first + t0 + t;
            float o = advance(s, smem + WORK_AT + t * STAGE, column, part);
            bool puts = works && part == 0;
            if (CORE_DST >= 0 && puts) smem[CORE_DST + column] = o;
            if (CORE_STORE >= 0 && puts) value_at<float>(p, CORE_STORE, row)[head * V_DIM + col0 + column] = o;
            row_frame f = {smem, nullptr, row, head, HEADS, true};
            if constexpr (N_ROW_OPS > N_BEFORE) run_row_ops<N_BEFORE>(p, f);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < FOURS; i++)
        if (works && r.n > 0 && i * SPLIT + part < K_DIM / 4) state[(i * SPLIT + part) * V_DIM] = s[i];
}

#endif
