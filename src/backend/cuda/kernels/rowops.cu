/* Ops that need a token's whole row or whole heads, each done by all threads of a block. Operands and results of a launch
 * lie in shared memory while it runs; what is used outside is stored too. */

/* Which row and columns a block works on. Shared memory holds `parts`-th parts of rows: part `part`. */
struct row_frame {
    float *smem;
    char *q8; /* where a quantized row goes that stays in the launch */
    int row, part, parts;
    bool store; /* whether this block is the one that stores */
};

template <int CODE> DEV const float *row_source(const tn_k_args &p, const row_frame &f, int first) {
    if constexpr (CODE >= 0) return f.smem + CODE - first;
    else return value_at<const float>(p, -1 - CODE, f.row);
}

template <int I> struct row_step {
    static constexpr row_op o = row_ops[I];

    DEV void put(const tn_k_args &p, const row_frame &f, int c, int first, float v) {
        if constexpr (o.dst >= 0) f.smem[o.dst + c - first] = v;
        if constexpr (o.store >= 0)
            if (f.store) value_at<float>(p, o.store, f.row)[c] = v;
    }

    DEV void run_element(const tn_k_args &p, const row_frame &f, int first, int end) {
        const float *a = row_source<o.a>(p, f, first);
        for (int c = first + threadIdx.x; c < end; c += TN_K_THREADS) {
            float y = 0;
            if constexpr (is_binary(o.op)) y = row_source<o.b>(p, f, first)[o.period ? c % o.period : c];
            put(p, f, c, first, element<o.op>(a[c], y, (float)o.f0));
        }
    }

    /* i0: elements normed together. Whole rows: thread t sums elements
     * 4 t .. 4 t + 3, then those 1024 further ..; heads: a warp each. */
    DEV void run_norm(const tn_k_args &p, const row_frame &f, int first, int end) {
        const float *a = row_source<o.a>(p, f, first);
        const bool rms = o.op == OP_RMS_NORM;
        if constexpr (o.i0 == o.cols) {
            float sum = 0;
#pragma unroll 1
            for (int c = 4 * threadIdx.x; c < o.cols; c += 4 * TN_K_THREADS)
#pragma unroll
                for (int k = 0; k < 4; k++)
                    if (o.cols % 4 == 0 || c + k < o.cols) sum = fmaf(a[c + k], a[c + k], sum);
            float factor = norm_factor(block_sum(sum), rms);
            for (int c = threadIdx.x; c < o.cols; c += TN_K_THREADS) put(p, f, c, first, a[c] * factor);
        } else {
            for (int h = first + threadIdx.x / 32 * o.i0; h < end; h += TN_K_WARPS * o.i0) {
                float sum = 0;
                for (int c = threadIdx.x % 32; c < o.i0; c += 32) sum = fmaf(a[h + c], a[h + c], sum);
                float factor = norm_factor(warp_sum(sum), rms);
                for (int c = threadIdx.x % 32; c < o.i0; c += 32) put(p, f, h + c, first, a[h + c] * factor);
            }
        }
    }
    DEV float norm_factor(float squares, bool rms) {
        float eps = (float)o.f0;
        return rms ? 1.0f / sqrtf(squares / (float)o.i0 + eps) : 1.0f / fmaxf(sqrtf(squares), eps);
    }

    DEV void run_softmax(const tn_k_args &p, const row_frame &f, int first) {
        const float *a = row_source<o.a>(p, f, first);
        float max = __int_as_float(0xff800000), sum = 0;
        for (int c = threadIdx.x; c < o.cols; c += TN_K_THREADS) max = fmaxf(max, a[c]);
        max = block_max(max);
        for (int c = threadIdx.x; c < o.cols; c += TN_K_THREADS) sum += expf(a[c] - max);
        float factor = 1.0f / block_sum(sum);
        for (int c = threadIdx.x; c < o.cols; c += TN_K_THREADS) put(p, f, c, first, expf(a[c] - max) * factor);
    }

    /* The largest first, of equal ones the lower index; i0: columns of the source, i1: whether the weights sum to one, i2: v[] where
     * the indices are stored, -1: nowhere; b: a factor for each column, 0: none. By the first warp. */
    DEV void run_top_k(const tn_k_args &p, const row_frame &f) {
        constexpr int EACH = (o.i0 + 31) / 32, KEPT = (o.cols + 31) / 32, NONE = 0x7fffffff;
        const float *a = row_source<o.a>(p, f, 0);
        int lane = threadIdx.x, chosen[KEPT];
        if (lane >= 32) return;
        u32 left[EACH]; /* 0: taken, or not there */
        float weight[KEPT], sum = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) left[i] = 32 * i + lane < o.i0 ? ordered(a[32 * i + lane]) : 0;
#pragma unroll 1
        for (int k = 0; k < o.cols; k++) {
            u32 most = left[0];
            int at = NONE;
#pragma unroll
            for (int i = 1; i < EACH; i++) most = left[i] > most ? left[i] : most;
            most = __reduce_max_sync(~0u, most);
#pragma unroll
            for (int i = EACH - 1; i >= 0; i--) at = left[i] == most ? 32 * i + lane : at;
            at = (int)__reduce_min_sync(~0u, (u32)at);
#pragma unroll
            for (int i = 0; i < EACH; i++) left[i] = at == 32 * i + lane ? 0 : left[i];
            float best = a[at];
            sum += best;
#pragma unroll
            for (int j = 0; j < KEPT; j++)
                if (k == 32 * j + lane) weight[j] = best, chosen[j] = at;
        }
#pragma unroll
        for (int j = 0; j < KEPT; j++) {
            int k = 32 * j + lane;
            if (k >= o.cols) continue;
            float w = o.i1 ? weight[j] / sum : weight[j];
            if constexpr (o.b != 0) w *= row_source<o.b>(p, f, 0)[chosen[j]];
            put(p, f, k, 0, w);
            if constexpr (o.i2 >= 0)
                if (f.store) value_at<int>(p, o.i2, f.row)[k] = chosen[j];
        }
    }

    /* i0: experts of a token; b: their weights */
    DEV void run_expert_sum(const tn_k_args &p, const row_frame &f, int first, int end) {
        const float *a = row_source<o.a>(p, f, 0), *w = row_source<o.b>(p, f, 0);
        for (int c = first + threadIdx.x; c < end; c += TN_K_THREADS) put(p, f, c, first, sum_column<o.i0, o.cols>(a + c, w));
    }

    DEV void run_quantize(const tn_k_args &p, const row_frame &f, int first, int end) {
        const float *a = row_source<o.a>(p, f, first);
        for (int c = first + threadIdx.x; c < end; c += TN_K_THREADS) /* whole blocks: a warp is inside or not */
            put_quantized(p, f, c, quantize_lane(a[c]));
    }
    DEV void put_four(const tn_k_args &p, const row_frame &f, int c, const q8_four &e) {
        if (o.dst >= 0) put_q8_four(f.q8, o.cols, c, e);
        if constexpr (o.store >= 0)
            if (f.store) put_q8_four(value_at<char>(p, o.store, f.row), o.cols, c, e);
    }
    /* i0: columns of an int8 row where the value holds several */
    DEV void put_quantized(const tn_k_args &p, const row_frame &f, int c, q8_element e) {
        constexpr int width = o.i0 ? o.i0 : o.cols;
        if (o.dst >= 0) put_q8(f.q8, o.cols, c, e);
        if constexpr (o.store >= 0)
            if (f.store) put_q8(q8_row<width>(value_at<char>(p, o.store, f.row), c), width, c % width, e);
    }

    /* i0: head size, i1: elements rotated, i2: pairs (i, i + i1 / 2) instead of (2 i, 2 i + 1) */
    DEV void run_rope(const tn_k_args &p, const row_frame &f, int first, int end) {
        const float *a = row_source<o.a>(p, f, first), *table = row_source<o.b>(p, f, 0);
#pragma unroll 1
        for (int c = first + threadIdx.x; c < end; c += TN_K_THREADS) {
            int j = (c - first) % o.i0;
            if (j >= o.i1) {
                put(p, f, c, first, a[c]);
                continue;
            }
            int pair = o.i2 ? j % (o.i1 / 2) : j / 2;
            bool second = o.i2 ? j >= o.i1 / 2 : j % 2;
            int apart = o.i2 ? o.i1 / 2 : 1;
            float cosine = table[2 * pair], sine = table[2 * pair + 1];
            float x = second ? a[c - apart] : a[c], y = second ? a[c] : a[c + apart];
            put(p, f, c, first, second ? fmaf(x, sine, y * cosine) : fmaf(x, cosine, -(y * sine)));
        }
    }

    /* i0: rotated elements, i1: original context; f: base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow */
    DEV void run_rope_table(const tn_k_args &p, const row_frame &f) {
        int position = ((const int *)p.step.pos)[f.row];
        double attn = o.f3, low = 0, high = 0;
        if constexpr (o.f2 != 0) { /* YaRN: pairs between `low` and `high` share the two frequencies */
            const double pi = 3.14159265358979323846;
            low = fmax(floor(o.i0 * log(o.i1 / (o.f4 * 2 * pi)) / (2 * log(o.f0))), 0.0);
            high = fmin(ceil(o.i0 * log(o.i1 / (o.f5 * 2 * pi)) / (2 * log(o.f0))), o.i0 - 1.0);
            attn *= 1 + 0.1 * log(1 / o.f1);
        }
        for (int i = threadIdx.x; i < o.i0 / 2; i += TN_K_THREADS) {
            double factor = 1;
            if constexpr (o.a < 0 && o.i2) factor = (double)row_source<o.a>(p, f, 0)[i];
            double frequency = pow((double)o.f0, -2.0 * i / o.i0) / factor, share = 0;
            if constexpr (o.f2 != 0) share = (1 - fmin(fmax((i - low) / fmax(high - low, 0.001), 0.0), 1.0)) * o.f2;
            double angle = position * frequency * (o.f1 * (1 - share) + share);
            put(p, f, 2 * i, 0, (float)(cos(angle) * attn));
            put(p, f, 2 * i + 1, 0, (float)(sin(angle) * attn));
        }
    }

    /* i0: encoding, i1: in w */
    DEV void run_embed(const tn_k_args &p, const row_frame &f) {
        constexpr int NB = (o.cols + 31) / 32;
        int id = ((const int *)p.step.ids)[f.row];
        if (id < 0) id = ((const int *)p.step.chosen)[f.row];
        for (int b = threadIdx.x; b < NB; b += TN_K_THREADS) {
            raw<o.i0> q[1];
            float y[32];
            load_rows<o.i0, 1, NB>(q, p.w[o.i1], id, b);
            decode(q[0], y);
#pragma unroll
            for (int i = 0; i < 32; i++)
                if (32 * b + i < o.cols) put(p, f, 32 * b + i, 0, y[i]);
        }
    }

    DEV void run_select(const tn_k_args &p, const row_frame &f) {
        const float *a = value_at<const float>(p, -1 - o.a, ((const int *)p.step.outputs)[f.row]);
        for (int c = threadIdx.x; c < o.cols; c += TN_K_THREADS) put(p, f, c, 0, a[c]);
    }

    /* columns are of k, a; b: v */
    DEV void run_kv_write(const tn_k_args &p, const row_frame &f, int first, int end) {
        if (!f.store) return;
        int v_first = first / KV_K_DIM * KV_V_DIM;
        const float *k = row_source<o.a>(p, f, first), *v = row_source<o.b>(p, f, v_first);
        cache_write(p, f.row, first / KV_K_DIM, end / KV_K_DIM, k, v);
    }

    DEV void run(const tn_k_args &p, const row_frame &f) {
        int first = o.cols / f.parts * f.part, end = first + o.cols / f.parts;
        if (f.part == f.parts - 1) end = o.cols;
        if constexpr (is_element(o.op)) run_element(p, f, first, end);
        if constexpr (o.op == OP_RMS_NORM || o.op == OP_L2_NORM) run_norm(p, f, first, end);
        if constexpr (o.op == OP_SOFTMAX) run_softmax(p, f, first);
        if constexpr (o.op == OP_QUANTIZE) run_quantize(p, f, first, end);
        if constexpr (o.op == OP_TOP_K) run_top_k(p, f);
        if constexpr (o.op == OP_EXPERT_SUM) run_expert_sum(p, f, first, end);
        if constexpr (o.op == OP_ROPE) run_rope(p, f, first, end);
        if constexpr (o.op == OP_ROPE_TABLE) run_rope_table(p, f);
        if constexpr (o.op == OP_EMBED) run_embed(p, f);
        if constexpr (o.op == OP_SELECT_ROWS) run_select(p, f);
        if constexpr (o.op == OP_KV_WRITE) run_kv_write(p, f, first, end);
    }
};

