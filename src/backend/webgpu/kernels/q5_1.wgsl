fn low_q5_1(r: Raw_q5_1) -> vec4<u32> { return (r.q[0] & vec4<u32>(0x0f0f0f0fu)) | (bits1(r.h[0]) << vec4<u32>(4u)); }
fn high_q5_1(r: Raw_q5_1) -> vec4<u32> { return ((r.q[0] >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu)) | (bits1(r.h[0] >> 4u) << vec4<u32>(4u)); }
fn scale_q5_1(r: Raw_q5_1) -> vec2<f32> { return vec2<f32>(half_low(r.s), half_high(r.s)); }
