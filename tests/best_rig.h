/* The results of a step on a device (logits, choice, best), whatever of them is wanted, against a plain sort of the logits. */
#ifndef TN_TESTS_BEST_RIG_H
#define TN_TESTS_BEST_RIG_H

#include <stdint.h>

/* The k best of n by qsort: the greater first, what is not a number as -INFINITY, of equal ones the lower index. */
void tn_sorted_best(const float *x, int32_t n, int32_t *ids, float *logits, int32_t k);

/* Rows of many lengths (up to max_cols) and kinds (ties, infinities, no numbers, none but these, in order) on a backend of this name. False where
 * there is none. */
bool tn_check_best(const char *backend, int32_t max_cols);

#endif
