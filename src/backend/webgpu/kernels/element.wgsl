fn silu${S}(x: ${V}) -> ${V} { return x / (${V}(1.0) + exp(-max(x, ${V}(-80.0)))); }
fn gelu${S}(x: ${V}) -> ${V} { return x / (${V}(1.0) + exp(-clamp(${V}(1.5957691216057308) * (x + ${V}(0.044715) * x * x * x), ${V}(-80.0), ${V}(80.0)))); }
fn gelu_quick${S}(x: ${V}) -> ${V} { return x / (${V}(1.0) + exp(-max(${V}(1.702) * x, ${V}(-80.0)))); }
fn sigmoid${S}(x: ${V}) -> ${V} { return ${V}(1.0) / (${V}(1.0) + exp(-max(x, ${V}(-80.0)))); }
fn softplus${S}(x: ${V}) -> ${V} { return max(x, ${V}(0.0)) + log(${V}(1.0) + exp(-abs(x))); }
fn softcap${S}(x: ${V}, c: f32) -> ${V} { return c * tanh(clamp(x / c, ${V}(-12.0), ${V}(12.0))); }
