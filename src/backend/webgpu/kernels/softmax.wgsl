    var m${ID} = -3.0e38;
    for (var c = tid * VEC; c < ${N}u; c += WG * VEC) { m${ID} = max(m${ID}, largest(${X})); }
    let m = max_${WG}(m${ID});
    var s${ID} = 0.0;
    for (var c = tid * VEC; c < ${N}u; c += WG * VEC) { s${ID} += total(exp(${X} - V(m))); }
    let f = 1.0 / sum_${WG}(s${ID});
    for (var c = tid * VEC; c < ${N}u; c += WG * VEC) {
        let y = exp(${X} - V(m)) * f;
        ${STORE}
    }
