/* The thread pool. Threads tell each other how far they are through flags: counters that only one thread moves, each
 * on a cache line of its own, so that nobody fights for a line. Waiting spins for a while, then lets other threads
 * run, then sleeps on the counter itself; whoever moves a counter wakes those who sleep on it. */
#include "base/thread.h"

#include "base/mem.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_THREADS = 1024,
    YIELD_NS = 5000,  /* spin alone this long: a thread that has a core of its own is here by then */
    SLEEP_NS = 50000, /* then let others run in between; sleep from here on */
};

typedef struct flag {
    _Alignas(64) atomic_uint value; /* moved forward by one thread only; compared modulo 2^32 */
    atomic_uint sleepers;
} flag;

typedef struct seat {
    flag reached; /* barrier rounds this thread has entered */
    unsigned round;
    int index;
    pthread_t thread;
    tn_pool *pool;
} seat;

struct tn_pool {
    flag runs; /* started so far: helpers wait for the next */
    void (*fn)(void *arg, int i, int n);
    void *arg;
    bool stop;
    int n;
    seat seats[];
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void futex(atomic_uint *word, int op, unsigned value) {
    syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

/* Moves a flag on. The exchange orders the new value before the look at the sleepers, as wait_for orders its own two.
 */
static void post(flag *f, unsigned value) {
    atomic_exchange(&f->value, value);
    if (atomic_load(&f->sleepers)) futex(&f->value, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

static bool is_at(flag *f, unsigned value) {
    return (int)(atomic_load_explicit(&f->value, memory_order_acquire) - value) >= 0;
}

/* Looks at a flag until it is there (true) or SLEEP_NS have passed. */
static bool spin_for(flag *f, unsigned value) {
    int64_t start = 0;
    for (unsigned k = 1;; k++) {
        if (is_at(f, value)) return true;
        relax();
        if (k % 16) continue;
        int64_t now = now_ns();
        if (start == 0) start = now;
        if (now - start > SLEEP_NS) return false;
        if (now - start > YIELD_NS) sched_yield();
    }
}

static void wait_for(flag *f, unsigned value) {
    if (spin_for(f, value)) return;
    atomic_fetch_add(&f->sleepers, 1);
    for (unsigned seen; (int)((seen = atomic_load(&f->value)) - value) < 0;) {
        futex(&f->value, FUTEX_WAIT_PRIVATE, seen);
    }
    atomic_fetch_sub(&f->sleepers, 1);
}

/* A dissemination barrier: after the round of distance 2^r a thread knows that itself and the 2^(r+1) - 1 threads
 * after it have arrived. A thread that is ahead has a larger count, which says as much. */
void tn_pool_barrier(tn_pool *pool, int i) {
    seat *me = &pool->seats[i];
    for (int distance = 1; distance < pool->n; distance *= 2) {
        post(&me->reached, ++me->round);
        wait_for(&pool->seats[(i + distance) % pool->n].reached, me->round);
    }
}

static void *helper(void *arg) {
    seat *me = arg;
    tn_pool *pool = me->pool;
    for (unsigned run = 1;; run++) {
        wait_for(&pool->runs, run);
        if (pool->stop) return NULL;
        pool->fn(pool->arg, me->index, pool->n);
        tn_pool_barrier(pool, me->index);
    }
}

/* The barrier at the end keeps a run's fn in place until the last helper has left it. */
void tn_pool_run(tn_pool *pool, void (*fn)(void *arg, int i, int n), void *arg) {
    pool->fn = fn;
    pool->arg = arg;
    if (pool->n > 1) post(&pool->runs, atomic_load(&pool->runs.value) + 1);
    fn(arg, 0, pool->n);
    tn_pool_barrier(pool, 0);
}

int tn_pool_size(const tn_pool *pool) {
    return pool->n;
}

/* Whole cores' worth of time that a container may use; INT32_MAX when it is not limited. */
static int quota_cores(void) {
    long quota = 0, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!f) return INT32_MAX;
    bool limited = fscanf(f, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0; /* else "max" */
    fclose(f);
    if (!limited) return INT32_MAX;
    return quota < period ? 1 : (int)(quota / period);
}

/* The lowest hardware thread of the core that `cpu` belongs to. */
static int core_of(int cpu) {
    char path[80];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "re");
    int first = cpu;
    if (f) {
        if (fscanf(f, "%d", &first) != 1 || first < 0 || first >= CPU_SETSIZE) first = cpu;
        fclose(f);
    }
    return first;
}

static int usable_cores(void) {
    cpu_set_t mine, cores;
    CPU_ZERO(&cores);
    int n = 1;
    if (sched_getaffinity(0, sizeof mine, &mine) == 0) {
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (CPU_ISSET(cpu, &mine)) CPU_SET(core_of(cpu), &cores);
        }
        n = CPU_COUNT(&cores);
    } else { /* more processors than a cpu_set_t holds */
        n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    }
    int quota = quota_cores();
    if (n > quota) n = quota;
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}

static size_t pool_bytes(int n) {
    return sizeof(tn_pool) + (size_t)n * sizeof(seat);
}

/* Ends the helpers 1 .. n_started - 1. */
static void stop_helpers(tn_pool *pool, int n_started) {
    pool->stop = true;
    post(&pool->runs, atomic_load(&pool->runs.value) + 1);
    for (int i = 1; i < n_started; i++) pthread_join(pool->seats[i].thread, NULL);
}

/* Helpers take no signals: those are the application's, for its own threads. */
static int start_helpers(tn_pool *pool) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int i = 1;
    while (i < pool->n && pthread_create(&pool->seats[i].thread, NULL, helper, &pool->seats[i]) == 0) i++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return i;
}

tn_status tn_pool_open(tn_pool **out, int n, tn_error *err) {
    *out = NULL;
    if (n < 0 || n > MAX_THREADS) {
        return tn_fail(err, TN_ERR_USAGE, "%d threads: a pool has between 1 and %d", n, (int)MAX_THREADS);
    }
    if (n == 0) n = usable_cores();
    tn_pool *pool = tn_alloc_pages(pool_bytes(n)); /* zeroed, and aligned as the flags ask */
    if (!pool) return tn_fail_memory(err);
    pool->n = n;
    for (int i = 0; i < n; i++) {
        pool->seats[i].index = i;
        pool->seats[i].pool = pool;
    }
    int started = start_helpers(pool);
    if (started < n) {
        stop_helpers(pool, started);
        tn_free_pages(pool, pool_bytes(n));
        return tn_fail(err, TN_ERR_RESOURCES, "could start only %d of %d threads", started, n);
    }
    *out = pool;
    return TN_OK;
}

void tn_pool_close(tn_pool **pool) {
    if (!*pool) return;
    stop_helpers(*pool, (*pool)->n);
    tn_free_pages(*pool, pool_bytes((*pool)->n));
    *pool = NULL;
}
