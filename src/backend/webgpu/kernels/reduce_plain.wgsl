// A tree over each team of ${TEAM} invocations; all of the workgroup take part.
fn sum${S}_${TEAM}(v: ${V}) -> ${V} {
    workgroupBarrier();
    red${S}[tid] = v;
    workgroupBarrier();
    for (var s = ${TEAM}u / 2u; s > 0u; s >>= 1u) {
        if ((tid & (${TEAM}u - 1u)) < s) { red${S}[tid] += red${S}[tid + s]; }
        workgroupBarrier();
    }
    return red${S}[tid & ~(${TEAM}u - 1u)];
}
fn max${S}_${TEAM}(v: ${V}) -> ${V} {
    workgroupBarrier();
    red${S}[tid] = v;
    workgroupBarrier();
    for (var s = ${TEAM}u / 2u; s > 0u; s >>= 1u) {
        if ((tid & (${TEAM}u - 1u)) < s) { red${S}[tid] = max(red${S}[tid], red${S}[tid + s]); }
        workgroupBarrier();
    }
    return red${S}[tid & ~(${TEAM}u - 1u)];
}
