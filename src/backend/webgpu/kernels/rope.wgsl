    for (var c = tid; c < ${N}u; c += WG) {
        let j = c % ${HEAD}u;
        var y = ${X};
        if (j < ${ROT}u) {
            let second = ${SECOND};
            let pair = ${PAIR};
            let other = select(c + ${APART}u, c - ${APART}u, second);
            let turned = ${OTHER} * ${SINE};
            y = y * ${COSINE} + select(-turned, turned, second);
        }
        ${STORE}
    }
