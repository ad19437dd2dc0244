/* What all kernels share: loads, sums in a fixed order, functions of one element, the int8 blocks.
 * No contraction (the host compiles with --fmad=false): a value has the same bits in whatever launch it is computed; where
 * a fused multiply-add is meant, it is written. */
typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEV     static __device__ __forceinline__
#define NOTHING __int_as_float(0xff800000) /* -inf: what a maximum begins with */

/* ---- the chain of launches (programmatic dependent launch) ---- */

/* The next launch may be made resident. */
DEV void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* The launch before has ended and what it wrote is seen. Before, only weights, the step's inputs and older positions of the
 * cache may be read. */
DEV void wait_for_last() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* ---- loads of weights: read once, kept out of L1 ---- */

template <int WORDS> DEV void load_words(u32 *to, u64 from) {
    if constexpr (WORDS == 1) {
        asm("ld.global.nc.L1::no_allocate.b32 %0, [%1];" : "=r"(to[0]) : "l"(from));
    } else if constexpr (WORDS == 2) {
        asm("ld.global.nc.L1::no_allocate.v2.b32 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "l"(from));
    } else {
        static_assert(WORDS % 4 == 0, "words");
#pragma unroll
        for (int i = 0; i < WORDS; i += 4)
            asm("ld.global.nc.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4];"
                : "=r"(to[i]), "=r"(to[i + 1]), "=r"(to[i + 2]), "=r"(to[i + 3])
                : "l"(from + i * 4));
    }
}

/* A stretch of memory (multiples of 16 bytes) on its way to L2; all threads of a block come here. */
DEV void prefetch(u64 from, u32 bytes) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0 && bytes) asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#else
    for (u32 at = threadIdx.x * 128; at < bytes; at += TN_K_THREADS * 128) asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
#endif
}

/* To shared memory, past the registers; copies_done waits for all of them. */
template <int BYTES> DEV void copy_async(void *to, const void *from) {
    u32 at = (u32)__cvta_generic_to_shared(to);
    if constexpr (BYTES == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
    else asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(at), "l"(from) : "memory");
}
DEV void copies_done() {
    asm volatile("cp.async.wait_all;" ::: "memory");
}

DEV float from_half(u32 bits) {
    float f;
    asm("{.reg .b16 h; cvt.u16.u32 h, %1; cvt.f32.f16 %0, h;}" : "=f"(f) : "r"(bits));
    return f;
}

DEV u16 to_half(float f) {
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

/* ---- the tensor cores ---- */

/* Sums begin at a number whose float is 1.5 * 2^23: their bits are those of that float plus the sum. */
constexpr int MAGIC = 0x4b400000;
DEV float from_magic(int c) {
    return __int_as_float(c) - 12582912.0f;
}
/* Faster than the conversion. */
DEV float small(int i) {
    return from_magic(MAGIC + i);
}

/* d = c + a b for int8, 16 x 8 = 16 x 8 + 16 x 32 x 8; 16 x 16 x 8 */
DEV void mma_k32(int *d, const u32 *a, const u32 *b, const int *c) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}
DEV void mma_k16(int *d, u32 a0, u32 a1, u32 b, const int *c) {
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a0), "r"(a1), "r"(b), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}

/* Four 8 x 8 matrices of 16 bits (or 8 x 16 of 8) from shared memory: lanes 8 i .. 8 i + 7 point to the rows of the i-th. */
template <bool TURNED> DEV void load_matrices(u32 *r, const void *from) {
    u32 at = (u32)__cvta_generic_to_shared(from);
    if constexpr (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
}

/* c += a b for halves, 16 x 8 += 16 x 16 x 8 */
DEV void mma_halves(float *c, const u32 *a, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Two floats as halves, and as halves what is left of them. */
DEV void split_halves(float x, float y, u32 &high, u32 &low) {
    u16 a = to_half(x), b = to_half(y);
    high = a | (u32)b << 16;
    low = to_half(x - from_half(a)) | (u32)to_half(y - from_half(b)) << 16;
}

/* Whether this is the last of n blocks to have left something in `partial`, all its threads' writes before that of any block that
 * sees it; the counter begins anew. */
DEV bool leaves_last(u32 *counter, u32 n) {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(counter, 1) == n - 1;
        if (last) *counter = 0;
        __threadfence();
    }
    __syncthreads();
    return last;
}

/* ---- reductions: always 32 lanes in butterfly order, then warps in turn ---- */

DEV float warp_sum(float x) {
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) x += __shfl_xor_sync(~0u, x, i);
    return x;
}

