fn low_q8_0(r: Raw_q8_0) -> vec4<u32> { return r.q[0]; }
fn high_q8_0(r: Raw_q8_0) -> vec4<u32> { return r.q[1]; }
fn scale_q8_0(r: Raw_q8_0) -> vec2<f32> { return vec2<f32>(half_low(r.s), 0.0); }
