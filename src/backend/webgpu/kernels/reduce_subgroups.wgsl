// Inside subgroups (of ${SUBGROUP}) by exchange, between those of a team of ${TEAM} through the workgroup's memory.
fn sum${S}_${TEAM}(v: ${V}) -> ${V} {
    var x = v;
    for (var s = ${INSIDE}u / 2u; s > 0u; s >>= 1u) { x += subgroupShuffleXor(x, s); }
    if (${TEAM}u > ${SUBGROUP}u) {
        workgroupBarrier();
        if ((tid & (${SUBGROUP}u - 1u)) == 0u) { red${S}[tid / ${SUBGROUP}u] = x; }
        workgroupBarrier();
        let first = (tid & ~(${TEAM}u - 1u)) / ${SUBGROUP}u;
        x = red${S}[first];
        for (var k = 1u; k < ${TEAM}u / ${SUBGROUP}u; k++) { x += red${S}[first + k]; }
    }
    return x;
}
fn max${S}_${TEAM}(v: ${V}) -> ${V} {
    var x = v;
    for (var s = ${INSIDE}u / 2u; s > 0u; s >>= 1u) { x = max(x, subgroupShuffleXor(x, s)); }
    if (${TEAM}u > ${SUBGROUP}u) {
        workgroupBarrier();
        if ((tid & (${SUBGROUP}u - 1u)) == 0u) { red${S}[tid / ${SUBGROUP}u] = x; }
        workgroupBarrier();
        let first = (tid & ~(${TEAM}u - 1u)) / ${SUBGROUP}u;
        x = red${S}[first];
        for (var k = 1u; k < ${TEAM}u / ${SUBGROUP}u; k++) { x = max(x, red${S}[first + k]); }
    }
    return x;
}
