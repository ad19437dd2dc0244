    // ---- the splits of a token's attention become one: each brought its largest score, its sum of weights, its weighted values
    for (var c = tid * 4u; c < ${GROUP}u * ${V_DIM}u; c += WG * 4u) {
        let at = split_at(row, head * ${GROUP}u + c / ${V_DIM}u, 0u);
        var m = -3.0e38;
        for (var s = 0u; s < n_splits; s++) { m = max(m, scratch[at + s * ${SIZE}u + ${V_DIM}u]); }
        var sum = 0.0;
        var y = vec4<f32>();
        for (var s = 0u; s < n_splits; s++) {
            let e = exp(scratch[at + s * ${SIZE}u + ${V_DIM}u] - m);
            let i = at + s * ${SIZE}u + c % ${V_DIM}u;
            sum += e * scratch[at + s * ${SIZE}u + ${V_DIM}u + 1u];
            y += e * vec4<f32>(scratch[i], scratch[i + 1u], scratch[i + 2u], scratch[i + 3u]);
        }
        y /= sum;
        ${STORE}
    }
