    // the (token, slot) pairs that chose this expert; no result depends on their order
    if (tid == 0u) { atomicStore(&found, 0u); }
    workgroupBarrier();
    for (var i = tid; i < n_rows * ${USED}u; i += WG) {
        if (aru(${IDS} + i / ${USED}u * ${WORDS}u + ${FIRST}u + i % ${USED}u) == group.y) {
            let at = atomicAdd(&found, 1u);
            if (at < ${MOST}u) { pairs[at] = i; }
        }
    }
    workgroupBarrier();
    if (tid == 0u) { n_pairs = min(atomicLoad(&found), ${MOST}u); }
    let count = workgroupUniformLoad(&n_pairs);
    for (var t0 = 0u; t0 < count; t0 += 32u) {
