    // ---- attention: softmax(scale q k^T) v over the positions that this token sees, ${TILE} at a time, while the next ones come.
    // First neighbours have a position, for ${HEADS} query heads, then an invocation has a unit of v's columns, for some positions.
    workgroupBarrier();
    ${SCALES}
    for (var h0 = 0u; h0 < ${GROUP}u; h0 += ${HEADS}u) {
        ${AGAIN}
        var largest = H(-3.0e38);
        var weight = H();
        ${SUMS}
        loop {
            let here = first;
            first += ${TILE}u * n_splits;
            let more = first <= position;
            if (more) { ${NEXT} }
            var d = H();
            ${DOTS}
            ${PARTS}
            let in_sight = here + place >= seen && here + place <= position;
            let s = select(H(-3.0e38), ${SCORE}, in_sight);
            let m = max(largest, maxh_${WG}(s));
            let shrink = select(exp(largest - m), H(), largest < H(-2.0e38));
            largest = m;
            if (part == 0u) { score[place] = spread(select(H(), exp(s - m), in_sight)); }
            workgroupBarrier();
            weight *= shrink;
            ${VALUES}
            if (!more) { break; }
            ${MOVE}
        }
        // what the invocations of a unit have becomes one
        if (unit == 0u) { weights[tid / ${TEAM}u] = spread(weight); }
        if (tid == 0u) { ${LARGEST} }
        ${RESULTS}
        workgroupBarrier();
    }
