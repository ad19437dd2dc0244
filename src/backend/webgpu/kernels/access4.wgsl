// Rows of a multiple of four words: the arena and the workgroup's memory are read four at a time.
alias V = vec4<f32>;
fn aru(i: u32) -> u32 { return arena[i >> 2u][i & 3u]; }
fn ars(i: u32) -> f32 { return bitcast<f32>(arena[i >> 2u][i & 3u]); }
fn arv(i: u32) -> V { return bitcast<vec4<f32>>(arena[i >> 2u]); }
fn aru4(i: u32) -> vec4<u32> { return arena[i >> 2u]; }
fn arf4(i: u32) -> vec4<f32> { return bitcast<vec4<f32>>(arena[i >> 2u]); }
fn arst(i: u32, v: V) { arena[i >> 2u] = bitcast<vec4<u32>>(v); }
fn arsts(i: u32, v: f32) { arena[i >> 2u][i & 3u] = bitcast<u32>(v); }
fn arstu(i: u32, v: u32) { arena[i >> 2u][i & 3u] = v; }
fn wgv(i: u32) -> V { return wg[i >> 2u]; }
fn wgs(i: u32) -> f32 { return wg[i >> 2u][i & 3u]; }
fn wgf4(i: u32) -> vec4<f32> { return wg[i >> 2u]; }
fn wgst(i: u32, v: V) { wg[i >> 2u] = v; }
fn wgsts(i: u32, v: f32) { wg[i >> 2u][i & 3u] = v; }
fn square(v: V) -> f32 { return dot(v, v); }
fn total(v: V) -> f32 { return (v.x + v.y) + (v.z + v.w); }
fn largest(v: V) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }
