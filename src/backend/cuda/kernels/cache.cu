/* The paged cache of a layer. A page holds, for each kv head, a block of keys and a block of values: 64 positions of DIM
 * elements, and for int8 a half scale for every 32 of them behind.
 * The host gives KV_TYPE (0: half, 1: int8, 2: float), KV_HEADS, KV_K_DIM, KV_V_DIM where a launch has a cache. */
#ifndef KV_TYPE
#define KV_TYPE  0
#define KV_HEADS 1
#define KV_K_DIM 32
#define KV_V_DIM 32
#endif

template <int DIM> DEV constexpr int kv_scales_at() {
    return TN_K_PAGE * DIM * (KV_TYPE == 0 ? 2 : KV_TYPE == 1 ? 1 : 4);
}
template <int DIM> DEV constexpr int kv_block_bytes() {
    return kv_scales_at<DIM>() + (KV_TYPE == 1 ? TN_K_PAGE * (DIM / 32) * 2 : 0);
}
DEV char *kv_keys(const tn_k_args &p, int page, int head) {
    constexpr int bytes = kv_block_bytes<KV_K_DIM>() + kv_block_bytes<KV_V_DIM>();
    return (char *)p.cache + ((u64)page * KV_HEADS + head) * bytes;
}
DEV char *kv_values(const tn_k_args &p, int page, int head) {
    return kv_keys(p, page, head) + kv_block_bytes<KV_K_DIM>();
}
DEV int page_of(const tn_k_args &p, int row, int pos) {
    const int *pages = (const int *)p.step.pages + (u64)((const int *)p.step.seq)[row] * step_count(p, 2);
    return pages[pos / TN_K_PAGE];
}

/* A warp puts 32 elements of a position, from element `first` on. */
template <int DIM> DEV void kv_put(char *block, int slot, int first, const float *x) {
    int lane = threadIdx.x % 32, i = first + lane;
    float v = i < DIM ? x[i] : 0;
    if constexpr (KV_TYPE == 0) {
        if (i < DIM) ((u16 *)block)[slot * DIM + i] = to_half(v);
    } else if constexpr (KV_TYPE == 2) {
        if (i < DIM) ((float *)block)[slot * DIM + i] = v;
    } else {
        u16 scale = to_half(__fdiv_rn(warp_max(fabsf(v)), 127.0f));
        float d = from_half(scale), inverse = d > 0 ? __fdiv_rn(1.0f, d) : 0;
        float q = fminf(fmaxf(v * inverse, -127.0f), 127.0f); /* the scale was rounded */
        ((i8 *)block)[slot * DIM + i] = (i8)(__float_as_uint(q + 0x1.8p23f) & 0xff);
        if (lane == 0) ((u16 *)(block + kv_scales_at<DIM>()))[slot * (DIM / 32) + first / 32] = scale;
    }
}

/* Heads [begin, end) of a token's k and v (pointers to the rows' beginnings). */
DEV void cache_write(const tn_k_args &p, int row, int begin, int end, const float *k, const float *v) {
    constexpr int K32 = (KV_K_DIM + 31) / 32, V32 = (KV_V_DIM + 31) / 32;
    int pos = ((const int *)p.step.pos)[row], page = page_of(p, row, pos), slot = pos % TN_K_PAGE;
    for (int i = threadIdx.x / 32; i < (end - begin) * (K32 + V32); i += TN_K_WARPS) {
        int head = begin + i / (K32 + V32), part = i % (K32 + V32);
        if (part < K32)
            kv_put<KV_K_DIM>(kv_keys(p, page, head), slot, 32 * part, k + head * KV_K_DIM);
        else
            kv_put<KV_V_DIM>(kv_values(p, page, head), slot, 32 * (part - K32), v + head * KV_V_DIM);
    }
}
