/* Opening a model: file, vocabulary, hyper-parameters, device, weights. */
#include "base/clock.h"
#include "base/mem.h"
#include "engine.h"
#include "mix.h"

#include <stdio.h>
#include <string.h>

/* NULL where the file has no such key; false: out of memory. */
static bool copy_str(char **out, const tn_gguf *g, const char *key) {
    tn_str s;
    *out = NULL;
    return !tn_gguf_get_str(g, key, &s) || (*out = tn_strndup(s.p, s.n));
}

void tn_model_close(tn_model **model) {
    tn_model *m = *model;
    if (!m) return;
    if (m->device) m->backend->close(&m->device);
    tn_tokenizer_close(&m->tokenizer);
    tn_weight_table_free(&m->weights);
    tn_gguf_close(&m->file);
    tn_free(m->chat_template);
    tn_free(m->architecture);
    tn_free(m->name);
    tn_free(m);
    *model = NULL;
}

/* The size as the file's label has it, else counted. */
static void name_type(tn_model *m) {
    char size[24];
    tn_str label;
    uint32_t number = UINT32_MAX;
    bool large = m->n_params >= 1000000000;
    if (tn_gguf_get_str(m->file, "general.size_label", &label))
        snprintf(size, sizeof size, "%.*s", (int)(label.n < sizeof size ? label.n : sizeof size), label.p);
    else
        snprintf(size, sizeof size, large ? "%.1fB" : "%.0fM", (double)m->n_params / (large ? 1e9 : 1e6));
    tn_gguf_get_u32(m->file, "general.file_type", &number);
    snprintf(m->type, sizeof m->type, "%.40s %s %s", m->architecture, size, tn_file_type_words(number));
}

/* What the file says about itself, apart from the weights. A file without a vocabulary is a model all the same. */
static tn_status read_file(tn_model *m, tn_error *err) {
    if (!copy_str(&m->architecture, m->file, "general.architecture") ||
        !copy_str(&m->name, m->file, "general.name") ||
        !copy_str(&m->chat_template, m->file, "tokenizer.chat_template"))
        return tn_fail_memory(err);
    if (!m->architecture) return tn_fail(err, TN_ERR_INPUT, "the file has no general.architecture");
    for (size_t i = 0; i < tn_gguf_n_tensors(m->file); i++) {
        const tn_gguf_tensor *t = tn_gguf_tensor_at(m->file, i);
        m->tensor_bytes += t->bytes;
        m->n_params += (uint64_t)t->ne[0] * (uint64_t)t->ne[1] * (uint64_t)t->ne[2] * (uint64_t)t->ne[3];
    }
    name_type(m);
    tn_status status = tn_tokenizer_open(&m->tokenizer, m->file, &m->no_tokenizer);
    if (status != TN_ERR_RESOURCES) return TN_OK;
    return tn_fail_memory(err);
}

tn_status tn_engine_open_device(const tn_backend **backend, tn_device **device, const char *name,
                                const tn_device_options *options, tn_error *err) {
    tn_device_options o = *options;
    *backend = tn_backend_find(name, &o.variant);
    if (!*backend) {
        char names[128] = "";
        for (int i = 0; tn_backend_at(i); i++) {
            const tn_backend *b = tn_backend_at(i);
            size_t n = strlen(names);
            if (!b->hidden) snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", b->name);
        }
        return tn_fail(err, TN_ERR_USAGE, "no backend is called '%s'; there are: %s", name, names);
    }
    return (*backend)->open(device, &o, err);
}

typedef struct loading {
    tn_model *m;
    const tn_model_options *o;
} loading;

/* What has been copied of a weight to the device is not needed in memory any more; what has not will be read again. */
static void stored(void *data, int32_t weight, int32_t rows, double share) {
    loading *l = data;
    if (weight >= 0) {
        const tn_weight *w = l->m->weights.p[weight];
        const char *from = w->data, *last = tn_weight_row(w, rows - 1);
        tn_gguf_drop_pages(l->m->file, from, (size_t)(last - from) + w->bytes / (size_t)w->n_out);
    }
    if (l->o->progress) l->o->progress(l->o->data, "loading weights", share);
}

