        workgroupBarrier();
        storageBarrier();
        for (var i = tid; i < ${K_DIM}u; i += WG) {
            keys[i] = ${KEY};
            queries[i] = ${QUERY} * ${SCALE};
        }
        workgroupBarrier();
        {
            let decay = exp(${DECAY});
            var sum = V(0.0);
            for (var r = 0u; r < ${ROWS}u; r++) {
                let i = i0 + r * ${GROUPS}u;
                ${GUARD} {
                    let x = ${STATE} * decay;
                    ${STATE} = x;
                    sum += keys[i] * x;
                }
            }
            part[tid] = sum;
            workgroupBarrier();
            sum = part[unit];
            for (var g = 1u; g < ${GROUPS}u; g++) { sum += part[g * ${TEAM}u + unit]; }
            workgroupBarrier();
            let c = unit * VEC;
            var change = V(0.0);
            if (unit < ${UNITS}u) { change = ${BETA} * (${VALUE} - sum); }
            sum = V(0.0);
            for (var r = 0u; r < ${ROWS}u; r++) {
                let i = i0 + r * ${GROUPS}u;
                ${GUARD} {
                    let x = ${STATE} + keys[i] * change;
                    ${STATE} = x;
                    sum += queries[i] * x;
                }
            }
            part[tid] = sum;
            workgroupBarrier();
            if (tid < ${UNITS}u) {
                var y = part[tid];
                for (var g = 1u; g < ${GROUPS}u; g++) { y += part[g * ${TEAM}u + tid]; }
                ${STORE}
            }
        }
