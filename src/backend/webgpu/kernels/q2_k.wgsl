fn word_q2_k(r: Raw_q2_k, k: u32) -> u32 {
    return (r.q[0][k >> 2u] >> ((k & 3u) * 2u)) & 0x03030303u;
}
fn scale_q2_k(r: Raw_q2_k) -> vec4<f32> {
    let d = half_low(r.d);
    let m = -half_high(r.d);
    return vec4<f32>(d * f32(r.s & 15u), m * f32((r.s >> 4u) & 15u), d * f32((r.s >> 8u) & 15u), m * f32(r.s >> 12u));
}