/* The weights are those that a graph of the model uses. */
static tn_status load_weights(tn_model *m, const tn_model_options *o, tn_error *err) {
    m->arch = tn_arch_find(tn_str_of(m->architecture));
    if (!m->arch)
        return tn_fail(err, TN_ERR_INPUT, "tenon does not know the architecture '%.64s'; it knows: %s",
                       m->architecture, tn_arch_names());
    tn_status status = m->arch->read(&m->hp, m->file, err);
    if (status != TN_OK) return status;
    tn_graph g;
    tn_phase_shape shape = {.max_tokens = 1, .max_outputs = 1, .one_token = true};
    status = tn_model_build(&g, m->arch, &m->hp, m->file, &m->weights, &shape, err);
    if (status != TN_OK) return status;
    tn_graph_free(&g);
    if (o->plan_only)
        return m->backend->place_weights ? m->backend->place_weights(m->device, m->weights.p, m->weights.n, err)
                                         : TN_OK;
    loading l = {m, o};
    return m->backend->put_weights(m->device, m->weights.p, m->weights.n, stored, &l, err);
}

/* After the file is open. */
static tn_status fill_model(tn_model *m, const tn_model_options *o, tn_error *err) {
    tn_status status = read_file(m, err);
    if (status == TN_OK && o->vocab_only && !m->tokenizer)
        return tn_fail(err, TN_ERR_INPUT, "%s", m->no_tokenizer.text);
    if (status != TN_OK || o->vocab_only) return status;
    tn_device_options device = {.threads = o->threads, .cache_dir = o->cache_dir, .webgpu_lib = o->webgpu_lib};
    status = tn_engine_open_device(&m->backend, &m->device, o->backend ? o->backend : "cpu", &device, err);
    return status == TN_OK ? load_weights(m, o, err) : status;
}

tn_status tn_engine_open_file(tn_model **model, tn_gguf **file, const tn_model_options *options, tn_error *err) {
    static const tn_model_options defaults = {0};
    *model = NULL;
    double start = tn_seconds();
    tn_model *m = tn_alloc_zero(1, sizeof *m);
    if (!m) {
        tn_gguf_close(file);
        return tn_fail_memory(err);
    }
    const tn_model_options *o = options ? options : &defaults;
    m->file = *file;
    *file = NULL;
    m->plan_only = o->plan_only;
    m->log = o->log;
    m->log_data = o->data;
    tn_status status = fill_model(m, o, err);
    if (status != TN_OK) {
        tn_model_close(&m);
        return status;
    }
    m->load_seconds = tn_seconds() - start;
    if (m->device && !m->plan_only)
        tn_engine_log(m, TN_LOG_INFO, "%s on %s: %.1f MiB of weights", m->architecture,
                      m->backend->caps(m->device)->description,
                      (double)m->backend->weight_bytes(m->device) / (1 << 20));
    if (!m->tokenizer) tn_engine_log(m, TN_LOG_INFO, "no vocabulary: %s", m->no_tokenizer.text);
    *model = m;
    return TN_OK;
}

tn_status tn_model_open(tn_model **model, const char *path, const tn_model_options *options, tn_error *err) {
    tn_gguf *file;
    *model = NULL;
    tn_status status = tn_gguf_open(&file, path, err);
    return status == TN_OK ? tn_engine_open_file(model, &file, options, err) : status;
}

void tn_model_get_info(const tn_model *m, tn_model_info *info) {
    *info = (tn_model_info){
        .architecture = m->architecture,
        .name = m->name ? m->name : "",
        .type = m->type,
        .backend = m->device ? m->backend->caps(m->device)->description : "",
        .n_vocab = m->device      ? m->hp.n_vocab
                   : m->tokenizer ? tn_tokenizer_n_vocab(m->tokenizer)
                                  : 0,
        .n_layer = m->hp.n_layer,
        .n_embd = m->hp.n_embd,
        .n_ctx_train = m->hp.n_ctx_train,
        .n_params = m->n_params,
        .file_bytes = m->tensor_bytes,
        .weight_bytes = m->device && !m->plan_only ? m->backend->weight_bytes(m->device) : 0,
        .load_seconds = m->load_seconds,
    };
}
