/* Opening a model and a session as the options say, with their talk on stderr. */
#include "engine.h"
#include "out.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

void cli_on_log(void *data, tn_log_level level, const char *line) {
    const cli_options *o = data;
    if (level == TN_LOG_WARN || o->verbose) cli_note(o, "%s", line);
}

void cli_on_progress(void *data, const char *what, double done) {
    cli_show_progress(data, what, done);
}

bool cli_on_cpu(const cli_options *o) {
    return !o->backend || !strncmp(o->backend, "cpu", 3);
}

/* All layers run on the backend: -ngl may only say so. Who asks for layers on a GPU and gets the CPU is told. */
static tn_status check_gpu_layers(const cli_options *o, int32_t n_layer, tn_error *err) {
    const char *said = o->gpu_layers;
    bool on_cpu = cli_on_cpu(o);
    if (!said || !strcmp(said, "-1")) return TN_OK;
    char *end;
    long n = strtol(said, &end, 10);
    bool number = end != said && !*end;
    if (on_cpu && number && n == 0) return TN_OK;
    if (!strcmp(said, "all") || (number && (n >= n_layer || n == 99))) {
        if (on_cpu) cli_note(o, "-ngl %s: all layers run on the CPU; -b cuda or -b webgpu picks a GPU", said);
        return TN_OK;
    }
    return cli_fail(err, TN_ERR_USAGE,
                    "-ngl %s: all %d layers run on the backend; only 'all' (or leaving it out) makes sense", said,
                    n_layer);
}

cli_session_wish cli_default_wish(const cli_options *o) {
    return (cli_session_wish){
        .path = o->model, .threads = o->threads, .n_ctx = o->n_ctx, .n_ubatch = o->n_ubatch, .fuse = o->fuse};
}

static tn_status open_model(cli_engine *e, const cli_options *o, const cli_session_wish *wish, bool vocab_only,
                            tn_error *err) {
    e->o = o;
    tn_model_options options = {
        .backend = o->backend,
        .threads = wish->threads,
        .log = cli_on_log,
        .progress = cli_on_progress,
        .data = (void *)o,
        .vocab_only = vocab_only,
        .plan_only = wish->plan_only,
        .cache_dir = o->cache_dir,
        .webgpu_lib = o->webgpu_lib,
    };
    tn_status status = tn_model_open(&e->model, wish->path, &options, err);
    if (status) return status;
    tn_model_get_info(e->model, &e->about);
    return check_gpu_layers(o, e->about.n_layer, err);
}

tn_status cli_open_model(cli_engine *e, const cli_options *o, const cli_session_wish *wish, tn_error *err) {
    return open_model(e, o, wish, false, err);
}

tn_status cli_open_vocab(cli_engine *e, const cli_options *o, tn_error *err) {
    return open_model(e, o, &(cli_session_wish){.path = o->model, .threads = 1}, true, err);
}

tn_status cli_open_session(cli_engine *e, const cli_session_wish *wish, tn_error *err) {
    tn_session_options options = {
        .n_ctx = wish->n_ctx,
        .n_seq = wish->n_seq,
        .n_ubatch = wish->n_ubatch,
        .kv_type = (tn_kv_type)e->o->kv_type,
        .act = (tn_act_type)e->o->act,
        .fuse = wish->fuse,
        .all_logits = wish->all_logits,
    };
    tn_status status = tn_session_open(&e->session, e->model, &options, err);
    if (!status) tn_session_get_info(e->session, &e->info);
    return status;
}

tn_status cli_open(cli_engine *e, const cli_options *o, tn_error *err) {
    cli_session_wish wish = cli_default_wish(o);
    tn_status status = cli_open_model(e, o, &wish, err);
    return status ? status : cli_open_session(e, &wish, err);
}

void cli_close(cli_engine *e) {
    tn_session_close(&e->session);
    tn_model_close(&e->model);
}

tn_status cli_feed(cli_engine *e, const int32_t *ids, size_t n, int want, tn_error *err) {
    tn_batch batch = {.ids = ids, .n_tokens = (int32_t)n, .want = want};
    return n ? tn_step(e->session, &batch, err) : TN_OK;
}

void cli_note_memory(const cli_engine *e) {
    if (!e->o->verbose) return;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    cli_note(e->o, "load time = %.2f ms, peak memory = %.1f MiB", 1e3 * e->about.load_seconds,
             (double)usage.ru_maxrss / 1024);
}
