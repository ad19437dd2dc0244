fn low_q4_0(r: Raw_q4_0) -> vec4<u32> { return r.q[0] & vec4<u32>(0x0f0f0f0fu); }
fn high_q4_0(r: Raw_q4_0) -> vec4<u32> { return (r.q[0] >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu); }
fn scale_q4_0(r: Raw_q4_0) -> vec2<f32> {
    let d = half_low(r.s);
    return vec2<f32>(d, -8.0 * d);
}
