    var s${ID} = 0.0;
    for (var c = tid * VEC; c < ${N}u; c += WG * VEC) { s${ID} += square(${X}); }
    let f${ID} = inverseSqrt(sum_${WG}(s${ID}) / ${N}.0 + ${EPS});
