fn low_q3_k(r: Raw_q3_k) -> vec4<u32> { return bits2(r.q[0].x) | (bits1(r.h[0]) << vec4<u32>(2u)); }
fn high_q3_k(r: Raw_q3_k) -> vec4<u32> { return bits2(r.q[0].y) | (bits1(r.h[0] >> 4u) << vec4<u32>(2u)); }
fn scale_q3_k(r: Raw_q3_k) -> vec4<f32> {
    let d = half_low(r.d);
    let a = d * f32(i32(r.s << 24u) >> 24u);
    let b = d * f32(i32(r.s << 16u) >> 24u);
    return vec4<f32>(a, -4.0 * a, b, -4.0 * b);
}
