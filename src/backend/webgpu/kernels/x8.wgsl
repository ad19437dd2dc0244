// 32 int8 activations. s: their scale d, then d times the sums of either half and of both.
struct X8 { low: vec4<u32>, high: vec4<u32>, s: vec4<f32> }
struct Raw8 { low: vec4<u32>, high: vec4<u32>, d: f32, sums: u32 }
struct X8x2 { a: X8, b: X8 }
fn scales_of(d: f32, sums: u32) -> vec4<f32> {
    let low = d * low16(sums);
    let high = d * high16(sums);
    return vec4<f32>(d, low, high, low + high);
}
// Four words of four bytes each out of one: its bits 2k and 2k + 1 of every byte, its bit k.
fn bits2(w: u32) -> vec4<u32> { return (vec4<u32>(w) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(0x03030303u); }
fn bits1(w: u32) -> vec4<u32> { return (vec4<u32>(w) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(0x01010101u); }
fn dot16(a: vec4<u32>, b: vec4<u32>, more: i32) -> i32 { return dot4(a.x, b.x) + (dot4(a.y, b.y) + (dot4(a.z, b.z) + (dot4(a.w, b.w) + more))); }
