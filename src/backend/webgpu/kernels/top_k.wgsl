    {
    // the largest in turn, the lower index first among equals; invocation k keeps the k-th
    for (var c = tid; c < ${N}u; c += WG) { pool[c] = ${X}; }
    workgroupBarrier();
    var mine = 0u;
    var value = 0.0;
    var sum = 0.0;
    for (var k = 0u; k < ${K}u; k++) {
        var best = -3.4e38;
        var at = 16777216.0;
        for (var c = tid; c < ${N}u; c += WG) {
            if (pool[c] > best) {
                best = pool[c];
                at = f32(c);
            }
        }
        let top = max_${WG}(best);
        let id = min(u32(-max_${WG}(select(-16777216.0, -at, best == top))), ${N}u - 1u);
        sum += top;
        if (tid == k) {
            mine = id;
            value = top;
        }
        if (tid == 0u) { pool[id] = -3.4e38; }
        workgroupBarrier();
    }
    if (tid < ${K}u) {
        let y = value / ${TOTAL} * ${SCALE};
        ${STORE}
    }
    }
