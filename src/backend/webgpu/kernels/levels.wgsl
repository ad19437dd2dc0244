// The 16 levels of the IQ4 types, as bytes: -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113
fn level(i: u32) -> u32 {
    let low = select(0xbfad9881u, 0xf6eaddcfu, (i & 4u) != 0u);
    let high = select(0x26190d01u, 0x71594535u, (i & 4u) != 0u);
    return (select(low, high, (i & 8u) != 0u) >> ((i & 3u) * 8u)) & 0xffu;
}
