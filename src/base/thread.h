/* A pool of threads that run one function together, and a barrier among them. */
#ifndef TN_BASE_THREAD_H
#define TN_BASE_THREAD_H

#include "base/error.h"

typedef struct tn_pool tn_pool;

/* n threads in all, the caller among them (n = 1: no thread is made). n = 0: one per core this process may use. */
tn_status tn_pool_open(tn_pool **pool, int n, tn_error *err);
void tn_pool_close(tn_pool **pool);
int tn_pool_size(const tn_pool *pool);

/* Runs fn(arg, i, n) on every thread of the pool, i = 0 on the caller; returns when all have returned. Helpers spin for
 * some 50 us after a run, then sleep on a futex. Not reentrant. */
void tn_pool_run(tn_pool *pool, void (*fn)(void *arg, int i, int n), void *arg);

/* Inside a run: waits until all threads are here. Writes before it are seen after it by every thread. Spins. */
void tn_pool_barrier(tn_pool *pool, int i);

#endif
