    for (var g0 = 0u; g0 < ${GROUPS}u; g0 += WG / 16u) {
        let g = g0 + tid / 16u;
        var s = 0.0;
        if (g < ${GROUPS}u) {
            for (var j = tid % 16u * VEC; j < ${GROUP}u; j += 16u * VEC) {
                let c = g * ${GROUP}u + j;
                s += square(${X});
            }
        }
        s = sum_16(s);
        let f = ${FACTOR};
        if (g < ${GROUPS}u) {
            for (var j = tid % 16u * VEC; j < ${GROUP}u; j += 16u * VEC) {
                let c = g * ${GROUP}u + j;
                let y = ${X} * f;
                ${STORE}
            }
        }
    }
