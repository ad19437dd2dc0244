fn word_q8_0(r: Raw_q8_0, k: u32) -> u32 {
    return r.q[k >> 2u][k & 3u];
}
fn scale_q8_0(r: Raw_q8_0) -> vec2<f32> { return vec2<f32>(half_low(r.s), 0.0); }
