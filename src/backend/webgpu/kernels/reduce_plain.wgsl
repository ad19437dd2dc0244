// A tree over each team of ${TEAM} invocations; all of the workgroup take part.
fn sum_${TEAM}(v: f32) -> f32 {
    workgroupBarrier();
    red[tid] = v;
    workgroupBarrier();
    for (var s = ${TEAM}u / 2u; s > 0u; s >>= 1u) {
        if ((tid & (${TEAM}u - 1u)) < s) { red[tid] += red[tid + s]; }
        workgroupBarrier();
    }
    return red[tid & ~(${TEAM}u - 1u)];
}
fn max_${TEAM}(v: f32) -> f32 {
    workgroupBarrier();
    red[tid] = v;
    workgroupBarrier();
    for (var s = ${TEAM}u / 2u; s > 0u; s >>= 1u) {
        if ((tid & (${TEAM}u - 1u)) < s) { red[tid] = max(red[tid], red[tid + s]); }
        workgroupBarrier();
    }
    return red[tid & ~(${TEAM}u - 1u)];
}
