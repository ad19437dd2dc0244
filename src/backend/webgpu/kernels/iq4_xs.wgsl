fn low_iq4_xs(r: Raw_iq4_xs) -> vec4<u32> { return levels(r.q[0] & vec4<u32>(0x0f0f0f0fu)); }
fn high_iq4_xs(r: Raw_iq4_xs) -> vec4<u32> { return levels((r.q[0] >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu)); }
fn scale_iq4_xs(r: Raw_iq4_xs) -> vec2<f32> { return vec2<f32>(half_low(r.d) * f32(i32(r.s << 24u) >> 24u), 0.0); }
