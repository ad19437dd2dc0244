/* The clock that durations are measured with. */
#ifndef TN_BASE_CLOCK_H
#define TN_BASE_CLOCK_H

#include <time.h>

/* Seconds since some fixed moment. */
static inline double tn_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
