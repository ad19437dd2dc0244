    let source = step[${OUTPUTS}u + row];
    for (var c = tid * VEC; c < ${N}u; c += WG * VEC) {
        let y = ${X};
        ${STORE}
    }
