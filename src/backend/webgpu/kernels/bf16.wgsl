fn value_bf16(r: Raw_bf16, k: u32) -> vec4<f32> {
    let w = r.q[k >> 1u];
    let h = select(w.xy, w.zw, (k & 1u) == 1u);
    return bitcast<vec4<f32>>(vec4<u32>(h.x << 16u, h.x & 0xffff0000u, h.y << 16u, h.y & 0xffff0000u));
}
