    // ---- the splits of a token's attention become one: each brought its largest score, its sum of weights, its weighted values
    for (var c = tid; c < ${GROUP}u * ${V_DIM}u; c += WG) {
        let at = split_at(row, head * ${GROUP}u + c / ${V_DIM}u, 0u);
        var m = -3.0e38;
        for (var s = 0u; s < n_splits; s++) { m = max(m, scratch[at + s * ${SIZE}u + ${V_DIM}u]); }
        var sum = 0.0;
        var y = 0.0;
        for (var s = 0u; s < n_splits; s++) {
            let e = exp(scratch[at + s * ${SIZE}u + ${V_DIM}u] - m);
            sum += e * scratch[at + s * ${SIZE}u + ${V_DIM}u + 1u];
            y += e * scratch[at + s * ${SIZE}u + c % ${V_DIM}u];
        }
        y /= sum;
        ${STORE}
    }
