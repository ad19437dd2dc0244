/* What matmuls.c and matvec.c share: how the work of a launch of products is cut. */
#ifndef TN_WEBGPU_MATMULS_H
#define TN_WEBGPU_MATMULS_H

#include "backend/webgpu/emit.h"

typedef struct part {
    int32_t number;
    int32_t product[TN_LAUNCH_MAX], n; /* nodes of the launch */
    int32_t cols;                      /* of the segment */
    int32_t per_group;                 /* columns of a workgroup */
    int32_t first, last;               /* workgroups */
    int32_t quantized;                 /* results that are quantized */
    int32_t slots;                     /* experts of a token, each with `cols` columns; 0: no experts */
    bool pieces;                       /* experts: of a weight in several segments, this one's rows only */
} part;

/* How the work is cut. A unit is what a lane takes of a row at once: two blocks where they can be had, else one. */
typedef struct cut {
    bool tiles, experts;
    bool dots;   /* tiles of int8 products */
    bool before; /* row ops stand before */
    bool staged; /* int8 activations come to the workgroup's memory first */
    bool early;  /* operands of ops after are loaded before */
    int32_t wg, team, unit;
    int32_t rows;   /* of a weight, in a team */
    int32_t units;  /* of a row, in a lane, at once */
    int32_t tokens; /* in a workgroup */
} cut;

static inline bool tn_is_product(const tn_node *n) {
    return tn_ops[n->op].class == TN_MATMUL;
}
int32_t tn_blocks_of(const tn_emit *e, const tn_node *n);
const tn_webgpu_type *tn_product_type(const tn_emit *e, const tn_node *n);
bool tn_product_int8(const tn_emit *e, const tn_node *n);

/* Row r of the part in the weight of a product. */
tn_text tn_segment_row(const part *p, const char *r);

/* ---- tiles.c ---- */

/* Whether the launch's products can be multiplied as int8 in tiles. */
bool tn_dot_tiles_suit(const tn_emit *e);
void tn_declare_tiles(tn_emit *e, const cut *c);
/* The sums of a part: of floats to outs, of int8 in registers. */
void tn_emit_tiles(tn_emit *e, const part *p, const cut *c);
enum { TN_TILE_SLICE = 4 }; /* tokens of a tile of int8 that come to outs at once, and that an invocation has */
/* Begins a loop over slices: their sums to outs. */
void tn_emit_tile_slice(tn_emit *e, const part *p);

/* ---- matvec.c ---- */

void tn_choose_matvec(const tn_emit *e, cut *c);
void tn_choose_matvec_part(const tn_emit *e, const part *p, cut *c);
void tn_emit_stage(tn_emit *e, const cut *c);
/* Functions of a product: its activations, its part of a sum. */
void tn_emit_matvec_product(tn_emit *e, int32_t i, const cut *c);
/* The sums of a part, to outs. */
void tn_emit_matvec(tn_emit *e, const part *p, const cut *c);

#endif
