fn low_q6_k(r: Raw_q6_k) -> vec4<u32> { return (r.q[0] & vec4<u32>(0x0f0f0f0fu)) | (bits2(r.h[0]) << vec4<u32>(4u)); }
fn high_q6_k(r: Raw_q6_k) -> vec4<u32> { return ((r.q[0] >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu)) | (bits2(r.h[1]) << vec4<u32>(4u)); }
fn scale_q6_k(r: Raw_q6_k) -> vec4<f32> {
    let d = half_low(r.d);
    let a = d * f32(i32(r.s << 24u) >> 24u);
    let b = d * f32(i32(r.s << 16u) >> 24u);
    return vec4<f32>(a, -32.0 * a, b, -32.0 * b);
}
