fn word_q6_k(r: Raw_q6_k, k: u32) -> u32 {
    let low = (r.q[0][k & 3u] >> ((k >> 2u) * 4u)) & 0x0f0f0f0fu;
    return low | (((r.h[k >> 2u] >> ((k & 3u) * 2u)) & 0x03030303u) << 4u);
}
fn scale_q6_k(r: Raw_q6_k) -> vec4<f32> {
    let d = half_low(r.d);
    let a = d * f32(i32(r.s << 24u) >> 24u);
    let b = d * f32(i32(r.s << 16u) >> 24u);
    return vec4<f32>(a, -32.0 * a, b, -32.0 * b);
}
