fn word_q3_k(r: Raw_q3_k, k: u32) -> u32 {
    let low = (r.q[0][k >> 2u] >> ((k & 3u) * 2u)) & 0x03030303u;
    return low | (((r.h[0] >> k) & 0x01010101u) << 2u);
}
fn scale_q3_k(r: Raw_q3_k) -> vec4<f32> {
    let d = half_low(r.d);
    let a = d * f32(i32(r.s << 24u) >> 24u);
    let b = d * f32(i32(r.s << 16u) >> 24u);
    return vec4<f32>(a, -4.0 * a, b, -4.0 * b);
}
