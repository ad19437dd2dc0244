/* The likeliest token of each row. A row of logits is long, so it is cut: in the first stage each workgroup finds the best of a
 * piece of it, in the second one workgroup a row the best of those. */
#include "backend/webgpu/emit.h"

enum { PIECE = 1024, MAX_PIECES = 128 };

void tn_emit_argmax(tn_emit *e) {
    const tn_node *n = tn_emit_node(e, 0);
    int32_t cols = n->src[0].cols, pieces = (cols + PIECE - 1) / PIECE;
    if (pieces > MAX_PIECES) pieces = MAX_PIECES;
    int32_t piece = (cols + pieces - 1) / pieces;
    if (e->n > 1) e->why = "the choice of a token is a launch of its own";
    if (e->form.max_rows > 65535) e->why = "more rows than a dispatch has rows of workgroups";
    if (cols >= 1 << 24) e->why = "rows so long that a float does not count them";
    tn_buf_str(&e->types, "var<workgroup> most: atomic<u32>;\nvar<workgroup> first: atomic<u32>;\n");
    e->extra_bytes += 8;
    e->scratch_words = (uint64_t)e->form.max_rows * (uint64_t)pieces * 2;
    e->rows_per_y = 1;
    tn_text found = tn_textf("2u * (row * %du + ", pieces);
    if (e->stage == 0) {
        e->x = (uint32_t)pieces;
        tn_emit_piece(e, &e->body, "argmax", "FROM", tn_textf("group.x * %du", piece).s, "TO",
                      tn_textf("min((group.x + 1u) * %du, %du)", piece, cols).s, "X",
                      tn_textf("bitcast<u32>(%s)", tn_emit_load(e, n, 0, "i", false).s).s, "INDEX", "i", "STORE",
                      tn_textf("scratch[%sgroup.x)] = bitcast<f32>(word); "
                               "scratch[%sgroup.x) + 1u] = select(f32(index), -1.0, top == 0u);",
                               found.s, found.s)
                          .s,
                      NULL);
        return;
    }
    e->x = 1;
    tn_emit_piece(
        e, &e->body, "argmax", "FROM", "0u", "TO", tn_textf("%du", pieces).s, "X",
        tn_textf("select(bitcast<u32>(scratch[%si)]), 0x7fc00000u, scratch[%si) + 1u] < 0.0)", found.s, found.s).s,
        "INDEX", tn_textf("u32(scratch[%si) + 1u])", found.s).s, "STORE",
        tn_textf("arstu(%s + row * %du, index);", tn_emit_place(e, e->nodes[0], 0).s,
                 tn_emit_row_words(e, e->nodes[0]))
            .s,
        NULL);
}