DEV float warp_max(float x) {
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
    return x;
}

DEV float block_sum(float x) {
    __shared__ float part[TN_K_WARPS];
    x = warp_sum(x);
    __syncthreads(); /* the last use of `part` is over */
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
#pragma unroll
    for (int i = 0; i < TN_K_WARPS; i++) x += part[i];
    return x;
}

DEV float block_max(float x) {
    __shared__ float part[TN_K_WARPS];
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    x = part[0];
#pragma unroll
    for (int i = 1; i < TN_K_WARPS; i++) x = fmaxf(x, part[i]);
    return x;
}

/* Larger for a larger number, 1 for what is none; never 0. */
DEV u32 ordered(float x) {
    u32 bits = __float_as_uint(x + 0.0f); /* one zero */
    return x == x ? bits ^ ((u32)((int)bits >> 31) | 0x80000000) : 1;
}

/* ---- ops ---- */

/* The host gives each op's number as OP_NAME. */
DEV constexpr bool is_binary(int op) {
    return op == OP_ADD || op == OP_MUL;
}
DEV constexpr bool is_element(int op) {
    return is_binary(op) || op == OP_SCALE || op == OP_SOFTCAP || op == OP_SILU || op == OP_GELU || op == OP_GELU_QUICK ||
           op == OP_SIGMOID || op == OP_SOFTPLUS;
}

template <int OP> DEV float element(float x, float y, float f) {
    if constexpr (OP == OP_ADD) return x + y;
    if constexpr (OP == OP_MUL) return x * y;
    if constexpr (OP == OP_SCALE) return f * x;
    if constexpr (OP == OP_SOFTCAP) return f * tanhf(x / f);
    if constexpr (OP == OP_SILU) return x / (1.0f + expf(-x));
    if constexpr (OP == OP_GELU) return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    if constexpr (OP == OP_GELU_QUICK) return x / (1.0f + expf(-1.702f * x));
    if constexpr (OP == OP_SIGMOID) return 1.0f / (1.0f + expf(-x));
    if constexpr (OP == OP_SOFTPLUS) return x > 20.0f ? x : log1pf(expf(x));
    return 0;
}

/* A column's sum over the USED experts of a token, WIDTH columns each. */
template <int USED, int WIDTH> DEV float sum_column(const float *y, const float *w) {
    float sum = w[0] * y[0];
#pragma unroll
    for (int k = 1; k < USED; k++) sum = fmaf(w[k], y[k * WIDTH], sum);
    return sum;
}

/* ---- int8 blocks of 32: one element a lane ---- */

struct q8_element {
    i8 q;
    float d; /* of the block */
    int sum; /* of the half block */
};

/* q = round(x * (127 / max)), d = max / 127; magnitudes are compared as integers, so that a NaN is not lost. */
DEV q8_element quantize_lane(float x) {
    u32 top = __float_as_uint(x) & 0x7fffffff;
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) {
        u32 other = __shfl_xor_sync(~0u, top, i);
        top = other > top ? other : top;
    }
    float max = __uint_as_float(top);
    if (max < 0x1p-120f) max = 0;
    float inverse = max == 0 ? 0 : __fdiv_rn(127.0f, max);
    q8_element e;
    e.d = __fdiv_rn(max, 127.0f);
    e.q = (i8)(__float_as_uint(__fadd_rn(__fmul_rn(x, inverse), 0x1.8p23f)) & 0xff);
    e.sum = e.q;
#pragma unroll
    for (int i = 8; i > 0; i >>= 1) e.sum += __shfl_xor_sync(~0u, e.sum, i);
    return e;
}

