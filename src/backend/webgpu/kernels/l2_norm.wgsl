    var s${ID} = 0.0;
    for (var c = tid * VEC; c < ${N}u; c += WG * VEC) { s${ID} += square(${X}); }
    let f${ID} = 1.0 / max(sqrt(sum_${WG}(s${ID})), ${EPS});
