/* rows: ops that need nothing but a token's row. Block (r, part): row r, or one part of its columns where all ops are
 * element by element. The host gives ROW_OPS, N_ROW_OPS and COUNT (which of the step's counts the rows are). */
extern "C" __global__ void __launch_bounds__(TN_K_THREADS) rows(const __grid_constant__ tn_k_args p) {
    extern __shared__ __align__(16) float smem[];
    let_next_start();
    bool inside = (int)blockIdx.x < step_count(p, COUNT);
    wait_for_last();
    if (!inside) return;
    row_frame f = {smem, nullptr, (int)blockIdx.x, (int)blockIdx.y, (int)gridDim.y, true};
    run_row(p, f);
}
