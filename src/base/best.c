#include "base/best.h"

#include <math.h>

bool tn_better(const float *x, int32_t a, int32_t b) {
    float xa = x[a], xb = x[b];
    if (xa > xb) return true;
    if (xa < xb) return false;
    xa = isnan(xa) ? -INFINITY : xa;
    xb = isnan(xb) ? -INFINITY : xb;
    return xa > xb || (xa == xb && a < b);
}

/* Sinks ids[i] in a heap whose top is the worst (worst_first) or the best. */
static void sift_down(const float *x, int32_t *ids, int32_t n, int32_t i, bool worst_first) {
    int32_t id = ids[i];
    for (int32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && tn_better(x, ids[child], ids[child + 1]) == worst_first) child++;
        if (tn_better(x, id, ids[child]) != worst_first) break;
        ids[i] = ids[child];
    }
    ids[i] = id;
}

static void make_heap(const float *x, int32_t *ids, int32_t n, bool worst_first) {
    for (int32_t i = n / 2; i-- > 0;) sift_down(x, ids, n, i, worst_first);
}

/* Moves the top of a heap of n to its end. */
static void take(const float *x, int32_t *ids, int32_t n, bool worst_first) {
    int32_t top = ids[0];
    ids[0] = ids[n - 1];
    if (n > 1) sift_down(x, ids, n - 1, 0, worst_first);
    ids[n - 1] = top;
}

enum { STRETCH = 16 };

static bool any_greater(const float *x, float than) {
    int any = 0;
    for (int j = 0; j < STRETCH; j++) any |= x[j] > than;
    return any;
}

/* A heap of the k best so far with the worst on top. Indices come in order, so that a number must be greater than the worst to
 * take its place; most are not, which is seen for a stretch of them at once. */
void tn_select_best(const float *x, int32_t n, int32_t *ids, int32_t k) {
    if (k <= 0) return;
    for (int32_t i = 0; i < k; i++) ids[i] = i;
    make_heap(x, ids, k, true);
    for (int32_t i = k; i < n; i++) {
        float worst = isnan(x[ids[0]]) ? -INFINITY : x[ids[0]];
        while (i + STRETCH <= n && !any_greater(x + i, worst)) i += STRETCH;
        while (i < n && !(x[i] > worst)) i++;
        if (i == n) break;
        ids[0] = i;
        sift_down(x, ids, k, 0, true);
    }
    for (int32_t left = k; left > 0; left--) take(x, ids, left, true);
}

void tn_best_heap(const float *x, int32_t *ids, int32_t n) {
    make_heap(x, ids, n, false);
}

void tn_best_take(const float *x, int32_t *ids, int32_t n) {
    take(x, ids, n, false);
}
