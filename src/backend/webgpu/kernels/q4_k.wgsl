fn low_q4_k(r: Raw_q4_k) -> vec4<u32> { return r.q[0] & vec4<u32>(0x0f0f0f0fu); }
fn high_q4_k(r: Raw_q4_k) -> vec4<u32> { return (r.q[0] >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu); }
fn scale_q4_k(r: Raw_q4_k) -> vec2<f32> {
    return vec2<f32>(half_low(r.d) * f32(r.s & 0xffu), -half_high(r.d) * f32(r.s >> 8u));
}
