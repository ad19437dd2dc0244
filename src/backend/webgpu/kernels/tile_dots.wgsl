    // ---- ${WHAT}: 64 rows by 64 tokens, of which each invocation has 4 x 4; the next blocks come while these are multiplied
    var acc${ID}_0 = vec4<f32>();
    var acc${ID}_1 = vec4<f32>();
    var acc${ID}_2 = vec4<f32>();
    var acc${ID}_3 = vec4<f32>();
    {
    let w_row = min(r0 + line, last_row);
    let x_row = min(t0 + line, n_rows - 1u);
    var w: Raw_${TYPE};
    var o: Raw8;
    if (tid < LOADERS) { w = load_${ID}(w_row, block); } else if (tid < 2u * LOADERS) { o = raw8_${ID}(x_row, block); }
    var b = 0u;
    loop {
        workgroupBarrier();
        if (tid < LOADERS) {
            tile_w[block * 128u + line] = low_${TYPE}(w);
            tile_w[block * 128u + 64u + line] = high_${TYPE}(w);
            scale_w[block * 64u + line] = ${SCALE};
        } else if (tid < 2u * LOADERS) {
            tile_x[block * 128u + line] = o.low;
            tile_x[block * 128u + 64u + line] = o.high;
            scale_x[block * 64u + line] = scales_of(o.d, o.sums);
        }
        workgroupBarrier();
        b += UNIT;
        if (b < ${BLOCKS}u) {
            if (tid < LOADERS) { w = load_${ID}(w_row, b + block); } else if (tid < 2u * LOADERS) { o = raw8_${ID}(x_row, b + block); }
        }
        ${MULTIPLY}
        if (b >= ${BLOCKS}u) { break; }
    }
    }
