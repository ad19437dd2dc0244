fn value_${TYPE}(r: Raw_${TYPE}, k: u32) -> vec4<f32> {
    let s = scale_${TYPE}(r);
    let w = select(low_${TYPE}(r), high_${TYPE}(r), k > 3u);
    return s.x * unpack(w[k & 3u]) + s.y;
}
fn dot_${TYPE}(r: Raw_${TYPE}, x: X8) -> f32 {
    let s = scale_${TYPE}(r);
    let a = dot16(high_${TYPE}(r), x.high, dot16(low_${TYPE}(r), x.low, 0));
    return s.x * (x.s.x * f32(a)) + s.y * x.s.w;
}
