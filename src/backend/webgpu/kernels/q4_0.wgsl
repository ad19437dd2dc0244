fn word_q4_0(r: Raw_q4_0, k: u32) -> u32 {
    return (r.q[0][k & 3u] >> ((k >> 2u) * 4u)) & 0x0f0f0f0fu;
}
fn scale_q4_0(r: Raw_q4_0) -> vec2<f32> {
    let d = half_low(r.s);
    return vec2<f32>(d, -8.0 * d);
}
