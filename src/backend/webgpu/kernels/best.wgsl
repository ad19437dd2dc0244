    // ---- the ${BEST} greatest of the numbers at ${BEGIN} .. ${END}, in order, of equal ones those at the lowest places. As integers of the
    // same order (0: none) they are chosen by the greatest limit that enough of them reach; of those at the limit, by how far
    // from the begin there are enough. Both are found bit by bit
    if (group.y >= n_rows) { return; }
    let row = group.y;
    var order: array<u32, ${OWN}>;
    for (var j = 0u; j < ${OWN}u; j++) {
        let i = ${BEGIN} + j * WG + tid;
        order[j] = 0u;
        if (i < ${END}) {
            let w = ${WORD};
            let x = select(select(w, 0xff800000u, (w & 0x7fffffffu) > 0x7f800000u), 0u, w == 0x80000000u);
            order[j] = select(select(x | 0x80000000u, ~x, x > 0x80000000u), 0u, ${NONE});
        }
    }
    if (tid == 0u) { atomicStore(&n_found, 0u); }
    var limit = 0u;
    for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
        var n = 0.0;
        for (var j = 0u; j < ${OWN}u; j++) { n += select(0.0, 1.0, order[j] >= (limit | bit)); }
        if (sum_${WG}(n) >= ${BEST}.0) { limit |= bit; }
    }
    var more = 0.0;
    for (var j = 0u; j < ${OWN}u; j++) { more += select(0.0, 1.0, order[j] > limit); }
    let missing = ${BEST}.0 - sum_${WG}(more);
    var far = 0u;
    for (var bit = ${FAR}u; bit > 0u; bit >>= 1u) {
        var n = 0.0;
        for (var j = 0u; j < ${OWN}u; j++) { n += select(0.0, 1.0, order[j] == limit && j * WG + tid < (far | bit)); }
        if (sum_${WG}(n) <= missing) { far |= bit; }
    }
    for (var j = 0u; j < ${OWN}u; j++) {
        let at = j * WG + tid;
        if (order[j] > limit || (limit > 0u && order[j] == limit && at < far)) {
            let k = atomicAdd(&n_found, 1u);
            found[k] = order[j];
            found_at[k] = at;
        }
    }
    workgroupBarrier();
    let n = atomicLoad(&n_found);
    if (tid < ${BEST}u) {
        var k = tid;
        var i = 0u;
        if (tid < n) {
            i = ${BEGIN} + found_at[tid];
            k = 0u;
            for (var j = 0u; j < n; j++) {
                k += select(0u, 1u, found[j] > found[tid] || (found[j] == found[tid] && found_at[j] < found_at[tid]));
            }
        }
        ${STORE}
    }
