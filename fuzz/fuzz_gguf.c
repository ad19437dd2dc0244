/* Any bytes as a GGUF file: an error, or a file of which every byte may be read and which, written again, says the same. */
#include "base/mem.h"
#include "gguf/gguf.h"
#include "gguf_mutate.h"

#include <string.h>
#include <unistd.h>

static volatile uint64_t g_sink; /* what was read, so that reading is not optimised away */

static void touch(const void *p, size_t n) {
    for (size_t i = 0; i < n; i++) g_sink += ((const uint8_t *)p)[i];
}

static void touch_kv(const tn_gguf_kv *kv) {
    touch(kv->key.p, kv->key.n);
    if (kv->type == TN_GGUF_STR) touch(kv->str.p, kv->str.n);
    if (kv->type != TN_GGUF_ARRAY) return;
    for (uint64_t i = 0; i < kv->array.n; i++) {
        if (kv->array.strs)
            touch(kv->array.strs[i].p, kv->array.strs[i].n);
        else
            g_sink += tn_gguf_array_number(&kv->array, i) > 0;
    }
}

/* Whether a tensor can be written: the reader also lets pass, for inspection, what tenon cannot read. */
static bool writable(const tn_gguf *g) {
    for (size_t i = 0; i < tn_gguf_n_tensors(g); i++)
        if (!tn_gguf_tensor_at(g, i)->data || !tn_gguf_tensor_at(g, i)->name[0]) return false;
    for (size_t i = 0; i < tn_gguf_n_kv(g); i++)
        if (!tn_gguf_kv_at(g, i)->key.n) return false;
    return true;
}

static bool same_kv(const tn_gguf_kv *a, const tn_gguf_kv *b) {
    if (!tn_str_eq(a->key, b->key) || a->type != b->type) return false;
    if (a->type == TN_GGUF_STR) return tn_str_eq(a->str, b->str);
    if (a->type != TN_GGUF_ARRAY) return !memcmp(&a->u, &b->u, 8);
    if (a->array.type != b->array.type || a->array.n != b->array.n) return false;
    for (uint64_t i = 0; i < a->array.n; i++) {
        if (a->array.strs && !tn_str_eq(a->array.strs[i], b->array.strs[i])) return false;
        if (a->array.strs) continue;
        double x = tn_gguf_array_number(&a->array, i), y = tn_gguf_array_number(&b->array, i);
        if (memcmp(&x, &y, sizeof x)) return false;
    }
    return true;
}

static void same_file(const tn_gguf *a, const tn_gguf *b) {
    FUZZ_CHECK(tn_gguf_n_kv(a) == tn_gguf_n_kv(b) && tn_gguf_n_tensors(a) == tn_gguf_n_tensors(b));
    for (size_t i = 0; i < tn_gguf_n_kv(a); i++) FUZZ_CHECK(same_kv(tn_gguf_kv_at(a, i), tn_gguf_kv_at(b, i)));
    for (size_t i = 0; i < tn_gguf_n_tensors(a); i++) {
        const tn_gguf_tensor *s = tn_gguf_tensor_at(a, i), *t = tn_gguf_tensor_at(b, i);
        FUZZ_CHECK(!strcmp(s->name, t->name) && s->type == t->type && s->n_dims == t->n_dims && s->bytes == t->bytes);
        FUZZ_CHECK(!memcmp(s->ne, t->ne, sizeof s->ne) && !memcmp(s->data, t->data, s->bytes));
    }
}

static void round_trip(const tn_gguf *g) {
    static char path[64];
    if (!path[0]) snprintf(path, sizeof path, "/tmp/tenon-fuzz-%d.gguf", (int)getpid());
    tn_gguf_writer *w;
    tn_gguf *again;
    tn_error err;
    FUZZ_CHECK(tn_gguf_writer_open(&w, &err) == TN_OK);
    for (size_t i = 0; i < tn_gguf_n_kv(g); i++) tn_gguf_put(w, tn_gguf_kv_at(g, i));
    for (size_t i = 0; i < tn_gguf_n_tensors(g); i++) tn_gguf_put_tensor(w, tn_gguf_tensor_at(g, i), NULL, NULL);
    tn_status status = tn_gguf_writer_save(w, path, &err);
    if (status == TN_OK) {
        status = tn_gguf_open(&again, path, &err);
        if (status != TN_OK) fprintf(stderr, "%s\n", err.text);
        FUZZ_CHECK(status == TN_OK);
        same_file(g, again);
        tn_gguf_close(&again);
    } else {
        FUZZ_CHECK(status == TN_ERR_USAGE); /* an alignment that the writer does not take */
    }
    unlink(path);
    tn_gguf_writer_close(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    tn_gguf *g;
    tn_error err = {0};
    tn_status status = tn_gguf_open_memory(&g, data, n, &err);
    if (status != TN_OK) {
        FUZZ_CHECK(status == TN_ERR_INPUT && err.code == status && err.text[0] && !strchr(err.text, '\n'));
        return 0;
    }
    for (size_t i = 0; i < tn_gguf_n_kv(g); i++) touch_kv(tn_gguf_kv_at(g, i));
    for (size_t i = 0; i < tn_gguf_n_tensors(g); i++)
        touch(tn_gguf_tensor_at(g, i)->data, tn_gguf_tensor_at(g, i)->bytes);
    if (writable(g)) round_trip(g);
    tn_gguf_close(&g);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed) {
    return tn_fuzz_mutate_gguf(data, n, max, seed);
}
