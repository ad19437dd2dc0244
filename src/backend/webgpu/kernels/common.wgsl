@group(0) @binding(0) var<storage, read_write> arena: array<${UNIT}>;
@group(0) @binding(1) var<storage, read> step: array<u32>;
@group(0) @binding(2) var<uniform> numbers: array<vec4<u32>, ${NUMBERS}>;
const WG = ${WG}u;
const VEC = ${VEC}u;
var<private> tid: u32;
var<workgroup> wg: array<V, ${SHARED}>;
fn number(i: u32) -> u32 { return numbers[i >> 2u][i & 3u]; }
fn unpack(w: u32) -> vec4<f32> {
    let x = i32(w);
    return vec4<f32>(vec4<i32>(x << 24u, x << 16u, x << 8u, x) >> vec4<u32>(24u));
}
fn low16(w: u32) -> f32 { return f32(i32(w << 16u) >> 16u); }
fn high16(w: u32) -> f32 { return f32(i32(w) >> 16u); }
fn pack(q: vec4<i32>) -> u32 {
    let b = vec4<u32>(q) & vec4<u32>(0xffu);
    return b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
}
