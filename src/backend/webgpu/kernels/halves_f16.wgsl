fn halves4(w: vec2<u32>) -> vec4<f32> { return vec4<f32>(bitcast<vec4<f16>>(w)); }
fn half_low(w: u32) -> f32 { return f32(bitcast<vec2<f16>>(w).x); }
fn half_high(w: u32) -> f32 { return f32(bitcast<vec2<f16>>(w).y); }
