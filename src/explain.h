/* Explanation: what its forms (text, json, dot, svg, html) share. */
#ifndef TN_EXPLAIN_H
#define TN_EXPLAIN_H

#include "engine.h"

/* ---- explain_lives.c: when stored values live, and where ---- */

typedef struct tn_life {
    int32_t node, out;
    int32_t first, last; /* launches; read after the step: the number of launches */
    int64_t offset;
    size_t bytes;
} tn_life;

/* In the order in which they are made. *lives is freed with tn_free(). */
tn_status tn_plan_lives(const tn_plan *p, tn_life **lives, int32_t *n, tn_error *err);
/* The bytes of the arena that hold all but the step's results, which are larger than all else. */
size_t tn_lives_extent(const tn_plan *p, const tn_life *lives, int32_t n);
/* A launch's arena, as far as that, as `columns` characters: # made here, = read here, - kept, . free (of several, the first in this order). */
void tn_print_lives(tn_buf *b, const tn_plan *p, const tn_life *lives, int32_t n, int32_t launch, int32_t columns);
/* All of them as a picture: launches from left to right, the arena, as far as that, from top to bottom. */
void tn_draw_lives(tn_buf *b, const tn_plan *p, const tn_life *lives, int32_t n);

/* ---- explain_layers.c: layers that differ in nothing but their number ---- */

/* Appends text with the names of layer n ("l7.", "blk.7.") made those of any ("l#.", "blk.#."), and of the layer before it
 * "l#-1."; without spaces. */
void tn_add_shape(tn_buf *to, const char *text, int32_t layer);
/* Whether a launch is of a layer: some node of it is. */
bool tn_launch_in_layer(const tn_plan *p, int32_t launch, int32_t layer);
/* For each layer, the first of the layers up to it without a break that have the same launches. Freed with tn_free(). */
tn_status tn_alike_layers(const tn_plan *p, int32_t n_layer, int32_t **first_alike, tn_error *err);
/* The layer that most others are like; 0 where there is none. */
int32_t tn_typical_layer(const int32_t *first_alike, int32_t n_layer);

/* The plain graph as text, equal layers once unless `all`. explain.c */
void tn_print_plain(tn_buf *b, const tn_plan *p, bool all);

/* ---- pictures ---- */

/* The launches of a layer as an SVG. `alone`: with what a file of its own needs. */
void tn_draw_layer(tn_buf *b, const tn_plan *p, int32_t layer, bool alone);
void tn_explain_dot(tn_buf *b, const tn_plan *p);
tn_status tn_explain_html(tn_buf *b, const tn_session *s, const tn_plan *p, tn_error *err);

/* Colours of kinds of launches, "#rrggbb"; a launch of one node is grey. */
const char *tn_kind_colour(int kind);
/* Text for XML, HTML and quoted dot: & < > " escaped. */
void tn_add_escaped(tn_buf *b, const char *text);

#endif
