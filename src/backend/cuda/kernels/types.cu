/* Packed weights: 32 elements of a row at a time, for every encoding (params.h, pack.h).
 * Rows go in fours: what is less than 16 bytes for 32 elements lies beside that of the other three rows, so that a lane
 * reads the four with one load. NB: blocks of 32 in a row. */

template <int W> struct raw {
    static constexpr int LOW = TN_K_LOW(W), HIGH = TN_K_HIGH(W), SCALE = TN_K_SCALE(W), OFF = TN_K_OFF(W);
    static constexpr bool FLOATS = LOW >= 16;
    static constexpr int SCALE_BYTES = FLOATS ? 0 : SCALE == TN_K_DM ? 4 : 2;
    static constexpr bool SUPER = !FLOATS && SCALE >= TN_K_KM;
    u32 low[LOW], high[HIGH ? HIGH : 1], scale, super;
};

template <int W, int R, int NB> DEV void load_rows(raw<W> *q, const tn_k_weight &w, int row, int block) {
    using T = raw<W>;
    constexpr int PIECES = T::LOW / 4;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int j = 0; j < PIECES; j++)
            load_words<4>(q[r].low + 4 * j, w.low + (((u64)(row + r) * PIECES + j) * NB + block) * 16);
    u64 four = (u64)(row / 4) * NB + block, in4 = row % 4;
    if constexpr (T::HIGH > 0) {
        u32 h[R * T::HIGH];
        load_words<R * T::HIGH>(h, w.high + (four * 4 + in4) * (4 * T::HIGH));
#pragma unroll
        for (int i = 0; i < R * T::HIGH; i++) q[i / T::HIGH].high[i % T::HIGH] = h[i];
    }
    if constexpr (T::SCALE_BYTES == 4) {
        u32 s[R];
        load_words<R>(s, w.scale + (four * 4 + in4) * 4);
#pragma unroll
        for (int r = 0; r < R; r++) q[r].scale = s[r];
    } else if constexpr (T::SCALE_BYTES == 2 && R == 1) {
        u16 s;
        asm("ld.global.nc.b16 %0, [%1];" : "=h"(s) : "l"(w.scale + (four * 4 + in4) * 2));
        q[0].scale = s;
    } else if constexpr (T::SCALE_BYTES == 2) {
        u32 s[R / 2];
        load_words<R / 2>(s, w.scale + (four * 4 + in4) * 2);
#pragma unroll
        for (int r = 0; r < R; r++) q[r].scale = r % 2 ? s[r / 2] >> 16 : s[r / 2] & 0xffff;
    }
    if constexpr (T::SUPER) {
        u32 s[R];
        load_words<R>(s, w.super + (((u64)(row / 4) * (NB / 8) + block / 8) * 4 + in4) * 4);
#pragma unroll
        for (int r = 0; r < R; r++) q[r].super = s[r];
    }
}

/* Four elements as bytes: word `w` of half `h` holds elements 16 h + 4 w ..; `off` not yet subtracted. */
template <int W> DEV u32 bytes_of(const raw<W> &q, int h, int w) {
    using T = raw<W>;
    if constexpr (T::LOW == 8) return q.low[4 * h + w];
    u32 v = (h ? q.low[w] >> 4 : q.low[w]) & 0x0f0f0f0f;
    if constexpr (T::HIGH == 1) v |= (q.high[0] >> (4 * h + w) & 0x01010101) << 4;
    if constexpr (T::HIGH == 2) v |= (q.high[h] >> (2 * w) & 0x03030303) << 4;
    return v;
}

/* q - off as signed bytes */
template <int W> DEV u32 centred(const raw<W> &q, int h, int w) {
    u32 v = bytes_of(q, h, w);
    if constexpr (raw<W>::OFF > 0) return ((v | 0x80808080) - raw<W>::OFF * 0x01010101) ^ 0x80808080;
    return v;
}

/* value = s[h] (q - off) + m[h] for half h */
struct scales {
    float s[2], m[2];
};

template <int W> DEV scales scales_of(const raw<W> &q) {
    using T = raw<W>;
    scales r = {{0, 0}, {0, 0}};
    if constexpr (T::SCALE == TN_K_D) {
        r.s[0] = r.s[1] = from_half(q.scale);
    } else if constexpr (T::SCALE == TN_K_DM) {
        r.s[0] = r.s[1] = from_half(q.scale & 0xffff);
        r.m[0] = r.m[1] = from_half(q.scale >> 16);
    } else if constexpr (T::SUPER) {
        float d = from_half(q.super & 0xffff), dmin = from_half(q.super >> 16);
        int a = q.scale & 255, b = q.scale >> 8;
        if constexpr (T::SCALE == TN_K_KM) {
            r.s[0] = r.s[1] = d * small(a);
            r.m[0] = r.m[1] = -(dmin * small(b));
        } else if constexpr (T::SCALE == TN_K_K16) {
            r.s[0] = d * small((i8)a);
            r.s[1] = d * small((i8)b);
        } else {
            r.s[0] = d * small(a & 15);
            r.s[1] = d * small(b & 15);
            r.m[0] = -(dmin * small(a >> 4));
            r.m[1] = -(dmin * small(b >> 4));
        }
    }
    return r;
}

