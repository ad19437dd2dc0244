fn dot4(a: u32, b: u32) -> i32 {
    let x = vec4<i32>(i32(a << 24u), i32(a << 16u), i32(a << 8u), i32(a)) >> vec4<u32>(24u);
    let y = vec4<i32>(i32(b << 24u), i32(b << 16u), i32(b << 8u), i32(b)) >> vec4<u32>(24u);
    let z = x * y;
    return (z.x + z.y) + (z.z + z.w);
}
