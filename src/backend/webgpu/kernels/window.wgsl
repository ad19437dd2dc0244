@group(0) @binding(${BINDING}) var<storage, read> w${ID}: array<vec4<u32>>;
fn w${ID}u(i: u32) -> u32 { return w${ID}[i >> 2u][i & 3u]; }
fn w${ID}s(i: u32) -> f32 { return bitcast<f32>(w${ID}[i >> 2u][i & 3u]); }
fn w${ID}v(i: u32) -> V { return ${VALUE}; }
