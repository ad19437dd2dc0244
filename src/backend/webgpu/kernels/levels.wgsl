// The 16 levels of the IQ4 types, as bytes: -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113
fn level(i: u32) -> u32 {
    let low = select(0xbfad9881u, 0xf6eaddcfu, (i & 4u) != 0u);
    let high = select(0x26190d01u, 0x71594535u, (i & 4u) != 0u);
    return (select(low, high, (i & 8u) != 0u) >> ((i & 3u) * 8u)) & 0xffu;
}
fn levels4(q: u32) -> u32 {
    return level(q & 15u) | (level((q >> 8u) & 15u) << 8u) | (level((q >> 16u) & 15u) << 16u) | (level(q >> 24u) << 24u);
}
fn levels(q: vec4<u32>) -> vec4<u32> { return vec4<u32>(levels4(q.x), levels4(q.y), levels4(q.z), levels4(q.w)); }