/* Puts a lane's element into an int8 row of n elements, at column c. */
DEV void put_q8(char *row, int n, int c, q8_element e) {
    ((i8 *)row)[c] = e.q;
    if (c % 32 == 0) ((float *)(row + n))[c / 32] = e.d;
    if (c % 16 == 0) ((short *)(row + n + n / 8))[c / 16] = (short)e.sum;
}

/* The int8 row that column c lies in, where a value holds several of `width` columns each. */
template <int WIDTH> DEV char *q8_row(char *value, int c) {
    return value + c / WIDTH * (WIDTH / 32 * 40);
}

/* The same with four elements a lane, eight lanes a block. */
struct q8_four {
    u32 q;
    float d;
    int sum; /* of the half block */
};

DEV q8_four quantize_four(const float *x) {
    u32 top = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u32 magnitude = __float_as_uint(x[i]) & 0x7fffffff;
        top = magnitude > top ? magnitude : top;
    }
#pragma unroll
    for (int i = 4; i > 0; i >>= 1) {
        u32 other = __shfl_xor_sync(~0u, top, i);
        top = other > top ? other : top;
    }
    float max = __uint_as_float(top);
    if (max < 0x1p-120f) max = 0;
    float inverse = max == 0 ? 0 : __fdiv_rn(127.0f, max);
    q8_four e = {0, __fdiv_rn(max, 127.0f), 0};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u32 byte = __float_as_uint(__fadd_rn(__fmul_rn(x[i], inverse), 0x1.8p23f)) & 0xff;
        e.q |= byte << (8 * i);
        e.sum += (i8)byte;
    }
    e.sum += __shfl_xor_sync(~0u, e.sum, 2);
    e.sum += __shfl_xor_sync(~0u, e.sum, 1);
    return e;
}

DEV void put_q8_four(char *row, int n, int c, const q8_four &e) {
    *(u32 *)(row + c) = e.q;
    if (c % 32 == 0) ((float *)(row + n))[c / 32] = e.d;
    if (c % 16 == 0) ((short *)(row + n + n / 8))[c / 16] = (short)e.sum;
}

/* ---- operands in device memory ---- */

template <class T> DEV T *value_at(const tn_k_args &p, int i, int row) {
    return (T *)(p.v[i].p + (u64)((long long)row * p.v[i].stride));
}
DEV int step_count(const tn_k_args &p, int which) {
    return ((const int *)p.step.counts)[which];
}

/* ---- ops on results: one lane a column, in registers ---- */

/* Ops FIRST .. FIRST + N - 1 of after_ops, from the I-th on, behind FROM products: values has a register for each. Every lane
 * of a warp comes here; only those inside the row load and store. */
template <int FIRST, int FROM, int N, int I> DEV void run_after(const tn_k_args &p, float *values, int row, int col, bool inside) {
    if constexpr (I < N) {
        constexpr after_op o = after_ops[FIRST + I];
        constexpr int index = FROM + I;
        float x = 0, y = 0;
        if constexpr (o.op == OP_EXPERT_SUM) {
            const float *y = value_at<const float>(p, -1 - o.a, row) + (inside ? col : 0); /* without a branch: loads go with others */
            x = sum_column<o.period, o.cols>(y, value_at<const float>(p, -1 - o.b, row));
        } else if constexpr (o.a >= 0) x = values[o.a];
        else if (inside) x = value_at<float>(p, -1 - o.a, row)[col];
        if constexpr (is_binary(o.op)) {
            if constexpr (o.b >= 0) y = values[o.b];
            else if (inside) y = value_at<float>(p, -1 - o.b, row)[o.period ? col % o.period : col];
        }
        if constexpr (o.op == OP_QUANTIZE) {
            q8_element e = quantize_lane(x);
            constexpr int width = o.width ? o.width : o.cols;
            if (inside) put_q8(q8_row<width>(value_at<char>(p, o.store, row), col), width, col % width, e);
        } else {
            values[index] = o.op == OP_EXPERT_SUM ? x : element<o.op>(x, y, (float)o.f);
            if constexpr (o.store >= 0)
                if (inside) value_at<float>(p, o.store, row)[col] = values[index];
        }
        run_after<FIRST, FROM, N, I + 1>(p, values, row, col, inside);
    }
}
