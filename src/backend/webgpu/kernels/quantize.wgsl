        let inside = c < ${N}u;
        var x = vec4<f32>();
        if (inside) { x = ${X}; }
        let a = abs(x);
        var top = max_8(max(max(a.x, a.y), max(a.z, a.w)));
        top = select(top, 0.0, top < 7.5e-37);
        let q = vec4<i32>(round(x * select(127.0 / top, 0.0, top == 0.0)));
        // the sums of both halves in one number: |sum| < 2048
        let sum = sum_8(f32(q.x + q.y + q.z + q.w) * select(1.0, 4096.0, (tid & 4u) != 0u));
        if (inside) {
            ${STORE_Q}
            if ((tid & 7u) == 0u) {
                let high = floor((sum + 2048.0) / 4096.0);
                let low = sum - high * 4096.0;
                let sums = (u32(i32(low)) & 0xffffu) | (u32(i32(high)) << 16u);
                let d = bitcast<u32>(top / 127.0);
                ${STORE_D}
            }
        }
