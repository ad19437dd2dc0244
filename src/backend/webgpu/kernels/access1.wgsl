// Rows of any length: one word at a time.
alias V = f32;
fn aru(i: u32) -> u32 { return arena[i]; }
fn ars(i: u32) -> f32 { return bitcast<f32>(arena[i]); }
fn arv(i: u32) -> V { return bitcast<f32>(arena[i]); }
fn aru4(i: u32) -> vec4<u32> { return vec4<u32>(arena[i], arena[i + 1u], arena[i + 2u], arena[i + 3u]); }
fn arf4(i: u32) -> vec4<f32> { return bitcast<vec4<f32>>(aru4(i)); }
fn arst(i: u32, v: V) { arena[i] = bitcast<u32>(v); }
fn arsts(i: u32, v: f32) { arena[i] = bitcast<u32>(v); }
fn arstu(i: u32, v: u32) { arena[i] = v; }
fn wgv(i: u32) -> V { return wg[i]; }
fn wgs(i: u32) -> f32 { return wg[i]; }
fn wgf4(i: u32) -> vec4<f32> { return vec4<f32>(wg[i], wg[i + 1u], wg[i + 2u], wg[i + 3u]); }
fn wgst(i: u32, v: V) { wg[i] = v; }
fn wgsts(i: u32, v: f32) { wg[i] = v; }
fn square(v: V) -> f32 { return v * v; }
fn total(v: V) -> f32 { return v; }
fn largest(v: V) -> f32 { return v; }
