fn word_q5_1(r: Raw_q5_1, k: u32) -> u32 {
    let low = (r.q[0][k & 3u] >> ((k >> 2u) * 4u)) & 0x0f0f0f0fu;
    return low | (((r.h[0] >> k) & 0x01010101u) << 4u);
}
fn scale_q5_1(r: Raw_q5_1) -> vec2<f32> { return vec2<f32>(half_low(r.s), half_high(r.s)); }
