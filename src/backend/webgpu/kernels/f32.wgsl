fn value_f32(r: Raw_f32, k: u32) -> vec4<f32> { return bitcast<vec4<f32>>(r.q[k]); }
