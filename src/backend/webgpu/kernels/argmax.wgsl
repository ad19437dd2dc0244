    // ---- the largest of ${FROM} .. ${TO}: numbers as integers of the same order, so that what is no number is 0
    if (group.y >= n_rows) { return; }
    let row = group.y;
    let to = ${TO};
    var best = 0u;
    var at = 0u;
    for (var i = ${FROM} + tid; i < to; i += WG) {
        let w = ${X};
        let x = select(w, 0u, w == 0x80000000u);
        let order = select(select(x | 0x80000000u, ~x, x > 0x80000000u), 0u, (x & 0x7fffffffu) > 0x7f800000u);
        if (order > best) {
            best = order;
            at = ${INDEX};
        }
    }
    if (tid == 0u) {
        atomicStore(&most, 0u);
        atomicStore(&first, 0xffffffffu);
    }
    workgroupBarrier();
    atomicMax(&most, best);
    workgroupBarrier();
    let top = atomicLoad(&most);
    if (best == top) { atomicMin(&first, at); }
    workgroupBarrier();
    if (tid == 0u) {
        let index = atomicLoad(&first);
        let word = select(select(~top, top & 0x7fffffffu, (top & 0x80000000u) != 0u), 0u, top == 0u);
        ${STORE}
    }
