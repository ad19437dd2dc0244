/* What the attentions share: which positions a token sees, and the scratch memory of the blocked form. */
#ifndef TN_CPU_ATTENTION_H
#define TN_CPU_ATTENTION_H

#include "backend/cpu/kernels/kernels.h"

/* Rows (query heads of tokens) that are taken through the cache together: one decoding of a page serves them all. */
enum { TN_ATTENTION_ROWS = 96 };

/* The part [low, high) of a page that is seen from a position; empty when low >= high. */
typedef struct tn_seen {
    int32_t low, high;
} tn_seen;

static inline int32_t tn_clamp_slot(int32_t p) {
    return p < 0 ? 0 : p > TN_PAGE ? TN_PAGE : p;
}

static inline tn_seen tn_seen_from(const tn_cpu_attention *a, int32_t position, int32_t page) {
    int32_t at = position - page * TN_PAGE;
    return (tn_seen){a->window ? tn_clamp_slot(at - a->window + 1) : 0, tn_clamp_slot(at + 1)};
}

static inline int32_t tn_first_page(const tn_cpu_attention *a, int32_t position) {
    return a->window && position >= a->window ? (position - a->window + 1) / TN_PAGE : 0;
}

/* Pages [begin, end) of a segment that positions [low, high] may see. */
typedef struct tn_pages {
    int32_t begin, end;
} tn_pages;

static inline tn_pages tn_pages_of(const tn_cpu_attention *a, int32_t low, int32_t high, int32_t segment) {
    int32_t first = tn_first_page(a, low), end = high / TN_PAGE + 1;
    tn_pages p = {segment * TN_SEGMENT, (segment + 1) * TN_SEGMENT};
    return (tn_pages){p.begin > first ? p.begin : first, p.end < end ? p.end : end};
}

/* A row's sums over some positions, scaled down to the largest score among them; none: max is -INFINITY. */
typedef struct tn_sums {
    float *out, *max, *sum;
} tn_sums;

/* Adds what came of later positions. */
void tn_attention_fold(tn_sums total, tn_sums later, int32_t v_dim);

#endif