/* ---- a whole row in registers ---- */

/* Where every op works on its own columns, but for the sums of norms (the host says so: IN_REGISTERS), a thread keeps its columns
 * of every value, fours TN_K_THREADS apart, and all that comes from outside is on its way at once. Each op gives the same bits
 * as by itself. */
constexpr int ROW_FOURS = IN_REGISTERS ? (row_ops[0].cols / 4 + TN_K_THREADS - 1) / TN_K_THREADS : 1;

struct row_registers {
    float4 in[N_ROW_OPS + 1][2][ROW_FOURS], out[N_ROW_OPS + 1][ROW_FOURS];
};

/* The last op before the I-th whose result has this place in shared memory. */
DEV constexpr int made_by(int i, int place) {
    for (int j = i - 1; j >= 0; j--)
        if (row_ops[j].dst == place && row_ops[j].op != OP_QUANTIZE) return j;
    return -1;
}

template <int CODE> DEV float4 four_from(const tn_k_args &p, const row_frame &f, int four) {
    return ((const float4 *)row_source<CODE>(p, f, 0))[four];
}

template <int I> DEV float4 sum_of_experts(const tn_k_args &p, const row_frame &f, int four) {
    constexpr row_op o = row_ops[I];
    const float4 *a = (const float4 *)row_source<o.a>(p, f, 0) + four;
    const float *w = row_source<o.b>(p, f, 0);
    float4 y = a[0], sum = make_float4(w[0] * y.x, w[0] * y.y, w[0] * y.z, w[0] * y.w);
#pragma unroll
    for (int k = 1; k < o.i0; k++) {
        y = a[k * (o.cols / 4)];
        sum = make_float4(fmaf(w[k], y.x, sum.x), fmaf(w[k], y.y, sum.y), fmaf(w[k], y.z, sum.z), fmaf(w[k], y.w, sum.w));
    }
    return sum;
}

