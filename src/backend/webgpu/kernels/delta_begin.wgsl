    // ---- a head of a run, token by token. A column of the state belongs to ${GROUPS} invocations, each has every ${GROUPS}th row
    let head = group.x;
    let k_head = head % ${K_HEADS}u;
    let row0 = group.y;
    if (row0 >= n_rows) { return; }
    if (row0 > 0u && step[${END}u + row0 - 1u] != row0) { return; }
    let end = step[${END}u + row0];
    let fresh = step[${POS}u + row0] == 0u;
    let base = (step[${SEQ}u + row0] * ${HEADS}u + head) * ${SIZE}u;
    let unit = tid % ${TEAM}u;
    let i0 = tid / ${TEAM}u;
    ${DECLARE}
    for (var r = 0u; r < ${ROWS}u; r++) {
        let i = i0 + r * ${GROUPS}u;
        ${GUARD} { ${BEGIN} }
    }
