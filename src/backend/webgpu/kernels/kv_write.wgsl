        for (var i = tid; i < ${HEADS}u * ${K_UNITS}u; i += WG) {
            let h = i / ${K_UNITS}u;
            let u = i % ${K_UNITS}u;
            let c = h * ${K_DIM}u + u * ${DIMS}u;
            let y = ${K};
            ${OWNER} { kv[(page * ${N_KV}u + ${HEAD0} + h) * ${SIZE}u + u * 64u + slot] = y; }
            ${KEEP_K}
        }
        for (var i = tid; i < ${HEADS}u * ${V_UNITS}u; i += WG) {
            let h = i / ${V_UNITS}u;
            let u = i % ${V_UNITS}u;
            let c = h * ${V_DIM}u + u * ${DIMS}u;
            let y = ${VALUE};
            ${OWNER} { kv[(page * ${N_KV}u + ${HEAD0} + h) * ${SIZE}u + ${K_UNITS}u * 64u + slot * ${V_UNITS}u + u] = y; }
            ${KEEP_V}
        }
