        workgroupBarrier();
        for (var o = tid; o < ${N}u * ${V_UNITS}u; o += WG) {
            let n = o / ${V_UNITS}u;
            let u = o % ${V_UNITS}u;
            let h = h0 + (${FIRST}u + n) / ${VECS}u;
            var y = vec4<f32>();
            var all = 0.0;
            for (var t = 0u; t < ${TEAMS}u; t++) {
                y += score[n * WG + t * ${TEAM}u + u];
                all += weights[t][h - h0];
            }
            if (n_splits == 1u) { y /= all; }
            if (h < ${GROUP}u) {
                let c = h * ${V_DIM}u + (u * ${VECS}u + (${FIRST}u + n) % ${VECS}u) * 4u;
                ${STORE}
            }
        }
