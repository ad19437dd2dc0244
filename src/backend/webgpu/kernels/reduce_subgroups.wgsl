// Inside subgroups (of ${SUBGROUP}) by exchange, between those of a team of ${TEAM} through the workgroup's memory.
fn sum_${TEAM}(v: f32) -> f32 {
    var x = v;
    for (var s = ${INSIDE}u / 2u; s > 0u; s >>= 1u) { x += subgroupShuffleXor(x, s); }
    if (${TEAM}u > ${SUBGROUP}u) {
        workgroupBarrier();
        if ((tid & (${SUBGROUP}u - 1u)) == 0u) { red[tid / ${SUBGROUP}u] = x; }
        workgroupBarrier();
        let first = (tid & ~(${TEAM}u - 1u)) / ${SUBGROUP}u;
        x = red[first];
        for (var k = 1u; k < ${TEAM}u / ${SUBGROUP}u; k++) { x += red[first + k]; }
    }
    return x;
}
fn max_${TEAM}(v: f32) -> f32 {
    var x = v;
    for (var s = ${INSIDE}u / 2u; s > 0u; s >>= 1u) { x = max(x, subgroupShuffleXor(x, s)); }
    if (${TEAM}u > ${SUBGROUP}u) {
        workgroupBarrier();
        if ((tid & (${SUBGROUP}u - 1u)) == 0u) { red[tid / ${SUBGROUP}u] = x; }
        workgroupBarrier();
        let first = (tid & ~(${TEAM}u - 1u)) / ${SUBGROUP}u;
        x = red[first];
        for (var k = 1u; k < ${TEAM}u / ${SUBGROUP}u; k++) { x = max(x, red[first + k]); }
    }
    return x;
}
