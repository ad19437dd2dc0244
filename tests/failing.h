/* A test's runs with each allocation failing in turn: first that one and all later ones, then that one alone.
 *
 *     for (tn_failing f = {0}; !f.done;) {
 *         tn_failing_start(&f);
 *         status = ...;
 *         assert_int_equal(status, tn_failing_stop(&f) ? TN_ERR_RESOURCES : TN_OK);
 *     }
 */
#ifndef TN_TESTS_FAILING_H
#define TN_TESTS_FAILING_H

#include "base/mem.h"

typedef struct tn_failing {
    long n;     /* allocations that succeed */
    long skip;  /* n grows by 1 and n / skip; 0: by 1 */
    bool alone; /* the one that fails does so alone */
    bool done;
} tn_failing;

static inline void tn_failing_start(const tn_failing *f) {
    if (f->alone)
        tn_alloc_fail_once(f->n);
    else
        tn_alloc_fail_after(f->n);
}

/* Whether an allocation failed. The first run in which none did ends a round; `n` stays what it was after the last. */
static inline bool tn_failing_stop(tn_failing *f) {
    bool failed = tn_alloc_failed();
    tn_alloc_fail_after(-1);
    if (failed) {
        f->n += 1 + (f->skip ? f->n / f->skip : 0);
    } else if (f->alone) {
        f->done = true;
    } else {
        f->alone = true;
        f->n = 0;
    }
    return failed;
}

#endif
