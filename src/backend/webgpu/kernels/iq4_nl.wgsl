fn low_iq4_nl(r: Raw_iq4_nl) -> vec4<u32> { return levels(r.q[0] & vec4<u32>(0x0f0f0f0fu)); }
fn high_iq4_nl(r: Raw_iq4_nl) -> vec4<u32> { return levels((r.q[0] >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu)); }
fn scale_iq4_nl(r: Raw_iq4_nl) -> vec2<f32> { return vec2<f32>(half_low(r.s), 0.0); }
