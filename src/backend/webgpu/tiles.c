/* Products for many rows. Tiles of 32 x 32 multiply anything as floats; where both sides are int8 and the device has dot products of
 * bytes, tiles of 64 x 64 multiply blocks of 32 as integers and scale the sums, as products for few rows do. Both need no
 * more memory of a workgroup than any device has. */
#include "backend/webgpu/matmuls.h"

static bool two_scales(const tn_emit *e) {
    bool any = false;
    for (int32_t i = 0; i < e->n; i++)
        any |= tn_is_product(tn_emit_node(e, i)) && tn_product_type(e, tn_emit_node(e, i))->scales == 2;
    return any;
}

bool tn_dot_tiles_suit(const tn_emit *e) {
    bool all = e->d->packed_dot;
    for (int32_t i = 0; i < e->n && all; i++) {
        const tn_node *n = tn_emit_node(e, i);
        if (tn_is_product(n)) all = tn_product_int8(e, n) && !tn_product_type(e, n)->floats;
    }
    return all;
}

/* Blocks that are multiplied between barriers. Two, but where the depth is odd, or memory would not do. */
static int32_t unit_of(const tn_emit *e) {
    int32_t products = 0;
    for (int32_t i = 0; i < e->n; i++) {
        if (!tn_is_product(tn_emit_node(e, i))) continue;
        if (tn_blocks_of(e, tn_emit_node(e, i)) % 2) return 1;
        products++;
    }
    return two_scales(e) && products > e->form.n_parts ? 1 : 2;
}

void tn_declare_tiles(tn_emit *e, const cut *c) {
    if (!c->dots) {
        tn_buf_str(&e->types,
                   "var<workgroup> tile_w: array<vec4<f32>, 256>;\nvar<workgroup> tile_x: array<vec4<f32>, 256>;\n");
        e->extra_bytes += 8192;
        return;
    }
    int32_t unit = unit_of(e), scales = two_scales(e) ? 4 : 2;
    tn_buf_printf(&e->types,
                  "const UNIT = %du;\nconst LOADERS = %du;\nvar<workgroup> tile_w: array<vec4<u32>, %d>;\n"
                  "var<workgroup> tile_x: array<vec4<u32>, %d>;\nvar<workgroup> scale_w: array<vec%d<f32>, %d>;\n"
                  "var<workgroup> scale_x: array<vec4<f32>, %d>;\n",
                  unit, 64 * unit, 128 * unit, 128 * unit, scales, 64 * unit, 64 * unit);
    e->extra_bytes += unit * (2 * 128 * 16 + 64 * 16 + 64 * 4 * scales);
}

/* ---- int8 ---- */

/* What the blocks in the workgroup's memory add to the sums of product i: rows x + 16 k, tokens 4 y + j. */
static void emit_multiply(const tn_emit *e, tn_buf *b, int32_t i, int32_t unit) {
    int32_t scales = tn_product_type(e, tn_emit_node(e, i))->scales;
    for (int32_t u = 0; u < unit; u++) {
        tn_buf_str(b, "{\n");
        for (int32_t half = 0; half < 2; half++) {
            for (int32_t k = 0; k < 4; k++)
                tn_buf_printf(b, "let w%d_%d = tile_w[%du + x];\n", half, k, u * 128 + half * 64 + 16 * k);
            for (int32_t j = 0; j < TN_TILE_SLICE; j++) {
                tn_buf_printf(b, "let t%d_%d = tile_x[%du + y];\nlet d%d_%d = vec4<i32>(", half, j,
                              u * 128 + half * 64 + j, half, j);
                for (int32_t k = 0; k < 4; k++) {
                    tn_text more = half && scales == 1 ? tn_textf("d0_%d.%c", j, "xyzw"[k]) : tn_textf("0");
                    tn_buf_printf(b, "dot16(w%d_%d, t%d_%d, %s)%s", half, k, half, j, more.s, k < 3 ? ", " : ");\n");
                }
            }
        }
        for (int32_t k = 0; k < 4; k++) tn_buf_printf(b, "let s%d = scale_w[%du + x];\n", k, u * 64 + 16 * k);
        for (int32_t q = 0; q < 2 * scales; q++)
            tn_buf_printf(b, "let f%d = vec4<f32>(s0.%c, s1.%c, s2.%c, s3.%c);\n", q, "xyzw"[q], "xyzw"[q], "xyzw"[q],
                          "xyzw"[q]);
        for (int32_t j = 0; j < TN_TILE_SLICE; j++) {
            tn_buf_printf(b, "let v%d = scale_x[%du + y];\n", j, u * 64 + j);
            if (scales == 1)
                tn_buf_printf(b, "acc%d_%d += f0 * (v%d.x * vec4<f32>(d1_%d)) + f1 * v%d.w;\n", i, j, j, j, j);
            else
                tn_buf_printf(
                    b,
                    "acc%d_%d += v%d.x * (f0 * vec4<f32>(d0_%d) + f2 * vec4<f32>(d1_%d)) + (f1 * v%d.y + f3 "
                    "* v%d.z);\n",
                    i, j, j, j, j, j, j);
        }
        tn_buf_str(b, "}\n");
    }
}

