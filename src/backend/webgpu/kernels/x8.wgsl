// 32 int8 activations: their sums by halves of 16.
struct X8 { low: vec4<u32>, high: vec4<u32>, d: f32, sum_low: f32, sum_high: f32 }
