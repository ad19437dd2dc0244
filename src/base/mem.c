#include "base/mem.h"

#include "tenon.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static atomic_long g_left = -1;      /* allocations until one fails; negative: none does */
static atomic_bool g_once, g_failed; /* only that one fails; it did */

/* Counts one allocation against what a test allows. */
static bool may_alloc(void) {
    long left = atomic_load_explicit(&g_left, memory_order_relaxed), then;
    do {
        if (left < 0) return true;
        then = left > 0 ? left - 1 : atomic_load(&g_once) ? -1 : 0;
    } while (!atomic_compare_exchange_weak(&g_left, &left, then));
    if (left > 0) return true;
    atomic_store(&g_failed, true);
    return false;
}

static void fail_at(long n, bool once) {
    atomic_store(&g_failed, false);
    atomic_store(&g_once, once);
    atomic_store(&g_left, n);
}

void tn_alloc_fail_after(long n) {
    fail_at(n, false);
}

void tn_alloc_fail_once(long n) {
    fail_at(n, true);
}

bool tn_alloc_failed(void) {
    return atomic_load(&g_failed);
}

void *tn_alloc(size_t bytes) {
    return may_alloc() ? malloc(bytes ? bytes : 1) : NULL;
}

void *tn_alloc_zero(size_t count, size_t size) {
    return may_alloc() ? calloc(count ? count : 1, size ? size : 1) : NULL;
}

void *tn_realloc(void *p, size_t bytes) {
    return may_alloc() ? realloc(p, bytes ? bytes : 1) : NULL;
}

char *tn_strndup(const char *s, size_t len) {
    char *copy = tn_alloc(len + 1);
    if (!copy) return NULL;
    memcpy(copy, s, len);
    copy[len] = 0;
    return copy;
}

void tn_free(void *p) {
    free(p);
}

enum { HUGE_PAGE = 2 << 20 };

static atomic_size_t g_pages; /* bytes of large memory in use */

/* Pages are committed when they are touched, which is too late to refuse: together they may take what the machine has. */
static bool reserve(size_t bytes) {
    size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    size_t had = atomic_fetch_add(&g_pages, bytes);
    if (bytes <= machine && had <= machine - bytes) return true;
    atomic_fetch_sub(&g_pages, bytes);
    return false;
}

/* A request of a huge page or more is rounded up to whole huge pages and mapped at such an address. */
static void *map_pages(size_t bytes) {
    if (bytes < HUGE_PAGE) {
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return p == MAP_FAILED ? NULL : p;
    }
    size_t span;
    if (!tn_add_size(bytes, 2 * HUGE_PAGE, &span)) return NULL;
    bytes = tn_align_up(bytes, HUGE_PAGE);
    span = bytes + HUGE_PAGE;
    char *raw = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) return NULL;
    size_t before = tn_align_up((size_t)raw, HUGE_PAGE) - (size_t)raw;
    if (before) munmap(raw, before);
    char *p = raw + before;
    munmap(p + bytes, span - before - bytes);
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

void *tn_alloc_pages(size_t bytes) {
    if (bytes == 0) bytes = 1;
    if (!may_alloc() || !reserve(bytes)) return NULL;
    void *p = map_pages(bytes);
    if (!p) atomic_fetch_sub(&g_pages, bytes);
    return p;
}

void tn_free_pages(void *p, size_t bytes) {
    if (!p) return;
    if (bytes == 0) bytes = 1;
    munmap(p, bytes >= HUGE_PAGE ? tn_align_up(bytes, HUGE_PAGE) : bytes);
    atomic_fetch_sub(&g_pages, bytes);
}
