/* The tables that say what a kernel does, filled in by the host: the ops of the launch, with all their constants, so that
 * every one is compiled for its shapes. Rows that are not there stay empty. */

/* An op on whole rows or heads. op; whether it must wait for those before it; columns of the result; operands: offset of the row in shared memory (floats), or
 * -1 - i: v[i]; columns of the second one where it repeats, else 0; where the result goes in shared memory, -1: nowhere;
 * v[] where it is stored, -1: nowhere; numbers of the op (rowops.cu) */
struct row_op {
    int op, wait, cols, a, b, period, dst, store, i0, i1, i2;
    double f0, f1, f2, f3, f4, f5;
};

/* An op on results, column by column. op; operands: value of the part (products first, then these ops in turn), or
 * -1 - i: v[i]; columns of the second one where it repeats (of a sum: experts), else 0; columns of the row; v[] where it is stored,
 * -1: nowhere; a number of the op; columns of an int8 row where a value holds several, else 0 */
struct after_op {
    int op, a, b, period, cols, store;
    double f;
    int width;
};

/* encoding of the weight; v[] where the result is stored, -1: nowhere; bytes from one expert's matrix to the next */
struct product {
    int traits, store;
    unsigned long long expert_bytes;
};

/* Products of one width and the ops on them, done by blocks [first_block, first_block + blocks) of the grid; experts that a token chose,
 * whose products stand side by side, 0: products of plain matrices. */
struct part {
    int cols, first_block, blocks, first_product, products, first_after, afters, experts;
};

#ifndef ROW_OPS
#define ROW_OPS
#define N_ROW_OPS 0
#endif
#ifndef IN_REGISTERS
#define IN_REGISTERS 0
#endif
#ifndef X_CODE
#define X_CODE -1
#endif
#ifndef AFTER_OPS
#define AFTER_OPS
#define N_AFTER_OPS 0
#endif
#ifndef PARTS
#define PARTS
#define PRODUCTS
#define N_PARTS 0
#endif

static __device__ constexpr row_op row_ops[N_ROW_OPS + 1] = {ROW_OPS};
static __device__ constexpr after_op after_ops[N_AFTER_OPS + 1] = {AFTER_OPS};
static __device__ constexpr product products[TN_K_MAX_WEIGHTS] = {PRODUCTS};
static __device__ constexpr part parts[N_PARTS + 1] = {PARTS};

/* Of a part. */
static __device__ constexpr int most_products() {
    int most = 0;
    for (int i = 0; i < N_PARTS; i++) most = parts[i].products > most ? parts[i].products : most;
    return most;
}
