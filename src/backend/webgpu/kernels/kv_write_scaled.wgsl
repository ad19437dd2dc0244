        // ${WHAT}, 32 elements at a time: a half float scale, and what is left as int8
        for (var i = tid; i < ${HEADS}u * ${BLOCKS}u; i += WG) {
            let h = i / ${BLOCKS}u;
            let b = i % ${BLOCKS}u;
            let base = (page * ${N_KV}u + ${HEAD0} + h) * ${SIZE}u;
            var largest_of = 0.0;
            for (var j = 0u; j < 32u; j++) {
                let c = h * ${DIM}u + b * 32u + j;
                largest_of = max(largest_of, abs(${X}));
            }
            let d = half_low(pack2x16float(vec2<f32>(largest_of / 127.0, 0.0)));
            let inverse = select(1.0 / d, 0.0, d == 0.0);
            for (var k = 0u; k < 2u; k++) {
                var unit = vec4<u32>();
                for (var j = 0u; j < 4u; j++) {
                    var four: vec4<f32>;
                    for (var m = 0u; m < 4u; m++) {
                        let c = h * ${DIM}u + b * 32u + k * 16u + j * 4u + m;
                        four[m] = clamp(${X} * inverse, -127.0, 127.0);
                    }
                    unit[j] = pack(vec4<i32>(round(four)));
                }
                let u = 2u * b + k;
                ${STORE}
            }
            ${STORE_SCALE}
        }
