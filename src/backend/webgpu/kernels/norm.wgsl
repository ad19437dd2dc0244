    var s${ID} = 0.0;
    for (var c = tid * VEC; c < ${N}u; c += WG * VEC) { s${ID} += square(${X}); }
    s${ID} = sum_${WG}(s${ID});
    let f${ID} = ${FACTOR};
