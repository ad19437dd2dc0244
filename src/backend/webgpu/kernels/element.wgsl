fn sigmoid${S}(x: ${V}) -> ${V} { let e = exp(-abs(x)); return select(e, ${V}(1.0), x >= ${V}(0.0)) / (${V}(1.0) + e); }
fn silu${S}(x: ${V}) -> ${V} { return x * sigmoid${S}(x); }
fn gelu${S}(x: ${V}) -> ${V} { return x * sigmoid${S}(clamp(${V}(1.5957691216057308) * (x + ${V}(0.044715) * x * x * x), ${V}(-1000.0), ${V}(1000.0))); }
fn gelu_quick${S}(x: ${V}) -> ${V} { return x * sigmoid${S}(${V}(1.702) * x); }
// log(1 + e) and tanh(t) lose small e and t in many implementations: there the first terms of their series
fn softplus${S}(x: ${V}) -> ${V} { let e = exp(-abs(x)); return max(x, ${V}(0.0)) + select(log(${V}(1.0) + e), e * (${V}(1.0) - e * (${V}(0.5) - e * (${V}(0.33333334) - ${V}(0.25) * e))), e < ${V}(0.03)); }
fn softcap${S}(x: ${V}, c: f32) -> ${V} { let t = clamp(x / c, ${V}(-12.0), ${V}(12.0)); return c * select(tanh(t), t * (${V}(1.0) - t * t * ${V}(0.33333334)), abs(t) < ${V}(0.01)); }
