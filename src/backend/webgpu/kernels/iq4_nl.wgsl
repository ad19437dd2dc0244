fn word_iq4_nl(r: Raw_iq4_nl, k: u32) -> u32 {
    let q = (r.q[0][k & 3u] >> ((k >> 2u) * 4u)) & 0x0f0f0f0fu;
    return level(q & 15u) | (level((q >> 8u) & 15u) << 8u) | (level((q >> 16u) & 15u) << 16u) | (level(q >> 24u) << 24u);
}
fn scale_iq4_nl(r: Raw_iq4_nl) -> vec2<f32> { return vec2<f32>(half_low(r.s), 0.0); }
