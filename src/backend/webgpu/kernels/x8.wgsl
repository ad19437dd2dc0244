// 32 int8 activations. s: their scale d, then d times the sums of either half and of both.
struct X8 { low: vec4<u32>, high: vec4<u32>, s: vec4<f32> }
struct X8x2 { a: X8, b: X8 }
fn scales_of(d: f32, sums: u32) -> vec4<f32> {
    let low = d * low16(sums);
    let high = d * high16(sums);
    return vec4<f32>(d, low, high, low + high);
}
