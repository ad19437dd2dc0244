fn value_f16(r: Raw_f16, k: u32) -> vec4<f32> {
    let w = r.q[k >> 1u];
    return halves4(select(w.xy, w.zw, (k & 1u) == 1u));
}
