/* A model and a session on it, opened as the options say. */
#ifndef CLI_ENGINE_H
#define CLI_ENGINE_H

#include "options.h"

/* Zero is closed. */
typedef struct cli_engine {
    const cli_options *o;
    tn_model *model;
    tn_session *session;
    tn_model_info about;
    tn_session_info info;
} cli_engine;

/* Callbacks for the library, whose `data` are the options: information with -v only; progress as
 * cli_show_progress() shows it. */
void cli_on_log(void *data, tn_log_level level, const char *line);
void cli_on_progress(void *data, const char *what, double done);

bool cli_on_cpu(const cli_options *o);

/* The parts of a session that verbs choose for themselves. */
typedef struct cli_session_wish {
    const char *path; /* the model */
    int32_t threads, n_ctx, n_ubatch, n_seq;
    const char *fuse;
    bool all_logits;
    bool plan_only; /* the model is looked at, nothing will run */
} cli_session_wish;

/* What -m, -t, -c, -ub and --fuse say. */
cli_session_wish cli_default_wish(const cli_options *o);

tn_status cli_open_model(cli_engine *e, const cli_options *o, const cli_session_wish *wish, tn_error *err);
tn_status cli_open_vocab(cli_engine *e, const cli_options *o, tn_error *err); /* tokenizer and template only */
tn_status cli_open_session(cli_engine *e, const cli_session_wish *wish, tn_error *err);
tn_status cli_open(cli_engine *e, const cli_options *o, tn_error *err); /* model and session by the default wish */
void cli_close(cli_engine *e);

/* Appends ids to sequence 0; want: as in tn_batch. */
tn_status cli_feed(cli_engine *e, const int32_t *ids, size_t n, int want, tn_error *err);

/* With -v: load time and peak memory, on stderr. */
void cli_note_memory(const cli_engine *e);

#endif
