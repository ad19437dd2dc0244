// A row of int8 activations, as it lies in the arena, to the workgroup's memory.
fn stage() {
    for (var k = 0u; k < ${TURNS_Q}u; k++) {
        let i = k * WG + tid;
        if (i < 2u * ${BLOCKS}u) { wq[(i & 3u) * ${PAIRS}u + (i >> 2u)] = aru4(${PLACE} + 4u * i); }
    }
    for (var k = 0u; k < ${TURNS_D}u; k++) {
        let i = k * WG + tid;
        if (i < ${BLOCKS}u) {
            let at = ${PLACE} + 8u * ${BLOCKS}u + i;
            wd[(i & 1u) * ${PAIRS}u + (i >> 1u)] = scales_of(ars(at), aru(at + ${BLOCKS}u));
        }
    }
}
