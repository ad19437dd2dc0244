fn word_iq4_xs(r: Raw_iq4_xs, k: u32) -> u32 {
    let q = (r.q[0][k & 3u] >> ((k >> 2u) * 4u)) & 0x0f0f0f0fu;
    return level(q & 15u) | (level((q >> 8u) & 15u) << 8u) | (level((q >> 16u) & 15u) << 16u) | (level(q >> 24u) << 24u);
}
fn scale_iq4_xs(r: Raw_iq4_xs) -> vec2<f32> { return vec2<f32>(half_low(r.d) * f32(i32(r.s << 24u) >> 24u), 0.0); }
