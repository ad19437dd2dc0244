#include "text/merge.h"

#include "base/half.h"
#include "base/hash.h"
#include "base/mem.h"

/* ---- the table of merges ---- */

static tn_merge_slot *find_slot(const tn_merges *m, int32_t left, int32_t right) {
    uint64_t h = tn_hash_add(tn_hash_add(tn_hash_begin(m->slots), (uint32_t)left), (uint32_t)right);
    size_t i = (size_t)h & (m->n_slots - 1);
    while (m->slots[i].left >= 0 && (m->slots[i].left != left || m->slots[i].right != right))
        i = (i + 1) & (m->n_slots - 1);
    return &m->slots[i];
}

/* "left right": cut at the first space that is not the first byte. */
static tn_status add_merge(tn_merges *m, tn_vocab *v, tn_str line, uint32_t rank, tn_buf *joined, tn_error *err) {
    const char *space = line.n > 1 ? memchr(line.p + 1, ' ', line.n - 1) : NULL;
    if (!space) return TN_OK; /* merges nothing */
    size_t n = (size_t)(space - line.p);
    joined->n = 0;
    tn_buf_add(joined, line.p, n);
    tn_buf_add(joined, space + 1, line.n - n - 1);
    if (joined->failed) return tn_fail_memory(err);
    int32_t left = tn_vocab_intern(v, (tn_str){line.p, n});
    int32_t right = tn_vocab_intern(v, (tn_str){space + 1, line.n - n - 1});
    int32_t result = tn_vocab_intern(v, (tn_str){joined->p, joined->n});
    if (left < 0 || right < 0 || result < 0) return tn_fail_memory(err);
    tn_merge_slot *slot = find_slot(m, left, right);
    if (slot->left < 0) *slot = (tn_merge_slot){left, right, result, rank};
    return TN_OK;
}

tn_status tn_merges_open(tn_merges *m, tn_vocab *v, const tn_gguf *g, tn_error *err) {
    tn_gguf_array lines;
    if (!tn_gguf_get_array(g, "tokenizer.ggml.merges", TN_GGUF_STR, &lines)) {
        return tn_fail(err, TN_ERR_INPUT, "the file has no merges (tokenizer.ggml.merges)");
    }
    if (lines.n > 1 << 28) return tn_fail(err, TN_ERR_INPUT, "tokenizer.ggml.merges is too long");
    m->n_slots = 16;
    while (m->n_slots < lines.n * 2) m->n_slots *= 2;
    m->slots = tn_alloc(m->n_slots * sizeof *m->slots);
    if (!m->slots) return tn_fail_memory(err);
    memset(m->slots, 0xff, m->n_slots * sizeof *m->slots);
    tn_buf joined = {0};
    tn_status st = TN_OK;
    for (uint64_t i = 0; !st && i < lines.n; i++) st = add_merge(m, v, lines.strs[i], (uint32_t)i, &joined, err);
    tn_buf_free(&joined);
    return st;
}

void tn_merges_close(tn_merges *m) {
    tn_free(m->slots);
    *m = (tn_merges){0};
}

/* ---- merging a word ---- */

void tn_merger_free(tn_merger *w) {
    tn_free(w->symbols);
    tn_free(w->heap);
    *w = (tn_merger){0};
}

static bool reserve(tn_merger *w, void **p, size_t n, size_t *cap, size_t size) {
    if (n < *cap || w->failed) return !w->failed;
    size_t more = *cap ? *cap * 2 : 64;
    void *q = tn_realloc(*p, more * size);
    if (!q) return !(w->failed = true);
    *p = q;
    *cap = more;
    return true;
}

void tn_merger_add(tn_merger *w, int32_t id, size_t begin, size_t n) {
    if (!reserve(w, (void **)&w->symbols, w->n_symbols, &w->cap_symbols, sizeof *w->symbols)) return;
    int32_t i = (int32_t)w->n_symbols++;
    w->symbols[i] = (tn_symbol){.id = id, .prev = i - 1, .next = -1, .begin = (uint32_t)begin, .n = (uint32_t)n};
    if (i) w->symbols[i - 1].next = i;
}

static void sift_up(tn_pair *heap, size_t i) {
    tn_pair p = heap[i];
    for (; i && heap[(i - 1) / 2].key > p.key; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = p;
}

static tn_pair pop(tn_merger *w) {
    tn_pair top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_heap; i = child) {
        if (child + 1 < w->n_heap && w->heap[child + 1].key < w->heap[child].key) child++;
        if (w->heap[child].key >= last.key) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

/* A float as an integer that is the lesser, the greater the float. */
static uint32_t descending(float f) {
    uint32_t bits = tn_float_bits(f + 0.0f);
    return bits >> 31 ? bits : ~(bits | 0x80000000u);
}

/* Puts the pair of two neighbours on the heap, if it may be merged. */
static void consider(tn_merger *w, const char *text, int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const tn_symbol *a = &w->symbols[left], *b = &w->symbols[right];
    tn_pair p = {.right = right, .bytes = a->n + b->n, .result = -1};
    uint32_t order = 0;
    if (w->merges) {
        const tn_merge_slot *slot = a->id >= 0 && b->id >= 0 ? find_slot(w->merges, a->id, b->id) : NULL;
        if (slot && slot->left >= 0) {
            p.result = slot->result;
            order = slot->rank;
        }
    } else if (p.bytes <= w->vocab->longest) {
        p.result = tn_vocab_find(w->vocab, (tn_str){text + a->begin, p.bytes});
        if (p.result >= 0) order = descending(w->vocab->score[p.result]);
    }
    if (p.result < 0 || !reserve(w, (void **)&w->heap, w->n_heap, &w->cap_heap, sizeof *w->heap)) return;
    p.key = (uint64_t)order << 32 | (uint32_t)left;
    w->heap[w->n_heap] = p;
    sift_up(w->heap, w->n_heap++);
}

void tn_merger_run(tn_merger *w, const char *text) {
    w->n_heap = 0;
    for (size_t i = 1; i < w->n_symbols; i++) consider(w, text, (int32_t)i - 1, (int32_t)i);
    while (w->n_heap && !w->failed) {
        tn_pair p = pop(w);
        int32_t left = (int32_t)(uint32_t)p.key;
        tn_symbol *a = &w->symbols[left], *b = &w->symbols[p.right];
        if (a->n == 0 || b->n == 0 || a->n + b->n != p.bytes) continue;
        a->n += b->n;
        a->id = p.result;
        a->next = b->next;
        b->n = 0;
        if (a->next >= 0) w->symbols[a->next].prev = left;
        consider(w, text, a->prev, left);
        consider(w, text, left, a->next);
    }
}
