fn value_${TYPE}(r: Raw_${TYPE}, k: u32) -> vec4<f32> {
    let s = scale_${TYPE}(r);
    let h = select(s.xy, s.zw, k > 3u);
    return h.x * unpack(word_${TYPE}(r, k)) + h.y;
}
fn dot_${TYPE}(r: Raw_${TYPE}, x: X8) -> f32 {
    let s = scale_${TYPE}(r);
    let a = dot4(word_${TYPE}(r, 0u), x.low.x) + dot4(word_${TYPE}(r, 1u), x.low.y) + dot4(word_${TYPE}(r, 2u), x.low.z) + dot4(word_${TYPE}(r, 3u), x.low.w);
    let b = dot4(word_${TYPE}(r, 4u), x.high.x) + dot4(word_${TYPE}(r, 5u), x.high.y) + dot4(word_${TYPE}(r, 6u), x.high.z) + dot4(word_${TYPE}(r, 7u), x.high.w);
    return x.s.x * (s.x * f32(a) + s.z * f32(b)) + (s.y * x.s.y + s.w * x.s.z);
}
