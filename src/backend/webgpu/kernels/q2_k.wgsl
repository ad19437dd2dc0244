fn low_q2_k(r: Raw_q2_k) -> vec4<u32> { return bits2(r.q[0].x); }
fn high_q2_k(r: Raw_q2_k) -> vec4<u32> { return bits2(r.q[0].y); }
fn scale_q2_k(r: Raw_q2_k) -> vec4<f32> {
    let d = half_low(r.d);
    let m = -half_high(r.d);
    return vec4<f32>(d * f32(r.s & 15u), m * f32((r.s >> 4u) & 15u), d * f32((r.s >> 8u) & 15u), m * f32(r.s >> 12u));
}
