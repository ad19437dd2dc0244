#include "text/special.h"

#include "base/mem.h"

#include <stdlib.h>

static int compare_texts(const void *a, const void *b, void *vocab) {
    const tn_vocab *v = vocab;
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    tn_str s = v->text[x], t = v->text[y];
    int order = memcmp(s.p, t.p, s.n < t.n ? s.n : t.n);
    if (order) return order;
    if (s.n != t.n) return s.n < t.n ? -1 : 1;
    return x < y ? -1 : x > y;
}

tn_status tn_special_open(tn_special *s, const tn_vocab *v, tn_error *err) {
    s->ids = tn_alloc((size_t)v->n * sizeof *s->ids);
    if (!s->ids) return tn_fail_memory(err);
    for (int32_t i = 0; i < v->n; i++) {
        bool special =
            v->type[i] == TN_TOKEN_CONTROL || v->type[i] == TN_TOKEN_USER || v->type[i] == TN_TOKEN_UNKNOWN;
        if (special && v->text[i].n) s->ids[s->n++] = i;
    }
    qsort_r(s->ids, s->n, sizeof *s->ids, compare_texts, (void *)v);
    size_t k = 0;
    for (int b = 0; b <= 256; b++) {
        while (k < s->n && (unsigned char)v->text[s->ids[k]].p[0] < b) k++;
        s->first[b] = k;
    }
    return TN_OK;
}

void tn_special_close(tn_special *s) {
    tn_free(s->ids);
    *s = (tn_special){0};
}

/* Whether none of these bytes came from input. */
static bool trusted(const tn_special_scope *scope, size_t begin, size_t end) {
    size_t low = 0, high = scope->n_spans;
    while (low < high) { /* the first span that ends after begin */
        size_t middle = (low + high) / 2;
        if (scope->spans[middle].end > begin) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    for (; low < scope->n_spans && scope->spans[low].begin < end; low++) {
        if (scope->spans[low].from_input) return false;
    }
    return true;
}

static bool may_match(const tn_vocab *v, int32_t id, const tn_special_scope *scope, size_t at) {
    if (v->type[id] == TN_TOKEN_USER) return true;
    return scope->control && (!scope->spans || trusted(scope, at, at + v->text[id].n));
}

/* The first of ids [low, high), all equal before byte `depth`, whose byte there is at least ch. */
static size_t narrow(const tn_special *s, const tn_vocab *v, size_t low, size_t high, size_t depth, int ch) {
    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((unsigned char)v->text[s->ids[middle]].p[depth] >= ch) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* The longest token that may be recognised at `at`, of at most `limit` bytes; -1: none. */
static int32_t longest_at(const tn_special *s, const tn_vocab *v, tn_str text, size_t at, size_t limit,
                          const tn_special_scope *scope) {
    int ch = (unsigned char)text.p[at];
    size_t low = s->first[ch], high = s->first[ch + 1];
    int32_t best = -1;
    for (size_t depth = 1; low < high && depth <= limit; depth++) {
        for (bool found = false; low < high && v->text[s->ids[low]].n == depth; low++) {
            if (!found && may_match(v, s->ids[low], scope, at)) {
                best = s->ids[low];
                found = true;
            }
        }
        if (depth == limit) break;
        ch = (unsigned char)text.p[at + depth];
        low = narrow(s, v, low, high, depth, ch);
        high = narrow(s, v, low, high, depth, ch + 1);
    }
    return best;
}

/* ---- candidates, in the order in which they are tried ---- */

typedef struct candidate {
    size_t n; /* bytes */
    int32_t id;
    size_t at;
} candidate;

typedef struct candidates {
    candidate *v;
    size_t n, cap;
} candidates;

static bool before(const candidate *a, const candidate *b) {
    if (a->n != b->n) return a->n > b->n;
    return a->id != b->id ? a->id < b->id : a->at < b->at;
}

static void sift_down(candidates *c, size_t i) {
    candidate x = c->v[i];
    for (size_t child; (child = 2 * i + 1) < c->n; i = child) {
        if (child + 1 < c->n && before(&c->v[child + 1], &c->v[child])) child++;
        if (!before(&c->v[child], &x)) break;
        c->v[i] = c->v[child];
    }
    c->v[i] = x;
}

/* The longest candidate at each place. */
static bool collect(const tn_special *s, const tn_vocab *v, tn_str text, const tn_special_scope *scope,
                    candidates *c) {
    for (size_t at = 0; at < text.n; at++) {
        int ch = (unsigned char)text.p[at];
        if (s->first[ch] == s->first[ch + 1]) continue;
        int32_t id = longest_at(s, v, text, at, text.n - at, scope);
        if (id < 0) continue;
        if (c->n == c->cap) {
            size_t cap = c->cap ? c->cap * 2 : 64;
            candidate *p = tn_realloc(c->v, cap * sizeof *p);
            if (!p) return false;
            c->v = p;
            c->cap = cap;
        }
        c->v[c->n++] = (candidate){v->text[id].n, id, at};
    }
    for (size_t i = c->n / 2; i-- > 0;) sift_down(c, i);
    return true;
}

static void take(const tn_vocab *v, tn_str text, const candidate *x, int32_t *owner) {
    owner[x->at] = x->id + 1;
    for (size_t i = 1; i < x->n; i++) owner[x->at + i] = TN_OWNER_INSIDE;
    if (!(v->flags[x->id] & TN_TOKEN_STRIPS_RIGHT)) return;
    for (size_t i = x->at + x->n; i < text.n && owner[i] == TN_OWNER_TEXT; i++) {
        if (text.p[i] != ' ' && !(text.p[i] >= '\t' && text.p[i] <= '\r')) break;
        owner[i] = TN_OWNER_DROPPED;
    }
}

tn_status tn_special_find(const tn_special *s, const tn_vocab *v, tn_str text, const tn_special_scope *scope,
                          int32_t **owner, tn_error *err) {
    candidates c = {0};
    tn_status st = TN_OK;
    *owner = NULL;
    if (!collect(s, v, text, scope, &c)) st = tn_fail_memory(err);
    if (!st && c.n) {
        *owner = tn_alloc_zero(text.n, sizeof **owner);
        if (!*owner) st = tn_fail_memory(err);
    }
    while (!st && c.n) {
        candidate x = c.v[0];
        size_t room = 0; /* before another token's bytes */
        while (room < x.n && (*owner)[x.at + room] == TN_OWNER_TEXT) room++;
        int32_t shorter = room && room < x.n ? longest_at(s, v, text, x.at, room, scope) : -1;
        if (room == x.n) take(v, text, &x, *owner);
        if (shorter >= 0) {
            c.v[0] = (candidate){v->text[shorter].n, shorter, x.at};
        } else {
            c.v[0] = c.v[--c.n];
        }
        if (c.n) sift_down(&c, 0);
    }
    tn_free(c.v);
    return st;
}
