fn halves4(w: vec2<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)); }
fn half_low(w: u32) -> f32 { return unpack2x16float(w).x; }
fn half_high(w: u32) -> f32 { return unpack2x16float(w).y; }
