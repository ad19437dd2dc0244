/* The thread pool: every thread runs, barriers hold, idle threads cost nothing, failures are told. */
#include "base/mem.h"
#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MAX = 16 };
static const int g_sizes[] = {1, 2, 3, 4, 9};

typedef struct seen {
    tn_pool *pool;
    int rounds;
    volatile int at[MAX]; /* plain memory: only the barriers order it */
    atomic_int leaks, ran[MAX];
} seen;

static tn_pool *open_pool(int n) {
    tn_pool *pool;
    tn_error err;
    assert_int_equal(tn_pool_open(&pool, n, &err), TN_OK);
    assert_int_equal(tn_pool_size(pool), n);
    return pool;
}

static void count(void *arg, int i, int n) {
    seen *s = arg;
    if (n != tn_pool_size(s->pool)) atomic_fetch_add(&s->leaks, 1);
    atomic_fetch_add(&s->ran[i], 1);
}

static void test_every_thread_runs_once(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof g_sizes / sizeof *g_sizes; k++) {
        tn_pool *pool = open_pool(g_sizes[k]);
        seen s = {.pool = pool};
        for (int run = 1; run <= 300; run++) {
            tn_pool_run(pool, count, &s);
            for (int i = 0; i < MAX; i++) assert_int_equal(atomic_load(&s.ran[i]), i < g_sizes[k] ? run : 0);
            assert_int_equal(atomic_load(&s.leaks), 0);
        }
        tn_pool_close(&pool);
        assert_null(pool);
    }
}

/* In round r everyone writes r; after a barrier everyone must see everyone's r, and nobody may be further. */
static void rounds(void *arg, int i, int n) {
    seen *s = arg;
    for (int r = 1; r <= s->rounds; r++) {
        s->at[i] = r;
        tn_pool_barrier(s->pool, i);
        for (int other = 0; other < n; other++) {
            if (s->at[other] != r) atomic_fetch_add(&s->leaks, 1);
        }
        tn_pool_barrier(s->pool, i);
    }
}

static void test_barriers_do_not_leak(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof g_sizes / sizeof *g_sizes; k++) {
        tn_pool *pool = open_pool(g_sizes[k]);
        for (int again = 0; again < 3; again++) {
            seen s = {.pool = pool, .rounds = g_sizes[k] > 4 ? 200 : 3000};
            tn_pool_run(pool, rounds, &s);
            assert_int_equal(atomic_load(&s.leaks), 0);
            for (int i = 0; i < g_sizes[k]; i++) assert_int_equal(s.at[i], s.rounds);
        }
        tn_pool_close(&pool);
    }
}

static void sleep_ms(int ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

/* Threads that come late, so that the others are asleep in the barrier and in the end of the run. */
static void late(void *arg, int i, int n) {
    seen *s = arg;
    for (int r = 1; r <= s->rounds; r++) {
        if (i == r % n) sleep_ms(3);
        s->at[i] = r;
        tn_pool_barrier(s->pool, i);
        for (int other = 0; other < n; other++) {
            if (s->at[other] != r) atomic_fetch_add(&s->leaks, 1);
        }
        tn_pool_barrier(s->pool, i);
    }
    if (i == n - 1) sleep_ms(3);
    atomic_fetch_add(&s->ran[i], 1);
}

static void test_sleepers_wake(void **state) {
    (void)state;
    tn_pool *pool = open_pool(4);
    seen s = {.pool = pool, .rounds = 20};
    for (int run = 1; run <= 5; run++) {
        sleep_ms(2); /* the helpers sleep when the run starts */
        tn_pool_run(pool, late, &s);
        for (int i = 0; i < 4; i++) assert_int_equal(atomic_load(&s.ran[i]), run);
    }
    assert_int_equal(atomic_load(&s.leaks), 0);
    tn_pool_close(&pool);
}

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void test_idle_threads_cost_nothing(void **state) {
    (void)state;
    tn_pool *pool = open_pool(4);
    seen s = {.pool = pool};
    tn_pool_run(pool, count, &s);
    double before = cpu_seconds();
    sleep_ms(300);
    assert_true(cpu_seconds() - before < 0.03); /* three spinning helpers would take 0.9 */
    tn_pool_close(&pool);
}

static void test_open_and_close(void **state) {
    (void)state;
    for (int k = 0; k < 100; k++) {
        tn_pool *pool = open_pool(1 + k % 5);
        seen s = {.pool = pool};
        if (k % 2) tn_pool_run(pool, count, &s);
        tn_pool_close(&pool);
        tn_pool_close(&pool); /* of nothing: does nothing */
    }
}

static void test_default_size(void **state) {
    (void)state;
    cpu_set_t before, one;
    tn_pool *pool = NULL;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(tn_pool_open(&pool, 0, NULL), TN_OK);
    assert_true(tn_pool_size(pool) >= 1 && tn_pool_size(pool) <= CPU_COUNT(&before));
    tn_pool_close(&pool);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &before)) cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(tn_pool_open(&pool, 0, NULL), TN_OK);
    assert_int_equal(tn_pool_size(pool), 1);
    tn_pool_close(&pool);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void test_failures(void **state) {
    (void)state;
    tn_error err = {0};
    tn_pool *pool = (tn_pool *)&err;
    assert_int_equal(tn_pool_open(&pool, -1, &err), TN_ERR_USAGE);
    assert_null(pool);
    assert_int_equal(tn_pool_open(&pool, 1 << 20, &err), TN_ERR_USAGE);
    tn_alloc_fail_after(0);
    tn_status status = tn_pool_open(&pool, 2, &err);
    tn_alloc_fail_after(-1);
    assert_int_equal(status, TN_ERR_RESOURCES);
    assert_null(pool);
    assert_string_equal(err.text, "out of memory");
}

/* No room for all the stacks: those that were started must end. */
static void test_threads_that_cannot_start(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip();
#else
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld", &pages), 1);
    fclose(f);
    struct rlimit before, less;
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    less = before;
    less.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + (100u << 20);
    assert_int_equal(setrlimit(RLIMIT_AS, &less), 0);
    tn_error err = {0};
    tn_pool *pool;
    tn_status status = tn_pool_open(&pool, 1000, &err);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_int_equal(status, TN_ERR_RESOURCES);
    assert_null(pool);
    assert_non_null(strstr(err.text, "of 1000 threads"));
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_thread_runs_once),
        cmocka_unit_test(test_barriers_do_not_leak),
        cmocka_unit_test(test_sleepers_wake),
        cmocka_unit_test(test_idle_threads_cost_nothing),
        cmocka_unit_test(test_open_and_close),
        cmocka_unit_test(test_default_size),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_threads_that_cannot_start),
    };
    return cmocka_run_group_tests_name("thread", tests, NULL, NULL);
}
