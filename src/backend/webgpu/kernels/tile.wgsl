    // ---- ${WHAT}: a tile of 32 rows and 32 tokens; each invocation has 4 x 4 of it
    var acc${ID} = array<vec4<f32>, 4>();
    for (var b = 0u; b < ${BLOCKS}u; b++) {
        workgroupBarrier();
        if (tid < 32u) {
            let raw = load_${ID}(${WEIGHT_ROW}, b);
            for (var k = 0u; k < 8u; k++) {
                let v = value_${TYPE}(raw, k);
                for (var i = 0u; i < 4u; i++) { tile_w[(k * 4u + i) * 8u + (tid >> 2u)][tid & 3u] = v[i]; }
            }
        } else if (tid < 64u) {
            let t = tid - 32u;
            ${ROW}
            for (var k = 0u; k < 8u; k++) {
                let v = ${X};
                for (var i = 0u; i < 4u; i++) { tile_x[(k * 4u + i) * 8u + (t >> 2u)][t & 3u] = v[i]; }
            }
        }
        workgroupBarrier();
        if (tid < 64u) {
            for (var k = 0u; k < 32u; k++) {
                let w = tile_w[k * 8u + (tid & 7u)];
                let x = tile_x[k * 8u + (tid >> 3u)];
                acc${ID}[0] += x.x * w;
                acc${ID}[1] += x.y * w;
                acc${ID}[2] += x.z * w;
                acc${ID}[3] += x.w * w;
            }
        }
    }
    if (tid < 64u) {
        for (var j = 0u; j < 4u; j++) {
            for (var i = 0u; i < 4u; i++) { outs[${OUT}u + ((tid >> 3u) * 4u + j) * 32u + (tid & 7u) * 4u + i] = acc${ID}[j][i]; }
        }
    }
