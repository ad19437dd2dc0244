    // The angle as a part of a turn, in 64 bits behind the point: exact where a float is not. A turn's part of each pair
    // comes from the host; position times it, modulo 1, is an integer product.
    for (var i = tid; i < ${PAIRS}u; i += WG) {
        let position = step[${POS}u + row];
        let low = number(${ANGLES}u + 2u * i);
        let high = number(${ANGLES}u + 2u * i + 1u);
        let a = (low & 0xffffu) * (position & 0xffffu);
        let b = (low >> 16u) * (position & 0xffffu) + (a >> 16u);
        let carry = (b >> 16u) + (low >> 16u) * (position >> 16u) + (((low & 0xffffu) * (position >> 16u) + (b & 0xffffu)) >> 16u);
        let turn = high * position + carry;
        let quadrant = (turn + 0x20000000u) >> 30u;
        let x = f32(i32(turn - (quadrant << 30u))) * 1.4629180792671596e-9;
        let z = x * x;
        let s = x + x * z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362880.0))));
        let c = 1.0 - 0.5 * z + z * z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40320.0)));
        let swap = (quadrant & 1u) == 1u;
        var cosine = select(c, s, swap);
        var sine = select(s, c, swap);
        if (quadrant == 1u || quadrant == 2u) { cosine = -cosine; }
        if (quadrant >= 2u) { sine = -sine; }
        arsts(${OUT} + 2u * i, cosine * ${FACTOR});
        arsts(${OUT} + 2u * i + 1u, sine * ${FACTOR});
    }