template <int W> DEV constexpr bool has_min() {
    return TN_K_SCALE(W) == TN_K_DM || TN_K_SCALE(W) == TN_K_KM || TN_K_SCALE(W) == TN_K_K16M;
}
template <int W> DEV constexpr bool by_16() {
    return TN_K_SCALE(W) == TN_K_K16 || TN_K_SCALE(W) == TN_K_K16M;
}

/* Whether a part's products are of one encoding. */
template <int PART> DEV constexpr bool one_type() {
    for (int i = 1; i < parts[PART].products; i++)
        if (products[parts[PART].first_product + i].traits != products[parts[PART].first_product].traits) return false;
    return true;
}

/* Sums of 16 rows x 8 tokens over a block from MAGIC on: of its first half in c, of its second in e where scales are of 16, else of
 * all in c. */
template <int W> DEV void multiply_block(int *c, int *e, const u32 *a, const u32 *b) {
    const int zero[4] = {MAGIC, MAGIC, MAGIC, MAGIC};
    if constexpr (by_16<W>()) {
        mma_k16(c, a[0], a[1], b[0], zero);
        mma_k16(e, a[2], a[3], b[1], zero);
    } else {
        mma_k32(c, a, b, zero);
    }
}

/* d + a x.x + b x.y; x: the sums of a block's halves */
DEV int add_sums(int d, short2 x, int a, int b) {
    return __dp2a_lo(*(const int *)&x, (a & 255) | (b & 255) << 8, d);
}

/* Sum of w x over 32 elements from the sums of integers: of bytes_of and x from MAGIC on (of the halves where scales are of 16, else of
 * all in d0), of x in the halves. */
template <int W> DEV float scale_dots(const scales &s, int d0, int d1, short2 sum) {
    constexpr int OFF = raw<W>::OFF;
    float v;
    if constexpr (by_16<W>()) {
        if constexpr (OFF > 0) d0 = add_sums(d0, sum, -OFF, 0), d1 = add_sums(d1, sum, 0, -OFF);
        v = fmaf(s.s[1], from_magic(d1), s.s[0] * from_magic(d0));
        if constexpr (has_min<W>()) v = fmaf(s.m[1], small(sum.y), fmaf(s.m[0], small(sum.x), v));
    } else {
        if constexpr (OFF > 0) d0 = add_sums(d0, sum, -OFF, -OFF);
        v = s.s[0] * from_magic(d0);
        if constexpr (has_min<W>()) v = fmaf(s.m[0], from_magic(add_sums(MAGIC, sum, 1, 1)), v);
    }
    return v;
}

/* The same from the elements, x = int8 q (without its scale). */
template <int W> DEV float dot_q8(const raw<W> &q, const scales &s, const u32 *x, short2 sum) {
    int d0 = MAGIC, d1 = by_16<W>() ? MAGIC : 0;
#pragma unroll
    for (int w = 0; w < 4; w++) {
        d0 = __dp4a((int)bytes_of(q, 0, w), (int)x[w], d0);
        d1 = __dp4a((int)bytes_of(q, 1, w), (int)x[4 + w], d1);
    }
    return by_16<W>() ? scale_dots<W>(s, d0, d1, sum) : scale_dots<W>(s, d0 + d1, 0, sum);
}

/* The 32 values, rounded as the file's format defines them. */
template <int W> DEV void decode(const raw<W> &q, float *y) {
    using T = raw<W>;
    if constexpr (T::LOW == 32) {
#pragma unroll
        for (int i = 0; i < 32; i++) y[i] = __uint_as_float(q.low[i]);
    } else if constexpr (T::LOW == 16) {
#pragma unroll
        for (int i = 0; i < 32; i++) {
            u32 bits = q.low[i / 2] >> (i % 2 * 16) & 0xffff;
            y[i] = T::SCALE == TN_K_BF16 ? __uint_as_float(bits << 16) : from_half(bits);
        }
    } else {
        scales s = scales_of(q);
#pragma unroll
        for (int i = 0; i < 32; i++) {
            int b = (int)(i8)(bytes_of(q, i / 16, i % 16 / 4) >> (i % 4 * 8) & 255) - T::OFF;
            y[i] = s.s[i / 16] * (float)b;
            if constexpr (has_min<W>()) y[i] += s.m[i / 16];
        }
    }
}
