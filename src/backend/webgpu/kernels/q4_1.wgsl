fn low_q4_1(r: Raw_q4_1) -> vec4<u32> { return r.q[0] & vec4<u32>(0x0f0f0f0fu); }
fn high_q4_1(r: Raw_q4_1) -> vec4<u32> { return (r.q[0] >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu); }
fn scale_q4_1(r: Raw_q4_1) -> vec2<f32> { return vec2<f32>(half_low(r.s), half_high(r.s)); }
