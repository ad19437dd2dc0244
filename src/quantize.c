/* Quantising a file: its metadata are kept, each tensor gets the type that the mix names (mix.def), and tensor after
 * tensor is converted on its way into the new file, so that only one of them need fit into memory. */
#include "base/mem.h"
#include "base/thread.h"
#include "mix.h"
#include "model/model.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    PIECE = 8192,    /* elements that a thread converts at a time: whole blocks of every type */
    SLAB = 1 << 24,  /* elements between two reports of progress */
    GGML_VERSION = 2 /* general.quantization_version: of the block layouts */
};

typedef struct job {
    const tn_quantize_options *o;
    tn_gguf *in;
    tn_gguf_writer *out;
    tn_pool *pool;
    tn_mix mix;
    uint64_t bytes, done; /* of the input's tensors; those before the one at hand */
    int n_unfit;
} job;

/* ---- one tensor ---- */

typedef struct task {
    const tn_type_info *from, *to;
    const uint8_t *src;
    uint8_t *dst;
    size_t n;
    atomic_size_t next;
    atomic_bool refused;
} task;

static bool all_finite(const float *x, size_t n) {
    bool fine = true;
    for (size_t i = 0; i < n; i++) fine &= fabsf(x[i]) <= FLT_MAX;
    return fine;
}

/* What the new type cannot hold shows in what is read back: scales that overflow. How large values may be for that depends on
 * the type, and on the rest of their block. */
static void convert(void *arg, int thread, int n_threads) {
    (void)thread, (void)n_threads;
    task *t = arg;
    size_t from = (size_t)t->from->block, to = (size_t)t->to->block, first;
    float x[PIECE];
    while ((first = atomic_fetch_add(&t->next, PIECE)) < t->n) {
        size_t n = t->n - first < PIECE ? t->n - first : PIECE;
        uint8_t *dst = t->dst + first / to * (size_t)t->to->bytes;
        t->from->decode(t->src + first / from * (size_t)t->from->bytes, x, n);
        bool fine = all_finite(x, n);
        t->to->encode(x, dst, n);
        t->to->decode(dst, x, n);
        if (!fine || !all_finite(x, n)) atomic_store(&t->refused, true);
    }
}

/* tn_gguf_fill: the converted data of tensor t of the new file. */
static tn_status fill(void *data, const tn_gguf_tensor *t, void *dst, tn_error *err) {
    job *j = data;
    const tn_gguf_tensor *old = tn_gguf_tensor_find(j->in, t->name);
    const tn_type_info *from = tn_type_get(old->type), *to = tn_type_get(t->type);
    size_t n = old->bytes / (size_t)from->bytes * (size_t)from->block;
    for (size_t first = 0; first < n; first += SLAB) {
        task piece = {.from = from, .to = to, .n = n - first < SLAB ? n - first : SLAB};
        piece.src = (const uint8_t *)old->data + first / (size_t)from->block * (size_t)from->bytes;
        piece.dst = (uint8_t *)dst + first / (size_t)to->block * (size_t)to->bytes;
        if (j->o->progress) {
            double here = (double)old->bytes * (double)first / (double)n;
            j->o->progress(j->o->data, "quantising", ((double)j->done + here) / (double)j->bytes);
        }
        tn_pool_run(j->pool, convert, &piece);
        if (piece.refused)
            return tn_fail(err, TN_ERR_INPUT, "tensor %s has values that %s cannot hold", t->name, to->name);
    }
    j->done += old->bytes;
    tn_gguf_drop_pages(j->in, old->data, old->bytes);
    return TN_OK;
}

/* ---- the plan ---- */

static void say(const job *j, tn_log_level level, const char *line) {
    if (j->o->log) j->o->log(j->o->data, level, line);
}

static tn_status plan_tensor(job *j, const tn_gguf_tensor *old, tn_error *err) {
    tn_gguf_tensor t = *old;
    bool fell_back;
    char line[200];
    const char *old_name = tn_type_name(old->type);
    if (!old->data)
        return tn_fail(err, TN_ERR_INPUT, "tensor %s has type %s (%u), which tenon cannot read", old->name,
                       old_name ? old_name : "unknown", old->type);
    t.type = tn_mix_type(&j->mix, old, &fell_back);
    j->n_unfit += fell_back;
    snprintf(line, sizeof line, "%-40s %s -> %s%s", old->name, old_name, tn_type_name(t.type),
             fell_back ? " (its rows are not whole blocks of the type wanted)" : "");
    say(j, TN_LOG_INFO, line);
    if (t.type == old->type) {
        tn_gguf_put_tensor(j->out, &t, NULL, NULL);
        return TN_OK;
    }
    if (tn_is_quantized(old->type) && !j->o->allow_requantize)
        return tn_fail(
            err, TN_ERR_USAGE,
            "tensor %s is quantised already (%s): start from F32, F16 or BF16, or lose more precision with "
            "--allow-requantize",
            old->name, old_name);
    j->bytes += old->bytes;
    tn_gguf_put_tensor(j->out, &t, fill, j);
    return TN_OK;
}

