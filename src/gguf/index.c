/* The hash table from names to their numbers, of a reader's keys and tensors and of a writer's. */
#include "base/hash.h"
#include "base/mem.h"
#include "gguf/reader.h"

/* The slot of a name, or the free one where it belongs. */
static tn_gguf_slot *slot_of(const tn_gguf_index *index, tn_str name) {
    size_t i = tn_hash_str(index->slots, name);
    for (;; i++) {
        tn_gguf_slot *s = &index->slots[i & (index->n_slots - 1)];
        if (!s->name.p || tn_str_eq(s->name, name)) return s;
    }
}

bool tn_gguf_index_find(const tn_gguf_index *index, tn_str name, size_t *number) {
    if (!index->n_slots) return false;
    const tn_gguf_slot *s = slot_of(index, name);
    if (s->name.p) *number = s->number;
    return s->name.p != NULL;
}

bool tn_gguf_index_reserve(tn_gguf_index *index, tn_arena *arena, size_t more) {
    tn_gguf_index old = *index;
    size_t n = old.n_slots ? old.n_slots : 4, bytes;
    while (n / 2 < old.used + more) n *= 2;
    if (n == old.n_slots) return true;
    tn_gguf_slot *slots = tn_mul_size(n, sizeof *slots, &bytes) ? tn_arena_alloc(arena, bytes) : NULL;
    if (!slots) return false;
    index->slots = slots;
    index->n_slots = n;
    for (size_t i = 0; i < old.n_slots; i++) {
        if (old.slots[i].name.p) *slot_of(index, old.slots[i].name) = old.slots[i];
    }
    return true;
}

bool tn_gguf_index_add(tn_gguf_index *index, tn_str name, size_t number) {
    tn_gguf_slot *s = slot_of(index, name);
    if (s->name.p) return false;
    *s = (tn_gguf_slot){name, number};
    index->used++;
    return true;
}
