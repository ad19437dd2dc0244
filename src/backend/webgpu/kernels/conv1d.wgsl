    // ---- conv1d. The first tokens of a run read the state: one workgroup does them all and then replaces it
    let c = group.x * WG + tid;
    let row0 = group.y;
    if (row0 >= n_rows) { return; }
    let end = step[${END}u + row0];
    let begins = row0 == 0u || step[${END}u + row0 - 1u] == row0;
    if (!begins && (row0 < ${BACK}u || step[${END}u + row0 - ${BACK}u] != end)) { return; }
    let stop = select(row0 + 1u, min(end, row0 + ${BACK}u), begins);
    let base = step[${SEQ}u + row0] * ${SIZE}u;
    let fresh = step[${POS}u + row0] == 0u;
    if (c >= ${N}u) { return; }
    for (var row = row0; row < stop; row++) {
        var y = 0.0;
        for (var j = 0u; j <= ${BACK}u; j++) {
            let at = row + j;
            var x = 0.0;
            if (!begins || at >= row0 + ${BACK}u) {
                x = conv_x(c, at - ${BACK}u);
            } else if (!fresh) {
                x = kv[base + (at - row0) * ${N}u + c];
            }
            y = fma(${TAP}, x, y);
        }
        ${OPS}
    }
    if (begins) {
        for (var j = 0u; j < ${BACK}u; j++) {
            let at = end - row0 + j;
            var x = 0.0;
            if (at >= ${BACK}u) {
                x = conv_x(c, row0 + at - ${BACK}u);
            } else if (!fresh) {
                x = kv[base + at * ${N}u + c];
            }
            kv[base + j * ${N}u + c] = x;
        }
    }
