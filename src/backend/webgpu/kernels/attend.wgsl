    // ---- attention: softmax(scale q k^T) v over the positions that this token sees, tile by tile
    let pages_at = step[${PAGES_AT}u + row];
    workgroupBarrier();
    storageBarrier();
    for (var c = tid; c < ${GROUP}u * ${K_DIM}u; c += WG) { query[c >> 2u][c & 3u] = ${Q}; }
    for (var h0 = 0u; h0 < ${GROUP}u; h0 += ${HEADS}u) {
        var sums = array<array<vec4<f32>, ${VECS}>, ${HEADS}>();
        if (tid < ${HEADS}u) {
            top[tid] = -3.0e38;
            weight[tid] = 0.0;
        }
        for (var first = (seen / ${TILE}u + split) * ${TILE}u; first <= position; first += ${TILE}u * n_splits) {
            let page_a = step[pages_at + first / 64u];
            let page_b = step[pages_at + min(first / 64u + 1u, position / 64u)];
            let base_a = (page_a * ${N_KV}u + head) * ${SIZE}u;
            let base_b = (page_b * ${N_KV}u + head) * ${SIZE}u;
            workgroupBarrier();
            for (var i = tid; i < ${HEADS}u * ${TILE}u; i += WG) {
                let h = h0 + i / ${TILE}u;
                let p = first + i % ${TILE}u;
                var s = -3.0e38;
                if (p >= seen && p <= position && h < ${GROUP}u) {
                    let base = select(base_a, base_b, (p & 64u) != 0u);
                    var d = 0.0;
                    for (var u0 = 0u; u0 < ${K_UNITS}u; u0 += ${UNROLL}u) {
                        ${DOTS}
                    }
                    s = ${SCORE};
                }
                score[i] = s;
            }
            workgroupBarrier();
            let h = tid / ${TEAM}u;
            var m = -3.0e38;
            for (var p = tid % ${TEAM}u; p < ${TILE}u; p += ${TEAM}u) { m = max(m, score[h * ${TILE}u + p]); }
            let before = top[h];
            m = max(before, max_${TEAM}(m));
            var sum = 0.0;
            for (var p = tid % ${TEAM}u; p < ${TILE}u; p += ${TEAM}u) {
                let s = score[h * ${TILE}u + p];
                let e = select(exp(s - m), 0.0, s < -2.0e38);
                score[h * ${TILE}u + p] = e;
                sum += e;
            }
            sum = sum_${TEAM}(sum);
            workgroupBarrier();
            if (tid % ${TEAM}u == 0u) {
                let s = select(exp(before - m), 0.0, before < -2.0e38);
                shrink[h] = s;
                top[h] = m;
                weight[h] = weight[h] * s + sum;
            }
            workgroupBarrier();
            let unit = tid % ${V_TEAM}u;
            for (var k = 0u; k < ${HEADS}u; k++) {
                for (var j = 0u; j < ${VECS}u; j++) { sums[k][j] *= shrink[k]; }
            }
            let last = min(first + ${TILE}u, position + 1u);
            // four positions at a time, whose loads do not wait for each other
            for (var p0 = max(first, seen) + tid / ${V_TEAM}u; p0 < last && unit < ${V_UNITS}u; p0 += 4u * (WG / ${V_TEAM}u)) {
                ${VALUES}
            }
        }
        for (var k = 0u; k < ${HEADS}u; k++) {
            for (var j = 0u; j < ${VECS}u; j++) {
                workgroupBarrier();
                part[tid] = sums[k][j];
                workgroupBarrier();
                let h = h0 + k;
                if (tid < ${V_UNITS}u && h < ${GROUP}u) {
                    var y4 = vec4<f32>();
                    for (var i = tid; i < WG; i += ${V_TEAM}u) { y4 += part[i]; }
                    if (n_splits == 1u) { y4 /= weight[k]; }
                    for (var i = 0u; i < 4u; i++) {
                        let c = h * ${V_DIM}u + tid * ${V_DIMS}u + j * 4u + i;
                        let y = y4[i];
                        ${STORE}
                    }
                }
            }
        }
        workgroupBarrier();
    }
