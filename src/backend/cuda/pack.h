/* A matrix as the kernels read it. 32 elements of a row are a block; a lane takes a block, so a warp's load of 16 bytes a lane
 * is 512 contiguous bytes. Planes, for rows padded with zeros to 32 and columns to blocks (NB of them):
 *   low    [row][piece][block] 16 bytes: piece 0 holds nibbles, byte j elements j (low) and 16 + j; or 8, 16, 32-bit elements in
 *          order, 16 bytes a piece
 *   high   [row / 4][block][row % 4] 4 bytes a bit: the bits above the nibbles. Element 16 h + 4 w + b of a block has its one
 *          bit at 8 b + 4 h + w, its two at 8 b + 2 w of word h
 *   scale  [row / 4][block][row % 4] 2 or 4 bytes
 *   super  [row / 4][block / 8][row % 4] two halves
 * One layout for decode, prefill and the embedding lookup. */
#ifndef TN_CUDA_PACK_H
#define TN_CUDA_PACK_H

#include "backend/cuda/kernels/params.h"
#include "graph/graph.h"

/* TN_K_TRAITS of a block type; -1: it has no layout. */
int tn_cuda_traits(tn_type type);

/* Where the planes are, from the beginning of the matrix; bytes in all. */
typedef struct tn_cuda_planes {
    size_t low, high, scale, super, bytes;
} tn_cuda_planes;
tn_cuda_planes tn_cuda_planes_of(int traits, int32_t n_out, int32_t n_in);

/* Bytes of a weight's matrix; of that of one expert: the others follow it. */
size_t tn_cuda_matrix_bytes(const tn_weight *w);

/* The bytes of one row in each of them. */
tn_cuda_planes tn_cuda_row_planes(int traits, int32_t n_in);

/* Rows [first, first + n) of an expert (0: there is but one) as a matrix of their own. */
typedef struct tn_cuda_rows {
    int32_t expert, first, n;
} tn_cuda_rows;

/* Packs rows [4 begin, 4 end) of these into their zeroed matrix at `to`. */
void tn_cuda_pack(const tn_weight *w, const tn_cuda_rows *rows, int32_t begin, int32_t end, void *to);

#endif
