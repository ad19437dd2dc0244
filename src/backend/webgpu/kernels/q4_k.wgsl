fn word_q4_k(r: Raw_q4_k, k: u32) -> u32 {
    return (r.q[0][k & 3u] >> ((k >> 2u) * 4u)) & 0x0f0f0f0fu;
}
fn scale_q4_k(r: Raw_q4_k) -> vec2<f32> {
    return vec2<f32>(half_low(r.d) * f32(r.s & 0xffu), -half_high(r.d) * f32(r.s >> 8u));
}