static int32_t hparam(const tn_gguf *in, const char *arch, const char *suffix, int32_t otherwise) {
    tn_hp_layer(in, arch, suffix, 0, &otherwise, NULL); /* one that makes no sense is as good as none here */
    return otherwise;
}

/* What the mix must know of the model; a file without these keys is taken for a small model. */
static void describe(job *j) {
    char arch[64];
    tn_str name = {"", 0};
    tn_gguf_get_str(j->in, "general.architecture", &name);
    snprintf(arch, sizeof arch, "%.*s", (int)name.n, name.p);
    j->mix.n_layer = hparam(j->in, arch, "block_count", 0);
    j->mix.n_expert = hparam(j->in, arch, "expert_count", 0);
    j->mix.n_head = hparam(j->in, arch, "attention.head_count", 1);
    j->mix.n_kv = hparam(j->in, arch, "attention.head_count_kv", j->mix.n_head);
    for (size_t i = 0; i < tn_gguf_n_tensors(j->in); i++) tn_mix_see(&j->mix, tn_gguf_tensor_at(j->in, i)->name);
}

/* The keys of the old file, but those that tell of its type and of its parts. */
static void put_keys(job *j) {
    static const char *const dropped[] = {"general.file_type", "general.quantization_version", "split.no",
                                          "split.count", "split.tensors.count"};
    for (size_t i = 0; i < tn_gguf_n_kv(j->in); i++) {
        const tn_gguf_kv *kv = tn_gguf_kv_at(j->in, i);
        bool keep = true;
        for (size_t k = 0; k < sizeof dropped / sizeof *dropped; k++) keep &= !tn_str_is(kv->key, dropped[k]);
        if (keep) tn_gguf_put(j->out, kv);
    }
    tn_gguf_put_u32(j->out, "general.quantization_version", GGML_VERSION);
    tn_gguf_put_u32(j->out, "general.file_type", j->mix.file_type->number);
}

static tn_status plan(job *j, tn_error *err) {
    tn_status status = TN_OK;
    describe(j);
    put_keys(j);
    for (size_t i = 0; i < tn_gguf_n_tensors(j->in) && !status; i++)
        status = plan_tensor(j, tn_gguf_tensor_at(j->in, i), err);
    if (status || !j->n_unfit) return status;
    char line[120];
    snprintf(line, sizeof line, "%d of %zu tensors got another type, because their rows are not whole blocks",
             j->n_unfit, tn_gguf_n_tensors(j->in));
    say(j, TN_LOG_WARN, line);
    return TN_OK;
}

/* ---- the files ---- */

static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Whether writing `out` would write over the model in `in`, or another part of it. */
static bool writes_over(const char *in, const char *out) {
    size_t n = strlen(in), suffix = strlen("-00001-of-00001.gguf");
    unsigned no, count = 1;
    char part[4096];
    if (same_file(in, out)) return true;
    if (n < suffix || n >= sizeof part || sscanf(in + n - suffix, "-%5u-of-%5u.gguf", &no, &count) != 2) return false;
    for (no = 2; no <= count; no++) {
        snprintf(part, sizeof part, "%.*s-%05u-of-%05u.gguf", (int)(n - suffix), in, no, count);
        if (same_file(part, out)) return true;
    }
    return false;
}

static tn_status check_paths(const char *in, const char *out, tn_error *err) {
    tn_buf tmp = {0};
    tn_status status = TN_OK;
    tn_buf_printf(&tmp, "%s.tmp", out); /* what the writer writes first */
    if (tmp.failed)
        status = tn_fail_memory(err);
    else if (writes_over(in, out) || writes_over(in, tmp.p))
        status = tn_fail(err, TN_ERR_USAGE, "%.200s: the new file would take the place of the old one", out);
    tn_buf_free(&tmp);
    return status;
}

tn_status tn_quantize_file(const char *in, const char *out, const tn_quantize_options *options, tn_error *err) {
    job j = {.o = options, .mix.pure = options->pure};
    tn_status status = tn_file_type_find(&j.mix.file_type, options->type ? options->type : "", err);
    if (!status) status = tn_gguf_open(&j.in, in, err);
    if (!status) status = check_paths(in, out, err);
    if (!status) status = tn_pool_open(&j.pool, options->threads, err);
    if (!status) status = tn_gguf_writer_open(&j.out, err);
    if (!status) status = plan(&j, err);
    if (!status) status = tn_gguf_writer_save(j.out, out, err);
    if (!status && options->progress) options->progress(options->data, "quantising", 1);
    tn_gguf_writer_close(&j.out);
    tn_pool_close(&j.pool);
    tn_gguf_close(&j.in);
    return status;
}
