    {
    let id = step[${IDS}u + row];
    if (id >= ${FIRST} && id - ${FIRST} < ${ROWS}) {
        for (var b = tid; b < ${BLOCKS}u; b += WG) {
            let raw = load_${WEIGHT}(id - ${FIRST}, b);
            for (var k = 0u; k < 8u; k++) {
                let x = value_${TYPE}(raw, k);
                let c = b * 32u + k * 4u;
                ${STORE}
            }
        }
    }
    }