template <int I> DEV void load_operands(const tn_k_args &p, const row_frame &f, row_registers &r) {
    if constexpr (I < N_ROW_OPS) {
        constexpr row_op o = row_ops[I];
#pragma unroll
        for (int j = 0; j < ROW_FOURS; j++) {
            int four = threadIdx.x + j * TN_K_THREADS;
            bool inside = o.cols % (4 * TN_K_THREADS) == 0 || 4 * four < o.cols;
            r.in[I][0][j] = r.in[I][1][j] = make_float4(0, 0, 0, 0);
            if constexpr (o.op == OP_EXPERT_SUM) {
                if (inside) r.in[I][0][j] = sum_of_experts<I>(p, f, four);
            } else if constexpr (o.a < 0) {
                if (inside) r.in[I][0][j] = four_from<o.a>(p, f, four);
            }
            if constexpr (is_binary(o.op) && o.b < 0 && o.period == 1) {
                float y = row_source<o.b>(p, f, 0)[0];
                r.in[I][1][j] = make_float4(y, y, y, y);
            } else if constexpr (is_binary(o.op) && o.b < 0) {
                if (inside) r.in[I][1][j] = four_from<o.b>(p, f, four);
            }
        }
        load_operands<I + 1>(p, f, r);
    }
}

/* Op I of a thread's columns: its operands are in r. */
template <int I> DEV void run_on_registers(const row_frame &f, row_registers &r) {
    constexpr row_op o = row_ops[I];
    const float4 *a = o.a < 0 || o.op == OP_EXPERT_SUM ? r.in[I][0] : r.out[made_by(I, o.a)];
    const float4 *b = o.b < 0 || !is_binary(o.op) ? r.in[I][1] : r.out[made_by(I, o.b)];
    float factor = (float)o.f0;
    if constexpr (o.op == OP_RMS_NORM) {
        float sum = 0;
#pragma unroll
        for (int j = 0; j < ROW_FOURS; j++) {
            sum = fmaf(a[j].x, a[j].x, sum);
            sum = fmaf(a[j].y, a[j].y, sum);
            sum = fmaf(a[j].z, a[j].z, sum);
            sum = fmaf(a[j].w, a[j].w, sum);
        }
        factor = row_step<I>::norm_factor(block_sum(sum), true);
    }
#pragma unroll
    for (int j = 0; j < ROW_FOURS; j++) {
        if constexpr (o.op == OP_RMS_NORM)
            r.out[I][j] = make_float4(a[j].x * factor, a[j].y * factor, a[j].z * factor, a[j].w * factor);
        else if constexpr (o.op == OP_EXPERT_SUM)
            r.out[I][j] = a[j];
        else
            r.out[I][j] = make_float4(element<o.op>(a[j].x, b[j].x, factor), element<o.op>(a[j].y, b[j].y, factor),
                                      element<o.op>(a[j].z, b[j].z, factor), element<o.op>(a[j].w, b[j].w, factor));
    }
}

