fn value_${TYPE}(r: Raw_${TYPE}, k: u32) -> vec4<f32> {
    let s = scale_${TYPE}(r);
    let h = select(s.xy, s.zw, k > 3u);
    let w = select(low_${TYPE}(r), high_${TYPE}(r), k > 3u);
    return h.x * unpack(w[k & 3u]) + h.y;
}
fn dot_${TYPE}(r: Raw_${TYPE}, x: X8) -> f32 {
    let s = scale_${TYPE}(r);
    let a = dot16(low_${TYPE}(r), x.low, 0);
    let b = dot16(high_${TYPE}(r), x.high, 0);
    return x.s.x * (s.x * f32(a) + s.z * f32(b)) + (s.y * x.s.y + s.w * x.s.z);
}
