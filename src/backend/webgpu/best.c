/* The best of each row, in order. A row of logits is long, so it is cut: in the first stage each workgroup finds the best of a piece of it, in
 * the second one workgroup a row the best of those. What a stage passes on is the columns, in order: of equal numbers, those at
 * the lower places are those of the lower columns there too. */
#include "backend/webgpu/emit.h"

enum { MAX_PIECES = 64, MAX_OWN = 64 };

/* What is stored of the best at place k, `column` its column. */
static void put_results(tn_emit *e, const char *column, tn_buf *to) {
    const tn_node *n = tn_emit_node(e, 0);
    int32_t best = n->out[0].cols;
    tn_buf_printf(to, "let column = %s;\n", column);
    if (tn_emit_stored(e, 0, 0))
        tn_buf_printf(to, "arstu(%s + row * %du + k, column);\n", tn_emit_place(e, e->nodes[0], 0).s, best);
    if (!tn_emit_stored(e, 0, 1)) return;
    tn_buf_printf(to, "let word = bitcast<u32>(%s);\n", tn_emit_load(e, n, 0, "column", false).s);
    tn_buf_printf(to, "arstu(%s + row * %du + k, select(word, 0xff800000u, (word & 0x7fffffffu) > 0x7f800000u));",
                  tn_emit_place_out(e, e->nodes[0], 1).s, best);
}

void tn_emit_best(tn_emit *e) {
    const tn_node *n = tn_emit_node(e, 0);
    int32_t cols = n->src[0].cols, best = n->out[0].cols;
    e->wg = 2 * TN_WEBGPU_GROUP;
    int32_t own = (cols + MAX_PIECES * e->wg - 1) / (MAX_PIECES * e->wg), piece = own * e->wg;
    int32_t pieces = (cols + piece - 1) / piece, far = 1;
    if (e->n > 1) e->why = "the best of a row are a launch of their own";
    if (e->form.max_rows > 65535) e->why = "more rows than a dispatch has rows of workgroups";
    if (own > MAX_OWN) /* so columns stay below 2^24: scratch passes them on as floats */
        e->why = "rows too long for an invocation's part of a piece";
    if (best > 2 * TN_WEBGPU_GROUP) e->why = "more of the best than a workgroup has invocations";
    if (e->why) return;
    if (e->stage == 1) own = (pieces * best + e->wg - 1) / e->wg;
    while (far < own * e->wg) far *= 2;
    tn_buf_printf(&e->types,
                  "var<workgroup> n_found: atomic<u32>;\nvar<workgroup> found: array<u32, %d>;\n"
                  "var<workgroup> found_at: array<u32, %d>;\n",
                  best, best);
    e->extra_bytes += 8 * best + 4;
    e->scratch_words = (uint64_t)e->form.max_rows * (uint64_t)pieces * (uint64_t)best;
    e->rows_per_y = 1;
    e->x = e->stage == 0 ? (uint32_t)pieces : 1;
    tn_emit_team(e, e->wg);
    tn_buf store = {0};
    if (e->stage == 0) {
        tn_buf_printf(&store, "scratch[(row * %du + group.x) * %du + k] = select(-1.0, f32(i), tid < n);", pieces,
                      best);
        tn_emit_piece(e, &e->body, "best", "BEST", NUM(best), "OWN", NUM(own), "FAR", NUM(far), "WG", NUM(e->wg),
                      "BEGIN", tn_textf("group.x * %du", piece).s, "END",
                      tn_textf("min((group.x + 1u) * %du, %du)", piece, cols).s, "WORD",
                      tn_textf("bitcast<u32>(%s)", tn_emit_load(e, n, 0, "i", false).s).s, "NONE", "false", "STORE",
                      store.p ? store.p : "", NULL);
    } else {
        tn_text passed = tn_textf("scratch[row * %du + i]", pieces * best);
        tn_text column = tn_textf("u32(max(%s, 0.0))", passed.s);
        put_results(e, column.s, &store);
        tn_emit_piece(e, &e->body, "best", "BEST", NUM(best), "OWN", NUM(own), "FAR", NUM(far), "WG", NUM(e->wg),
                      "BEGIN", "0u", "END", tn_textf("%du", pieces * best).s, "WORD",
                      tn_textf("bitcast<u32>(%s)", tn_emit_load(e, n, 0, column.s, false).s).s, "NONE",
                      tn_textf("%s < 0.0", passed.s).s, "STORE", store.p ? store.p : "", NULL);
    }
    e->body.failed |= store.failed;
    tn_buf_free(&store);
}