template <int I> DEV void run_registers(const tn_k_args &p, const row_frame &f, row_registers &r) {
    if constexpr (I < N_ROW_OPS) {
        constexpr row_op o = row_ops[I];
        if constexpr (o.op != OP_QUANTIZE) run_on_registers<I>(f, r);
#pragma unroll
        for (int j = 0; j < ROW_FOURS; j++) {
            int four = threadIdx.x + j * TN_K_THREADS;
            bool inside = o.cols % (4 * TN_K_THREADS) == 0 || 4 * four < o.cols;
            if constexpr (o.op == OP_QUANTIZE) {
                float4 x = o.a < 0 ? r.in[I][0][j] : r.out[made_by(I, o.a)][j];
                q8_four e = quantize_four((const float *)&x);
                if (inside) row_step<I>::put_four(p, f, 4 * four, e);
            } else {
                if constexpr (o.store >= 0)
                    if (inside && f.store) ((float4 *)value_at<float>(p, o.store, f.row))[four] = r.out[I][j];
                if constexpr (o.dst >= 0 && X_CODE >= 0 && made_by(N_ROW_OPS, X_CODE) == I) /* the products read it */
                    if (inside) ((float4 *)(f.smem + o.dst))[four] = r.out[I][j];
            }
        }
        run_registers<I + 1>(p, f, r);
    }
}

/* The launch's ops, from the I-th to the one before END. */
template <int I, int END = N_ROW_OPS> DEV void run_row_ops(const tn_k_args &p, const row_frame &f) {
    if constexpr (I < END) {
        if constexpr (row_ops[I].wait) __syncthreads();
        row_step<I>::run(p, f);
        run_row_ops<I + 1, END>(p, f);
    } else if constexpr (END > 0) {
        __syncthreads();
    }
}

/* All of them on a row. */
DEV void run_row(const tn_k_args &p, const row_frame &f) {
    if constexpr (IN_REGISTERS) {
        row_registers r;
        load_operands<0>(p, f, r);
        run_registers<0>(p, f, r);
        __syncthreads();
    } else {
        run_row_ops<0>(p, f);
    }
}
