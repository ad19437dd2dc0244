/* The best of many numbers, in one order for all who ask: the greater first (what is not a number counts as -INFINITY), of
 * equal ones the lower index. */
#ifndef TN_BEST_H
#define TN_BEST_H

#include <stdbool.h>
#include <stdint.h>

/* Whether x[a] comes before x[b]. */
bool tn_better(const float *x, int32_t a, int32_t b);

/* The indices of the k best of n numbers (k <= n), best first. */
void tn_select_best(const float *x, int32_t n, int32_t *ids, int32_t k);

/* The same one by one, for who does not know how many it takes: n indices become a heap with the best on top; taking the top of a
 * heap of n moves it to ids[n - 1]. */
void tn_best_heap(const float *x, int32_t *ids, int32_t n);
void tn_best_take(const float *x, int32_t *ids, int32_t n);

#endif