static void emit_dots(tn_emit *e, const part *p) {
    int32_t unit = unit_of(e);
    tn_buf_printf(&e->body,
                  "    let line = tid %% LOADERS / %du;\n    let block = tid %% %du;\n    let x = tid %% 16u;\n"
                  "    let y = tid / 16u * %du;\n",
                  unit, unit, TN_TILE_SLICE);
    for (int32_t k = 0; k < p->n; k++) {
        int32_t i = p->product[k];
        const tn_node *n = tn_emit_node(e, i);
        const tn_webgpu_type *type = tn_product_type(e, n);
        tn_buf multiply = {0};
        emit_multiply(e, &multiply, i, unit);
        tn_emit_piece(
            e, &e->body, "tile_dots", "WHAT", n->name ? n->name : "", "ID", NUM(i), "BLOCKS", NUM(tn_blocks_of(e, n)),
            "TYPE", type->name, "SCALE",
            tn_textf(type->scales == 1 && two_scales(e) ? "vec4<f32>(scale_%s(w), 0.0, 0.0)" : "scale_%s(w)",
                     type->name)
                .s,
            "MULTIPLY", multiply.p ? multiply.p : "", NULL);
        e->body.failed |= multiply.failed;
        tn_buf_free(&multiply);
    }
}

void tn_emit_tile_slice(tn_emit *e, const part *p) {
    tn_buf *b = &e->body;
    tn_buf_printf(b,
                  "    let tile_t0 = t0;\n    for (var s = 0u; s < 16u; s++) {\n    let t0 = tile_t0 + s * %du;\n"
                  "    if (t0 >= n_rows) { break; }\n    workgroupBarrier();\n    if (tid / 16u == s) {\n",
                  TN_TILE_SLICE);
    for (int32_t k = 0; k < p->n; k++)
        for (int32_t j = 0; j < TN_TILE_SLICE; j++)
            for (int32_t r = 0; r < 4; r++)
                tn_buf_printf(b, "        outs[%du + x] = acc%d_%d.%c;\n", (k * TN_TILE_SLICE + j) * 64 + r * 16,
                              p->product[k], j, "xyzw"[r]);
    tn_buf_str(b, "    }\n");
}

/* ---- both ---- */

void tn_emit_tiles(tn_emit *e, const part *p, const cut *c) {
    if (c->dots) {
        emit_dots(e, p);
        return;
    }
    for (int32_t k = 0; k < p->n; k++) {
        int32_t i = p->product[k];
        const tn_node *n = tn_emit_node(e, i);
        tn_emit_piece(
            e, &e->body, "tile", "WHAT", n->name ? n->name : "", "ID", NUM(i), "BLOCKS", NUM(tn_blocks_of(e, n)),
            "WEIGHT_ROW", tn_segment_row(p, "min(r0 + tid, last_row)").s, "ROW",
            p->slots ? "let row = pair_row(min(t0 + t, count - 1u));" : "let row = min(t0 + t, n_rows - 1u);", "TYPE",
            tn_product_type(e, n)->name, "X", tn_textf("xv_%d(row, b, k)", i).s, "OUT", NUM(k * 1024), NULL);
    }
}
