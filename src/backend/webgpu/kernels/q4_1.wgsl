fn word_q4_1(r: Raw_q4_1, k: u32) -> u32 {
    return (r.q[0][k & 3u] >> ((k >> 2u) * 4u)) & 0x0f0f0f0fu;
}
fn scale_q4_1(r: Raw_q4_1) -> vec2<f32> { return vec2<f32>(half_low(r.s), half_high(r.s)); }
